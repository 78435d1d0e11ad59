"""Leftovers of tar shards: open shards, tars without a sidecar, rows that a better row hides."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.garbage import GarbageCollector
from vrekit.catalog.manifest import Manifest
from vrekit.catalog.rows import PREFERENCE_COLUMNS, payload_numbers, prefer, ranks
from vrekit.catalog.runs import forget_shards
from vrekit.core.errors import DatasetError, LockedError
from vrekit.core.files import write_atomic
from vrekit.writers.leftovers import collect_open_cells
from vrekit.writers.webdataset.rewrite import group_and_first, own_cell, rewrite_shard
from vrekit.writers.webdataset.sidecars import (
    PARTIAL_SUFFIX,
    SHARDS_FOLDER,
    find_sidecars,
    is_too_long,
    read_sidecar,
    sidecar_bytes,
)


def collect(folder: Path, manifest: Manifest, collector: GarbageCollector) -> None:
    """Collect the leftovers of a dataset's shards."""
    collect_open_cells(collector, folder / SHARDS_FOLDER, ".", PARTIAL_SUFFIX, _linked_tars)
    _uncommitted_tars(folder, manifest, collector)
    for video_id in manifest.videos:
        _superseded_rows(folder, manifest, video_id, collector)


def _linked_tars(files: Sequence[Path]) -> list[Path]:
    """Return the tars that an interrupted commit had linked to an open shard, without a sidecar yet."""
    return [
        tar
        for file in files
        if file.name.endswith(f".{PARTIAL_SUFFIX}") and file.stat().st_nlink > 1
        for tar in sorted(file.parent.glob("*.tar"))
        if tar.samefile(file) and not is_too_long(tar.name) and not tar.with_suffix(".parquet").exists()
    ]


def _uncommitted_tars(folder: Path, manifest: Manifest, collector: GarbageCollector) -> None:
    """Name tars without a sidecar; they stay, because a tar whose sidecar was lost may be the only copy."""
    for tar in sorted((folder / SHARDS_FOLDER).glob("*/*.tar")):
        if is_too_long(tar.name):
            collector.keep(tar, "no shard of vrekit's, by its name; `vrekit repair` moves it to quarantine")
            continue
        if tar.with_suffix(".parquet").exists() or tar.name.startswith("."):
            continue
        try:
            group, first = group_and_first(tar)
        except DatasetError:
            collector.keep(tar, "no shard of vrekit's, by its name")
            continue
        cell = first // manifest.shard_frames * manifest.shard_frames
        stem = tar.with_name(f".{group}-{cell:08d}")
        with collector.owned(stem.with_name(f"{stem.name}.lock")) as is_mine:
            if not is_mine:
                collector.keep(tar, "a process is writing its cell")
            elif any(stem.with_name(f"{stem.name}.{ending}").exists() for ending in ("journal", PARTIAL_SUFFIX)):
                collector.keep(tar, "an interrupted export that `vrekit resume` can go on with")
            elif not tar.with_suffix(".parquet").exists():  # not even now that the cell is ours
                collector.keep(tar, "it has no sidecar; `vrekit repair` moves it to quarantine")


def _superseded_rows(folder: Path, manifest: Manifest, video_id: str, collector: GarbageCollector) -> None:
    """Drop rows that another row of the same frame and representation hides, and the payloads they have."""
    sidecars = find_sidecars(folder, [video_id])
    tables = [read_sidecar(sidecar) for sidecar in sidecars]
    if not tables:
        return
    rows = pa.concat_tables([table.select(PREFERENCE_COLUMNS) for table in tables])
    keep = np.zeros(len(rows), np.bool_)
    keep[prefer(rows, rows["frame_index"].to_numpy(), ranks(rows["representation"])).winners] = True
    kept = np.split(keep, np.cumsum([len(table) for table in tables])[:-1])
    changed = [sidecar for sidecar, mine in zip(sidecars, kept, strict=True) if not mine.all()]
    if changed and not collector.dry_run:
        tars = (sidecar.with_suffix(".tar").relative_to(folder) for sidecar in changed)
        forget_shards(folder, {tar.as_posix() for tar in tars})
    for sidecar, table, mine in zip(sidecars, tables, kept, strict=True):
        if not mine.all():
            _drop_rows(folder, manifest, sidecar, table, mine, collector)


def _drop_rows(
    folder: Path,
    manifest: Manifest,
    sidecar: Path,
    table: pa.Table,
    keep: NDArray[np.bool_],
    collector: GarbageCollector,
) -> None:
    count = int((~keep).sum())
    payloads = payload_numbers(table)
    unused = np.setdiff1d(payloads[~keep], [*payloads[keep], -1])  # a clip stays for as long as a frame needs it
    payload_bytes = sum(table["byte_size"].take(pa.array(unused)).to_pylist())
    try:
        lock = own_cell(sidecar, manifest)
    except LockedError:
        collector.keep(sidecar, "a process is writing its cell")
        return
    try:
        collector.report.rows += count
        collector.note(sidecar.relative_to(folder).as_posix(), payload_bytes, f"{count} superseded rows")
        if collector.dry_run:
            return
        if len(unused) or not keep.any():
            rewrite_shard(folder, manifest, sidecar, table, keep)
        else:
            write_atomic(sidecar, sidecar_bytes(table.filter(pa.array(keep))))
    finally:
        lock.release()
