"""WebDataset shards: deterministic tars, each committed by the Parquet sidecar that describes it.

    shards/<video_id>/<group>-<first>-<last>.tar       the samples
    shards/<video_id>/<group>-<first>-<last>.parquet   their metadata; its presence commits the tar
    shards/<video_id>/.<group>-<cell>.tar.partial      the shard being written (and its .journal and .lock)

A shard is closed when its cell of the frame grid ends or when it reaches the size asked for. Commit order: tar
durable, linked to its final name, then the sidecar by atomic rename. A tar without a sidecar belongs to nobody and is
replaced by the next writer of its cell.
"""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from vrekit.catalog.cells import Cell, Clip, DatasetWriter, Sample
from vrekit.catalog.parquet_files import checksum_in
from vrekit.catalog.runs import ShardFacts
from vrekit.core.checksum import crc32
from vrekit.core.files import fsync_folder, make_folder, storage_errors, write_atomic
from vrekit.core.names import sample_key
from vrekit.core.schema import SAMPLES_SCHEMA
from vrekit.writers.journal_lines import Row
from vrekit.writers.journaled import JournaledCellWriter, recover_cells
from vrekit.writers.stored_rows import STORED_COLUMNS
from vrekit.writers.webdataset.sidecars import PARTIAL_SUFFIX, SHARDS_FOLDER, read_sidecars, sidecar_bytes
from vrekit.writers.webdataset.tar_format import BLOCK, END_OF_ARCHIVE, header, padding


class WebDatasetWriter(DatasetWriter):
    """Writes tar shards into `folder`."""

    def __init__(self, folder: Path, *, shard_frames: int, shard_size_bytes: int) -> None:
        self.folder = folder
        self.shard_frames = shard_frames
        self.shard_size_bytes = shard_size_bytes
        self._committed: dict[str, ShardFacts] = {}

    @property
    def committed(self) -> dict[str, ShardFacts]:
        """See DatasetWriter."""
        return dict(self._committed)

    def open_cell(self, cell: Cell) -> "TarCellWriter":
        """See DatasetWriter."""
        return TarCellWriter(self.folder, cell, self.shard_size_bytes, self._committed)

    def sweep(self, video_id: str) -> None:
        """See DatasetWriter."""
        partials = (self.folder / SHARDS_FOLDER / video_id).glob(f".*.{PARTIAL_SUFFIX}")
        recover_cells(self, partials, PARTIAL_SUFFIX, video_id, self.shard_frames)

    def close(self) -> None:
        """See DatasetWriter; tar shards need nothing more."""


class TarCellWriter(JournaledCellWriter):
    """The open shard of one cell; rolls over to a next shard at `shard_size_bytes`."""

    def __init__(
        self, folder: Path, cell: Cell, shard_size_bytes: int, committed: dict[str, ShardFacts] | None = None
    ) -> None:
        """Open a cell.

        Args:
            folder: The dataset.
            cell: Which one.
            shard_size_bytes: Size at which a shard is closed.
            committed: Gets the shards that are committed.
        """
        self.folder = folder
        self._committed = {} if committed is None else committed
        with storage_errors(folder):
            self._home = make_folder(folder, SHARDS_FOLDER, cell.video_id)
        self._sidecars: list[Path] = []  # of the cell, as it was opened
        stem = self._home / f".{cell.group}-{cell.first:08d}"
        super().__init__(folder, cell, stem, suffix=PARTIAL_SUFFIX, max_bytes=shard_size_bytes)

    def _prepare(self) -> None:
        names = self._names_of_cell(os.listdir(self._home))
        self._sidecars = [self._home / name for name in names if name.endswith(".parquet")]
        committed = {sidecar.stem for sidecar in self._sidecars}
        for tar in (self._home / name for name in names if name.endswith(".tar")):
            if tar.stem in committed:
                if self._partial.exists() and self._partial.samefile(tar):
                    # committed, but killed before it could remove these: recovery would cut off the tar's end
                    self._partial.unlink()
                    self._journal.unlink(missing_ok=True)
            elif self._journal.exists() and not self._partial.exists():
                tar.rename(self._partial)  # a file system without hard links: the tar had been renamed, not linked
            else:
                tar.unlink()

    def _names_of_cell(self, names: Iterable[str]) -> list[str]:
        """Return those of some thousand names that are tars and sidecars of the cell, sorted."""
        prefix = f"{self.cell.group}-{_common_digits(self.cell.first, self.cell.last)}"
        pattern = re.compile(re.escape(self.cell.group) + r"-(\d{8,})-\d{8,}(-\d+)?\.(tar|parquet)")
        found = []
        for name in names:
            if name.startswith(prefix):  # most are not, and matching them all would take most of the time
                match = pattern.fullmatch(name)
                if match and self.cell.first <= int(match[1]) <= self.cell.last:
                    found.append(name)
        return sorted(found)

    def _stored(self) -> pa.Table:
        return read_sidecars(self._sidecars, STORED_COLUMNS)

    def _frame(self, sample: Sample) -> tuple[list[bytes], list[Row]]:
        chunks: list[bytes] = []
        placed: list[Row] = []
        at = self._open.size
        for payload in sample.payloads:
            offset = checksum = None
            if payload.data is not None:
                key = sample_key(sample.video_id, sample.frame_index)
                name = f"{key}.{payload.row.representation}.{payload.suffix}"
                chunks += [header(name, len(payload.data)), payload.data, padding(len(payload.data))]
                offset, checksum = at + BLOCK, crc32(payload.data)
                at += BLOCK + len(payload.data) + len(chunks[-1])
            placed.append(payload.placed(shard="", byte_offset=offset, checksum=checksum).to_dict())
        return chunks, placed

    def _frame_clip(self, clip: Clip) -> tuple[list[bytes], list[Row]]:
        chunks: list[bytes] = []
        offset = checksum = None
        first = clip.first
        if clip.data is not None and first is not None:
            name = f"{sample_key(first.video_id, first.frame_index)}.{first.representation}.{clip.suffix}"
            chunks = [header(name, len(clip.data)), clip.data, padding(len(clip.data))]
            offset, checksum = self._open.size + BLOCK, crc32(clip.data)
        return chunks, [row.to_dict() for row in clip.placed(shard="", byte_offset=offset, checksum=checksum)]

    def _publish(self) -> None:
        self._open.seal(END_OF_ARCHIVE)
        name = self._free_name(f"{self.cell.group}-{self._open.first_frame:08d}-{self._open.last_frame:08d}")
        tar = self._home / f"{name}.tar"
        with storage_errors(tar):
            _link(self._partial, tar)
            fsync_folder(self._home)
        shard = tar.relative_to(self.folder).as_posix()
        rows = 0

        def tables() -> Iterator[pa.Table]:
            nonlocal rows
            for table in self._open.tables():
                rows += len(table)
                yield with_shard(table, shard)

        sidecar = sidecar_bytes(tables())
        write_atomic(tar.with_suffix(".parquet"), sidecar)
        self._committed[shard] = ShardFacts(bytes=tar.stat().st_size, rows=rows, checksum=checksum_in(sidecar) or "")

    def _free_name(self, name: str) -> str:
        # A retry of failed frames can span the same frame numbers as an earlier shard.
        candidate, count = name, 0
        while (self._home / f"{candidate}.parquet").exists():
            count += 1
            candidate = f"{name}-{count}"
        return candidate


def _common_digits(first: int, last: int) -> str:
    """Return the leading digits that all frame numbers of a range have, as they are written in the names of shards."""
    a, b = f"{first:08d}", f"{last:08d}"
    return a[: next((at for at in range(len(a)) if a[at] != b[at]), len(a))] if len(a) == len(b) else ""


def with_shard(rows: pa.Table, shard: str) -> pa.Table:
    """Return rows that say that they are of a shard."""
    at = rows.column_names.index("shard")
    return rows.set_column(at, SAMPLES_SCHEMA.field("shard"), pa.repeat(shard, len(rows)))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        source.rename(target)
