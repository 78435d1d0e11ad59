"""Which frames a reader serves and where their payloads lie: numpy columns, no Python object per frame.

Row i of an index is one frame. For each stored representation a `StoredColumn` says where row i's payload lies; rows
without one have shard -1. A frame costs 20 bytes, and 33 more for each representation.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.arrow_numpy import codes
from vrekit.catalog.index import consolidated_rows, indexed_rows
from vrekit.catalog.storage import MISSING, Storage
from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.names import did_you_mean, parse_key, sample_key
from vrekit.readers.columns import INDEX_COLUMNS, Gatherer, Layout, StoredColumn, combine, frame_bits

__all__ = ["INDEX_COLUMNS", "MISSING", "FrameIndex", "Layout", "StoredColumn", "read_index"]

logger = logging.getLogger(__name__)


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
        """Return the index of one table; see `from_tables`."""
        return cls.from_tables([table], names)

    @classmethod
    def from_tables(cls, tables: Iterable[pa.Table], names: Iterable[str]) -> Self:
        """Return the index of all frames that metadata rows name, sorted by video id and frame number.

        A frame stored twice counts once: the first of its rows.

        Args:
            tables: Rows with (at least) INDEX_COLUMNS; one table at a time is in memory.
            names: Stored representations to locate.
        """
        gatherer = Gatherer(names)
        for table in tables:
            gatherer.add(table)
        return cls(**gatherer.fields())

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
        numbers, names = codes(pa.chunked_array([pa.array(video_ids, pa.string())]))
        places = {video: at for at, video in enumerate(self.videos)}
        video = np.array([places.get(name, MISSING) for name in names] or [MISSING], np.int64)[numbers]
        bits = frame_bits(self.frame_index)
        known = (frame_index >= 0) & (frame_index < 1 << bits)
        wanted = np.where(known, combine(video, frame_index, bits), MISSING)
        keys = combine(self.video, self.frame_index, bits)
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


def read_index(storage: Storage, names: Iterable[str]) -> FrameIndex:
    """Return the index of a dataset's frames, the same whether or not the catalog has consolidated their metadata.

    Nothing is written: a dataset may be read-only, and may be read by many processes at once.

    Args:
        storage: The dataset.
        names: Stored representations to locate.

    Raises:
        DatasetError: If the metadata of a shard is damaged; the message names it.
    """
    names = tuple(names)
    rows = indexed_rows(storage, INDEX_COLUMNS)
    if rows is not None:
        try:
            return FrameIndex.from_tables(rows, names)
        except (OSError, pa.ArrowException, DatasetError) as error:  # a power cut can tear it, and it is only a copy
            logger.warning(
                "%s: the index is damaged, so the shards' metadata is read instead: %s", storage.folder, error
            )
    return FrameIndex.from_tables(consolidated_rows(storage, INDEX_COLUMNS), names)
