"""Every mistake a user can make ends in one clear message with a hint and a non-zero exit code: no traceback."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from vrekit.catalog.validate import validate

Run = Callable[..., Result]

GOOD = """
representations:
  rgb: {type: color/rgb, codec: png}
"""


@pytest.fixture
def good_config(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


def assert_one_clear_error(result: Result, *parts: str, code: int, hint: bool = True) -> None:
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert result.stderr.count("error: ") == 1, result.stderr
    assert ("hint: " in result.stderr) == hint, result.stderr
    for part in parts:
        assert part in result.stderr


@pytest.fixture
def export(run: Run, tmp_path: Path, clip_npy: Path, good_config: Path) -> Run:
    def invoke(*extra: str | Path, video: str | Path = clip_npy, config: str | Path = good_config) -> Result:
        result = run("export", video, "-o", tmp_path / "out", "--config", config, *extra)
        if result.exit_code:
            # a later, right run must not trip over anything the wrong one left
            again = run("export", clip_npy, "-o", tmp_path / "out", "--config", good_config)
            assert again.exit_code == 0, again.output
            assert not validate(tmp_path / "out").problems
        return result

    return invoke


def test_missing_video(export: Run) -> None:
    assert_one_clear_error(export(video="nowhere.mp4"), "nowhere.mp4", "no such file", code=1)


def test_not_a_video(export: Run, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("these are my notes\n" * 100)
    assert_one_clear_error(export(video=text), "notes.txt", code=1)


def test_damaged_video(export: Run, tmp_path: Path, clip_mp4: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clip_mp4.read_bytes()[:3000])
    assert_one_clear_error(export(video=broken), "broken.mp4", code=1)


def test_empty_folder(export: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_one_clear_error(export(video=tmp_path / "empty"), "empty", code=1)


def test_a_dataset_is_no_video(export: Run, tmp_path: Path) -> None:
    assert export().exit_code == 0
    assert_one_clear_error(export(video=tmp_path / "out"), "dataset", code=1)


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ("representations: [rgb", ("bad.yaml:1",)),
        ("", ("bad.yaml", "empty")),
        ("representations:\n  rgb: {tpye: color/rgb}\n", ("bad.yaml:2", "tpye", "'type'")),
        ("representations:\n  rgb: {type: color/rbg}\n", ("bad.yaml:2", "color/rbg", "color/rgb")),
        ("representations:\n  hsv: {type: color/hsv, deps: [rgb]}\n", ("bad.yaml:2", "rgb")),
        (
            "representations:\n  a: {type: color/hsv, deps: [b]}\n  b: {type: color/hsv, deps: [a]}\n",
            ("a → b → a",),
        ),
        ("representations:\n  ../evil: {type: color/rgb}\n", ("../evil",)),
        ("representations:\n  rgb: {type: color/rgb, batch_size: ten}\n", ("batch_size",)),
        (
            "representations:\n  canny: {type: edges/canny, params: {treshold1: 5}}\n",
            ("bad.yaml:2", "treshold1", "threshold1"),
        ),
        ("representations:\n  rgb: {type: color/rgb, codec: pgn}\n", ("bad.yaml:2", "pgn", "png")),
        ("representations:\n  rgb: {type: 'my.py:Mine'}\n", ("my.py",)),
    ],
)
def test_bad_configs(export: Run, tmp_path: Path, config: str, parts: tuple[str, ...]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(config)
    result = export(config=path)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.stderr.startswith("error: ")
    for part in parts:
        assert part in result.stderr
    assert not (tmp_path.parent / "evil").exists()


def test_missing_config(export: Run) -> None:
    assert_one_clear_error(export(config="quikstart"), "quikstart", "quickstart", code=2)


@pytest.mark.parametrize("frames", ["10..5", "5..5", "-3", "1..x", "90..95", "40", ""])
def test_bad_frames(export: Run, frames: str) -> None:
    assert_one_clear_error(export(f"--frames={frames}"), code=2)


@pytest.mark.parametrize(
    "extra",
    [
        ("--shard-size", "big"),
        ("--video-id", "../x"),
        ("--memory", "0"),
        ("-r", "rgbb"),
        ("--fps", "2"),
        ("--stream", "1"),
    ],
)
def test_bad_options(export: Run, extra: tuple[str, str]) -> None:
    assert_one_clear_error(export(*extra), code=2)


def test_unknown_option(run: Run) -> None:
    result = run("export", "x.mp4", "-o", "out", "--farmes", "3")
    assert result.exit_code == 2
    assert "--frames" in result.stderr


def test_changed_config_and_other_video(export: Run, tmp_path: Path, run: Run) -> None:
    assert export().exit_code == 0
    changed = tmp_path / "changed.yaml"
    changed.write_text(GOOD.replace("png", "npy"))
    assert_one_clear_error(export(config=changed), "rgb.codec", code=1)
    other = tmp_path / "other" / "square.npy"
    other.parent.mkdir()
    np.save(other, np.zeros((3, 8, 8, 3), np.uint8))
    assert_one_clear_error(export(video=other), "square", "--video-id", code=1)


@pytest.mark.parametrize("command", ["info", "resume", "validate"])
def test_not_a_dataset(run: Run, tmp_path: Path, command: str) -> None:
    assert_one_clear_error(run(command, tmp_path / "nowhere"), "does not exist", code=1)
    assert_one_clear_error(run(command, tmp_path), "is not a dataset", code=1)
    file = tmp_path / "file"
    file.touch()
    assert_one_clear_error(run(command, file), "is a file", code=1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format_version": 1}', '{"a": 1}'])
def test_damaged_manifest(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    result = run("info", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "dataset.json" in result.stderr


def test_a_newer_format_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"format_version": 99}))
    assert_one_clear_error(run("info", tmp_path), "format version 99", code=1)


def test_graph_to_an_unknown_picture_format(run: Run, tmp_path: Path) -> None:
    assert_one_clear_error(run("graph", "quickstart", "-o", tmp_path / "dag.docx"), "dag.docx", code=2)


def test_output_is_a_file_or_somebody_elses_folder(run: Run, tmp_path: Path, clip_npy: Path, good_config: Path) -> None:
    (tmp_path / "file").touch()
    result = run("export", clip_npy, "-o", tmp_path / "file", "--config", good_config)
    assert_one_clear_error(result, "is a file", code=2)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    result = run("export", clip_npy, "-o", tmp_path / "home", "--config", good_config)
    assert_one_clear_error(result, "is not empty", code=2)


# A real full disk and a real read-only one: small file systems of our own, in a mount namespace of our own.


def in_namespace(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    command = ["unshare", "-rm", "sh", "-c", script]
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        if os.environ.get("CI"):
            pytest.fail("this machine allows no mount namespaces, so a full disk cannot be tested")
        pytest.skip("no mount namespaces here")
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_full_disk(tmp_path: Path, good_config: Path) -> None:
    video = tmp_path / "noise.npy"
    np.save(video, np.random.default_rng(0).integers(0, 255, (60, 128, 128, 3), np.uint8))
    disk = tmp_path / "disk"
    vrekit = shlex.join([sys.executable, "-m", "vrekit"])
    export = f"{vrekit} export {video} -o {disk}/out --config {good_config} --shard-frames 16"
    script = f"""
        mount -t tmpfs -o size=1m tmpfs {disk} || exit 99
        {export}; echo "code $?" >&2
        mount -o remount,size=64m {disk}
        {vrekit} resume {disk}/out && {vrekit} validate {disk}/out
    """
    result = in_namespace(script, disk)
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("error: cannot write "), result.stderr
    assert "no space left on device" in result.stderr
    assert "hint: free some space" in result.stderr
    assert "code 1" in result.stderr
    assert "Traceback" not in result.stderr
    assert "all good" in result.stderr


def test_read_only_disk(tmp_path: Path, clip_npy: Path, good_config: Path) -> None:
    disk = tmp_path / "disk"
    vrekit = shlex.join([sys.executable, "-m", "vrekit"])
    script = f"""
        mount -t tmpfs tmpfs {disk} && mount -o remount,ro {disk} || exit 99
        {vrekit} export {clip_npy} -o {disk}/out --config {good_config}
    """
    result = in_namespace(script, disk)
    assert result.returncode == 1, result.stderr
    assert result.stderr.startswith("error: cannot write ")
    assert "read-only" in result.stderr
    assert "hint: " in result.stderr
    assert "Traceback" not in result.stderr
