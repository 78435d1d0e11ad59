#!/usr/bin/env python
"""Measure codecs on a folder of arrays and print docs/codecs.md's table.

The folder holds one frame each of `rgb`, `argmax19`, `superpix_u16`, `depth_rel`, `depth_metric`, `normals`,
`flow_dis`, `edges`, `logits_q19` as `.npy`; those that are missing are left out. Logits are also measured after
bilinear up-sampling by 4. Speeds are MB of the raw array per CPU second of one thread, the best of some runs;
decoding goes into memory that is there already. `np.savez_compressed` is measured the same way.

    OMP_NUM_THREADS=1 tools/bench_codecs.py ARRAYS > table.md
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zstandard
from numpy.typing import NDArray

from vrekit.codecs.base import Codec
from vrekit.codecs.registry import codec_for
from vrekit.codecs.store_as import as_probabilities
from vrekit.core.spec import Kind, OutputSpec

Array = NDArray[Any]
Option = str | Mapping[str, Any]


@dataclass(frozen=True)
class Subject:
    """One array and the codecs to measure on it."""

    title: str
    array: Array
    spec: OutputSpec
    options: tuple[tuple[str, Option, str | None], ...]  # label, codec option, store_as


@dataclass(frozen=True)
class Result:
    """What one codec did with one array."""

    label: str
    size_bytes: int
    encode_seconds: float
    decode_seconds: float
    fidelity: str


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
        yield Subject("rgb", array, spec(Kind.COLOR, array, "HWC"),
                      _options("npy.zst", "png", "webp", "rgb-delta", "jxl", e7, "jpg", jpg420))  # fmt: skip
    if (array := load("logits_q19")) is not None:
        height, width = array.shape[1:]
        size = (4 * width, 4 * height)
        full = np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in array])
        for title, scores in (("logits, full resolution", full), ("logits, quarter resolution", array)):
            fine = ("gaplog-jls, 253 levels", {"id": "gaplog-jls", "levels": 253})
            coarse = ("gaplog-jls, 63 levels", {"id": "gaplog-jls", "levels": 63})
            yield Subject(title, scores, spec(Kind.LOGITS, scores, "CHW"),
                          _options("pco", "gaplog-jls", "gaplog-delta", "gaplog-jxl", fine, coarse,
                                   ("top-3, jls", "jls", "top-k"), ("probabilities, gaplog-jls", "gaplog-jls",
                                   "probabilities"), ("indices, npy.zst", "npy.zst", "indices")))  # fmt: skip
    for name in ("argmax19", "superpix_u16"):
        if (array := load(name)) is not None:
            packed = ("npy.zst level 9", {"id": "npy.zst", "level": 9})
            yield Subject(f"{name} ({array.dtype})", array, spec(Kind.INDICES, array, "HW"),
                          _options("npy.zst", packed, "jls", "png", e7))  # fmt: skip
    if (array := load("depth_rel")) is not None:
        u12 = ("u16-delta, 12 bits", {"id": "u16-delta", "bits": 12})
        yield Subject("depth, relative 0..1", array, spec(Kind.DEPTH, array, "HW", value_range=(0.0, 1.0)),
                      _options("pco", "u16-delta", "u16-jxl", ("u16-jxl effort 7", {"id": "u16-jxl", "effort": 7}),
                               u12))  # fmt: skip
    if (array := load("depth_metric")) is not None:
        yield Subject("depth, metres", array, spec(Kind.DEPTH, array, "HW", unit="m"),
                      _options("pco", "mm-delta", "mm-jxl", ("mm-jxl effort 7", {"id": "mm-jxl", "effort": 7}),
                               "log-delta", "log-jxl"))  # fmt: skip
    if (array := load("normals")) is not None:
        across = ("normals-delta, rows only", {"id": "normals-delta", "down": False})
        yield Subject("normals", array, spec(Kind.NORMALS, array, "HWC"),
                      _options("pco", "oct-delta", across, "oct-jxl", ("oct-jxl effort 7", {"id": "oct-jxl",
                               "effort": 7}), ("oct-delta, 8 bits", {"id": "oct-delta", "bits": 8})))  # fmt: skip
    if (array := load("flow_dis")) is not None:
        yield Subject("flow", array, spec(Kind.FLOW, array, "HWC", unit="px"),
                      _options("pco", "flow-delta", "flow-jxl", ("flow-jxl effort 7", {"id": "flow-jxl", "effort": 7}),
                               "flow-kitti"))  # fmt: skip
    if (array := load("edges")) is not None:
        yield Subject("edges 0..1", array, spec(Kind.EDGES, array, "HW", value_range=(0.0, 1.0)),
                      _options("pco", "u8-jls", "u8-delta"))  # fmt: skip


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
        "rgb": (rgb, OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=rgb.shape, axes="HWC")),
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
        own = _cpu_seconds(partial(codec.decode, data, dtype=array.dtype, shape=array.shape, out=out), rounds)
        theirs = _cpu_seconds(partial(readers[kind], usual[kind]), rounds)
        totals += len(usual[kind]), 1000 * theirs, len(data), 1000 * own
        print(f"| {kind} | {names[kind]} | {len(usual[kind]):,} | {1000 * theirs:.2f} "
              f"| {codec.id} | {len(data):,} | {1000 * own:.2f} |")  # fmt: skip
    print(f"| all | | {totals[0]:,.0f} | {totals[1]:.2f} | {totals[1] / totals[3]:.2f} times as many a second "
          f"| {totals[2]:,.0f} | {totals[3]:.2f} |")  # fmt: skip


def _cpu_seconds(run: Callable[[], object], rounds: int) -> float:
    best, spent = float("inf"), 0.0
    for _ in range(rounds):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
        spent += time.process_time() - start
        if spent > 3:
            break
    return best


def _npz(array: Array, rounds: int, label: str, fidelity: str) -> Result:
    def encode() -> bytes:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, array)
        return buffer.getvalue()

    data = encode()
    encode_seconds = _cpu_seconds(encode, min(rounds, 2))
    decode_seconds = _cpu_seconds(lambda: np.load(io.BytesIO(data))["arr_0"], rounds)
    return Result(label, len(data), encode_seconds, decode_seconds, fidelity)


def _measure(codec: Codec, subject: Subject, label: str, rounds: int) -> Result:
    array = subject.array
    dtype, shape = codec.decoded_layout(array.dtype, array.shape)
    data = codec.encode(array)
    out = np.empty(shape, dtype)
    encode_seconds = _cpu_seconds(lambda: codec.encode(array), rounds)
    decode_seconds = _cpu_seconds(lambda: codec.decode(data, dtype=dtype, shape=shape, out=out), rounds)
    fidelity = _fidelity(array, out, subject.spec, codec.decoded_spec(subject.spec))
    return Result(label, len(data), encode_seconds, decode_seconds, fidelity)


def _fidelity(array: Array, decoded: Array, spec: OutputSpec, decoded_spec: OutputSpec) -> str:
    if decoded.dtype == array.dtype and decoded.tobytes() == array.tobytes():
        return "exact"
    if spec.kind is Kind.LOGITS:
        agreement = float(np.mean((decoded if decoded.ndim == 2 else decoded.argmax(axis=0)) == array.argmax(axis=0)))
        text = f"argmax {100 * agreement:.6g}%"
        if decoded.ndim == 3:
            divergence, difference = _divergence(array, decoded, spec, decoded_spec)
            text += f", KL {divergence:.1e}, max dP {difference:.4f}"
        return text
    exact, found = array.astype(np.float64), decoded.astype(np.float64)
    if spec.kind is Kind.NORMALS:
        angle = np.degrees(np.arctan2(np.linalg.norm(np.cross(exact, found), axis=-1), (exact * found).sum(axis=-1)))
        return f"mean {angle.mean():.3f}, max {angle.max():.3f} degrees"
    error = np.abs(found - exact)
    if spec.kind is Kind.COLOR:
        return f"{10 * np.log10(255**2 / np.mean(error**2)):.1f} dB PSNR, max {error.max():.0f}"
    if spec.unit == "m":
        relative = error[exact > 0] / exact[exact > 0]
        return f"max {1000 * error.max():.4g} mm, max {relative.max():.2e} of the value"
    return f"max {error.max():.4g}" + (f" {spec.unit}" if spec.unit else "")


def _divergence(array: Array, decoded: Array, spec: OutputSpec, decoded_spec: OutputSpec) -> tuple[float, float]:
    p = as_probabilities(array.astype(np.float64), spec).data
    q = as_probabilities(decoded.astype(np.float64), decoded_spec).data
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0)
    return float(terms.sum(axis=0).mean()), float(np.abs(p - q).max())


def _rows(subject: Subject, rounds: int) -> Iterator[Result]:
    yield _npz(subject.array, rounds, "npz", "exact")
    if subject.spec.kind is Kind.LOGITS:
        half = subject.array.astype(np.float16)
        fidelity = _fidelity(subject.array, half.astype(np.float32), subject.spec, subject.spec)
        yield _npz(half, rounds, "npz float16", fidelity)
    for label, option, store_as in subject.options:
        yield _measure(codec_for(option, subject.spec, store_as=store_as), subject, label, rounds)


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
        raw, npz_bytes = subject.array.nbytes / 1e6, 0
        for result in _rows(subject, arguments.rounds):
            npz_bytes = npz_bytes or result.size_bytes
            print(
                f"| {subject.title} | {result.label} | {result.size_bytes:,} | {npz_bytes / result.size_bytes:.2f} "
                f"| {raw / result.encode_seconds:,.0f} | {raw / result.decode_seconds:,.0f} | {result.fidelity} |",
                flush=True,
            )
    if all((arguments.arrays / f"{name}.npy").exists() for name in ("rgb", "depth_metric", "normals", "argmax19")):
        _training(arguments.arrays, 3 * arguments.rounds)


if __name__ == "__main__":
    main()
