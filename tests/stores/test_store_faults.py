"""A network that fails: nothing is lost, nothing is written twice, and errors say what to do."""

import io
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from moto.s3.models import s3_backends

from tests.stores.conftest import QUICK, set_environment
from tests.stores.servers import FaultPlan, faulty_proxy, http_server
from vrekit.core.errors import (
    AccessError,
    MissingObjectError,
    NetworkError,
    ObjectChangedError,
    ObjectExistsError,
    StorageError,
)
from vrekit.core.stores import Store, StoreLimits, open_store

DATA = bytes(range(256)) * 40
FAULTS = ["503", "reset", "lost", "stall", "cut"]
WRITE_FAULTS = [*FAULTS, "409"]
Faulty = tuple[Store, FaultPlan]


def _list_all(store: Store) -> int:
    return len(list(store.list("folder")))


READS: dict[str, Callable[[Store], object]] = {
    "read": lambda store: store.read("folder/f") == DATA,
    "range": lambda store: store.read_range("folder/f", 5, 5000) == DATA[5:5005],
    "ranges": lambda store: store.read_ranges("folder/f", [(0, 10), (9000, 3)]) == [DATA[:10], DATA[9000:9003]],
    "head": lambda store: store.head("folder/f").size_bytes == len(DATA),
    "list": lambda store: _list_all(store) == 1,
    "download": lambda store: store.download("folder/f", io.BytesIO(), max_bytes=1 << 20).size_bytes == len(DATA),
}


@pytest.mark.parametrize(
    ("operation", "fault"),
    [(operation, fault) for operation in READS for fault in FAULTS if (operation, fault) != ("head", "cut")],
)
def test_reading_survives_two_faults(faulty: Faulty, operation: str, fault: str) -> None:
    store, plan = faulty
    store.put_if_absent("folder/f", DATA)
    plan.seen.clear()
    plan.faults = [fault, fault]
    assert READS[operation](store)
    assert not plan.faults
    assert len(plan.seen) >= 3


@pytest.mark.parametrize("fault", WRITE_FAULTS)
def test_a_new_object_is_written_once(faulty: Faulty, fault: str) -> None:
    store, plan = faulty
    plan.applies = lambda method, path: method == "PUT"
    plan.faults = [fault, fault]
    etag = store.put_if_absent("f", DATA)  # `lost` and `cut`: the second attempt finds what the first one wrote
    assert store.read_versioned("f").data == DATA
    assert store.head("f").etag == etag
    with pytest.raises(ObjectExistsError):
        store.put_if_absent("f", DATA)


@pytest.mark.parametrize("fault", WRITE_FAULTS)
def test_a_swap_happens_once(faulty: Faulty, fault: str) -> None:
    store, plan = faulty
    first = store.put_if_absent("f", b"1")
    plan.applies = lambda method, path: method == "PUT"
    plan.faults = [fault, fault]
    second = store.compare_and_swap("f", b"2", first)
    assert store.read("f") == b"2"
    assert store.head("f").etag == second


def test_a_swap_that_was_overtaken_is_not_repeated(faulty: Faulty) -> None:
    store, plan = faulty
    first = store.put_if_absent("f", b"1")
    store.put("f", b"other")
    plan.applies = lambda method, path: method == "PUT"
    plan.faults = ["409"]
    with pytest.raises(ObjectChangedError):
        store.compare_and_swap("f", b"2", first)
    assert store.read("f") == b"other"
    store.delete("f")
    plan.faults = ["409"]
    with pytest.raises(ObjectChangedError):
        store.compare_and_swap("f", b"2", first)


@pytest.mark.parametrize("fault", FAULTS)
def test_deleting_and_replacing_survive(faulty: Faulty, fault: str) -> None:
    store, plan = faulty
    plan.faults = [fault]
    store.put("f", b"1")
    assert store.read("f") == b"1"
    plan.faults = [fault]
    store.delete("f")
    with pytest.raises(MissingObjectError):
        store.read("f")


def test_what_another_process_wrote_is_not_taken_for_ours(faulty: Faulty) -> None:
    store, plan = faulty
    other = open_store(store.location, QUICK)
    other.put_if_absent("f", DATA)
    plan.faults = ["reset"]
    with pytest.raises(ObjectExistsError):  # even with the same content
        store.put_if_absent("f", DATA)
    etag = store.head("f").etag
    other.compare_and_swap("f", b"2", etag)
    plan.faults = ["503"]
    with pytest.raises(ObjectChangedError):
        store.compare_and_swap("f", b"3", etag)
    assert store.read("f") == b"2"


def test_a_server_that_keeps_no_metadata(faulty: Faulty) -> None:
    store, plan = faulty
    plan.applies = lambda method, path: method == "PUT"

    def unmarked_then(data: bytes, found: bytes) -> str:
        store.delete("f")
        plan.faults = ["unmarked"]
        store.put_if_absent("f", found)
        return store.put_if_absent("f", data)

    assert unmarked_then(DATA, DATA) == store.head("f").etag
    for other in (DATA[:-1] + b"x", DATA[:-1]):
        with pytest.raises(ObjectExistsError):
            unmarked_then(DATA, other)


def test_a_lasting_fault_ends_with_an_error(faulty: Faulty) -> None:
    store, plan = faulty
    plan.faults = ["503"] * 100
    with pytest.raises(NetworkError, match="the server answers 503") as caught:
        store.read("f")
    assert len(plan.seen) == 4
    assert isinstance(caught.value, ConnectionError)
    assert type(caught.value) is NetworkError
    assert "SlowDown" in caught.value.message
    assert caught.value.hint
    plan.faults = ["reset"] * 100
    with pytest.raises(NetworkError, match="the connection failed"):
        store.put_if_absent("f", b"")
    with pytest.raises(NetworkError, match="the connection failed"):
        store.compare_and_swap("f", b"", '"1"')


def test_a_server_that_never_answers(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_proxy(s3_url) as (url, plan):
        set_environment(monkeypatch, url)
        plan.faults = ["stall"] * 100
        store = open_store("s3://bucket/x", StoreLimits(timeout_seconds=0.2, attempts=2, first_wait_seconds=0.01))
        with pytest.raises(NetworkError, match="did not answer in time"):
            store.head("f")


def test_no_attempt_begins_after_the_limit(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_proxy(s3_url) as (url, plan):
        set_environment(monkeypatch, url)
        plan.faults = ["503"] * 100
        store = open_store("s3://bucket/x", StoreLimits(attempts=50, first_wait_seconds=1, give_up_seconds=0.1))
        start = time.monotonic()
        with pytest.raises(NetworkError):
            store.read("f")
        assert len(plan.seen) == 1
        assert time.monotonic() - start < 20


def test_an_upload_survives_every_fault_at_once(faulty: Faulty, tmp_path: Path) -> None:
    store, plan = faulty
    source = tmp_path / "shard.tar"
    source.write_bytes(DATA * 500)
    plan.faults = ["503", "reset", "lost"]
    store.put_if_absent("shard.tar", source)
    assert store.read("shard.tar") == DATA * 500
    assert [method for method, _ in plan.seen].count("PUT") == 4


def test_a_listing_goes_on_where_it_broke(faulty: Faulty) -> None:
    store, plan = faulty
    bucket = s3_backends["123456789012"]["aws"]
    for number in range(1005):  # a page has 1000
        bucket.put_object("bucket", f"{store.location.prefix}/f{number:04d}", b"")
    plan.faults = [None, "reset", "503"]
    assert [info.name for info in store.list()] == [f"f{number:04d}" for number in range(1005)]
    assert not plan.faults
    assert len(plan.seen) == 4


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(NetworkError, match=r"s3://bucket/x/f: the connection failed") as caught:
        open_store("s3://bucket/x", QUICK).read("f")
    assert "check the network" in str(caught.value.hint)


def test_no_such_bucket(s3_environment: str) -> None:
    store = open_store("s3://no-bucket/x", QUICK)
    for ask in (lambda: store.put_if_absent("f", b""), lambda: list(store.list())):
        with pytest.raises(MissingObjectError, match="no-bucket") as caught:
            ask()
        assert "make it first" in str(caught.value.hint)


def test_denied_and_without_keys(s3_environment: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with http_server(tmp_path) as url:
        set_environment(monkeypatch, url)  # answers 501 to PUT
        with pytest.raises(NetworkError, match="501"):
            open_store("s3://bucket/x", QUICK).put("f", b"")


def _publish_a_shard(store: Store) -> list[tuple[str, bytes]]:
    """Do what a writer does with a shard, and return all that is stored then."""
    manifest = store.put_if_absent("dataset.json", b"v1")
    store.put_if_absent("shards/car/all-0-7.tar", DATA)
    store.put_if_absent("shards/car/all-0-7.parquet", b"sidecar")
    store.compare_and_swap("dataset.json", b"v2", manifest)
    store.put("runs/run.json", b"running")
    store.put("runs/run.json", b"done")
    store.put_if_absent("leftover", b"")
    store.delete("leftover")
    return [(info.name, store.read(info.name)) for info in store.list()]


@pytest.mark.parametrize(
    "fault", ["lost", *(pytest.param(fault, marks=pytest.mark.slow) for fault in ("503", "reset", "cut"))]
)
def test_every_request_may_fail(faulty: Faulty, fault: str) -> None:
    _, plan = faulty

    def publish(faults: list[str | None]) -> list[tuple[str, bytes]]:
        plan.seen.clear()
        plan.faults = faults
        return _publish_a_shard(open_store(f"s3://bucket/{uuid.uuid4().hex[:8]}", QUICK))

    expected = publish([])
    requests = len(plan.seen)
    assert requests >= 12
    for at in range(requests):
        assert publish([None] * at + [fault]) == expected
        assert not plan.faults


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, "http://user:geheim@127.0.0.1:9")
    for ask in (
        lambda: open_store("s3://bucket/x", QUICK).read("f"),
        lambda: open_store("s3://bucket/x", QUICK).put("f", b""),
    ):
        with pytest.raises(StorageError) as caught:
            ask()
        shown = f"{caught.value} {caught.value.hint} {caught.value.__cause__} {caught.value!r}"
        assert "geheim" not in shown
        assert "secret-of-the-tests" not in shown


def test_http_server_without_ranges(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA)
    with http_server(tmp_path, with_ranges=False) as url:
        store = open_store(url, QUICK)
        assert store.read("f") == DATA
        with pytest.raises(StorageError, match="gives no parts of files") as caught:
            store.read_range("f", 1, 2)
        assert "download" in str(caught.value.hint)


def test_http_server_without_etags(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(DATA)
    with http_server(tmp_path, with_etags=False) as url:
        store = open_store(url, QUICK)
        info = store.head("f")
        assert info.etag.startswith("modified:")
        assert store.read_if_changed("f", info.etag) is None
        file = io.BytesIO()
        assert store.download("f", file, max_bytes=1 << 20) == info
        assert file.getvalue() == DATA


def test_faults_while_many_threads_write(faulty: Faulty) -> None:
    store, plan = faulty
    store.put_if_absent("n", b"0")
    plan.applies = lambda method, path: method == "PUT"
    plan.faults = [None, "lost", None, "503", "reset", None, "lost", None, None, "lost"]

    def add(token: str) -> None:
        while True:
            found = store.read_versioned("n")
            if token in found.data.decode().split():
                return  # it was in, though its answer was lost and others wrote since
            with suppress(ObjectChangedError):
                store.compare_and_swap("n", found.data + f" {token}".encode(), found.etag)

    threads = [threading.Thread(target=add, args=(f"t{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(store.read("n").decode().split()) == sorted(["0", *(f"t{number}" for number in range(8))])


def test_access_errors_name_the_keys() -> None:
    from vrekit.core.stores.object_errors import _network_error

    for text in (
        "status code: 403 Forbidden: <Code>AccessDenied</Code>",
        "PUT http://169.254.169.254/latest/api/token",
    ):
        error = _network_error("s3://b/x", "s3", text)
        assert isinstance(error, AccessError)
        assert "AWS_ACCESS_KEY_ID" in str(error.hint)
