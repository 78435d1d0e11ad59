"""How the rows of a video are laid out in shards: cells of the grid, closed at a size, as the writers do it."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from vrekit.catalog.samples import SHARDS_FOLDER
from vrekit.engine.merge.rows import VideoRows
from vrekit.writers.tar_format import BLOCK


@dataclass(frozen=True, slots=True)
class ShardRows:
    """The rows `start` to `stop` (excluded) of a video that make one shard of a group, and its tar's path."""

    path: str
    start: int
    stop: int


def member_sizes(rows: VideoRows) -> NDArray[np.int64]:
    """Return the bytes of each row's tar member: header, payload, padding; 0 for failed rows."""
    size = np.asarray(pc.fill_null(rows.table["byte_size"], -BLOCK).to_numpy(), np.int64)
    return BLOCK + -(-size // BLOCK) * BLOCK


def pack(rows: VideoRows, video_id: str, *, shard_frames: int, shard_size_bytes: int) -> list[ShardRows]:
    """Return the shards of a video in order.

    A shard ends with its cell of the grid, or with the first frame that brings it to `shard_size_bytes`: the rule the
    writers go by, so that shards which were full already come out as they went in.
    """
    frame = rows.table["frame_index"].to_numpy()
    total = np.cumsum(member_sizes(rows))
    frame_stops = np.array([stop for _, stop in stretches(frame, rows.group)], np.int64)
    shards = []
    for start, cell_stop in stretches(frame // shard_frames, rows.group):
        while start < cell_stop:
            before = total[start - 1] if start else 0
            reaching = np.searchsorted(total, before + shard_size_bytes)  # the row that brings it to the size
            frame_stop = frame_stops[min(np.searchsorted(frame_stops, reaching, side="right"), len(frame_stops) - 1)]
            stop = min(cell_stop, int(frame_stop))
            name = f"{rows.groups[rows.group[start]]}-{frame[start]:08d}-{frame[stop - 1]:08d}"
            shards.append(ShardRows(f"{SHARDS_FOLDER}/{video_id}/{name}.tar", start, stop))
            start = stop
    return shards


def stretches(*keys: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return (start, stop) of each stretch of rows that have the same keys."""
    count = len(keys[0])
    if not count:
        return []
    starts = [0, *(np.flatnonzero(np.any([np.diff(key) != 0 for key in keys], axis=0)) + 1).tolist()]
    return list(zip(starts, [*starts[1:], count], strict=True))
