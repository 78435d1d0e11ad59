"""What the commands print, and their exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from tests.conftest import QUICK_CONFIG
from tests.storages import read_samples
from vrekit.catalog.runs import read_runs

Run = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "quick.yaml"
    path.write_text(QUICK_CONFIG)
    return path


@pytest.fixture
def dataset(run: Run, tmp_path: Path, clip_npy: Path, config: Path) -> Path:
    result = run("export", clip_npy, "-o", tmp_path / "out", "--config", config, "--shard-frames", 8)
    assert result.exit_code == 0, result.output
    return tmp_path / "out"


def test_export_prints_a_summary_to_stderr(run: Run, tmp_path: Path, clip_npy: Path, config: Path) -> None:
    result = run("export", clip_npy, "-o", tmp_path / "out", "--config", config)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "30 frames in " in result.stderr
    for name in ("rgb", "canny", "flow"):
        assert f" {name} " in result.stderr
    again = run("export", clip_npy, "-o", tmp_path / "out", "--config", config)
    assert "all stored already: nothing to compute" in again.stderr


def test_export_json(run: Run, tmp_path: Path, clip_npy: Path, config: Path) -> None:
    result = run("export", clip_npy, "-o", tmp_path / "out", "--config", config, "--json", "--frames", "0..5")
    (report,) = json.loads(result.stdout)
    assert report["frames"] == 5
    assert report["totals"]["canny"]["computed"] == 5
    assert report["run_id"]


def test_dry_run_writes_nothing(run: Run, tmp_path: Path, clip_npy: Path, config: Path) -> None:
    result = run("export", clip_npy, "-o", tmp_path / "out", "--config", config, "--dry-run", "--json")
    assert result.exit_code == 0
    (estimate,) = json.loads(result.stdout)
    assert {part["name"]: part["frames"] for part in estimate["parts"]} == {"rgb": 30, "canny": 30, "flow": 30}
    assert estimate["estimated_bytes"] > 0
    assert not (tmp_path / "out").exists()
    assert "nothing is written" in run("export", clip_npy, "-o", tmp_path / "o", "--config", config, "--dry-run").stdout


def test_several_videos(run: Run, tmp_path: Path, clip_npy: Path, clip_mp4: Path, config: Path) -> None:
    result = run("export", clip_npy, clip_mp4, "-o", tmp_path / "out", "--config", config)
    assert result.exit_code == 0, result.output
    data = json.loads(run("info", tmp_path / "out", "--json").stdout)
    assert {name: video["stored_frames"] for name, video in data["videos"].items()} == {"square": 30, "clip": 40}


def test_info(run: Run, dataset: Path) -> None:
    shown = run("info", dataset).stdout
    assert "webdataset, format version 2, 4 shards" in shown
    assert "30 of 30" in shown
    assert "virtual" in shown
    data = json.loads(run("info", dataset, "--json").stdout)
    frames = {one["name"]: one["frames"] for one in data["representations"]}
    assert frames == {"rgb": 30, "hsv": 0, "canny": 30, "flow": 30}
    assert data["runs"][0]["status"] == "done"


def test_validate_finds_a_flipped_byte(run: Run, dataset: Path) -> None:
    good = run("validate", dataset)
    assert good.exit_code == 0
    assert "90 payloads" in good.stderr
    tar = sorted(dataset.glob("shards/*/*.tar"))[1]
    data = bytearray(tar.read_bytes())
    data[600] ^= 0x10
    tar.write_bytes(data)
    bad = run("validate", dataset, "--json")
    assert bad.exit_code == 1
    (problem,) = json.loads(bad.stdout)["problems"]
    assert problem["code"] == "checksum"
    assert problem["frame_index"] == 8
    assert problem["representation"] == "rgb"


def test_validate_finds_a_missing_tar_a_cut_one_and_an_orphan(run: Run, dataset: Path) -> None:
    first, second, third, _ = sorted(dataset.glob("shards/*/*.tar"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:5000])
    (third.parent / "all-99999999-99999999.tar").write_bytes(b"")
    problems = json.loads(run("validate", dataset, "--json").stdout)["problems"]
    codes = {problem["code"] for problem in problems}
    assert {"missing-shard", "place", "orphan"} <= codes


@pytest.mark.parametrize("what", ["representations", "codecs", "configs"])
def test_list(run: Run, what: str) -> None:
    result = run("list", what)
    assert result.exit_code == 0, result.output
    rows = json.loads(run("list", what, "--json").stdout)
    assert len(rows) >= 4
    first = {"representations": "edges/canny", "codecs": "npy.zst", "configs": "quickstart"}[what]
    assert first in result.stdout
    assert first in {next(iter(row.values())) for row in rows}


def test_graph(run: Run, dataset: Path, tmp_path: Path) -> None:
    text = run("graph", "quickstart").stdout
    assert "hsv" in text
    assert "← rgb" in text
    assert run("graph", dataset).stdout.count("←") == 4
    for ending, magic in (("svg", b"<svg"), ("png", b"\x89PNG")):
        target = tmp_path / f"dag.{ending}"
        assert run("graph", "quickstart", "-o", target).exit_code == 0
        assert target.read_bytes().startswith(magic)


def test_version_and_help(run: Run) -> None:
    assert run("--version").stdout.startswith("vrekit ")
    for command in ("export", "resume", "info", "list", "graph", "validate"):
        shown = run(command, "--help").stdout
        assert "Example" in shown
        assert f"vrekit {command}" in shown


def test_ctrl_c_loses_nothing_and_exits_130(tmp_path: Path, config: Path) -> None:
    video = tmp_path / "noise.npy"
    np.save(video, np.random.default_rng(0).integers(0, 255, (400, 240, 320, 3), np.uint8))
    command = [sys.executable, "-m", "vrekit", "export", str(video), "-o", str(tmp_path / "out")]
    process = subprocess.Popen([*command, "--config", str(config)], stderr=subprocess.PIPE, text=True)
    while not any(path.stat().st_size for path in tmp_path.glob("out/shards/*/.*.journal")):
        time.sleep(0.02)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted: what is done is kept" in errors
    assert "Traceback" not in errors
    (run_record,) = read_runs(tmp_path / "out")
    assert run_record.status == "interrupted"
    assert run_record.totals["rgb"].computed > 0
    done = subprocess.run(
        [sys.executable, "-m", "vrekit", "resume", str(tmp_path / "out"), "--json"], capture_output=True, check=True
    )
    (report,) = json.loads(done.stdout)
    assert 0 < report["totals"]["rgb"]["computed"] < 400
    stored = read_samples(tmp_path / "out", columns=("frame_index", "representation")).to_pylist()
    assert len(stored) == len({(row["frame_index"], row["representation"]) for row in stored}) == 3 * 400
