"""Which frames a reader serves and where their payloads lie: numpy columns, no Python object per frame.

Row i of an index is one frame. For each stored representation a `StoredColumn` says where row i's payload lies; rows
without one have shard -1. A frame costs 20 bytes, and 33 more for each representation.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow.compute import call_function

from vrekit.core.errors import UsageError
from vrekit.core.names import did_you_mean, parse_key, sample_key

# What FrameIndex.from_table looks at.
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
_FRAME_BITS = 40  # a video number and a frame number together make one int64 to sort and search by
MISSING = -1


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


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameIndex:
    """The frames of a dataset, or of a subset, in the order of their row numbers.

    Attributes:
        videos: Video ids, sorted.
        shards: Paths relative to the dataset.
        layouts: Distinct dtypes and shapes.
        video: Number in `videos` by row, int32.
        frame_index: Frame number by row, int64.
        pts_seconds: Presentation time by row, float64; NaN where unknown.
        columns: Stored representations by name.
    """

    videos: tuple[str, ...]
    shards: tuple[str, ...]
    layouts: tuple[Layout, ...]
    video: NDArray[np.int32]
    frame_index: NDArray[np.int64]
    pts_seconds: NDArray[np.float64]
    columns: Mapping[str, StoredColumn] = field(default_factory=dict)

    @classmethod
    def from_table(cls, table: pa.Table, names: Iterable[str]) -> Self:
        """Return the index of all frames that metadata rows name, sorted by video id and frame number.

        Args:
            table: Rows with (at least) INDEX_COLUMNS.
            names: Stored representations to locate.
        """
        codes, unsorted_videos = _encode(table["video_id"])
        rank = np.argsort(np.argsort(np.array(unsorted_videos, object))) if unsorted_videos else np.empty(0, np.int64)
        rows_key = _combine(rank[codes], _numbers(table["frame_index"], np.int64))
        keys, first = np.unique(rows_key, return_index=True)
        shard_codes, shards = _encode(table["shard"])
        layout_codes, layouts = _layouts(table)
        offsets = _numbers(table["byte_offset"], np.int64)
        sizes = _numbers(table["byte_size"], np.int64)
        checksums = _numbers(table["checksum"], np.uint32)
        valid = np.asarray(table["valid"].to_numpy(), np.bool_)
        status_codes, statuses = _encode(table["status"])
        stored = np.isin(status_codes, [code for code, status in enumerate(statuses) if status == "ok"])
        stored &= np.asarray(table["byte_offset"].is_valid().to_numpy(), np.bool_)
        payload_indices = _numbers(table["payload_index"], np.int32, MISSING)
        name_codes, known_names = _encode(table["representation"])
        columns = {}
        for name in names:
            code = known_names.index(name) if name in known_names else MISSING
            rows = np.flatnonzero((name_codes == code) & stored)
            # A frame stored twice counts once: the first of its rows.
            found, at = np.unique(rows_key[rows], return_index=True)
            where, rows = np.searchsorted(keys, found), rows[at]
            columns[name] = StoredColumn(
                shard=_scatter(len(keys), where, shard_codes[rows], MISSING),
                offset=_scatter(len(keys), where, offsets[rows], 0),
                size=_scatter(len(keys), where, sizes[rows], 0),
                checksum=_scatter(len(keys), where, checksums[rows], 0),
                layout=_scatter(len(keys), where, layout_codes[rows], MISSING),
                valid=_scatter(len(keys), where, valid[rows], False),
                payload_index=_scatter(len(keys), where, payload_indices[rows], MISSING),
            )
        return cls(
            videos=tuple(sorted(unsorted_videos)),
            shards=tuple(shards),
            layouts=tuple(layouts),
            video=(keys >> _FRAME_BITS).astype(np.int32),
            frame_index=keys & ((1 << _FRAME_BITS) - 1),
            pts_seconds=_numbers(table["pts_seconds"], np.float64)[first],
            columns=columns,
        )

    def __len__(self) -> int:
        return len(self.frame_index)

    def __repr__(self) -> str:
        return f"FrameIndex({len(self)} frames of {len(self.videos)} videos, {', '.join(self.columns)})"

    @property
    def digest(self) -> str:
        """64 hex digits of the SHA-256 over the frames and their order: equal digests read the same sequence."""
        state = hashlib.sha256("\n".join(self.videos).encode() + b"\0")
        state.update(self.video.astype("<i4").tobytes())
        state.update(self.frame_index.astype("<i8").tobytes())
        return state.hexdigest()

    def key(self, row: int) -> str:
        """Return the key of a row's frame: `car/00000012`."""
        return sample_key(self.videos[self.video[row]], int(self.frame_index[row]))

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return an index of these rows, in this order; videos without a row are forgotten."""
        used, video = np.unique(self.video[rows], return_inverse=True)
        return replace(
            self,
            videos=tuple(self.videos[code] for code in used.tolist()),
            video=video.astype(np.int32),
            frame_index=self.frame_index[rows],
            pts_seconds=self.pts_seconds[rows],
            columns={name: column.take(rows) for name, column in self.columns.items()},
        )

    def find(self, video_ids: Sequence[str] | pa.Array, frame_index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each (video, frame), -1 where there is none."""
        codes, names = _encode(pa.chunked_array([pa.array(video_ids, pa.string())]))
        numbers = {video: at for at, video in enumerate(self.videos)}
        video = np.array([numbers.get(name, MISSING) for name in names] or [MISSING], np.int64)[codes]
        wanted = np.where(frame_index >= 0, _combine(video, frame_index), MISSING)
        keys = _combine(self.video, self.frame_index)
        order = np.argsort(keys, kind="stable")
        at = np.minimum(np.searchsorted(keys, wanted, sorter=order), max(len(keys) - 1, 0))
        rows = order[at] if len(keys) else np.full(len(wanted), MISSING)
        return np.where((video >= 0) & (keys[rows] == wanted), rows, MISSING) if len(keys) else rows

    def find_key(self, key: str) -> int:
        """Return the row of a key.

        Raises:
            UsageError: If it is no key, or no frame of this index.
        """
        video_id, frame = parse_key(key)
        if video_id not in self.videos:
            raise UsageError(
                f"no frame {key!r} here", hint=f"no video {video_id!r} here{did_you_mean(video_id, self.videos)}"
            )
        of_video = self.video == self.videos.index(video_id)
        rows = np.flatnonzero(of_video & (self.frame_index == frame))
        if not len(rows):
            frames = self.frame_index[of_video]
            raise UsageError(
                f"no frame {key!r} here",
                hint=f"{video_id} has {len(frames)} frames here, {frames.min()} to {frames.max()}",
            )
        return int(rows[0])

    def with_fill_layouts(self, name: str, fallback: Layout) -> Self:
        """Return an index in which every row of a representation has a layout, payload or not.

        A frame without a payload gets the layout its video's other frames have, or `fallback`.
        """
        column = self.columns[name]
        by_video = np.full(len(self.videos), MISSING, np.int32)
        present = np.flatnonzero(column.present)[::-1]  # reversed: the first frame of a video is assigned last
        by_video[self.video[present]] = column.layout[present]
        layouts = list(self.layouts)
        if fallback not in layouts:
            layouts.append(fallback)
        by_video[by_video == MISSING] = layouts.index(fallback)
        layout = np.where(column.present, column.layout, by_video[self.video])
        return replace(self, layouts=tuple(layouts), columns={**self.columns, name: replace(column, layout=layout)})


def _combine(video: NDArray[Any], frame_index: NDArray[np.int64]) -> NDArray[np.int64]:
    return (video.astype(np.int64) << _FRAME_BITS) | frame_index


def _encode(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], list[Any]]:
    """Return codes (-1 for null) and the distinct values they stand for."""
    encoded = column.combine_chunks()
    encoded = (encoded if isinstance(encoded, pa.Array) else pa.array([], column.type)).dictionary_encode()
    return _numbers(encoded.indices, np.int32, MISSING), encoded.dictionary.to_pylist()


def _numbers(column: pa.Array | pa.ChunkedArray, dtype: Any, null: int = 0) -> NDArray[Any]:
    """Return a numeric column; nulls become NaN in floats and `null` in integers."""
    if column.null_count:
        column = column.fill_null(float("nan") if np.dtype(dtype).kind == "f" else null)
    return np.asarray(
        column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy(), dtype
    )


def _layouts(table: pa.Table) -> tuple[NDArray[np.int32], list[Layout]]:
    # (dtype, shape) spelled as text, so that Arrow finds the distinct ones: "float32|540|960"
    shape = call_function("binary_join", [table["shape"].cast(pa.list_(pa.string())), "|"])
    codes, texts = _encode(call_function("binary_join_element_wise", [table["dtype"], shape, "|"]))
    layouts = []
    for text in texts:
        dtype, *lengths = text.split("|")
        layouts.append(Layout(np.dtype(dtype), tuple(int(length) for length in lengths if length)))
    return codes, layouts


def _scatter(length: int, where: NDArray[np.int64], values: NDArray[Any], elsewhere: Any) -> NDArray[Any]:
    result = np.full(length, elsewhere, values.dtype)
    result[where] = values
    return result
