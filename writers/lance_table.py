"""One Lance table that several processes append to: every change is made under its lock, and none is made twice."""

import fcntl
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from vrekit.catalog.lance_samples import (
    FIELDS,
    FRAME_COLUMNS,
    column_name,
    open_table,
    representations_of,
    table_path,
    table_schema,
)
from vrekit.core.files import storage_errors
from vrekit.core.schema import SAMPLES_SCHEMA
from vrekit.writers.base import Cell
from vrekit.writers.journal import Row
from vrekit.writers.journaled import StoredRow

if TYPE_CHECKING:
    import lance

STORAGE_VERSION: Literal["2.2"] = "2.2"  # the first with blob v2 columns
KEEP_VERSIONS = timedelta(days=14)  # a reader that opened an untagged version finds its files for as long
_BATCH_BYTES = 32 << 20


class LanceTable:
    """The table of one group.

    A change takes the lock, opens the latest version, writes its data files, syncs them (Lance itself never does),
    and commits. Lance would accept the same rows twice, so rows that are stored already are left out first: an append
    that is repeated because nobody knows whether it succeeded appends nothing.
    """

    def __init__(self, folder: Path, group: str, representations: Sequence[str]) -> None:
        self.path = table_path(folder, group)
        self.representations = tuple(representations)
        self.run_ids: set[str] = set()  # runs that this object appended rows for
        self._lock_path = self.path.with_name(f".{group}.lock")

    @property
    def exists(self) -> bool:
        """Whether the table has a version."""
        return any(self.path.glob("_versions/*.manifest"))

    @contextmanager
    def locked(self) -> Iterator["lance.LanceDataset"]:
        """Hold the table's lock and give its latest version, making the table when it is not there."""
        with lance_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                dataset = open_table(self.path) if self.exists else self._create()
                if os.fstat(descriptor).st_size:
                    # The former owner did not finish: delete what it wrote and never committed.
                    dataset.cleanup_old_versions(
                        KEEP_VERSIONS, delete_unverified=True, error_if_tagged_old_versions=False
                    )
                os.pwrite(descriptor, b"unfinished", 0)
                yield dataset
                os.ftruncate(descriptor, 0)  # not when something was raised
            finally:
                os.close(descriptor)

    def _create(self) -> "lance.LanceDataset":
        import lance

        empty = table_schema(self.representations).empty_table()
        dataset = lance.write_dataset(
            empty, str(self.path), data_storage_version=STORAGE_VERSION, enable_stable_row_ids=True
        )
        self.sync(())
        return dataset

    def files(self) -> set[str]:
        """Return the paths of all files of the table."""
        return {os.path.join(folder, name) for folder, _, names in os.walk(self.path) for name in names}

    def sync(self, known: Collection[str]) -> set[str]:
        """Make files durable that are not `known`, and return the paths of all; Lance syncs nothing itself."""
        files = self.files()
        new = files.difference(known)
        for path in new:
            _fsync(path)
        for folder in {os.path.dirname(path) for path in new} | {self.path, self.path.parent}:
            _fsync(folder)
        return files

    def stored(self, cell: Cell) -> set[StoredRow]:
        """Return the rows of a cell that are committed."""
        return _stored(open_table(self.path), cell.video_id, cell.first, cell.last) if self.exists else set()

    def append(self, rows: Sequence[Row], read: Callable[[Row], bytes]) -> None:
        """Append rows of one video that are not stored yet, durably, and tag the version with their runs.

        Args:
            rows: Metadata rows; those of one frame next to each other.
            read: Returns the payload of a row.
        """
        from lance import LanceDataset, LanceOperation
        from lance.fragment import write_fragments

        with self.locked() as dataset:
            new = _without_stored(dataset, rows)
            if new:
                known = self.files()
                fragments = write_fragments(
                    pa.RecordBatchReader.from_batches(dataset.schema, _batches(new, read, dataset.schema)),
                    str(self.path),
                    max_rows_per_file=len(new),
                    data_storage_version=STORAGE_VERSION,
                    enable_stable_row_ids=True,
                )
                known = self.sync(known)
                dataset = LanceDataset.commit(
                    str(self.path), LanceOperation.Append(fragments), read_version=dataset.version
                )
                self.sync(known)
            for run_id in dict.fromkeys(row["run_id"] for row in rows):
                tag(dataset, run_id)
                self.run_ids.add(run_id)


def _without_stored(dataset: "lance.LanceDataset", rows: Sequence[Row]) -> list[list[Row]]:
    """Return the rows that are not in the table, frame by frame."""
    video_id = rows[0]["video_id"]
    frames = [row["frame_index"] for row in rows]
    stored = _stored(dataset, video_id, min(frames), max(frames))
    done = {row[:2] for row in stored if row.status == "ok"}
    known = {row[:3] for row in stored}
    new = []
    for row in rows:
        place = (row["frame_index"], row["representation"])
        if place not in done and (*place, row["run_id"]) not in known:
            new.append(row)
    return [list(group) for _, group in groupby(new, key=lambda row: (row["frame_index"], row["run_id"]))]


def _stored(dataset: "lance.LanceDataset", video_id: str, first: int, last: int) -> set[StoredRow]:
    representations = representations_of(dataset.schema)
    found = dataset.to_table(
        columns=["frame_index", "run_id", *(column_name(name, "status") for name in representations)],
        filter=f"video_id = '{video_id}' AND frame_index >= {first} AND frame_index <= {last}",
    )
    return {
        StoredRow(frame, name, run, status)
        for name in representations
        for frame, run, status in zip(
            *(found[column].to_pylist() for column in ("frame_index", "run_id", column_name(name, "status"))),
            strict=True,
        )
        if status is not None
    }


def _batches(
    frames: Sequence[Sequence[Row]], read: Callable[[Row], bytes], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    start, size = 0, 0
    written: set[tuple[str, int]] = set()  # payloads shared by frames that a row has already
    for at, frame in enumerate(frames):
        size += sum(row["byte_size"] or 0 for row in frame if row["payload_index"] is None)
        if size >= _BATCH_BYTES or at + 1 == len(frames):
            yield _batch(frames[start : at + 1], read, schema, written)
            start, size = at + 1, 0


def _batch(
    frames: Sequence[Sequence[Row]], read: Callable[[Row], bytes], schema: pa.Schema, written: set[tuple[str, int]]
) -> pa.RecordBatch:
    import lance

    arrays: dict[str, Any] = {
        name: pa.array([frame[0][name] for frame in frames], SAMPLES_SCHEMA.field(name).type) for name in FRAME_COLUMNS
    }
    for name in representations_of(schema):
        rows = [next((row for row in frame if row["representation"] == name), None) for frame in frames]
        arrays[column_name(name)] = lance.blob_array(
            [read(row) if row is not None and _has_payload(row, written) else None for row in rows]
        )
        for field in FIELDS:
            values = [None if row is None else row[field] for row in rows]
            arrays[column_name(name, field)] = pa.array(values, SAMPLES_SCHEMA.field(field).type)
    return pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _has_payload(row: Row, written: set[tuple[str, int]]) -> bool:
    """Return whether a row gets its payload: of a clip, the first row written has it for all of them."""
    if row["byte_size"] is None or row["payload_index"] is None:
        return row["byte_size"] is not None
    place = (row["representation"], row["byte_offset"])
    known = place in written
    written.add(place)
    return not known


def tag_name(run_id: str) -> str:
    """Return `run-<run_id>`, with `-` for what a tag cannot hold (`/` among others)."""
    return "run-" + re.sub(r"[^A-Za-z0-9._-]", "-", run_id)


def tag(dataset: "lance.LanceDataset", run_id: str) -> None:
    """Point the tag of a run at this version, which then outlives later ones."""
    name = tag_name(run_id)
    if name in dataset.tags.list():
        dataset.tags.update(name, dataset.version)
    else:
        dataset.tags.create(name, dataset.version)


@contextmanager
def lance_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of Lance, which has no number but ends in `(os error 28)`, into what `storage_errors` knows."""
    with storage_errors(path):
        try:
            yield
        except OSError as error:
            number = re.search(r"\(os error (\d+)\)", str(error))
            if error.errno is None and number:
                raise OSError(int(number[1]), str(error)) from error
            raise


def _fsync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
