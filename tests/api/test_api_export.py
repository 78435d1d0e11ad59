"""`vrekit.export`: the options of the command as keywords."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import vrekit
from vrekit.api.export import Config, Frames
from vrekit.core.errors import ConfigError, UsageError, VideoError
from vrekit.engine.progress import Progress

EDGES = {"representations": {"rgb": {"type": "color/rgb"}, "canny": {"type": "edges/canny", "codec": "npy.zst"}}}
EDGES_YAML = "representations: {rgb: {type: color/rgb}, canny: {type: edges/canny, codec: npy.zst}}"


@pytest.mark.parametrize("form", ["dict", "text", "path", "str path"])
def test_a_config_in_any_form(form: str, tmp_path: Path, clip_npy: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(EDGES_YAML)
    forms: dict[str, Config] = {"dict": EDGES, "text": EDGES_YAML, "path": file, "str path": str(file)}
    report = vrekit.export(clip_npy, tmp_path / "out", forms[form], frames="0..3")
    assert (report.computed, report.failed, report.dataset) == (6, 0, tmp_path / "out")
    assert [one.video_id for one in report.videos] == ["square"]
    assert list(vrekit.open(tmp_path / "out").representations) == ["rgb", "canny"]


def test_a_dict_keeps_texts_and_numbers(tmp_path: Path, clip_npy: Path) -> None:
    config = {"representations": {"canny": {"type": "edges/canny", "params": {"threshold1": 1e-3, "threshold2": 12}}}}
    vrekit.export(clip_npy, tmp_path / "out", config, frames=[0])
    params = vrekit.open(tmp_path / "out").representations["canny"].spec.params
    assert {name: params[name] for name in ("threshold1", "threshold2")} == {"threshold1": 1e-3, "threshold2": 12}


@pytest.mark.parametrize("config", [{"representations": {"rgb": {"type": object()}}}, {"x": float("nan")}, 5])
def test_what_is_no_config(config: Config, tmp_path: Path, clip_npy: Path) -> None:
    with pytest.raises(ConfigError, match="config") as caught:
        vrekit.export(clip_npy, tmp_path / "out", config)
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ("2..8:3", [2, 5]),
        (range(2, 8, 3), [2, 5]),
        (range(5, 2, -1), [3, 4, 5]),
        ([7, 3], [3, 7]),
        (np.array([1, 4]), [1, 4]),
        (6, [6]),
        (None, list(range(30))),
    ],
)
def test_frames(frames: Frames | None, expected: list[int], tmp_path: Path, clip_npy: Path) -> None:
    vrekit.export(clip_npy, tmp_path / "out", EDGES, frames=frames, representations=["canny"])
    dataset = vrekit.open(tmp_path / "out")
    assert [frame.frame_index for frame in dataset] == expected
    assert list(dataset.representations) == ["canny"]


def test_several_videos_and_progress(tmp_path: Path, clip_array: NDArray[np.uint8]) -> None:
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for path in paths:
        np.save(path, clip_array[:4])
    seen: list[Progress] = []
    report = vrekit.export(paths, tmp_path / "out", EDGES, progress=seen.append, shard_size="2MB", memory=64 << 20)
    last = {(Path(one.video).stem, one.representation): one for one in seen}
    assert {key: (one.done, one.total, one.failed) for key, one in last.items()} == {
        (video, name): (4, 4, 0) for video in "ab" for name in ("rgb", "canny")
    }
    assert all(one.stored_bytes > 0 for one in last.values())
    assert repr(report) == f"ExportSummary({str(tmp_path / 'out')!r}: 8 frames; 16 results computed, 0 failed)"
    again = vrekit.export(paths, tmp_path / "out", EDGES)
    assert again.computed == 0
    assert [one.already for one in again.videos] == [{"rgb": 4, "canny": 4}] * 2


def test_a_video_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path, clip_npy: Path) -> None:
    broken, other = tmp_path / "broken.mp4", tmp_path / "other.mp4"
    broken.write_text("no video")
    other.write_text("no video")
    with pytest.raises(VideoError, match=r"broken\.mp4") as caught:
        vrekit.export([broken, clip_npy, other], tmp_path / "out", EDGES, frames=range(2))
    assert any("other.mp4" in note for note in caught.value.__notes__)
    assert len(vrekit.open(tmp_path / "out")) == 2


def test_a_dry_run_writes_nothing(tmp_path: Path, clip_npy: Path) -> None:
    report = vrekit.export(clip_npy, tmp_path / "out", EDGES, frames="0..5", dry_run=True)
    (estimate,) = report.estimates
    assert (estimate.frames, [part.name for part in estimate.parts]) == (5, ["rgb", "canny"])
    assert estimate.estimated_bytes > 0
    assert not (tmp_path / "out").exists()
    assert "dry run" in repr(report)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"writer": "lnce"}, r"writer is 'lnce' \(did you mean 'lance'\?\)"),
        ({"profile": "small"}, "profile is 'small'"),
        ({"images": "gif"}, "images is 'gif'"),
        ({"layout": "frame"}, "layout is 'frame'"),
        ({"threads": 0}, "threads is 0, expected 1 to 1024"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"shard_size": "big"}, "shard_size 'big' is not a size"),
        ({"memory": 5}, "memory '5' is too small"),
        ({"representations": "rgb"}, r"representations is the text 'rgb', expected a list"),
        ({"frames": []}, "frames names no frame"),
        ({"frames": [1.5]}, "no frame numbers"),
        ({"frames": range(3, 3)}, "3"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str, tmp_path: Path, clip_npy: Path) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        vrekit.export(clip_npy, tmp_path / "out", EDGES, **options)  # type: ignore[arg-type]  # wrong on purpose
    assert caught.value.hint or "expected" in caught.value.message
    assert not (tmp_path / "out").exists()


def test_wrong_videos(tmp_path: Path, clip_npy: Path) -> None:
    with pytest.raises(UsageError, match="no video is given"):
        vrekit.export([], tmp_path / "out", EDGES)
    with pytest.raises(UsageError, match="would both be named 'square'"):
        vrekit.export([clip_npy, tmp_path / "x" / "square.npy"], tmp_path / "out", EDGES)
    with pytest.raises(UsageError, match="several are given"):
        vrekit.export([clip_npy, tmp_path / "b.npy"], tmp_path / "out", EDGES, video_id="a")


def test_jobs_take_paths_as_text(tmp_path: Path, clip_npy: Path, clip_array: NDArray[np.uint8]) -> None:
    out, other = str(tmp_path / "out"), str(tmp_path / "b.npy")
    np.save(other, clip_array[:2])
    vrekit.export(str(clip_npy), out, EDGES, frames="0..3", video_id="a")
    vrekit.export(other, str(tmp_path / "two"), EDGES)
    assert vrekit.validate(out).problems == []
    assert vrekit.resume(out)[0].run_id is None
    vrekit.merge([out, str(tmp_path / "two")], str(tmp_path / "both"))
    vrekit.transcode(str(tmp_path / "both"), str(tmp_path / "plain"), profile="plain")
    assert vrekit.repair(str(tmp_path / "plain")).restored == []
    assert vrekit.open(str(tmp_path / "plain")).keys() == [f"a/{n:08d}" for n in range(3)] + [
        f"b/{n:08d}" for n in range(2)
    ]


def test_the_record_of_a_run_is_that_of_the_command(tmp_path: Path, clip_npy: Path) -> None:
    """`resume` and the record know nothing of who called."""
    vrekit.export(clip_npy, tmp_path / "out", EDGES, frames="0..2", every=2, threads=2)
    (run,) = vrekit.open(tmp_path / "out").runs
    request = json.loads(json.dumps(run.request, default=dict))
    assert (request["video"], request["threads"]) == (str(clip_npy), 2)
    assert request["frames"] == {"frames": "0..2", "every": 2, "fps": None}
