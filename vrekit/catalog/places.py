"""The folders of a dataset: real folders with regular files, so that nothing done in them reaches a place outside."""

from collections.abc import Iterator
from pathlib import Path

from vrekit.catalog.index import INDEX_FOLDER
from vrekit.catalog.items import ITEMS_FOLDER
from vrekit.catalog.quarantine import QUARANTINE_FOLDER
from vrekit.catalog.runs import RUNS_FOLDER
from vrekit.catalog.statistics import STATISTICS_FOLDER
from vrekit.core.files import check_tree, foreign_entries
from vrekit.writers.lance.rows import TABLES_FOLDER
from vrekit.writers.webdataset.sidecars import SHARDS_FOLDER

# Those that vrekit writes to and deletes from; `subsets` is a person's own.
FOLDERS = (
    INDEX_FOLDER,
    ITEMS_FOLDER,
    QUARANTINE_FOLDER,
    RUNS_FOLDER,
    SHARDS_FOLDER,
    STATISTICS_FOLDER,
    TABLES_FOLDER,
)


def check_places(folder: Path) -> None:
    """Raise DatasetError if a dataset's folders hold a link, a pipe or a device."""
    for name in FOLDERS:
        check_tree(folder / name)


def foreign_places(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what in a dataset's folders is neither a folder nor a regular file: relative path, and what it is."""
    for name in FOLDERS:
        for path, what in foreign_entries(folder / name):
            yield path.relative_to(folder).as_posix(), what
