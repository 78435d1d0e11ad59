#!/usr/bin/env python
"""Measure codecs on a folder of arrays and print docs/codecs.md's table.

The folder holds one frame each of `rgb`, `argmax19`, `superpix_u16`, `depth_rel`, `depth_metric`, `normals`,
`flow_dis`, `edges`, `logits_q19` as `.npy`; those that are missing are left out. Logits are also measured after
bilinear up-sampling by 4; masks are made from `argmax19`, boxes are drawn at random. Speeds are MB of the raw array
per CPU second of one thread, the best of some runs; decoding goes into memory that is there already.
`np.savez_compressed` is measured the same way.

    OMP_NUM_THREADS=1 tools/bench_codecs.py ARRAYS > table.md
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zstandard
from numpy.typing import NDArray

from vrekit.codecs.measure import Measurement, compare, in_words, measure, measure_npz, timed
from vrekit.codecs.registry import codec_for
from vrekit.core.spec import Kind, OutputSpec

Array = NDArray[Any]
Option = str | Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """Frames of one kind and the codecs to measure on them."""

    title: str
    arrays: tuple[Array, ...]
    spec: OutputSpec
    options: tuple[tuple[str, Option, str | None], ...]  # label, codec option, store_as


def _options(*items: str | tuple[str, Option] | tuple[str, Option, str]) -> tuple[tuple[str, Option, str | None], ...]:
    whole = [(item, item) if isinstance(item, str) else item for item in items]
    return tuple((item[0], item[1], item[2] if len(item) == 3 else None) for item in whole)


def _subjects(folder: Path) -> Iterator[Subject]:
    def load(name: str) -> Array | None:
        path = folder / f"{name}.npy"
        return np.load(path) if path.exists() else None

    def spec(kind: Kind, array: Array, axes: str, **more: Any) -> OutputSpec:
        return OutputSpec(kind=kind, dtype=array.dtype.name, shape=array.shape, axes=axes, **more)

    e7 = ("jxl effort 7", {"id": "jxl", "effort": 7})
    if (array := load("rgb")) is not None:
        jpg420 = ("jpg q90 4:2:0", {"id": "jpg", "quality": 90, "subsampling": "420"})
        yield Subject("rgb", (array,), spec(Kind.COLOR, array, "HWC"),
                      _options("npy.zst", "png", "webp", "rgb-delta", "jxl", e7, "jpg", jpg420))  # fmt: skip
    if (array := load("logits_q19")) is not None:
        height, width = array.shape[1:]
        size = (4 * width, 4 * height)
        full = np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in array])
        for title, scores in (("logits, full resolution", full), ("logits, quarter resolution", array)):
            fine = ("gaplog-jls, 253 levels", {"id": "gaplog-jls", "levels": 253})
            coarse = ("gaplog-jls, 63 levels", {"id": "gaplog-jls", "levels": 63})
            yield Subject(title, (scores,), spec(Kind.LOGITS, scores, "CHW"),
                          _options("pco", "gaplog-jls", "gaplog-delta", "gaplog-jxl", fine, coarse,
                                   ("top-3, jls", "jls", "top-k"), ("probabilities, gaplog-jls", "gaplog-jls",
                                   "probabilities"), ("indices, npy.zst", "npy.zst", "indices")))  # fmt: skip
    for name in ("argmax19", "superpix_u16"):
        if (array := load(name)) is not None:
            packed = ("npy.zst level 9", {"id": "npy.zst", "level": 9})
            yield Subject(f"{name} ({array.dtype})", (array,), spec(Kind.INDICES, array, "HW"),
                          _options("npy.zst", packed, "jls", "png", e7))  # fmt: skip
    if (array := load("depth_rel")) is not None:
        u12 = ("u16-delta, 12 bits", {"id": "u16-delta", "bits": 12})
        yield Subject("depth, relative 0..1", (array,), spec(Kind.DEPTH, array, "HW", value_range=(0.0, 1.0)),
                      _options("pco", "u16-delta", "u16-jxl", ("u16-jxl effort 7", {"id": "u16-jxl", "effort": 7}),
                               u12))  # fmt: skip
    if (array := load("depth_metric")) is not None:
        binary = ("mm-delta, step 1/1024 m", {"id": "mm-delta", "step": 1 / 1024})
        yield Subject("depth, metres", (array,), spec(Kind.DEPTH, array, "HW", unit="m"),
                      _options("pco", "mm-delta", binary, "mm-jxl", ("mm-jxl effort 7", {"id": "mm-jxl", "effort": 7}),
                               "log-delta", "log-jxl"))  # fmt: skip
    if (array := load("normals")) is not None:
        across = ("normals-delta, rows only", {"id": "normals-delta", "down": False})
        yield Subject("normals", (array,), spec(Kind.NORMALS, array, "HWC"),
                      _options("pco", "oct-delta", across, "oct-jxl", ("oct-jxl effort 7", {"id": "oct-jxl",
                               "effort": 7}), ("oct-delta, 8 bits", {"id": "oct-delta", "bits": 8})))  # fmt: skip
    if (array := load("flow_dis")) is not None:
        yield Subject("flow", (array,), spec(Kind.FLOW, array, "HWC", unit="px"),
                      _options("pco", "flow-delta", "flow-jxl", ("flow-jxl effort 7", {"id": "flow-jxl", "effort": 7}),
                               "flow-kitti"))  # fmt: skip
    if (array := load("edges")) is not None:
        yield Subject("edges 0..1", (array,), spec(Kind.EDGES, array, "HW", value_range=(0.0, 1.0)),
                      _options("pco", "u8-jls", "u8-delta"))  # fmt: skip

    if (array := load("argmax19")) is not None:
        masks = np.stack([array == index for index in np.unique(array)])
        yield Subject(f"masks of {len(masks)} classes", (masks,), spec(Kind.MASK, masks, "CHW"),
                      _options("npy.zst", "bits.npy.zst", "coco-rle"))  # fmt: skip
    boxes = tuple(_boxes(np.random.default_rng(0), frames=100, mean_count=12))
    columns = ("x1", "y1", "x2", "y2", "score", "class")
    ragged = OutputSpec(kind=Kind.BOXES, dtype="float32", shape=(None, 6), axes="KC", unit="px", columns=columns)
    rounded = ("json.zst, 3 decimals", {"id": "json.zst", "decimals": 3})
    yield Subject("boxes, 100 frames", boxes, ragged, _options("pco", "npy", "npy.zst", "json.zst", rounded, "arrow"))


def _boxes(rng: np.random.Generator, *, frames: int, mean_count: int) -> Iterator[Array]:
    """Yield what a detector might find in a full HD video: the most certain box first."""
    for count in rng.poisson(mean_count, frames):
        centres, half_sizes = rng.random((count, 2)) * (1920, 1080), rng.lognormal(3.3, 0.8, (count, 2))
        corners = np.clip(np.hstack([centres - half_sizes, centres + half_sizes]), 0, (1920, 1080, 1920, 1080))
        scores, classes = np.sort(rng.beta(5, 2, count))[::-1], rng.choice([0, 2, 7], count, p=[0.3, 0.6, 0.1])
        yield np.column_stack([corners, scores, classes]).astype(np.float32)


def _training(folder: Path, rounds: int) -> None:
    """Print what the training profile reads in the time that the usual files take, for one frame of four kinds."""
    rgb, depth, normals, ids = (np.load(folder / f"{n}.npy") for n in ("rgb", "depth_metric", "normals", "argmax19"))
    zstd = zstandard.ZstdDecompressor()
    usual = {
        "rgb": cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes(),
        "depth": zstandard.ZstdCompressor(level=3).compress(depth.astype(np.float16).tobytes()),
        "normals": cv2.imencode(".png", np.rint((normals + 1) * 127.5).clip(0, 255).astype(np.uint8))[1].tobytes(),
        "indices": cv2.imencode(".png", ids)[1].tobytes(),
    }
    readers: dict[str, Callable[[bytes], object]] = {
        "rgb": lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB),
        "depth": lambda data: np.frombuffer(zstd.decompress(data), np.float16).reshape(depth.shape).copy(),
        "normals": lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR),
        "indices": lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED),
    }
    specs = {
        "rgb": (rgb, OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=rgb.shape, axes="HWC", natural=True)),
        "depth": (depth, OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=depth.shape, axes="HW", unit="m")),
        "normals": (normals, OutputSpec(kind=Kind.NORMALS, dtype="float32", shape=normals.shape, axes="HWC")),
        "indices": (ids, OutputSpec(kind=Kind.INDICES, dtype="uint8", shape=ids.shape, axes="HW")),
    }
    names = {"rgb": "jpg q90", "depth": "float16 zstd", "normals": "8-bit png", "indices": "png"}
    print("\n| data | usual file | bytes | ms | training profile | bytes | ms |\n|---|---|---:|---:|---|---:|---:|")
    totals = np.zeros(4)
    for kind, (array, spec) in specs.items():
        codec = codec_for(None, spec, profile="training")
        data, out = codec.encode(array), np.empty_like(array)
        own, _ = timed(partial(codec.decode, data, dtype=array.dtype, shape=array.shape, out=out), rounds)
        theirs, _ = timed(partial(readers[kind], usual[kind]), rounds)
        totals += len(usual[kind]), 1000 * theirs, len(data), 1000 * own
        print(f"| {kind} | {names[kind]} | {len(usual[kind]):,} | {1000 * theirs:.2f} "
              f"| {codec.id} | {len(data):,} | {1000 * own:.2f} |")  # fmt: skip
    print(f"| all | | {totals[0]:,.0f} | {totals[1]:.2f} | {totals[1] / totals[3]:.2f} times as many a second "
          f"| {totals[2]:,.0f} | {totals[3]:.2f} |")  # fmt: skip


def _rows(subject: Subject, rounds: int) -> Iterator[Measurement]:
    spec = subject.spec
    yield measure_npz(subject.arrays, rounds=rounds)
    if spec.kind is Kind.LOGITS:
        (array,) = subject.arrays
        half = array.astype(np.float16)
        errors = compare(array, half.astype(np.float32), spec, spec)
        measured = measure_npz([half], rounds=rounds, label="npz float16", raw_bytes=array.nbytes)
        yield replace(measured, errors=errors, fidelity=in_words(errors, spec))
    for label, option, store_as in subject.options:
        yield measure(codec_for(option, spec, store_as=store_as), subject.arrays, spec, rounds=rounds, label=label)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arrays", type=Path, help="folder of .npy files")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each, the best counts; default 7")
    arguments = parser.parse_args()
    if not arguments.arrays.is_dir():
        parser.error(f"{arguments.arrays} is no folder")
    cv2.setNumThreads(1)
    print("| data | codec | bytes | smaller than npz | encode MB/s | decode MB/s | fidelity |")
    print("|---|---|---:|---:|---:|---:|---|")
    for subject in _subjects(arguments.arrays):
        npz_bytes = 0
        for result in _rows(subject, arguments.rounds):
            npz_bytes = npz_bytes or result.stored_bytes
            print(
                f"| {subject.title} | {result.label} | {result.stored_bytes:,} | {npz_bytes / result.stored_bytes:.2f} "
                f"| {result.encode_mbps:,.0f} | {result.decode_mbps:,.0f} | {result.fidelity} |",
                flush=True,
            )
    if all((arguments.arrays / f"{name}.npy").exists() for name in ("rgb", "depth_metric", "normals", "argmax19")):
        _training(arguments.arrays, 3 * arguments.rounds)


if __name__ == "__main__":
    main()
