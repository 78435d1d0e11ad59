"""Sizes and errors on real arrays: VREKIT_TEST_DATA names a folder that holds arrays/ (see tools/bench_codecs.py)."""

import io
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.codecs.codec_samples import Array
from vrekit.codecs.registry import codec_for, default_codec
from vrekit.codecs.store_as import as_probabilities
from vrekit.core.spec import Kind, OutputSpec

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif("VREKIT_TEST_DATA" not in os.environ, reason="VREKIT_TEST_DATA is not set"),
]


def load(name: str) -> Array:
    array: Array = np.load(Path(os.environ["VREKIT_TEST_DATA"]) / "arrays" / f"{name}.npy")
    return array


def npz_bytes(array: Array) -> int:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, array)
    return buffer.tell()


def stored(array: Array, kind: Kind, axes: str, option: Any = None, **more: Any) -> tuple[int, Array]:
    """Return payload bytes and what comes back."""
    codec = codec_for(option, OutputSpec(kind=kind, dtype=array.dtype.name, shape=array.shape, axes=axes, **more))
    data = codec.encode(array)
    return len(data), codec.decode(data, dtype=array.dtype, shape=array.shape)


@pytest.mark.parametrize(("scale", "against_float32", "against_float16"), [(4, 30, 16), (1, 15, 9)])
def test_logits_are_small_and_their_winners_exact(scale: int, against_float32: int, against_float16: int) -> None:
    quarter = load("logits_q19")
    size = (scale * quarter.shape[2], scale * quarter.shape[1])
    logits = np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in quarter])
    spec = OutputSpec(kind=Kind.LOGITS, dtype="float32", shape=logits.shape, axes="CHW")
    codec = default_codec(spec)
    data = codec.encode(logits)
    decoded = codec.decode(data, dtype=logits.dtype, shape=logits.shape)
    assert npz_bytes(logits) >= against_float32 * len(data)
    assert npz_bytes(logits.astype(np.float16)) >= against_float16 * len(data)
    assert np.array_equal(decoded.argmax(axis=0), logits.argmax(axis=0))
    p, q = (as_probabilities(scores.astype(np.float64), spec).data for scores in (logits, decoded))
    assert float((p * np.log(p / q)).sum(axis=0).mean()) <= 1e-4


def test_depth() -> None:
    relative, metres = load("depth_rel"), load("depth_metric")
    size, decoded = stored(relative, Kind.DEPTH, "HW", value_range=(0.0, 1.0))
    assert npz_bytes(relative) >= 3.3 * size
    assert np.abs(decoded.astype(np.float64) - relative).max() <= 8e-6
    size, decoded = stored(metres, Kind.DEPTH, "HW", unit="m", value_range=(0.0, 65.0))
    assert npz_bytes(metres) >= 5 * size
    rounding = np.spacing(metres.max()) / 2  # of float32: a thousandth of a millimetre
    assert np.abs(decoded.astype(np.float64) - metres).max() <= 0.0005 + rounding


def test_flow_normals_edges_and_colour() -> None:
    flow = load("flow_dis")
    size, decoded = stored(flow, Kind.FLOW, "HWC", unit="px")
    assert npz_bytes(flow) >= 11 * size
    assert np.abs(decoded - flow).max() <= 1 / 128

    normals = load("normals")
    size, decoded = stored(normals, Kind.NORMALS, "HWC")
    assert npz_bytes(normals) >= 6 * size
    one, two = normals.astype(np.float64), decoded.astype(np.float64)
    angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(one, two), axis=-1), (one * two).sum(axis=-1)))
    assert angle.mean() <= 0.1
    assert angle.max() <= 0.25

    edges = load("edges")
    size, decoded = stored(edges, Kind.EDGES, "HW", value_range=(0.0, 1.0))
    assert npz_bytes(edges) >= 19 * size
    assert np.abs(decoded - edges).max() <= 1 / 510 + 1e-7

    rgb = load("rgb")
    for option in (None, "rgb-delta"):
        size, decoded = stored(rgb, Kind.COLOR, "HWC", option)
        assert npz_bytes(rgb) >= 2 * size
        assert np.array_equal(decoded, rgb)
