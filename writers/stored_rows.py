"""Metadata rows as Arrow tables that say what a cell has already."""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from vrekit.core.schema import SAMPLES_SCHEMA

# What identifies a metadata row of one video.
IDENTITY = ("frame_index", "representation", "run_id")
STORED_COLUMNS = (*IDENTITY, "status")
STORED_SCHEMA = pa.schema([SAMPLES_SCHEMA.field(name) for name in STORED_COLUMNS])

_ROWS_AT_ONCE = 16384


def is_among(rows: pa.Table, others: pa.Table, columns: Sequence[str] = IDENTITY) -> pa.ChunkedArray:
    """Return for each row, as a boolean, whether one of the others equals it in some columns."""
    return pc.is_in(_keys(rows, columns), _keys(others, columns))


def _keys(table: pa.Table, columns: Sequence[str]) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(*(table[name].cast(pa.string()) for name in columns), "|")


def stored_only(rows: pa.Table) -> pa.Table:
    """Return the rows that have a payload."""
    return rows.filter(pc.equal(rows["status"], "ok"))


def statuses(tables: Iterable[pa.Table]) -> dict[int, dict[str, str]]:
    """Return frame number → representation → status; later rows count. Frames of equal statuses share a dictionary."""
    found: dict[int, dict[str, str]] = {}
    shared: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for frame, name, status in _triples(tables):
        merged = {**found.get(frame, {}), name: status}
        found[frame] = shared.setdefault(tuple(merged.items()), merged)
    return found


def _triples(tables: Iterable[pa.Table]) -> Iterator[tuple[int, str, str]]:
    for table in tables:
        for batch in table.select(["frame_index", "representation", "status"]).to_batches(_ROWS_AT_ONCE):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
