"""`validate` for Lance tables: payloads are read in batches by row id and checked as those of tars are."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from vrekit.catalog.lance_samples import (
    OPEN_FOLDER,
    PARTIAL_SUFFIX,
    TABLES_FOLDER,
    column_name,
    find_tables,
    lance_samples,
    open_table,
)
from vrekit.catalog.payload_checks import PayloadChecker, Problem, by_clip, rows_of
from vrekit.core.errors import DatasetError

if TYPE_CHECKING:
    import lance

_BATCH_BYTES = 16 << 20
_BATCH_ROWS = 256


def check_tables(folder: Path, checker: PayloadChecker) -> None:
    """Check every row and payload of a dataset's tables, and report unfinished cells."""
    for path in find_tables(folder):
        name = path.relative_to(folder).as_posix()
        try:
            table = open_table(path)
            rows = lance_samples(folder, table=path)
        except DatasetError as error:
            checker.report.problems.append(Problem(code="table", path=name, message=error.message))
            continue
        for representation in rows["representation"].unique().to_pylist():
            mine = rows.filter(pc.field("representation") == representation)
            in_clips: list[dict[str, Any]] = []
            checked = (row for row in rows_of(mine) if checker.has_payload(row))
            for batch in _batches(_without_clips(checked, in_clips)):
                _check_batch(table, representation, batch, checker)
            for clip in by_clip(in_clips):
                _check_clip(table, representation, clip, checker)
    checker.report_duplicates(TABLES_FOLDER)
    for partial in sorted((folder / TABLES_FOLDER / OPEN_FOLDER).glob(f"*/*.{PARTIAL_SUFFIX}")):
        relative = partial.relative_to(folder).as_posix()
        message = "an unfinished cell: `vrekit resume` goes on with it"
        checker.report.problems.append(Problem(code="unfinished", path=relative, message=message))


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


def _check_clip(
    table: "lance.LanceDataset", representation: str, rows: list[dict[str, Any]], checker: PayloadChecker
) -> None:
    try:
        ((_, data),) = table.read_blobs(column_name(representation), ids=[rows[0]["byte_offset"]])
    except (OSError, ValueError) as error:
        checker.problem(rows[0], "place", f"the payload cannot be read: {error}")
        return
    if data is None:
        checker.problem(rows[0], "place", "the rows promise a payload, the table has none")
    else:
        checker.check_clip(rows, data)


def _check_batch(
    table: "lance.LanceDataset", representation: str, rows: list[dict[str, Any]], checker: PayloadChecker
) -> None:
    ids = [row["byte_offset"] for row in rows]
    try:
        payloads = table.read_blobs(column_name(representation), ids=ids, preserve_order=True)
    except (OSError, ValueError) as error:
        if len(rows) == 1:
            checker.problem(rows[0], "place", f"the payload cannot be read: {error}")
        else:
            for row in rows:
                _check_batch(table, representation, [row], checker)
        return
    for row in rows:
        _, data = payloads.pop(0)  # checked ones need no memory any more
        if data is None:
            checker.problem(row, "place", "the row promises a payload, the table has none")
        else:
            checker.check(row, data)
