"""`vrekit codecs`, `codecs bench` and `transcode`: what they print, and their exit codes."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from tests.engine.test_export import payloads
from tests.storages import read_samples
from vrekit.catalog.manifest import read_manifest
from vrekit.codecs.profiles import TABLE
from vrekit.jobs.validate import validate

Run = Callable[..., Result]

CONFIG = """
representations:
  rgb: {type: color/rgb, codec: png}
  hsv: {type: color/hsv, deps: [rgb], store: false}
  flow: {type: flow/dis, params: {preset: ultrafast}, codec: pco}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def dataset(run: Run, tmp_path: Path, clip_npy: Path, config: Path) -> Path:
    result = run("export", clip_npy, "-o", tmp_path / "out", "-c", config, "--shard-frames", 8)
    assert result.exit_code == 0, result.output
    return tmp_path / "out"


def test_the_table_of_profiles(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = run("codecs")
    assert result.exit_code == 0
    for data in TABLE:
        assert data.partition(",")[0] in result.stdout  # long ones are folded
    line = next(line for line in result.stdout.splitlines() if "integer maps" in line)
    assert "npy.zst (level: 9) *" in line
    jpg = 'jpg (quality: 90, subsampling: "420", fast_upsampling: true) *'  # as YAML wants it
    assert jpg in {row["training"]["codec"] + " *" for row in json.loads(run("codecs", "--json").stdout)}
    assert line.rstrip().endswith("exact")


def test_the_table_as_json(run: Run) -> None:
    rows = {(row["data"], row["lossy"]): row for row in json.loads(run("codecs", "--json").stdout)}
    assert {data for data, _ in rows} == set(TABLE)
    color = rows["color uint8", False]
    assert color["balanced"] == {"codec": "jxl", "default": True}
    assert color["training"] == {"codec": "rgb-delta", "default": False}
    assert color["largest_error"] == "exact"
    assert rows["color uint8", True]["largest_error"] == "unbounded; 46 dB PSNR"
    assert rows["flow", True]["largest_error"] == "1/128 px a component"
    assert rows["logits", True]["largest_error"] == "gap: 1.43% + 0.0143 nats; near ties 0.0288 nats"
    assert rows["boxes, points and tables", False]["largest_error"] == "exact"
    assert ("text", True) not in rows


def test_the_first_example_in_the_docs_runs(
    run: Run, tmp_path: Path, clip_npy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "codecs.md").read_text(encoding="utf-8")
    (tmp_path / "my.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, shape in (("depth", (32, 48)), ("scores", (5, 32, 48))):
        (tmp_path / name).mkdir()
        for frame in range(4):
            np.save(tmp_path / name / f"{frame:06d}.npy", rng.random(shape, dtype=np.float32))
    result = run("export", clip_npy, "-c", "my.yaml", "-o", "out", "--frames", "0..4")
    assert result.exit_code == 0, result.output
    records = read_manifest(tmp_path / "out").representations
    ids = {name: (record.codec or {})["id"] for name, record in records.items()}
    assert records["seg"].stored.shape == (32, 48)
    flow = ids.pop("flow")  # whatever was best for so small a picture
    assert flow in {"flow-delta", "flow-jxl", "flow-kitti", "pco", "npy.zst", "npy"}
    assert ids == {
        "rgb": "jxl",
        "hsv": "pco",
        "canny": "png",
        "depth": "mm-delta",
        "seg": "indices-npy.zst",
        "again": "channels-first+step+delta+byteplanes+npy+zstd",
    }


def test_bench_of_captions_without_a_byte(run: Run, clip_npy: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text('frame,caption\n0,""\n5,"a car"\n14,""\n', encoding="utf-8")
    config = tmp_path / "captions.yaml"
    params = "{path: captions.csv, frame_column: frame, columns: [caption]}"
    config.write_text(f"representations:\n  text: {{type: external/table, params: {params}}}\n")
    result = run("codecs", "bench", "--video", clip_npy, "-r", "text", "-c", config, "--frames", 2, "--json")
    assert result.exit_code == 0, result.output
    (text,) = json.loads(result.stdout)["results"]
    assert (text["label"], text["stored_bytes"], text["smaller_than_npz"]) == ("txt", 0, None)


def test_bench_counts_only_frames_that_did_not_fail(run: Run, clip_npy: Path, tmp_path: Path) -> None:
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth" / "000014.npy", np.ones((8, 8), np.float32))
    config = tmp_path / "depth.yaml"
    config.write_text("representations:\n  d: {type: external/files, params: {path: depth, kind: depth, unit: m}}\n")
    common = ("codecs", "bench", "--video", clip_npy, "-r", "d", "-c", config, "--frames", 3, "--rounds", 1)
    data = json.loads(run(*common, "--json").stdout)
    assert (data["frames"], data["failed_frames"]) == ([14], [0, 29])
    result = run(*common)
    assert "256 B a frame, 1 frame " in result.stdout.replace("\n", " ")
    assert "d failed on frames 0, 29, which are left out" in result.output


def test_bench(run: Run, clip_npy: Path, config: Path) -> None:
    common = ("codecs", "bench", "--video", clip_npy, "-r", "flow", "-c", config, "--frames", 3, "--rounds", 1)
    data = json.loads(run(*common, "--json").stdout)
    assert data["frames"] == [0, 14, 29]
    assert data["data"] == "flow"
    assert data["npz"]["raw_bytes"] == 3 * 32 * 48 * 2 * 4
    results = {one["label"]: one for one in data["results"]}
    assert [one["stored_bytes"] for one in data["results"]] == sorted(one["stored_bytes"] for one in data["results"])
    assert {"pco", "npy.zst", "flow-delta", "flow-jxl", "flow-jxl (effort: 7)"} <= set(results)
    assert results["pco"]["fidelity"] == "exact"
    assert 0 < results["flow-delta"]["errors"]["max_error"] <= 1 / 128 + 1e-6
    assert "balanced" in results["flow-delta"]["default_of"]
    assert results["pco"]["smaller_than_npz"] == data["npz"]["stored_bytes"] / results["pco"]["stored_bytes"]
    text = run(*common).stdout
    assert "float32 32x48x2" in text
    assert "× smaller than npz" in text


def test_bench_of_what_is_not_there(run: Run, clip_npy: Path, config: Path) -> None:
    result = run("codecs", "bench", "--video", clip_npy, "-r", "flo", "-c", config)
    assert result.exit_code == 2
    assert "did you mean 'flow'" in result.stderr
    result = run("codecs", "bench", "--video", clip_npy, "-r", "hsv", "-c", config)
    assert result.exit_code == 2
    assert "hsv is virtual" in result.stderr


def test_transcode(run: Run, dataset: Path, tmp_path: Path) -> None:
    result = run("transcode", dataset, "-o", tmp_path / "new", "--profile", "training")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "flow: pco → flow-delta is lossy (largest error: 1/128 px a component)" in result.stderr
    assert "rgb: png → jpg is lossy (largest error: unbounded)" in result.stderr
    assert "60 payloads encoded and checked, 0 copied" in result.stderr
    again = run("transcode", dataset, "-o", tmp_path / "new", "--profile", "training")
    assert again.exit_code == 0
    assert "is finished already: nothing to do" in again.stderr
    other = run("transcode", dataset, "-o", tmp_path / "new", "--profile", "archive")
    assert other.exit_code == 2
    assert "is a dataset made in another way" in other.stderr
    assert run("validate", tmp_path / "new").exit_code == 0


def test_transcode_json_and_codecs_by_name(run: Run, dataset: Path, tmp_path: Path) -> None:
    options = ("--codec", "rgb={id: jpg, quality: 60}", "--codec", "flow=lossless", "-r", "rgb,flow", "--json")
    data = json.loads(run("transcode", dataset, "-o", tmp_path / "new", *options).stdout)
    rgb, flow = data["representations"]
    assert (rgb["name"], rgb["before"], rgb["after"], rgb["loss"], rgb["copied"]) == ("rgb", "png", "jpg", "new", False)
    assert "dB PSNR" in rgb["fidelity"]
    assert (flow["after"], flow["copied"], flow["bytes_after"]) == ("pco", True, flow["bytes_before"])
    record = read_manifest(tmp_path / "new").representations["rgb"]
    assert record.codec is not None
    assert record.codec["stages"][0]["quality"] == 60


def test_transcode_lossless_and_dry_run(run: Run, dataset: Path, tmp_path: Path) -> None:
    result = run("transcode", dataset, "-o", tmp_path / "new", "--profile", "archive", "--lossless", "--dry-run")
    assert result.exit_code == 0
    assert "lossy" not in result.stderr
    assert "nothing is written" in result.stderr
    assert not (tmp_path / "new").exists()
    data = json.loads(
        run(
            "transcode", dataset, "-o", tmp_path / "new", "--profile", "archive", "--lossy", "--dry-run", "--json"
        ).stdout
    )
    assert [part["after"] for part in data["representations"]] == ["jpg", "flow-jxl"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "nothing says what to change"),
        (("--codec", "rgb"), 2, "'rgb' is not NAME=CODEC"),
        (("--codec", "rgb=[1, 2]"), 2, "neither a codec's name nor its config"),
        (("--codec", "rgb={id: jpg"), 2, "is no YAML"),
        (("--codec", "rgb={id: jpg, qualty: 3}"), 2, "did you mean 'quality'"),
        (("--codec", "flow=jpg"), 1, "flow: codec stage 'jpg' takes"),
        (("--profile", "training", "--memory", "much"), 2, "--memory 'much' is not a size"),
    ],
)
def test_transcode_mistakes(
    run: Run, dataset: Path, tmp_path: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    result = run("transcode", dataset, "-o", tmp_path / "new", *options)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "new").exists()


def _size(folder: Path, names: str) -> int:
    size = 0
    for path in folder.glob(f"shards/*/{names}"):
        with suppress(FileNotFoundError):  # a temporary file that got its name meanwhile
            size += path.stat().st_size
    return size


@pytest.mark.slow
def test_transcode_killed_three_times(tmp_path: Path, config: Path) -> None:
    video = tmp_path / "noise.npy"
    np.save(video, np.random.default_rng(1).integers(0, 255, (240, 96, 128, 3), np.uint8))
    vrekit = [sys.executable, "-m", "vrekit"]
    source, whole, broken = (str(tmp_path / name) for name in ("source", "whole", "broken"))
    export = [*vrekit, "export", str(video), "-o", source, "-c", str(config), "--shard-frames", "64"]
    subprocess.run(export, check=True, capture_output=True)
    options = ["--codec", "rgb={id: jxl, effort: 7}", "--codec", "flow=flow-delta", "--threads", "1"]
    subprocess.run([*vrekit, "transcode", source, "-o", whole, *options], check=True, capture_output=True)
    killed = 0
    for seconds in (0.7, 1.3, 0.4):
        before = _size(Path(broken), "*")
        process = subprocess.Popen(
            [*vrekit, "transcode", source, "-o", broken, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and _size(Path(broken), ".*") <= before:
            time.sleep(0.01)
        time.sleep(seconds)
        killed += process.poll() is None
        process.kill()
        process.wait()
    assert killed >= 1
    subprocess.run([*vrekit, "transcode", source, "-o", broken, *options], check=True, capture_output=True)
    assert payloads(Path(broken)) == payloads(Path(whole))
    assert read_samples(Path(broken)).num_rows == 480
    assert not validate(Path(broken)).problems
    assert not list(Path(broken).glob("shards/*/.*"))
