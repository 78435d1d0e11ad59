"""Objects behind URLs that only `fsspec` knows, such as hf:// and sftp://; read-only."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from vrekit.core.errors import (
    AccessError,
    MissingDependencyError,
    MissingObjectError,
    ObjectChangedError,
    VrekitError,
)
from vrekit.core.stores.base import (
    MAX_LISTED,
    MAX_OBJECT_BYTES,
    ObjectInfo,
    PassingError,
    RangeReader,
    ReadOnlyStore,
    StoreLimits,
    Versioned,
    retry,
)
from vrekit.core.stores.location import Location, check_name

_T = TypeVar("_T")
_PACKAGES = {"hf": "huggingface_hub", "sftp": "paramiko"}
_ETAG_KEYS = ("etag", "ETag", "blob_id", "oid", "mtime", "created", "last_commit", "LastModified")


class FilesystemReader(RangeReader):
    """Reads ranges of one file of an fsspec file system."""

    max_gap_bytes = 256 << 10
    step_bytes = 16 << 20

    def __init__(self, store: "FilesystemStore", name: str) -> None:
        super().__init__(store.where(name))
        self._store, self._name = store, name

    def size_bytes(self) -> int:
        """Return the size of the file."""
        return self._store.head(self._name).size_bytes

    def _read(self, start: int, length: int) -> bytes:
        return bytes(self._store.ask(self._name, lambda files, path: files.cat_file(path, start, start + length)))


class FilesystemStore(ReadOnlyStore):
    """A folder of an fsspec file system.

    Args:
        location: With a scheme of `FILESYSTEM_SCHEMES`.
        limits: How often a request is tried; fsspec has no time-outs that hold for all file systems.

    Raises:
        MissingDependencyError: If fsspec, or what it needs for the scheme, is not installed.
    """

    def __init__(self, location: Location, limits: StoreLimits | None = None) -> None:
        super().__init__(location)
        self.limits = limits or StoreLimits()
        packages = f"fsspec and {_PACKAGES[location.scheme]}" if location.scheme in _PACKAGES else "fsspec"
        try:
            from fsspec.core import url_to_fs

            # sftp hands all options to paramiko, and keeps no listings anyway
            options = {} if location.scheme == "sftp" else {"use_listings_cache": False}
            self._files, self._root = retry(
                self.limits, partial(_named, str(location), lambda: url_to_fs(str(location), **options))
            )
        except ImportError:
            raise MissingDependencyError(
                f"{location} needs {packages}",
                hint=f'pip install "vrekit[fsspec]" {_PACKAGES.get(location.scheme, "")}',
            ) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.location, self.limits)

    def ask(self, name: str, question: Callable[[Any, str], _T]) -> _T:
        """Return what a question to the file system about a file gives; with retries, and errors of ours."""
        path = f"{self._root.rstrip('/')}/{check_name(name)}"
        return retry(self.limits, partial(_named, self.where(name), lambda: question(self._files, path)))

    def read_if_changed(self, name: str, etag: str | None, *, max_bytes: int = MAX_OBJECT_BYTES) -> Versioned | None:
        """Return the content of a file and its etag, None if it still has `etag`."""
        info = self.head(name)
        if info.etag == etag:
            return None
        self._check_size(name, info.size_bytes, max_bytes)
        data = bytes(self.reader(name).read_range(0, info.size_bytes))
        if self.head(name).etag != info.etag:
            raise _changed(self.where(name))
        return Versioned(data, info.etag)

    def reader(self, name: str, *, etag: str | None = None) -> FilesystemReader:
        """Return what reads ranges of a file; the etag is compared once, now."""
        if etag is not None and self.head(name).etag != etag:
            raise _changed(self.where(name))
        return FilesystemReader(self, check_name(name))

    def head(self, name: str) -> ObjectInfo:
        """Return size and etag of a file."""
        info = self.ask(name, lambda files, path: files.info(path))
        if info.get("type") != "file":
            raise MissingObjectError(f"{self.where(name)} is a folder")
        return _info(name, info)

    def list(self, prefix: str = "", *, max_count: int = MAX_LISTED) -> Iterator[ObjectInfo]:
        """Yield the files below a folder; fsspec lists them all before the first one is given."""
        start = self._root.rstrip("/") + "/"
        folder = start + check_name(prefix) if prefix else self._root

        def find() -> dict[str, Any]:
            return dict(self._files.find(folder, detail=True))

        try:
            found = retry(self.limits, partial(_named, str(self.location), find))
        except MissingObjectError:
            return
        self._check_count(len(found), max_count)
        infos = [(path.removeprefix(start), info) for path, info in found.items() if path.startswith(start)]
        for name, info in sorted(infos, key=lambda pair: pair[0]):
            yield _info(check_name(name), info)


def _changed(where: str) -> ObjectChangedError:
    return ObjectChangedError(f"{where} was changed by another process", hint="run this again")


def _info(name: str, info: dict[str, Any]) -> ObjectInfo:
    size = int(info.get("size") or 0)
    version = next((str(info[key]) for key in _ETAG_KEYS if info.get(key)), "")
    return ObjectInfo(name, size, f"{version}-{size}")


def _named(where: str, ask: Callable[[], _T]) -> _T:
    """Return what `ask` gives; errors become ours. Messages of file systems may hold secrets, so they are not shown."""
    try:
        return ask()
    except (VrekitError, ImportError):
        raise
    except FileNotFoundError:
        raise MissingObjectError(f"there is no {where}") from None
    except PermissionError:
        raise AccessError(f"{where}: access is denied", hint="check your login, such as `hf auth login`") from None
    except Exception as error:
        hint = "check the network and the address, then run this again"
        raise PassingError(f"{where}: reading failed ({type(error).__name__})", hint=hint) from None
