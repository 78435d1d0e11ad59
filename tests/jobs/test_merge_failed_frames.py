"""Merges between storages are killed at each step and called again, with failed frames among the others."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.merge_datasets import file_hashes, make_dataset, rows_of
from tests.jobs.test_merge_clips import add_clips
from tests.jobs.test_merge_crash import Killed, killed_at
from vrekit.jobs.merge import run as merge_run
from vrekit.jobs.merge.manifests import Layout
from vrekit.jobs.merge.run import merge
from vrekit.jobs.validate import validate
from vrekit.writers.journal import OpenShard
from vrekit.writers.lance.table import LanceTable
from vrekit.writers.webdataset import writer as webdataset

FAILED = [("car", frame, name) for frame, name in [(0, "rgb"), (3, "rgb"), (3, "depth"), (7, "depth"), (8, "rgb")]]
CALLS: list[tuple[Any, str]] = [
    (OpenShard, "flush"),
    (OpenShard, "remove"),
    (webdataset, "write_atomic"),
    (LanceTable, "append"),
    (merge_run, "write_manifest"),
]


def make_sources(folder: Path, writer: str) -> list[Path]:
    """A source with failures of single representations, of whole frames, and of clips; and one of both storages."""
    a = make_dataset(folder / "a", {"car": range(12)}, writer=writer, failed=FAILED, shard_size_bytes=4000)
    b = make_dataset(folder / "b", {"car": range(12, 20)}, writer=writer, run_id="run-b", failed=[("car", 12, "rgb")])
    c = make_dataset(folder / "c", {"bus": range(3)}, failed=[("bus", frame, "depth") for frame in range(3)])
    return [a, b, c] if writer == "lance" else [a, b, add_clips(c, [(0, 5), (6, 9)], failed=[0, 3, 9], shard_frames=8)]


@pytest.fixture(params=[("lance", "webdataset"), ("webdataset", "lance")], ids=["to-tars", "to-lance"])
def storages(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param  # type: ignore[no-any-return]  # one of those above


def kill_then_finish(
    sources: Sequence[Path], out: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch, number: int
) -> bool:
    """Kill a merge at a call and finish it; return whether there was such a call."""
    try:
        with killed_at(monkeypatch, CALLS, number):
            merge(sources, out, layout=layout)
    except Killed:
        for lock in out.rglob("*.lock"):  # the kernel drops a dead process's locks; this process lives on
            if lock.parent.name != "lance":
                lock.unlink()
        merge(sources, out, layout=layout)
        return True
    return False


def test_failed_frames_are_there_once_whenever_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storages: tuple[str, str]
) -> None:
    sources, layout = make_sources(tmp_path, storages[0]), Layout(writer=storages[1])
    whole = tmp_path / "whole"
    merge(sources, whole, layout=layout)
    expected = rows_of(whole)
    assert sum(row["status"] == "failed" for row in expected.values()) == (9 if storages[0] == "lance" else 12)
    number = 2
    while kill_then_finish(sources, out := tmp_path / f"out{number}", layout, monkeypatch, number):
        assert rows_of(out) == expected
        assert not validate(out, decode=False).problems
        assert file_hashes(out, "shards/**/*") == file_hashes(whole, "shards/**/*")
        assert not [*out.glob("lance/.open/*/*"), *out.glob("shards/*/.*")]
        number += 1 if storages[1] == "webdataset" else 3  # commits of tables take their time
    assert number > 20
