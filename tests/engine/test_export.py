"""Exports: what lies on disk, what a second one does, what is refused."""

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from tests.storages import open_writer, read_samples
from vrekit.catalog.cells import Cell
from vrekit.catalog.manifest import read_manifest
from vrekit.catalog.runs import read_runs
from vrekit.catalog.storage import open_storage
from vrekit.cli.app import app
from vrekit.codecs.registry import codec_from_config
from vrekit.core.errors import (
    ComputeError,
    ConfigError,
    ConflictError,
    DatasetError,
    LockedError,
    UsageError,
    VideoError,
)
from vrekit.core.reports import ProgressListener
from vrekit.engine.cell_run import CellRun
from vrekit.engine.estimate import estimate
from vrekit.engine.export import export, resume
from vrekit.engine.local_engine import LocalEngine
from vrekit.engine.request import ExportRequest
from vrekit.jobs.repair_dataset import repair_dataset
from vrekit.jobs.validate import validate
from vrekit.video.selection import parse_frames

MakeRequest = Callable[..., ExportRequest]


def payloads(dataset: Path) -> dict[str, bytes]:
    """Member name → bytes over all tars."""
    members: dict[str, bytes] = {}
    for path in sorted(dataset.glob("shards/*/*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                assert member.name not in members
                members[member.name] = file.read()
    return members


def decoded(dataset: Path, name: str) -> dict[int, NDArray[Any]]:
    """Frame index → array of one representation, through the stored codec config."""
    record = read_manifest(dataset).representations[name]
    assert record.codec is not None
    codec = codec_from_config(record.codec)
    arrays = {}
    for row in read_samples(dataset).to_pylist():
        if row["representation"] == name and row["status"] == "ok":
            with (dataset / row["shard"]).open("rb") as file:
                file.seek(row["byte_offset"])
                data = file.read(row["byte_size"])
            arrays[row["frame_index"]] = codec.decode(data, dtype=np.dtype(row["dtype"]), shape=tuple(row["shape"]))
    return arrays


def file_hashes(dataset: Path, pattern: str) -> dict[str, str]:
    return {
        path.relative_to(dataset).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(dataset.glob(pattern))
    }


def test_every_frame_of_every_stored_representation_is_there(
    make_request: MakeRequest, clip_array: NDArray[np.uint8]
) -> None:
    request = make_request()
    report = export(request)
    assert report.computed_frames == 3 * 30
    assert report.failed_frames == 0
    names = {name.split(".", 1)[1] for name in payloads(request.dataset)}
    assert names == {"rgb.png", "canny.npy.zst", "flow.npy.zst"}
    rgb = decoded(request.dataset, "rgb")
    assert sorted(rgb) == list(range(30))
    for frame, array in rgb.items():
        np.testing.assert_array_equal(array, clip_array[frame])


def test_neighbours_reach_flow_across_batches_and_shards(
    make_request: MakeRequest, clip_array: NDArray[np.uint8]
) -> None:
    request = make_request(batch_size=3, memory_bytes=1)
    export(request)
    flow = decoded(request.dataset, "flow")
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    empty: Any = None  # its stub wants an array, its code a place to write to, or None
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip_array]
    for frame in (0, 2, 7, 8, 15, 28):  # inside and at both sides of batch and shard ends
        np.testing.assert_allclose(flow[frame], dis.calc(gray[frame], gray[frame + 1], empty), atol=1e-4)
    rows = [row for row in read_samples(request.dataset).to_pylist() if row["representation"] == "flow"]
    assert [row["frame_index"] for row in rows if not row["valid"]] == [29]


def test_shards_lie_on_the_grid(make_request: MakeRequest) -> None:
    request = make_request()
    export(request)
    names = [path.stem for path in sorted(request.dataset.glob("shards/square/*.tar"))]
    assert names == [
        "all-00000000-00000007",
        "all-00000008-00000015",
        "all-00000016-00000023",
        "all-00000024-00000029",
    ]


def test_shard_size_closes_shards_inside_a_cell(make_request: MakeRequest) -> None:
    request = make_request(shard_frames=30, shard_size_bytes=60_000)
    export(request)
    tars = sorted(request.dataset.glob("shards/square/*.tar"))
    assert len(tars) > 1
    assert all(path.stat().st_size < 60_000 + 40_000 for path in tars)
    assert len(payloads(request.dataset)) == 90
    assert not validate(request.dataset).problems


def test_same_input_same_bytes(make_request: MakeRequest, tmp_path: Path) -> None:
    first, second = make_request(), make_request(dataset=tmp_path / "again", threads=1, batch_size=1)
    export(first)
    export(second)
    assert file_hashes(first.dataset, "shards/*/*.tar") == file_hashes(second.dataset, "shards/*/*.tar")


def test_a_second_export_computes_nothing(make_request: MakeRequest) -> None:
    request = make_request()
    export(request)
    before = file_hashes(request.dataset, "shards/*/*")
    again = export(request)
    assert again.run_id is None
    assert again.computed_frames == 0
    assert again.already == {"rgb": 30, "canny": 30, "flow": 30}
    assert file_hashes(request.dataset, "shards/*/*") == before
    assert len(read_runs(request.dataset)) == 1


def test_frames_can_be_chosen_and_added_to(make_request: MakeRequest) -> None:
    request = make_request()
    export(make_request(frames=parse_frames("0..20:5")))
    assert sorted(decoded(request.dataset, "canny")) == [0, 5, 10, 15]
    report = export(request)
    assert report.already == {"rgb": 4, "canny": 4, "flow": 4}
    assert report.totals["canny"].computed == 26
    assert len(payloads(request.dataset)) == 90
    assert not validate(request.dataset).problems


def test_a_representation_added_later_rewrites_nothing(make_request: MakeRequest) -> None:
    request = make_request()
    export(request)
    before = file_hashes(request.dataset, "shards/*/all-*")
    more = make_request(
        config="""
representations:
  rgb: {type: color/rgb, codec: png}
  sobel: {type: edges/sobel}
"""
    )
    report = export(more)
    assert set(report.totals) == {"sobel"}
    assert report.totals["sobel"].computed == 30
    assert file_hashes(request.dataset, "shards/*/all-*") == before
    assert {path.name.split("-")[0] for path in request.dataset.glob("shards/*/*.tar")} == {"all", "sobel"}
    assert read_manifest(request.dataset).groups == {"all": ["rgb", "canny", "flow"], "sobel": ["sobel"]}


def test_pictures_added_later_compute_only_pictures(make_request: MakeRequest) -> None:
    request = make_request()
    export(request)
    report = export(make_request(images="jpg"))
    assert set(report.totals) == {"rgb.image", "canny.image", "flow.image"}
    pictures = {name for name in payloads(request.dataset) if name.endswith(".image.jpg")}
    assert len(pictures) == 90
    assert "square/00000003.canny.image.jpg" in pictures


def test_a_second_picture_format_is_added_to_the_first(make_request: MakeRequest) -> None:
    request = make_request(images="jpg")
    export(request)
    before = file_hashes(request.dataset, "shards/*/*")
    report = export(make_request(images="png"))
    assert set(report.totals) == {"rgb.image_png", "canny.image_png", "flow.image_png"}
    assert before.items() <= file_hashes(request.dataset, "shards/*/*").items()
    assert not validate(request.dataset).problems


def test_pictures_from_the_start_lie_in_the_same_sample(make_request: MakeRequest) -> None:
    request = make_request(images="png")
    export(request)
    with tarfile.open(request.dataset / "shards/square/all-00000000-00000007.tar") as archive:
        first = [name.split(".", 1)[1] for name in archive.getnames() if name.startswith("square/00000000.")]
    assert [name.split(".")[0] for name in first[:3]] == ["rgb", "canny", "flow"]
    assert {name for name in first if ".image" in name} == {
        f"{name}.image_png.png" for name in ("rgb", "canny", "flow")
    }


def test_layout_representation_gives_each_its_own_shards(make_request: MakeRequest) -> None:
    request = make_request(layout="representation")
    export(request)
    groups = {path.name.split("-")[0] for path in request.dataset.glob("shards/*/*.tar")}
    assert groups == {"rgb", "canny", "flow"}
    assert not validate(request.dataset).problems


def test_changed_parameters_are_refused_with_what_differs(make_request: MakeRequest) -> None:
    request = make_request()
    export(request)
    before = file_hashes(request.dataset, "shards/*/*")
    changed = """
representations:
  canny: {type: edges/canny, params: {threshold1: 7}, codec: npy.zst}
"""
    with pytest.raises(ConflictError, match=r"canny\.params\.threshold1: dataset has 100.*asked for 7"):
        export(make_request(config=changed))
    assert file_hashes(request.dataset, "shards/*/*") == before


def test_another_video_under_the_same_name_is_refused(make_request: MakeRequest, tmp_path: Path) -> None:
    export(make_request())
    other = tmp_path / "elsewhere" / "square.npy"
    other.parent.mkdir()
    np.save(other, np.zeros((5, 32, 48, 3), np.uint8))
    with pytest.raises(ConflictError, match="already has another video named 'square'") as caught:
        export(make_request(video=str(other)))
    assert caught.value.hint is not None
    assert "--video-id" in caught.value.hint
    report = export(make_request(video=str(other), video_id="black"))
    assert report.totals["rgb"].computed == 5


def test_only_computes_dependencies_without_storing_them(make_request: MakeRequest) -> None:
    config = """
representations:
  rgb: {type: color/rgb}
  hsv: {type: color/hsv, deps: [rgb]}
"""
    request = make_request(config=config, only=("hsv",))
    export(request)
    assert {name.split(".")[1] for name in payloads(request.dataset)} == {"hsv"}
    with pytest.raises(UsageError, match="no representation 'hsw' \\(did you mean 'hsv'"):
        export(make_request(config=config, only=("hsw",)))


USER_TYPES = '''
from dataclasses import dataclass
import numpy as np
from vrekit.representations.base import Kind, Output, OutputSpec, Representation

def spec(height, width):
    return OutputSpec(kind=Kind.TABLE, dtype="float64", shape=(1,), axes="D", columns=("mean",))

@dataclass
class Fragile(Representation):
    """Fails on some frames."""
    bad: tuple[int, ...] = (3,)
    marker: str = ""

    def output_spec(self, height, width, dependencies):
        return spec(height, width)

    def compute(self, batch, dependencies):
        import pathlib
        healed = self.marker and pathlib.Path(self.marker).exists()
        for index in batch.indices:
            if int(index) in self.bad and not healed:
                raise ValueError(f"frame {index} is bad")
        return Output(data=batch.frames.mean((1, 2, 3))[:, None])

@dataclass
class Greedy(Representation):
    """Runs out of memory on more than two frames."""
    def output_spec(self, height, width, dependencies):
        return spec(height, width)

    def compute(self, batch, dependencies):
        if len(batch) > 2:
            raise MemoryError("too many")
        return Output(data=batch.frames.mean((1, 2, 3))[:, None])

@dataclass
class Liar(Representation):
    """Returns another shape than it promised."""
    def output_spec(self, height, width, dependencies):
        return spec(height, width)

    def compute(self, batch, dependencies):
        return Output(data=np.zeros((len(batch), 2)))
'''


@pytest.fixture
def user_types(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(USER_TYPES)
    return path


def test_one_bad_frame_spoils_only_itself(make_request: MakeRequest, user_types: Path, tmp_path: Path) -> None:
    marker = tmp_path / "healed"
    config = f"""
representations:
  rgb: {{type: color/rgb, codec: png}}
  mean: {{type: '{user_types}:Fragile', params: {{bad: [3, 17], marker: '{marker}'}}}}
"""
    request = make_request(config=config)
    report = export(request)
    assert report.totals["mean"].computed == 28
    assert report.totals["mean"].failed == 2
    assert [failure["error"] for failure in report.failures] == [
        "ValueError: frame 3 is bad",
        "ValueError: frame 17 is bad",
    ]
    again = export(request)
    assert again.run_id is None
    assert again.failed_before == {"mean": 2}
    still = resume(request.dataset)
    assert still[0].totals["mean"].failed == 2
    rows = read_samples(request.dataset).num_rows
    resume(request.dataset)
    assert read_samples(request.dataset).num_rows == rows  # failing again and again does not pile up
    marker.touch()
    (healed,) = resume(request.dataset)
    assert healed.totals["mean"].computed == 2
    assert sorted(decoded(request.dataset, "mean")) == list(range(30))
    assert not validate(request.dataset).problems


@pytest.mark.parametrize("writer", ["webdataset", "lance"])
def test_a_failure_whose_reason_is_no_valid_text(make_request: MakeRequest, tmp_path: Path, writer: str) -> None:
    reader = tmp_path / "reader.py"
    reader.write_text(
        "import numpy as np\n"
        "from vrekit.representations.base import Kind, Output, OutputSpec, Representation\n"
        "class Reader(Representation):\n"
        "    def output_spec(self, height, width, dependencies):\n"
        "        return OutputSpec(kind=Kind.TABLE, dtype='float64', shape=(1,), axes='D', columns=('mean',))\n"
        "    def compute(self, batch, dependencies):\n"
        "        if 3 in batch.indices:\n"
        "            raise ValueError('no file /data/\\udcff.npy')\n"
        "        return Output(data=np.zeros((len(batch.indices), 1)))\n"
    )
    request = make_request(config="representations: {read: {type: '" + f"{reader}:Reader" + "'}}", writer=writer)
    report = export(request)
    assert {failure["error"] for failure in report.failures} == {"ValueError: no file /data/\\udcff.npy"}


def test_dependents_of_a_failed_frame_say_so(make_request: MakeRequest, user_types: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.py"
    second.write_text(
        "from vrekit.representations.base import Output, Representation\n"
        "class Twice(Representation):\n"
        "    inputs = None\n"
        "    def output_spec(self, height, width, dependencies):\n"
        "        return next(iter(dependencies.values()))\n"
        "    def compute(self, batch, dependencies):\n"
        "        (mean,) = dependencies.values()\n"
        "        return Output(data=2 * mean.data)\n"
    )
    config = f"""
representations:
  mean: {{type: '{user_types}:Fragile'}}
  twice: {{type: '{second}:Twice', deps: [mean]}}
"""
    request = make_request(config=config)
    report = export(request)
    errors = {failure["representation"]: failure["error"] for failure in report.failures}
    assert errors["twice"] == "dependency 'mean' failed: ValueError: frame 3 is bad"
    mean, twice = decoded(request.dataset, "mean"), decoded(request.dataset, "twice")
    assert sorted(twice) == [frame for frame in range(30) if frame != 3]
    for frame, array in twice.items():
        np.testing.assert_array_equal(array, 2 * mean[frame])


def test_many_failures_in_a_row_stop_the_run_and_keep_the_rest(make_request: MakeRequest, user_types: Path) -> None:
    config = f"""
representations:
  rgb: {{type: color/rgb, codec: png}}
  mean: {{type: '{user_types}:Fragile', params: {{bad: {list(range(5, 30))}}}}}
"""
    request = make_request(config=config, max_failures=6, memory_bytes=1)
    with pytest.raises(ComputeError, match="mean failed on 6 frames in a row; the last: ValueError: frame 10 is bad"):
        export(request)
    (run,) = read_runs(request.dataset)
    assert run.status == "failed"
    assert run.totals["rgb"].computed >= 11
    with pytest.raises(ComputeError):
        resume(request.dataset)
    reports = resume(request.dataset, overrides={"max_failures": 100})
    assert sorted(decoded(request.dataset, "rgb")) == list(range(30))
    assert reports[0].totals["mean"].failed == 25


def test_out_of_memory_halves_the_batch(make_request: MakeRequest, user_types: Path) -> None:
    request = make_request(config=f"representations:\n  mean: {{type: '{user_types}:Greedy'}}\n", batch_size=16)
    report = export(request)
    assert report.totals["mean"].computed == 30
    assert report.failed_frames == 0


def test_a_wrong_shape_is_an_error_not_data(make_request: MakeRequest, user_types: Path) -> None:
    request = make_request(config=f"representations:\n  mean: {{type: '{user_types}:Liar'}}\n", max_failures=1000)
    report = export(request)
    assert report.totals["mean"].failed == 30
    assert "promises float64 (1,)" in str(report.failures[0]["error"])


def test_a_changed_file_of_the_users_own_type_is_a_changed_config(make_request: MakeRequest, user_types: Path) -> None:
    config = f"representations:\n  mean: {{type: '{user_types}:Fragile'}}\n"
    export(make_request(config=config))
    user_types.write_text(USER_TYPES.replace("is bad", "is very bad"))
    with pytest.raises(ConflictError, match="source_sha256"):
        export(make_request(config=config))


def test_mistakes_are_found_before_anything_is_written(make_request: MakeRequest) -> None:
    config = """
representations:
  rgb: {type: color/rgb}
  hsv: {type: color/hsv}
  canny: {type: edges/canny, params: {threshold3: 1}}
  other: {type: edges/cany}
"""
    with pytest.raises(ConfigError, match="edges/cany"):
        export(make_request(config=config))
    assert not (make_request().dataset / "dataset.json").exists()


def test_run_record_says_who_did_what(make_request: MakeRequest) -> None:
    request = make_request()
    report = export(request)
    (run,) = read_runs(request.dataset)
    assert run.run_id == report.run_id
    assert run.status == "done"
    assert run.request["shard_frames"] == 8
    assert {"vrekit", "python", "numpy", "torch"} <= set(run.versions)
    assert run.totals["rgb"].computed == 30
    assert (request.dataset / "runs" / f"{run.run_id}.log").read_text().count("done") == 1
    rows = read_samples(request.dataset).to_pylist()
    assert {row["run_id"] for row in rows} == {run.run_id}
    hashes = {name: one.config_hash for name, one in read_manifest(request.dataset).representations.items()}
    assert all(row["config_hash"] == hashes[row["representation"]] for row in rows)


def test_requests_survive_json(make_request: MakeRequest, tmp_path: Path) -> None:
    request = make_request(frames=parse_frames("3..20:2"), images="jpg", only=("rgb",))
    data = json.loads(json.dumps(request.to_json()))
    assert ExportRequest.from_json(data, request.dataset) == request


def test_estimate_writes_nothing_and_is_close(make_request: MakeRequest) -> None:
    request = make_request()
    one = estimate(request)
    assert not request.dataset.exists()
    assert {part.name: part.frames for part in one.parts} == {"rgb": 30, "canny": 30, "flow": 30}
    export(request)
    stored = sum(row["byte_size"] for row in read_samples(request.dataset).to_pylist())
    assert 0.7 * stored < one.estimated_bytes < 1.4 * stored
    after = estimate(request)
    assert after.estimated_bytes == 0
    assert {part.already for part in after.parts} == {30}


def test_a_real_video_keeps_its_frame_numbers_and_times(make_request: MakeRequest, clip_mp4: Path) -> None:
    request = make_request(video=str(clip_mp4), frames=parse_frames("5..25:4"))
    export(request)
    rows = [row for row in read_samples(request.dataset).to_pylist() if row["representation"] == "rgb"]
    assert [row["frame_index"] for row in rows] == [5, 9, 13, 17, 21]
    np.testing.assert_allclose([row["pts_seconds"] for row in rows], [0.5, 0.9, 1.3, 1.7, 2.1], atol=1e-3)


def test_a_damaged_video_gives_every_frame_that_decodes(
    make_request: MakeRequest, tmp_path: Path, clip_array: NDArray[np.uint8]
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(clip_array[:10]):
        cv2.imwrite(str(folder / f"{number:04d}.png"), frame[..., ::-1])
    (folder / "0004.png").write_bytes(b"not a picture")
    request = make_request(video=str(folder))
    report = export(request)
    assert sorted(decoded(request.dataset, "rgb")) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert report.totals["rgb"].failed == 1
    rows = [row for row in read_samples(request.dataset).to_pylist() if row["frame_index"] == 4]
    assert {row["status"] for row in rows} == {"failed"}
    assert len(rows) == 3


def test_missing_video(make_request: MakeRequest, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="nowhere"):
        export(make_request(video=str(tmp_path / "nowhere.mp4")))
    assert not (make_request().dataset).exists()


def test_output_folder_with_other_things_is_refused(make_request: MakeRequest) -> None:
    request = make_request()
    request.dataset.mkdir()
    (request.dataset / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="is not empty and is no vrekit dataset"):
        export(request)
    assert [path.name for path in request.dataset.iterdir()] == ["thesis.tex"]


def test_external_data_lies_beside_the_config_and_decides_the_hash(
    make_request: MakeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "sensors.csv").write_text("frame,altitude\n" + "".join(f"{n},{n / 2}\n" for n in range(30)))
    monkeypatch.chdir(tmp_path)
    config = """
representations:
  sensors: {type: external/table, params: {path: sensors.csv, frame_column: frame}, codec: npy}
"""
    request = make_request(config=config, config_folder=folder)
    export(request)
    assert {frame: array.tolist() for frame, array in decoded(request.dataset, "sensors").items()} == {
        frame: [frame / 2] for frame in range(30)
    }
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    assert export(make_request(config=config, config_folder=moved)).run_id is None
    (moved / "sensors.csv").write_text("frame,altitude\n0,1\n")
    with pytest.raises(ConflictError, match=r"sensors\.data_digest"):
        export(make_request(config=config, config_folder=moved))


def test_output_size_and_dtype_are_what_is_stored(make_request: MakeRequest) -> None:
    config = """
representations:
  rgb: {type: color/rgb, codec: png, output_size: [16, 24]}
  flow: {type: flow/dis, codec: npy, output_size: [16, 24], output_dtype: float16}
"""
    request = make_request(config=config)
    export(request)
    flow = decoded(request.dataset, "flow")[3]
    assert flow.shape == (16, 24, 2)
    assert flow.dtype == np.float16
    assert decoded(request.dataset, "rgb")[3].shape == (16, 24, 3)
    assert read_manifest(request.dataset).representations["flow"].stored.shape == (16, 24, 2)


def test_cells_another_process_writes_are_left_to_it(make_request: MakeRequest) -> None:
    request = make_request()
    export(make_request(frames=parse_frames("0..1")))
    writer = open_writer(request.dataset, read_manifest(request.dataset))
    busy = writer.open_cell(Cell("square", "all", 8, 15))
    with pytest.raises(LockedError, match="is writing square/all frames 8\\.\\.15; 1 such parts were left to it"):
        export(request)
    assert sorted(decoded(request.dataset, "rgb")) == [*range(8), *range(16, 30)]
    busy.suspend()
    (report,) = [one for one in resume(request.dataset) if one.run_id]
    assert report.totals["rgb"].computed == 8
    assert not validate(request.dataset).problems


def test_what_another_process_has_finished_meanwhile_is_done(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = make_request()
    export(make_request(frames=parse_frames("0..1")))
    busy = open_writer(request.dataset, read_manifest(request.dataset)).open_cell(Cell("square", "all", 8, 15))
    run = LocalEngine.run

    def run_until_the_other_one_is_done(self: LocalEngine, cells: CellRun) -> None:
        try:
            run(self, cells)
        finally:
            busy.suspend()
            monkeypatch.undo()
            export(request)

    monkeypatch.setattr(LocalEngine, "run", run_until_the_other_one_is_done)
    assert export(request).failed_frames == 0
    assert {run.status for run in read_runs(request.dataset)} == {"done"}
    assert sorted(decoded(request.dataset, "rgb")) == list(range(30))
    assert not validate(request.dataset).problems


def test_an_export_that_was_killed_before_its_run_was_recorded(make_request: MakeRequest) -> None:
    request = make_request()
    export(request)
    shutil.rmtree(request.dataset / "runs")
    shutil.rmtree(request.dataset / "shards")
    with pytest.raises(DatasetError, match="has no runs to resume: no export came as far as its first frame") as caught:
        resume(request.dataset)
    assert caught.value.hint == "the same `vrekit export …` command again goes on"
    assert export(request).computed_frames == 90


class _Stop(ProgressListener):
    """Ctrl-C after the first frames."""

    def advanced(self, name: str, done: int, failed: int = 0, stored_bytes: int = 0) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("writer", ["webdataset", "lance"])
def test_frames_in_an_open_shard_are_counted(make_request: MakeRequest, writer: str) -> None:
    request = make_request(shard_frames=64, batch_size=4, threads=1, writer=writer)
    for _ in range(3):  # stopped at its first frame each time
        with pytest.raises(KeyboardInterrupt):
            export(request, _Stop())
    waiting = open_storage(request.dataset).open_frames()["square"]
    assert 0 < waiting < 30
    shown = CliRunner().invoke(app, ["info", str(request.dataset)])
    assert f"square: {waiting} more frame" in shown.stdout
    (report, *_) = resume(request.dataset)
    assert report.already["rgb"] == waiting
    assert report.already["rgb"] + report.totals["rgb"].computed == 30
    assert open_storage(request.dataset).open_frames() == {}


def test_lost_run_records_are_named(make_request: MakeRequest) -> None:
    request = make_request()
    export(request)
    shutil.rmtree(request.dataset / "runs")
    with pytest.raises(
        DatasetError, match="has stored frames, but runs/ has no record of what was asked for"
    ) as caught:
        resume(request.dataset)
    assert "export again with the same config" in (caught.value.hint or "")
    assert export(request).run_id is None


def test_a_dataset_that_lost_all_that_describes_it_is_no_dead_end(make_request: MakeRequest) -> None:
    request = make_request()
    export(request)
    shutil.rmtree(request.dataset / "runs")
    for name in ("dataset.json", "dataset.json.bak"):
        (request.dataset / name).unlink()
    for call in (lambda: export(request), lambda: repair_dataset(request.dataset), lambda: resume(request.dataset)):
        with pytest.raises(
            DatasetError, match=r"dataset\.json, dataset\.json\.bak and the records in runs/ are lost"
        ) as error:
            call()
        assert "restore one of the three" in (error.value.hint or "")
        assert "move shards/ and lance/ out of this one" in (error.value.hint or "")
    for name in ("shards", "index"):
        shutil.rmtree(request.dataset / name, ignore_errors=True)
    (request.dataset / "README.md").unlink()
    assert export(request).computed_frames == 90
