"""Transcoding: the same samples with other codecs, nothing lost unasked, nothing lost unsaid."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from tests.engine.test_export import decoded, file_hashes, payloads
from tests.storages import read_samples
from tests.video.video_clips import clip
from vrekit.catalog.manifest import read_manifest
from vrekit.catalog.runs import read_runs
from vrekit.codecs.registry import codec_from_config
from vrekit.core.checksum import crc32
from vrekit.core.errors import ChecksumError, CodecError, ConflictError, LockedError, UsageError
from vrekit.core.locks import OwnedFile
from vrekit.core.reports import ProgressListener
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.merge.origin import LOCK_NAME
from vrekit.jobs.transcode.changes import HISTORY_KEY, Loss
from vrekit.jobs.transcode.run import transcode
from vrekit.jobs.validate import validate
from vrekit.readers.dataset import FrameDataset
from vrekit.video.selection import parse_frames
from vrekit.writers.webdataset.sidecars import find_sidecars, read_sidecar, sidecar_bytes

MakeRequest = Callable[..., ExportRequest]

CONFIG = """
representations:
  rgb: {type: color/rgb, codec: %s}
  hsv: {type: color/hsv, deps: [rgb], store: false}
  flow: {type: flow/dis, params: {preset: ultrafast}, codec: %s}
  canny: {type: edges/canny, codec: npy.zst}
"""
EXACT = CONFIG % ("png", "pco")
ROUNDED = CONFIG % ("png", "flow-delta")


@pytest.fixture
def source(make_request: MakeRequest) -> Path:
    """30 frames, exact."""
    return exported(make_request, EXACT)


def exported(make_request: MakeRequest, config: str, **changes: object) -> Path:
    request = make_request(config, **changes)
    export(request)
    return request.dataset


def rows_of(dataset: Path) -> dict[tuple[str, int, str, str], dict[str, Any]]:
    """Metadata rows by what identifies them, without what a new codec and a new place change."""
    changing = {"config_hash", "encode_seconds", "codec", "byte_offset", "byte_size", "checksum", "shard"}
    keys = ("video_id", "frame_index", "representation", "status")
    return {
        tuple(row[key] for key in keys): {name: value for name, value in row.items() if name not in changing}
        for row in read_samples(dataset).to_pylist()
    }


def hashes(dataset: Path) -> dict[str, str]:
    return {name: record.config_hash for name, record in read_manifest(dataset).representations.items()}


@pytest.mark.parametrize("writer", ["webdataset", "lance"])
def test_exact_to_exact_is_what_an_export_with_that_codec_gives(
    make_request: MakeRequest, tmp_path: Path, writer: str
) -> None:
    source = exported(make_request, EXACT, writer=writer)
    report = transcode(source, tmp_path / "new", codecs={"rgb": {"id": "jxl", "effort": 2}, "flow": "npy.zst"})
    config = EXACT.replace("codec: png", "codec: {id: jxl, effort: 2}").replace("codec: pco", "codec: npy.zst")
    direct = exported(make_request, config, dataset=tmp_path / "direct", writer=writer)
    assert hashes(tmp_path / "new") == hashes(direct)
    assert file_hashes(tmp_path / "new", "shards/*/*.tar") == file_hashes(direct, "shards/*/*.tar")
    assert rows_of(tmp_path / "new") == rows_of(source)
    assert not validate(tmp_path / "new").problems
    assert {name: part.change.loss for name, part in report.parts.items()} == dict.fromkeys(
        ("rgb", "flow", "canny"), Loss.NONE
    )
    assert (report.encoded, report.copied, report.rows) == (60, 30, 90)
    dataset = FrameDataset(tmp_path / "new", ["rgb", "hsv", "flow"])
    np.testing.assert_array_equal(dataset[7]["flow"].numpy(), FrameDataset(source, ["flow"])[7]["flow"].numpy())


def test_what_does_not_change_is_copied_as_bytes(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vrekit.codecs.pipeline import PipelineCodec

    used: set[str] = set()
    original = PipelineCodec.decode

    def decode(self: PipelineCodec, data: bytes, **options: Any) -> NDArray[Any]:
        used.add(self.id)
        return original(self, data, **options)

    monkeypatch.setattr(PipelineCodec, "decode", decode)
    transcode(source, tmp_path / "new", codecs={"rgb": "webp"})
    assert used == {"png", "webp"}
    before, after = payloads(source), payloads(tmp_path / "new")
    same = {name for name in before if not name.endswith(".png")}
    assert same <= set(after)
    assert all(after[name] == before[name] for name in same)
    rows = read_samples(tmp_path / "new").to_pylist()
    old = read_samples(source).to_pylist()
    assert {row["encode_seconds"] for row in rows if row["representation"] == "canny"} == {
        row["encode_seconds"] for row in old if row["representation"] == "canny"
    }
    assert {row["codec"] for row in rows if row["representation"] == "rgb"} == {"webp"}


def test_codecs_that_round_alike_hand_over_the_rounded_values(make_request: MakeRequest, tmp_path: Path) -> None:
    """flow-delta → flow-jxl: as if exported so; no value changes, and nothing is claimed to be regained."""
    source = exported(make_request, ROUNDED)
    report = transcode(source, tmp_path / "new", codecs={"flow": "flow-jxl"})
    direct = exported(make_request, CONFIG % ("png", "flow-jxl"), dataset=tmp_path / "direct")
    assert hashes(tmp_path / "new") == hashes(direct)
    assert file_hashes(tmp_path / "new", "shards/*/*.tar") == file_hashes(direct, "shards/*/*.tar")
    change = report.parts["flow"].change
    assert change.loss is Loss.EARLIER
    assert "what flow-delta had lost is not regained" in change.note
    assert HISTORY_KEY not in read_manifest(tmp_path / "new").representations["flow"].identity


def test_a_first_loss_is_stated_and_measured(source: Path, tmp_path: Path) -> None:
    report = transcode(source, tmp_path / "new", profile="training")
    rgb, flow = report.parts["rgb"], report.parts["flow"]
    assert (rgb.change.after, rgb.change.loss) == ("jpg", Loss.NEW)
    assert "unbounded" in rgb.change.note
    assert "dB PSNR" in rgb.fidelity
    assert flow.change.after == "flow-delta"
    assert "1/128 px" in flow.change.note
    assert 0 < flow.errors["max_error"] <= 1 / 128 + 1e-6
    before, after = decoded(source, "flow"), decoded(tmp_path / "new", "flow")
    largest = max(float(np.nanmax(np.abs(before[frame] - after[frame]))) for frame in range(29))  # the last is all NaN
    assert flow.errors["max_error"] == pytest.approx(largest)
    assert flow.bytes_after is not None
    assert flow.bytes_after < flow.bytes_before
    assert report.parts["canny"].fidelity == "exact"
    assert HISTORY_KEY not in read_manifest(tmp_path / "new").representations["flow"].identity


def test_lossless_keeps_exact_what_is(source: Path, tmp_path: Path) -> None:
    report = transcode(source, tmp_path / "new", profile="training", lossy=False)
    assert [part.change.after for part in report.parts.values()] == ["rgb-delta", "pco", "npy.zst"]
    assert all(part.change.loss is Loss.NONE for part in report.parts.values())
    for name in ("rgb", "flow"):
        before, after = decoded(source, name), decoded(tmp_path / "new", name)
        for frame, array in before.items():
            np.testing.assert_array_equal(after[frame], array)


def test_what_was_lost_before_stays_on_record(make_request: MakeRequest, tmp_path: Path) -> None:
    source = exported(make_request, CONFIG % ("jpg", "npy.zst"))
    first = transcode(source, tmp_path / "first", codecs={"rgb": "jxl"})
    assert first.parts["rgb"].change.loss is Loss.EARLIER
    assert "what jpg had lost is not regained" in first.parts["rgb"].change.note
    record = read_manifest(tmp_path / "first").representations["rgb"]
    assert [config["id"] for config in record.identity[HISTORY_KEY]] == ["jpg"]
    for frame, array in decoded(source, "rgb").items():
        np.testing.assert_array_equal(decoded(tmp_path / "first", "rgb")[frame], array)
    second = transcode(tmp_path / "first", tmp_path / "second", codecs={"rgb": {"id": "jpg", "quality": 50}})
    assert second.parts["rgb"].change.loss is Loss.AGAIN
    assert "on top of what jpg had lost" in second.parts["rgb"].change.note
    # the computed pixels must not be mixed with those that went through a JPEG
    with pytest.raises(ConflictError, match="transcoded_from"):
        export(make_request(CONFIG % ("jxl", "npy.zst"), dataset=tmp_path / "first"))


def test_twice_lossy_is_measured_against_what_was_stored(make_request: MakeRequest, tmp_path: Path) -> None:
    source = exported(make_request, CONFIG % ("jpg", "npy.zst"))
    report = transcode(source, tmp_path / "new", codecs={"rgb": {"id": "jpg", "quality": 40}})
    before, after = decoded(source, "rgb"), decoded(tmp_path / "new", "rgb")
    largest = max(int(np.abs(before[frame].astype(int) - after[frame]).max()) for frame in before)
    assert report.parts["rgb"].errors["max_error"] == largest
    assert report.parts["rgb"].change.loss is Loss.AGAIN


def test_failed_frames_and_marks_come_along(make_request: MakeRequest, tmp_path: Path) -> None:
    (tmp_path / "picky.py").write_text(PICKY)
    config = "representations:\n  rgb: {type: color/rgb, codec: png}\n  picky: {type: 'picky.py:Picky', codec: npy}\n"
    request = make_request(config, config_folder=tmp_path)
    assert export(request).failed_frames == 3
    report = transcode(request.dataset, tmp_path / "new", codecs={"picky": "npy.zst"})
    assert report.failed == 3
    assert rows_of(tmp_path / "new") == rows_of(request.dataset)
    failed = [row for row in read_samples(tmp_path / "new").to_pylist() if row["status"] == "failed"]
    assert {row["frame_index"] for row in failed} == {3, 13, 23}
    assert all("no threes" in row["error"] for row in failed)
    assert not validate(tmp_path / "new").problems
    # what failed can be computed in the new dataset
    (tmp_path / "picky.py").write_text(PICKY)
    reports = resume(tmp_path / "new", trust_code=True)  # no export of this account made it
    assert [one.failed_frames for one in reports] == [3]


PICKY = """
from dataclasses import dataclass
import numpy as np
from vrekit.representations.base import Kind, Output, OutputSpec, Representation

@dataclass
class Picky(Representation):
    '''Does not like some frames.'''
    def output_spec(self, height, width, dependencies):
        return OutputSpec(kind=Kind.EMBEDDING, dtype="float32", shape=(4,), axes="D")

    def compute(self, batch, dependencies):
        if any(index % 10 == 3 for index in batch.indices):
            raise ValueError("no threes")
        return Output(data=np.repeat(batch.indices[:, None], 4, 1).astype(np.float32), valid=batch.indices % 2 == 0)
"""


def test_an_unfinished_export_goes_on_in_the_result(make_request: MakeRequest, tmp_path: Path) -> None:
    whole = exported(make_request, CONFIG % ("webp", "pco"), dataset=tmp_path / "whole")
    source = exported(make_request, EXACT, frames=parse_frames("0..13"))
    transcode(source, tmp_path / "new", codecs={"rgb": "webp"})
    export(make_request(CONFIG % ("webp", "pco"), dataset=tmp_path / "new"))
    assert payloads(tmp_path / "new") == payloads(whole)
    (run, *_) = read_runs(tmp_path / "new")
    assert run.run_id == read_runs(source)[0].run_id
    assert codec_from_config(run.request["representations"][0]["codec"]).id == "webp"
    assert resume(tmp_path / "new")[0].computed_frames == 0


def test_some_representations(make_request: MakeRequest, tmp_path: Path) -> None:
    source = exported(make_request, EXACT, images="jpg")
    report = transcode(source, tmp_path / "new", profile="archive", lossy=False, names=["flow", "rgb"])
    assert list(report.parts) == ["rgb", "flow", "rgb.image", "flow.image"]
    assert report.parts["rgb.image"].change.recoder is None
    assert set(read_manifest(tmp_path / "new").representations) == {"rgb", "hsv", "flow", "rgb.image", "flow.image"}
    only_flow = transcode(source, tmp_path / "flow", codecs={"flow": "npy"}, names=["flow"])
    assert set(read_manifest(tmp_path / "flow").representations) == {"flow", "flow.image"}
    assert only_flow.rows == 60
    assert not validate(tmp_path / "flow").problems


def test_class_ids_stay_class_ids(tmp_path: Path, make_request: MakeRequest) -> None:
    (tmp_path / "scores.py").write_text(SCORES)
    config = "representations:\n  seg: {type: 'scores.py:Scores', store_as: %s, codec: npy.zst}\n"
    for form in ("indices", "top-k", "probabilities"):
        source = exported(make_request, config % form, dataset=tmp_path / form, config_folder=tmp_path)
        new = tmp_path / f"{form}-new"
        report = transcode(source, new, profile="archive", lossy=False)
        codec = {"indices": {"id": "jxl", "effort": 7}, "top-k": {"id": "jxl", "effort": 7}}.get(form, "pco")
        assert report.parts["seg"].change.loss is Loss.EARLIER
        assert report.parts["seg"].fidelity == "exact"
        before, after = decoded(source, "seg"), decoded(new, "seg")
        assert all(np.array_equal(before[frame], after[frame]) for frame in before)
        if form != "probabilities":
            text = json.dumps(codec).replace('"', "")
            direct = config.replace("npy.zst", text) % form
            again = exported(make_request, direct, dataset=tmp_path / f"{form}-direct", config_folder=tmp_path)
            assert hashes(new) == hashes(again)
            assert payloads(new) == payloads(again)


SCORES = """
from dataclasses import dataclass
import numpy as np
from vrekit.representations.base import Kind, Output, OutputSpec, Representation

@dataclass
class Scores(Representation):
    '''Three classes by brightness.'''
    def output_spec(self, height, width, dependencies):
        return OutputSpec(kind=Kind.LOGITS, dtype="float32", shape=(3, height, width), axes="CHW")

    def compute(self, batch, dependencies):
        return Output(data=np.moveaxis(batch.frames.astype(np.float32) / 9, 3, 1).copy())
"""


class Stopped(BaseException):
    """Something that nothing catches."""


@pytest.mark.parametrize("after", [1, 17, 43])
@pytest.mark.parametrize("writer", ["webdataset", "lance"])
def test_stopped_anywhere_it_goes_on(make_request: MakeRequest, tmp_path: Path, after: int, writer: str) -> None:
    source = exported(make_request, EXACT, writer=writer)
    codecs = {"rgb": "webp", "flow": "flow-jxl"}
    whole = transcode(source, tmp_path / "whole", codecs=codecs)

    class Stopping(ProgressListener):
        frames = 0

        def advanced(self, name: str, done: int, failed: int = 0, stored_bytes: int = 0) -> None:
            self.frames += 1
            if self.frames == after:
                raise Stopped

        def checking(self) -> None:
            raise Stopped

    with pytest.raises(Stopped):
        transcode(source, tmp_path / "new", codecs=codecs, threads=2, listener=Stopping())
    assert not (tmp_path / "new" / "dataset.json").exists()
    report = transcode(source, tmp_path / "new", codecs=codecs)
    assert report.encoded + report.copied < 90 or after == 1
    assert (report.rows, report.bytes_after) == (whole.rows, whole.bytes_after)
    assert rows_of(tmp_path / "new") == rows_of(tmp_path / "whole")
    assert file_hashes(tmp_path / "new", "shards/*/*.tar") == file_hashes(tmp_path / "whole", "shards/*/*.tar")
    assert not validate(tmp_path / "new").problems
    again = transcode(source, tmp_path / "new", codecs=codecs)
    assert again.was_finished
    assert (again.encoded, again.copied, again.bytes_after) == (0, 0, whole.bytes_after)


def test_another_request_does_not_go_on_with_it(source: Path, tmp_path: Path) -> None:
    transcode(source, tmp_path / "new", codecs={"rgb": "webp"})
    with pytest.raises(UsageError, match="rgb was webp, asked for jxl"):
        transcode(source, tmp_path / "new", codecs={"rgb": "jxl"})
    with pytest.raises(UsageError, match=r"canny was npy\.zst, asked for left out"):
        transcode(source, tmp_path / "new", codecs={"rgb": "webp"}, names=["rgb", "flow"])
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        transcode(source, tmp_path / "else", codecs={"rgb": "webp"})


def test_two_processes_do_not_write_at_once(source: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    lock = OwnedFile(tmp_path / "new" / LOCK_NAME, "it")
    with pytest.raises((LockedError, UsageError)):
        transcode(source, tmp_path / "new", codecs={"rgb": "webp"})
    lock.release()


def test_values_that_do_not_fit_stop_it_with_the_frame(make_request: MakeRequest, tmp_path: Path) -> None:
    (tmp_path / "far.py").write_text(FAR)
    config = "representations:\n  depth: {type: 'far.py:Far', codec: pco}\n"
    source = exported(make_request, config, config_folder=tmp_path)
    with pytest.raises(CodecError, match=r"square/00000007\.depth from pco to mm-delta") as caught:
        transcode(source, tmp_path / "new", codecs={"depth": "mm-delta"})
    assert "--codec depth=" in str(caught.value.hint)
    assert not (tmp_path / "new" / "dataset.json").exists()


FAR = """
from dataclasses import dataclass
import numpy as np
from vrekit.representations.base import Kind, Output, OutputSpec, Representation

@dataclass
class Far(Representation):
    '''One frame is far away.'''
    def output_spec(self, height, width, dependencies):
        return OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(height, width), axes="HW", unit="m")

    def compute(self, batch, dependencies):
        depth = np.ones(batch.frames.shape[:3], np.float32)
        depth[batch.indices == 7] = 1000
        return Output(data=depth)
"""


def test_a_damaged_source_stops_it(source: Path, tmp_path: Path) -> None:
    row = next(row for row in read_samples(source).to_pylist() if row["representation"] == "canny")
    with (source / row["shard"]).open("r+b") as file:
        file.seek(row["byte_offset"] + 20)
        file.write(b"\xff")
    with pytest.raises(ChecksumError, match="canny"):
        transcode(source, tmp_path / "new", codecs={"rgb": "webp"})


def test_a_dry_run_says_what_and_writes_nothing(source: Path, tmp_path: Path) -> None:
    report = transcode(source, tmp_path / "new", profile="training", dry_run=True)
    assert not (tmp_path / "new").exists()
    data = json.loads(json.dumps(report.to_json()))
    assert [(part["name"], part["before"], part["after"], part["copied"]) for part in data["representations"]] == [
        ("rgb", "png", "jpg", False),
        ("flow", "pco", "flow-delta", False),
        ("canny", "npy.zst", "npy.zst", False),
    ]
    assert data["bytes_before"] > 0
    assert data["rows"] == 90


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing says what to change"),
        ({"codecs": {"rbg": "jpg"}}, "did you mean 'rgb'"),
        ({"codecs": {"hsv": "jpg"}}, "stores no representation 'hsv'"),
        ({"profile": "trainig"}, "did you mean 'training'"),
        ({"codecs": {"rgb": "jpgg"}}, "rgb: unknown codec 'jpgg'"),
        ({"codecs": {"rgb": "auto"}}, "rgb: codec 'auto' is for exports"),
        ({"codecs": {"rgb": "video"}}, "rgb: codec .video. without `encode` copies packets"),
        ({"codecs": {"rgb": "jpg"}, "names": ["flow"]}, "'rgb' gets a codec, but is not among"),
        ({"names": ["nothing"], "profile": "archive"}, "stores no representation 'nothing'"),
    ],
)
def test_mistakes(source: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        transcode(source, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_a_codec_that_does_not_take_it(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="flow: codec stage 'jpg'"):
        transcode(source, tmp_path / "new", codecs={"flow": "jpg"})
    with pytest.raises(UsageError, match="is one of the sources"):
        transcode(source, source, codecs={"rgb": "jpg"})


def test_the_bound_on_memory_is_kept_and_changes_nothing(source: Path, tmp_path: Path) -> None:
    transcode(source, tmp_path / "a", profile="archive", memory_bytes=1, threads=3)
    transcode(source, tmp_path / "b", profile="archive", threads=1)
    assert payloads(tmp_path / "a") == payloads(tmp_path / "b")


def test_the_source_is_only_read(source: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
    transcode(source, tmp_path / "new", profile="archive")
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before
    shutil.rmtree(source)
    assert not validate(tmp_path / "new").problems


def test_every_frame_comes_back_through_the_reader(source: Path, tmp_path: Path, clip_array: NDArray[np.uint8]) -> None:
    transcode(source, tmp_path / "new", profile="balanced", lossy=False)
    dataset = FrameDataset(tmp_path / "new", ["rgb"])
    for frame, expected in enumerate(clip_array):
        np.testing.assert_array_equal(dataset[frame]["rgb"].numpy(), expected)


@pytest.mark.parametrize("writer", ["webdataset", "lance"])
def test_clips_of_video_are_copied(make_request: MakeRequest, tmp_path: Path, clip_mp4: Path, writer: str) -> None:
    config = "representations:\n  rgb: {type: color/rgb, codec: video}\n  canny: {type: edges/canny, codec: npy}\n"
    source = exported(make_request, config, video=str(clip_mp4), writer=writer)
    report = transcode(source, tmp_path / "new", profile="archive")
    assert (report.encoded, report.copied) == (40, 40)
    assert report.parts["rgb"].bytes_after == report.parts["rgb"].bytes_before
    assert rows_of(tmp_path / "new") == rows_of(source)
    assert not validate(tmp_path / "new").problems
    frames = [FrameDataset(folder, ["rgb"])[17]["rgb"].numpy() for folder in (source, tmp_path / "new")]
    np.testing.assert_array_equal(*frames)
    assert "--codec rgb=jpg" in report.parts["rgb"].change.note


@pytest.mark.parametrize("writer", ["webdataset", "lance"])
def test_clips_of_video_become_pictures_when_asked(
    make_request: MakeRequest, tmp_path: Path, clip_mp4: Path, writer: str
) -> None:
    config = "representations:\n  rgb: {type: color/rgb, codec: video}\n  hsv: {type: color/hsv, deps: [rgb]}\n"
    source = exported(make_request, config, video=str(clip_mp4), writer=writer, only=("rgb",), shard_frames=16)
    report = transcode(source, tmp_path / "new", codecs={"rgb": "png"}, memory_bytes=1 << 20)
    assert (report.encoded, report.copied, report.rows) == (40, 0, 40)
    assert (report.parts["rgb"].change.note, report.parts["rgb"].payloads) == ("exact", 40)
    stills = FrameDataset(tmp_path / "new", ["rgb"]).batch(np.arange(40))
    clips = FrameDataset(source, ["rgb"]).batch(np.arange(40))
    np.testing.assert_array_equal(stills["rgb"], clips["rgb"])
    assert stills["pts_seconds"].tolist() == clips["pts_seconds"].tolist()
    rows = read_samples(tmp_path / "new", columns=("payload_index", "codec", "run_id"))
    assert rows["payload_index"].null_count == 40
    assert set(rows["codec"].to_pylist()) == {"png"}
    assert set(rows["run_id"].to_pylist()) == set(read_samples(source, columns=("run_id",))["run_id"].to_pylist())
    assert not validate(tmp_path / "new").problems
    lossy = transcode(source, tmp_path / "lossy", codecs={"rgb": "jpg"})
    assert lossy.parts["rgb"].change.note.startswith("lossy (largest error: unbounded")
    assert 0 < lossy.parts["rgb"].errors["mean_squared_error"] < 60


def test_frames_that_failed_beside_a_clip_stay_failed(make_request: MakeRequest, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    data = clip("h264_faststart.mp4").read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    source = exported(make_request, "representations: {rgb: {type: color/rgb, codec: video}}", video=str(path))
    known = [row for row in rows_of(source).values() if row["status"] == "ok"]
    assert 10 < len(known) < len(rows_of(source))
    report = transcode(source, tmp_path / "new", codecs={"rgb": "rgb-delta"})
    assert (report.encoded, report.failed) == (len(known), len(rows_of(source)) - len(known))
    found = rows_of(tmp_path / "new")
    assert {key: (row["status"], row["error"]) for key, row in found.items()} == {
        key: (row["status"], row["error"]) for key, row in rows_of(source).items()
    }
    new, old = (FrameDataset(folder, ["rgb"]) for folder in (tmp_path / "new", source))
    np.testing.assert_array_equal(new.batch(np.arange(len(new)))["rgb"], old.batch(np.arange(len(old)))["rgb"])


def test_a_clip_that_does_not_decode_is_named(make_request: MakeRequest, tmp_path: Path, clip_mp4: Path) -> None:
    config = "representations: {rgb: {type: color/rgb, codec: video}}"
    source = exported(make_request, config, video=str(clip_mp4), shard_frames=16)
    sidecar = find_sidecars(source)[1]
    rows = read_sidecar(sidecar)
    first, offset, size = (rows[name][0].as_py() for name in ("frame_index", "byte_offset", "byte_size"))
    tar = bytearray(sidecar.with_suffix(".tar").read_bytes())
    tar[offset : offset + size] = bytes(size)
    sidecar.with_suffix(".tar").write_bytes(tar)
    checksums = pa.repeat(pa.scalar(crc32(bytes(size)), pa.uint32()), len(rows))  # so written: no checksum tells
    at = rows.column_names.index("checksum")
    sidecar.write_bytes(sidecar_bytes(rows.set_column(at, rows.schema.field(at), checksums)))
    with pytest.raises(CodecError, match=rf"/{first:08d}\.rgb: its clip does not decode: ") as caught:
        transcode(source, tmp_path / "new", codecs={"rgb": "png"})
    assert f"vrekit validate {source} --repair" in str(caught.value.hint)


@pytest.mark.parametrize("after", [1, 17, 39])
def test_clips_on_their_way_to_pictures_go_on_where_they_stopped(
    make_request: MakeRequest, tmp_path: Path, clip_mp4: Path, after: int
) -> None:
    config = "representations: {rgb: {type: color/rgb, codec: video}}"
    source = exported(make_request, config, video=str(clip_mp4), shard_frames=16)
    whole = transcode(source, tmp_path / "whole", codecs={"rgb": "png"})

    class Stopping(ProgressListener):
        frames = size = 0

        def advanced(self, name: str, done: int, failed: int = 0, stored_bytes: int = 0) -> None:
            self.frames += 1
            self.size += done
            if self.frames == after:
                raise Stopped

    with pytest.raises(Stopped):
        transcode(source, tmp_path / "new", codecs={"rgb": "png"}, listener=Stopping())
    counting = Stopping()
    counting.frames = -1000
    report = transcode(source, tmp_path / "new", codecs={"rgb": "png"}, listener=counting)
    assert report.encoded < 40 or after == 1
    assert counting.size == whole.bytes_before
    assert file_hashes(tmp_path / "new", "shards/*/*.tar") == file_hashes(tmp_path / "whole", "shards/*/*.tar")
    assert not validate(tmp_path / "new").problems
