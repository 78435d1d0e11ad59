"""Keeping Lance tables quick: small fragments merged, columns indexed, versions nobody needs deleted."""

import errno
import json
import logging
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vrekit.core.errors import UsageError
from vrekit.core.names import did_you_mean
from vrekit.writers.lance.ledger import listed_files
from vrekit.writers.lance.metadata import damaged_indexes, indexes_of
from vrekit.writers.lance.rows import find_tables, quoted, read_rows
from vrekit.writers.lance.table import KEEP_VERSIONS, LanceTable, blob_bytes, check_data_files, tag, tag_name

if TYPE_CHECKING:
    import lance
    from lance.lance.indices import IndexDescription

logger = logging.getLogger(__name__)

INDEXED_COLUMNS = ("run_id", "video_id")
MERGE_FROM = 16  # fewer small fragments cost less than rewriting their payloads

IndexType = Literal["BITMAP", "BTREE"]


def tidy(table: LanceTable, run_ids: Collection[str] = (), *, rows: int, size_bytes: int) -> None:
    """Merge the small fragments that runs appended, update the indexes and delete old versions; at the end of a run.

    The runs are those of `untidy_runs`, so also any that were killed before they came to this. Fragments that the tag
    of another run holds are left alone: both forms of them would stay on disk.

    Args:
        table: The table.
        run_ids: More runs; the tags of all of them move to the new version.
        rows: Frames of a full fragment.
        size_bytes: Bytes of a full fragment.
    """
    with table.locked() as dataset:
        table.clean_up(dataset, KEEP_VERSIONS)  # first: it moves damaged versions aside, which tags may point to
        tags = dataset.tags.list()
        for run_id in table.untidy_runs() - set(run_ids):
            # a run that was killed before its first commit has no rows, and gets no tag
            if tag_name(run_id) in tags or _has_rows(dataset, table.path, run_id):
                run_ids = {*run_ids, run_id}
        known = merge_small_fragments(
            table, dataset, after=_last_held(dataset, run_ids), rows=rows, size_bytes=size_bytes
        )
        mend_indexes(dataset)
        _remake_unlisted_indexes(dataset)
        for column in INDEXED_COLUMNS:
            _ensure_index(dataset, column, "BITMAP")
        dataset.optimize.optimize_indices()
        mend_indexes(dataset)  # a full disk is overlooked by Lance
        table.sync(known)
        for run_id in run_ids:
            tag(dataset, run_id)
        table.mark_tidy()


def _has_rows(dataset: "lance.LanceDataset", path: Path, run_id: str) -> bool:
    return len(read_rows(dataset, path, ["frame_index"], f"run_id = {quoted(run_id)}")) > 0


def mend_indexes(dataset: "lance.LanceDataset", known: Collection[str] = ()) -> None:
    """Make indexes anew whose files are lost or damaged; call it with the lock held.

    Args:
        dataset: The table.
        known: Damaged files, relative to the table.
    """
    for index in damaged_indexes(dataset, known):
        logger.warning("%s: the index %s is damaged, so it is made anew", dataset.uri, index.name)
        _remake(dataset, index)


def _remake_unlisted_indexes(dataset: "lance.LanceDataset") -> None:
    """Make indexes anew that have no checksum: a killed process, or an older version of vrekit, left them so."""
    _, unlisted = listed_files(dataset)
    for index in indexes_of(dataset, unlisted):
        _remake(dataset, index)


def _remake(dataset: "lance.LanceDataset", index: "IndexDescription") -> None:
    dataset.drop_index(index.name)
    (column,) = index.field_names
    kind: Any = index.index_type.upper()  # describe_indices says BTree, creating wants BTREE
    dataset.create_scalar_index(f"`{column}`", kind, name=index.name)


def create_index(folder: Path, column: str, index_type: IndexType = "BTREE") -> int:
    """Index a column of every table of a dataset that has it, and return how many that are.

    Ranges of a selective column (`"rgb:byte_size"`, `"pts_seconds"`) want a BTREE, few distinct values a BITMAP.

    Raises:
        UsageError: If no table has the column.
    """
    tables = [LanceTable(folder, path.stem, ()) for path in find_tables(folder)]
    columns: set[str] = set()
    count = 0
    for table in tables:
        with table.locked() as dataset:
            names = dataset.schema.names
            columns.update(names)
            if column in names:
                known = table.files()
                _ensure_index(dataset, column, index_type)
                table.sync(known)
                count += 1
    if not count:
        raise UsageError(f"no Lance table of {folder} has a column {column!r}{did_you_mean(column, columns)}")
    return count


def _ensure_index(dataset: "lance.LanceDataset", column: str, index_type: IndexType) -> None:
    name = f"{column}_{index_type.lower()}"
    if name not in {index.name for index in dataset.describe_indices()}:
        dataset.create_scalar_index(f"`{column}`", index_type, name=name)


def merge_small_fragments(
    table: LanceTable, dataset: "lance.LanceDataset", *, after: int, rows: int, size_bytes: int
) -> set[str]:
    """Merge neighbouring fragments numbered above `after` that are under half full, if there are MERGE_FROM of them.

    The merged data files are durable and listed before the commit. Returns the paths of the table's files then.
    """
    from lance.optimize import Compaction, CompactionTask

    known = table.files()
    small = {
        fragment.fragment_id
        for fragment in dataset.get_fragments()
        if fragment.fragment_id > after and fragment.count_rows() < rows // 2 and _bytes_of(fragment) < size_bytes // 2
    }
    if len(small) < MERGE_FROM:
        return known
    results = []
    for task in Compaction.plan(dataset, {"target_rows_per_fragment": rows}).tasks:
        plan: dict[str, Any] = json.loads(task.json())  # type: ignore[attr-defined]  # missing in its stub
        plan["task"]["fragments"] = [one for one in plan["task"]["fragments"] if one["id"] in small]
        if len(plan["task"]["fragments"]) > 1:
            result = CompactionTask.from_json(json.dumps(plan)).execute(dataset)  # type: ignore[attr-defined]
            _check_merged(Path(dataset.uri), result)
            results.append(result)
    if results:
        known = table.sync(known)
        Compaction.commit(dataset, results)
        dataset.checkout_latest()  # type: ignore[no-untyped-call]
    return known


def _check_merged(table: Path, result: Any) -> None:
    """Raise an OSError if a merged fragment was not written whole, which Lance overlooks.

    Args:
        table: Folder of the table.
        result: What executing a CompactionTask gives; its stub names other attributes than it has.
    """
    check_data_files(table, result.new_fragments)
    if all(fragment.deletion_file is None for fragment in result.original_fragments):
        sizes = [blob_bytes(table, some) for some in (result.new_fragments, result.original_fragments)]
        if sizes[0] != sizes[1]:
            raise OSError(errno.ENOSPC, f"{table}: merged payloads have {sizes[0]} of {sizes[1]} bytes")


def _bytes_of(fragment: "lance.LanceFragment") -> int:
    table = Path(fragment._ds.uri)
    return sum(file.file_size_bytes or 0 for file in fragment.data_files()) + blob_bytes(table, [fragment.metadata])


def _last_held(dataset: "lance.LanceDataset", run_ids: Collection[str]) -> int:
    """Return the highest number of a fragment that the tag of another run holds, -1 when there is none."""
    mine = {tag_name(run_id) for run_id in run_ids}
    versions = {info["version"] for name, info in dataset.tags.list().items() if name not in mine}
    held = [
        fragment.fragment_id for version in versions for fragment in dataset.checkout_version(version).get_fragments()
    ]
    return max(held, default=-1)
