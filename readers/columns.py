"""Where payloads lie, by frame: numpy columns gathered from metadata rows, no Python object per frame."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.arrow_numpy import codes, is_valid, numbers
from vrekit.catalog.row_checks import MAX_FRAME_BYTES, MAX_SIDES, stored_dtype
from vrekit.catalog.storage import MISSING
from vrekit.core.errors import DatasetError

# What is looked at of the metadata rows.
INDEX_COLUMNS = (
    "video_id",
    "frame_index",
    "pts_seconds",
    "representation",
    "status",
    "valid",
    "dtype",
    "shape",
    "byte_offset",
    "byte_size",
    "payload_index",
    "checksum",
    "shard",
)
_KEY_BITS = 63  # a video number and a frame number together make one int64 to sort and search by
_FRAME_BITS = 40  # of those for the frame number: more where a folder's files are numbered by their time

Value = TypeVar("Value", str, tuple[str, tuple[int, ...]])


@dataclass(frozen=True, slots=True)
class Layout:
    """dtype and shape of a decoded array; text has dtype `str`."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of such an array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class StoredColumn:
    """Where one representation's payloads lie, by row.

    Attributes:
        shard: Number in `FrameIndex.shards`, int32; -1 where the frame has no payload.
        offset: First byte inside the shard, int64.
        size: Bytes, int64.
        checksum: CRC-32 of the payload, uint32.
        layout: Number in `FrameIndex.layouts`, int32; -1 where the frame has no payload.
        valid: Whether the frame holds a measurement, bool.
        payload_index: Place of the frame in a payload that frames share (a clip), int32; -1 where it has its own.
    """

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    checksum: NDArray[np.uint32]
    layout: NDArray[np.int32]
    valid: NDArray[np.bool_]
    payload_index: NDArray[np.int32]

    @property
    def present(self) -> NDArray[np.bool_]:
        """Return which rows have a payload."""
        return np.not_equal(self.shard, MISSING)

    def take(self, rows: NDArray[np.int64]) -> "StoredColumn":
        """Return these rows."""
        return StoredColumn(*(getattr(self, name)[rows] for name in self.__slots__))


# field of `StoredColumn` → its dtype, and what it holds where a frame has no payload
_FIELDS: dict[str, tuple[type, int]] = {
    "shard": (np.int32, MISSING),
    "offset": (np.int64, 0),
    "size": (np.int64, 0),
    "checksum": (np.uint32, 0),
    "layout": (np.int32, MISSING),
    "valid": (np.bool_, False),
    "payload_index": (np.int32, MISSING),
}


class Gatherer:
    """Turns metadata rows into columns, some rows at a time, so that never all of them are in memory.

    The result depends on the rows alone, not on how they are split; on their order only where a frame is stored twice,
    of which the first counts.

    Args:
        names: Stored representations to locate.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)
        # what was met so far → its number here; the result has those in use, sorted
        self._videos: dict[str, int] = {}
        self._shards: dict[str, int] = {}
        self._layouts: dict[tuple[str, tuple[int, ...]], int] = {}
        self._frame_bits = _FRAME_BITS
        self._keys = [np.empty(0, np.int64)]
        self._pts_seconds = [np.empty(0, np.float64)]
        self._stored: dict[str, list[dict[str, NDArray[Any]]]] = {name: [] for name in self._names}

    def add(self, table: pa.Table) -> None:
        """Take rows with (at least) INDEX_COLUMNS.

        Raises:
            DatasetError: If they have frame numbers that no frame has.
        """
        if not table.num_rows:
            return
        videos = _numbered(*codes(table["video_id"]), self._videos)
        frames = numbers(table["frame_index"], np.int64)
        self._make_room(frames)
        row_keys = combine(videos, frames, self._frame_bits)
        keys, pts_seconds = _frames(row_keys, numbers(table["pts_seconds"], np.float64, np.nan))
        self._keys.append(keys)
        self._pts_seconds.append(pts_seconds)
        of_names = _rows_by_name(table, self._names)
        rows = np.concatenate([np.empty(0, np.int64), *of_names])
        fields = {
            "key": row_keys[rows],
            "shard": _numbered(*codes(table["shard"]), self._shards)[rows],
            "offset": numbers(table["byte_offset"], np.int64)[rows],
            "size": numbers(table["byte_size"], np.int64)[rows],
            "checksum": numbers(table["checksum"], np.uint32)[rows],
            "layout": _numbered(*_layouts(table, rows), self._layouts),
            "valid": numbers(table["valid"], np.bool_)[rows],
            "payload_index": numbers(table["payload_index"], np.int32, MISSING)[rows],
        }
        end = 0
        for name, of_name in zip(self._names, of_names, strict=True):
            start, end = end, end + len(of_name)
            self._stored[name].append({field: values[start:end] for field, values in fields.items()})

    def _make_room(self, frames: NDArray[np.int64]) -> None:
        """Give frame numbers more bits of a key where these need them."""
        if int(frames.min()) < 0:
            raise DatasetError(f"the metadata has a frame number {int(frames.min())}, expected 0 or more")
        old, new = self._frame_bits, frame_bits(frames)
        if new > old:
            self._keys = [_with_bits(keys, old, new) for keys in self._keys]
            for part in (part for parts in self._stored.values() for part in parts):
                part["key"] = _with_bits(part["key"], old, new)
            self._frame_bits = new
        if len(self._videos) > 1 << (_KEY_BITS - self._frame_bits):
            raise DatasetError(
                f"{len(self._videos)} videos with frame numbers of {self._frame_bits} bits are more than fit",
                hint="number frames from 0, or read some of the videos at a time",
            )

    def fields(self) -> dict[str, Any]:
        """Return the fields of a `FrameIndex` of what was gathered; call it once, at the end.

        Raises:
            DatasetError: If rows say that frames are arrays, or lie in files, that cannot be.
        """
        bits = self._frame_bits
        keys = np.concatenate(self._keys)
        videos, ranks = _in_use(self._videos, [keys >> bits])
        keys, pts_seconds = _frames(_with_videos(keys, ranks, bits), np.concatenate(self._pts_seconds))
        columns = {name: _column(keys, self._stored.pop(name), ranks, bits) for name in self._names}
        shards, shard_ranks = _in_use(self._shards, [column.shard for column in columns.values()])
        layouts, layout_ranks = _in_use(self._layouts, [column.layout for column in columns.values()])
        for shard in shards:
            _check_inside(shard)
        return {
            "videos": videos,
            "shards": shards,
            "layouts": tuple(_layout(dtype, shape) for dtype, shape in layouts),
            "video": (keys >> bits).astype(np.int32),
            "frame_index": keys & ((1 << bits) - 1),
            "pts_seconds": pts_seconds,
            "columns": {
                name: replace(column, shard=shard_ranks[column.shard], layout=layout_ranks[column.layout])
                for name, column in columns.items()
            },
        }


def frame_bits(frame_index: NDArray[np.int64]) -> int:
    """Return how many bits of a key these frame numbers need, at least 40."""
    return max(_FRAME_BITS, int(frame_index.max(initial=0)).bit_length())


def combine(video: NDArray[Any], frame_index: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Return one number, the key, for each (video number, frame number of so many bits), in the order of these."""
    return (video.astype(np.int64) << bits) | frame_index


def _with_videos(keys: NDArray[np.int64], ranks: NDArray[np.int32], bits: int) -> NDArray[np.int64]:
    return combine(ranks[keys >> bits], keys & ((1 << bits) - 1), bits)


def _with_bits(keys: NDArray[np.int64], old: int, new: int) -> NDArray[np.int64]:
    return combine(keys >> old, keys & ((1 << old) - 1), new)


def _layout(dtype: str, shape: tuple[int, ...]) -> Layout:
    """Return a layout as the metadata has it.

    Raises:
        DatasetError: If there are no such arrays.
    """
    kind = stored_dtype(dtype)
    if (
        kind is None
        or len(shape) > MAX_SIDES
        or min(shape, default=0) < 0
        or math.prod(shape) * kind.itemsize > MAX_FRAME_BYTES
    ):
        raise DatasetError(
            f"the metadata says that a frame is an array {dtype} {shape}, which no frame is",
            hint="`vrekit validate` lists what is damaged",
        )
    return Layout(kind, shape)


def _check_inside(shard: str) -> None:
    path = PurePosixPath(shard)
    if path.is_absolute() or ".." in path.parts:
        raise DatasetError(f"the metadata names the shard {shard!r}, which is not inside the dataset")


def _frames(keys: NDArray[np.int64], pts_seconds: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the distinct keys, sorted, and the time of each; NaN if none of its rows knows it."""
    if (keys[1:] < keys[:-1]).any():
        order = np.argsort(keys, kind="stable")
        keys, pts_seconds = keys[order], pts_seconds[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
    if len(starts) == len(keys):
        return keys, pts_seconds
    return keys[starts], np.fmax.reduceat(pts_seconds, starts)


def _rows_by_name(table: pa.Table, names: Iterable[str]) -> list[NDArray[np.int64]]:
    """Return which rows have a payload, for each of these representations."""
    name_codes, known = codes(table["representation"])
    status_codes, statuses = codes(table["status"])
    stored = is_valid(table["byte_offset"])
    stored &= np.isin(status_codes, [code for code, status in enumerate(statuses) if status == "ok"])
    numbers_of = {name: code for code, name in enumerate(known)}
    return [np.flatnonzero(stored & (name_codes == numbers_of.get(name, len(known)))) for name in names]


def _layouts(table: pa.Table, rows: NDArray[np.int64]) -> tuple[NDArray[np.int32], list[tuple[str, tuple[int, ...]]]]:
    """Return the number of each row's layout, and what the numbers stand for: names of dtypes, and shapes."""
    if not len(rows):
        return np.empty(0, np.int32), []
    dtype_codes, dtypes = codes(table["dtype"])
    shapes = table["shape"].combine_chunks()
    offsets, sides = numbers(shapes.offsets, np.int64), numbers(shapes.values, np.int64)
    start, end = offsets[:-1][rows], offsets[1:][rows]
    # for each row its dtype, then its sides, and -1 beyond the last of them
    lines = [dtype_codes[rows].astype(np.int64)]
    for axis in range(int((end - start).max())):
        at = start + axis
        is_inside = at < end
        lines.append(sides[at] if is_inside.all() else np.where(is_inside, sides[np.where(is_inside, at, 0)], MISSING))
    # Neighbours mostly have the same layout, so that few lines are left to compare.
    is_first = np.ones(len(rows), np.bool_)
    is_first[1:] = lines[0][1:] != lines[0][:-1]
    for line in lines[1:]:
        is_first[1:] |= line[1:] != line[:-1]
    first = np.flatnonzero(is_first)
    number = np.zeros(len(first), np.int64)
    for line in lines:
        _, number = np.unique((number << 32) + line[first], return_inverse=True)
    _, one, number = np.unique(number, return_index=True, return_inverse=True)
    distinct = zip(*(line[first[one]].tolist() for line in lines), strict=True)
    layouts = [(dtypes[dtype], tuple(side for side in shape if side != MISSING)) for dtype, *shape in distinct]
    return np.repeat(number, np.diff(np.append(first, len(rows)))).astype(np.int32), layouts


def _numbered(places: NDArray[np.int32], values: Sequence[Value], known: dict[Value, int]) -> NDArray[np.int32]:
    """Return places in `values` as numbers of `known`, which learns new values; -1 stays."""
    new: list[int] = [known.setdefault(value, len(known)) for value in values]
    return np.array([*new, MISSING], np.int32)[places]


def _in_use(known: Mapping[Value, int], columns: Iterable[NDArray[Any]]) -> tuple[tuple[Value, ...], NDArray[np.int32]]:
    """Return the known values in use, sorted, and the place of each number among them; -1 has -1, at the end."""
    used = np.zeros(len(known) + 1, np.bool_)
    for column in columns:
        used[column] = True
    values = sorted(value for value, number in known.items() if used[number])
    ranks = np.full(len(known) + 1, MISSING, np.int32)
    ranks[[known[value] for value in values]] = np.arange(len(values))
    return tuple(values), ranks


def _column(
    keys: NDArray[np.int64], parts: list[dict[str, NDArray[Any]]], ranks: NDArray[np.int32], bits: int
) -> StoredColumn:
    """Return the parts of a column put together, by frame."""
    own = _with_videos(np.concatenate([np.empty(0, np.int64), *(part["key"] for part in parts)]), ranks, bits)
    first: slice | NDArray[np.int64] = slice(None)
    if (own[1:] <= own[:-1]).any():
        own, first = np.unique(own, return_index=True)  # a frame stored twice counts once: the first of its rows
    where = None if len(own) == len(keys) else np.searchsorted(keys, own)
    columns: list[NDArray[Any]] = []
    for field, (dtype, nothing) in _FIELDS.items():
        values = np.concatenate([np.empty(0, dtype), *(part.pop(field) for part in parts)])[first]
        if where is not None:
            values, known = np.full(len(keys), nothing, dtype), values
            values[where] = known
        columns.append(values)
    return StoredColumn(*columns)
