"""A local copy of the metadata of a dataset behind a URL, so that the catalog reads it as it reads any folder.

    $XDG_CACHE_HOME/vrekit/datasets/<digest of the URL>/
      dataset/        dataset.json, runs/, sidecars of shards/, items/, stats/, subsets/: under the dataset's own names
      state.json      the URL; etag, size and modification time of each file
      refresh.lock    held by the process that brings the copy up to date
      use.lock        shared by the processes that use it; who deletes the copy holds it alone

Payloads stay where they are: they are read by ranges through the store. The index is made in the copy, from its
sidecars.
"""

import json
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vrekit.catalog.index import INDEX_FOLDER
from vrekit.catalog.items import ITEMS_FOLDER
from vrekit.catalog.manifest import MANIFEST_NAME, read_manifest
from vrekit.catalog.runs import RUNS_FOLDER
from vrekit.catalog.statistics import STATISTICS_FOLDER
from vrekit.core.documents import MAX_DOCUMENT_BYTES
from vrekit.core.errors import DatasetError, MissingObjectError, ObjectChangedError, StorageError
from vrekit.core.files import make_folder, open_regular, place_inside, read_regular, storage_errors, write_atomic
from vrekit.core.stores import Location, ObjectInfo, Store, open_store, parse_location
from vrekit.core.threads import in_order, thread_pool
from vrekit.writers.webdataset.mirror_cache import cache_folder, copy_home, evict, hold, refreshing
from vrekit.writers.webdataset.sidecars import SHARDS_FOLDER

logger = logging.getLogger(__name__)

CACHE_BYTES = 10 << 30  # of all copies together
MAX_FILES = 1_000_000
_SMALL_BYTES = 4 << 20  # larger files are written as they arrive
_THREADS = 16
_CHANGES = 5  # how often a file may change while it is fetched
_STATE_BYTES = 512 << 20

# Only what the catalog reads, under names that vrekit writes: a server may list anything.
_PART = r"[A-Za-z0-9][A-Za-z0-9_()+.\-]*"
_FOLDERS = (RUNS_FOLDER, SHARDS_FOLDER, ITEMS_FOLDER, STATISTICS_FOLDER, "subsets")
_WANTED = re.compile(
    rf"{re.escape(MANIFEST_NAME)}|origin\.json|{RUNS_FOLDER}/{_PART}\.json"
    rf"|(?:{SHARDS_FOLDER}|{ITEMS_FOLDER})/{_PART}/{_PART}\.parquet|(?:{STATISTICS_FOLDER}|subsets)/{_PART}\.parquet"
)
_TOP_FILES = (MANIFEST_NAME, "origin.json")


@dataclass(frozen=True, slots=True)
class _Kept:
    """What is known of a file of the copy."""

    etag: str
    size_bytes: int
    mtime_ns: int

    def is_there(self, path: Path) -> bool:
        try:
            info = path.lstat()
        except OSError:
            return False
        return stat.S_ISREG(info.st_mode) and (info.st_size, info.st_mtime_ns) == (self.size_bytes, self.mtime_ns)


def mirror(
    location: Location | str | os.PathLike[str],
    *,
    store: Store | None = None,
    max_bytes: int = CACHE_BYTES,
    cache: Path | None = None,
    may_be_new: bool = False,
) -> Path:
    """Return a local folder with the metadata of a dataset as it is now; a local dataset is returned as it is.

    Only files whose etag changed are fetched. The folder stays as long as this process lives; other processes may bring
    it up to date meanwhile. Least recently used copies are deleted when all together exceed `max_bytes`.

    Args:
        location: Of the dataset.
        store: For it; opened if not given.
        max_bytes: Of all copies of this account together.
        cache: Where copies lie; `$XDG_CACHE_HOME/vrekit/datasets` by default.
        may_be_new: The dataset need not be there yet.

    Raises:
        DatasetError: If it is no dataset, its metadata is larger than `max_bytes`, or it cannot be read behind a URL.
        StorageError: If the store or the cache cannot be used. An outdated copy is never returned.
    """
    if not isinstance(location, Location):
        location = parse_location(location)
    if location.is_local:
        return location.path
    store = store or open_store(location)
    home = copy_home(location, cache or cache_folder())
    hold(home)
    with refreshing(home, str(location)):
        folder = _refresh(store, home, max_bytes, may_be_new)
    evict(home.parent, max_bytes)
    is_new = may_be_new and not (folder / MANIFEST_NAME).exists()
    if not is_new and read_manifest(folder).writer == "lance":
        raise DatasetError(
            f"{location} has Lance tables, which are read from local folders only", hint="copy the dataset first"
        )
    return folder


def _refresh(store: Store, home: Path, max_bytes: int, may_be_new: bool) -> Path:
    folder = home / "dataset"
    with storage_errors(folder):
        make_folder(folder)
    # The manifest is fetched after the listing: it then knows all that the listed sidecars name.
    listed = _listed(store, max_bytes)
    kept = _read_state(home, store.location)
    found: dict[str, _Kept] = {}
    left = max_bytes
    try:
        for name, file in _fetch_all(store, folder, listed, kept, max_bytes):
            found[name] = file
            left -= file.size_bytes
            _check_left(left, store.location, max_bytes)
    except BaseException:
        _write_state(home, store.location, {**kept, **found})  # what has come is not fetched again
        raise
    if MANIFEST_NAME not in found and not may_be_new:
        raise DatasetError(f"{store.location} is no dataset: it has no {MANIFEST_NAME}", hint="check the URL")
    _delete_others(folder, found)
    _write_state(home, store.location, found)
    return folder


def _fetch_all(
    store: Store, folder: Path, listed: Mapping[str, ObjectInfo | None], kept: Mapping[str, _Kept], max_bytes: int
) -> Iterator[tuple[str, _Kept]]:
    """Yield the files of the copy, each when it is up to date."""

    def fetch(item: tuple[str, ObjectInfo | None]) -> tuple[str, _Kept | None]:
        name, info = item
        return name, _fetch(store, folder, name, info, kept.get(name), max_bytes)

    with (
        thread_pool(_THREADS, "vrekit-mirror") as pool,
        closing(in_order(pool, fetch, listed.items(), at_most=2 * _THREADS)) as fetched,
    ):
        for name, file in fetched:
            if file is not None:
                yield name, file


def _listed(store: Store, max_bytes: int) -> dict[str, ObjectInfo | None]:
    """Return the wanted files with what a listing says of them; None where there is none."""
    listed: dict[str, ObjectInfo | None] = dict.fromkeys(_TOP_FILES)
    if store.location.scheme in ("http", "https"):
        return listed | dict.fromkeys(_names_in_index(store, max_bytes))
    left = max_bytes
    for folder in _FOLDERS:
        for info in store.list(folder):
            if _WANTED.fullmatch(info.name):
                listed[info.name] = info
                left -= info.size_bytes
                _check_left(min(left, MAX_FILES - len(listed)), store.location, max_bytes)
    return listed


def _names_in_index(store: Store, max_bytes: int) -> list[str]:
    """Return the sidecars and runs that the index of a dataset names: HTTP has no listings."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow.compute import call_function

    name = f"{INDEX_FOLDER}/samples.parquet"
    hint = "run `vrekit query` on the dataset where it lies, which makes its index; or use a copy"
    try:
        data = store.read(name, max_bytes=min(max_bytes, 1 << 30))
    except MissingObjectError:
        raise DatasetError(
            f"{store.location} has no {name}, and files behind HTTP cannot be listed", hint=hint
        ) from None
    try:
        table = pq.read_table(pa.BufferReader(data), columns=["shard", "run_id"])
        shards, runs = (call_function("unique", [table[column]]).to_pylist() for column in ("shard", "run_id"))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DatasetError(f"{store.where(name)} is damaged", hint=hint) from error
    names = [
        PurePosixPath(shard).with_suffix(".parquet").as_posix() for shard in shards if isinstance(shard, str) and shard
    ]
    names += [f"{RUNS_FOLDER}/{run}.json" for run in runs if isinstance(run, str)]
    return [name for name in names if _WANTED.fullmatch(name)]


def _fetch(
    store: Store, folder: Path, name: str, info: ObjectInfo | None, kept: _Kept | None, max_bytes: int
) -> _Kept | None:
    """Bring one file of the copy up to date; None if the dataset has it no more."""
    path = place_inside(folder, name)
    if kept is not None and not kept.is_there(path):
        kept = None
    limit = min(max_bytes, MAX_DOCUMENT_BYTES) if name.endswith(".json") else max_bytes
    for _ in range(_CHANGES):
        try:
            return _fetch_once(store, path, name, info, kept, limit)
        except ObjectChangedError:
            info = None
        except MissingObjectError:
            return None
    raise StorageError(f"{store.where(name)} changes all the time", hint="wait until the dataset is written")


def _fetch_once(store: Store, path: Path, name: str, info: ObjectInfo | None, kept: _Kept | None, limit: int) -> _Kept:
    if info is None and not name.endswith(".json"):
        info = store.head(name)
    if kept is not None and info is not None and kept.etag == info.etag:
        return kept
    if info is not None and info.size_bytes > _SMALL_BYTES:
        with _new_file(path) as file:
            etag = store.download(name, file, max_bytes=limit).etag
    else:
        found = store.read_if_changed(name, kept.etag if kept is not None else None, max_bytes=limit)
        if found is None:
            assert kept is not None
            return kept
        etag = found.etag
        with _new_file(path) as file:
            file.write(found.data)
    written = path.lstat()
    return _Kept(etag, written.st_size, written.st_mtime_ns)


@contextmanager
def _new_file(path: Path) -> Iterator[Any]:
    """Give a file that replaces `path` when it is whole; not synced, for it can be fetched again."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            with os.fdopen(open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                yield file
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _delete_others(folder: Path, found: Mapping[str, _Kept]) -> None:
    for top in _FOLDERS:
        for path in sorted((folder / top).rglob("*"), reverse=True):
            if path.suffix == ".log":  # of a run of this machine that is going on
                continue
            if path.relative_to(folder).as_posix() not in found and not (path.is_dir() and any(path.iterdir())):
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()
    for name in _TOP_FILES:
        if name not in found:
            (folder / name).unlink(missing_ok=True)


def _read_state(home: Path, location: Location) -> dict[str, _Kept]:
    """Return what is known of the files of a copy; nothing if that is damaged: then they are fetched again."""
    if location.scheme == "memory":
        return {}
    try:
        state = json.loads(read_regular(home / "state.json", max_bytes=_STATE_BYTES))
        if state["url"] != str(location):
            return {}
        return {name: _Kept(str(etag), int(size), int(mtime)) for name, (etag, size, mtime) in state["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _write_state(home: Path, location: Location, files: Mapping[str, _Kept]) -> None:
    state = {
        "url": str(location),
        "files": {name: [file.etag, file.size_bytes, file.mtime_ns] for name, file in files.items()},
    }
    write_atomic(home / "state.json", json.dumps(state).encode())


def _check_left(left: int, location: Location, max_bytes: int) -> None:
    if left < 0:
        raise DatasetError(
            f"the metadata of {location} has more than {max_bytes} bytes or {MAX_FILES} files",
            hint="copy the dataset to a local folder, or allow a larger cache",
        )
