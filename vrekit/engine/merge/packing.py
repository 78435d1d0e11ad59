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
    if not len(frame):
        return []
    total = np.cumsum(member_sizes(rows))
    new_frame = np.ones(len(frame), np.bool_)
    new_frame[1:] = (np.diff(frame) != 0) | (np.diff(rows.group) != 0)
    frame_stops = np.append(np.flatnonzero(new_frame)[1:], len(frame))
    cell = frame // shard_frames
    new_cell = np.append(True, (np.diff(cell) != 0) | (np.diff(rows.group) != 0))
    cell_starts = np.append(np.flatnonzero(new_cell), len(frame))
    shards = []
    for start, cell_stop in zip(cell_starts[:-1].tolist(), cell_starts[1:].tolist(), strict=True):
        while start < cell_stop:
            before = total[start - 1] if start else 0
            full = int(np.searchsorted(total, before + shard_size_bytes))  # the row that reaches the size
            stop = (
                min(cell_stop, int(frame_stops[np.searchsorted(frame_stops, full, side="right")]))
                if full < len(frame)
                else cell_stop
            )
            name = f"{rows.groups[rows.group[start]]}-{frame[start]:08d}-{frame[stop - 1]:08d}"
            shards.append(ShardRows(f"{SHARDS_FOLDER}/{video_id}/{name}.tar", start, stop))
            start = stop
    return shards
