"""Exports of one video, the same for both storages: contents, second runs, additions, validation."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.contracts.writer_cells import WRITERS
from tests.storages import open_payloads, read_samples
from vrekit.catalog.manifest import read_manifest
from vrekit.catalog.summary import summarize
from vrekit.config.loader import parse_config
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.validate import validate
from vrekit.readers.index import INDEX_COLUMNS, FrameIndex

MakeRequest = Callable[..., ExportRequest]
CONTENT = ("video_id", "frame_index", "pts_seconds", "representation", "kind", "config_hash", "status", "valid")
CONTENT += ("codec", "dtype", "shape", "raw_bytes", "byte_size", "checksum")  # type: ignore[assignment]


def contents(folder: Path) -> dict[tuple[str, int, str], bytes]:
    """Return every payload as the readers see it."""
    manifest = read_manifest(folder)
    names = manifest.stored_names
    index = FrameIndex.from_table(read_samples(folder, columns=INDEX_COLUMNS), names)
    found = open_payloads(folder, manifest, index).read(np.arange(len(index)), names)
    return {
        (index.videos[index.video[row]], int(index.frame_index[row]), name): bytes(data)
        for name in names
        for row in range(len(index))
        if (data := found[name][row]) is not None
    }


def rows(folder: Path) -> list[str]:
    return sorted(map(repr, read_samples(folder, columns=CONTENT).to_pylist()))


def data_files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Modification time and content of the files that hold payloads and their metadata."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for root in ("shards", "lance")
        for path in (folder / root).rglob("*")
        if path.is_file()
    }


def test_both_storages_hold_the_same(make_request: MakeRequest, tmp_path: Path) -> None:
    for writer in WRITERS:
        export(make_request(dataset=tmp_path / writer, writer=writer, shard_frames=16))
    lance, webdataset = (tmp_path / writer for writer in WRITERS)
    assert contents(lance) == contents(webdataset) != {}
    assert rows(lance) == rows(webdataset)
    ours, theirs = (summarize(folder) for folder in (lance, webdataset))
    sizes = [
        [(one.name, one.frames, one.stored_bytes) for one in summary.representations] for summary in (ours, theirs)
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_second_run_computes_and_writes_nothing(make_request: MakeRequest, writer: str) -> None:
    request = make_request(writer=writer)
    assert export(request).computed_frames == 30 * 3
    before = data_files(request.dataset)
    report = export(request)
    assert (report.run_id, report.computed_frames) == (None, 0)
    assert data_files(request.dataset) == before


@pytest.mark.parametrize("writer", WRITERS)
def test_an_addition_touches_no_file(make_request: MakeRequest, writer: str) -> None:
    request = make_request(writer=writer)
    export(request)
    before, old = data_files(request.dataset), contents(request.dataset)
    more = parse_config("representations:\n  rgb: {type: color/rgb, codec: png}\n  sobel: {type: edges/sobel}\n")
    report = export(dataclasses.replace(request, representations=more.representations))
    assert {name: totals.computed for name, totals in report.totals.items()} == {"sobel": 30}
    after = data_files(request.dataset)
    assert {name: after[name] for name in before} == before
    new = contents(request.dataset)
    assert {key: data for key, data in new.items() if key[2] != "sobel"} == old
    assert sum(key[2] == "sobel" for key in new) == 30
    assert not validate(request.dataset).problems


@pytest.mark.parametrize("writer", WRITERS)
def test_validate_finds_a_flipped_byte(make_request: MakeRequest, writer: str) -> None:
    request = make_request(writer=writer)
    export(request)
    report = validate(request.dataset)
    assert (report.problems, report.payloads) == ([], 90)
    (key, payload), *_ = sorted(contents(request.dataset).items(), key=lambda item: -len(item[1]))
    (path,) = [Path(path) for path in map(str, request.dataset.rglob("*")) if _holds(path, payload)]
    data = bytearray(path.read_bytes())
    data[data.index(payload) + len(payload) // 2] ^= 1
    path.write_bytes(data)
    (problem,) = validate(request.dataset).problems
    assert (problem.code, (problem.video_id, problem.frame_index, problem.representation)) == ("checksum", key)
    assert (request.dataset / problem.path).exists()


def _holds(path: str, payload: bytes) -> bool:
    return os.path.isfile(path) and payload in Path(path).read_bytes()


@pytest.mark.parametrize("writer", WRITERS)
def test_validate_finds_files_that_are_gone_and_cells_that_are_unfinished(
    make_request: MakeRequest, writer: str
) -> None:
    request = make_request(writer=writer, shard_frames=16)
    export(request)
    suffix = {"webdataset": "shards/*/*.tar", "lance": "lance/all.lance/data/*.lance"}[writer]
    sorted(request.dataset.glob(suffix))[0].unlink()
    folder = request.dataset / {"webdataset": "shards/square", "lance": "lance/.open/square"}[writer]
    (folder / {"webdataset": ".all-00000064.tar.partial", "lance": "all-00000064.payloads"}[writer]).touch()
    codes = {problem.code for problem in validate(request.dataset).problems}
    assert codes == {"unfinished", {"webdataset": "missing-shard", "lance": "fragment"}[writer]}


@pytest.mark.slow
def test_killed_and_resumed_the_lance_tables_hold_what_an_unbroken_export_does(clip_mp4: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    (tmp_path / "slow.py").write_text(SLOW_TYPE)
    config.write_text(
        "representations:\n  rgb: {type: color/rgb, codec: png}\n  slow: {type: 'slow.py:Slow'}\n"
        "  flow: {type: flow/dis, params: {preset: ultrafast}, codec: npy.zst}\n"
    )
    options = ["--config", str(config), "--shard-frames", "16", "--batch-size", "2", "--threads", "1"]
    command = [sys.executable, "-m", "vrekit", "export", str(clip_mp4), *options]
    subprocess.run([*command, "-o", str(tmp_path / "whole")], check=True, capture_output=True)
    broken = tmp_path / "broken"
    killed = 0
    for number in range(5):
        process = subprocess.Popen(
            [*command, "-o", str(broken), "--writer", "lance"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(2.0 + 0.3 * number)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
    assert killed >= 1
    export_again = [*command, "-o", str(broken), "--writer", "lance"]
    subprocess.run(export_again, check=True, capture_output=True)
    assert contents(broken) == contents(tmp_path / "whole")
    assert rows(broken) == rows(tmp_path / "whole")
    assert not validate(broken).problems
    assert [report.computed_frames for report in resume(broken)] == [0]


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
        time.sleep(0.1 * len(batch))
        return Output(data=batch.frames.mean((1, 2)))
"""
