"""Committed shards: whose cell they are in, and writing one anew without some of its rows."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest
from vrekit.catalog.rows import payload_numbers
from vrekit.core.errors import DatasetError
from vrekit.core.files import fsync_folder
from vrekit.core.locks import OwnedFile
from vrekit.writers.webdataset.copying import Members
from vrekit.writers.webdataset.new_shard import NewShard, place_rows

_NAME = re.compile(r"(?P<group>.+)-(?P<first>\d{8,})-(?P<last>\d{8,})(-\d+)?")


def own_cell(sidecar: Path, manifest: Manifest) -> OwnedFile:
    """Take the lock of the cell that a shard lies in, as a writer does.

    Raises:
        LockedError: If a process is writing there.
        DatasetError: If the file has no shard's name.
    """
    group, first = group_and_first(sidecar)
    cell = first // manifest.shard_frames * manifest.shard_frames
    return OwnedFile(sidecar.with_name(f".{group}-{cell:08d}.lock"), f"{sidecar.parent.name}/{group} from frame {cell}")


def group_and_first(sidecar: Path) -> tuple[str, int]:
    """Return a shard's group and first frame number, from its name.

    Raises:
        DatasetError: If it has no shard's name.
    """
    match = _NAME.fullmatch(sidecar.stem)
    if match is None:
        raise DatasetError(f"{sidecar} does not have a shard's name", hint="names look like all-00000000-00000099.tar")
    return match["group"], int(match["first"])


def rewrite_shard(
    folder: Path, manifest: Manifest, sidecar: Path, table: pa.Table, keep: NDArray[np.bool_]
) -> Path | None:
    """Replace a shard by one that has only some of its rows; call it with the cell owned.

    The new tar and sidecar are durable before the old ones go: sidecar first, so that at no time a row points to a
    tar that is not there. Killed in between, both shards are there and hold the kept rows twice, which readers
    tolerate and `vrekit gc` clears up.

    Args:
        folder: The dataset.
        manifest: Of the dataset.
        sidecar: Of the shard.
        table: Its rows.
        keep: Which of them stay.

    Returns:
        The sidecar of the new shard; None when nothing stays.
    """
    new = None
    if keep.any():
        kept = table.filter(pa.array(keep))
        new = _new_shard(folder, manifest, sidecar, kept)
        new.commit(lambda _: None)
    sidecar.unlink()
    try:
        fsync_folder(sidecar.parent)
    finally:  # Ctrl-C too
        sidecar.with_suffix(".tar").unlink(missing_ok=True)
    return None if new is None else new.tar.with_suffix(".parquet")


def _new_shard(folder: Path, manifest: Manifest, sidecar: Path, kept: pa.Table) -> NewShard:
    group, _ = group_and_first(sidecar)
    frames = kept["frame_index"].to_numpy()
    tar = _free_path(sidecar.parent, f"{group}-{frames.min():08d}-{frames.max():08d}")
    payload_of = payload_numbers(kept)
    holders = np.flatnonzero(payload_of == np.arange(len(kept)))
    holders = holders[np.argsort(kept["byte_offset"].to_numpy()[holders], kind="stable")]
    payloads = kept.take(pa.array(holders))
    members = Members(
        files=(sidecar.with_suffix(".tar"),),
        file=np.zeros(len(payloads), np.int64),
        offset=payloads["byte_offset"].to_numpy(),
        size=payloads["byte_size"].to_numpy(),
        checksum=payloads["checksum"].to_numpy().astype(np.int64),
        names=[manifest.member_name(row) for row in payloads.select(_KEY).to_pylist()],
        same_name=np.ones(len(payloads), np.bool_),
    )
    path = tar.relative_to(folder).as_posix()
    return NewShard(tar, members, place_rows(kept, path, payload_of, holders, members.new_offsets))


_KEY = ["video_id", "frame_index", "representation"]


def _free_path(folder: Path, name: str) -> Path:
    candidate, count = name, 0
    while (folder / f"{candidate}.parquet").exists():  # a tar alone was never committed: it is replaced
        count += 1
        candidate = f"{name}-{count}"
    return folder / f"{candidate}.tar"
