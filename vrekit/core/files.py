"""Files of a dataset: written whole or not at all, and only ever inside its folder.

A dataset may come from a stranger. A link in it could lead anywhere, and opening a pipe could wait for ever: only
regular files in real folders are read, written or deleted. The dataset's own folder may be reached through links. A
person who keeps shards of a dataset elsewhere behind links sets VREKIT_FOLLOW_LINKS=1.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from vrekit.core.errors import DatasetError, StorageError, VrekitError

_PIECE_BYTES = 1 << 20  # that are copied at once
_ONE_READ_BYTES = 1 << 30  # one `pread` gives at most 2 GiB
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


def write_atomic(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file so that a reader sees the old content or the new, never a mixture; durable on return.

    Args:
        path: The file.
        data: Its content, or the pieces of it.
    """
    with _replacing(path) as file:
        file.writelines([data] if isinstance(data, bytes) else data)


def copy_atomic(path: Path, source: int, offset: int, size: int) -> None:
    """Write a part of another file as `write_atomic` does: in pieces, with the holes it has, and as far as it goes.

    Args:
        path: The file to write.
        source: Descriptor of the other file.
        offset: First byte of the part.
        size: Its length, bytes; the file may end before it.
    """
    end = max(min(offset + size, os.fstat(source).st_size), offset)
    with _replacing(path) as file:
        for start, stop in data_ranges(source, offset, end):
            file.seek(start - offset)
            for at in range(start, stop, _PIECE_BYTES):
                file.write(os.pread(source, min(_PIECE_BYTES, stop - at), at))
        file.truncate(end - offset)


def data_ranges(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the parts (first byte, end) of a range of a file that are not holes, where the system tells."""
    while start < end:
        try:
            first = os.lseek(descriptor, start, os.SEEK_DATA)
            stop = os.lseek(descriptor, first, os.SEEK_HOLE)
        except (AttributeError, OSError) as error:
            if getattr(error, "errno", None) != errno.ENXIO:  # which says that only a hole is left
                yield start, end
            return
        if first < end:
            yield first, min(stop, end)
        start = stop


def read_range(descriptor: int, offset: int, size: int) -> bytes:
    """Return a part of a file, shorter where the file ends; memory is taken for what is there only."""
    left = min(size, os.fstat(descriptor).st_size - offset)
    if left <= _ONE_READ_BYTES:
        return os.pread(descriptor, max(left, 0), offset)
    whole = BytesIO()
    while left > 0 and (piece := os.pread(descriptor, min(left, _PIECE_BYTES), offset)):
        whole.write(piece)
        offset, left = offset + len(piece), left - len(piece)
    return whole.getvalue()  # which is no copy


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a temporary file that takes the place of `path` at the end, durably; after an error nothing has changed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        try:
            temporary.unlink(missing_ok=True)
            with os.fdopen(open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


FOLLOW_LINKS_VARIABLE = "VREKIT_FOLLOW_LINKS"
_LINK_HINT = (
    "a dataset holds regular files and folders only: copy it with `cp -rL`, "
    f"or set {FOLLOW_LINKS_VARIABLE}=1 if you made that link yourself"
)

_FOLDER_HINT = "no vrekit makes a folder there: remove it, if nothing in it is yours"


def follows_links() -> bool:
    """Return whether the user allows links inside datasets, by VREKIT_FOLLOW_LINKS=1."""
    return os.environ.get(FOLLOW_LINKS_VARIABLE) == "1"


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Return a descriptor of a regular file; it never waits, and does not follow a link in the last part of the path.

    Args:
        path: The file.
        flags: As for `os.open`; with O_CREAT the file gets mode 0o666 less the umask.

    Raises:
        DatasetError: If it is a link, a folder, a pipe or a device.
        OSError: If it cannot be opened.
    """
    flags |= os.O_NONBLOCK | os.O_CLOEXEC
    if not follows_links():
        flags |= os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DatasetError(f"{path} is a link", hint=_LINK_HINT) from None
        if error.errno == errno.ENXIO:  # a pipe or socket opened for writing
            raise DatasetError(f"{path} is no regular file", hint=_LINK_HINT) from None
        if error.errno == errno.EISDIR:
            raise DatasetError(f"{path} is a folder, not a file", hint=_FOLDER_HINT) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise DatasetError(f"{path} is a folder, not a file", hint=_FOLDER_HINT)
        raise DatasetError(f"{path} is no regular file", hint=_LINK_HINT)
    return descriptor


def open_to_change(path: str | os.PathLike[str], flags: int) -> int:
    """Return a descriptor of a file that is written in place; arguments and errors as for `open_regular`.

    A file that has other names (hard links, as `cp -al` makes) is replaced by a copy first, so that theirs stays.
    """
    descriptor = open_regular(path, flags)
    if has_other_names(descriptor):
        try:
            with os.fdopen(open_regular(path), "rb") as source:
                copy_atomic(Path(path), source.fileno(), 0, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
        descriptor = open_regular(path, flags)
    return descriptor


def has_other_names(descriptor: int) -> bool:
    """Return whether an open file has a second name: a hard link."""
    return os.fstat(descriptor).st_nlink > 1


def read_regular(path: Path, *, max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        DatasetError: If it is none, or larger than `max_bytes`.
        OSError: If it cannot be read; FileNotFoundError if it is not there.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise DatasetError(f"{path} has {size} bytes, at most {max_bytes} are read")
        return file.read()


def check_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether there is a real folder at `path`, False if nothing is there.

    Raises:
        DatasetError: If it is a link or no folder.
    """
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode) and follows_links():
            mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISDIR(mode):
        what = "a link" if stat.S_ISLNK(mode) else "no folder"
        raise DatasetError(f"{path} is {what}", hint=_LINK_HINT)
    return True


def make_folder(root: Path, *parts: str) -> Path:
    """Make a folder below `root`, and `root` itself, where they are not there yet; return it.

    Raises:
        DatasetError: If a part below `root` is a link or no folder.
        OSError: If it cannot be made.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = root
    for part in parts:
        folder = folder / part
        if not check_folder(folder):
            folder.mkdir(exist_ok=True)
    return folder


def list_files(folder: Path, wanted: Callable[[str], bool]) -> list[os.DirEntry[str]]:
    """Return the files of a real folder whose names are wanted, sorted by name; none if there is no such folder.

    Raises:
        DatasetError: If the folder, or one of these files, is a link or something else than a file.
    """
    if not check_folder(folder):
        return []
    with os.scandir(folder) as entries:
        found = sorted((entry for entry in entries if wanted(entry.name)), key=lambda entry: entry.name)
    for entry in found:
        if not entry.is_file(follow_symlinks=follows_links()):
            what = "a link" if entry.is_symlink() else "no regular file"
            raise DatasetError(f"{entry.path} is {what}", hint=_LINK_HINT)
    return found


def list_folders(folder: Path, wanted: Callable[[str], bool] = lambda name: not name.startswith(".")) -> list[Path]:
    """Return the real folders inside a real folder, sorted by name; errors as in `list_files`, for links only."""
    if not check_folder(folder):
        return []
    with os.scandir(folder) as entries:
        found = sorted((entry for entry in entries if wanted(entry.name)), key=lambda entry: entry.name)
    for entry in found:
        if entry.is_symlink() and not follows_links():
            raise DatasetError(f"{entry.path} is a link", hint=_LINK_HINT)
    return [Path(entry) for entry in found if entry.is_dir()]


def foreign_entries(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield what inside a folder is neither a folder nor a regular file, and what it is; the folder itself, too."""
    follows = follows_links()
    if folder.is_symlink() and not follows:
        yield folder, "a link"
        return
    left = [folder] if folder.exists() else []
    if left and not folder.is_dir():
        yield folder, "no folder"
        return
    while left:
        with os.scandir(left.pop()) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=follows):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    left.append(Path(entry.path))
                elif entry.is_symlink() and not follows:
                    yield Path(entry.path), "a link"
                elif not entry.is_dir():
                    yield Path(entry.path), "no regular file"


def check_tree(folder: Path) -> None:
    """Raise DatasetError if a folder, or anything inside it, is a link or no regular file."""
    for path, what in foreign_entries(folder):
        raise DatasetError(f"{path} is {what}", hint=_LINK_HINT)


def place_inside(root: Path, relative: str) -> Path:
    """Return the path of a file that untrusted metadata names, relative to `root`, with `/` between its parts.

    Raises:
        DatasetError: If it is absolute, or has parts such as `..`, or a folder on the way is a link.
    """
    folders, path = _places(os.fspath(root), relative)
    for folder in folders:
        check_folder(folder)
    return path


@lru_cache(maxsize=1 << 12)  # readers open the same files again and again
def _places(root: str, relative: str) -> tuple[tuple[str, ...], Path]:
    parts = relative.split("/")
    if "\0" in relative or not {"", ".", ".."}.isdisjoint(parts):
        raise DatasetError(f"the metadata names the file {relative!r}, which is not inside {root}")
    folders = tuple(accumulate(parts[:-1], os.path.join, initial=root))[1:]
    return folders, Path(root, relative)


def listing(root: Path, folder: Path, suffix: str) -> bytes:
    """Return names, sizes and times of the files in one folder that end in `suffix`; nothing if it is not there.

    Args:
        root: The folder.
        folder: What its path is relative to.
        suffix: Ending of the names; hidden files are left out.

    Raises:
        DatasetError: If `root` is a link or no folder.
    """
    if not check_folder(root):
        return b""
    lines = []
    for entry in os.scandir(root):
        if not entry.name.startswith(".") and entry.name.endswith(suffix):
            status = entry.stat()
            lines.append(f"{entry.name} {status.st_size} {status.st_mtime_ns}\n")
    return f"{root.relative_to(folder).as_posix()}\n{''.join(sorted(lines))}".encode()
