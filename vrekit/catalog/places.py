"""The folders of a dataset: real folders with regular files, so that nothing done in them reaches a place outside."""

from collections.abc import Iterator
from pathlib import Path

from vrekit.catalog.index import INDEX_FOLDER
from vrekit.catalog.items import ITEMS_FOLDER
from vrekit.catalog.quarantine import QUARANTINE_FOLDER
from vrekit.catalog.runs import RUNS_FOLDER
from vrekit.catalog.statistics import STATISTICS_FOLDER
from vrekit.catalog.storage import storage_types
from vrekit.core.files import check_tree, foreign_entries


def own_folders() -> list[str]:
    """Return the folders of a dataset that vrekit writes to and deletes from; `subsets` is a person's own."""
    shared = (INDEX_FOLDER, ITEMS_FOLDER, QUARANTINE_FOLDER, RUNS_FOLDER, STATISTICS_FOLDER)
    return sorted([*shared, *(kind.folder_name for kind in storage_types())])


def check_places(folder: Path) -> None:
    """Raise DatasetError if a dataset's folders hold a link, a pipe or a device."""
    for name in own_folders():
        check_tree(folder / name)


def foreign_places(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what in a dataset's folders is neither a folder nor a regular file: relative path, and what it is."""
    for name in own_folders():
        for path, what in foreign_entries(folder / name):
            yield path.relative_to(folder).as_posix(), what
