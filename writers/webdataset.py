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
from pathlib import Path
from typing import Any

from vrekit.catalog.samples import SHARDS_FOLDER, sidecar_bytes
from vrekit.core.checksum import crc32
from vrekit.core.files import fsync_folder, storage_errors, write_atomic
from vrekit.core.locks import OwnedFile
from vrekit.core.names import sample_key
from vrekit.core.schema import rows_to_table
from vrekit.writers.base import Cell, CellWriter, DatasetWriter, Sample
from vrekit.writers.journal import OpenShard
from vrekit.writers.tar_format import BLOCK, header, padding


class WebDatasetWriter(DatasetWriter):
    """Writes tar shards into `folder`."""

    def __init__(self, folder: Path, *, shard_size_bytes: int) -> None:
        self.folder = folder
        self.shard_size_bytes = shard_size_bytes

    def open_cell(self, cell: Cell) -> "TarCellWriter":
        """See DatasetWriter."""
        return TarCellWriter(self.folder, cell, self.shard_size_bytes)

    def close(self) -> None:
        """See DatasetWriter; tar shards need nothing more."""


class TarCellWriter(CellWriter):
    """The open shard of one cell; rolls over to a next shard at `shard_size_bytes`."""

    def __init__(self, folder: Path, cell: Cell, shard_size_bytes: int) -> None:
        self.folder = folder
        self.cell = cell
        self.shard_size_bytes = shard_size_bytes
        self._home = folder / SHARDS_FOLDER / cell.video_id
        with storage_errors(self._home):
            self._home.mkdir(parents=True, exist_ok=True)
        stem = f".{cell.group}-{cell.first:08d}"
        self._partial = self._home / f"{stem}.tar.partial"
        self._journal = self._home / f"{stem}.journal"
        self._owned = OwnedFile(self._home / f"{stem}.lock", str(cell))
        try:
            self._open = self._recover()
        except BaseException:
            self._owned.release()
            raise

    # -- recovery ----------------------------------------------------------------------------------------------

    def _recover(self) -> OpenShard:
        for tar in self._uncommitted_tars():
            if self._journal.exists() and not self._partial.exists():
                tar.rename(self._partial)  # a file system without hard links: the tar had been renamed, not linked
            else:
                tar.unlink()
        shard = OpenShard(self._partial, self._journal)
        if shard.rows and self._is_committed(shard.rows):
            # killed between the commit and the removal of the partial
            shard.remove()
            shard = OpenShard(self._partial, self._journal)
        return shard

    def _uncommitted_tars(self) -> list[Path]:
        tars = []
        for path in self._home.glob(f"{_glob_escape(self.cell.group)}-*.tar"):
            first = path.stem.removeprefix(f"{self.cell.group}-")[:8]
            inside = first.isdecimal() and self.cell.first <= int(first) <= self.cell.last
            if inside and not path.with_suffix(".parquet").exists():
                tars.append(path)
        return tars

    def _is_committed(self, rows: list[dict[str, Any]]) -> bool:
        tar = self._home / f"{self._name(rows)}.tar"
        return tar.with_suffix(".parquet").exists() and self._rows_of(tar) == _identities(rows)

    def _rows_of(self, tar: Path) -> set[tuple[int, str, str]]:
        import pyarrow.parquet as pq

        columns = ["frame_index", "representation", "run_id"]
        table = pq.ParquetFile(tar.with_suffix(".parquet")).read(columns=columns)
        return set(zip(*(table[name].to_pylist() for name in columns), strict=True))

    @property
    def recovered(self) -> dict[int, dict[str, str]]:
        """See CellWriter."""
        frames: dict[int, dict[str, str]] = {}
        for row in self._open.rows:
            frames.setdefault(row["frame_index"], {})[row["representation"]] = row["status"]
        return frames

    # -- writing -----------------------------------------------------------------------------------------------

    def append(self, sample: Sample) -> None:
        """See CellWriter."""
        rows = self._open.rows
        if rows and (self._open.size >= self.shard_size_bytes or sample.frame_index <= rows[-1]["frame_index"]):
            self._commit_shard()
            self._open = OpenShard(self._partial, self._journal)
        chunks: list[bytes] = []
        placed: list[dict[str, Any]] = []
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
        self._open.append(chunks, placed)

    def flush(self) -> None:
        """See CellWriter."""
        self._open.flush()

    def suspend(self) -> None:
        """See CellWriter."""
        try:
            if self._open.rows:
                self._open.flush()
                self._open.close()
            else:
                self._open.remove()
        finally:
            self._owned.release()

    def commit(self) -> None:
        """See CellWriter."""
        try:
            if self._open.rows:
                self._commit_shard()
            else:
                self._open.remove()
        finally:
            self._owned.release()

    def _name(self, rows: list[dict[str, Any]]) -> str:
        first, last = rows[0]["frame_index"], rows[-1]["frame_index"]
        return f"{self.cell.group}-{first:08d}-{last:08d}"

    def _commit_shard(self) -> None:
        rows = self._open.rows
        self._open.seal()
        name = self._free_name(self._name(rows))
        tar = self._home / f"{name}.tar"
        with storage_errors(tar):
            _link(self._partial, tar)
            fsync_folder(self._home)
        shard = tar.relative_to(self.folder).as_posix()
        table = rows_to_table({**row, "shard": shard} for row in rows)
        write_atomic(tar.with_suffix(".parquet"), sidecar_bytes(table))
        self._open.remove()

    def _free_name(self, name: str) -> str:
        # A retry of failed frames can span the same frame numbers as an earlier shard.
        candidate, count = name, 0
        while (self._home / f"{candidate}.parquet").exists():
            count += 1
            candidate = f"{name}-{count}"
        return candidate


def _identities(rows: list[dict[str, Any]]) -> set[tuple[int, str, str]]:
    return {(row["frame_index"], row["representation"], row["run_id"]) for row in rows}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        source.rename(target)


def _glob_escape(text: str) -> str:
    return "".join(f"[{character}]" if character in "[]*?" else character for character in text)
