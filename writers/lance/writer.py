"""Lance tables: one row a frame, payloads in blob columns, appended a cell at a time.

    lance/<group>.lance                            the table, laid out in vrekit.writers.lance.rows
    lance/.open/<video_id>/<group>-<cell>.payloads the cell being written (and its .journal and .lock)
    lance/.<group>.lock                            held while the table changes
    lance/.<group>.untidy                          the runs that appended rows and have not merged and indexed them yet

Lance has no unit smaller than a fragment, and a fragment a batch would end in thousands of files; so an open cell grows
in a plain file with a journal, as a tar does, and becomes one fragment when it is whole. Commit order: fragment
durable, committed under the table's lock unless its rows are there already, then the working files are removed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from vrekit.catalog.cells import Cell, Clip, DatasetWriter, Sample
from vrekit.core.checksum import crc32
from vrekit.core.files import make_folder, storage_errors
from vrekit.writers.journal_lines import Row
from vrekit.writers.journaled import JournaledCellWriter, recover_cells
from vrekit.writers.lance.maintenance import tidy
from vrekit.writers.lance.rows import OPEN_FOLDER, PARTIAL_SUFFIX, TABLES_FOLDER, table_path
from vrekit.writers.lance.table import LanceTable


class LanceWriter(DatasetWriter):
    """Writes Lance tables into `folder`."""

    def __init__(
        self, folder: Path, *, groups: Mapping[str, Sequence[str]], shard_frames: int, shard_size_bytes: int
    ) -> None:
        """Write into a dataset.

        Args:
            folder: The dataset.
            groups: Representations by group.
            shard_frames: Width of the grid of frame numbers.
            shard_size_bytes: A fragment is closed at the first frame that brings it to this size.
        """
        self.folder = folder
        self.shard_frames = shard_frames
        self.shard_size_bytes = shard_size_bytes
        self._tables = {group: LanceTable(folder, group, names) for group, names in groups.items()}

    def open_cell(self, cell: Cell) -> "LanceCellWriter":
        """See DatasetWriter."""
        return LanceCellWriter(self.folder, cell, self._tables[cell.group], self.shard_size_bytes)

    def sweep(self, video_id: str) -> None:
        """See DatasetWriter."""
        partials = (self.folder / TABLES_FOLDER / OPEN_FOLDER / video_id).glob(f"*.{PARTIAL_SUFFIX}")
        recover_cells(self, partials, PARTIAL_SUFFIX, video_id, self.shard_frames)

    def close(self) -> None:
        """Merge the small fragments of this run, and of killed ones, and bring the indexes up to date."""
        for table in self._tables.values():
            if table.untidy_runs():
                tidy(table, rows=self.shard_frames, size_bytes=self.shard_size_bytes)


class LanceCellWriter(JournaledCellWriter):
    """The open cell: payloads end to end in a plain file, until they become a fragment of the table."""

    def __init__(self, folder: Path, cell: Cell, table: LanceTable, shard_size_bytes: int) -> None:
        self._table = table
        with storage_errors(folder):
            home = make_folder(folder, TABLES_FOLDER, OPEN_FOLDER, cell.video_id)
        stem = home / f"{cell.group}-{cell.first:08d}"
        super().__init__(folder, cell, stem, suffix=PARTIAL_SUFFIX, max_bytes=shard_size_bytes)
        self._shard = table_path(folder, cell.group).relative_to(folder).as_posix()

    def _stored(self) -> pa.Table:
        return self._table.stored(self.cell)

    def _frame(self, sample: Sample) -> tuple[list[bytes], list[Row]]:
        chunks: list[bytes] = []
        placed: list[Row] = []
        at = self._open.size
        for payload in sample.payloads:
            offset = checksum = None
            if payload.data is not None:
                chunks.append(payload.data)
                offset, checksum = at, crc32(payload.data)
                at += len(payload.data)
            placed.append(payload.placed(shard=self._shard, byte_offset=offset, checksum=checksum).to_dict())
        return chunks, placed

    def _frame_clip(self, clip: Clip) -> tuple[list[bytes], list[Row]]:
        offset = checksum = None
        if clip.data is not None:
            offset, checksum = self._open.size, crc32(clip.data)
        rows = clip.placed(shard=self._shard, byte_offset=offset, checksum=checksum)
        return [clip.data] if clip.data is not None else [], [row.to_dict() for row in rows]

    def _publish(self) -> None:
        shard = self._open
        assert shard.first_frame is not None
        assert shard.last_frame is not None
        place = replace(self.cell, first=shard.first_frame, last=shard.last_frame)
        self._table.append(place, shard.tables(), shard.read)
