"""What goes wrong while an export runs: in a type, in its weights, in the decoder, in what is asked for."""

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.engine.test_export import decoded, payloads
from tests.storages import read_samples
from vrekit.catalog.manifest import read_manifest
from vrekit.catalog.runs import read_runs
from vrekit.core.errors import ComputeError, ConfigError, ConflictError, UsageError, VideoError
from vrekit.engine.estimate import estimate
from vrekit.engine.export import export, recorded_requests, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.validate import validate
from vrekit.video.arrays import ArraySource
from vrekit.video.base import DecodedFrames
from vrekit.video.selection import parse_frames

MakeRequest = Callable[..., ExportRequest]

TYPES = """
from dataclasses import dataclass
import numpy as np
from vrekit.representations.base import Kind, LearnedRepresentation, Output, OutputSpec, Representation

SPEC = OutputSpec(kind=Kind.TABLE, dtype="float64", shape=(1,), axes="D")

class Base(Representation):
    def output_spec(self, height, width, dependencies):
        return SPEC

    def compute(self, batch, dependencies):
        return Output(data=np.zeros((len(batch), 1)))

@dataclass
class Fragile(Base):
    every: int = 2
    start: int = 0

    def compute(self, batch, dependencies):
        for index in batch.indices.tolist():
            if index >= self.start and index % self.every == 0:
                raise ValueError(f"frame {index} is bad")
        return super().compute(batch, dependencies)

class NoOutput(Base):
    def compute(self, batch, dependencies):
        return np.zeros((len(batch), 1))

class BadSpec(Base):
    def output_spec(self, height, width, dependencies):
        return dependencies["rgb"]

class NoSpec(Base):
    def output_spec(self, height, width, dependencies):
        return {"dtype": "float64"}

class NoType(Base):
    def output_spec(self, height, width, dependencies):
        return OutputSpec(kind=Kind.TABLE, dtype="flaot64", shape=(1,), axes="D")

class BadInit(Base):
    def __init__(self):
        raise RuntimeError("no licence")

class Weightless(Base, LearnedRepresentation):
    loads = 0

    def load_weights(self, device):
        type(self).loads += 1
        raise OSError(f"no weights for {device} ({self.loads})")

class FromOne(Base):
    inputs = None
    uses_frames = False
"""


@pytest.fixture
def types(tmp_path: Path) -> Path:
    (tmp_path / "types.py").write_text(TYPES)
    return tmp_path


def one(cls: str, **params: int) -> str:
    return f"representations:\n  x: {{type: 'types.py:{cls}', params: {json.dumps(params)}}}\n"


def test_the_last_error_is_known_whatever_failed_before(make_request: MakeRequest, types: Path, tmp_path: Path) -> None:
    # more failures of one representation than a run lists, before another one is hopeless
    video = tmp_path / "long.npy"
    np.save(video, np.zeros((300, 8, 8, 3), np.uint8))
    config = (
        "representations:\n"
        "  some: {type: 'types.py:Fragile'}\n"
        "  all: {type: 'types.py:Fragile', params: {every: 1, start: 250}}\n"
    )
    request = make_request(config=config, video=str(video), config_folder=types, max_failures=5, memory_bytes=1)
    with pytest.raises(ComputeError, match="all failed on 5 frames in a row; the last: ValueError: frame 254 is bad"):
        export(request)
    (run,) = read_runs(request.dataset)
    assert run.status == "failed"
    assert len(run.failures) == 100


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        ("BadSpec", "x: output_spec of types.py:BadSpec failed: KeyError: 'rgb'"),
        ("NoSpec", "x: output_spec of types.py:NoSpec failed: TypeError: it returned dict, not an OutputSpec"),
        ("NoType", "x: output_spec of types.py:NoType failed: TypeError: data type 'flaot64' not understood"),
        ("BadInit", "x: __init__ of types.py:BadInit failed: RuntimeError: no licence"),
    ],
)
def test_a_type_with_a_bug_is_a_mistake_in_the_config(
    make_request: MakeRequest, types: Path, cls: str, message: str
) -> None:
    request = make_request(config=one(cls), config_folder=types)
    with pytest.raises(ConfigError) as caught:
        export(request)
    assert caught.value.message == message
    assert "--debug" in str(caught.value.hint)
    assert not request.dataset.exists()


def test_a_compute_that_returns_something_else(make_request: MakeRequest, types: Path) -> None:
    report = export(make_request(config=one("NoOutput"), config_folder=types, max_failures=99))
    assert report.totals["x"].failed == 30
    assert report.failures[0]["error"] == "compute of x (types.py:NoOutput) returned ndarray, not an Output"


def test_missing_weights_stop_the_run_at_once(make_request: MakeRequest, types: Path) -> None:
    request = make_request(config=one("Weightless"), config_folder=types, threads=1)
    with pytest.raises(ComputeError, match=r"x \(types.py:Weightless\): no weights: OSError: no weights for cpu \(1\)"):
        export(request)
    assert read_samples(request.dataset).num_rows == 0


def test_a_crash_of_the_decoder_ends_the_run_and_keeps_what_is_done(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request(memory_bytes=1)
    read = ArraySource.read

    def crash(self: ArraySource, indices: Sequence[int] | NDArray[np.int64]) -> DecodedFrames:
        if 23 in indices:
            raise RuntimeError("the decoder crashed")
        return read(self, indices)

    threads = set(threading.enumerate())
    with monkeypatch.context() as patch:
        patch.setattr(ArraySource, "read", crash)
        with pytest.raises(RuntimeError, match="the decoder crashed"):
            export(request)
    assert set(threading.enumerate()) == threads
    (run,) = read_runs(request.dataset)
    assert (run.status, run.error) == ("failed", "RuntimeError: the decoder crashed")
    assert len(decoded(request.dataset, "rgb")) == 16
    (report,) = resume(request.dataset)
    assert report.totals["rgb"].computed < 14  # the open shard's frames were kept too
    assert report.already["rgb"] + report.totals["rgb"].computed == 30
    assert len(payloads(request.dataset)) == 90


def test_failed_frames_know_their_time(
    make_request: MakeRequest, tmp_path: Path, clip_array: NDArray[np.uint8]
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(clip_array[:6]):
        cv2.imwrite(str(folder / f"{number}.png"), frame[..., ::-1])
    (folder / "4.png").write_bytes(b"not a picture")
    for config in ("representations:\n  rgb: {type: color/rgb}\n", "representations:\n  flow: {type: flow/dis}\n"):
        request = make_request(config=config, video=str(folder), fps=10.0, dataset=tmp_path / config.split()[1][:-1])
        export(request)
        rows = read_samples(request.dataset).to_pylist()
        assert [(row["frame_index"], row["pts_seconds"]) for row in rows] == [(n, n / 10) for n in range(6)]
        assert [row["frame_index"] for row in rows if row["status"] == "failed"] == [4]


# -- virtual representations ------------------------------------------------------------------------------------


def test_a_virtual_one_without_what_it_is_computed_from(make_request: MakeRequest) -> None:
    request = make_request(only=("hsv",))
    with pytest.raises(UsageError, match=r"hsv is virtual .* computed on read from rgb, which") as caught:
        export(request)
    assert "-r rgb,hsv" in str(caught.value.hint)
    assert not (request.dataset / "dataset.json").exists()
    export(make_request(only=("rgb",)))
    assert export(request).run_id is None  # now there is what it needs, and nothing to store
    assert read_manifest(request.dataset).representations["hsv"].is_virtual


def test_a_virtual_one_cannot_look_at_pixels(make_request: MakeRequest, types: Path) -> None:
    config = """
representations:
  rgb: {type: color/rgb}
  x: {type: 'types.py:FromOne', deps: [rgb], store: false}
"""
    export(make_request(config=config, config_folder=types))
    (types / "types.py").write_text(TYPES.replace("uses_frames = False", "uses_frames = True"))
    with pytest.raises(ConfigError, match="looks at the video's pixels"):
        export(make_request(config=config, config_folder=types, dataset=types / "other"))


# -- the video --------------------------------------------------------------------------------------------------


@pytest.fixture
def two_streams(tmp_path: Path) -> Path:
    import subprocess

    path = tmp_path / "two.mkv"
    command = ["ffmpeg", "-v", "error"]
    for size in ("64x48", "96x64"):
        command += ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=10"]
    command += ["-map", "0", "-map", "1", "-frames:v", "8", "-c:v", "ffv1", str(path)]
    subprocess.run(command, check=True)
    return path


RGB = "representations:\n  rgb: {type: color/rgb, codec: png}\n"


def test_streams_of_a_file_are_never_mixed(make_request: MakeRequest, two_streams: Path) -> None:
    def request(frames: str, **changes: object) -> ExportRequest:
        return make_request(config=RGB, video=str(two_streams), frames=parse_frames(frames), **changes)

    first = export(request("0..3", stream_index=0))
    with pytest.raises(ConflictError, match="video 'two' with stream 0, asked for 1") as caught:
        export(request("0..6", stream_index=1))
    assert "--video-id" in str(caught.value.hint)
    export(request("3..6"))  # the best stream is the other one, but this dataset has the first
    assert {array.shape for array in decoded(first.dataset, "rgb").values()} == {(48, 64, 3)}
    export(request("0..3", stream_index=1, video_id="large"))
    assert read_manifest(first.dataset).videos["large"].width == 96


def test_a_clock_given_once_stays(make_request: MakeRequest) -> None:
    export(make_request(config=RGB, frames=parse_frames("0..4"), fps=10.0))
    report = export(make_request(config=RGB, frames=parse_frames("4..8")))
    assert [row["pts_seconds"] for row in read_samples(report.dataset).to_pylist()] == [n / 10 for n in range(8)]
    with pytest.raises(ConflictError, match="video 'square' with fps 10, asked for 20"):
        export(make_request(config=RGB, fps=20.0))
    export(make_request(config=RGB, video_id="slow"))
    with pytest.raises(ConflictError, match="video 'slow' with fps –, asked for 20"):
        export(make_request(config=RGB, video_id="slow", fps=20.0))


def test_a_video_that_was_moved(make_request: MakeRequest, clip_npy: Path, tmp_path: Path) -> None:
    request = make_request(config=RGB, frames=parse_frames("0..4"))
    export(request)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = clip_npy.rename(elsewhere / clip_npy.name)
    for attempt in (lambda: export(request), lambda: resume(request.dataset)):
        with pytest.raises(VideoError, match=r"square\.npy does not exist") as caught:
            attempt()
        assert "if it was moved" in str(caught.value.hint)
    export(make_request(config=RGB, video=str(moved), frames=parse_frames("0..8")))
    assert [Path(one.video) for one in recorded_requests(request.dataset)] == [moved, moved]
    assert [report.run_id for report in resume(request.dataset)] == [None, None]


def test_a_video_that_is_gone_is_not_missed_where_nothing_is_left_to_do(
    make_request: MakeRequest, clip_mp4: Path, tmp_path: Path
) -> None:
    video = tmp_path / "gone.mp4"
    video.write_bytes(clip_mp4.read_bytes())
    request = make_request(config=RGB, video=str(video))
    export(request)
    video.unlink()
    (report,) = resume(request.dataset)
    assert (report.run_id, report.already) == (None, {"rgb": 40})


def test_a_video_that_does_not_open_is_no_run(make_request: MakeRequest, clip_mp4: Path, tmp_path: Path) -> None:
    video = tmp_path / "gone.mp4"
    video.write_bytes(clip_mp4.read_bytes())
    request = make_request(config=RGB, video=str(video), frames=parse_frames("0..3"))
    export(request)
    video.unlink()
    from vrekit.catalog.runs import new_run, write_run

    later = make_request(config=RGB, video=str(video))
    write_run(request.dataset, new_run("gone", later.to_json(), {"cpu"}))  # killed before its first frame
    with pytest.raises(VideoError, match=r"gone\.mp4 does not exist"):
        resume(request.dataset)
    assert [run.status for run in read_runs(request.dataset)] == ["done", "running"]


@pytest.mark.parametrize("number", [10**8, 12345678901, 2**53 - 1])
def test_large_frame_numbers(
    make_request: MakeRequest, clip_array: NDArray[np.uint8], tmp_path: Path, number: int
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for name, frame in zip((7, number), clip_array, strict=False):
        cv2.imwrite(str(folder / f"{name}.png"), frame[..., ::-1])
    request = make_request(config=RGB, video=str(folder))
    assert export(request).totals["rgb"].computed == 2
    assert list(decoded(request.dataset, "rgb")) == [7, number]
    assert export(request).run_id is None
    assert not validate(request.dataset).problems


def test_frame_numbers_that_are_too_large(
    make_request: MakeRequest, clip_array: NDArray[np.uint8], tmp_path: Path
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for name in (7, 2**53, 2**63 - 1):
        cv2.imwrite(str(folder / f"{name}.png"), clip_array[0])
    with pytest.raises(UsageError, match=f"frame number {2**63 - 1} is too large"):
        export(make_request(config=RGB, video=str(folder)))


# -- where things lie -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_folder", [True, False])
def test_resume_from_another_folder_finds_a_type_beside_neither(
    make_request: MakeRequest, types: Path, monkeypatch: pytest.MonkeyPatch, with_folder: bool
) -> None:
    (types / "sensors.csv").write_text("frame,altitude\n" + "".join(f"{n},{n}\n" for n in range(30)))
    (types / "configs").mkdir()
    (types / "elsewhere").mkdir()
    config = one("Fragile", every=15) + (
        "  sensors: {type: external/table, params: {path: sensors.csv, frame_column: frame}}\n"
    )
    monkeypatch.chdir(types)  # the config names paths as seen from here, as upstream's and many a shell do
    request = make_request(config=config, config_folder=types / "configs" if with_folder else None)
    assert export(request).totals["x"].failed == 2
    monkeypatch.chdir(types / "elsewhere")
    (report,) = resume(request.dataset)
    assert report.totals["x"].failed == 2
    assert report.already == {"x": 28, "sensors": 30}


def test_a_dry_run_counts_failures_as_failures(make_request: MakeRequest, types: Path) -> None:
    request = make_request(config=one("Fragile", every=5), config_folder=types)
    export(request)
    (part,) = estimate(request).parts
    assert (part.frames, part.already, part.failed_before) == (0, 24, 6)


def test_pictures_of_what_failed(make_request: MakeRequest, types: Path) -> None:
    request = make_request(config=one("Fragile", every=5), config_folder=types)
    export(request)
    report = export(make_request(config=one("Fragile", every=5), config_folder=types, images="jpg"))
    assert report.already == {"x": 24, "x.image": 0}
    assert report.failed_before == {"x": 6}
    assert (report.totals["x.image"].computed, report.totals["x.image"].failed) == (24, 6)
    assert report.failures[0]["error"] == "dependency 'x' failed: ValueError: frame 0 is bad"
    assert not validate(request.dataset).problems


def test_a_dataset_that_another_process_is_just_making(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request(config=RGB)
    request.dataset.mkdir()
    (request.dataset / ".lock").touch()
    (request.dataset / ".dataset.json.123.tmp").touch()
    export(request)
    answers = [False]  # its manifest was not there at the first look, its other files are at the second
    exists = Path.exists

    def look(self: Path) -> bool:
        return answers.pop() if self.name == "dataset.json" and answers else exists(self)

    monkeypatch.setattr(Path, "exists", look)
    assert export(request).run_id is None
    assert not answers
