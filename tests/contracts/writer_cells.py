"""Samples for tests of writers, and a process that writes them until it is killed.

    python -m tests.contracts.writer_cells WRITER FOLDER RUN_ID POINT [NUMBER]

writes CELL, or the one that is NUMBER cells further, and dies by SIGKILL at POINT (one of POINTS[WRITER], or `never`).
"""

import os
import random
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.storages import open_payloads, open_writer, read_samples
from vrekit.catalog.cells import Cell, CellWriter, DatasetWriter, Payload, Sample
from vrekit.catalog.manifest import Manifest, RepresentationRecord
from vrekit.core.schema import SampleRow
from vrekit.core.spec import Kind, OutputSpec, RepresentationSpec
from vrekit.readers.index import INDEX_COLUMNS, FrameIndex
from vrekit.video.base import VideoInfo

WRITERS = ("lance", "webdataset")
STORAGES = ("lance", "memory", "webdataset")
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


def make_writer(folder: Path, writer: str, **changes: Any) -> DatasetWriter:
    """Return the writer of such a dataset."""
    return open_writer(folder, make_manifest(writer, **changes))


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


def stored_payloads(folder: Path, writer: str, names: Iterable[str] = NAMES) -> dict[tuple[str, int, str], bytes]:
    """Return the payloads of a dataset as the readers see them, by (video, frame, representation)."""
    names = list(names)
    index = FrameIndex.from_table(read_samples(folder, columns=INDEX_COLUMNS), names)
    rows = range(len(index))
    found = open_payloads(folder, make_manifest(writer, names), index).read(np.arange(len(index)), names)
    return {
        (index.videos[index.video[row]], int(index.frame_index[row]), name): bytes(data)
        for name in names
        for row in rows
        if (data := found[name][row]) is not None
    }


def expected_payloads(
    frames: Iterable[int] = FRAMES, names: Iterable[str] = NAMES, video_id: str = "car"
) -> dict[tuple[str, int, str], bytes]:
    """Return what `stored_payloads` should."""
    return {(video_id, frame, name): payload_bytes(frame, name) for frame in frames for name in names}


def identities(folder: Path) -> list[tuple[int, str, str]]:
    """Return (frame, representation, status) of every metadata row, sorted."""
    rows = read_samples(folder, columns=("frame_index", "representation", "status")).to_pylist()
    return sorted((row["frame_index"], row["representation"], row["status"]) for row in rows)


# -- the process that is killed ------------------------------------------------------------------------------------


def _kill(*_args: object, **_kwargs: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _then_kill(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        function(*args, **kwargs)
        _kill()

    return wrapped


def _torn(append: Callable[..., None]) -> Callable[..., None]:
    def wrapped(self: Any, *args: Any) -> None:
        append(self, *args)
        if self.last_frame == 19:
            self.flush()
        if self.last_frame == 24:
            self._write_chunks()  # bytes without their journal lines
            _kill()

    return wrapped


def _kill_at(point: str) -> None:
    import lance
    import lance.fragment

    from vrekit.writers import journal
    from vrekit.writers.lance import table as lance_table
    from vrekit.writers.lance import writer as lance_writer
    from vrekit.writers.webdataset import writer as webdataset

    def at_once(_function: object) -> Callable[..., None]:
        return _kill

    places: dict[str, tuple[Any, str, Callable[..., Any]]] = {
        "torn-flush": (journal.OpenShard, "append", _torn),
        "sealed": (journal.OpenShard, "seal", _then_kill),
        "linked": (webdataset, "_link", _then_kill),
        "sidecar": (webdataset, "write_atomic", _then_kill),
        "removing": (journal.OpenShard, "remove", at_once),
        "creating": (lance_table.LanceTable, "_create", at_once),
        "fragment": (lance.fragment, "write_fragments", _then_kill),
        "committed": (lance.LanceDataset, "commit", _then_kill),
        "tagged": (lance_table, "tag", _then_kill),
        "tidying": (lance_writer, "tidy", at_once),
    }
    if point != "never":
        owner, name, replace = places[point]
        changed = replace(getattr(owner, name))
        setattr(owner, name, staticmethod(changed) if owner is lance.LanceDataset else changed)


POINTS = {
    "webdataset": ("torn-flush", "sealed", "linked", "sidecar", "removing"),
    "lance": ("torn-flush", "creating", "fragment", "committed", "tagged", "removing", "tidying"),
}


def _main(writer: str, folder: str, run_id: str, point: str, number: str = "0") -> None:
    _kill_at(point)
    dataset = make_writer(Path(folder), writer)
    offset = 64 * int(number)
    cell = dataset.open_cell(Cell("car", "all", CELL.first + offset, CELL.last + offset))
    write_missing(cell, [frame + offset for frame in FRAMES], run_id=run_id)
    cell.commit()
    dataset.close()


if __name__ == "__main__":
    _main(*sys.argv[1:])
