"""merge, convert, validate --repair and gc: what they print, and their exit codes."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from typer.testing import Result

from tests.jobs.merge_datasets import make_dataset, member, members_of, rows_of
from vrekit.catalog.manifest import read_manifest

Run = Callable[..., Result]


def test_merge(run: Run, tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(20)})
    b = make_dataset(tmp_path / "b", {"car": range(12, 40), "copy": range(3)}, fingerprints={"copy": "else"})
    c = make_dataset(tmp_path / "c", {"copy2": range(3, 6)}, fingerprints={"copy2": "else"})
    dry = run("merge", a, b, c, "-o", tmp_path / "out", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "would copy 2 videos, 92 rows" in dry.stderr
    assert not (tmp_path / "out").exists()
    result = run("merge", a, b, c, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "copied and checked 2 videos, 92 rows" in result.stderr
    assert f"same video under another name: {c}: copy2 → copy" in result.stderr
    assert "left out: 16 rows stored twice" in result.stderr
    assert "6 shards written, 4 of them unchanged" in result.stderr
    again = run("merge", a, b, c, "-o", tmp_path / "out")
    assert "is finished already: nothing to do" in again.stderr
    assert len(members_of(tmp_path / "out")) == 92


def test_merge_options(run: Run, tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(20)}, ["rgb"])
    b = make_dataset(tmp_path / "b", {"car": range(20)}, ["depth"])
    options = [
        "--join",
        "--shard-frames",
        "64",
        "--shard-size",
        "5kB",
        "--no-sync",
        "--link",
        "--no-progress",
        "--json",
    ]
    result = run("merge", a, b, "-o", tmp_path / "out", *options)
    report = json.loads(result.stdout)
    assert (report["rows"], report["writer"], report["output"]) == (40, "webdataset", str(tmp_path / "out"))
    assert report["shards"] == len(list(tmp_path.glob("out/shards/car/*.tar"))) > 1
    assert read_manifest(tmp_path / "out").groups == {"all": ["rgb", "depth"]}
    lance = run("merge", a, b, "-o", tmp_path / "lance", "--writer", "lance")
    assert lance.exit_code == 0, lance.output
    assert rows_of(tmp_path / "lance") == rows_of(tmp_path / "out")


def test_sources_that_differ_in_the_codec_only(run: Run, tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(4)}, ["rgb"])
    b = make_dataset(tmp_path / "b", {"car": range(2, 6)}, ["rgb"], identity={"codec": {"id": "npy.zst"}})
    result = run("merge", a, b, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert f"hint: `vrekit transcode {b} --codec rgb=npy -o …` first gives it the other's codec; --on-" in result.stderr


def test_conflicts(run: Run, tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(4)}, ["rgb"])
    b = make_dataset(tmp_path / "b", {"car": range(4)}, ["rgb"], salt="other")
    result = run("merge", a, b, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "error: the sources disagree in 1 point:" in result.stderr
    assert "4 frames of 'rgb' (0, 1, 2, 3) differ" in result.stderr
    assert "hint: --on-conflict first (or last)" in result.stderr
    dry = run("merge", a, b, "-o", tmp_path / "out", "--dry-run", "--json")
    assert dry.exit_code == 1
    assert [conflict["code"] for conflict in json.loads(dry.stdout)["conflicts"]] == ["frame"]
    solved = run("merge", a, b, "-o", tmp_path / "out", "--on-conflict", "last")
    assert solved.exit_code == 0
    assert "conflict: video 'car': 4 frames" in solved.stderr
    assert members_of(tmp_path / "out") == dict(member("car", frame, "rgb", "other") for frame in range(4))


def test_convert_between_storages(run: Run, tmp_path: Path) -> None:
    a = make_dataset(tmp_path / "a", {"car": range(20)})
    assert run("convert", a, "-o", tmp_path / "lance", "--writer", "lance").exit_code == 0
    assert run("convert", tmp_path / "lance", "-o", tmp_path / "back").exit_code == 0  # the other one by default
    assert read_manifest(tmp_path / "back").writer == "webdataset"
    assert members_of(tmp_path / "back") == members_of(a)
    wrong = run("convert", a, "-o", tmp_path / "x", "--video", "clip.mp4")
    assert wrong.exit_code == 2
    assert "add --from vre" in wrong.stderr


def test_convert_from_vre(run: Run, tmp_path: Path) -> None:
    npz = tmp_path / "vre" / "dpt" / "npz"
    npz.mkdir(parents=True)
    for frame in range(4):
        np.savez(npz / f"{frame}.npz", np.full((4, 5), frame, np.float32))
    arguments = ["convert", tmp_path / "vre", "-o", tmp_path / "out", "--from", "vre", "--kind", "dpt=depth"]
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["stored"] == {"dpt": 4}
    assert read_manifest(tmp_path / "out").representations["dpt"].stored.kind == "depth"
    (npz / "7.npz").write_bytes(b"broken")
    result = run(*arguments)
    assert result.exit_code == 1
    assert "failed: frame 7 dpt: 7.npz: damaged" in result.stderr
    assert "4 were there already" in result.stderr
    info = run("info", tmp_path / "out")
    assert "failed: vre frame 7 dpt: 7.npz: damaged" in info.output
    assert run("convert", tmp_path / "vre", "-o", tmp_path / "o", "--from", "vre", "--kind", "dpt").exit_code == 2


def test_validate_and_repair(run: Run, tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(8)}, ["rgb"])
    (tar,) = folder.glob("shards/car/*.tar")
    data = bytearray(tar.read_bytes())
    data[512 + 100] ^= 1
    tar.write_bytes(data)
    assert run("validate", folder).exit_code == 1
    result = run("validate", folder, "--repair")
    assert result.exit_code == 0, result.output
    assert "taken out: car/00000000.rgb.npy" in result.stderr
    assert f"`vrekit resume {folder}` computes what is missing" in result.stderr
    clean = run("validate", folder, "--repair", "--json")
    assert json.loads(clean.stdout)["ok"]
    (tar.parent / ".all-00000016.tar.partial").write_bytes(b"")
    left = run("validate", folder, "--repair", "--json")
    assert left.exit_code == 1
    assert "unfinished" in json.loads(left.stdout)["repair"]["left"][0]


def test_validate_prints_warnings(run: Run, tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(8)}, ["rgb"])
    make_dataset(folder, {"car": range(3)}, ["depth"])
    result = run("validate", folder)
    assert result.exit_code == 0
    assert "warning: frames: dataset.json: car frame 3 depth: 5 of the video's 8 frames lack it" in result.stdout
    assert "1 warning" in result.stderr


def test_gc(run: Run, tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(8)}, ["rgb"])
    partial = folder / "shards/car/.all-00000008.tar.partial"
    partial.write_bytes(bytes(5000))
    os.utime(partial, (1, 1))
    dry = run("gc", folder, "--dry-run")
    assert ".all-00000008.tar.partial: an interrupted export that nobody resumed, 5.0 kB" in dry.stdout
    assert "would free 5.0 kB in 1 place" in dry.stderr
    assert partial.exists()
    result = run("gc", folder, "--json", "--older-than", "0.5")
    assert json.loads(result.stdout)["freed_bytes"] == 5000
    assert not partial.exists()
