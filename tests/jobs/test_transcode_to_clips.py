"""Transcoding into clips of video: what an export with that codec gives, from stills and from other clips."""

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.contracts.writer_cells import WRITERS
from tests.engine.test_export import payloads
from tests.jobs.test_merge_crash import Killed, killed_at, some_slow
from tests.metadata_files import edited
from tests.storages import open_payloads, read_samples
from tests.video.video_clips import clip
from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.manifest import Manifest, read_manifest
from vrekit.catalog.subset import Subset
from vrekit.codecs.base import ClipDecoder
from vrekit.codecs.video import Video
from vrekit.core.errors import CodecError, ConflictError, MissingDependencyError, UsageError
from vrekit.core.reports import ProgressListener
from vrekit.engine.clip_checks import frames_at_once
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.materialize import materialize
from vrekit.jobs.merge.manifests import Layout
from vrekit.jobs.merge.origin import LOCK_NAME
from vrekit.jobs.merge.run import merge
from vrekit.jobs.transcode import run as transcode_run
from vrekit.jobs.transcode.changes import HISTORY_KEY, Loss
from vrekit.jobs.transcode.run import transcode
from vrekit.jobs.validate import validate
from vrekit.readers.dataset import FrameDataset
from vrekit.video.selection import parse_frames
from vrekit.writers import journal, journaled
from vrekit.writers.lance.table import LanceTable
from vrekit.writers.webdataset import writer as tars

MakeRequest = Callable[..., ExportRequest]

CONFIG = """
representations:
  rgb: {type: color/rgb, codec: CODEC}
  hsv: {type: color/hsv, deps: [rgb], store: false}
  canny: {type: edges/canny, codec: npy.zst}
"""
RGB = "representations: {rgb: {type: color/rgb, codec: CODEC}}"
H264 = {"id": "video", "encode": "h264", "gop": 4}
FFV1 = {"id": "video", "encode": "ffv1"}


def with_codec(config: str, codec: object) -> str:
    return config.replace("CODEC", codec if isinstance(codec, str) else json.dumps(codec))


def exported(make_request: MakeRequest, config: str, codec: object, **changes: object) -> Path:
    request = make_request(with_codec(config, codec), **changes)
    export(request)
    return request.dataset


def placed(folder: Path) -> dict[tuple[str, int, str], dict[str, Any]]:
    """Metadata rows but for what differs from one run to the next, and from one table to the next."""
    changing = {"run_id", "compute_seconds", "encode_seconds", "byte_offset"}
    keys = ("video_id", "frame_index", "representation")
    rows = {
        tuple(row[key] for key in keys): {name: value for name, value in row.items() if name not in changing}
        for row in read_samples(folder).to_pylist()
    }
    assert len(rows) == read_samples(folder).num_rows
    return rows


def described(manifest: Manifest) -> dict[str, object]:
    """What a dataset says of its representations but for the words in which a codec was asked for."""
    records = {name: record.to_json() for name, record in manifest.representations.items()}
    return {name: {key: value for key, value in record.items() if key != "spec"} for name, record in records.items()}


def pictures(folder: Path) -> dict[tuple[str, int], NDArray[np.uint8]]:
    dataset = FrameDataset(folder, ["rgb"])
    read = dataset.batch(np.arange(len(dataset)))
    keys = zip(read["video_id"], read["frame_index"].tolist(), strict=True)
    return {key: pixels.numpy() for key, pixels in zip(keys, read["rgb"], strict=True)}


def assert_same_pictures(folder: Path, other: Path) -> None:
    found, expected = pictures(folder), pictures(other)
    assert found.keys() == expected.keys()
    for key, pixels in expected.items():
        np.testing.assert_array_equal(found[key], pixels)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    "codec",
    [
        H264,
        FFV1,
        {"id": "video", "encode": "h264", "crf": 30, "container": "mkv"},
        {"id": "video", "encode": "hevc"},
        pytest.param({"id": "video", "encode": "av1"}, marks=pytest.mark.slow),
    ],
    ids=lambda codec: "-".join(str(value) for value in codec.values()),
)
def test_from_stills_it_is_what_an_export_gives(
    make_request: MakeRequest, clip_mp4: Path, tmp_path: Path, writer: str, codec: dict[str, Any]
) -> None:
    options = {"video": str(clip_mp4), "shard_frames": 14, "writer": writer}
    source = exported(make_request, CONFIG, {"id": "jxl", "effort": 1}, **options)
    new = tmp_path / "new"
    report = transcode(source, new, codecs={"rgb": codec})
    direct = exported(make_request, CONFIG, codec, dataset=tmp_path / "direct", **options)
    assert described(read_manifest(new)) == described(read_manifest(direct))
    assert read_manifest(new).groups == {"rgb": ["rgb"], "all": ["canny"]}
    assert placed(new) == placed(direct)
    assert payloads(new) == payloads(direct)
    assert_same_pictures(new, direct)
    assert not validate(new).problems
    assert (report.encoded, report.copied, report.rows, report.failed) == (40, 40, 80, 0)
    assert report.parts["rgb"].bytes_after == sum(map(len, clips_of(new)))
    np.testing.assert_array_equal(FrameDataset(new, ["hsv"])[9]["hsv"], FrameDataset(direct, ["hsv"])[9]["hsv"])
    # what it holds is known to later exports and to `resume`
    assert export(make_request(with_codec(CONFIG, codec), dataset=new, **options)).run_id is None
    assert [one.computed_frames for one in resume(new)] == [0]
    row = next(row for row in read_samples(new).to_pylist() if row["representation"] == "rgb")
    before = next(row for row in read_samples(source).to_pylist() if row["representation"] == "rgb")
    assert [row[name] for name in ("run_id", "compute_seconds")] == [before["run_id"], before["compute_seconds"]]


def clips_of(folder: Path) -> list[bytes]:
    """Every clip once, through the reader of payloads."""
    from vrekit.readers.index import FrameIndex

    index = FrameIndex.from_table(read_samples(folder), ["rgb"])
    read = open_payloads(folder, read_manifest(folder), index).read
    return list(dict.fromkeys(bytes(data) for data in read(np.arange(len(index)), ["rgb"])["rgb"] if data is not None))


@pytest.mark.parametrize("codec", ["png", "jpg", "rgb-delta", "npy.zst", "{id: video, encode: h264}"])
def test_without_loss_every_pixel_is_that_of_the_source(make_request: MakeRequest, tmp_path: Path, codec: str) -> None:
    source = exported(make_request, RGB, codec)
    report = transcode(source, tmp_path / "new", codecs={"rgb": FFV1}, memory_bytes=1)
    assert_same_pictures(tmp_path / "new", source)
    part = report.parts["rgb"]
    assert (part.fidelity, dict(part.errors)) == ("exact", {})
    history = read_manifest(tmp_path / "new").representations["rgb"].identity.get(HISTORY_KEY)
    if codec in ("png", "rgb-delta", "npy.zst"):
        assert (part.change.loss, part.change.note, history) == (Loss.NONE, "exact", None)
        return
    assert part.change.loss is Loss.EARLIER
    assert history == [dict(read_manifest(source).representations["rgb"].codec or {})]
    with pytest.raises(ConflictError, match=HISTORY_KEY):  # what was computed is not what went through a JPEG
        export(make_request(with_codec(RGB, FFV1), dataset=tmp_path / "new"))


@pytest.mark.parametrize("writer", WRITERS)
def test_clips_with_other_settings(make_request: MakeRequest, clip_mp4: Path, tmp_path: Path, writer: str) -> None:
    options = {"video": str(clip_mp4), "shard_frames": 14, "writer": writer}
    source = exported(make_request, RGB, "video", **options)
    report = transcode(source, tmp_path / "h264", codecs={"rgb": H264})
    direct = exported(make_request, RGB, H264, dataset=tmp_path / "direct", **options)
    assert described(read_manifest(tmp_path / "h264")) == described(read_manifest(direct))
    assert placed(tmp_path / "h264") == placed(direct)
    assert report.parts["rgb"].change.loss is Loss.NEW
    assert "encode h264, gop 4, crf 18" in report.parts["rgb"].change.note
    assert (report.encoded, report.copied) == (40, 0)

    transcode(source, tmp_path / "ffv1", codecs={"rgb": FFV1})
    assert_same_pictures(tmp_path / "ffv1", source)

    coarse = transcode(tmp_path / "h264", tmp_path / "coarse", codecs={"rgb": {**H264, "crf": 40}})
    assert coarse.parts["rgb"].change.loss is Loss.AGAIN
    identity = read_manifest(tmp_path / "coarse").representations["rgb"].identity
    assert [config["crf"] for config in identity[HISTORY_KEY]] == [18]
    assert (coarse.bytes_after, coarse.parts["rgb"].bytes_before) < (report.bytes_after, report.bytes_after + 1)
    assert not any(validate(tmp_path / name).problems for name in ("h264", "ffv1", "coarse"))


@pytest.mark.parametrize("codec", ["video", H264])
def test_the_same_settings_are_copied(
    make_request: MakeRequest, clip_mp4: Path, tmp_path: Path, codec: str | dict[str, Any]
) -> None:
    source = exported(make_request, CONFIG, codec, video=str(clip_mp4))
    report = transcode(source, tmp_path / "new", codecs={"rgb": codec, "canny": "npy"})
    assert (report.parts["rgb"].change.recoder, report.encoded, report.copied) == (None, 40, 40)
    assert clips_of(tmp_path / "new") == clips_of(source)


def test_the_loss_is_stated_and_measured_on_some_frames(
    make_request: MakeRequest, clip_mp4: Path, tmp_path: Path
) -> None:
    source = exported(make_request, RGB, "png", video=str(clip_mp4), shard_frames=64)
    told = transcode(source, tmp_path / "new", codecs={"rgb": {**H264, "crf": 30}}, dry_run=True)
    assert not (tmp_path / "new").exists()
    (part,) = json.loads(json.dumps(told.to_json()))["representations"]
    assert (part["before"], part["after"], part["copied"], part["loss"]) == ("png", "video", False, "new")
    assert part["codec"] == {"id": "video", "encode": "h264", "gop": 4, "crf": 30, "container": "mp4"}
    assert part["note"] == "lossy (largest error: unbounded; encode h264, gop 4, crf 30)"

    report = transcode(source, tmp_path / "new", codecs={"rgb": {**H264, "crf": 30}})
    before, after = pictures(source), pictures(tmp_path / "new")
    errors = {key: np.abs(before[key].astype(int) - after[key]) for key in before}
    measured = [errors["clip", frame] for frame in (0, 16, 32)]  # of 40, every 16th
    assert report.parts["rgb"].errors == {
        "max_error": max(float(error.max()) for error in measured),
        "mean_squared_error": pytest.approx(np.mean([np.mean(error**2) for error in measured])),
    }
    assert "dB PSNR" in report.parts["rgb"].fidelity


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("codec", ["png", "video"])
def test_sparse_frames_and_what_filled_the_gaps(
    make_request: MakeRequest, clip_mp4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, codec: str
) -> None:
    """Two runs in every cell; of clips, frames of two take turns: each is opened once all the same."""
    options = {"video": str(clip_mp4), "shard_frames": 14, "writer": writer}
    request = make_request(with_codec(RGB, codec), frames=parse_frames("2..40:3"), **options)
    export(request)
    transcode(request.dataset, tmp_path / "sparse", codecs={"rgb": FFV1})
    assert_same_pictures(tmp_path / "sparse", request.dataset)
    assert sorted(frame for _, frame in pictures(tmp_path / "sparse")) == list(range(2, 40, 3))

    export(dataclasses.replace(request, frames=parse_frames(None)))
    opened: list[int] = []
    open_decoder = Video.open_decoder

    def counted(self: Video, data: bytes) -> ClipDecoder:
        opened.append(len(data))
        return open_decoder(self, data)

    monkeypatch.setattr(Video, "open_decoder", counted)
    report = transcode(request.dataset, tmp_path / "full", codecs={"rgb": FFV1})
    monkeypatch.undo()
    old = {
        (row["frame_index"] // 14, row["shard"], row["checksum"]) for row in read_samples(request.dataset).to_pylist()
    }
    assert len(opened) == 3 + len(old) * (codec == "video")
    assert report.encoded == 40
    assert_same_pictures(tmp_path / "full", request.dataset)
    assert not validate(tmp_path / "full").problems
    rows = read_samples(tmp_path / "full").to_pylist()
    assert [row["payload_index"] for row in sorted(rows, key=lambda row: row["frame_index"])] == [
        *range(14),
        *range(14),
        *range(12),
    ]
    runs = {row["frame_index"]: row["run_id"] for row in read_samples(request.dataset).to_pylist()}
    assert {row["frame_index"]: row["run_id"] for row in rows} == runs
    assert len(set(runs.values())) == 2


@pytest.mark.parametrize("writer", WRITERS)
def test_several_videos_of_other_sizes_and_clocks(
    make_request: MakeRequest, clip_mp4: Path, tmp_path: Path, writer: str
) -> None:
    videos = [str(clip_mp4), str(clip("vfr.mp4")), str(make_request().video)]
    for codec, name in (("png", "out"), (H264, "direct")):
        for video in videos:
            options = {"video": video, "shard_frames": 25, "writer": writer}
            exported(make_request, RGB, codec, dataset=tmp_path / name, **options)
    transcode(tmp_path / "out", tmp_path / "new", codecs={"rgb": H264})
    assert placed(tmp_path / "new") == placed(tmp_path / "direct")
    assert len({key[0] for key in placed(tmp_path / "new")}) == 3
    assert_same_pictures(tmp_path / "new", tmp_path / "direct")
    assert not validate(tmp_path / "new").problems


PICKY = """
from dataclasses import dataclass
import numpy as np
from vrekit.representations.base import Kind, Output, OutputSpec, Representation

@dataclass
class Picky(Representation):
    '''Does not like some frames.'''
    def output_spec(self, height, width, dependencies):
        return OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=(height, width, 3), axes="HWC")

    def compute(self, batch, dependencies):
        if any(index % 5 == 3 or 8 <= index < 16 for index in batch.indices):
            raise ValueError("no threes")
        return Output(data=255 - batch.frames, valid=batch.indices % 2 == 0)
"""


@pytest.mark.parametrize("writer", WRITERS)
def test_frames_that_failed_stay_failed_and_can_be_tried_again(
    make_request: MakeRequest, tmp_path: Path, writer: str
) -> None:
    """Frames 8 to 15 are a whole cell; computed pictures, beside others in the same samples."""
    (tmp_path / "picky.py").write_text(PICKY)
    config = CONFIG.replace("CODEC", "png") + "  picky: {type: 'picky.py:Picky', codec: png}\n"
    request = make_request(config, config_folder=tmp_path, writer=writer, max_failures=99)
    assert export(request).failed_frames == 12
    new = tmp_path / "new"
    report = transcode(request.dataset, new, codecs={"picky": FFV1})
    assert (report.encoded, report.copied, report.failed) == (18, 60, 12)
    assert read_manifest(new).groups == {"all": ["rgb", "canny"], "picky": ["picky"]}

    def facts(folder: Path) -> dict[int, tuple[Any, ...]]:
        rows = [row for row in read_samples(folder).to_pylist() if row["representation"] == "picky"]
        return {row["frame_index"]: tuple(row[name] for name in ("status", "error", "valid", "shape")) for row in rows}

    assert facts(new) == facts(request.dataset)
    assert sum("no threes" in str(error) for _, error, _, _ in facts(new).values()) == 12
    old, made = (FrameDataset(folder, ["picky"]) for folder in (request.dataset, new))
    assert len(made) == 18
    np.testing.assert_array_equal(made.batch(np.arange(18))["picky"], old.batch(np.arange(18))["picky"])
    assert not validate(new).problems
    assert [one.failed_frames for one in resume(new, trust_code=True, overrides={"max_failures": 99})] == [12]


def test_a_video_cut_short(make_request: MakeRequest, tmp_path: Path) -> None:
    data = clip("h264_faststart.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    source = exported(make_request, RGB, "video", video=str(tmp_path / "cut.mp4"))
    report = transcode(source, tmp_path / "new", codecs={"rgb": FFV1})
    assert (report.failed, report.encoded) == (1, 26)
    assert {key: row["error"] for key, row in placed(tmp_path / "new").items()} == {
        key: row["error"] for key, row in placed(source).items()
    }
    assert_same_pictures(tmp_path / "new", source)


def test_an_unfinished_export_goes_on_in_the_result(make_request: MakeRequest, clip_mp4: Path, tmp_path: Path) -> None:
    options = {"video": str(clip_mp4), "shard_frames": 16}
    source = exported(make_request, CONFIG, "png", frames=parse_frames("0..16"), **options)
    transcode(source, tmp_path / "new", codecs={"rgb": H264})
    exported(make_request, CONFIG, H264, dataset=tmp_path / "new", **options)
    direct = exported(make_request, CONFIG, H264, dataset=tmp_path / "direct", **options)
    assert placed(tmp_path / "new") == placed(direct)


@pytest.fixture
def noise(make_request: MakeRequest, tmp_path: Path) -> Path:
    """40 frames of noise in one cell, 2.3 MB as pictures: FFmpeg writes clips of it a MiB at a time."""
    frames = np.random.default_rng(0).integers(0, 256, (40, 120, 160, 3), np.uint8)
    np.save(tmp_path / "noise.npy", frames)
    return exported(make_request, RGB, "png", video=str(tmp_path / "noise.npy"), shard_frames=64)


def test_clips_end_at_the_size_of_a_shard(noise: Path, tmp_path: Path) -> None:
    with edited(noise / "dataset.json") as manifest:
        manifest["shard_size_bytes"] = 1 << 19
    transcode(noise, tmp_path / "new", codecs={"rgb": FFV1})
    assert len(list((tmp_path / "new").glob("shards/*/*.tar"))) == len(clips_of(tmp_path / "new")) > 1
    assert_same_pictures(tmp_path / "new", noise)
    assert not validate(tmp_path / "new").problems

    class Stopping(ProgressListener):
        def advanced(self, name: str, done: int, failed: int = 0, stored_bytes: int = 0) -> None:
            if list((tmp_path / "again").glob("shards/*/*.parquet")):  # the first is committed, the next has begun
                raise Killed

    with pytest.raises(Killed):
        transcode(noise, tmp_path / "again", codecs={"rgb": FFV1}, listener=Stopping())
    assert 0 < transcode(noise, tmp_path / "again", codecs={"rgb": FFV1}).encoded < 40
    # not byte for byte: a clip ends where FFmpeg's file, as it grows, is found to be large enough
    assert_same_pictures(tmp_path / "again", noise)
    assert not validate(tmp_path / "again").problems


@pytest.mark.parametrize("after", some_slow(range(0, 60, 7)))
@pytest.mark.parametrize("writer", WRITERS)
def test_stopped_anywhere_it_goes_on(
    make_request: MakeRequest, clip_mp4: Path, tmp_path: Path, writer: str, after: int
) -> None:
    source = exported(make_request, CONFIG, "png", video=str(clip_mp4), shard_frames=14, writer=writer)
    whole = transcode(source, tmp_path / "whole", codecs={"rgb": H264})

    class Stopping(ProgressListener):
        calls = size = 0

        def advanced(self, name: str, done: int, failed: int = 0, stored_bytes: int = 0) -> None:
            self.size += done
            self.calls += 1
            if self.calls == after + 1:
                raise Killed

    with pytest.raises(Killed):
        transcode(source, tmp_path / "new", codecs={"rgb": H264}, listener=Stopping())
    assert not (tmp_path / "new" / "dataset.json").exists()
    counting = Stopping()
    counting.calls = -1000
    transcode(source, tmp_path / "new", codecs={"rgb": H264}, listener=counting)
    assert counting.size == whole.bytes_before
    assert placed(tmp_path / "new") == placed(tmp_path / "whole")
    assert payloads(tmp_path / "new") == payloads(tmp_path / "whole")
    assert not validate(tmp_path / "new").problems
    again = transcode(source, tmp_path / "new", codecs={"rgb": H264})
    assert (again.was_finished, again.encoded, again.copied) == (True, 0, 0)


_CALLS: dict[str, list[tuple[Any, str]]] = {
    "webdataset": [
        (journal.OpenShard, "append"),
        (journal.OpenShard, "seal"),
        (tars, "_link"),
        (tars, "write_atomic"),
        (journal.OpenShard, "remove"),
        (transcode_run, "write_manifest"),
    ],
    "lance": [
        (journal.OpenShard, "append"),
        (LanceTable, "append"),
        (journal.OpenShard, "remove"),
        (transcode_run, "write_manifest"),
    ],
}


@pytest.mark.parametrize("number", some_slow(range(2, 98, 5)))
@pytest.mark.parametrize("writer", WRITERS)
def test_killed_at_any_write(
    make_request: MakeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, number: int
) -> None:
    """What the open cell had not flushed is gone, as after SIGKILL."""
    source = exported(make_request, CONFIG, "png", frames=parse_frames("0..20"), writer=writer)
    transcode(source, tmp_path / "whole", codecs={"rgb": H264})
    with monkeypatch.context() as patch, killed_at(monkeypatch, _CALLS[writer], number):
        patch.setattr(journaled.JournaledCellWriter, "suspend", lambda self: self._owned.release())
        try:
            transcode(source, tmp_path / "new", codecs={"rgb": H264})
        except Killed:
            assert not (tmp_path / "new" / "dataset.json").exists() or number % 2
    transcode(source, tmp_path / "new", codecs={"rgb": H264})
    assert placed(tmp_path / "new") == placed(tmp_path / "whole")
    assert payloads(tmp_path / "new") == payloads(tmp_path / "whole")
    assert not validate(tmp_path / "new").problems
    assert not (tmp_path / "new" / LOCK_NAME).exists()


@pytest.mark.filterwarnings("ignore")
def test_other_programs_find_a_clip_a_sample(make_request: MakeRequest, clip_mp4: Path, tmp_path: Path) -> None:
    import webdataset

    source = exported(make_request, CONFIG, "jpg", video=str(clip_mp4), shard_frames=14)
    transcode(source, tmp_path / "new", codecs={"rgb": H264})
    urls = sorted(str(path) for path in (tmp_path / "new").glob("shards/*/rgb-*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))  # pyright: ignore[reportAttributeAccessIssue]  # it names no exports
    assert [sample["__key__"] for sample in samples] == [f"clip/{first:08d}" for first in (0, 14, 28)]
    found = []
    for number, sample in enumerate(samples):
        (tmp_path / f"{number}.mp4").write_bytes(sample["rgb.mp4"])
        asked = "-v error -count_frames -show_entries stream=nb_read_frames,codec_name,avg_frame_rate -of csv=p=0"
        command = ["ffprobe", *asked.split(), str(tmp_path / f"{number}.mp4")]
        found.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    assert found == ["h264,10/1,14", "h264,10/1,14", "h264,10/1,12"]


def test_pictures_made_of_clips_are_no_clips_any_more(
    make_request: MakeRequest, clip_mp4: Path, tmp_path: Path
) -> None:
    """Whatever asks the manifest whether frames share payloads has to be told so; and back again."""
    source = exported(make_request, CONFIG, H264, video=str(clip_mp4), shard_frames=14)
    stills = tmp_path / "stills"
    transcode(source, stills, codecs={"rgb": "png"})
    assert not read_manifest(stills).representations["rgb"].clips
    with open_dataset(stills) as dataset:
        materialize(Subset({("clip", frame): None for frame in (3, 4, 30)}), dataset, tmp_path / "subset")
    expected = pictures(source)
    assert {key: pixels.tobytes() for key, pixels in pictures(tmp_path / "subset").items()} == {
        ("clip", frame): expected["clip", frame].tobytes() for frame in (3, 4, 30)
    }
    merge([stills], tmp_path / "joined", layout=Layout(join=True))
    assert read_manifest(tmp_path / "joined").groups == {"all": ["rgb", "canny"]}
    transcode(tmp_path / "joined", tmp_path / "back", codecs={"rgb": FFV1})
    assert_same_pictures(tmp_path / "back", source)


@pytest.mark.parametrize(
    ("codec", "message", "hint"),
    [
        ("video", r"rgb: codec 'video' without `encode` copies packets", "encode: ffv1"),
        ({"id": "video", "container": "mkv"}, r"rgb: codec 'video' without `encode` copies packets", "encode: ffv1"),
        ({"id": "video", "encode": "h265"}, r"rgb: codec 'video': encode is 'h265'", "hevc"),
        ({"id": "video", "encode": "ffv1", "gop": 3}, r"rgb: codec 'video': gop does not go with ffv1", "h264"),
    ],
)
def test_mistakes(make_request: MakeRequest, tmp_path: Path, codec: object, message: str, hint: str) -> None:
    source = exported(make_request, CONFIG, "png")
    with pytest.raises(UsageError, match=message) as caught:
        transcode(source, tmp_path / "new", codecs={"rgb": codec})  # type: ignore[dict-item]  # some are wrong
    assert hint in str(caught.value.hint)
    with pytest.raises(CodecError, match="canny: codec 'video' stores uint8 RGB pictures"):
        transcode(source, tmp_path / "new", codecs={"canny": FFV1})
    assert not (tmp_path / "new").exists()


def test_a_picture_too_small(make_request: MakeRequest, tmp_path: Path) -> None:
    small = RGB.replace("CODEC", "png, output_size: [12, 12]")
    source = exported(make_request, small, "")
    with pytest.raises(CodecError, match="rgb: codec 'video' encodes pictures of 16x16 or more, got 12x12"):
        transcode(source, tmp_path / "new", codecs={"rgb": FFV1})


def test_an_encoder_that_fails_stops_it_with_the_frame(
    make_request: MakeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = exported(make_request, RGB, "png", frames=parse_frames("3..30"))
    with monkeypatch.context() as patch:
        patch.setattr("vrekit.codecs.video._ENCODERS", {"h264": {"libx264": "-preset nonsense -g {gop}"}})
        with pytest.raises(CodecError, match=r"/00000003\.rgb from png to video: .* FFmpeg could not encode") as caught:
            transcode(source, tmp_path / "new", codecs={"rgb": H264})
        assert "--codec rgb=" in str(caught.value.hint)
        patch.setattr("vrekit.codecs.video._ENCODERS", {"h264": {"libnone": ""}})
        with pytest.raises(MissingDependencyError, match="no encoder for h264"):
            transcode(source, tmp_path / "new", codecs={"rgb": H264})
    assert not (tmp_path / "new" / "dataset.json").exists()
    assert transcode(source, tmp_path / "new", codecs={"rgb": H264}).encoded == 27


def test_large_frames_are_decoded_few_at_a_time() -> None:
    assert [frames_at_once(height * width * 3) for height, width in ((540, 960), (2160, 3840), (8640, 15360))] == [
        16,
        2,
        1,
    ]
