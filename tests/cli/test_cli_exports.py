"""Exports from the command line: several videos, signals, pipes, and what of a dataset the commands show."""

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
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from vrekit.catalog.runs import new_run, read_runs, write_run
from vrekit.cli.app import app
from vrekit.core.locks import OwnedFile

Run = Callable[..., Result]

VREKIT = [sys.executable, "-m", "vrekit"]
CONFIG = """
representations:
  rgb: {type: color/rgb, codec: png}
  hsv: {type: color/hsv, deps: [rgb]}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def run(config: Path, tmp_path: Path) -> Run:
    runner = CliRunner()

    def invoke(command: str, *arguments: str | Path) -> Result:
        extra = ["-o", tmp_path / "out", "-c", config] if command == "export" else []
        return runner.invoke(app, [command, *map(str, [*arguments, *extra])])

    return invoke


def test_a_video_that_cannot_be_read_does_not_stop_the_others(run: Run, clip_npy: Path, tmp_path: Path) -> None:
    result = run("export", "nowhere.mp4", clip_npy, "nothing.mp4", "--json")
    assert result.exit_code == 1
    (report,) = json.loads(result.stdout)
    assert (report["video_id"], report["totals"]["rgb"]["computed"]) == ("square", 30)
    assert result.stderr.splitlines() == [
        "error: nowhere.mp4: no such file or folder",
        "hint: check the path; only local files are read",
        "error: nothing.mp4: no such file or folder",
        "hint: check the path; only local files are read",
    ]


def test_a_video_that_another_process_writes_does_not_stop_the_others(
    run: Run, clip_npy: Path, clip_array: NDArray[np.uint8], tmp_path: Path
) -> None:
    other = tmp_path / "other.npy"
    np.save(other, clip_array[:3])
    (tmp_path / "out" / "shards" / "square").mkdir(parents=True)
    assert run("export", other, "--frames", "0").exit_code == 2  # a folder with shards and no manifest is not ours
    (tmp_path / "out" / "shards" / "square").rmdir()
    (tmp_path / "out" / "shards").rmdir()
    assert run("export", other, "--frames", "0").exit_code == 0
    (tmp_path / "out" / "shards" / "square").mkdir()
    owned = OwnedFile(tmp_path / "out" / "shards" / "square" / ".all-00000000.lock", "it")
    result = run("export", clip_npy, other)
    owned.release()
    assert result.exit_code == 1
    assert "is writing square/all frames 0..1023" in result.stderr
    assert "other → " in result.stderr
    assert run("resume", tmp_path / "out").exit_code == 0
    summary = json.loads(run("info", tmp_path / "out", "--json").stdout)
    assert {name: video["stored_frames"] for name, video in summary["videos"].items()} == {"square": 30, "other": 3}


def test_two_processes_make_one_dataset(run: Run, clip_npy: Path, config: Path, tmp_path: Path) -> None:
    command = [*VREKIT, "export", str(clip_npy), "-o", str(tmp_path / "out"), "-c", str(config), "--shard-frames", "5"]
    halves = [
        subprocess.Popen([*command, "--frames", frames], stderr=subprocess.PIPE, text=True)
        for frames in ("0..15", "15..")
    ]
    for half in halves:
        _, errors = half.communicate(timeout=120)
        assert half.returncode == 0, errors
    checked = json.loads(run("validate", tmp_path / "out", "--json").stdout)
    assert (checked["ok"], checked["payloads"]) == (True, 60)
    assert len(read_runs(tmp_path / "out")) == 2


def test_representations_that_name_none(run: Run, clip_npy: Path, tmp_path: Path) -> None:
    for text in ("", ",", " "):
        result = run("export", clip_npy, "-r", text)
        assert result.exit_code == 2
        assert "--representations names none" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_graph_shows_what_was_computed_from_what_is_not_stored(run: Run, clip_npy: Path, tmp_path: Path) -> None:
    assert run("export", clip_npy, "-r", "hsv", "--images", "jpg").exit_code == 0
    result = run("graph", tmp_path / "out")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["rgb", "color/rgb", "←", "frames"],
        ["hsv", "color/hsv", "←", "rgb"],
        ["hsv.image", "image", "←", "hsv"],
    ]


def test_a_killed_run_is_not_said_to_be_running(run: Run, clip_npy: Path, tmp_path: Path) -> None:
    assert run("export", clip_npy, "--frames", "0..3").exit_code == 0
    (record,) = read_runs(tmp_path / "out")
    write_run(tmp_path / "out", new_run("square", record.request, {"cpu"}))
    assert "running or killed" in run("info", tmp_path / "out").stdout


@pytest.mark.parametrize("output", ["nowhere/dag.svg", "nowhere/dag.png", "folder.svg"])
def test_a_picture_that_cannot_be_written(run: Run, tmp_path: Path, output: str) -> None:
    (tmp_path / "folder.svg").mkdir()
    result = run("graph", "quickstart", "-o", tmp_path / output)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: cannot write {tmp_path / output}: ")
    assert "hint: " in result.stderr


def test_a_name_too_long_for_the_disk(clip_npy: Path, config: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(clip_npy), "-o", "x" * 300, "-c", str(config)])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: xxx")
    assert "file name too long" in result.stderr


def test_a_full_disk_behind_stdout(run: Run, clip_npy: Path, tmp_path: Path) -> None:
    assert run("export", clip_npy, "--frames", "0..3").exit_code == 0
    for command in (["info", str(tmp_path / "out")], ["list", "codecs", "--json"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([*VREKIT, *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, "error: no space left on device\n")


def test_a_reader_that_goes_away(run: Run, clip_npy: Path, tmp_path: Path) -> None:
    assert run("export", clip_npy, "--frames", "0..3").exit_code == 0
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        command = [*VREKIT, "info", str(tmp_path / "out"), "--json"]
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ([signal.SIGINT], 130),
        ([signal.SIGINT] * 3, 130),
        ([signal.SIGTERM], 143),
        ([signal.SIGTERM, signal.SIGINT], None),
    ],
)
def test_signals_end_an_export_cleanly(
    tmp_path: Path, config: Path, signals: list[signal.Signals], code: int | None
) -> None:
    video = tmp_path / "noise.npy"
    np.save(video, np.random.default_rng(0).integers(0, 255, (400, 240, 320, 3), np.uint8))
    command = [*VREKIT, "export", str(video), "-o", str(tmp_path / "out"), "--config", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not any(path.stat().st_size for path in tmp_path.glob("out/shards/*/.*.journal")):
        time.sleep(0.02)
        assert process.poll() is None
    for one in signals:
        process.send_signal(one)
        time.sleep(0.01)
    _, errors = process.communicate(timeout=120)
    assert process.returncode in ((130, 143) if code is None else (code,))
    assert errors.startswith("interrupted: what is done is kept")
    assert "Traceback" not in errors
    (record,) = read_runs(tmp_path / "out")
    assert record.status == "interrupted"
    assert not list(tmp_path.glob("out/shards/*/.*.lock"))


def test_the_summary_fits_a_narrow_terminal(run: Run, clip_npy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    result = run("export", clip_npy, "--frames", "0..3")
    assert "representation" in result.stderr
    assert "computed" in result.stderr
