"""Stores of every kind, and what puts files behind those that cannot be written to."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from tests.stores.servers import FaultPlan, faulty_proxy, http_server, s3_server
from vrekit.core.stores import Location, Store, StoreLimits, open_store
from vrekit.core.stores.filesystem import FilesystemStore

QUICK = StoreLimits(timeout_seconds=20, attempts=4, first_wait_seconds=0.01, max_wait_seconds=0.05, give_up_seconds=30)
WRITABLE = ("local", "file", "memory", "s3")
ALL = (*WRITABLE, "http", "fsspec")


@dataclass(frozen=True)
class Place:
    """A store, and a way to put objects there that needs no writing by that store."""

    store: Store
    fill: Callable[[str, bytes], object]


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def s3_environment(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    set_environment(monkeypatch, s3_url)
    return s3_url


def set_environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-the-tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-tests")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")  # never ask the machine's own one


def new_url(kind: str, folder: Path) -> str:
    name = uuid.uuid4().hex[:8]
    urls = {"local": f"{folder}/data set", "file": f"file://{folder}/data%20set", "s3": f"s3://bucket/{name}/data"}
    return urls.get(kind, f"memory://{name}/data")


@pytest.fixture
def make_place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Place]]:
    with ExitStack() as stack:

        def make(kind: str) -> Place:
            if kind in WRITABLE:
                if kind == "s3":
                    request.getfixturevalue("s3_environment")
                store = open_store(new_url(kind, tmp_path), QUICK)
                return Place(store, store.put_if_absent)
            behind = open_store(tmp_path / "behind")
            if kind == "http":
                url = stack.enter_context(http_server(tmp_path))
                return Place(open_store(f"{url}/behind", QUICK), behind.put)
            return Place(FilesystemStore(Location("local", f"{tmp_path}/behind"), QUICK), behind.put)

        yield make


@pytest.fixture(params=ALL)
def place(request: pytest.FixtureRequest, make_place: Callable[[str], Place]) -> Place:
    return make_place(request.param)


@pytest.fixture(params=WRITABLE)
def store(request: pytest.FixtureRequest, make_place: Callable[[str], Place]) -> Store:
    return make_place(request.param).store


@pytest.fixture
def faulty(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[tuple[Store, FaultPlan]]:
    """A store on S3 behind the proxy that injects faults."""
    with faulty_proxy(s3_url) as (url, plan):
        set_environment(monkeypatch, url)
        callspec = getattr(request.node, "callspec", None)
        stalls = callspec is not None and callspec.params.get("fault") == "stall"
        # on a busy machine an answer may take longer than the short time-out: then it is asked again
        limits = replace(QUICK, timeout_seconds=0.5, attempts=20) if stalls else QUICK
        yield open_store(f"s3://bucket/{uuid.uuid4().hex[:8]}", limits), plan


@pytest.fixture
def quick_stores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Datasets behind URLs are opened with short waits, and their copies lie in a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("vrekit.core.stores.open_store", partial(open_store, limits=QUICK))


def upload(folder: Path, store: Store) -> None:
    """Put all files of a folder into a store."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put_if_absent(path.relative_to(folder).as_posix(), path)
