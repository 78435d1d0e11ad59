"""Every mistake a user can make ends in one clear message with a hint and a non-zero exit code: no traceback."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from vrekit.catalog.manifest import read_manifest
from vrekit.core.errors import DatasetError
from vrekit.jobs.validate import validate
from vrekit.readers import FrameDataset

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
        ("--memory", "1"),
        ("--memory", f"{'9' * 400}TB"),
        ("--shard-size", "1e9TB"),
        ("--shard-size", "99999999TB"),
        ("-r", "rgbb"),
        ("--fps", "2"),
        ("--stream", "1"),
    ],
)
def test_bad_options(export: Run, extra: tuple[str, str]) -> None:
    assert_one_clear_error(export(*extra), code=2)


@pytest.mark.parametrize("option", ["--shard-frames", "--batch-size", "--threads"])
def test_absurd_numbers(export: Run, option: str) -> None:
    result = export(option, "1000000000000")
    assert result.exit_code == 2
    assert "less than or equal to" in " ".join(result.stderr.split())


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


@pytest.mark.parametrize("command", ["transcode", "merge", "convert"])
def test_an_unfinished_dataset_says_what_finishes_it(
    export: Run, run: Run, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, half = tmp_path / "out", tmp_path / "half"
    assert export().exit_code == 0
    sources = [source]
    if command == "merge":
        sources.append(tmp_path / "other")
        shutil.copytree(source, sources[-1])
    options = {"transcode": ["--profile", "archive"]}.get(command, [])
    with monkeypatch.context() as patch:
        for module in ("merge", "transcode"):
            patch.setattr(f"vrekit.jobs.{module}.run.write_manifest", _interrupt)
        assert run(command, *sources, "-o", half, *options).exit_code == 130
    parts = [f"{half} is not a dataset yet: a {command} of {', '.join(map(str, sources))} into it was interrupted"]
    parts.append(f"hint: the same `vrekit {command} …` again finishes it")
    for one in (["validate"], ["info"], ["stats"], ["gc"], ["query", "true"]):
        assert_one_clear_error(run(one[0], half, *one[1:]), *parts, code=1)
    with pytest.raises(DatasetError, match=f"a {command} of .* was interrupted"):
        FrameDataset(half)
    (half / "origin.json").write_text("{")
    assert_one_clear_error(run("info", half), "is not a dataset (it has no dataset.json)", code=1)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


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


NOT_UTF8 = os.fsdecode(b"caf\xe9")  # as Latin-1 spells it
needs_byte_names = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")


@needs_byte_names
@pytest.mark.parametrize("name", [".npy", ".mp4", "/in.npy"])
def test_a_video_whose_name_is_no_text(
    run: Run, tmp_path: Path, good_config: Path, clip_npy: Path, clip_mp4: Path, name: str
) -> None:
    video, out = tmp_path / f"{NOT_UTF8}{name}", tmp_path / "out"
    video.parent.mkdir(exist_ok=True)
    shutil.copy(clip_mp4 if name.endswith("mp4") else clip_npy, video)
    options = ["--config", good_config]
    for command in (
        ["export", "-o", out],
        ["export", "-o", out, "--dry-run"],
        ["export", "-o", out, "--video-id", "a"],
    ):
        result = run(*command, *options, video)
        assert_one_clear_error(result, "path is not UTF-8 text", "rename it, or give a link to it (`ln -s`)", code=1)
        assert not out.exists()
    assert_one_clear_error(run("codecs", "bench", "--video", video, "-r", "rgb", *options), "is not UTF-8 text", code=2)
    # the others are exported, and what the hint says helps
    result = run("export", video, clip_npy, "-o", out, *options)
    assert_one_clear_error(result, "is not UTF-8 text", code=1)
    link = tmp_path / f"link{video.suffix}"
    link.symlink_to(video)
    assert run("export", link, "-o", out, *options).exit_code == 0
    assert set(read_manifest(out).videos) == {"square", "link"}
    assert not validate(out).problems


@needs_byte_names
def test_a_dataset_whose_name_is_no_text(export: Run, run: Run, tmp_path: Path, clip_npy: Path) -> None:
    out = tmp_path / NOT_UTF8
    assert_one_clear_error(run("export", clip_npy, "-o", out), f"{tmp_path}", "is not UTF-8 text", code=2)
    assert not out.exists()
    assert export().exit_code == 0
    for command in (["merge"], ["transcode", "--profile", "archive"], ["convert"], ["query", "true", "--save"]):
        result = run(command[0], tmp_path / "out", *command[1:], *(["-o"] if command[-1] != "--save" else []), out)
        assert_one_clear_error(result, "is not UTF-8 text", code=2)
        assert not out.exists()
    shutil.copytree(tmp_path / "out", out)
    for name in ("info", "validate", "resume", "stats", "items", "gc"):
        assert_one_clear_error(run(name, out), "is not UTF-8 text", code=2)
    assert_one_clear_error(run("merge", tmp_path / "out", out, "-o", tmp_path / "new"), "is not UTF-8 text", code=1)
    with pytest.raises(DatasetError, match="is not UTF-8 text"):
        FrameDataset(out)
    assert not (tmp_path / "new").exists()


@needs_byte_names
def test_a_working_folder_whose_name_is_no_text(
    export: Run, run: Run, tmp_path: Path, clip_npy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export().exit_code == 0
    (tmp_path / NOT_UTF8).mkdir()
    monkeypatch.chdir(tmp_path / NOT_UTF8)
    assert_one_clear_error(run("export", clip_npy, "-o", tmp_path / "new"), "is not UTF-8 text", code=2)
    assert not (tmp_path / "new").exists()
    shutil.copytree(tmp_path / "out", "in")
    assert_one_clear_error(run("merge", "in", "-o", tmp_path / "new"), f"{tmp_path}/", "is not UTF-8 text", code=1)
    assert not (tmp_path / "new" / "dataset.json").exists()


def test_out_of_memory(run: Run, good_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 22 TiB")

    monkeypatch.setattr("vrekit.config.loader.parse_config", no_memory)
    assert_one_clear_error(run("graph", good_config), "out of memory: Unable to allocate 22 TiB", code=1)
