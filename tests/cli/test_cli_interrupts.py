"""SIGTERM and Ctrl-C: real processes, real signals; then the same command again, to the same bytes."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.jobs.merge_datasets import file_hashes, make_dataset
from tests.jobs.test_convert_vre import write_vre
from tests.storages import read_samples
from vrekit.catalog.runs import read_runs
from vrekit.catalog.statistics import read_statistics
from vrekit.cli.app import app
from vrekit.cli.interrupts import AGAIN
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.jobs.validate import validate
from vrekit.writers.webdataset.tar_format import BLOCK

Run = Callable[..., Result]
ROOT = Path(__file__).parents[2]
SHARD_APPEND = "vrekit.writers.journal:OpenShard.append"


def interrupted(
    place: str, number: int, arguments: Sequence[str | Path], folder: Path, signals: Sequence[signal.Signals]
) -> tuple[int, str]:
    """Run a command, send it signals when it is before a call of `place`; return its exit code and stderr."""
    marker = folder / "paused"
    command = [sys.executable, "-m", "tests.cli.paused", place, str(number), str(marker), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    while not marker.exists():
        time.sleep(0.01)
        assert process.poll() is None, process.communicate()
    for one in signals:
        process.send_signal(one)
        time.sleep(0.005)
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def content(folder: Path) -> dict[str, Any]:
    """What a dataset holds: tars and manifest by their bytes, rows without what was measured or is the storage's."""
    hashes = file_hashes(folder, "shards/*/*.tar") | file_hashes(folder, "dataset.json")
    rows = read_samples(folder).drop_columns(["encode_seconds", "run_id"]).to_pylist()
    if any(folder.glob("lance")):
        rows = [{name: value for name, value in row.items() if name != "byte_offset"} for row in rows]
    rows.sort(key=lambda row: (row["video_id"], row["frame_index"], row["representation"]))
    return {"hashes": hashes, "rows": rows}


def assert_tidy(folder: Path) -> None:
    """No locks and no temporary files; shards under construction may wait for the next call."""
    left = [path for path in folder.rglob(".*") if path.name.endswith((".lock", ".tmp", ".merging"))]
    assert [path for path in left if path.name != ".lock" and path.parent.name != "lance"] == []
    assert list(folder.rglob("lance/.open/*/*.lock")) == []


def tars(folder: Path) -> list[str | Path]:
    a = make_dataset(folder / "a", {"car": range(30)}, failed=[("car", 3, "rgb")])
    return [a, make_dataset(folder / "b", {"car": range(21, 50)}, run_id="run-b")]


def merging(folder: Path) -> list[str | Path]:
    return ["merge", *tars(folder), "--shard-frames", "4", "-o"]


def to_lance(folder: Path) -> list[str | Path]:
    return ["convert", tars(folder)[0], "-o"]


def to_tars(folder: Path) -> list[str | Path]:
    a = make_dataset(folder / "a", {"car": range(30)}, failed=[("car", 3, "rgb")], writer="lance")
    return ["convert", a, "-o"]


def from_vre(folder: Path) -> list[str | Path]:
    frames = np.random.default_rng(0).random((20, 6, 8, 1), np.float32)
    return ["convert", write_vre(folder / "vre", {"depth": dict(enumerate(frames))}), "--from", "vre", "-o"]


def transcoding(folder: Path) -> list[str | Path]:
    return ["transcode", tars(folder)[0], "--codec", "rgb=npy.zst", "-o"]


def materializing(folder: Path) -> list[str | Path]:
    source = make_dataset(folder / "a", {"car": range(30)})
    saved = CliRunner().invoke(
        app, ["query", str(source), "frame_index % 2 = 1", "--save", str(folder / "odd.parquet")]
    )
    assert saved.exit_code == 0, saved.output
    return ["subset", "materialize", folder / "odd.parquet", source, "-o"]


@pytest.mark.parametrize(
    ("make", "place", "number", "signals"),
    [
        (merging, "vrekit.writers.webdataset.new_shard:_new_shard", 5, [signal.SIGTERM]),
        pytest.param(merging, "vrekit.jobs.merge.run:copy_statistics", 1, [signal.SIGINT] * 3, marks=pytest.mark.slow),
        (to_lance, SHARD_APPEND, 14, [signal.SIGTERM]),
        pytest.param(
            to_lance, "vrekit.writers.lance.table:LanceTable.sync", 4, [signal.SIGINT], marks=pytest.mark.slow
        ),
        (to_tars, SHARD_APPEND, 14, [signal.SIGINT, signal.SIGTERM]),
        (from_vre, SHARD_APPEND, 14, [signal.SIGTERM]),
        (transcoding, SHARD_APPEND, 14, [signal.SIGTERM]),
        pytest.param(
            transcoding, "vrekit.jobs.transcode.run:copy_runs", 1, [signal.SIGTERM] * 2, marks=pytest.mark.slow
        ),
        (materializing, SHARD_APPEND, 7, [signal.SIGTERM]),
    ],
)
def test_what_makes_a_dataset(
    run: Run,
    tmp_path: Path,
    make: Callable[[Path], list[str | Path]],
    place: str,
    number: int,
    signals: list[signal.Signals],
) -> None:
    command = make(tmp_path)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run(*command, whole).exit_code == 0
    code, errors = interrupted(place, number, [*command, out], tmp_path, signals)
    assert (code, errors) == (128 + signals[0], f"interrupted: {AGAIN}\n")
    assert_tidy(out)
    if make is from_vre:
        assert [record.status for record in read_runs(out) if "writer" in record.request] == ["interrupted"]
    again = run(*command, out)
    assert again.exit_code == 0, again.output
    assert content(out) == content(whole)
    assert_tidy(out)
    assert not [*out.rglob("*.partial"), *out.rglob("*.payloads"), *out.rglob("*.journal")]
    assert not validate(out).problems


def test_what_was_flushed_before_a_signal_is_not_made_again(run: Run, tmp_path: Path) -> None:
    command = to_tars(tmp_path)
    out = tmp_path / "out"
    code, _ = interrupted(SHARD_APPEND, 14, [*command, out], tmp_path, [signal.SIGTERM])
    assert code == 143
    assert len(read_samples(out)) == 2 * 8  # a whole cell
    (journal,) = out.rglob("*.journal")
    assert len(journal.read_bytes().splitlines()) == 5  # and what there is of the next one


@pytest.mark.parametrize("number", [1, 20])
def test_stats(run: Run, tmp_path: Path, make_request: Callable[..., ExportRequest], number: int) -> None:
    for name in ("whole", "out"):
        export(make_request(dataset=tmp_path / name))
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run("stats", whole).exit_code == 0
    code, errors = interrupted("vrekit.jobs.stats:motion", number, ["stats", out], tmp_path, [signal.SIGTERM])
    assert (code, errors) == (143, f"interrupted: {AGAIN}\n")
    assert read_statistics(out, "square").table.num_rows == number
    assert f"{number} were measured before" in run("stats", out).stderr
    assert file_hashes(out, "stats/**/*") == file_hashes(whole, "stats/**/*")


@pytest.mark.parametrize("place", ["rewrite_shard", "rewrite:NewShard.commit", "rewrite:fsync_folder"])
@pytest.mark.parametrize("command", ["gc", "repair"])
def test_what_changes_a_dataset(run: Run, tmp_path: Path, command: str, place: str) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    for folder in (whole, out):
        make_dataset(folder, {"car": range(30)}, ["rgb"], failed=[("car", frame, "rgb") for frame in range(1, 30, 5)])
        if command == "gc":
            make_dataset(folder, {"car": range(0, 30, 2)}, ["rgb"], run_id="run-b")
            continue
        for tar in folder.glob("shards/*/*.tar"):
            damaged = bytearray(tar.read_bytes())
            damaged[BLOCK + 100] ^= 1
            tar.write_bytes(damaged)
    arguments = ["gc"] if command == "gc" else ["validate", "--repair"]
    assert run(*arguments, whole).exit_code == 0
    module = {"gc": "garbage", "repair": "repair"}[command]
    at = f"vrekit.writers.webdataset.{place if ':' in place else f'{module}:{place}'}"
    code, errors = interrupted(at, 2, [*arguments, out], tmp_path, [signal.SIGTERM])
    assert (code, errors) == (143, f"interrupted: {AGAIN}\n")
    assert_tidy(out)
    again = run(*arguments, out)
    assert again.exit_code == 0, again.output
    assert file_hashes(out, "shards/**/*") == file_hashes(whole, "shards/**/*")
    assert not validate(out).problems


def test_a_signal_that_comes_in_a_destructor_is_not_lost(tmp_path: Path) -> None:
    script = tmp_path / "command.py"
    script.write_text(
        "import os, signal, time, typer\n"
        "from vrekit.cli.output import command\n"
        "class Dropped:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(1)\n"
        "@command\n"
        "def main():\n"
        "    Dropped()\n"
        "    time.sleep(30)\n"
        "typer.run(main)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (143, "interrupted\n")


def test_an_error_of_the_clean_up_is_told(tmp_path: Path) -> None:
    script = tmp_path / "command.py"
    script.write_text(
        "import time, typer\n"
        "from pathlib import Path\n"
        "from vrekit.cli.output import command\n"
        "from vrekit.core.errors import StorageError\n"
        "@command\n"
        "def main():\n"
        "    try:\n"
        "        Path('paused').touch()\n"
        "        time.sleep(30)\n"
        "    finally:\n"
        "        raise StorageError('no space left')\n"
        "typer.run(main)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    while not (tmp_path / "paused").exists():
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (1, "error: no space left\n")
