"""`validate` for Lance tables: payloads are read in batches by row id and checked as those of tars are."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from vrekit.catalog.index import indexed_rows
from vrekit.catalog.payload_checks import PayloadChecker, PayloadInMemory, Problem, by_clip, good_rows
from vrekit.catalog.row_checks import row_mistakes
from vrekit.catalog.rows import rows_of
from vrekit.catalog.storage import Storage
from vrekit.core.checksum import crc32
from vrekit.core.errors import DatasetError
from vrekit.writers.lance.blobs import LARGE_BYTES, payload_pieces, read_payloads
from vrekit.writers.lance.errors import is_damage, reading_lance
from vrekit.writers.lance.ledger import check_ledger, data_files_of
from vrekit.writers.lance.metadata import damaged_indexes, damaged_tags
from vrekit.writers.lance.places import ForeignFilesError, check_blobs
from vrekit.writers.lance.probe import harmful_fragments
from vrekit.writers.lance.rows import (
    OPEN_FOLDER,
    PARTIAL_SUFFIX,
    TABLES_FOLDER,
    LostFragment,
    column_name,
    find_tables,
    lance_samples,
    open_table,
    representations_of,
    version_files,
)

if TYPE_CHECKING:
    import lance

_BATCH_BYTES = 16 << 20
_BATCH_ROWS = 256


def check_tables(storage: Storage, checker: PayloadChecker) -> None:
    """Check every row and payload of a dataset's tables, and report unfinished cells."""
    folder = storage.folder
    for path in find_tables(folder):
        name = path.relative_to(folder).as_posix()
        lost: list[LostFragment] = []
        try:
            table = open_table(path)
            damaged = check_ledger(table).damaged  # before Lance reads anything of it
            without = harmful_fragments(table, damaged)
            rows = lance_samples(folder, table=path, lost=lost, checked=False, without=without)
            columns = [column_name(name) for name in representations_of(table.schema)]
            check_blobs(table, path, columns, without=without)
        except DatasetError as error:
            code = "lost-table" if is_damage(error) and not isinstance(error, ForeignFilesError) else "table"
            checker.report.problems.append(Problem(code=code, path=name, message=error.message))
            continue
        except OSError as error:
            message = f"{error.filename} cannot be read: {error.strerror}"
            checker.report.problems.append(Problem(code="unreadable", path=name, message=message))
            continue
        checker.report.problems += _metadata_problems(table, path, name, damaged)
        checker.report.problems += [Problem(code="fragment", path=name, message=str(fragment)) for fragment in lost]
        if lost and (frames := _frames_lost(storage, name, rows)):
            message = f"the frames lost with its fragments: {frames}"
            checker.report.problems.append(Problem(code="fragment", path=name, message=message))
        rows = good_rows(rows, list(row_mistakes(rows)), name, checker.report)
        for representation in rows["representation"].unique().to_pylist():
            mine = rows.filter(pc.field("representation") == representation)
            in_clips: list[dict[str, Any]] = []
            checked = (row for row in rows_of(mine) if checker.has_payload(row))
            for batch in _batches(_without_clips(checked, in_clips)):
                _check_batch(table, representation, batch, checker)
            for clip in by_clip(in_clips):
                _check_clip(table, clip, checker)
        others = [problem for problem in checker.report.problems if problem.path == name]
        known = {f"data/{file}" for fragment in lost for file in fragment.files}
        if damaged:
            places = {(one.video_id or "", one.frame_index or 0) for one in others if one.representation is not None}
            known |= data_files_of(table, places, without=without)
        # where no other problem says what is damaged in a file
        checker.report.problems += [
            _of_ledger(file, name) for file in damaged if file not in known and not file.startswith("_indices/")
        ]
    for partial in sorted((folder / TABLES_FOLDER / OPEN_FOLDER).glob(f"*/*.{PARTIAL_SUFFIX}")):
        relative = partial.relative_to(folder).as_posix()
        message = "an unfinished cell: `vrekit resume` goes on with it"
        checker.report.problems.append(Problem(code="unfinished", path=relative, message=message))


def _metadata_problems(table: "lance.LanceDataset", path: Path, name: str, damaged: Sequence[str]) -> Iterator[Problem]:
    """Yield what is damaged of what Lance itself keeps about a table."""
    for version, file in version_files(path).items():
        if version > table.version:
            yield Problem(code="version", path=name, message=f"_versions/{file.name}: version {version} is damaged")
    for tag in damaged_tags(table):
        yield Problem(code="tag", path=name, message=f"the tag {tag} is damaged; the next change of the table mends it")
    for index in damaged_indexes(table, damaged):
        yield Problem(code="index", path=name, message=f"the index {index.name} is damaged; it is only a copy")


def _of_ledger(file: str, name: str) -> Problem:
    code = "version" if file.startswith("_versions/") else "fragment"
    return Problem(code=code, path=name, message=f"{file} is damaged: its bytes do not give its checksum")


def _frames_lost(storage: Storage, name: str, rows: pa.Table) -> str:
    """Return the frames that the catalog's index knows and the table has lost: `car 0..4 8, bus 2`."""
    known = indexed_rows(storage, ("video_id", "frame_index", "shard"))
    if known is None:
        return ""
    there = set(zip(rows["video_id"].to_pylist(), rows["frame_index"].to_pylist(), strict=True))
    lost: dict[str, set[int]] = {}
    for table in known:
        mine = table.filter(pc.equal(table["shard"].cast("string"), name))
        for video_id, frame in zip(mine["video_id"].to_pylist(), mine["frame_index"].to_pylist(), strict=True):
            if (video_id, frame) not in there:
                lost.setdefault(video_id, set()).add(frame)
    return ", ".join(f"{video_id} {_ranges(sorted(frames))}" for video_id, frames in lost.items())


def _ranges(frames: Sequence[int]) -> str:
    """Return rising numbers as text: `0..4 8`."""
    parts = []
    first = last = frames[0]
    for frame in [*frames[1:], None]:
        if frame is None or frame != last + 1:
            parts.append(f"{first}..{last}" if last > first else str(first))
            first = frame if frame is not None else first
        last = frame if frame is not None else last
    return " ".join(parts)


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while chunk := list(islice(rows, _BATCH_ROWS)):
        start, size = 0, 0
        for at, row in enumerate(chunk):
            size += row["byte_size"] or 0
            if size >= _BATCH_BYTES or at + 1 == len(chunk):
                yield chunk[start : at + 1]
                start, size = at + 1, 0


def _without_clips(rows: Iterator[dict[str, Any]], in_clips: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows with a payload of their own, and gather the others."""
    for row in rows:
        if row["payload_index"] is None:
            yield row
        else:
            in_clips.append(row)


class _PayloadInTable:
    """A payload that is read when it is needed, in pieces; a DatasetError says why it cannot be."""

    def __init__(self, table: "lance.LanceDataset", row: dict[str, Any]) -> None:
        self.size: int = row["byte_size"]
        self._table = table
        self._row = row
        self._column = column_name(row["representation"])

    def checksum(self) -> int:
        """See StoredPayload."""
        found = 0
        with reading_lance(Path(self._row["shard"])):
            pieces = payload_pieces(self._table, self._column, self._row["byte_offset"], self.size)
            if pieces is None:
                raise DatasetError("the table has none")
            for piece in pieces:
                found = crc32(piece, found)
        return found

    def read(self) -> bytes:
        """Return the payload."""
        with reading_lance(Path(self._row["shard"])):
            (data,) = read_payloads(self._table, self._column, [self._row["byte_offset"]], [self.size])
        return data or b""


def _check_large(table: "lance.LanceDataset", row: dict[str, Any], checker: PayloadChecker) -> None:
    try:
        checker.check(row, _PayloadInTable(table, row))
    except DatasetError as error:
        checker.problem(row, "place", f"the payload cannot be read: {error.message}")


def _check_clip(table: "lance.LanceDataset", rows: list[dict[str, Any]], checker: PayloadChecker) -> None:
    try:
        checker.check_clip(rows, _PayloadInTable(table, rows[0]))
    except DatasetError as error:
        checker.problem(rows[0], "place", f"the payload cannot be read: {error.message}")


def _check_batch(
    table: "lance.LanceDataset", representation: str, rows: list[dict[str, Any]], checker: PayloadChecker
) -> None:
    for row in rows:
        if row["byte_size"] >= LARGE_BYTES:
            _check_large(table, row, checker)
    rows = [row for row in rows if row["byte_size"] < LARGE_BYTES]
    if not rows:
        return
    ids, sizes = [row["byte_offset"] for row in rows], [row["byte_size"] for row in rows]
    try:
        with reading_lance(Path(rows[0]["shard"])):
            payloads = read_payloads(table, column_name(representation), ids, sizes)
    except DatasetError as error:
        if len(rows) == 1:
            checker.problem(rows[0], "place", f"the payload cannot be read: {error}")
        else:
            for row in rows:
                _check_batch(table, representation, [row], checker)
        return
    for row in rows:
        data = payloads.pop(0)  # checked ones need no memory any more
        if data is None:
            checker.problem(row, "place", "the row promises a payload, the table has none")
        else:
            checker.check(row, PayloadInMemory(data))
