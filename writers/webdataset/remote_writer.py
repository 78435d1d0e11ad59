"""Writing tar shards behind a URL: open shards lie on local scratch, finished ones go up by conditional writes.

To commit a shard: put the tar if there is none of that name, then its sidecar, likewise. Other drivers may work on the
same cell from other machines. What they committed first counts: before each of the two writes the cell's sidecars are
listed, and rows that are stored already are left out; when all are, the shard is discarded. A tar without a sidecar
belongs to nobody. It is never replaced, as its writer may be about to put the sidecar; a tar with other content takes
the next free name.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from vrekit.catalog.arrow_numpy import numbers
from vrekit.catalog.cells import Cell, cell_of
from vrekit.catalog.manifest import Manifest
from vrekit.catalog.parquet_files import checksum_in
from vrekit.catalog.remote import RemoteDataset
from vrekit.catalog.runs import ShardFacts
from vrekit.core.errors import LockedError, ObjectExistsError
from vrekit.core.files import storage_errors, write_atomic
from vrekit.core.schema import SAMPLES_SCHEMA
from vrekit.writers.file_ranges import copy_range
from vrekit.writers.stored_rows import STORED_COLUMNS, STORED_SCHEMA, is_among, stored_only
from vrekit.writers.webdataset.remote_scratch import cell_home, open_partials, scratch_homes
from vrekit.writers.webdataset.sidecars import PARTIAL_SUFFIX, SHARDS_FOLDER, read_sidecars, sidecar_bytes
from vrekit.writers.webdataset.tar_format import BLOCK, END_OF_ARCHIVE
from vrekit.writers.webdataset.writer import TarCellWriter, WebDatasetWriter, with_shard

logger = logging.getLogger(__name__)

_STEP_BYTES = 16 << 20
_FRAME = ("frame_index", "representation")
_T = TypeVar("_T")


class RemoteWebDatasetWriter(WebDatasetWriter):
    """Writes tar shards into a dataset behind a URL."""

    def __init__(self, remote: RemoteDataset, manifest: Manifest) -> None:
        super().__init__(remote.folder, shard_frames=manifest.shard_frames, shard_size_bytes=manifest.shard_size_bytes)
        self._remote = remote
        self._manifest = manifest

    def open_cell(self, cell: Cell) -> "RemoteTarCellWriter":
        """See DatasetWriter."""
        return RemoteTarCellWriter(self._remote, self._manifest, cell, self._committed)

    def sweep(self, video_id: str) -> None:
        """See DatasetWriter; it looks at what this machine left."""
        for home in scratch_homes(self._remote):
            for partial in open_partials(home, video_id):
                cell = cell_of(partial.name[1:].removesuffix(f".{PARTIAL_SUFFIX}"), video_id, self.shard_frames)
                if cell is None or home != cell_home(self._remote, self._manifest, video_id, cell.group):
                    continue
                try:
                    self.open_cell(cell).suspend()
                except LockedError:
                    continue


class RemoteTarCellWriter(TarCellWriter):
    """The open shard of one cell, on scratch."""

    def __init__(
        self, remote: RemoteDataset, manifest: Manifest, cell: Cell, committed: dict[str, ShardFacts] | None = None
    ) -> None:
        """Open a cell.

        Args:
            remote: The dataset.
            manifest: Of the dataset.
            cell: Which one.
            committed: Gets the shards that are committed.
        """
        self._remote = remote
        self._known: dict[str, pa.Table] = {}  # sidecars of the cell that were read since it was opened, by stem
        self._foreign: set[str] = set()  # stems of tars with other content that have no sidecar
        home = cell_home(remote, manifest, cell.video_id, cell.group)
        super().__init__(home, cell, manifest.shard_size_bytes, committed)

    def _prepare(self) -> None:
        copies = self._remote.folder / SHARDS_FOLDER / self.cell.video_id
        names = self._names_of_cell(os.listdir(copies)) if copies.is_dir() else []
        self._sidecars = [copies / name for name in names if name.endswith(".parquet")]

    def _publish(self) -> None:
        self._open.seal(END_OF_ARCHIVE)
        while True:
            needed = list(self._needed_rows())
            count = sum(map(len, needed))
            if not count:
                logger.info("%s: another process has stored these frames; this shard is discarded", self.cell)
                return
            if count == sum(map(len, self._open.tables())):
                tar, is_packed = self._partial, False
            else:
                tar, is_packed = self._partial.with_suffix(".part"), True
                needed = [_pack(needed, self._partial, tar)]
            try:
                if self._put_both(tar, needed):
                    return
            finally:
                if is_packed:
                    tar.unlink(missing_ok=True)

    def _needed_rows(self) -> Iterator[pa.Table]:
        """Yield the gathered rows that the dataset does not have, those of a table at a time."""
        others = self._read_others()
        stored = stored_only(pa.concat_tables([self._stored(), others]))
        for table in self._open.tables():
            is_there = is_among(table, stored, _FRAME)
            is_failed = pc.and_(pc.not_equal(table["status"], "ok"), is_among(table, others, _FRAME))
            yield table.filter(pc.invert(pc.or_(is_there, is_failed)))

    def _read_others(self) -> pa.Table:
        """Return the rows that were committed to the cell since it was opened, by whomever, with STORED_COLUMNS."""
        folder = f"{SHARDS_FOLDER}/{self.cell.video_id}"
        store = self._remote.store
        names = self._names_of_cell(info.name.rpartition("/")[2] for info in store.list(folder))
        before = {path.stem for path in self._sidecars}
        for name in names:
            stem, _, ending = name.rpartition(".")
            if ending != "parquet" or stem in before or stem in self._known:
                continue
            copy = self._home / name  # its name is checked against its rows
            write_atomic(copy, store.read(f"{folder}/{name}"))
            try:
                self._known[stem] = read_sidecars([copy], STORED_COLUMNS)
            finally:
                copy.unlink(missing_ok=True)
        return pa.concat_tables([STORED_SCHEMA.empty_table(), *self._known.values()])

    def _put_both(self, tar: Path, tables: list[pa.Table]) -> bool:
        """Put a tar and its sidecar; return whether they are part of the dataset now."""
        frames = [numbers(table["frame_index"], "int64") for table in tables if len(table)]
        stem = f"{self.cell.group}-{min(map(min, frames)):08d}-{max(map(max, frames)):08d}"
        name = self._free_name(stem)
        shard = f"{SHARDS_FOLDER}/{self.cell.video_id}/{name}.tar"
        if not self._put_tar(shard, tar):
            self._foreign.add(name)
            return False
        known = len(self._known)
        self._read_others()
        if len(self._known) > known:  # another one was faster; see what is left to store
            return False
        sidecar = sidecar_bytes(with_shard(table, shard) for table in tables)
        try:
            self._remote.store.put_if_absent(shard.removesuffix(".tar") + ".parquet", sidecar)
        except ObjectExistsError:
            return False
        self._known[name] = pa.concat_tables(tables).select(STORED_COLUMNS)
        rows = len(self._known[name])
        self._committed[shard] = ShardFacts(bytes=tar.stat().st_size, rows=rows, checksum=checksum_in(sidecar) or "")
        return True

    def _free_name(self, name: str) -> str:
        taken = {path.stem for path in self._sidecars} | self._known.keys() | self._foreign
        candidate, count = name, 0
        while candidate in taken:
            count += 1
            candidate = f"{name}-{count}"
        return candidate

    def _put_tar(self, shard: str, tar: Path) -> bool:
        """Put a tar; return whether the object of that name has its content now."""
        store, size, started = self._remote.store, tar.stat().st_size, time.perf_counter()
        try:
            interruptible(lambda: store.put_if_absent(shard, tar))
        except ObjectExistsError:
            return self._is_stored(shard, tar)
        seconds = time.perf_counter() - started
        logger.info("%s: %.1f MB uploaded in %.2f s", store.where(shard), size / 1e6, seconds)
        return True

    def _is_stored(self, shard: str, tar: Path) -> bool:
        """Return whether a tar in the store has the content of a local one: a killed process may have put it."""
        store, size = self._remote.store, tar.stat().st_size
        if store.head(shard).size_bytes != size:
            return False
        reader = store.reader(shard)
        with tar.open("rb") as file:
            for start in range(0, size, _STEP_BYTES):
                part = file.read(_STEP_BYTES)
                if reader.read_range(start, len(part)) != part:
                    return False
        return True


def _pack(tables: list[pa.Table], source: Path, target: Path) -> pa.Table:
    """Write the members of some rows of a tar to another one, and return the rows with their new places."""
    rows = pa.concat_tables(tables).combine_chunks()
    offsets, sizes = rows["byte_offset"].to_pylist(), rows["byte_size"].to_pylist()
    places = sorted({(at, size) for at, size in zip(offsets, sizes, strict=True) if at is not None})
    moved: dict[int | None, int | None] = {None: None}
    end = 0
    with storage_errors(target), source.open("rb") as old, target.open("wb") as new:
        for at, size in places:
            length = BLOCK - (-size // BLOCK) * BLOCK  # header and padded payload
            copy_range(old.fileno(), at - BLOCK, length, new.fileno(), end)
            moved[at] = end + BLOCK
            end += length
        os.pwrite(new.fileno(), END_OF_ARCHIVE, end)
    column = rows.column_names.index("byte_offset")
    values = pa.array([moved[at] for at in offsets], pa.int64())
    return rows.set_column(column, SAMPLES_SCHEMA.field("byte_offset"), values)


def interruptible(work: Callable[[], _T]) -> _T:
    """Return what a long call returns that does not heed signals; Ctrl-C stops the waiting, not the call."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="vrekit-upload")  # which a process that ends need not join
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
