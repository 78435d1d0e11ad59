"""The tars of a dataset as files, wherever they lie; for those who look at whole tars."""

from pathlib import Path
from typing import Protocol

from vrekit.core.files import open_regular
from vrekit.writers.webdataset.sidecars import SHARDS_FOLDER


class Tars(Protocol):
    """The tars of a dataset, by their paths relative to it."""

    def open(self, name: str) -> int:
        """Return a descriptor to read a tar; FileNotFoundError if it is missing."""
        ...

    def size(self, name: str) -> int:
        """Return the bytes of a tar; FileNotFoundError if it is missing."""
        ...

    def names(self) -> list[str]:
        """Return all tars, finished or not, sorted."""
        ...


class LocalTars(Tars):
    """The tars of a dataset in a local folder, by their paths relative to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, name: str) -> int:
        """See Tars."""
        return open_regular(self.folder / name)

    def size(self, name: str) -> int:
        """See Tars."""
        return (self.folder / name).stat().st_size

    def names(self) -> list[str]:
        """See Tars."""
        root = self.folder / SHARDS_FOLDER
        files = [path.relative_to(self.folder).as_posix() for path in root.rglob("*")] if root.is_dir() else []
        return sorted(name for name in files if name.endswith((".tar", ".tar.partial")))
