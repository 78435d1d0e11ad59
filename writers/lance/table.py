"""One Lance table that several processes append to: every change is made under its lock, and none is made twice."""

import errno
import fcntl
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vrekit.catalog.cells import Cell
from vrekit.catalog.quarantine import move_aside, new_quarantine
from vrekit.core.errors import DatasetError
from vrekit.core.files import (
    check_folder,
    has_other_names,
    make_folder,
    open_regular,
    open_to_change,
    read_regular,
)
from vrekit.writers.lance.batches import record_batches
from vrekit.writers.lance.errors import is_damage, reading_lance, writing_lance
from vrekit.writers.lance.ledger import list_committed, prune_ledger, record_files
from vrekit.writers.lance.metadata import TAGS_FOLDER, damaged_tags, tag_is_whole
from vrekit.writers.lance.rows import (
    column_name,
    is_table,
    open_table,
    open_version,
    read_rows,
    representations_of,
    table_path,
    table_schema,
    version_files,
)
from vrekit.writers.stored_rows import STORED_SCHEMA, is_among, stored_only

if TYPE_CHECKING:
    import lance
    from lance.fragment import FragmentMetadata
    from lance.lance import CleanupStats

logger = logging.getLogger(__name__)

STORAGE_VERSION: Literal["2.2"] = "2.2"  # the first with blob v2 columns
KEEP_VERSIONS = timedelta(days=14)  # a reader that opened an untagged version finds its files for as long
_MAX_RUN_IDS = 64 << 20  # bytes
_MAX_ROWS = 1 << 31  # of a data file: a whole cell is one


class LanceTable:
    """The table of one group.

    A change takes the lock, opens the latest version, writes its data files, syncs them (Lance itself never does),
    and commits. Lance would accept the same rows twice, so rows that are stored already are left out first: an append
    that is repeated because nobody knows whether it succeeded appends nothing.
    """

    def __init__(
        self, folder: Path, group: str, representations: Sequence[str], *, quarantine: Path | None = None
    ) -> None:
        self._folder = folder
        self._quarantine = quarantine
        self.path = table_path(folder, group)
        self.representations = tuple(representations)
        self._lock_path = self.path.with_name(f".{group}.lock")
        self._untidy_path = self.path.with_name(f".{group}.untidy")  # a run id a line

    @property
    def exists(self) -> bool:
        """Whether the table was made."""
        return is_table(self.path)

    def untidy_runs(self) -> set[str]:
        """Return the runs that appended rows since the table was tidied: those at work, and those that were killed."""
        try:
            return set(read_regular(self._untidy_path, max_bytes=_MAX_RUN_IDS).decode().split("\n")) - {""}
        except FileNotFoundError:
            return set()

    def mark_tidy(self) -> None:
        """Forget the runs that appended rows; call it with the lock held."""
        self._untidy_path.unlink(missing_ok=True)

    def _mark_untidy(self, run_ids: Collection[str]) -> None:
        new = set(run_ids) - self.untidy_runs()
        if new:
            with os.fdopen(open_to_change(self._untidy_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "a") as file:
                file.writelines(f"{run_id}\n" for run_id in sorted(new))

    @contextmanager
    def locked(self) -> Iterator["lance.LanceDataset"]:
        """Hold the table's lock and give its latest version, making the table when it is not there.

        Versions and tags that are damaged are put right first: Lance would refuse every later change.
        """
        with writing_lance(self.path):
            make_folder(self.path.parent.parent, self.path.parent.name)
            check_folder(self.path)
            descriptor = open_regular(self._lock_path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                was_unfinished = os.fstat(descriptor).st_size > 0
                is_own = not has_other_names(descriptor)  # else what is written would be in another file, too
                if is_own:
                    os.pwrite(descriptor, b"unfinished", 0)
                dataset = self._open() if self.exists else self._create()
                repair_tags(dataset)
                if was_unfinished:
                    # Delete what the former owner wrote and never committed, list what it committed.
                    self.clean_up(dataset, KEEP_VERSIONS, delete_unverified=True)
                    list_committed(dataset)
                yield dataset
                self._check_latest()
                if is_own:
                    os.ftruncate(descriptor, 0)  # not when something was raised
            finally:
                os.close(descriptor)

    def _open(self) -> "lance.LanceDataset":
        """Open the latest version; damaged ones after it are moved aside, or nothing could be committed any more."""
        dataset = open_table(self.path)
        self._move_aside(file for version, file in version_files(self.path).items() if version > dataset.version)
        return dataset

    def clean_up(
        self, dataset: "lance.LanceDataset", older_than: timedelta, *, delete_unverified: bool = False
    ) -> "CleanupStats":
        """Delete old versions that no tag holds, and what belongs to none; call it with the lock held."""

        def clean_up() -> "CleanupStats":
            return dataset.cleanup_old_versions(
                older_than, delete_unverified=delete_unverified, error_if_tagged_old_versions=False
            )

        try:
            with reading_lance(self.path):
                stats = clean_up()
        except DatasetError as error:
            if not is_damage(error):
                raise
            self._move_aside(file for version, file in version_files(self.path).items() if not self._opens(version))
            repair_tags(dataset)  # of the versions that went
            stats = clean_up()
        prune_ledger(self.path)
        return stats

    def _check_latest(self) -> None:
        """Raise an OSError if the latest version cannot be opened: Lance overlooks that a disk is full."""
        version, file = next(iter(version_files(self.path).items()))
        if not self._opens(version):
            raise OSError(errno.ENOSPC, f"{file} was not written")

    def _opens(self, version: int) -> bool:
        try:
            open_version(self.path, version)
        except DatasetError as error:
            return not is_damage(error)
        return True

    def _move_aside(self, files: Iterable[Path]) -> None:
        for file in files:
            self._quarantine = self._quarantine or new_quarantine(self._folder)
            logger.warning("%s: %s is damaged, so it is moved to %s", self.path, file.name, self._quarantine)
            move_aside(self._folder, self._quarantine, file)

    def _create(self) -> "lance.LanceDataset":
        import lance

        empty = table_schema(self.representations).empty_table()
        dataset = lance.write_dataset(
            empty, str(self.path), data_storage_version=STORAGE_VERSION, enable_stable_row_ids=True
        )
        self.sync(())
        return dataset

    def files(self) -> set[str]:
        """Return the paths of all files of the table."""
        return {os.path.join(folder, name) for folder, _, names in os.walk(self.path) for name in names}

    def sync(self, known: Collection[str]) -> set[str]:
        """Make files durable that are not `known`, and return the paths of all; Lance syncs nothing itself."""
        files = self.files()
        new = files.difference(known)
        for path in new:
            _fsync(path)
        record_files(self.path, new)
        for folder in {os.path.dirname(path) for path in new} | {self.path, self.path.parent}:
            _fsync(folder)
        return files

    def stored(self, cell: Cell) -> pa.Table:
        """Return the rows of a cell that are committed, with STORED_COLUMNS."""
        return _stored(open_table(self.path), self.path, cell) if self.exists else STORED_SCHEMA.empty_table()

    def append(self, cell: Cell, tables: Iterable[pa.Table], read: Callable[[int, int], bytes]) -> None:
        """Append rows that are not stored yet, durably, and tag the version with their runs.

        Args:
            cell: Video and range of frames that the rows are from.
            tables: Metadata rows; those of one frame next to each other, in the same table.
            read: Returns the payload at an offset, of a size.
        """
        from lance import LanceDataset, LanceOperation
        from lance.fragment import write_fragments

        with self.locked() as dataset:
            run_ids: dict[str, None] = {}
            sizes: list[int] = []

            def read_noted(offset: int, size: int) -> bytes:
                sizes.append(size)
                return read(offset, size)

            new = _without_stored(tables, _stored(dataset, self.path, cell), run_ids)
            batches = record_batches(new, read_noted, dataset.schema)
            first = next(batches, None)
            if first is not None:
                known = self.files()
                fragments = write_fragments(
                    pa.RecordBatchReader.from_batches(dataset.schema, chain([first], batches)),
                    str(self.path),
                    max_rows_per_file=_MAX_ROWS,
                    data_storage_version=STORAGE_VERSION,
                    enable_stable_row_ids=True,
                )
                check_data_files(self.path, fragments)
                if blob_bytes(self.path, fragments) not in _possible_blob_bytes(sizes):
                    raise OSError(errno.ENOSPC, f"{self.path}: payloads were not written")
                known = self.sync(known)
                self._mark_untidy(run_ids)  # before the commit: whatever comes now, somebody tidies
                dataset = LanceDataset.commit(
                    str(self.path), LanceOperation.Append(fragments), read_version=dataset.version
                )
                self.sync(known)
            for run_id in run_ids:
                tag(dataset, run_id)


def check_data_files(table: Path, fragments: "Iterable[FragmentMetadata]") -> None:
    """Raise an OSError if a data file is shorter than Lance says: it overlooks errors of its last write."""
    for file in (file for fragment in fragments for file in fragment.files):
        size = (table / "data" / file.path).stat().st_size
        if size != file.file_size_bytes:
            raise OSError(errno.ENOSPC, f"data/{file.path} has {size} of {file.file_size_bytes} bytes")


def blob_bytes(table: Path, fragments: "Iterable[FragmentMetadata]") -> int:
    """Return the bytes in the blob files of fragments; a data file itself has the small payloads."""
    folders = [(table / "data" / file.path).with_suffix("") for fragment in fragments for file in fragment.files]
    return sum(blob.stat().st_size for folder in folders if folder.is_dir() for blob in folder.iterdir())


def _possible_blob_bytes(sizes: Collection[int]) -> set[int]:
    """Return the bytes that blob files can have in all: the payloads from some size on are there, end to end."""
    return {0, *np.cumsum(sorted(sizes, reverse=True)).tolist()}


def _stored(dataset: "lance.LanceDataset", path: Path, cell: Cell) -> pa.Table:
    names = representations_of(dataset.schema)
    found = read_rows(
        dataset,
        path,
        ["frame_index", "run_id", *(column_name(name, "status") for name in names)],
        f"video_id = '{cell.video_id}' AND frame_index >= {cell.first} AND frame_index <= {cell.last}",
    )
    parts = [STORED_SCHEMA.empty_table()]
    for name in names:
        status = found[column_name(name, "status")]
        columns = [found["frame_index"], pa.repeat(name, len(found)), found["run_id"], status]
        parts.append(pa.table(columns, schema=STORED_SCHEMA).filter(status.is_valid()))
    return pa.concat_tables(parts)


def _without_stored(tables: Iterable[pa.Table], stored: pa.Table, run_ids: dict[str, None]) -> Iterator[pa.Table]:
    """Yield the rows that are not stored, and note the runs of all."""
    done = stored_only(stored)
    for rows in tables:
        run_ids.update(dict.fromkeys(pc.unique(rows["run_id"]).to_pylist()))
        if len(stored):
            known = pc.or_(is_among(rows, done, ("frame_index", "representation")), is_among(rows, stored))
            rows = rows.filter(pc.invert(known))
        if len(rows):
            yield rows


def tag_name(run_id: str) -> str:
    """Return `run-<run_id>`, with `-` for what a tag cannot hold (`/` among others)."""
    return "run-" + re.sub(r"[^A-Za-z0-9._-]", "-", run_id)


def tag(dataset: "lance.LanceDataset", run_id: str) -> None:
    """Point the tag of a run at this version, which then outlives later ones; durable on return."""
    _set_tag(dataset, tag_name(run_id))


def _set_tag(dataset: "lance.LanceDataset", name: str) -> None:
    file = Path(dataset.uri) / TAGS_FOLDER / f"{name}.json"
    if file.exists():
        dataset.tags.update(name, dataset.version)
    else:
        dataset.tags.create(name, dataset.version)
    if not tag_is_whole(dataset, name):  # Lance overlooks that a disk is full
        raise OSError(errno.ENOSPC, f"{file} was not written")
    _fsync(file)
    _fsync(file.parent)


def repair_tags(dataset: "lance.LanceDataset") -> None:
    """Point damaged tags at this version, which has all rows of their runs; call it with the lock held."""
    for name in damaged_tags(dataset):
        logger.warning("%s: the tag %s is damaged, so it is set to version %s", dataset.uri, name, dataset.version)
        dataset.tags.delete(name)
        _set_tag(dataset, name)


def _fsync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
