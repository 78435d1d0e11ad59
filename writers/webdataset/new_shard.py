"""Tar shards of the result, put together from ranges of the sources' tars; one shard is committed at a time."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest
from vrekit.catalog.rows import SOURCE, GroupedRows, payload_numbers, places_in
from vrekit.catalog.storage import Advance, CopyPlan, CopySource
from vrekit.core.errors import DatasetError
from vrekit.core.files import fsync_folder, place_inside, storage_errors, write_atomic
from vrekit.core.names import sample_key
from vrekit.core.schema import SAMPLES_SCHEMA
from vrekit.writers.webdataset.copying import Members, is_tar_of, write_tar
from vrekit.writers.webdataset.packing import ShardRows, pack
from vrekit.writers.webdataset.sidecars import SHARDS_FOLDER, read_sidecar, sidecar_bytes

TEMPORARY_SUFFIX = ".merging"


@dataclass(frozen=True, slots=True)
class NewShard:
    """A shard of the result.

    Attributes:
        tar: Where it goes.
        members: What goes into the tar.
        table: The rows of its sidecar.
    """

    tar: Path
    members: Members
    table: pa.Table

    def is_committed(self) -> bool:
        """Return whether an interrupted merge has finished this shard and its bytes are still right."""
        sidecar = self.tar.with_suffix(".parquet")
        if not (sidecar.exists() and self.tar.exists()):
            return False
        try:
            # checked again: a machine that lost power may have the sidecar and not the payloads
            return bool(read_sidecar(sidecar).equals(self.table)) and is_tar_of(self.tar, self.members)
        except DatasetError:
            return False

    def commit(self, advance: Advance, *, link: bool = False, sync: bool = True) -> bool:
        """Make the shard part of the result: tar, then sidecar.

        Args:
            advance: See `write_tar`.
            link: Use a hard link where a whole source tar can be kept as it is.
            sync: Wait until the disk has the tar before the sidecar is written, and then until it has the sidecar.

        Returns:
            Whether a source tar was kept whole.
        """
        whole = self.members.whole_file()
        temporary = self.tar.with_name(f".{self.tar.name}{TEMPORARY_SUFFIX}")
        sidecar = self.tar.with_suffix(".parquet")
        sidecar.unlink(missing_ok=True)
        try:
            if not (link and whole is not None and self._linked(whole, temporary, advance)):
                write_tar(self.members, temporary, advance, sync=sync)
            with storage_errors(self.tar):
                os.replace(temporary, self.tar)
                temporary.unlink(missing_ok=True)  # both were the same file already: then `replace` does nothing
                if sync:
                    fsync_folder(self.tar.parent)
                    write_atomic(sidecar, sidecar_bytes(self.table))
                else:
                    temporary.write_bytes(sidecar_bytes(self.table))
                    os.replace(temporary, sidecar)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return whole is not None

    def _linked(self, whole: Path, temporary: Path, advance: Advance) -> bool:
        if not is_tar_of(whole, self.members):
            return False
        temporary.unlink(missing_ok=True)
        try:
            os.link(whole, temporary)
        except OSError:  # another file system, or one without hard links
            return False
        advance(self.members.total_bytes)
        return True


def new_shards(folder: Path, manifest: Manifest, plan: CopyPlan) -> Iterator[NewShard]:
    """Yield the shards of a result, whose videos are copied in order.

    Args:
        folder: The result.
        manifest: Of the result.
        plan: What it is made of.
    """
    for video_id in manifest.videos:
        rows = plan.rows(video_id)
        home = folder / SHARDS_FOLDER / video_id
        with storage_errors(home):
            home.mkdir(parents=True, exist_ok=True)
        for shard in pack(
            rows, video_id, shard_frames=manifest.shard_frames, shard_size_bytes=manifest.shard_size_bytes
        ):
            yield _new_shard(folder, manifest, plan.sources, rows, shard)


def _new_shard(
    folder: Path, manifest: Manifest, sources: Sequence[CopySource], rows: GroupedRows, shard: ShardRows
) -> NewShard:
    table = rows.table.slice(shard.start, shard.stop - shard.start).combine_chunks()
    payload_of = payload_numbers(table)
    holders = np.flatnonzero(payload_of == np.arange(len(table)))  # rows whose payload no row before them has
    members = _members(table.take(pa.array(holders)), manifest, sources)
    placed = place_rows(table, shard.path, payload_of, holders, members.new_offsets)
    return NewShard(folder / shard.path, members, placed)


def place_rows(
    table: pa.Table,
    path: str,
    payload_of: NDArray[np.int64],
    holders: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> pa.Table:
    """Return metadata rows with their place in a new shard.

    Args:
        table: Rows with (at least) SAMPLES_SCHEMA.
        path: The shard's tar, relative to the dataset.
        payload_of: See `payload_numbers`.
        holders: The rows that stand for a payload.
        offsets: Where the payloads of `holders` are.
    """
    stored = payload_of >= 0
    by_row = np.zeros(len(table), np.int64)
    by_row[holders] = offsets
    byte_offset = by_row[np.where(stored, payload_of, 0)] if len(table) else by_row
    columns = {"byte_offset": pa.array(byte_offset, mask=~stored), "shard": pa.repeat(path, len(table))}
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), SAMPLES_SCHEMA.field(name), values)
    return table.select(SAMPLES_SCHEMA.names).cast(SAMPLES_SCHEMA)


def _members(payloads: pa.Table, manifest: Manifest, sources: Sequence[CopySource]) -> Members:
    by_number = {source.number: source for source in sources}
    # "2|shards/car/all-00000000-00000099.tar": Arrow finds the distinct ones
    places = pc.binary_join_element_wise(payloads[SOURCE].cast(pa.string()), payloads["shard"], "|")
    distinct = pc.unique(places).to_pylist()
    files = []
    renamed_from = []
    for place in distinct:
        number, _, shard = place.partition("|")
        source = by_number[int(number)]
        there = PurePosixPath(shard).parent.name
        files.append(place_inside(source.storage.folder, shard))
        renamed_from.append(source.video_names.get(there) != there)
    file = places_in(places, distinct)
    return Members(
        files=tuple(files),
        file=file,
        offset=payloads["byte_offset"].to_numpy(),
        size=payloads["byte_size"].to_numpy(),
        checksum=payloads["checksum"].to_numpy().astype(np.int64),
        names=_member_names(payloads, manifest),
        same_name=~np.array(renamed_from, bool)[file] if len(file) else np.empty(0, bool),
    )


def _member_names(payloads: pa.Table, manifest: Manifest) -> Sequence[str]:
    endings = {name: f".{name}.{record.suffix}" for name, record in manifest.representations.items()}
    columns = (payloads[name].to_pylist() for name in ("video_id", "frame_index", "representation"))
    return [sample_key(video, frame) + endings[name] for video, frame, name in zip(*columns, strict=True)]
