"""Lance tables lie in their folder alone: nothing in one may refer to bytes anywhere else.

A table can do so in four ways: by a link among its files; by a base path in its manifest, as shallow clones have; by
the name of a data file (which Lance itself takes as a name); and by a blob that is a URI, which Lance would open
wherever it leads.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vrekit.core.errors import DatasetError
from vrekit.core.files import check_tree
from vrekit.writers.lance.errors import is_damage, reading_lance

if TYPE_CHECKING:
    import lance

_URI_BLOB = 3  # kind of a blob that is a URI
_COPY_HINT = "copy it into one table with Lance first, if you trust who made it"


class ForeignFilesError(DatasetError):
    """A table refers to bytes outside of its folder; nothing of it is damaged."""


def check_files(path: Path) -> None:
    """Raise DatasetError if a table's folder, or anything in it, is a link or no regular file."""
    check_tree(path)


def check_bases(table: "lance.LanceDataset", path: Path) -> None:
    """Raise ForeignFilesError if a table has files in other places."""
    bases = table.base_paths()
    if bases:
        places = ", ".join(sorted(base.path for base in bases.values())[:3])
        raise ForeignFilesError(f"{path} has files outside of the dataset, in {places}", hint=_COPY_HINT)


def check_blobs(
    table: "lance.LanceDataset", path: Path, columns: Sequence[str], *, without: Collection[int] = ()
) -> None:
    """Raise ForeignFilesError if payloads of a table are URIs; it takes 0.3 seconds a million rows.

    Args:
        table: The table.
        path: Where it lies.
        columns: Its columns of payloads.
        without: Fragments that are not read.
    """
    for column in columns:
        for fragment in table.get_fragments():
            if fragment.fragment_id in without:
                continue
            try:
                with reading_lance(path):
                    count = fragment.count_rows(f"`{column}`.kind = {_URI_BLOB}")
            except DatasetError as error:
                if not is_damage(error):
                    raise
                continue  # no payload of it can be read, either
            if count:
                raise ForeignFilesError(f"{path}: payloads of {column!r} lie outside of the dataset", hint=_COPY_HINT)


def data_file(path: Path, name: str) -> Path:
    """Return the place of a data file of a table.

    Raises:
        DatasetError: If its name, which the table says, is none.
    """
    if name != Path(name).name or name in (".", ".."):
        raise DatasetError(f"{path} names the data file {name!r}, which is not inside it")
    return path / "data" / name
