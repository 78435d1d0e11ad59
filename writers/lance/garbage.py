"""Leftovers of Lance tables: open cells, temporary files of killed commits, old versions."""

import re
from contextlib import nullcontext
from pathlib import Path

from vrekit.catalog.cells import DatasetWriter
from vrekit.catalog.garbage import GarbageCollector
from vrekit.writers.lance.rows import OPEN_FOLDER, PARTIAL_SUFFIX, TABLES_FOLDER, find_tables
from vrekit.writers.lance.table import LanceTable
from vrekit.writers.leftovers import collect_open_cells

# Lance writes `.tmpXXXXXX`, or `NAME.tmp.<32 hex>` and the same with `#1`, and renames or links that
_TEMPORARY = re.compile(r"\.tmp\w{6}|.+\.tmp\.[0-9a-f]{32}(#\d+)?")


def collect(folder: Path, writer: DatasetWriter, collector: GarbageCollector) -> None:
    """Collect the leftovers of a dataset's tables.

    Args:
        folder: The dataset.
        writer: Of the dataset: what a killed run did not come to, merging its fragments and indexing them, is done.
        collector: Removes them.
    """
    collect_open_cells(collector, folder / TABLES_FOLDER / OPEN_FOLDER, "", PARTIAL_SUFFIX)
    for path in find_tables(folder):
        _temporary_files(folder, path, collector)
    if not collector.dry_run:
        writer.close()
        for path in find_tables(folder):
            _old_versions(folder, path, collector)


def _temporary_files(folder: Path, table: Path, collector: GarbageCollector) -> None:
    found = [path for path in sorted(table.rglob("*")) if _TEMPORARY.fullmatch(path.name)]
    if found:
        with nullcontext() if collector.dry_run else LanceTable(folder, table.stem, ()).locked():
            for path in found:
                if path.exists() and collector.is_old(path):
                    collector.remove(path, "a temporary file of Lance")


def _old_versions(folder: Path, path: Path, collector: GarbageCollector) -> None:
    """Let Lance remove versions as old that no tag holds, and files that were never committed."""
    table = LanceTable(folder, path.stem, ())
    with table.locked() as dataset:
        stats = table.clean_up(dataset, collector.older_than)
    if stats.bytes_removed:
        name = path.relative_to(folder).as_posix()
        collector.note(name, stats.bytes_removed, f"{stats.old_versions} old versions")
