"""Objects as local files: positioned reads, and writing by hard links and renames."""

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vrekit.core.errors import (
    AccessError,
    DatasetError,
    LockedError,
    MissingObjectError,
    ObjectChangedError,
    ObjectExistsError,
    StorageError,
    VrekitError,
)
from vrekit.core.files import (
    check_folder,
    follows_links,
    fsync_folder,
    is_temporary,
    list_files,
    list_folders,
    open_regular,
    place_inside,
    storage_errors,
)
from vrekit.core.locks import OwnedFile
from vrekit.core.stores.base import MAX_LISTED, MAX_OBJECT_BYTES, ObjectInfo, RangeReader, Store, Versioned
from vrekit.core.stores.location import check_name

_LOCK_SECONDS = 30.0  # a swap holds its lock for one small write
_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})


class LocalReader(RangeReader):
    """Reads one open file by `pread`: there is no file position, so threads and forked processes may share it."""

    max_gap_bytes = 16 << 10  # a larger gap costs more than another positioned read does
    step_bytes = 64 << 20

    def __init__(self, where: str, path: Path, etag: str | None) -> None:
        super().__init__(where)
        self._descriptor = -1
        with _read_errors(where):
            self._descriptor = open_regular(path)
        if etag is not None and _etag(os.fstat(self._descriptor)) != etag:
            raise _changed(where)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # at the interpreter's exit, `os` is gone
        if getattr(self, "_descriptor", -1) >= 0:
            close(self._descriptor)

    def size_bytes(self) -> int:
        """Return the size of the file."""
        return os.fstat(self._descriptor).st_size

    def _read(self, start: int, length: int) -> bytes | memoryview:
        try:
            data = os.pread(self._descriptor, length, start)
            if 0 < len(data) < length:  # a signal, or the end of the file
                parts = [data]
                while data:
                    start, length = start + len(data), length - len(data)
                    data = os.pread(self._descriptor, length, start)
                    parts.append(data)
                return b"".join(parts)
        except OSError as error:
            raise StorageError(f"cannot read {self.where}: {_reason(error)}") from error
        return data


class LocalStore(Store):
    """A local folder, which need not be there before the first object is written."""

    def _path(self, name: str) -> Path:
        return place_inside(self.location.path, check_name(name))

    def where(self, name: str) -> str:
        """Return the path of an object, for messages."""
        return str(self.location.path / name)

    def read_if_changed(self, name: str, etag: str | None, *, max_bytes: int = MAX_OBJECT_BYTES) -> Versioned | None:
        """Return the content of a file and its etag, None if it still has `etag`."""
        path = self._path(name)
        with _read_errors(self.where(name)), os.fdopen(open_regular(path), "rb") as file:
            info = os.fstat(file.fileno())
            if etag is not None and _etag(info) == etag:
                return None
            self._check_size(name, info.st_size, max_bytes)
            return Versioned(file.read(), _etag(info))

    def reader(self, name: str, *, etag: str | None = None) -> LocalReader:
        """Return what reads ranges of a file, which stays open as long as the reader lives."""
        return LocalReader(self.where(name), self._path(name), etag)

    def head(self, name: str) -> ObjectInfo:
        """Return size and etag of a file."""
        with _read_errors(self.where(name)):
            descriptor = open_regular(self._path(name))
            try:
                info = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        return ObjectInfo(name, info.st_size, _etag(info))

    def list(self, prefix: str = "", *, max_count: int = MAX_LISTED) -> Iterator[ObjectInfo]:
        """Yield the files below a folder, without those that are being written; a link is a DatasetError."""
        folder = self._path(prefix) if prefix else self.location.path
        with _read_errors(str(folder)):
            for count, info in enumerate(_walk(folder, f"{prefix}/" if prefix else ""), 1):
                self._check_count(count, max_count)
                yield info

    def put_if_absent(self, name: str, data: bytes | Path) -> str:
        """Write a new file through a hard link, durable on return; return its etag."""
        path = self._path(name)
        with _write_errors(self.where(name)):
            _make_folders(self.location.path, path.parent)
            with _temporary_file(path, data) as temporary:
                info = os.stat(temporary)
                _publish(temporary, path)
            fsync_folder(path.parent)
        return _etag(info)

    def compare_and_swap(self, name: str, data: bytes, etag: str) -> str:
        """Replace a file if it still has `etag`; return its new etag."""
        path = self._path(name)
        if not check_folder(path.parent):
            raise _changed(self.where(name))
        with _write_errors(self.where(name)), _swapping(path):
            return self._replace(name, path, data, etag)

    def put(self, name: str, data: bytes) -> str:
        """Write a file, whatever was there; return its etag."""
        path = self._path(name)
        with _write_errors(self.where(name)):
            _make_folders(self.location.path, path.parent)
            with _swapping(path):
                return self._replace(name, path, data, None)

    def _replace(self, name: str, path: Path, data: bytes, etag: str | None) -> str:
        try:
            before = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            before = None
        if etag is not None and (before is None or _etag(before) != etag):
            raise _changed(self.where(name))
        with _temporary_file(path, data) as temporary:
            if before is not None:  # clocks of file systems tick every few milliseconds, and inode numbers come back
                now = max(time.time_ns(), before.st_mtime_ns + 1)
                os.utime(temporary, ns=(now, now))
            info = os.stat(temporary)
            temporary.replace(path)
        fsync_folder(path.parent)
        return _etag(info)

    def delete(self, name: str) -> None:
        """Delete a file; that there is none is no error."""
        path = self._path(name)
        if not check_folder(path.parent):
            return
        with _write_errors(self.where(name)), _swapping(path):
            if path.is_dir() and not path.is_symlink():
                raise DatasetError(f"{path} is a folder")
            path.unlink(missing_ok=True)
            fsync_folder(path.parent)


def _etag(info: os.stat_result) -> str:
    return f"{info.st_mtime_ns:x}-{info.st_size:x}-{info.st_ino:x}"


def _changed(where: str) -> ObjectChangedError:
    return ObjectChangedError(f"{where} was changed by another process", hint="run this again")


def _walk(folder: Path, prefix: str) -> Iterator[ObjectInfo]:
    folders = {f"{path.name}/": path for path in list_folders(folder, lambda _: True)}
    files = list_files(folder, lambda name: f"{name}/" not in folders and not is_temporary(Path(name)))
    entries = {entry.name: entry for entry in files}
    for name in sorted([*entries, *folders]):  # `a-b` comes before what is in the folder `a/`, as in object stores
        if name in folders:
            yield from _walk(folders[name], prefix + name)
            continue
        try:
            info = os.stat(entries[name], follow_symlinks=follows_links())
        except FileNotFoundError:
            continue  # deleted meanwhile
        yield ObjectInfo(check_name(prefix + name), info.st_size, _etag(info))


def _make_folders(root: Path, folder: Path) -> None:
    """Make a folder below `root`, and `root`, durable; parts below `root` are real folders."""
    missing = []
    while folder != root and not check_folder(folder):
        missing.append(folder)
        folder = folder.parent
    root.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        check_folder(path)
        fsync_folder(path.parent)


@contextmanager
def _temporary_file(path: Path, data: bytes | Path) -> Iterator[Path]:
    """Give a synced file with some content beside `path`: a link to `data` where that can be, else a copy."""
    temporary = path.with_name(f".{path.name[:200]}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        if isinstance(data, Path):
            _link_or_copy(data, temporary)
        else:
            with os.fdopen(open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                file.write(data)
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _link_or_copy(source: Path, temporary: Path) -> None:
    with os.fdopen(open_regular(source), "rb") as file:
        try:
            os.link(source, temporary, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with os.fdopen(open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)


def _publish(temporary: Path, path: Path) -> None:
    """Give a file its final name, unless that is taken."""
    try:
        os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        raise ObjectExistsError(f"{path} is there already") from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with _swapping(path):  # a file system without hard links
            if os.path.lexists(path):
                raise ObjectExistsError(f"{path} is there already") from None
            temporary.replace(path)


@contextmanager
def _swapping(path: Path) -> Iterator[None]:
    """Own the right to replace a file; wait while another process does."""
    deadline = time.monotonic() + _LOCK_SECONDS
    lock = path.with_name(f".{path.name[:200]}.swap.tmp")
    while True:
        try:
            owned = OwnedFile(lock, str(path))
            break
        except LockedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)
    try:
        yield
    finally:
        owned.release()


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)


@contextmanager
def _read_errors(where: str) -> Iterator[None]:
    try:
        yield
    except VrekitError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise MissingObjectError(f"there is no {where}") from None
    except PermissionError:
        raise AccessError(f"{where} may not be read", hint="change its permissions, or read as another user") from None
    except OSError as error:
        raise StorageError(f"cannot read {where}: {_reason(error)}") from error


@contextmanager
def _write_errors(where: str) -> Iterator[None]:
    try:
        with storage_errors(where):
            yield
    except StorageError as error:
        if isinstance(error.__cause__, PermissionError):
            raise AccessError(error.message, hint=error.hint) from error.__cause__
        raise
