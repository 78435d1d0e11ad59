"""Durable files: written whole or not at all, and errors of the disk turned into messages with a hint."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vrekit.core.errors import StorageError, VrekitError

_HINTS = {
    errno.ENOSPC: "free some space (or choose another -o), then run `vrekit resume`: nothing already written is lost",
    errno.EDQUOT: "your disk quota is used up: free some space, then run `vrekit resume`",
    errno.EROFS: "the file system is mounted read-only: choose another folder with -o",
    errno.EACCES: "you may not write there: choose another folder with -o, or change its permissions",
    errno.EPERM: "you may not write there: choose another folder with -o, or change its permissions",
    errno.ENOENT: "a folder of that path is not there (any more): make it, or choose another one",
    errno.EISDIR: "that is a folder: name a file in it",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "the disk reports a hardware error",
    errno.ENOTDIR: "part of that path is a file, not a folder: choose another folder with -o",
}


@contextmanager
def storage_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError about `path` into a StorageError that says what to do; other vrekit errors pass through."""
    try:
        yield
    except VrekitError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise StorageError(f"cannot write {path}: {reason}", hint=_HINTS.get(error.errno or 0)) from error


def fsync_folder(folder: Path) -> None:
    """Make renames and links inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(path: Path) -> bool:
    """Return whether `path` is a file that a `write_atomic` of some process is about to rename."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def write_atomic(path: Path, data: bytes) -> None:
    """Write a small file so that a reader sees the old content or the new, never a mixture; durable on return."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)
