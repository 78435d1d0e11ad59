"""What the engine relies on in a writer, whatever the storage behind it.

A dataset is written cell by cell: a cell is a fixed range of frame numbers of one video (the grid), for one group of
representations. One process at a time owns a cell; its samples come in rising frame order.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

from vrekit.catalog.runs import ShardFacts
from vrekit.core.names import GROUP
from vrekit.core.schema import SampleRow


@dataclass(frozen=True, slots=True)
class Payload:
    """One representation of one frame, encoded; `data` is None when it failed.

    `row` has everything but the payload's place (shard, byte_offset, byte_size, checksum), which the writer adds.
    """

    row: SampleRow
    suffix: str = ""
    data: bytes | None = None

    def placed(self, *, shard: str, byte_offset: int | None, checksum: int | None) -> SampleRow:
        """Return the complete metadata row."""
        size = None if self.data is None else len(self.data)
        return replace(self.row, shard=shard, byte_offset=byte_offset, byte_size=size, checksum=checksum)


@dataclass(frozen=True, slots=True)
class Sample:
    """All payloads of one frame that go into one group."""

    video_id: str
    frame_index: int
    payloads: tuple[Payload, ...]


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames of one representation that share one payload, and frames that failed among them.

    Attributes:
        rows: Metadata rows by rising frame number; a row without `payload_index` is that of a frame that failed.
        suffix: File name ending of the payload.
        data: The payload; None when every frame failed.
    """

    rows: tuple[SampleRow, ...]
    suffix: str = ""
    data: bytes | None = None

    @property
    def first(self) -> SampleRow | None:
        """The row of the first frame that is in the payload, which is named after it."""
        return next((row for row in self.rows if row.payload_index is not None), None)

    def placed(self, *, shard: str, byte_offset: int | None, checksum: int | None) -> list[SampleRow]:
        """Return the complete metadata rows."""
        size = None if self.data is None else len(self.data)
        return [
            replace(row, shard=shard)
            if row.payload_index is None
            else replace(row, shard=shard, byte_offset=byte_offset, byte_size=size, checksum=checksum)
            for row in self.rows
        ]


@dataclass(frozen=True, slots=True)
class Cell:
    """A range of the frame grid for one group of one video: frames `first` to `last`, both included."""

    video_id: str
    group: str
    first: int
    last: int

    @classmethod
    def at(cls, video_id: str, group: str, frame: int, shard_frames: int) -> Self:
        """Return the cell that a frame lies in.

        Args:
            video_id: Its video.
            group: Of representations.
            frame: Its number.
            shard_frames: Width of the grid.
        """
        first = frame // shard_frames * shard_frames
        return cls(video_id, group, first, first + shard_frames - 1)

    def __str__(self) -> str:
        return f"{self.video_id}/{self.group} frames {self.first}..{self.last}"


class CellWriter(ABC):
    """Takes the samples of one cell. Nothing it acknowledged by `flush` is lost, whatever happens next."""

    @property
    @abstractmethod
    def recovered(self) -> dict[int, dict[str, str]]:
        """What needs no computing any more: frame number → representation name → status.

        Everything an interrupted process had written, and the stored frames of the cell that another process
        committed since the caller looked.
        """

    @abstractmethod
    def append(self, sample: Sample) -> None:
        """Add a sample. It is durable after the next `flush`, which happens by itself within two seconds."""

    @abstractmethod
    def append_clip(self, clip: Clip) -> None:
        """Add frames that share a payload, as a shard of their own where the storage has shards."""

    @abstractmethod
    def flush(self) -> None:
        """Make everything appended so far durable and recoverable."""

    @abstractmethod
    def commit(self) -> None:
        """Make the cell's samples part of the dataset, and release the cell."""

    @abstractmethod
    def suspend(self) -> None:
        """Flush and release the cell without committing; a later `open_cell` recovers its samples."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None:
            self.suspend()
            return
        try:
            self.commit()
        except BaseException:
            self.suspend()
            raise


class DatasetWriter(ABC):
    """Opens cells of one dataset."""

    @abstractmethod
    def open_cell(self, cell: Cell) -> CellWriter:
        """Return the writer of a cell, with what an interrupted process left there recovered.

        Raises:
            LockedError: If another process is writing this cell.
        """

    @property
    def committed(self) -> dict[str, ShardFacts]:
        """The tar shards that were committed through this writer, by path; other storages have none."""
        return {}

    @abstractmethod
    def sweep(self, video_id: str) -> None:
        """Remove what a process left of a video's cells that it had committed before it was killed."""

    @abstractmethod
    def close(self) -> None:
        """Finish what spans cells (indexes, versions), of earlier runs too that were killed before they did."""


def cell_of(stem: str, video_id: str, shard_frames: int) -> Cell | None:
    """Return the cell whose working files are named `<group>-<first frame>`, None for what is no such name."""
    group, _, first = stem.rpartition("-")
    if not GROUP.fullmatch(group) or not re.fullmatch("[0-9]{1,18}", first):
        return None
    return Cell(video_id, group, int(first), int(first) + shard_frames - 1)
