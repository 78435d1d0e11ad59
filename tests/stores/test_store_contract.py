"""What holds for every store."""

import io
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.stores.conftest import WRITABLE, Place
from vrekit.core.errors import (
    AccessError,
    DatasetError,
    MissingObjectError,
    ObjectChangedError,
    ObjectExistsError,
    StorageError,
)
from vrekit.core.stores import Store
from vrekit.core.stores.base import coalesce

ODD_NAMES = ["a b.txt", "ä+%20&=~(1).json", "shards/car_1/all-0-7.tar", "a-b/x", "a/b/c", "a.b", "..a", "a.."]
BAD_NAMES = ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a\0b", "a\nb", "x" * 1025, "\ud800"]


def test_content_comes_back(place: Place) -> None:
    for size in (0, 1, 100_000):
        place.fill(f"some/f{size}", bytes(range(256)) * (size // 256) + bytes(size % 256))
    for size in (0, 1, 100_000):
        data = bytes(range(256)) * (size // 256) + bytes(size % 256)
        assert place.store.read(f"some/f{size}") == data
        assert place.store.head(f"some/f{size}").size_bytes == size
        found = place.store.read_versioned(f"some/f{size}")
        assert found.data == data
        assert found.etag == place.store.head(f"some/f{size}").etag


def test_names_are_kept(place: Place) -> None:
    for number, name in enumerate(ODD_NAMES):
        place.fill(name, b"%d" % number)
    for number, name in enumerate(ODD_NAMES):
        assert place.store.read(name) == b"%d" % number
    if place.store.location.scheme != "http":
        assert [info.name for info in place.store.list()] == sorted(ODD_NAMES)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_outside_are_refused(place: Place, name: str) -> None:
    for ask in (place.store.read, place.store.head, place.store.reader):
        with pytest.raises(DatasetError, match="is not the name of a file"):
            ask(name)
    if place.store.is_writable:
        for write in (place.store.put, place.store.put_if_absent):
            with pytest.raises(DatasetError, match="is not the name of a file"):
                write(name, b"")
        with pytest.raises(DatasetError, match="is not the name of a file"):
            place.store.delete(name)


def test_missing_objects_are_named(place: Place) -> None:
    place.fill("there/x", b"1")
    for ask in (place.store.read, place.store.head, lambda name: place.store.read_range(name, 0, 1)):
        for name in ("none", "there/none", "no/no/none"):
            with pytest.raises(MissingObjectError, match="none") as caught:
                ask(name)
            assert isinstance(caught.value, FileNotFoundError)


def test_ranges_are_exact(place: Place) -> None:
    data = bytes(range(256)) * 40
    place.fill("f", data)
    assert place.store.read_range("f", 3, 5) == data[3:8]
    assert place.store.read_range("f", 0, len(data)) == data
    assert bytes(place.store.read_range("f", 7, 0)) == b""
    wanted = [(9000, 10), (0, 3), (2, 4), (0, 0), (5000, 1), (0, 3)]
    assert place.store.read_ranges("f", wanted) == [data[start : start + length] for start, length in wanted]
    assert place.store.read_ranges("f", []) == []


@pytest.mark.parametrize("wanted", [(0, 101), (99, 2), (100, 1), (5000, 1), (1 << 40, 7), (0, 1 << 50)])
def test_a_range_beyond_the_end_is_an_error(place: Place, wanted: tuple[int, int]) -> None:
    place.fill("f", bytes(100))
    for ask in (lambda: place.store.read_range("f", *wanted), lambda: place.store.read_ranges("f", [(0, 1), wanted])):
        with pytest.raises(DatasetError, match="ends at byte") as caught:
            ask()
        assert caught.value.hint


@pytest.mark.parametrize("wanted", [(-1, 2), (0, -1)])
def test_negative_ranges_are_errors(place: Place, wanted: tuple[int, int]) -> None:
    place.fill("f", bytes(100))
    for ask in (lambda: place.store.read_range("f", *wanted), lambda: place.store.read_ranges("f", [wanted])):
        with pytest.raises(DatasetError, match="bytes from byte"):
            ask()


def test_large_ranges_are_read_in_steps(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 40
    place.fill("f", data)
    reader = place.store.reader("f")
    monkeypatch.setattr(type(reader), "step_bytes", 1000)
    assert reader.read_range(10, 7777) == data[10:7787]
    assert reader.read_ranges([(0, 10), (100, 5000), (9000, 999), (9990, 10)]) == [
        data[:10],
        data[100:5100],
        data[9000:9999],
        data[9990:10000],
    ]


def test_reading_is_bounded(place: Place) -> None:
    place.fill("f", bytes(100))
    assert place.store.read("f", max_bytes=100) == bytes(100)
    with pytest.raises(DatasetError, match="has 100 bytes, at most 99 are read"):
        place.store.read("f", max_bytes=99)
    with pytest.raises(DatasetError, match="has 100 bytes, at most 99 are read"):
        place.store.download("f", io.BytesIO(), max_bytes=99)


def test_download_writes_one_version(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 40
    place.fill("f", data)
    monkeypatch.setattr(type(place.store.reader("f")), "step_bytes", 3000)
    file = io.BytesIO()
    info = place.store.download("f", file, max_bytes=1 << 20)
    assert file.getvalue() == data
    assert info == place.store.head("f")


def test_an_unchanged_object_is_not_read_again(place: Place) -> None:
    place.fill("f", b"one")
    etag = place.store.head("f").etag
    assert place.store.read_if_changed("f", etag) is None
    assert place.store.read_if_changed("f", '"other"') == place.store.read_versioned("f")


def test_stores_pickle(place: Place) -> None:
    place.fill("f", b"one")
    text = pickle.dumps(place.store)
    assert pickle.loads(text).read("f") == b"one"
    assert len(text) < 1000
    assert b"secret" not in text


def test_threads_share_a_store(place: Place) -> None:
    for number in range(8):
        place.fill(f"f{number}", bytes([number]) * 1000)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: place.store.read_range(f"f{number % 8}", 10, 3), range(64)))
    assert found == [bytes([number % 8]) * 3 for number in range(64)]


def test_listing_a_folder(place: Place) -> None:
    for name in ("a/x", "a/b/y", "ab", "a-b", "z"):
        place.fill(name, name.encode())
    if place.store.location.scheme == "http":
        with pytest.raises(StorageError, match="cannot be listed"):
            list(place.store.list())
        return
    assert [info.name for info in place.store.list()] == ["a-b", "a/b/y", "a/x", "ab", "z"]
    assert [info.name for info in place.store.list("a")] == ["a/b/y", "a/x"]
    assert list(place.store.list("none")) == []
    for info in place.store.list():
        assert info == place.store.head(info.name)
    with pytest.raises(DatasetError, match="more than 2 files"):
        list(place.store.list(max_count=2))


def test_read_only_stores_say_so(make_place: Callable[[str], Place]) -> None:
    for kind in ("http", "fsspec"):
        store = make_place(kind).store
        assert not store.is_writable
        writes: list[tuple[Callable[..., object], list[Any]]] = [
            (store.put, ["f", b""]),
            (store.put_if_absent, ["f", b""]),
            (store.compare_and_swap, ["f", b"", "1"]),
            (store.delete, ["f"]),
        ]
        for write, arguments in writes:
            with pytest.raises(AccessError, match="read-only") as caught:
                write(*arguments)
            assert caught.value.hint


def test_the_first_writer_wins(store: Store) -> None:
    etag = store.put_if_absent("a/f", b"one")
    assert store.head("a/f").etag == etag
    for data in (b"two", b"one"):
        with pytest.raises(ObjectExistsError, match="is there already"):
            store.put_if_absent("a/f", data)
    assert store.read("a/f") == b"one"


def test_files_are_put(store: Store, tmp_path: Path) -> None:
    for size in (0, 17 << 20):
        source = tmp_path / f"source{size}"
        source.write_bytes(bytes([7]) * size)
        etag = store.put_if_absent(f"f{size}", source)
        source.unlink()
        assert store.read(f"f{size}") == bytes([7]) * size
        assert store.head(f"f{size}").etag == etag


def test_compare_and_swap(store: Store) -> None:
    first = store.put_if_absent("f", b"1")
    second = store.compare_and_swap("f", b"2", first)
    assert second == store.head("f").etag != first
    for etag in (first, "nothing"):
        with pytest.raises(ObjectChangedError, match="changed by another process"):
            store.compare_and_swap("f", b"3", etag)
    assert store.read("f") == b"2"
    store.delete("f")
    for name in ("f", "folder/f"):
        with pytest.raises(ObjectChangedError):
            store.compare_and_swap(name, b"3", second)
    with pytest.raises(MissingObjectError):
        store.read("f")


def test_put_replaces(store: Store) -> None:
    etags = [store.put("a/f", data) for data in (b"1", b"2", b"3")]
    assert len(set(etags)) == 3
    assert store.read("a/f") == b"3"
    assert store.head("a/f").etag == etags[-1]


def test_delete_twice(store: Store) -> None:
    store.put_if_absent("a/f", b"1")
    for _ in range(2):
        store.delete("a/f")
        store.delete("none/f")
    assert list(store.list()) == []
    store.put_if_absent("a/f", b"2")
    assert store.read("a/f") == b"2"


def test_of_many_writers_one_wins(store: Store) -> None:
    barrier = threading.Barrier(8)

    def write(number: int) -> bool:
        barrier.wait()
        try:
            store.put_if_absent("f", b"%d" % number)
        except ObjectExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert won.count(True) == 1
    assert store.read("f") == b"%d" % won.index(True)


def test_no_swap_is_lost(store: Store) -> None:
    store.put_if_absent("f", b"0")

    def add(_: int) -> None:
        while True:
            found = store.read_versioned("f")
            try:
                store.compare_and_swap("f", b"%d" % (int(found.data) + 1), found.etag)
            except ObjectChangedError:
                continue
            return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(20)))
    assert store.read("f") == b"20"


@pytest.mark.parametrize("kind", WRITABLE)
def test_a_reader_notices_another_version(kind: str, make_place: Callable[[str], Place]) -> None:
    store = make_place(kind).store
    etag = store.put("f", b"one")
    reader = store.reader("f", etag=etag)
    assert bytes(reader.read_range(0, 3)) == b"one"
    store.put("f", b"two")
    if kind in ("local", "file"):
        assert bytes(reader.read_range(0, 3)) == b"one"  # the open file is the old one
    else:
        with pytest.raises(ObjectChangedError):
            reader.read_range(0, 3)
    with pytest.raises(ObjectChangedError):
        store.reader("f", etag=etag).read_range(0, 3)


def test_neighbours_are_read_together() -> None:
    spans = coalesce([(100, 10), (0, 10), (15, 5), (40, 0), (300, 100)], 16, 64)
    assert [(span.start, span.length, span.members) for span in spans] == [
        (0, 20, [1, 2]),
        (100, 10, [0]),
        (300, 100, [4]),
    ]
    assert [span.length for span in coalesce([(at, 10) for at in range(0, 100, 10)], 16, 64)] == [60, 40]
