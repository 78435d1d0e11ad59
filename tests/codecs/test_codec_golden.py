"""Bytes written by earlier versions decode today; tools/make_goldens.py writes the files."""

import json
from pathlib import Path

import numpy as np
import pytest

from vrekit.codecs.registry import CLIP_CODECS, clip_codec, codec_from_config, codec_names

FOLDER = Path(__file__).resolve().parent.parent / "golden"
GOLDENS = sorted(path.parent for path in FOLDER.glob("*/v*/config.json"))
CLIPS = sorted(path.parent for path in FOLDER.glob("clips/*/v*/config.json"))
LOSSY_PIXELS = {"jpg": 2, "jpg-fast": 2}  # libjpeg-turbo's decoders may differ by rounding


def test_every_codec_has_a_golden() -> None:
    assert set(codec_names()) <= {path.parent.name for path in GOLDENS}


@pytest.mark.parametrize("folder", GOLDENS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_golden_bytes_decode(folder: Path) -> None:
    codec = codec_from_config(json.loads((folder / "config.json").read_text()))
    payload = next(folder.glob("payload.*")).read_bytes()
    expected = np.load(folder / "decoded.npy")
    decoded = codec.decode(payload, dtype=expected.dtype, shape=expected.shape)
    if codec.id in LOSSY_PIXELS:
        assert np.abs(decoded.astype(int) - expected).max() <= LOSSY_PIXELS[codec.id]
    elif expected.dtype.kind == "f":  # tables of exp and log may differ by an ulp between processors
        np.testing.assert_allclose(decoded, expected, rtol=1e-6, atol=1e-12)
    else:
        np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("folder", GOLDENS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_golden_configs_still_mean_the_same(folder: Path) -> None:
    stored = json.loads((folder / "config.json").read_text())
    assert codec_from_config(stored).config() == stored
    array = np.load(folder / "input.npy")
    codec = codec_from_config(stored)
    expected = np.load(folder / "decoded.npy")
    again = codec.decode(codec.encode(array), dtype=expected.dtype, shape=expected.shape)
    if codec.id not in LOSSY_PIXELS and expected.dtype.kind == "f":
        np.testing.assert_allclose(again, expected, rtol=1e-6, atol=1e-12)


def test_every_clip_codec_and_encoding_has_a_golden() -> None:
    configs = [json.loads((folder / "config.json").read_text()) for folder in CLIPS]
    assert set(CLIP_CODECS) <= {config["id"] for config in configs}
    assert {config.get("encode") for config in configs} == {None, "av1", "ffv1", "h264", "hevc"}


@pytest.mark.parametrize("folder", CLIPS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_golden_clips_decode_in_any_order(folder: Path) -> None:
    stored = json.loads((folder / "config.json").read_text())
    codec = clip_codec(stored)
    assert codec is not None
    assert codec.config() == stored
    expected = np.load(folder / "decoded.npy")
    decoder = codec.open_decoder(next(folder.glob("payload.*")).read_bytes())
    assert decoder.frame_count == len(expected)
    most = 0 if codec.is_exact else 3  # FFmpeg's versions differ by rounding where they convert YUV to RGB
    for positions in (np.arange(len(expected)), np.array([5]), np.array([1, 3, 6]), np.array([0])):
        found = decoder.read(positions.astype(np.int64))
        assert np.abs(found.astype(int) - expected[positions]).max() <= most
