"""SIGKILL at random moments, then resume: nothing lost, nothing twice, the same sample contents."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.test_export import payloads
from tests.storages import read_samples
from vrekit.catalog.runs import read_runs
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.validate import validate

SLOW_TYPE = """
import time
from dataclasses import dataclass
from vrekit.representations.base import Kind, Output, OutputSpec, Representation

@dataclass
class Slow(Representation):
    '''Takes its time.'''
    def output_spec(self, height, width, dependencies):
        return OutputSpec(kind=Kind.TABLE, dtype="float64", shape=(3,), axes="D")

    def compute(self, batch, dependencies):
        time.sleep(0.02 * len(batch))
        return Output(data=batch.frames.mean((1, 2)))
"""


@pytest.fixture
def slow_config(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(SLOW_TYPE)
    path = tmp_path / "slow.yaml"
    path.write_text(
        "representations:\n"
        "  rgb: {type: color/rgb, codec: png}\n"
        "  flow: {type: flow/dis, params: {preset: ultrafast}, codec: npy.zst}\n"
        "  slow: {type: 'slow.py:Slow'}\n"
    )
    return path


def kill_while_writing(command: list[str], dataset: Path, seconds: float) -> bool:
    """Run a command, SIGKILL it `seconds` after it began to write; return whether it was killed."""

    def written() -> int:
        return sum(path.stat().st_size for path in dataset.glob("shards/*/.*.journal"))

    before = written()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and written() == before:
        time.sleep(0.01)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


@pytest.mark.slow
def test_killed_five_times(tmp_path: Path, slow_config: Path) -> None:
    generator = np.random.default_rng(1)
    video = tmp_path / "noise.npy"
    np.save(video, generator.integers(0, 255, (600, 24, 32, 3), np.uint8))
    vrekit = [sys.executable, "-m", "vrekit"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = ["--config", str(slow_config), "--shard-frames", "64", "--batch-size", "2", "--threads", "1"]
    subprocess.run([*vrekit, "export", str(video), "-o", str(whole), *options], check=True, capture_output=True)
    order = random.Random(7)
    killed = 0
    killed += kill_while_writing([*vrekit, "export", str(video), "-o", str(broken), *options], broken, order.random())
    for _ in range(4):
        killed += kill_while_writing([*vrekit, "resume", str(broken)], broken, order.random())
    assert killed >= 1
    subprocess.run([*vrekit, "resume", str(broken)], check=True, capture_output=True)
    assert payloads(broken) == payloads(whole)
    assert not validate(broken).problems
    rows = read_samples(broken, columns=("frame_index", "representation")).to_pylist()
    assert len(rows) == len({(row["frame_index"], row["representation"]) for row in rows}) == 1800
    assert not list(broken.glob("shards/*/.*"))


@pytest.mark.parametrize("point", ["seal", "link", "sidecar", "remove"])
def test_killed_at_each_step_of_the_commit(
    make_request: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    from vrekit.writers import journal
    from vrekit.writers.webdataset import writer as webdataset

    whole = make_request(dataset=tmp_path / "whole")
    export(whole)
    request = make_request()

    class Killed(BaseException):
        pass

    def kill(*args: object, **kwargs: object) -> None:
        raise Killed

    targets: dict[str, tuple[Any, str]] = {
        "seal": (journal.OpenShard, "seal"),
        "link": (webdataset, "_link"),
        "sidecar": (webdataset, "write_atomic"),
        "remove": (journal.OpenShard, "remove"),
    }
    # What a SIGKILL leaves: nothing after the point happens, the tidy-up of `suspend` included.
    with monkeypatch.context() as patch:
        owner, name = targets[point]
        patch.setattr(owner, name, kill)
        patch.setattr(webdataset.TarCellWriter, "suspend", lambda self: None)
        patch.setattr(webdataset.TarCellWriter, "commit", _commit_without_release)
        with pytest.raises(Killed):
            export(request)
    _drop_locks(request.dataset)
    resume(request.dataset)
    assert payloads(request.dataset) == payloads(whole.dataset)
    assert not validate(request.dataset).problems
    assert not list(request.dataset.glob("shards/*/.*.partial"))


def _commit_without_release(self: object) -> None:
    self._commit_shard()  # type: ignore[attr-defined]  # the part of `commit` a kill interrupts


def _drop_locks(dataset: Path) -> None:
    # The kernel drops a dead process's locks; here the process lives on, so the lock files go instead.
    for lock in dataset.glob("shards/*/.*.lock"):
        lock.unlink()


def test_a_torn_tail_is_cut_off(make_request: Callable[..., ExportRequest], tmp_path: Path) -> None:
    from vrekit.catalog.cells import Cell
    from vrekit.writers.journal import OpenShard

    tar, journal = tmp_path / "a.partial", tmp_path / "a.journal"
    cell = Cell("car", "all", 0, 7)
    shard = OpenShard(tar, journal, cell)
    row: dict[str, Any] = {"video_id": "car", "representation": "x", "kind": "mask", "run_id": "r", "config_hash": "h"}
    row |= {"status": "failed", "valid": True}
    for number in range(4):
        shard.append([bytes(512)], [{**row, "frame_index": number}])
    shard.flush()
    shard.close()
    whole = journal.read_bytes()
    for cut in range(len(whole)):
        journal.write_bytes(whole[:cut])
        tar.write_bytes(bytes(4 * 512) + b"torn")
        again = OpenShard(tar, journal, cell)
        frames = [frame for rows in again.tables() for frame in rows["frame_index"].to_pylist()]
        assert frames == list(range(whole[:cut].count(b"\n")))
        assert tar.stat().st_size == 512 * len(frames) == again.size
        again.close()


def test_a_flipped_byte_in_the_partial_is_computed_again(
    make_request: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vrekit.engine.cell_run import CellRun

    request = make_request(shard_frames=30, memory_bytes=1)
    whole = make_request(dataset=tmp_path / "whole", shard_frames=30)
    export(whole)
    with monkeypatch.context() as patch:
        patch.setattr(CellRun, "commit", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            export(request)
    (partial,) = request.dataset.glob("shards/*/.*.partial")
    data = bytearray(partial.read_bytes())
    data[len(data) // 2] ^= 1
    partial.write_bytes(data)
    (report,) = resume(request.dataset)
    assert 0 < report.totals["rgb"].computed < 30
    assert payloads(request.dataset) == payloads(whole.dataset)
    assert [run.status for run in read_runs(request.dataset)] == ["interrupted", "done"]


def _interrupt(self: object, cell: object) -> None:
    if cell is not None:
        raise KeyboardInterrupt
