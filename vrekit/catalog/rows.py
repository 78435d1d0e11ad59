"""The rules that decide what metadata rows mean, each written once: which row counts, and which rows share a payload.

A frame of a representation may have several rows: it failed and was stored later, or two runs stored it. A clip is a
payload that many frames share; each of them has a row.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vrekit.catalog.arrow_numpy import codes, is_valid, numbers

SOURCE = "source"  # an extra column where rows of several datasets are together: which one a row is from

# -- which row counts --------------------------------------------------------------------------------------------

PREFERENCE_COLUMNS = ("frame_index", "representation", "status", "run_id")


@dataclass(frozen=True, slots=True)
class Preference:
    """Rows in groups that compete for one place, such as (video, frame, representation); the first of a group counts.

    Attributes:
        order: Row numbers, sorted by the keys; within a group, the row that counts stands first.
        counts: By position in `order`: whether the row counts.
    """

    order: NDArray[np.int64]
    counts: NDArray[np.bool_]

    @property
    def winners(self) -> NDArray[np.int64]:
        """Numbers of the rows that count, sorted by the keys."""
        return self.order[self.counts]


def prefer(table: pa.Table, *keys: NDArray[np.int64]) -> Preference:
    """Return which rows count.

    A stored row (`status` is `ok`) goes before failures, the first stored one before others, and of failures only, the
    latest run's.

    Args:
        table: Rows with (at least) `status` and `run_id`; of stored ones, those before others are preferred.
        keys: What rows compete for, the most significant key first.
    """
    order = np.lexsort(keys[::-1])
    counts = ~repeats(order, *keys)
    if not counts.all():
        status, names = codes(table["status"])
        is_failed = np.isin(status, [code for code, name in enumerate(names) if name != "ok"])
        latest_first = np.where(is_failed, -ranks(table["run_id"]), 0)
        order = np.lexsort((latest_first, is_failed, *keys[::-1]))  # stable: the first stored row stays first
        counts = ~repeats(order, *keys)
    return Preference(order, counts)


def repeats(order: NDArray[np.int64], *keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return by position in `order` whether a row has the same keys as the row before it."""
    same = np.zeros(len(order), np.bool_)
    if len(order):
        same[1:] = True
    for key in keys:
        ordered = key[order]
        same[1:] &= ordered[1:] == ordered[:-1]
    return same


def ranks(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the place of each text among the sorted distinct texts."""
    places, names = codes(column)
    rank = np.empty(len(names), np.int64)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return np.asarray(rank[places], np.int64)


# -- which rows share a payload ----------------------------------------------------------------------------------

# What identifies a payload; `byte_offset` of a Lance table is the id of the row that has the payload.
PAYLOAD_COLUMNS = ("shard", "representation", "byte_offset", "byte_size", "payload_index")


def payload_numbers(table: pa.Table) -> NDArray[np.int64]:
    """Return for each row the number of the first row that has the same payload; -1 for rows without one.

    Args:
        table: Rows with (at least) PAYLOAD_COLUMNS, and SOURCE if they are of several datasets.
    """
    found = np.arange(table.num_rows)
    found[~is_valid(table["byte_size"])] = -1
    in_clip = np.flatnonzero(is_valid(table["payload_index"]) & (found >= 0))
    if len(in_clip):
        part = table.select([name for name in (*PAYLOAD_COLUMNS, SOURCE) if name in table.column_names])
        part = part.take(pa.array(in_clip))
        places = [codes(part[name])[0] for name in ("shard", "representation")]
        places += [numbers(part[name], np.int64) for name in ("byte_offset", SOURCE) if name in part.column_names]
        _, first, clip = np.unique(np.stack(places, axis=1), axis=0, return_index=True, return_inverse=True)
        found[in_clip] = in_clip[first[clip.reshape(-1)]]
    return found


def payload_bytes(table: pa.Table) -> int:
    """Return the bytes of all payloads of some rows; one that frames share counts once."""
    first = payload_numbers(table) == np.arange(table.num_rows)
    return int(_sizes(table)[first].sum())


def byte_shares(table: pa.Table) -> NDArray[np.int64]:
    """Return how many bytes of payload each row stands for, so that they add up: a clip is divided among its frames.

    Args:
        table: Rows with (at least) PAYLOAD_COLUMNS, all of those that share a payload.
    """
    shares = _sizes(table)
    rows = np.flatnonzero(is_valid(table["payload_index"]) & is_valid(table["byte_size"]))
    if len(rows):
        first, clip, frames = np.unique(payload_numbers(table)[rows], return_inverse=True, return_counts=True)
        sizes = shares[first]
        shares[rows] = (sizes // frames)[clip]
        shares[first] += sizes % frames
    return shares


def by_payload(table: pa.Table) -> Iterable[list[dict[str, Any]]]:
    """Yield the rows of each payload that frames share, by rising `payload_index`."""
    table = table.filter(pc.and_(pc.is_valid(table["payload_index"]), pc.is_valid(table["byte_size"])))
    payload = payload_numbers(table)
    for number in np.unique(payload).tolist():
        rows = table.take(pa.array(np.flatnonzero(payload == number))).to_pylist()
        yield sorted(rows, key=lambda row: int(row["payload_index"]))


def _sizes(table: pa.Table) -> NDArray[np.int64]:
    return np.array(numbers(table["byte_size"], np.int64))


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, a few thousand in memory at a time."""
    for batch in table.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


# -- where rows are ----------------------------------------------------------------------------------------------


def places_in(column: pa.ChunkedArray, values: Iterable[str]) -> NDArray[np.int64]:
    """Return the place of each text of a column in `values`."""
    return np.asarray(pc.index_in(column, pa.array(list(values), pa.string())).to_numpy(), np.int64)


def stretches(*keys: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return (start, stop) of each stretch of rows that have the same keys."""
    count = len(keys[0])
    if not count:
        return []
    starts = [0, *(np.flatnonzero(np.any([np.diff(key) != 0 for key in keys], axis=0)) + 1).tolist()]
    return list(zip(starts, [*starts[1:], count], strict=True))


@dataclass(frozen=True, slots=True)
class GroupedRows:
    """Rows of one video, sorted by group and frame.

    Attributes:
        table: Columns as read, and `source`: `shard` and `byte_offset` are those of the source.
        groups: Names of the groups.
        group: Number in `groups` of each row, rising.
    """

    table: pa.Table
    groups: tuple[str, ...]
    group: NDArray[np.int64]

    @property
    def payload_bytes(self) -> int:
        """Bytes of all payloads; one that frames share counts once."""
        return payload_bytes(self.table)
