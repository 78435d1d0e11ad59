#!/usr/bin/env python
"""Write golden files for codecs that have none: tests/golden/<codec>/<version>/.

Each folder holds what was encoded (`input.npy`), the bytes (`payload.<suffix>`), the stored config (`config.json`) and
what decoding gave (`decoded.npy`). Existing folders are never touched: tests decode them forever. When an encoder
changes on purpose, run `tools/make_goldens.py --version 2` and keep both.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.registry import clip_codec, codec_from_config, codec_names

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "golden"
ROWS, COLUMNS = np.mgrid[0:11, 0:14]


def _arrays() -> dict[str, NDArray[Any]]:
    """Return small arrays by what they are; each has the special values its codecs know."""
    wave = np.sin(ROWS / 3) + np.cos(COLUMNS / 4)
    depth = (2 + wave).astype(np.float32)
    depth[0, :2] = np.nan, 0.0
    flow = np.stack([wave * 9, COLUMNS / 3 - 2], axis=-1).astype(np.float32)
    flow[1, 1] = np.nan
    normals = np.stack([wave, np.sin(COLUMNS / 5), np.cos(ROWS / 2) + 0.1], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[0, 0], normals[0, 1] = np.nan, 0.0
    logits = np.stack([wave * 4, COLUMNS - ROWS, np.sin(COLUMNS) * 20]).astype(np.float32)
    logits[:, 2, 2], logits[1, 3, 3], logits[:, 4, 4] = 1.5, -np.inf, np.nan
    probabilities = np.exp(logits - logits.max(axis=0))
    floats = (wave * 1000).astype(np.float32)
    floats[0, :4] = np.nan, np.inf, -np.inf, -0.0
    return {
        "depth": depth,
        "embedding": (np.sin(np.arange(16)) * 3).astype(np.float32),
        "flow": flow,
        "floats": floats,
        "ids": (ROWS // 3 * 300 + COLUMNS // 5).astype(np.uint16),
        "logits": logits,
        "masks": np.stack([wave > 0, ROWS == COLUMNS, wave > 9]),
        "normals": normals.astype(np.float32),
        "probabilities": probabilities / probabilities.sum(axis=0),
        "rgb": np.stack([ROWS * 20, COLUMNS * 15, (wave + 2) * 60], axis=-1).astype(np.uint8),
        "rows": np.array([[1.5, -2.25, np.nan], [1e-3, np.inf, 7.0]]),
        "unit": (wave / 4 + 0.5).astype(np.float32),
    }


_UNIT = {"minimum": 0.0, "maximum": 1.0}
# codec (with the options it cannot do without) -> what it is tried on
_SAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "arrow": ("rows", {"columns": ["x", "y", "score"]}),
    "bits.npy.zst": ("masks", {}),
    "coco-rle": ("masks", {}),
    "f16.npy": ("embedding", {}),
    "flow-delta": ("flow", {"axis": 2}),
    "flow-jxl": ("flow", {"axis": 2}),
    "flow-kitti": ("flow", {}),
    "gaplog-delta": ("probabilities", {"scores": "probabilities"}),
    "gaplog-jls": ("logits", {}),
    "gaplog-jxl": ("logits", {}),
    "jls": ("ids", {}),
    "jpg": ("rgb", {}),
    "json": ("rows", {"columns": ["x", "y", "score"]}),
    "json.zst": ("rows", {"decimals": 2}),
    "jxl": ("rgb", {}),
    "log-delta": ("depth", {}),
    "log-jxl": ("depth", {}),
    "mm-delta": ("depth", {}),
    "mm-jxl": ("depth", {}),
    "normals-delta": ("normals", {"axis": 2}),
    "npy": ("floats", {}),
    "npy.zst": ("floats", {}),
    "oct-delta": ("normals", {}),
    "oct-jxl": ("normals", {"bits": 8}),
    "pco": ("floats", {}),
    "png": ("ids", {}),
    "rgb-delta": ("rgb", {}),
    "u16-delta": ("unit", _UNIT),
    "u16-jxl": ("unit", _UNIT),
    "u8-delta": ("unit", _UNIT),
    "u8-jls": ("unit", _UNIT),
    "webp": ("rgb", {}),
}
# stages and options that no named codec has
_PIPELINES: dict[str, tuple[str, list[Any]]] = {
    "arrow-lists": ("floats", ["arrow", "zstd"]),
    "indices": ("logits", ["indices", "npy"]),
    "softmax": ("logits", ["softmax", "npy"]),
    "topk": ("logits", [{"id": "topk", "k": 2}, "planes", "jls"]),
    "delta-down": (
        "normals",
        [
            {"id": "uniform", "minimum": -1.0, "maximum": 1.0, "bits": 8},
            {"id": "delta", "across": False},
            "npy",
            {"id": "zstd", "checksum": False},
        ],
    ),
    "jpg-fast": ("rgb", [{"id": "jpg", "subsampling": "420", "fast_upsampling": True}]),
    "delta-across": ("unit", [{"id": "uniform", **_UNIT}, {"id": "delta", "down": False}, "byteplanes", "npy", "zstd"]),
}


_CLIP_FRAMES = 7
_CLIP_FRAME = np.kron(np.stack([ROWS * 20, COLUMNS * 15, ROWS * COLUMNS], axis=-1).astype(np.uint8), np.ones((2, 2, 1)))
_CLIP_FRAME = _CLIP_FRAME.astype(np.uint8)
# what a clip is named by -> its codec; without `encode` it is what frames become that cannot be cut from the source
_CLIPS: dict[str, dict[str, Any]] = {
    "video": {"id": "video"},
    **{f"video-{name}": {"id": "video", "encode": name, "gop": 4} for name in ("av1", "h264", "hevc")},
    "video-ffv1": {"id": "video", "encode": "ffv1"},
}


def write(folder: Path, config: dict[str, Any], array: NDArray[Any]) -> bool:
    """Write one golden; return False if it is there already."""
    if folder.exists():
        return False
    codec = codec_from_config(config)
    dtype, shape = codec.decoded_layout(array.dtype, array.shape)
    payload = codec.encode(array)
    folder.mkdir(parents=True)
    np.save(folder / "input.npy", array)
    np.save(folder / "decoded.npy", codec.decode(payload, dtype=dtype, shape=shape))
    (folder / f"payload.{codec.suffix}").write_bytes(payload)
    (folder / "config.json").write_text(json.dumps(codec.config(), indent=1, sort_keys=True) + "\n")
    return True


def write_clip(folder: Path, config: dict[str, Any]) -> bool:
    """Write the golden of a codec that keeps many frames in one payload; return False if it is there already."""
    if folder.exists():
        return False
    codec = clip_codec(config)
    if codec is None:
        raise SystemExit(f"error: {config} is no clip codec")
    frames = np.stack([np.roll(_CLIP_FRAME, 3 * shift, axis=1) for shift in range(_CLIP_FRAMES)])
    encoder = codec.open_encoder(height=frames.shape[1], width=frames.shape[2], fps=25.0)
    for frame in frames:
        encoder.add(frame)
    payload = encoder.finish()
    folder.mkdir(parents=True)
    np.save(folder / "decoded.npy", codec.open_decoder(payload).read(np.arange(_CLIP_FRAMES)))
    (folder / f"payload.{codec.suffix}").write_bytes(payload)
    (folder / "config.json").write_text(json.dumps(codec.config(), indent=1, sort_keys=True) + "\n")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", type=int, default=1, help="number of the folder to write; default 1")
    version = f"v{parser.parse_args().version}"
    arrays = _arrays()
    missing = set(codec_names()) - {*_SAMPLES, "txt"}
    if missing:
        raise SystemExit(f"error: no sample for {', '.join(sorted(missing))}; add them to _SAMPLES")
    configs: dict[str, tuple[str, dict[str, Any]]] = {
        **{name: (what, {"id": name, **options}) for name, (what, options) in _SAMPLES.items()},
        **{name: (what, {"id": name, "stages": stages}) for name, (what, stages) in _PIPELINES.items()},
    }
    for name, (what, config) in configs.items():
        if write(FOLDER / name / version, config, arrays[what]):
            print(f"wrote {name}/{version}")
    for name, config in _CLIPS.items():
        if write_clip(FOLDER / "clips" / name / version, config):
            print(f"wrote clips/{name}/{version}")
    if write(FOLDER / "txt" / version, {"id": "txt"}, np.array("A caption: Flüsse, 河.")):
        print(f"wrote txt/{version}")


if __name__ == "__main__":
    main()
