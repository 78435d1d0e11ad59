"""What the writers share: an open cell is a file that grows plus a journal, until its rows are published."""

from abc import abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vrekit.catalog.cells import Cell, CellWriter, Clip, DatasetWriter, Sample, cell_of
from vrekit.core.errors import LockedError
from vrekit.core.files import storage_errors
from vrekit.core.locks import OwnedFile
from vrekit.writers.journal import OpenShard
from vrekit.writers.journal_lines import Row
from vrekit.writers.stored_rows import is_among, statuses, stored_only


class JournaledCellWriter(CellWriter):
    """Gathers a cell's samples in `<stem>.<suffix>` and `<stem>.journal`, and publishes them at a size or at the end.

    A subclass says how a sample's bytes are framed (`_frame`), which rows of the cell the dataset has already
    (`_stored`) and how the gathered ones become part of it (`_publish`).
    """

    def __init__(self, cell: Cell, stem: Path, *, suffix: str, max_bytes: int) -> None:
        """Take the cell and recover what an interrupted process left.

        Args:
            cell: The cell.
            stem: Path that the names of the cell's working files start with.
            suffix: Ending of the growing file.
            max_bytes: Publish at the first sample that finds this many bytes gathered.
        """
        self.cell = cell
        self._max_bytes = max_bytes
        self._partial = stem.with_name(f"{stem.name}.{suffix}")
        self._journal = stem.with_name(f"{stem.name}.journal")
        with storage_errors(stem.parent):
            stem.parent.mkdir(parents=True, exist_ok=True)
        self._owned = OwnedFile(stem.with_name(f"{stem.name}.lock"), str(cell))
        try:
            self._prepare()
            stored = self._stored()
            self._open = OpenShard(self._partial, self._journal, self.cell)
            if not self._open.is_empty and all(pc.all(is_among(rows, stored)).as_py() for rows in self._open.tables()):
                # killed between publishing and the removal of these files
                self._open.remove()
                self._open = OpenShard(self._partial, self._journal, self.cell)
            # a stored frame that failed may be tried again
            self._recovered = statuses(chain(self._open.tables(), [stored_only(stored)]))
        except BaseException:
            self._owned.release()
            raise

    def _prepare(self) -> None:
        """Clear up after an interrupted process, before the working files are read back."""

    @abstractmethod
    def _stored(self) -> pa.Table:
        """Return the rows of this cell that are part of the dataset, with STORED_COLUMNS."""

    @abstractmethod
    def _frame(self, sample: Sample) -> tuple[list[bytes], list[Row]]:
        """Return the bytes to append for a sample, and its metadata rows."""

    @abstractmethod
    def _frame_clip(self, clip: Clip) -> tuple[list[bytes], list[Row]]:
        """Return the bytes to append for a clip, and its metadata rows."""

    @abstractmethod
    def _publish(self) -> None:
        """Make the rows of `self._open` part of the dataset; it is flushed, and removed afterwards."""

    @property
    def recovered(self) -> dict[int, dict[str, str]]:
        """See CellWriter."""
        return self._recovered

    def append(self, sample: Sample) -> None:
        """See CellWriter."""
        last = self._open.last_frame
        if last is not None and (self._open.size >= self._max_bytes or sample.frame_index <= last):
            self._commit_shard()
            self._open = OpenShard(self._partial, self._journal, self.cell)
        chunks, placed = self._frame(sample)
        self._open.append(chunks, placed)

    def append_clip(self, clip: Clip) -> None:
        """See CellWriter."""
        if not self._open.is_empty:
            self._commit_shard()
            self._open = OpenShard(self._partial, self._journal, self.cell)
        chunks, placed = self._frame_clip(clip)
        self._open.append(chunks, placed)

    def flush(self) -> None:
        """See CellWriter."""
        self._open.flush()

    def suspend(self) -> None:
        """See CellWriter."""
        try:
            if self._open.is_empty:
                self._open.remove()
            else:
                self._open.flush()
                self._open.close()
        finally:
            self._owned.release()

    def commit(self) -> None:
        """See CellWriter. When it fails the cell stays owned: `suspend` gives it up."""
        if self._open.is_empty:
            self._open.remove()
        else:
            self._commit_shard()
        self._owned.release()

    def _commit_shard(self) -> None:
        self._open.flush()
        self._publish()
        self._open.remove()


def recover_cells(
    writer: DatasetWriter, partials: Iterable[Path], suffix: str, video_id: str, shard_frames: int
) -> None:
    """Open the cells of a video that nobody is writing, which drops a partial file that is committed already.

    Args:
        writer: Of the dataset.
        partials: The files of open cells, `<group>-<first frame>.<suffix>`, with or without a dot before it.
        suffix: What ends their names.
        video_id: Which video.
        shard_frames: Width of the grid.
    """
    for partial in sorted(partials):
        cell = cell_of(partial.name.removeprefix(".").removesuffix(f".{suffix}"), video_id, shard_frames)
        if cell is not None:
            with suppress(LockedError):
                writer.open_cell(cell).suspend()
