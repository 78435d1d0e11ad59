"""`vrekit gc`: remove what no reader and no `resume` needs. Nothing that a living process owns is touched."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vrekit.catalog.index import INDEX_FOLDER, index_digest, source_digests
from vrekit.catalog.manifest import Manifest, read_manifest
from vrekit.catalog.places import FOLDERS, check_places
from vrekit.catalog.runs import forget_shards
from vrekit.core.errors import DatasetError, LockedError
from vrekit.core.files import write_atomic
from vrekit.core.locks import OwnedFile
from vrekit.jobs.merge.rows import numbers_of, payload_numbers
from vrekit.writers.lance.rows import OPEN_FOLDER, TABLES_FOLDER, find_tables
from vrekit.writers.lance.table import LanceTable
from vrekit.writers.opener import open_writer
from vrekit.writers.webdataset.new_shard import TEMPORARY_SUFFIX
from vrekit.writers.webdataset.rewrite import group_and_first, own_cell, rewrite_shard
from vrekit.writers.webdataset.sidecars import SHARDS_FOLDER, find_sidecars, read_sidecar, sidecar_bytes

DEFAULT_AGE = timedelta(hours=24)
# Lance writes `.tmpXXXXXX`, or `NAME.tmp.<32 hex>` and the same with `#1`, and renames or links that
_TEMPORARY_OF_LANCE = re.compile(r"\.tmp\w{6}|.+\.tmp\.[0-9a-f]{32}(#\d+)?")
_TEMPORARY = re.compile(rf"\..*(\.tmp|{re.escape(TEMPORARY_SUFFIX)})")


@dataclass(slots=True, kw_only=True)
class GcReport:
    """What was removed, or with `dry_run` would be.

    Attributes:
        removed: `path`, `bytes` and `why` of each file that goes.
        kept: `path` and `why` of leftovers that stay for now.
        rows: Superseded metadata rows that were dropped.
        freed_bytes: Bytes of all that goes.
    """

    removed: list[dict[str, Any]] = field(default_factory=list)
    kept: list[dict[str, str]] = field(default_factory=list)
    rows: int = 0
    freed_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return asdict(self)


def collect_garbage(folder: Path, *, older_than: timedelta = DEFAULT_AGE, dry_run: bool = False) -> GcReport:
    """Remove the leftovers of a dataset.

    Those are: open shards of dead processes that nobody resumed for `older_than`
    (what they hold is computed again when it is wanted); temporary files as old; metadata rows that a better row
    hides, with their payloads; an index that is stale; old versions of Lance tables. A reader that has the dataset
    open must be opened again afterwards.

    Args:
        folder: The dataset.
        older_than: Age from which on work that could still be resumed is given up.
        dry_run: Only say what would be removed.

    Raises:
        DatasetError: If it is no dataset, or the metadata of a shard is damaged (`validate --repair` comes first).
    """
    manifest = read_manifest(folder)
    check_places(folder)  # what is deleted lies in the dataset
    collector = _Collector(folder, manifest, time.time() - older_than.total_seconds(), dry_run)
    collector.open_cells(folder / SHARDS_FOLDER, ".", "tar.partial")
    collector.open_cells(folder / TABLES_FOLDER / OPEN_FOLDER, "", "payloads")
    collector.uncommitted_tars()
    collector.superseded_rows()
    collector.temporary_files()
    collector.temporary_files_of_lance()
    collector.stale_index()
    if collector.manifest.writer == "lance" and not dry_run:
        collector.old_versions(older_than)
    return collector.report


class _Collector:
    def __init__(self, folder: Path, manifest: Manifest, before: float, dry_run: bool) -> None:
        self.folder = folder
        self.manifest = manifest
        self.before = before  # seconds since the epoch
        self.dry_run = dry_run
        self.report = GcReport()

    def open_cells(self, root: Path, prefix: str, suffix: str) -> None:
        """Remove cells under construction that nobody owns and nobody touched for long."""
        stems = {
            path.parent / path.name.removesuffix(f".{ending}")
            for ending in (suffix, "journal", "lock")
            for path in root.glob(f"*/{prefix}*.{ending}")
        }
        for stem in sorted(stems):
            lock, *files = (stem.with_name(f"{stem.name}.{ending}") for ending in ("lock", suffix, "journal"))
            with self._owned(lock) as is_mine:
                there = [path for path in files if path.exists()]
                if not is_mine:
                    self._keep(lock, "a process is writing it")
                elif any(path.stat().st_mtime > self.before for path in there):
                    self._keep(there[0], "an interrupted export that `vrekit resume` can go on with")
                else:
                    for path in [*_linked_tars(there), *there]:
                        self._remove(path, "an interrupted export that nobody resumed")

    def uncommitted_tars(self) -> None:
        """Name tars without a sidecar; they stay, because a tar whose sidecar was lost may be the only copy."""
        for tar in sorted((self.folder / SHARDS_FOLDER).glob("*/*.tar")):
            if tar.with_suffix(".parquet").exists() or tar.name.startswith("."):
                continue
            try:
                group, first = group_and_first(tar)
            except DatasetError:
                self._keep(tar, "no shard of vrekit's, by its name")
                continue
            cell = first // self.manifest.shard_frames * self.manifest.shard_frames
            stem = tar.with_name(f".{group}-{cell:08d}")
            with self._owned(stem.with_name(f"{stem.name}.lock")) as is_mine:
                if not is_mine:
                    self._keep(tar, "a process is writing its cell")
                elif any(stem.with_name(f"{stem.name}.{ending}").exists() for ending in ("journal", "tar.partial")):
                    self._keep(tar, "an interrupted export that `vrekit resume` can go on with")
                elif not tar.with_suffix(".parquet").exists():  # not even now that the cell is ours
                    self._keep(tar, "it has no sidecar; `vrekit repair` moves it to quarantine")

    def superseded_rows(self) -> None:
        """Drop rows that another row of the same frame and representation hides, and the payloads they have."""
        for video_id in self.manifest.videos:
            sidecars = find_sidecars(self.folder, [video_id])
            tables = [read_sidecar(sidecar) for sidecar in sidecars]
            if not tables:
                continue
            keep = _best_rows(tables)
            changed = [sidecar for sidecar, mine in zip(sidecars, keep, strict=True) if not mine.all()]
            if changed and not self.dry_run:
                tars = (sidecar.with_suffix(".tar").relative_to(self.folder) for sidecar in changed)
                forget_shards(self.folder, {tar.as_posix() for tar in tars})
            for sidecar, table, mine in zip(sidecars, tables, keep, strict=True):
                if not mine.all():
                    self._drop_rows(sidecar, table, mine)

    def _drop_rows(self, sidecar: Path, table: pa.Table, keep: NDArray[np.bool_]) -> None:
        count = int((~keep).sum())
        payloads = payload_numbers(table)
        unused = np.setdiff1d(payloads[~keep], [*payloads[keep], -1])  # a clip stays for as long as a frame needs it
        payload_bytes = sum(table["byte_size"].take(pa.array(unused)).to_pylist())
        name = sidecar.relative_to(self.folder).as_posix()
        try:
            lock = own_cell(sidecar, self.manifest)
        except LockedError:
            self._keep(sidecar, "a process is writing its cell")
            return
        try:
            self.report.rows += count
            self._note(name, payload_bytes, f"{count} superseded rows")
            if self.dry_run:
                return
            if len(unused) or not keep.any():
                rewrite_shard(self.folder, self.manifest, sidecar, table, keep)
            else:
                write_atomic(sidecar, sidecar_bytes(table.filter(pa.array(keep))))
        finally:
            lock.release()

    def temporary_files(self) -> None:
        """Remove what an interrupted write of a small file left."""
        hidden = [*self.folder.glob(".*")]
        for name in FOLDERS:
            hidden += [*(self.folder / name).glob(".*"), *(self.folder / name).glob("*/.*")]
        for path in sorted(hidden):
            if _TEMPORARY.fullmatch(path.name) and path.is_file() and path.stat().st_mtime <= self.before:
                self._remove(path, "a temporary file")

    def temporary_files_of_lance(self) -> None:
        """Remove what killed commits left inside Lance's tables."""
        for table in find_tables(self.folder):
            found = [path for path in sorted(table.rglob("*")) if _TEMPORARY_OF_LANCE.fullmatch(path.name)]
            if not found:
                continue
            with nullcontext() if self.dry_run else LanceTable(self.folder, table.stem, ()).locked():
                for path in found:
                    if path.exists() and path.stat().st_mtime <= self.before:
                        self._remove(path, "a temporary file of Lance")

    def stale_index(self) -> None:
        """Remove an index that does not describe the dataset as it is; it is made anew when it is needed."""
        digests = source_digests(self.folder, self.manifest)
        for path in sorted((self.folder / INDEX_FOLDER).glob("*.parquet")):
            if index_digest(path) != (digests.samples if path.stem == "samples" else digests.frames):
                self._remove(path, "a stale index")

    def old_versions(self, older_than: timedelta) -> None:
        """Let Lance remove versions as old that no tag holds, and files that were never committed.

        What a killed run did not come to, merging its fragments and indexing them, is done first.
        """
        open_writer(self.folder, self.manifest).close()
        for path in find_tables(self.folder):
            table = LanceTable(self.folder, path.stem, ())
            with table.locked() as dataset:
                stats = table.clean_up(dataset, older_than)
            if stats.bytes_removed:
                name = path.relative_to(self.folder).as_posix()
                self._note(name, stats.bytes_removed, f"{stats.old_versions} old versions")

    @contextmanager
    def _owned(self, lock: Path) -> Iterator[bool]:
        """Own a cell meanwhile; gives False if a process has it."""
        if self.dry_run and not lock.exists():
            yield True
            return
        try:
            owned = OwnedFile(lock, lock.name)
        except LockedError:
            yield False
            return
        try:
            yield True
        finally:
            owned.release()

    def _remove(self, path: Path, why: str) -> None:
        status = path.stat()
        # the bytes of a tar that is still linked to its partial file are not freed
        self._note(path.relative_to(self.folder).as_posix(), status.st_size if status.st_nlink == 1 else 0, why)
        if not self.dry_run:
            path.unlink()

    def _note(self, path: str, size: int, why: str) -> None:
        self.report.removed.append({"path": path, "bytes": size, "why": why})
        self.report.freed_bytes += size

    def _keep(self, path: Path, why: str) -> None:
        self.report.kept.append({"path": path.relative_to(self.folder).as_posix(), "why": why})


def _linked_tars(files: Sequence[Path]) -> list[Path]:
    """Return the tars that an interrupted commit had linked to an open shard, without a sidecar yet."""
    return [
        tar
        for file in files
        if file.name.endswith(".tar.partial") and file.stat().st_nlink > 1
        for tar in sorted(file.parent.glob("*.tar"))
        if tar.samefile(file) and not tar.with_suffix(".parquet").exists()
    ]


def _best_rows(tables: Sequence[pa.Table]) -> list[NDArray[np.bool_]]:
    """Return which rows of each shard of a video count: the first stored one, or else the latest run's failure."""
    rows = pa.concat_tables([table.select(["frame_index", "representation", "status", "run_id"]) for table in tables])
    frame = rows["frame_index"].to_numpy()
    name = numbers_of(rows["representation"], sorted(pc.unique(rows["representation"]).to_pylist()))
    failed = pc.not_equal(rows["status"], "ok").to_numpy()
    later = np.where(failed, -numbers_of(rows["run_id"], sorted(pc.unique(rows["run_id"]).to_pylist())), 0)
    order = np.lexsort((later, failed, name, frame))  # stable: shards are in order
    first = np.ones(len(order), np.bool_)
    first[1:] = (np.diff(frame[order]) != 0) | (np.diff(name[order]) != 0)
    keep = np.zeros(len(order), np.bool_)
    keep[order[first]] = True
    return np.split(keep, np.cumsum([len(table) for table in tables])[:-1])
