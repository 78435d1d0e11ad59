"""Datasets behind URLs: a local copy of their metadata, payloads by ranges."""

import fcntl
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pytest

from tests.readers.reader_dataset import DEPTH, RGB, DatasetBuilder, record
from tests.stores.conftest import QUICK, Place
from tests.stores.servers import FaultPlan, http_server
from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.manifest import read_manifest, write_manifest
from vrekit.core.checksum import crc32
from vrekit.core.errors import DatasetError, NetworkError, StorageError
from vrekit.core.stores import Store, open_store
from vrekit.writers.webdataset import mirror as mirror_module
from vrekit.writers.webdataset import mirror_cache
from vrekit.writers.webdataset.mirror import mirror

Faulty = tuple[Store, FaultPlan]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    builder = DatasetBuilder(tmp_path / "original", {"rgb": record("rgb", RGB), "depth": record("depth", DEPTH)})
    builder.add("car", range(23))
    builder.add("airport", range(100, 108))
    return builder.write()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "vrekit" / "datasets"


def upload(folder: Path, store: Store) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put_if_absent(path.relative_to(folder).as_posix(), path)


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["memory", "s3", "http", "fsspec"])
def test_the_catalog_reads_it(kind: str, folder: Path, cache: Path, make_place: Callable[[str], Place]) -> None:
    with open_dataset(folder) as dataset:
        expected = dataset.sql("SELECT * FROM samples ORDER BY ALL")
    if kind in ("http", "fsspec"):
        folder.rename(folder.with_name("behind"))
        folder = folder.with_name("behind")
        store = make_place(kind).store
    else:
        store = make_place(kind).store
        upload(folder, store)
    copy = mirror(store.location, store=store, cache=cache)
    metadata = {name for name in files_in(folder) if not name.endswith(".tar") and not name.startswith("index/")}
    assert files_in(copy) == metadata - {"dataset.json.bak", "README.md"}
    for name in files_in(copy):
        assert (copy / name).read_bytes() == (folder / name).read_bytes()
    with open_dataset(copy) as dataset:
        assert dataset.sql("SELECT * FROM samples ORDER BY ALL") == expected
    for shard in pc.unique(expected["shard"]).to_pylist():
        rows = [row for row in expected.to_pylist() if row["shard"] == shard]
        parts = store.read_ranges(shard, [(row["byte_offset"], row["byte_size"]) for row in rows])
        assert [crc32(part) for part in parts] == [row["checksum"] for row in rows]


def test_a_local_dataset_is_not_copied(folder: Path, cache: Path) -> None:
    assert mirror(folder, cache=cache) == folder
    assert mirror(f"file://{folder}", cache=cache) == folder
    assert not cache.exists()


def test_only_what_changed_is_fetched(folder: Path, cache: Path, faulty: Faulty) -> None:
    store, plan = faulty
    upload(folder, store)
    copy = mirror(store.location, store=store, cache=cache)
    names = files_in(copy)

    def gets() -> list[str]:
        plan.seen.clear()
        assert mirror(store.location, store=store, cache=cache) == copy
        start = f"/bucket/{store.location.prefix}/"
        return [path.removeprefix(start) for method, path in plan.seen if method == "GET" and "?" not in path]

    assert sorted(gets()) == ["dataset.json", "origin.json"]  # asked for by etag
    # changed, new, deleted behind the URL; changed and lost in the copy
    sidecars = sorted(name for name in names if name.endswith(".parquet"))
    changed, gone, spoiled, lost = sidecars[:4]
    store.put(changed, (folder / gone).read_bytes())
    store.put("shards/car/new-0-1.parquet", b"new")
    store.delete(gone)
    (copy / spoiled).write_bytes(b"spoiled")
    (copy / lost).unlink()
    (copy / "shards/car/foreign.parquet").write_bytes(b"foreign")
    assert sorted(gets()) == sorted(
        ["dataset.json", "origin.json", changed, "shards/car/new-0-1.parquet", spoiled, lost]
    )
    assert files_in(copy) == (names - {gone}) | {"shards/car/new-0-1.parquet"}
    assert (copy / changed).read_bytes() == (folder / gone).read_bytes()
    assert (copy / spoiled).read_bytes() == (folder / spoiled).read_bytes()
    (copy.parent / "state.json").write_bytes(b"[1")
    assert set(gets()) == {*files_in(copy), "origin.json"}


def test_faults_while_fetching(folder: Path, cache: Path, faulty: Faulty) -> None:
    store, plan = faulty
    upload(folder, store)
    plan.faults = ["503", None, "reset", None, "lost", None, None, None, "cut", "503", None, "reset"]
    copy = mirror(store.location, store=store, cache=cache)
    assert read_manifest(copy) == read_manifest(folder)
    plan.faults = ["503"] * 200
    with pytest.raises(NetworkError):  # an outdated copy is never given
        mirror(store.location, store=store, cache=cache)
    plan.applies = lambda method, path: path.endswith(".parquet")
    next(copy.rglob("*.parquet")).unlink()
    with pytest.raises(NetworkError):
        mirror(store.location, store=store, cache=cache)
    plan.faults = []
    assert mirror(store.location, store=store, cache=cache) == copy


def test_names_of_a_hostile_server(folder: Path, cache: Path, make_place: Callable[[str], Place]) -> None:
    store = make_place("memory").store
    upload(folder, store)
    hostile = [
        "shards/car/.hidden.parquet",
        "shards/x.parquet",
        "shards/a/b/c.parquet",
        "runs/a b.json",
        "runs/-x.json",
    ]
    hostile += ["index/samples.parquet", "subsets/.parquet", ".lock", "quarantine/x.parquet", "shards/ü/x.parquet"]
    for name in hostile:
        store.put(name, b"x")
    copy = mirror(store.location, store=store, cache=cache)
    assert not set(hostile) & files_in(copy)


def test_sizes_are_bounded(
    folder: Path, cache: Path, make_place: Callable[[str], Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_place("memory").store
    upload(folder, store)
    with pytest.raises(DatasetError, match="has more than 5000 bytes") as caught:
        mirror(store.location, store=store, cache=cache, max_bytes=5000)
    assert "larger cache" in str(caught.value.hint)
    with open_dataset(folder):  # makes the index
        pass
    with http_server(folder) as url, pytest.raises(DatasetError, match="at most 5000 are read"):
        mirror(url, store=open_store(url, QUICK), cache=cache, max_bytes=5000)
    monkeypatch.setattr(mirror_module, "MAX_FILES", 3)
    with pytest.raises(DatasetError, match="or 3 files"):
        mirror(store.location, store=store, cache=cache)


def test_what_is_no_dataset(folder: Path, cache: Path, tmp_path: Path, make_place: Callable[[str], Place]) -> None:
    store = make_place("memory").store
    with pytest.raises(DatasetError, match=r"is no dataset: it has no dataset\.json"):
        mirror(store.location, store=store, cache=cache)
    with http_server(folder) as url, pytest.raises(DatasetError, match="cannot be listed") as caught:
        mirror(url, store=open_store(url, QUICK), cache=cache)
    assert "makes its index" in str(caught.value.hint)
    (tmp_path / "l").mkdir()
    write_manifest(tmp_path / "l", replace(read_manifest(folder), writer="lance"))
    upload(tmp_path / "l", store)
    with pytest.raises(DatasetError, match="Lance tables, which are read from local folders only"):
        mirror(store.location, store=store, cache=cache)


def test_the_cache_is_this_account_s(folder: Path, cache: Path, make_place: Callable[[str], Place]) -> None:
    store = make_place("memory").store
    upload(folder, store)
    copy = mirror(store.location, store=store, cache=cache)
    assert cache.stat().st_mode & 0o777 == 0o700
    assert copy.parent.stat().st_mode & 0o777 == 0o700
    cache.chmod(0o777)
    with pytest.raises(StorageError, match="can be written to by other accounts"):
        mirror(store.location, store=store, cache=cache)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for value, expected in (("/x", "/x"), ("", "/home/me/.cache"), ("relative", "/home/me/.cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert mirror_cache.cache_folder() == Path(expected, "vrekit", "datasets")


def test_old_copies_are_deleted(
    folder: Path, cache: Path, make_place: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    held: dict[str, int] = {}
    monkeypatch.setattr(mirror_cache, "_used", held)
    stores = [make_place("memory").store for _ in range(3)]
    copies = []
    for store in stores:
        upload(folder, store)
        copies.append(mirror(store.location, store=store, cache=cache))
    for number, copy in enumerate(copies):
        os.utime(copy.parent / "state.json", (number, number))
    size = mirror_cache._size_of(copies[0].parent)
    mirror_cache.evict(cache, size // 2)
    assert all(copy.exists() for copy in copies)  # this process uses them
    for descriptor in held.values():
        os.close(descriptor)
    held.clear()
    with (copies[0].parent / "use.lock").open("rb") as used:
        fcntl.flock(used, fcntl.LOCK_SH)  # another process uses the oldest, so the next one goes
        mirror_cache.evict(cache, int(2.5 * size))
    assert [copy.exists() for copy in copies] == [True, False, True]
    mirror_cache.evict(cache, size // 2)
    assert list(cache.iterdir()) == []
    assert mirror(stores[1].location, store=stores[1], cache=cache) == copies[1]
    assert read_manifest(copies[1]) == read_manifest(folder)


def _mirror_in_child(url: str, cache: Path, answers: "multiprocessing.SimpleQueue[object]") -> None:
    copy = mirror(url, store=open_store(url, QUICK), cache=cache)
    answers.put((str(copy), len(files_in(copy))))


@pytest.mark.slow
def test_many_processes_at_once(folder: Path, cache: Path, s3_environment: str) -> None:
    url = f"s3://bucket/many-{os.getpid()}"
    upload(folder, open_store(url, QUICK))
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.SimpleQueue[object] = context.SimpleQueue()
    children = [context.Process(target=_mirror_in_child, args=(url, cache, answers)) for _ in range(3)]
    for child in children:
        child.start()
    found = {answers.get() for _ in children}
    for child in children:
        child.join()
    assert len(found) == 1
    assert len(list(cache.iterdir())) == 1
