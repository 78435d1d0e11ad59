"""Samples, clips and a manifest for tests of storages: small, and of the lengths that are special to tars."""

import dataclasses
import random
from collections.abc import Iterable
from typing import Any

import numpy as np

from vrekit.catalog.cells import Cell, CellWriter, Clip, Payload, Sample
from vrekit.catalog.manifest import Manifest, RepresentationRecord
from vrekit.catalog.storage import Storage
from vrekit.core.schema import SampleRow
from vrekit.core.spec import Kind, OutputSpec, RepresentationSpec
from vrekit.readers.index import INDEX_COLUMNS, FrameIndex
from vrekit.video.base import VideoInfo

NAMES = ("rgb", "a(b)+c-d", "canny.image")
CELL = Cell("car", "all", 0, 63)
FRAMES = range(40)


def make_manifest(writer: str, names: Iterable[str] = NAMES, **changes: Any) -> Manifest:
    """Return the manifest of a dataset with one video."""
    spec = OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=(None,), axes="K")
    records = {
        name: RepresentationRecord(
            spec=RepresentationSpec(name=name, type="color/rgb"),
            identity={"name": name},
            memory=spec,
            stored=spec,
            codec={"id": "npy"},
            suffix="bin",
        )
        for name in names
    }
    info = VideoInfo(uri="car.mp4", fingerprint="1-0", source="file", frame_count=1000, height=4, width=4)
    manifest = Manifest(writer=writer, layout="sample", shard_frames=64, shard_size_bytes=1 << 30)
    fields = {name: getattr(manifest, name) for name in ("writer", "layout", "shard_frames", "shard_size_bytes")}
    return Manifest(**(fields | changes)).with_video("car", info).with_representations(records)


def payload_bytes(frame: int, name: str) -> bytes:
    """Return a payload of the lengths that are special to tars: 0, 1, 511, 512, 513; or about 2000."""
    generator = random.Random(f"{frame} {name}")
    return generator.randbytes(generator.choice([0, 1, 511, 512, 513, 2000 + frame]))


def make_sample(
    frame: int, names: Iterable[str] = NAMES, *, run_id: str = "run1", failed: Iterable[str] = (), video_id: str = "car"
) -> Sample:
    """Return the sample of one frame."""
    payloads = []
    for name in names:
        data = None if name in failed else payload_bytes(frame, name)
        row = SampleRow(
            video_id=video_id,
            frame_index=frame,
            pts_seconds=frame / 25,
            representation=name,
            kind="color",
            run_id=run_id,
            config_hash="0123456789abcdef",
            status="ok" if data is not None else "failed",
            error=None if data is not None else "no weights",
            compute_seconds=0.5,
            codec=None if data is None else "npy",
            dtype=None if data is None else "uint8",
            shape=None if data is None else (len(data),),
            raw_bytes=None if data is None else len(data),
        )
        payloads.append(Payload(row, "bin", data))
    return Sample(video_id, frame, tuple(payloads))


def write_missing(cell: CellWriter, frames: Iterable[int] = FRAMES, **options: Any) -> list[int]:
    """Append the samples that were not recovered, and return their frames."""
    added = [frame for frame in frames if frame not in cell.recovered]
    for frame in added:
        cell.append(make_sample(frame, **options))
    return added


def stored_payloads(storage: Storage) -> dict[tuple[str, int, str], bytes]:
    """Return the payloads of a dataset as the readers see them, by (video, frame, representation)."""
    names = list(storage.manifest.representations)
    index = FrameIndex.from_table(storage.rows(INDEX_COLUMNS), names)
    found = storage.payloads(index).read(np.arange(len(index)), names)
    return {
        (index.videos[index.video[row]], int(index.frame_index[row]), name): bytes(data)
        for name in names
        for row in range(len(index))
        if (data := found[name][row]) is not None
    }


def expected_payloads(
    frames: Iterable[int] = FRAMES, names: Iterable[str] = NAMES, video_id: str = "car"
) -> dict[tuple[str, int, str], bytes]:
    """Return what `stored_payloads` should."""
    return {(video_id, frame, name): payload_bytes(frame, name) for frame in frames for name in names}


def make_clip(frames: range, *, failed: tuple[int, ...] = (), data: bytes | None = None) -> Clip:
    """Frames of `rgb` in a clip that has two frames before them."""
    rows = []
    for frame in frames:
        (payload,) = make_sample(frame, ["rgb"], failed=["rgb"] if frame in failed else []).payloads
        place = None if frame in failed else frame - frames[0] + 2
        rows.append(dataclasses.replace(payload.row, payload_index=place))
    return Clip(tuple(rows), "mp4", clip_bytes(frames) if data is None else data)


def clip_bytes(frames: range) -> bytes:
    """Return the bytes of the clip of these frames."""
    return np.random.default_rng(frames[0]).bytes(1000 + len(frames))
