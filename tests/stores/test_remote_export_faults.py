"""Exports into datasets behind URLs that are killed, run twice at once, or meet faults of the network."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.conftest import QUICK_CONFIG
from tests.stores.conftest import QUICK, new_url, set_environment
from tests.stores.servers import FaultPlan, faulty_proxy
from tests.stores.test_remote_export import check_whole, names_in, target
from vrekit.catalog.cells import Cell
from vrekit.catalog.storage import open_storage
from vrekit.core.errors import AccessError, LockedError, MissingObjectError, NetworkError
from vrekit.core.stores import StoreLimits, open_store
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.readers.dataset import FrameDataset
from vrekit.readers.loader import make_loader
from vrekit.video.selection import parse_frames

pytestmark = pytest.mark.usefixtures("quick_stores")
MakeRequest = Callable[..., ExportRequest]
ROOT = Path(__file__).parents[2]
SMALL_CONFIG = "representations:\n  rgb: {type: color/rgb, codec: png}\n"
ALL_FAULTS = ("503", "409", "reset", "lost", "cut")


@pytest.fixture
def url(tmp_path: Path, s3_environment: str) -> str:
    return new_url("s3", tmp_path)


@pytest.fixture
def arguments(tmp_path: Path, clip_npy: Path, url: str) -> list[str]:
    config = tmp_path / "config.yaml"
    config.write_text(QUICK_CONFIG)
    return ["export", str(clip_npy), "-o", url, "--config", str(config), "--shard-frames", "8", "--threads", "1"]


def start(arguments: list[str], machine: Path, *before: str) -> "subprocess.Popen[str]":
    """Start `vrekit` as on a machine of its own, with an empty cache."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(machine)}
    command = [sys.executable, "-m", *(before or ["vrekit"]), *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def killed(arguments: list[str], machine: Path, place: str, number: int, marker: Path, how: signal.Signals) -> str:
    """Run `vrekit` until it is before a call of `place`; send it a signal there; return its stderr."""
    process = start(arguments, machine, "tests.cli.paused", place, str(number), str(marker))
    while not marker.exists():
        time.sleep(0.01)
        assert process.poll() is None, process.communicate()
    process.send_signal(how)
    return process.communicate(timeout=60)[1]


APPEND = "vrekit.writers.journal:OpenShard.append"
PUT = "vrekit.core.stores.objects:ObjectStore.put"
PUT_IF_ABSENT = "vrekit.core.stores.objects:ObjectStore.put_if_absent"
SIDECAR = "vrekit.writers.webdataset.remote_writer:sidecar_bytes"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "number"),
    [(PUT_IF_ABSENT, 1), (PUT, 1), (PUT, 2), (PUT, 3), (APPEND, 5), (APPEND, 20), (SIDECAR, 1), (PUT_IF_ABSENT, 5)],
)
def test_killed_and_resumed_on_another_machine(
    place: str, number: int, url: str, arguments: list[str], tmp_path: Path
) -> None:
    """No frame is lost or stored twice; training reads them all."""
    killed(arguments, tmp_path / "first", place, number, tmp_path / "paused", signal.SIGKILL)
    has_run = any(name.startswith("runs/") for name in names_in(url))
    process = start(["resume", url] if has_run else arguments, tmp_path / "second")
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    check_whole(url)
    frames = [frame for batch in make_loader(url, batch_size=7, seed=2) for frame in batch["frame_index"].tolist()]
    assert sorted(frames) == list(range(30))


@pytest.mark.slow
def test_killed_and_resumed_on_the_same_machine(url: str, arguments: list[str], tmp_path: Path) -> None:
    """Frames of the open shard are not computed again, and the machine's leftovers are cleared up."""
    killed(arguments, tmp_path / "first", SIDECAR, 2, tmp_path / "paused", signal.SIGKILL)
    process = start(["resume", url, "--json"], tmp_path / "first")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert '"computed": 22' not in output  # the second shard's frames were in the journal
    check_whole(url)
    assert not list((tmp_path / "first").rglob("*.partial"))


@pytest.mark.slow
def test_interrupted(url: str, arguments: list[str], tmp_path: Path) -> None:
    errors = killed(arguments, tmp_path / "first", SIDECAR, 2, tmp_path / "paused", signal.SIGINT)
    assert "Traceback" not in errors
    assert f"`vrekit resume {url}` goes on from there" in errors
    resume(target(url))
    check_whole(url)


@pytest.mark.slow
def test_interrupted_in_an_upload_that_stalls(url: str, arguments: list[str], proxy: FaultPlan, tmp_path: Path) -> None:
    """The signal is heeded at once, not when all attempts have timed out."""
    proxy.applies = lambda method, path: method == "PUT" and ".tar" in path
    proxy.faults = ["stall"] * 100
    process = start(arguments, tmp_path / "first")
    while not any(method == "PUT" and ".tar" in path for method, path in proxy.seen):
        time.sleep(0.01)
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert errors.startswith("interrupted: what is done is kept")
    proxy.faults = []
    resume(target(url))
    check_whole(url)


@pytest.mark.slow
def test_two_drivers_at_once(url: str, arguments: list[str], tmp_path: Path) -> None:
    drivers = [start(arguments, tmp_path / name) for name in ("first", "second")]
    for driver in drivers:
        errors = driver.communicate(timeout=120)[1]
        assert driver.returncode == 0, errors
    check_whole(url)


def test_two_drivers_change_the_manifest_at_once(
    url: str, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clip_npy: Path
) -> None:
    """Another driver adds its video between reading and replacing dataset.json: both are in it."""
    from vrekit.engine import preparation

    other = clip_npy.with_name("other.npy")
    other.write_bytes(clip_npy.read_bytes())
    export(make_request(SMALL_CONFIG, dataset=target(url)))
    merged = preparation.merged_manifest
    calls = []

    def merge(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            export(make_request(SMALL_CONFIG, dataset=target(url), video=str(other), video_id="second"))
        return merged(*arguments)  # type: ignore[arg-type]  # what it was called with

    third = make_request(SMALL_CONFIG, dataset=target(url), video=str(other), video_id="third")
    monkeypatch.setattr(preparation, "merged_manifest", merge)
    monkeypatch.setattr(preparation, "manifest_lock", unlocked)
    export(third)
    assert {key.partition("/")[0] for batch in make_loader(url, batch_size=8) for key in batch["key"]} == {
        "square",
        "second",
        "third",
    }


def unlocked(folder: Path) -> "Unlocked":
    return Unlocked(folder)


class Unlocked:
    """The manifest's lock of a machine of its own: it keeps nobody of this one off."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        from vrekit.catalog.remote import remote_of

        remote = remote_of(self.folder)
        assert remote is not None
        remote.refresh("dataset.json")

    def __exit__(self, *exc: object) -> None: ...


@pytest.fixture
def proxy(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultPlan]:
    with faulty_proxy(s3_url) as (url, plan):
        set_environment(monkeypatch, url)
        yield plan


def requests_of(plan: FaultPlan, make_request: MakeRequest, url: str) -> list[tuple[str, str]]:
    before = len(plan.seen)
    export(make_request(SMALL_CONFIG, dataset=target(url), shard_frames=16))
    return plan.seen[before:]


def test_number_of_requests(proxy: FaultPlan, make_request: MakeRequest, tmp_path: Path) -> None:
    seen = requests_of(proxy, make_request, new_url("s3", tmp_path))
    tars = [request for request in seen if ".tar" in request[1]]
    assert [method for method, _ in tars] == ["PUT", "PUT"]
    again = requests_of(proxy, make_request, new_url("s3", tmp_path).replace("data", "more"))
    assert len(again) == len(seen)
    assert len(seen) <= 8 + 14 + 4 * 2  # mirror, manifest and run, then four a shard


@pytest.mark.parametrize(
    "fault", [pytest.param("lost"), *(pytest.param(x, marks=pytest.mark.slow) for x in ALL_FAULTS)]
)
def test_a_fault_at_every_request(
    fault: str, proxy: FaultPlan, make_request: MakeRequest, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if fault == "409":  # which answers writes only
        proxy.applies = lambda method, path: method == "PUT"
    is_slow = request.node.get_closest_marker("slow") is not None
    count = len(requests_of(proxy, make_request, new_url("s3", tmp_path)))
    for number in range(0, count, 1 if is_slow else 9):
        url = new_url("s3", tmp_path)
        proxy.faults = [*[None] * number, fault]
        requests_of(proxy, make_request, url)
        is_over, proxy.faults = not proxy.faults, []
        check_whole(url, names=("rgb",))
        if not is_over:
            assert fault == "409"
            break


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["503", "reset", "cut"])
def test_a_fault_at_every_request_of_a_reader(
    fault: str, url: str, proxy: FaultPlan, make_request: MakeRequest
) -> None:
    folder = export(make_request(SMALL_CONFIG, dataset=target(url), shard_frames=16)).dataset
    before = len(proxy.seen)
    expected = FrameDataset(url)[:]["rgb"]
    for number in range(len(proxy.seen) - before + 1):
        shutil.rmtree(folder.parent)  # its copy is made anew
        proxy.faults = [*[None] * number, fault]
        assert torch.equal(FrameDataset(url)[:]["rgb"], expected)
        proxy.faults = []


def test_the_network_is_down(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, make_request: MakeRequest, tmp_path: Path
) -> None:
    """An export that cannot upload keeps what it computed; a resume uploads it."""
    url = new_url("s3", tmp_path)
    limits = StoreLimits(timeout_seconds=5, attempts=2, first_wait_seconds=0.01, max_wait_seconds=0.01)
    monkeypatch.setattr("vrekit.core.stores.open_store", partial(open_store, limits=limits))
    with faulty_proxy(s3_url) as (proxied, plan):
        set_environment(monkeypatch, proxied)
        plan.applies = lambda method, path: ".tar" in path
        plan.faults = ["503"] * 100
        with pytest.raises(NetworkError, match=r"shards/square/all-00000000-00000015\.tar"):
            export(make_request(SMALL_CONFIG, dataset=target(url), shard_frames=16))
        plan.faults = []
        report = resume(target(url))[0]
        assert report.computed_frames == 14
        check_whole(url, names=("rgb",))


def test_no_permission_to_write(url: str, proxy: FaultPlan, make_request: MakeRequest) -> None:
    """It ends at the first refusal, with what to do; what was computed waits on scratch."""
    proxy.applies = lambda method, path: method == "PUT" and ".tar" in path
    proxy.faults = ["403"] * 2
    with pytest.raises(AccessError, match=f"{url}/shards/square/.*: the server denies access") as caught:
        export(make_request(SMALL_CONFIG, dataset=target(url)))
    assert "AWS_ACCESS_KEY_ID" in str(caught.value.hint)
    assert proxy.faults == ["403"]
    proxy.faults = []
    resume(target(url))
    check_whole(url, names=("rgb",))


def test_two_drivers_of_one_machine(url: str, make_request: MakeRequest) -> None:
    """They share the scratch: a cell belongs to one of them."""
    folder = export(make_request(SMALL_CONFIG, dataset=target(url), frames=parse_frames("0..8"))).dataset
    with (
        open_storage(folder).writer().open_cell(Cell("square", "all", 8, 15)),
        pytest.raises(LockedError, match="another process"),
    ):
        export(make_request(SMALL_CONFIG, dataset=target(url)))
    export(make_request(SMALL_CONFIG, dataset=target(url)))
    check_whole(url, names=("rgb",))


def test_no_bucket(s3_environment: str, make_request: MakeRequest) -> None:
    with pytest.raises(MissingObjectError, match="no-such-bucket"):
        export(make_request(dataset=target("s3://no-such-bucket/data")))


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(NetworkError, match="s3://bucket/data"):
        target("s3://bucket/data")
    assert time.monotonic() - started < QUICK.give_up_seconds
