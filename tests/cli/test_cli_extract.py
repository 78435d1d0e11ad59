"""`vrekit extract`: files for other programs, with the values of the readers; it goes on after an interruption."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray
from PIL import Image

from tests.every_type import FRAMES, every_type
from vrekit.config.loader import parse_config
from vrekit.core.errors import CodecError
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.jobs.extract import run as module
from vrekit.jobs.extract.run import ExtractRequest, extract
from vrekit.readers import FrameDataset
from vrekit.video.selection import parse_frames

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, clip_array: NDArray[np.uint8]) -> Path:
    """Every built-in type, of two videos."""
    folder = tmp_path_factory.mktemp("extract")
    config = every_type(folder / "external", 32, 48)
    few = "representations: {rgb: {type: color/rgb}, canny: {type: edges/canny}, sobel: {type: edges/sobel}}"
    for name, start, text in (("square", 0, config), ("other", 10, few)):
        np.save(folder / f"{name}.npy", clip_array[start : start + FRAMES])
        request = ExportRequest(
            video=str(folder / f"{name}.npy"),
            dataset=folder / "out",
            representations=parse_config(text).representations,
            fps=5.0,
            threads=2,
        )
        assert not export(request).failures
    return folder / "out"


def lines_of(folder: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    assert len({line["path"] for line in lines}) == len(lines)
    return {line["path"]: line for line in lines}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def loaded(path: Path) -> Any:
    """Return what other programs read from a file."""
    match path.suffix:
        case ".npy":
            return np.load(path)
        case ".json":
            rows = json.loads(path.read_text())
            return np.array(rows["rows"] if isinstance(rows, dict) else rows, np.float64)
        case ".txt":
            return path.read_text(encoding="utf-8")
        case _:
            return np.asarray(Image.open(path))


def test_values_of_every_type_are_those_of_our_reader(dataset: Path, tmp_path: Path, run: Run) -> None:
    result = run("extract", dataset, "-o", tmp_path / "files", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    frames = FrameDataset(dataset, missing="none")
    values = {
        (sample["key"], name): sample
        for sample in frames
        for name in frames.representations
        if sample[name] is not None
    }
    count = 2 * FRAMES * len(frames.representations)
    assert (report["frames"], report["files"], report["missing"]) == (2 * FRAMES, len(values), count - len(values))
    lines = lines_of(tmp_path / "files")
    assert report["size_bytes"] == sum(line["bytes"] for line in lines.values())
    assert {Path(path).suffix for path in lines} == {".npy", ".png", ".json", ".txt"}
    for path, line in lines.items():
        key, _, rest = path.partition(".")
        name = line["representation"]
        assert rest.rpartition(".")[0] == name
        sample = values.pop((key, name))
        assert [line[field] for field in ("video_id", "frame_index", "pts_seconds", "valid")] == [
            sample[field] for field in ("video_id", "frame_index", "pts_seconds", f"{name}.valid")
        ]
        value, found = sample[name], loaded(tmp_path / "files" / path)
        if isinstance(value, str):
            assert found == value
        else:
            assert (line["dtype"], line["shape"]) == (value.numpy().dtype.name, list(value.shape))
            np.testing.assert_array_equal(found.reshape(value.shape).astype(value.numpy().dtype), value.numpy(), path)
    assert values == {}


def test_formats_and_selection(dataset: Path, tmp_path: Path, run: Run) -> None:
    chosen = ("--video", "square", "--frames", "1..5", "--every", "2", "-r", "rgb,flow")
    result = run("extract", dataset, "-o", tmp_path / "files", "--to", "jpg,npy", "--to", "png", *chosen)
    assert result.exit_code == 0, result.output
    names = [f"{frame}.{name}" for frame in (1, 3) for name in ("rgb", "flow")]
    expected = {f"square/0000000{name}.{ending}" for name in names for ending in ("jpg", "npy", "png")}
    assert set(lines_of(tmp_path / "files")) == expected
    assert set(files_of(tmp_path / "files")) == expected | {"index.jsonl", "extract.json"}
    sample = FrameDataset(dataset)["square/00000003"]
    files = tmp_path / "files" / "square"
    np.testing.assert_array_equal(loaded(files / "00000003.rgb.png"), sample["rgb"])
    np.testing.assert_array_equal(loaded(files / "00000003.flow.npy"), sample["flow"])
    assert loaded(files / "00000003.flow.png").shape == (32, 48, 3)  # the picture of it
    assert np.abs(loaded(files / "00000003.rgb.jpg").astype(int) - sample["rgb"].numpy()).mean() < 8


def test_a_predicate_and_a_subset_select_frames(dataset: Path, tmp_path: Path, run: Run) -> None:
    assert run("query", dataset, "frame_index < 3", "--save", tmp_path / "few.parquet").exit_code == 0
    options = ("--where", "frame_index > 1", "--subset", tmp_path / "few.parquet", "-r", "rgb")
    result = run("extract", dataset, "-o", tmp_path / "files", *options)
    assert result.exit_code == 0, result.output
    assert set(lines_of(tmp_path / "files")) == {"square/00000002.rgb.png", "other/00000002.rgb.png"}


def test_videos_of_pictures(dataset: Path, tmp_path: Path, run: Run) -> None:
    result = run("extract", dataset, "-o", tmp_path / "files", "--to", "mp4", "-r", "rgb,sobel", "--every", "2")
    assert result.exit_code == 0, result.output
    lines = lines_of(tmp_path / "files")
    assert set(lines) == {f"{video}/{name}.mp4" for video in ("square", "other") for name in ("rgb", "sobel")}
    line = lines["square/rgb.mp4"]
    assert (line["frames"], line["fps"], line["form"]) == ("0,2,4", 2.5, "picture")
    asked = "stream=width,height,nb_read_frames,avg_frame_rate,pix_fmt"
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", asked, "-of", "csv=p=0"]
    said = subprocess.run(
        [*command, str(tmp_path / "files/square/rgb.mp4")], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "48,32,yuv420p,5/2,3"


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    """Have the writing of files end with an error after some of them."""
    before, left = module._Writer._write_file, iter(range(count))

    def write(self: Any, *arguments: Any) -> Any:
        if next(left, None) is None:
            raise error
        return before(self, *arguments)

    monkeypatch.setattr(module._Writer, "_write_file", write)


def test_the_same_command_again_goes_on(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def request(name: str) -> ExtractRequest:
        names = ("rgb", "sobel")
        return ExtractRequest(dataset=dataset, output=tmp_path / name, representations=names, formats=("npy", "mp4"))

    monkeypatch.setattr(module, "_BATCH_FRAMES", 2)
    extract(request("whole"))
    with monkeypatch.context() as patch:
        stop_after(patch, 18, CodecError("stopped"))  # in the second video
        with pytest.raises(CodecError, match="stopped"):
            extract(request("parts"))
    with (tmp_path / "parts/index.jsonl").open("a") as file:
        file.write('{"path": "square/')  # as a killed process leaves it
    before = lines_of_whole_lines(tmp_path / "parts")
    (tmp_path / "parts" / min(before)).unlink()
    again = extract(request("parts"))
    assert (again.already, again.files) == (len(before) - 1, 2 * FRAMES * 2 + 4 - len(before) + 1)
    whole, parts = files_of(tmp_path / "whole"), files_of(tmp_path / "parts")
    assert whole.pop("index.jsonl").splitlines() != parts["index.jsonl"].splitlines()  # in another order
    assert lines_of(tmp_path / "whole") == lines_of(tmp_path / "parts")
    del parts["index.jsonl"]
    assert whole == parts
    assert extract(request("parts")).files == 0


def lines_of_whole_lines(folder: Path) -> list[str]:
    lines = (folder / "index.jsonl").read_text().splitlines()[:-1]
    return [json.loads(line)["path"] for line in lines]


def test_a_folder_with_something_else_is_refused(dataset: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    command = ("extract", dataset, "-o", folder, "-r", "canny", "--frames", "0")
    result = run(*command)
    assert result.exit_code == 2
    assert "holds something else" in result.stderr
    assert "--force" in result.stderr
    assert run(*command, "--force").exit_code == 0
    assert set(lines_of(folder)) == {"square/00000000.canny.png", "other/00000000.canny.png"}
    other = run(*command[:-1], "1")
    assert other.exit_code == 2
    assert "holds files of another extract" in other.stderr
    assert run(*command[:-1], "1", "--force").exit_code == 0
    assert set(lines_of(folder)) == {"square/00000001.canny.png", "other/00000001.canny.png"}
    assert (folder / "mine.txt").read_text() == "mine"
    for inside in (dataset, dataset / "files"):
        result = run("extract", dataset, "-o", inside, "-r", "canny", "--force")
        assert result.exit_code == 2
        assert "is a dataset, or inside of one" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "pngg"], "unknown format 'pngg' (did you mean 'png'?)"),
        (["--to", "npy", "-r", "caption"], "caption (text, str) cannot be written as npy"),
        (["--to", "json", "-r", "rgb"], "rgb (color, uint8) cannot be written as json"),
        (["--video", "squar"], "has no video 'squar' with these representations (did you mean 'square'?)"),
        (["-r", "rbg"], "has no representation 'rbg' (did you mean 'rgb'?)"),
        (["--frames", "70..80"], "frame range 70..80 holds no frame"),
        (["--where", "frame_index > 99"], "no frame is selected"),
        (["--where", "frame_idx > 99"], "frame_idx"),
    ],
)
def test_mistakes_are_named(dataset: Path, tmp_path: Path, run: Run, options: list[str], message: str) -> None:
    result = run("extract", dataset, "-o", tmp_path / "files", *options)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "hint:" in result.stderr
    assert not (tmp_path / "files").exists()


def test_links_in_the_folder_are_not_followed(dataset: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "files" / "square").symlink_to(tmp_path / "elsewhere")
    result = run("extract", dataset, "-o", tmp_path / "files", "-r", "canny", "--force")
    assert result.exit_code == 1
    assert "is a link" in result.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_ctrl_c_leaves_complete_files_and_says_how_to_go_on(dataset: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from vrekit.jobs.extract import run as module\n"
        "before = module._Writer._add_line\n"
        "def add(self, *arguments):\n"
        "    before(self, *arguments)\n"
        "    if self._report.files == 8:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "module._Writer._add_line = add\n"
        "module._BATCH_FRAMES = 1\n"
        "from vrekit.cli.app import app\n"
        "app(sys.argv[1:])\n"
    )
    command = ["extract", str(dataset), "-o", str(tmp_path / "files"), "-r", "rgb,canny", "--to", "npy,mp4"]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert "again" in done.stderr
    lines = lines_of(tmp_path / "files")
    files = files_of(tmp_path / "files")
    assert len(lines) >= 8
    assert {path: len(files[path]) for path in lines} == {path: line["bytes"] for path, line in lines.items()}
    assert not [name for name in files if name.endswith(".tmp")]


@pytest.mark.parametrize(("writer", "codec"), [("lance", "jxl"), ("webdataset", "{id: video, encode: ffv1}")])
def test_tables_and_clips_of_video(
    make_request: Callable[..., ExportRequest], tmp_path: Path, run: Run, writer: str, codec: str
) -> None:
    config = f"representations: {{rgb: {{type: color/rgb, codec: {codec}}}}}"
    request = make_request(config, writer=writer, frames=parse_frames("0..6"))
    export(request)
    result = run("extract", request.dataset, "-o", tmp_path / "files")
    assert result.exit_code == 0, result.output
    frames = FrameDataset(request.dataset)
    for sample in frames:
        np.testing.assert_array_equal(loaded(tmp_path / "files" / f"{sample['key']}.rgb.png"), sample["rgb"])
    assert len(lines_of(tmp_path / "files")) == len(frames) == 6
    shown = run("show", request.dataset, "square/5", "--json")
    assert shown.exit_code == 0, shown.output
    (rgb,) = json.loads(shown.stdout)["representations"]
    assert rgb["statistics"]["max"] == frames[5]["rgb"].max()
    assert rgb["stored"]["codec"] == ("jxl" if writer == "lance" else "video")
