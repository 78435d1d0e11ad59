"""Lance tables of the result: fragments that are kept whole are copied as files and committed, none of them twice."""

import json
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from vrekit.catalog.cells import Cell
from vrekit.catalog.manifest import Manifest
from vrekit.catalog.storage import Advance, CopyPlan, CopySource, Storage
from vrekit.core.files import storage_errors
from vrekit.writers.file_ranges import copy_range
from vrekit.writers.lance.maintenance import tidy
from vrekit.writers.lance.places import check_blobs, data_file
from vrekit.writers.lance.rows import column_name, find_tables, open_table
from vrekit.writers.lance.table import STORAGE_VERSION, LanceTable

if TYPE_CHECKING:
    import lance

_COMMIT_BYTES = 1 << 30  # fragments are committed together up to this size: many versions make a table slow
_STEP = 64 << 20


def copy_fragments(storage: Storage, plan: CopyPlan) -> int:
    """Copy the fragments of which every row is part of the result, and return how many were copied now.

    The files are copied, given to the table of the result and committed under its lock; fragments that an interrupted
    call committed already are left alone.

    Args:
        storage: The result.
        plan: What it is made of.
    """
    count = 0
    for group, names in storage.manifest.groups.items():
        table = LanceTable(storage.folder, group, names)
        for source in plan.sources:
            there = source.storage
            if there.name != storage.name or not set(names) <= source.names:
                continue
            for path in find_tables(there.folder):
                if there.manifest.groups.get(path.stem) == names:
                    count += _copy_table(source, path, table, plan)
    return count


def finish_tables(folder: Path, manifest: Manifest, run_ids: Sequence[str]) -> None:
    """Merge small fragments, make the indexes, tag the runs and drop the versions that the merge went through."""
    for group, names in manifest.groups.items():
        table = LanceTable(folder, group, names)
        if table.exists:
            tidy(table, run_ids, rows=manifest.shard_frames, size_bytes=manifest.shard_size_bytes)
            with table.locked() as dataset:
                table.clean_up(dataset, timedelta(0))


def _copy_table(source: CopySource, path: Path, table: LanceTable, plan: CopyPlan) -> int:
    there = open_table(path)
    check_blobs(there, path, [column_name(name) for name in table.representations])
    with table.locked() as here:
        if _layout(there) != _layout(here):
            return 0
    count = 0
    chosen: list[lance.LanceFragment] = []
    size = 0
    for fragment in _whole_fragments(source, there, plan):
        chosen.append(fragment)
        size += sum(file.stat().st_size for file in _files(path, fragment))
        if size >= _COMMIT_BYTES:
            count += _commit(path, table, chosen, plan.advance)
            chosen, size = [], 0
    return count + (_commit(path, table, chosen, plan.advance) if chosen else 0)


def _layout(dataset: "lance.LanceDataset") -> list[tuple[str, int]]:
    return [(field.name(), field.id()) for field in dataset.lance_schema.fields()]


def _whole_fragments(
    source: CopySource, dataset: "lance.LanceDataset", plan: CopyPlan
) -> Iterator["lance.LanceFragment"]:
    names = source.video_names
    for fragment in dataset.get_fragments():
        if fragment.metadata.deletion_file is not None or len(fragment.data_files()) != 1:
            continue
        if (
            f"{fragment.data_files()[0].file_major_version}.{fragment.data_files()[0].file_minor_version}"
            != STORAGE_VERSION
        ):
            continue
        rows = fragment.to_table(columns=["video_id", "frame_index", "run_id"]).to_pylist()
        if all(
            names.get(row["video_id"]) == row["video_id"]
            and (source.number, row["video_id"], row["frame_index"], row["run_id"]) not in plan.left_out
            for row in rows
        ):
            yield fragment


def _files(table: Path, fragment: "lance.LanceFragment") -> list[Path]:
    """Return the data file of a fragment and the blob files that belong to it."""
    data = data_file(table, fragment.data_files()[0].path)
    blobs = data.with_suffix("")
    return [data, *(sorted(blobs.iterdir()) if blobs.is_dir() else ())]


def _commit(path: Path, table: LanceTable, fragments: Sequence["lance.LanceFragment"], advance: Advance) -> int:
    from lance import LanceDataset, LanceOperation
    from lance.fragment import FragmentMetadata

    with table.locked() as dataset:
        known = table.files()
        new = [fragment for fragment in fragments if not _is_stored(table, fragment)]
        described = []
        for fragment in new:
            for file in _files(path, fragment):
                _copy_file(file, table.path / "data" / file.relative_to(path / "data"), advance)
            # Lance gives the rows their ids and versions in this table when they are committed.
            plain = fragment.metadata.to_json() | {
                "id": 0,
                "row_id_meta": None,
                "created_at_version_meta": None,
                "last_updated_at_version_meta": None,
            }
            described.append(FragmentMetadata.from_json(json.dumps(plain)))
        if described:
            known = table.sync(known)
            LanceDataset.commit(str(table.path), LanceOperation.Append(described), read_version=dataset.version)
            table.sync(known)
        return len(described)


def _is_stored(table: LanceTable, fragment: "lance.LanceFragment") -> bool:
    """Return whether the table has the rows of a fragment: it was committed before, whole, or merged into another."""
    (first,) = fragment.to_table(columns=["video_id", "frame_index", "run_id"], limit=1).to_pylist()
    cell = Cell(first["video_id"], "", first["frame_index"], first["frame_index"])
    return first["run_id"] in table.stored(cell)["run_id"].to_pylist()


def _copy_file(source: Path, target: Path, advance: Advance) -> None:
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as reader, target.open("wb") as writer:
            size = os.fstat(reader.fileno()).st_size
            for at in range(0, size, _STEP):
                step = min(_STEP, size - at)
                copy_range(reader.fileno(), at, step, writer.fileno(), at)
                advance(step)
