"""The folder of local copies of datasets behind URLs: who may use, change and delete a copy.

$XDG_CACHE_HOME/vrekit/datasets/<digest of the URL>/
use.lock        shared by the processes that use the copy; who deletes it holds it alone
refresh.lock    held by the process that brings it up to date
state.json      written whenever the copy was brought up to date
"""

import fcntl
import hashlib
import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vrekit.core.errors import DatasetError, LockedError, StorageError
from vrekit.core.files import open_regular, storage_errors
from vrekit.core.stores import Location

logger = logging.getLogger(__name__)

_LOCK_SECONDS = 600.0
_HOME = re.compile(r"[0-9a-f]{32}|\.[0-9a-f]{32}\.[0-9]+\.tmp")  # the latter of a process that died while it deleted

_used: dict[str, int] = {}  # descriptors of the use.lock of the copies that this process uses, until it ends


def cache_folder() -> Path:
    """Return where copies lie: `$XDG_CACHE_HOME/vrekit/datasets`."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "")
    if not base.is_absolute():  # as the XDG rules say
        base = Path(os.path.expanduser("~"), ".cache")
    return base / "vrekit" / "datasets"


def copy_home(location: Location, cache: Path) -> Path:
    """Return the folder of the copy of a location, made if it is not there; only this account may write to it."""
    name = str(location)
    if location.scheme == "memory":  # every process has another one
        name += f" of process {os.getpid()}"
    with storage_errors(cache):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        home = cache / hashlib.sha256(name.encode()).hexdigest()[:32]
        home.mkdir(mode=0o700, exist_ok=True)
        for folder in (cache, home):
            info = folder.lstat()
            if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o022:
                raise StorageError(
                    f"{folder} can be written to by other accounts",
                    hint="name another folder in XDG_CACHE_HOME, or with --scratch",
                )
    return home


def hold(home: Path) -> None:
    """Keep other processes from deleting a copy while this one lives."""
    if str(home) in _used:
        return
    with storage_errors(home):
        while True:
            home.mkdir(mode=0o700, exist_ok=True)
            descriptor = open_regular(home / "use.lock", os.O_RDWR | os.O_CREAT)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if _is_file(descriptor, home / "use.lock"):
                break
            os.close(descriptor)  # it was deleted before the lock was taken
    _used[str(home)] = descriptor


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


@contextmanager
def refreshing(home: Path, what: str) -> Iterator[None]:
    """Own the right to change a copy, after waiting for the process that has it."""
    path = home / "refresh.lock"
    deadline = time.monotonic() + _LOCK_SECONDS
    with storage_errors(path):
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LockedError(
                        f"another process has been reading the metadata of {what} for {_LOCK_SECONDS:.0f} s",
                        hint="wait for it, or end it",
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def evict(cache: Path, max_bytes: int) -> None:
    """Delete the least recently used copies that no process uses, until all together have at most `max_bytes`."""
    homes = [(_last_use(home), home) for home in cache.iterdir() if _HOME.fullmatch(home.name)]
    sizes = {home: _size_of(home) for _, home in homes}
    total = sum(sizes.values())
    for _, home in sorted(homes):
        if total <= max_bytes:
            return
        if str(home) not in _used and _delete_unused(home):
            total -= sizes[home]
    if total > max_bytes:
        logger.info("%s has %s bytes, all in use", cache, total)


def _last_use(home: Path) -> float:
    try:
        return (home / "state.json").stat().st_mtime  # written by each refresh
    except OSError:
        return 0.0


def _size_of(home: Path) -> int:
    size = 0
    for folder, _, names in os.walk(home):
        for name in names:
            try:
                size += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return size


def _delete_unused(home: Path) -> bool:
    try:
        descriptor = open_regular(home / "use.lock", os.O_RDWR | os.O_CREAT)
    except (OSError, DatasetError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        aside = home.with_name(f".{home.name}.{os.getpid()}.tmp")
        home.rename(aside)  # a process that begins now makes a new copy, and this one is deleted without harm
        shutil.rmtree(aside, ignore_errors=True)
    except OSError:  # it is in use
        return False
    finally:
        os.close(descriptor)
    return True
