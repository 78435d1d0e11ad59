"""`vrekit repair` without `dataset.json` and its copy: rebuilt from the runs, and checked against what is stored."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from tests.jobs.merge_datasets import file_hashes, make_dataset
from tests.metadata_files import edited
from vrekit.catalog.manifest import COPY_NAME, MANIFEST_NAME, Manifest, read_manifest
from vrekit.catalog.runs import read_runs, run_files
from vrekit.cli.app import app
from vrekit.config.loader import parse_config
from vrekit.core.errors import DatasetError, UsageError
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.merge.run import merge
from vrekit.jobs.repair_dataset import repair_dataset
from vrekit.jobs.transcode.run import transcode
from vrekit.jobs.validate import validate
from vrekit.readers.dataset import FrameDataset
from vrekit.video.selection import parse_frames

MakeRequest = Callable[..., ExportRequest]
GOLDEN = Path(__file__).parent.parent / "golden" / "datasets"
FEW = parse_frames("0..10")
TWO = """
representations:
  sobel: {type: edges/sobel, codec: npy.zst}
  edges: {type: edges/canny, params: {aperture_size: 5}, codec: npy.zst}
"""


def lose_both(folder: Path) -> Manifest:
    """Delete the manifest and its copy."""
    before = read_manifest(folder)
    (folder / MANIFEST_NAME).unlink()
    (folder / COPY_NAME).unlink(missing_ok=True)
    return before


def check_rebuilt(folder: Path, **options: bool) -> None:
    """Lose the manifest and its copy, and check that the rebuilt ones are the same."""
    manifest = (folder / MANIFEST_NAME).read_bytes()
    before = lose_both(folder)
    done = repair_dataset(folder, **options)
    assert (done.rebuilt, done.left_out, done.repair) == (True, [], None)
    assert read_manifest(folder) == before
    assert (folder / MANIFEST_NAME).read_bytes() == (folder / COPY_NAME).read_bytes() == manifest
    assert validate(folder).problems == []


@pytest.mark.parametrize("writer", ["webdataset", "lance"])
def test_exports_are_rebuilt(
    make_request: MakeRequest, tmp_path: Path, clip_array: NDArray[np.uint8], writer: str
) -> None:
    other = tmp_path / "other.npy"
    np.save(other, clip_array[:, :24, :40])
    request = make_request(frames=FEW, writer=writer)
    export(request)
    more = parse_config(TWO).representations
    export(replace(request, representations=(*request.representations, *more)))
    export(replace(request, video=str(other), images="png", video_id="second", fps=5.0))
    folder = request.dataset
    groups = read_manifest(folder).groups
    assert groups["add1"] == ["sobel", "edges"]
    assert read_manifest(folder).representations["hsv"].is_virtual
    names = ["rgb", "hsv", "flow"]
    frames = [FrameDataset(folder, names)[number] for number in (0, 12)]
    for video in (Path(request.video), other):
        video.rename(video.with_suffix(".away"))
    check_rebuilt(folder)
    for number, frame in zip((0, 12), frames, strict=True):
        again = FrameDataset(folder, names)[number]
        assert all((again[name] == frame[name]).all() for name in names)
    for video in (Path(request.video), other):
        video.with_suffix(".away").rename(video)
    assert [report.run_id for report in resume(folder)] == [None, None, None]


@pytest.mark.parametrize("writer", ["webdataset", "lance"])
@pytest.mark.parametrize(
    "changes",
    [
        {"only": ("flow",)},
        {"only": ("rgb", "hsv"), "images": "jpg"},
        {"layout": "representation", "shard_frames": 4, "shard_size_bytes": 20_000},
        {"profile": "archive", "shard_frames": None},
    ],
    ids=["only", "only-images", "layout", "defaults"],
)
def test_options_are_kept(make_request: MakeRequest, changes: dict[str, object], writer: str) -> None:
    request = make_request(frames=FEW, writer=writer, **changes)
    export(request)
    check_rebuilt(request.dataset)


@pytest.mark.parametrize("codec", ["video", "{id: video, encode: ffv1}"])
def test_clips(clip_mp4: Path, tmp_path: Path, codec: str) -> None:
    config = f"representations: {{rgb: {{type: color/rgb, codec: {codec}}}, canny: {{type: edges/canny}}}}"
    specs = parse_config(config).representations
    export(ExportRequest(video=str(clip_mp4), dataset=tmp_path / "out", representations=specs, frames=FEW))
    check_rebuilt(tmp_path / "out")


def test_the_choice_of_auto_is_found_again(make_request: MakeRequest) -> None:
    config = """
representations:
  rgb: {type: color/rgb, codec: auto}
  flow: {type: flow/dis, codec: {id: auto, min_decode_mbps: 5}, output_size: [16, 24]}
  hsv: {type: color/hsv, deps: [rgb], store: false}
"""
    request = make_request(config=config, frames=FEW)
    export(request)
    export(replace(request, frames=parse_frames("10..12")))
    check_rebuilt(request.dataset)


@pytest.mark.parametrize("writer", ["webdataset", "lance"])
def test_the_groups_are_those_of_the_shards(make_request: MakeRequest, tmp_path: Path, writer: str) -> None:
    """A merge of two exports, each with a group `all`."""
    a = make_request(frames=FEW, only=("rgb",), dataset=tmp_path / "a", writer=writer)
    b = make_request(frames=FEW, only=("canny", "flow"), dataset=tmp_path / "b")
    export(a)
    export(b)
    merge([b.dataset, a.dataset], tmp_path / "merged")
    assert len(read_manifest(tmp_path / "merged").groups) == 2
    before = lose_both(tmp_path / "merged")
    assert repair_dataset(tmp_path / "merged").rebuilt
    assert read_manifest(tmp_path / "merged") == before
    assert validate(tmp_path / "merged").problems == []


def test_the_grid_of_an_old_merge_is_one_that_no_shard_crosses(make_request: MakeRequest, tmp_path: Path) -> None:
    images = tmp_path / "numbered"
    images.mkdir()
    for number in (5, 3000):
        cv2.imwrite(str(images / f"{number}.png"), np.full((16, 16, 3), number % 200, np.uint8))
    config = "representations: {rgb: {type: color/rgb, codec: png}}"
    request = make_request(config=config, video=str(images), shard_frames=10_000)
    export(request)
    (path,) = run_files(request.dataset)
    with edited(path) as run:
        run["request"]["shard_frames"] = None
    before = lose_both(request.dataset)
    repair_dataset(request.dataset)
    assert read_manifest(request.dataset) == replace(before, shard_frames=4096)
    assert validate(request.dataset).problems == []


@pytest.mark.parametrize("how", ["half", "empty", "other"])
def test_both_are_damaged(make_request: MakeRequest, how: str) -> None:
    request = make_request(frames=FEW)
    export(request)
    before = read_manifest(request.dataset)
    for name in (MANIFEST_NAME, COPY_NAME):
        path = request.dataset / name
        text = path.read_bytes()
        path.write_bytes({"half": text[: len(text) // 2], "empty": b"", "other": b'{"format_version": 1}'}[how])
    damaged = file_hashes(request.dataset)
    dry = repair_dataset(request.dataset, dry_run=True)
    assert (dry.rebuilt, dry.restored, dry.validation) == (True, [MANIFEST_NAME], None)
    assert file_hashes(request.dataset) == damaged
    assert repair_dataset(request.dataset).restored == [MANIFEST_NAME, COPY_NAME]
    assert read_manifest(request.dataset) == before
    moved = {path.name: path for path in request.dataset.glob("quarantine/*/*")}
    assert sorted(moved) == [MANIFEST_NAME, COPY_NAME]


def test_a_newer_manifest_is_not_replaced(make_request: MakeRequest) -> None:
    request = make_request(frames=FEW)
    export(request)
    for name in (MANIFEST_NAME, COPY_NAME):
        with edited(request.dataset / name) as manifest:
            manifest["format_version"] = 99
    before = file_hashes(request.dataset)
    with pytest.raises(DatasetError, match="has format version 99"):
        repair_dataset(request.dataset)
    (request.dataset / MANIFEST_NAME).unlink()
    with pytest.raises(DatasetError, match="has format version 99"):
        repair_dataset(request.dataset)
    assert file_hashes(request.dataset) == {name: text for name, text in before.items() if name != MANIFEST_NAME}


@pytest.mark.parametrize("name", ["v1-tar", "v1-lance"])
def test_version_1(tmp_path: Path, name: str) -> None:
    """Its runs do not describe the video: that is read again."""
    folder = Path(shutil.copytree(GOLDEN / name, tmp_path / name))
    before = lose_both(folder)
    with pytest.raises(DatasetError, match=r"says no facts about the video, and /videos/clip\.npy does not exist"):
        repair_dataset(folder, trust_code=True)
    assert not (folder / MANIFEST_NAME).exists()
    (path,) = run_files(folder)
    with edited(path) as run:
        run["request"]["video"] = str(GOLDEN / "clip.npy")
    assert repair_dataset(folder, trust_code=True).rebuilt
    videos = {"clip": replace(before.videos["clip"], uri=str(GOLDEN / "clip.npy"))}
    assert read_manifest(folder) == replace(before, format_version=2, videos=videos)
    assert len(FrameDataset(folder, ["rgb", "canny", "hsv"])) == 4
    assert validate(folder).problems == []


def test_files_that_runs_name_are_read_only_when_allowed(
    make_request: Callable[..., ExportRequest], tmp_path: Path
) -> None:
    (tmp_path / "private.csv").write_text("frame,password\n0,1\n")
    request = make_request()
    export(request)
    (run_file,) = (request.dataset / "runs").glob("*.json")
    with edited(run_file) as run:
        params = {"path": str(tmp_path / "private.csv"), "frame_column": "frame"}
        run["request"]["representations"].append({"name": "leak", "type": "external/table", "params": params})
    for name in (MANIFEST_NAME, COPY_NAME):
        (request.dataset / name).unlink()
    with pytest.raises(DatasetError, match=r"private\.csv") as caught:
        repair_dataset(request.dataset)
    assert "--trust-code" in str(caught.value.hint)
    assert not (request.dataset / MANIFEST_NAME).exists()


def test_facts_come_from_another_run_of_the_video(make_request: MakeRequest) -> None:
    request = make_request(frames=FEW)
    export(request)
    export(replace(request, frames=parse_frames("10..12")))
    with edited(run_files(request.dataset)[0]) as run:
        assert run.pop("video")["frame_count"] == 30
    Path(request.video).unlink()
    check_rebuilt(request.dataset)


def test_facts_are_checked(make_request: MakeRequest) -> None:
    request = make_request(frames=FEW)
    export(request)
    assert [run.video for run in read_runs(request.dataset)] == list(read_manifest(request.dataset).videos.values())
    (path,) = run_files(request.dataset)
    with edited(path) as run:
        run["video"]["frame_count"] = "many"
    with pytest.raises(DatasetError, match=r"video is damaged: 'frame_count' is 'many'"):
        read_runs(request.dataset, strict=True)
    lose_both(request.dataset)
    with pytest.raises(DatasetError, match=r"cannot be rebuilt from the runs:\n.*\n.*'frame_count' is 'many'"):
        repair_dataset(request.dataset)


def test_what_no_run_explains_is_not_lost(make_request: MakeRequest, tmp_path: Path) -> None:
    request = make_request(frames=FEW, only=("flow",))
    config = "representations: {flow: {type: flow/dis, params: {preset: ultrafast}, codec: flow-jxl}}"
    export(replace(request, representations=parse_config(config).representations))
    transcode(request.dataset, tmp_path / "new", codecs={"flow": "npy.zst"})
    lose_both(tmp_path / "new")
    before = file_hashes(tmp_path / "new")
    with pytest.raises(DatasetError, match="'flow' is stored with the config hash") as caught:
        repair_dataset(tmp_path / "new")
    assert caught.value.hint == "restore dataset.json or dataset.json.bak from a backup of yours"
    assert {name for name in file_hashes(tmp_path / "new") if name != ".lock"} == set(before)
    shutil.rmtree(tmp_path / "new" / "runs")
    make_dataset(tmp_path / "d", {"car": range(4)})
    lose_both(tmp_path / "d")
    shutil.copytree(request.dataset / "runs", tmp_path / "d" / "runs", dirs_exist_ok=True)
    with pytest.raises(DatasetError) as caught:
        repair_dataset(tmp_path / "d")
    for line in (
        "video 'car' has frames here, but no run says what it is",
        "representation 'depth' is stored, but no run says how it was computed",
    ):
        assert line in caught.value.message


def test_code_of_the_runs_does_not_run(
    make_request: MakeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = make_request(frames=FEW)
    export(request)
    folder = request.dataset
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'PWNED')!r}, 'w').close()\n")
    before = lose_both(folder)
    (path,) = run_files(folder)
    for kind, params in (("subprocess:Popen", {"args": ["touch", "PWNED"]}), ("evil.py:X", {}), ("evil:X", {})):
        with edited(path) as run:
            run["request"]["config_folder"] = str(folder)
            run["request"]["representations"][1] |= {"type": kind, "params": params}
        with pytest.raises(DatasetError, match="code recorded in the dataset, and it was not run") as caught:
            repair_dataset(folder)
        assert "--trust-code" in str(caught.value.hint)
        assert not (tmp_path / "PWNED").exists()
        assert not (folder / MANIFEST_NAME).exists()
    with edited(path) as run:
        run["request"]["representations"][1] |= {"type": "color/hsv", "params": {}}
    repair_dataset(folder)
    assert read_manifest(folder) == before


def test_own_code_runs_when_it_is_trusted(
    make_request: MakeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from vrekit.representations.base import Kind, Output, Representation\n"
        "class Copy(Representation):\n"
        "    inputs = ((Kind.COLOR,),)\n"
        "    uses_frames = False\n"
        "    def output_spec(self, height, width, dependencies):\n"
        "        return next(iter(dependencies.values()))\n"
        "    def compute(self, batch, dependencies):\n"
        "        return Output(data=next(iter(dependencies.values())).data)\n"
    )
    config = "representations: {rgb: {type: color/rgb, codec: png}, c: {type: 'mine.py:Copy', deps: [rgb], codec: png}}"
    request = make_request(config=config, frames=FEW, config_folder=tmp_path)
    export(request)
    check_rebuilt(request.dataset)  # this account exported it
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    lose_both(request.dataset)
    with pytest.raises(DatasetError, match="was not run"):
        repair_dataset(request.dataset)
    result = CliRunner().invoke(app, ["repair", str(request.dataset), "--trust-code"])
    assert result.exit_code == 0, result.output
    assert "rebuilt dataset.json from runs/ and the stored metadata\n" in result.stderr


def test_messages_name_repair(make_request: MakeRequest, tmp_path: Path) -> None:
    request = make_request(frames=FEW)
    export(request)
    lose_both(request.dataset)
    for read in (
        lambda: read_manifest(request.dataset),
        lambda: FrameDataset(request.dataset),
        lambda: export(request),
    ):
        with pytest.raises(DatasetError, match=r"has lost its dataset\.json") as caught:
            read()
        assert caught.value.hint == "`vrekit repair DATASET` restores it"
    runner = CliRunner()
    for command in (["info"], ["query", "true"]):
        result = runner.invoke(app, [command[0], str(request.dataset), *command[1:]])
        assert (result.exit_code, "`vrekit repair DATASET` restores it" in result.stderr) == (1, True)
    dry = runner.invoke(app, ["repair", str(request.dataset), "--dry-run"])
    assert dry.exit_code == 1
    assert "would rebuild dataset.json from runs/ and the stored metadata\n" in dry.stderr
    (tmp_path / "foreign" / "runs").mkdir(parents=True)
    (tmp_path / "foreign" / "runs" / "a.json").write_text("{}")
    with pytest.raises(UsageError, match="is no vrekit dataset"):
        export(replace(request, dataset=tmp_path / "foreign"))
    with pytest.raises(DatasetError, match="is not a dataset"):
        repair_dataset(tmp_path / "foreign")
    assert [path.name for path in (tmp_path / "foreign").rglob("*")] == ["runs", "a.json"]


def test_a_code_file_that_is_gone_is_named(make_request: MakeRequest, tmp_path: Path) -> None:
    code = tmp_path / "configs" / "mine.py"
    code.parent.mkdir()
    code.write_text(MINE)
    config = "representations:\n  mine: {type: 'mine.py:Mine'}\n"
    export(make_request(config=config, config_folder=code.parent, frames=FEW))
    lose_both(tmp_path / "out")
    code.unlink()
    with pytest.raises(
        DatasetError, match=r"cannot be rebuilt from the runs:\n  run .*: mine: no file mine\.py"
    ) as caught:
        repair_dataset(tmp_path / "out", trust_code=True)
    assert "no run's record says" not in caught.value.message


MINE = """
from vrekit.representations.base import Kind, Output, OutputSpec, Representation

class Mine(Representation):
    def output_spec(self, height, width, dependencies):
        return OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=(height, width, 3), axes="HWC", value_range=(0, 255))
    def compute(self, batch, dependencies):
        return Output(data=255 - batch.frames)
"""
