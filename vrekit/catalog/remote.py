"""Datasets behind URLs: which local folder holds the metadata of which of them.

Everything above works on that folder (a mirror) as on any dataset. What has to differ asks `remote_of`: readers of
payloads, writers of shards, and the functions that write metadata, which also put it into the store. Local datasets
are never in the table.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vrekit.catalog.storage_types import STORAGES
from vrekit.core.errors import AccessError, MissingObjectError, UsageError
from vrekit.core.files import read_regular, write_atomic
from vrekit.core.names import is_url

if TYPE_CHECKING:  # local datasets need none of it
    from vrekit.core.stores import Location, Store

_MANIFEST = "dataset.json"
_MAX_FILE_BYTES = 1 << 30


@dataclass(slots=True)
class RemoteDataset:
    """A dataset behind a URL.

    Attributes:
        store: Of its objects.
        folder: The local folder with its metadata.
        scratch: Where open shards lie; None takes the user's cache.
        etags: Of the objects that are replaced only if nobody else did so meanwhile; None where there is no object.
        is_fresh: Whether nothing was done since the folder was brought up to date.
    """

    store: "Store"
    folder: Path
    scratch: Path | None
    etags: dict[str, str | None]
    is_fresh: bool = True

    def has(self, name: str) -> bool:
        """Return whether there is an object of that name."""
        try:
            self.store.head(name)
        except MissingObjectError:
            return False
        return True

    def refresh(self, name: str) -> None:
        """Bring a file of the folder up to date, and remember its etag for `swap`."""
        path = self.folder / name
        try:
            found = self.store.read_versioned(name)
        except MissingObjectError:
            self.etags[name] = None
            path.unlink(missing_ok=True)
            return
        self.etags[name] = found.etag
        if not path.exists() or path.read_bytes() != found.data:
            write_atomic(path, found.data)

    def swap(self, name: str, data: bytes) -> None:
        """Write an object if it is as `refresh` found it.

        Raises:
            ObjectChangedError, ObjectExistsError: If another process wrote it meanwhile.
        """
        etag = self.etags.get(name)
        if etag is None:
            self.etags[name] = self.store.put_if_absent(name, data)
        else:
            self.etags[name] = self.store.compare_and_swap(name, data, etag)

    def put(self, name: str) -> None:
        """Write a file of the folder as an object, whatever was there."""
        self.store.put(name, read_regular(self.folder / name, max_bytes=_MAX_FILE_BYTES))


_datasets: dict[str, RemoteDataset] = {}  # by folder; of this process


def dataset_folder(
    location: "str | os.PathLike[str] | Location", *, for_writing: bool = False, scratch: Path | None = None
) -> Path:
    """Return the local folder of a dataset: a path as it is, for a URL a folder with its metadata as it is now.

    Args:
        location: A path or a URL.
        for_writing: The dataset may be new, and has to be behind a URL that can be written to.
        scratch: Where open shards of a dataset behind a URL lie; in the user's cache by default.

    Raises:
        UsageError: If it is no URL that can be used.
        DatasetError: If there is no dataset, or it has Lance tables.
        StorageError: If the store cannot be reached; AccessError if it is read-only.
    """
    if isinstance(location, str | os.PathLike) and not is_url(location):
        _check_no_scratch(scratch)
        return Path(location)
    from vrekit.core.stores import open_store, parse_location

    if isinstance(location, str | os.PathLike):
        location = parse_location(location)
    if location.is_local:
        _check_no_scratch(scratch)
        return location.path
    store = open_store(location)
    if for_writing and not store.is_writable:
        raise AccessError(
            f"{location} is read-only: {location.scheme}:// cannot be written to",
            hint="write to a local folder, s3://, gs:// or az://",
        )
    mirror = STORAGES.load("webdataset").mirror
    folder: Path = mirror(store, may_be_new=for_writing)
    if for_writing and not (folder / _MANIFEST).exists() and (first := next(store.list(), None)) is not None:
        mirror(store, may_be_new=True)  # another process may have begun the dataset meanwhile
        if not (folder / _MANIFEST).exists():
            raise UsageError(
                f"{location} is not empty and is no vrekit dataset: it has {first.name}",
                hint="choose a new folder with -o, so that nothing of yours gets mixed with the dataset",
            )
    known = _datasets.get(str(folder))
    _datasets[str(folder)] = RemoteDataset(store, folder, scratch or (known.scratch if known else None), {})
    return folder


def _check_no_scratch(scratch: Path | None) -> None:
    if scratch is not None:
        raise UsageError(
            "--scratch is for datasets behind URLs: the open shards of a local dataset lie in its folder",
            hint="leave it away",
        )


def up_to_date(folder: str | os.PathLike[str]) -> Path:
    """Return the folder of a dataset that is about to be written to, brought up to date if it is behind a URL."""
    remote = remote_of(folder)
    if remote is None:
        folder = dataset_folder(folder, for_writing=True)
    elif not remote.is_fresh:
        folder = dataset_folder(remote.store.location, for_writing=True)
    if (remote := remote_of(folder)) is not None:
        remote.is_fresh = False
    return Path(folder)


def remote_of(folder: str | os.PathLike[str]) -> RemoteDataset | None:
    """Return the dataset behind a URL of which a folder holds the metadata; None for a local dataset."""
    return _datasets.get(os.fspath(folder)) if _datasets else None


def location_of(folder: Path) -> str:
    """Return where a dataset lies, for records: its URL, or the absolute path."""
    remote = remote_of(folder)
    return str(folder.resolve() if remote is None else remote.store.location)


def name_of(folder: Path) -> str:
    """Return the last part of where a dataset lies."""
    remote = remote_of(folder)
    return folder.resolve().name if remote is None else remote.store.location.name


def refuse_remote(folder: str | os.PathLike[str], done: str) -> None:
    """Raise UsageError if a folder holds the metadata of a dataset behind a URL.

    Args:
        folder: Of a dataset.
        done: What is done to local datasets only, such as "repaired".
    """
    location = os.fspath(folder)
    if (remote := remote_of(location)) is not None:
        location = str(remote.store.location)
    elif not is_url(location):
        return
    raise UsageError(
        f"{location}: datasets are {done} in local folders only",
        hint="copy the dataset to a local folder, and back when that is done",
    )


def shown(text: str) -> str:
    """Return text for people with URLs where it has the folders that hold their metadata."""
    for folder, remote in _datasets.items():
        if folder in text:
            text = text.replace(folder, str(remote.store.location))
    return text
