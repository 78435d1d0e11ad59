"""Computed frames become durable while the next ones are still being computed."""

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.test_export import file_hashes
from vrekit.compute import resources
from vrekit.compute.processor import BatchProcessor
from vrekit.compute.resources import BatchSize
from vrekit.config.loader import parse_config
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.graph.build import Graph, build_graph
from vrekit.writers import journal

MakeRequest = Callable[..., ExportRequest]

WAITS = """
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from vrekit.representations.base import Kind, Output, OutputSpec, Representation

@dataclass
class Waits(Representation):
    '''Computes a frame at a time, and waits at one of them until a file is there.'''

    frame: int
    file: str

    def output_spec(self, height, width, dependencies):
        return OutputSpec(kind=Kind.TABLE, dtype="float64", shape=(1,), axes="D")

    def compute(self, batch, dependencies):
        if self.frame in batch.indices.tolist():
            end = time.monotonic() + 60
            while not Path(self.file).exists() and time.monotonic() < end:
                time.sleep(0.005)
        return Output(data=batch.indices[:, None].astype(np.float64))
"""


def journaled_frames(folder: Path) -> list[int]:
    lines = [line for path in folder.rglob("*.journal") for line in path.read_text().splitlines()]
    return [row["frame_index"] for line in lines for row in json.loads(line)["rows"]]


@pytest.mark.parametrize("writer", ["webdataset", "lance"])
@pytest.mark.parametrize("threads", [1, 3])
def test_frames_are_durable_while_the_next_one_is_computed(
    make_request: MakeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, writer: str
) -> None:
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 0.01)
    monkeypatch.setattr(resources, "BATCH_SECONDS", 0.0)  # every frame is a slow one
    (tmp_path / "waits.py").write_text(WAITS)
    go = tmp_path / "go"
    config = f"representations:\n  a: {{type: 'waits.py:Waits', params: {{frame: 6, file: '{go}'}}, codec: npy}}\n"
    ask = {"config": config, "config_folder": tmp_path, "threads": threads, "writer": writer}
    request = make_request(**ask)
    run = threading.Thread(target=export, args=[request], daemon=True)
    run.start()
    end = time.monotonic() + 50
    while journaled_frames(request.dataset) != list(range(6)) and time.monotonic() < end:
        time.sleep(0.01)
    found = journaled_frames(request.dataset)
    go.touch()
    run.join()
    assert found == list(range(6))
    monkeypatch.undo()
    whole = make_request(**ask, dataset=tmp_path / "whole")
    export(whole)
    assert file_hashes(whole.dataset, "shards/*/*.tar") == file_hashes(request.dataset, "shards/*/*.tar")


def graph_of(batch_size: int | None) -> Graph:
    own = "" if batch_size is None else f", batch_size: {batch_size}"
    specs = parse_config(f"representations: {{rgb: {{type: color/rgb{own}}}}}").representations
    return build_graph(specs, height=10, width=10)


def batch_size(*, own: int | None = None, shared: int | None = None, memory_frames: int = 10_000) -> BatchSize:
    return BatchSize(graph_of(own), ["rgb"], 300, shared=shared, threads=1, memory_bytes=memory_frames * 600)


def test_batches_take_about_a_second() -> None:
    size = batch_size()
    assert size.frames == 1
    for frames, seconds, expected in (
        (1, 0.001, 16),
        (16, 8.0, 2),
        (2, 1.9, 1),
        (1, 30.0, 1),  # such as one that waited for weights to load
        (1, 0.6, 2),
        (2, 0.2, 10),
        (10, 0.0, 16),
    ):
        size.measured(frames, seconds)
        assert size.frames == expected


def test_the_batch_size_asked_for() -> None:
    shared = batch_size(shared=64)
    shared.measured(1, 0.001)
    assert shared.frames == 64
    shared.measured(64, 2.0)  # the time counts more
    assert shared.frames == 32
    own = batch_size(own=6)
    assert own.frames == 6
    own.measured(6, 0.001)
    assert own.frames == 12  # whole multiples only
    own.measured(12, 60.0)
    assert own.frames == 6


@pytest.mark.parametrize(("changes", "level"), [({"own": 64}, "WARNING"), ({"shared": 64}, "INFO")])
def test_a_batch_size_that_memory_does_not_allow_is_told(
    caplog: pytest.LogCaptureFixture, changes: dict[str, int], level: str
) -> None:
    caplog.set_level(logging.INFO)
    size = batch_size(**changes, memory_frames=20)
    size.measured(1, 0.001)
    assert size.frames == (20 if "own" in changes else 5)
    (record,) = caplog.records
    assert record.levelname == level
    assert "batch_size 64 runs as" in record.getMessage()


def test_compute_gets_the_batch_size_asked_for(make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "BATCH_SECONDS", 0.0)
    sizes: list[int] = []
    compute = BatchProcessor.compute

    def spy(self: BatchProcessor, batch: object, *rest: object) -> object:
        sizes.append(len(batch))  # type: ignore[arg-type]  # a FrameBatch
        return compute(self, batch, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(BatchProcessor, "compute", spy)
    config = "representations: {rgb: {type: color/rgb, batch_size: 20}}"
    export(make_request(config=config, shard_frames=64))
    assert sizes == [20, 10]
