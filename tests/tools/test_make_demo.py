import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tools.make_demo import TRUTH, DemoOptions, main, make_demo
from tools.scene import Scene
from vrekit.video.files import FileSource

SMALL = DemoOptions(seconds=0.2, fps=25, width=64, height=36, jobs=1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    assert make_demo(folder, SMALL) == folder / "flyover.mp4"
    return folder


def test_the_video_shows_the_scene(demo: Path) -> None:
    scene = Scene(seed=0, width=64, height=36)
    with FileSource(demo / "flyover.mp4") as source:
        assert (source.info.codec, source.info.fps, source.info.frame_count) == ("h264", 25, 5)
        frames = source.read(range(5)).frames
    for index, frame in enumerate(frames):
        truth = scene.render(index / 25).rgb
        assert np.abs(frame.astype(int) - truth).mean() < 12  # H.264 keeps colour at half the size


def test_the_truth_is_that_of_the_scene(demo: Path) -> None:
    scene = Scene(seed=0, width=64, height=36)
    first, second = scene.render(0.0), scene.render(1 / 25)
    flow, visible = scene.flow(first, second)
    expected: dict[str, NDArray[Any]] = {
        "depth": first.depth_meters,
        "normals": first.normals.astype(np.float16),
        "flow": flow.astype(np.float16),
        "flow_visible": visible,
        "classes": first.classes,
    }
    for name in TRUTH:
        with np.load(demo / "truth" / name / "00000000.npz") as file:
            assert file["arr_0"].dtype == expected[name].dtype
            np.testing.assert_array_equal(file["arr_0"], expected[name])
        last = 4 if name.startswith("flow") else 5
        assert [path.name for path in sorted((demo / "truth" / name).iterdir())] == [
            f"{i:08d}.npz" for i in range(last)
        ]


def test_telemetry_follows_the_flight(demo: Path) -> None:
    with (demo / "telemetry.csv").open() as file:
        rows = list(csv.DictReader(file))
    scene = Scene(seed=0, width=64, height=36)
    assert [int(row["frame"]) for row in rows] == list(range(5))
    for row in rows:
        pose = scene.pose(float(row["time_seconds"]))
        assert float(row["altitude"]) == pytest.approx(pose.z, abs=1e-3)
        assert float(row["yaw"]) == pytest.approx(pose.yaw_degrees, abs=1e-3)
    with (demo / "captions.csv").open() as file:
        captions = list(csv.DictReader(file))
    assert [row["time_seconds"] for row in captions] == [row["time_seconds"] for row in rows]
    assert "land" in captions[0]["caption"]


def test_jobs_do_not_change_the_demo(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--seconds", "0.2", "--fps", "25", "--width", "64", "--height", "36", "--jobs", "2"]
    assert main([str(tmp_path), *arguments]) == 0
    said = capsys.readouterr()
    assert "5 frames" in said.out
    assert "5/5" in said.err
    files = sorted(path.relative_to(demo) for path in demo.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    # OpenCV's float results vary in the last bit with the alignment of memory: close, not byte for byte
    for file in files:
        if file.suffix == ".npz":
            with np.load(demo / file) as one, np.load(tmp_path / file) as other:
                np.testing.assert_allclose(one["arr_0"], other["arr_0"], rtol=1e-3, atol=1e-3, err_msg=str(file))
        elif file.suffix == ".csv":
            assert (demo / file).read_bytes() == (tmp_path / file).read_bytes(), file
    with FileSource(demo / "flyover.mp4") as one, FileSource(tmp_path / "flyover.mp4") as other:
        assert np.abs(one.read(range(5)).frames.astype(int) - other.read(range(5)).frames).mean() < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--width", "63"], "width = 63, expected an even number of pixels"),
        (["--height", "0"], "height = 0, expected an even number of pixels"),
        (["--seconds", "0"], "seconds = 0.0, expected more than 0"),
        (["--fps", "-1"], "fps = -1.0, expected more than 0"),
        (["--jobs", "0"], "jobs = 0, expected more than 0"),
    ],
)
def test_bad_options_are_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "out"), *arguments])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
