"""How the rows of a video are laid out in shards: cells of the grid, closed at a size, as the writers do it."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vrekit.catalog.rows import SOURCE, GroupedRows, payload_numbers, places_in, stretches
from vrekit.writers.webdataset.sidecars import SHARDS_FOLDER
from vrekit.writers.webdataset.tar_format import BLOCK


@dataclass(frozen=True, slots=True)
class ShardRows:
    """The rows `start` to `stop` (excluded) of a video that make one shard of a group, and its tar's path."""

    path: str
    start: int
    stop: int


def member_sizes(rows: GroupedRows) -> NDArray[np.int64]:
    """Return the bytes of each row's tar member: header, payload, padding.

    Failed rows have none; a payload that frames share counts for the first of them.
    """
    size = np.asarray(pc.fill_null(rows.table["byte_size"], 0).to_numpy(), np.int64)
    first = payload_numbers(rows.table) == np.arange(rows.table.num_rows)
    return np.where(first, BLOCK + -(-size // BLOCK) * BLOCK, 0)


def pack(rows: GroupedRows, video_id: str, *, shard_frames: int, shard_size_bytes: int) -> list[ShardRows]:
    """Return the shards of a video in order.

    A shard ends with its cell of the grid, or with the first frame that brings it to `shard_size_bytes`; a clip has a
    shard of its own. That is the rule the writers go by, so shards that were full already come out as they went in.
    """
    frame = rows.table["frame_index"].to_numpy()
    in_clip = rows.table["payload_index"].is_valid().to_numpy()
    frame_stops = np.array([stop for _, stop in stretches(frame, rows.group)], np.int64)
    total = np.cumsum(member_sizes(rows))
    came_from = _shard_numbers(rows)
    shards = []
    for first, last in stretches(frame // shard_frames, rows.group):
        if in_clip[first:last].any():
            stops = _clip_stops(came_from[first:last]) + first
        else:
            stops = _size_stops(total, frame_stops, first, last, shard_size_bytes)
        for start, stop in zip([first, *stops[:-1]], stops, strict=True):
            name = f"{rows.groups[rows.group[start]]}-{frame[start]:08d}-{frame[stop - 1]:08d}"
            shards.append(ShardRows(f"{SHARDS_FOLDER}/{video_id}/{name}.tar", int(start), int(stop)))
    return shards


def _size_stops(
    total: NDArray[np.int64], frame_stops: NDArray[np.int64], start: int, last: int, size_bytes: int
) -> NDArray[np.int64]:
    """Return where the shards of rows `start` to `last` end, given the running sum of member sizes."""
    stops: list[int] = []
    while start < last:
        before = total[start - 1] if start else 0
        reaching = np.searchsorted(total, before + size_bytes)  # the row that brings it to the size
        frame_stop = frame_stops[min(np.searchsorted(frame_stops, reaching, side="right"), len(frame_stops) - 1)]
        start = min(last, int(frame_stop))
        stops.append(start)
    return np.array(stops, np.int64)


def _shard_numbers(rows: GroupedRows) -> NDArray[np.int64]:
    places = pc.binary_join_element_wise(rows.table[SOURCE].cast(pa.string()), rows.table["shard"], "|")
    return places_in(places, pc.unique(places).to_pylist())


def _clip_stops(shards: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where the shards of a cell of clips end, given the shard that each row comes from: each stays one."""
    last_use = np.zeros(shards.max() + 1, np.int64)
    np.maximum.at(last_use, shards, np.arange(len(shards)))
    reaches = np.maximum.accumulate(last_use[shards])
    return np.flatnonzero(reaches == np.arange(len(shards))) + 1
