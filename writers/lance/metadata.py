"""What Lance keeps about a table besides its rows, and which of it is damaged: tags and indexes."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from vrekit.core.errors import DatasetError
from vrekit.writers.lance.errors import is_damage, reading_lance
from vrekit.writers.lance.ledger import INDEXES_FOLDER
from vrekit.writers.lance.rows import version_files

if TYPE_CHECKING:
    import lance
    from lance.lance.indices import IndexDescription

TAGS_FOLDER = "_refs/tags"


def damaged_tags(dataset: "lance.LanceDataset") -> list[str]:
    """Return the tags that Lance cannot read, or whose version is gone."""
    path = Path(dataset.uri)
    try:
        with reading_lance(path):
            versions = {name: info["version"] for name, info in dataset.tags.list().items()}
    except DatasetError as error:
        if not is_damage(error):
            raise
        names = sorted(file.stem for file in path.glob(f"{TAGS_FOLDER}/*.json"))
        return [name for name in names if not tag_is_whole(dataset, name)]
    known = version_files(path)
    return [name for name, version in versions.items() if version not in known]


def tag_is_whole(dataset: "lance.LanceDataset", name: str) -> bool:
    """Return whether Lance can read a tag, and its version is there."""
    try:
        with reading_lance(Path(dataset.uri)):
            version = dataset.tags.get_version(name)
    except DatasetError as error:
        if not is_damage(error):
            raise
        return False
    return version in version_files(Path(dataset.uri))


def damaged_indexes(dataset: "lance.LanceDataset", known: Collection[str] = ()) -> "list[IndexDescription]":
    """Return the indexes whose files are lost or damaged.

    Args:
        dataset: The table.
        known: Damaged files, relative to the table; an index with one of them is not opened.
    """
    damaged = indexes_of(dataset, known)
    names = {index.name for index in damaged}
    for index in dataset.describe_indices():
        if index.name in names:
            continue
        try:
            with reading_lance(Path(dataset.uri)):
                dataset.stats.index_stats(index.name)
        except DatasetError as error:
            if not is_damage(error):
                raise
            damaged.append(index)
    return damaged


def indexes_of(dataset: "lance.LanceDataset", files: Collection[str]) -> "list[IndexDescription]":
    """Return the indexes that some of these files, relative to the table, belong to."""
    found = []
    for index in dataset.describe_indices():
        folders = tuple(f"{INDEXES_FOLDER}{segment.uuid}/" for segment in index.segments)
        if any(file.startswith(folders) for file in files):
            found.append(index)
    return found
