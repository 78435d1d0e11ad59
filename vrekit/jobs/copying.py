"""Samples of the result, payload by payload through the writers: between storages, and where Lance rows are parted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vrekit.catalog.cells import CellWriter, Clip, DatasetWriter, Payload, Sample
from vrekit.catalog.manifest import Manifest
from vrekit.catalog.payload_checks import PayloadChecker, ValidationReport
from vrekit.catalog.rows import SOURCE, GroupedRows, payload_bytes, payload_numbers, rows_of
from vrekit.catalog.storage import Advance, Storage
from vrekit.core.errors import ChecksumError
from vrekit.core.schema import SampleRow
from vrekit.jobs.cells import write_cells
from vrekit.readers.payloads import StoredPayloads

_CHUNK_BYTES = 32 << 20
_CHUNK_FRAMES = 256
_MAX_PROBLEMS_SHOWN = 20
_PLACE = ("shard", "byte_offset", "byte_size", "checksum", SOURCE)  # what the writer fills in


@dataclass(frozen=True, slots=True)
class Written:
    """What was appended: frames, rows, and payload bytes."""

    frames: int = 0
    samples: int = 0
    stored_bytes: int = 0

    def __add__(self, other: "Written") -> "Written":
        return Written(self.frames + other.frames, self.samples + other.samples, self.stored_bytes + other.stored_bytes)


def write_samples(
    rows: GroupedRows,
    video_id: str,
    sources: Mapping[int, Storage],
    storage: Storage,
    writer: DatasetWriter,
    advance: Advance | None = None,
) -> Written:
    """Append the rows of a video that the result does not have yet.

    Args:
        rows: All columns of the video's rows.
        video_id: Name of the video in the result.
        sources: Where the rows are from, by the number in their column `source`.
        storage: The result.
        writer: Of the result.
        advance: Called with the payload bytes that are in the result since the last call.
    """
    frames: set[int] = set()
    samples = stored_bytes = 0
    payloads = {
        number: StoredPayloads.of_rows(source, mine, source.manifest.stored_names)
        for number, source in sources.items()
        if len(mine := rows.table.filter(pc.equal(rows.table[SOURCE], number)))
    }

    def fill(cell: CellWriter, table: pa.Table) -> None:
        nonlocal samples, stored_bytes
        frames.update(table["frame_index"].to_pylist())
        samples += len(table)
        stored_bytes += payload_bytes(table)
        if table["payload_index"].null_count < len(table):
            for clip in clips_of_cell(table, payloads, storage.manifest):
                cell.append_clip(clip)
                if advance is not None:
                    advance(len(clip.data or b""))
            return
        for chunk in frame_chunks(table):
            for sample in _samples(chunk, video_id, payloads, storage):
                cell.append(sample)
                del sample  # or its payloads would be in memory beside the next ones
            if advance is not None:
                advance(sum(row["byte_size"] or 0 for row in chunk))

    write_cells(rows, video_id, storage, writer, fill, advance)
    return Written(len(frames), samples, stored_bytes)


def clips_of_cell(table: pa.Table, payloads: Mapping[int, StoredPayloads], manifest: Manifest) -> Iterator[Clip]:
    """Yield the clips of one cell; a frame that failed goes with the clip before it, or with the first one."""
    numbers = payload_numbers(table)
    rows = table.to_pylist()
    clips: dict[int, list[dict[str, Any]]] = {}
    current = next((number for number in numbers.tolist() if number >= 0), -1)
    for row, number in zip(rows, numbers.tolist(), strict=True):
        current = number if number >= 0 else current
        clips.setdefault(current, []).append(row)
    for members in clips.values():
        data = None
        first = next((row for row in members if row["status"] == "ok"), None)
        if first is not None:
            ((_, data),) = payloads[first[SOURCE]].read_checked([first]).items()
        suffix = manifest.representations[members[0]["representation"]].suffix or ""
        yield Clip(tuple(sample_row(row) for row in members), suffix, data)


def frame_chunks(table: pa.Table) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of whole frames, few enough to hold their payloads in memory."""
    chunk: list[dict[str, Any]] = []
    size = frames = 0
    for _, of_frame in groupby(rows_of(table), key=lambda row: row["frame_index"]):
        mine = list(of_frame)
        chunk += mine
        size += sum(row["byte_size"] or 0 for row in mine)
        frames += 1
        if size >= _CHUNK_BYTES or frames >= _CHUNK_FRAMES:
            yield chunk
            chunk, size, frames = [], 0, 0
    if chunk:
        yield chunk


def _samples(
    rows: Sequence[dict[str, Any]], video_id: str, payloads: Mapping[int, StoredPayloads], storage: Storage
) -> Iterator[Sample]:
    data: dict[tuple[int, str], bytes] = {}
    for number, reader in payloads.items():
        stored = [row for row in rows if row[SOURCE] == number and row["status"] == "ok"]
        data |= reader.read_checked(stored)
    records = storage.manifest.representations
    for frame, of_frame in groupby(rows, key=lambda row: row["frame_index"]):
        parts = []
        for row in of_frame:
            payload = data.pop((frame, row["representation"])) if row["status"] == "ok" else None
            parts.append(Payload(sample_row(row), records[row["representation"]].suffix or "", payload))
            del payload
        if storage.holds_runs_apart:
            parts.sort(key=lambda part: part.row.run_id)
        sample = Sample(video_id, frame, tuple(parts))
        del parts
        yield sample
        del sample


def sample_row(row: Mapping[str, Any]) -> SampleRow:
    """Return a row without its place, which the writer fills in."""
    fields = {name: value for name, value in row.items() if name not in _PLACE}
    return SampleRow(**{**fields, "shape": None if row["shape"] is None else tuple(row["shape"])})


def check_payloads(storage: Storage) -> None:
    """Read back every payload of a result.

    Raises:
        ChecksumError: If one is not what its row says.
    """
    report = ValidationReport()
    storage.check(PayloadChecker(storage.manifest, report, decode=False))
    if report.problems:
        listed = "\n".join(map(str, report.problems[:_MAX_PROBLEMS_SHOWN]))
        raise ChecksumError(f"{storage.folder} is not what was to be written:\n{listed}")
