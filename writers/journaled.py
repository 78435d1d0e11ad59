"""What the writers share: an open cell is a file that grows plus a journal, until its rows are published."""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vrekit.catalog.cells import Cell, CellWriter, Clip, DatasetWriter, Sample, cell_of
from vrekit.catalog.manifest import MANIFEST_NAME, RepresentationRecord, read_manifest
from vrekit.catalog.row_checks import check_rows
from vrekit.core.errors import DatasetError, LockedError
from vrekit.core.files import storage_errors
from vrekit.core.locks import OwnedFile
from vrekit.writers.journal import OpenShard
from vrekit.writers.journal_lines import Row
from vrekit.writers.stored_rows import is_among, statuses, stored_only

logger = logging.getLogger(__name__)


class JournaledCellWriter(CellWriter):
    """Gathers a cell's samples in `<stem>.<suffix>` and `<stem>.journal`, and publishes them at a size or at the end.

    A subclass says how a sample's bytes are framed (`_frame`), which rows of the cell the dataset has already
    (`_stored`) and how the gathered ones become part of it (`_publish`).
    """

    def __init__(self, folder: Path, cell: Cell, stem: Path, *, suffix: str, max_bytes: int) -> None:
        """Take the cell and recover what an interrupted process left.

        Args:
            folder: The dataset.
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
            if not self._open.is_empty and (self._is_published(stored) or not self._is_of_dataset(folder)):
                self._open.remove()
                self._open = OpenShard(self._partial, self._journal, self.cell)
            # a stored frame that failed may be tried again
            self._recovered = statuses(chain(self._open.tables(), [stored_only(stored)]))
        except BaseException:
            self._owned.release()
            raise

    def _is_published(self, stored: pa.Table) -> bool:
        """Return whether all rows are stored: killed between publishing and the removal of the working files."""
        return all(pc.all(is_among(rows, stored)).as_py() for rows in self._open.tables())

    def _is_of_dataset(self, folder: Path) -> bool:
        """Return whether readers would take the rows; a stranger may have written the journal, with right checksums."""
        records = read_manifest(folder).representations if (folder / MANIFEST_NAME).exists() else None
        for rows in self._open.tables():
            try:
                # the shard gets its name when it is published
                check_rows(rows.drop_columns(["shard"]), lambda row: f"{self._journal}: row {row}")
            except DatasetError as error:
                logger.warning("%s; its frames are computed again", error.message)
                return False
            for row in _kinds_of(rows):
                record = None if records is None else records.get(row["representation"])
                if records is not None and not (record and _is_of(row, record, self.cell.group)):
                    logger.warning(
                        "%s: rows of %r are of another export; its frames are computed again",
                        self._journal,
                        row["representation"],
                    )
                    return False
        return True

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


def _kinds_of(rows: pa.Table) -> list[dict[str, Any]]:
    """Return what rows say about their representations, without repeats."""
    told = rows.select(["representation", "config_hash", "kind", "status", "dtype"])
    told = told.append_column("is_shared", rows["payload_index"].is_valid())
    found: list[dict[str, Any]] = told.group_by(told.column_names).aggregate([]).to_pylist()
    return found


def _is_of(row: Mapping[str, Any], record: RepresentationRecord, group: str) -> bool:
    if (row["config_hash"], row["kind"], record.group) != (record.config_hash, record.stored.kind, group):
        return False
    return row["status"] != "ok" or (row["dtype"], row["is_shared"]) == (record.stored.dtype, record.clips)
