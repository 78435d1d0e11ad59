"""Exports into clips of video: sizes, mistakes, failures, damage, and what other commands make of such a dataset."""

import dataclasses
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.codecs.test_codec_video import intra_refresh
from tests.contracts.writer_cells import WRITERS
from tests.engine.test_export import payloads
from tests.storages import open_payloads, read_samples
from tests.video.video_clips import clip, need_encoder, rotated, run_ffmpeg
from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.manifest import read_manifest
from vrekit.catalog.subset import Subset
from vrekit.catalog.summary import summarize
from vrekit.config.loader import parse_config
from vrekit.core.errors import ChecksumError, ConfigError, ConflictError, UsageError, VideoError
from vrekit.core.reports import ProgressListener
from vrekit.engine.estimate import estimate
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.materialize import materialize
from vrekit.jobs.repair import repair
from vrekit.jobs.stats import compute_statistics
from vrekit.jobs.validate import validate
from vrekit.readers.clips import ClipReader
from vrekit.readers.dataset import FrameDataset
from vrekit.readers.index import FrameIndex
from vrekit.video.files import FileSource
from vrekit.video.opener import open_source
from vrekit.video.remux import RemuxedClip, Remuxer
from vrekit.video.selection import parse_frames

MakeRequest = Callable[..., ExportRequest]
VIDEO = "representations:\n  rgb: {type: color/rgb, codec: CODEC}\n"
EDGES = "  canny: {type: edges/canny, codec: npy.zst}\n"


def config(codec: str = "video", more: str = "") -> str:
    return VIDEO.replace("CODEC", codec) + more


def with_config(request: ExportRequest, text: str) -> ExportRequest:
    return dataclasses.replace(request, representations=parse_config(text).representations)


def source_frames(path: Path) -> NDArray[np.uint8]:
    with FileSource(path) as source:
        return source.read(source.frame_indices).frames


def rgb_rows(folder: Path) -> list[dict[str, object]]:
    return [row for row in read_samples(folder).to_pylist() if row["representation"] == "rgb"]


def damage_clip(folder: Path, *, frame: int) -> None:
    """Flip a bit of the clip with a frame."""
    index = FrameIndex.from_table(read_samples(folder), ["rgb"])
    read = open_payloads(folder, read_manifest(folder), index).read
    payload = bytes(read(np.array([frame]), ["rgb"])["rgb"][0] or b"")
    (path,) = [path for path in folder.rglob("*") if path.is_file() and payload in path.read_bytes()]
    data = bytearray(path.read_bytes())
    data[data.index(payload) + len(payload) // 2] ^= 1
    path.write_bytes(data)


def assert_holds(folder: Path, frames: NDArray[np.uint8]) -> None:
    dataset = FrameDataset(folder, ["rgb"])
    for frame, pixels in zip(dataset.index.frame_index, dataset.batch(np.arange(len(dataset)))["rgb"], strict=True):
        np.testing.assert_array_equal(pixels.numpy(), frames[frame])


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("hevc.mp4", "video"),
        ("vfr.mp4", "video"),
        ("vp9.webm", "video"),
        ("h264_open_gop.mkv", "video"),
        ("ffv1.mkv", "{id: video, container: mkv}"),
        ("odd_size.mp4", "{id: video, encode: ffv1}"),
    ],
)
def test_every_frame_of_every_sort_of_video(make_request: MakeRequest, name: str, codec: str, writer: str) -> None:
    frames = source_frames(clip(name))
    request = make_request(config=config(codec), video=str(clip(name)), shard_frames=17, writer=writer)
    assert export(request).failed_frames == 0
    assert_holds(request.dataset, frames)
    with FileSource(clip(name)) as source:
        pts = source.pts_seconds(source.frame_indices)
    assert [row["pts_seconds"] for row in rgb_rows(request.dataset)] == pts.tolist()
    assert not validate(request.dataset).problems


def test_a_rotated_video(make_request: MakeRequest) -> None:
    request = make_request(config=config(), video=str(rotated(90)), shard_frames=20)
    export(request)
    frames = source_frames(rotated(90))
    assert frames.shape[1:] == (160, 120, 3)
    assert_holds(request.dataset, frames)


def test_tars_have_equal_keys_and_the_same_bytes_again(
    make_request: MakeRequest, clip_mp4: Path, tmp_path: Path
) -> None:
    requests = [
        make_request(config=config(more=EDGES), video=str(clip_mp4), shard_frames=14, dataset=tmp_path / name)
        for name in ("one", "two")
    ]
    for request in requests:
        export(request)
    assert payloads(requests[0].dataset) == payloads(requests[1].dataset)
    tars = {}
    for path in sorted((tmp_path / "one").glob("shards/*/*.tar")):
        with tarfile.open(path) as archive:
            tars[path.name] = [name.split(".", 1) for name in archive.getnames()]
    assert {name: {suffix for _, suffix in members} for name, members in tars.items()} == {
        **{f"all-{first:08d}-{last:08d}.tar": {"canny.npy.zst"} for first, last in ((0, 13), (14, 27), (28, 39))},
        **{f"rgb-{first:08d}-{last:08d}.tar": {"rgb.mp4"} for first, last in ((0, 13), (14, 27), (28, 39))},
    }
    assert [members for name, members in tars.items() if name.startswith("rgb")] == [
        [[f"clip/{first:08d}", "rgb.mp4"]] for first in (0, 14, 28)
    ]
    manifest = read_manifest(tmp_path / "one")
    assert {name: (record.group, record.clips) for name, record in manifest.representations.items()} == {
        "rgb": ("rgb", True),
        "canny": ("all", False),
    }
    card = (tmp_path / "one" / "README.md").read_text()
    assert card.index('config_name: "all"\n  default: true') > 0


@pytest.mark.parametrize("codec", ["video", "{id: video, encode: ffv1}"])
def test_clips_end_at_the_size_of_a_shard(make_request: MakeRequest, clip_mp4: Path, codec: str) -> None:
    if codec != "video":  # FFmpeg writes a MiB at a time
        clip_mp4 = clip_mp4.with_name("noise.npy")
        np.save(clip_mp4, np.random.default_rng(0).integers(0, 256, (30, 240, 320, 3), np.uint8))
    whole = make_request(config=config(codec), video=str(clip_mp4), shard_frames=64)
    size = export(whole).totals["rgb"].stored_bytes
    request = make_request(
        config=config(codec),
        video=str(clip_mp4),
        shard_frames=64,
        dataset=whole.dataset.with_name("small"),
        shard_size_bytes=size // 3,
    )
    report = export(request)
    shards = sorted(request.dataset.glob("shards/*/*.tar"))
    assert len(shards) >= 3
    with open_source(clip_mp4) as source:
        assert_holds(request.dataset, source.read(source.frame_indices).frames)
    assert report.totals["rgb"].stored_bytes == sum(row["byte_size"] for row in _one_row_a_clip(request.dataset))
    if codec == "video":  # clips begin at key frames where they can, and then hold nothing twice
        assert [int(path.stem.split("-")[1]) % 12 for path in shards] == [0] * len(shards)
        assert all(path.stat().st_size < size // 3 + 8000 for path in shards)


def _one_row_a_clip(folder: Path) -> list[dict[str, int]]:
    clips = {(row["shard"], row["byte_offset"]): row for row in rgb_rows(folder)}
    return list(clips.values())  # type: ignore[arg-type]  # rows of Parquet


def test_more_frames_of_a_cell_are_a_clip_of_their_own(make_request: MakeRequest, clip_mp4: Path) -> None:
    request = make_request(config=config(), video=str(clip_mp4), shard_frames=64, frames=parse_frames("5..17"))
    export(request)
    before = payloads(request.dataset)
    report = export(dataclasses.replace(request, frames=parse_frames(None)))
    assert report.totals["rgb"].computed == 40 - 12
    after = payloads(request.dataset)
    assert {name: after[name] for name in before} == before
    assert sorted(after) == ["clip/00000000.rgb.mp4", "clip/00000005.rgb.mp4"]
    assert_holds(request.dataset, source_frames(clip_mp4))
    assert export(dataclasses.replace(request, frames=parse_frames(None))).run_id is None


def test_sizes_are_added_up_once(make_request: MakeRequest, clip_mp4: Path) -> None:
    request = make_request(config=config(), video=str(clip_mp4), shard_frames=14)
    asked = estimate(request)
    report = export(request)
    size = sum(map(len, payloads(request.dataset).values()))
    assert report.totals["rgb"].stored_bytes == size
    (summary,) = summarize(request.dataset).representations
    assert (summary.stored_bytes, summary.frames, summary.codec) == (size, 40, "video")
    with open_dataset(request.dataset) as dataset:
        assert dataset.sandbox.fetch("SELECT sum(total_bytes) AS n FROM frames")["n"].to_pylist() == [size]
        ratios = dataset.sandbox.fetch("SELECT DISTINCT compression_ratio AS n FROM samples")["n"].to_pylist()
    assert ratios == [None]
    (part,) = asked.parts
    assert part.sampled
    assert 0.5 * size < part.estimated_bytes < 1.2 * size


@pytest.mark.parametrize("encode", ["ffv1", "h264"])
def test_an_estimate_encodes_some_frames(make_request: MakeRequest, clip_mp4: Path, encode: str) -> None:
    request = make_request(config=config(f"{{id: video, encode: {encode}}}"), video=str(clip_mp4), shard_frames=64)
    (part,) = estimate(request).parts
    size = export(request).totals["rgb"].stored_bytes
    assert 0.5 * size < part.estimated_bytes < 2 * size
    assert part.estimated_seconds > 0


def test_progress_counts_every_frame_once(make_request: MakeRequest, clip_mp4: Path) -> None:
    told: list[tuple[str, int, int, int]] = []

    class Listener(ProgressListener):
        def advanced(self, name: str, done: int, failed: int = 0, stored_bytes: int = 0) -> None:
            told.append((name, done, failed, stored_bytes))

    request = make_request(config=config(), video=str(clip_mp4), shard_frames=14)
    report = export(request, Listener())
    assert [one[:3] for one in told] == [("rgb", 14, 0), ("rgb", 14, 0), ("rgb", 12, 0)]
    assert sum(one[3] for one in told) == report.totals["rgb"].stored_bytes


# -- what goes wrong ---------------------------------------------------------------------------------------------


def shifted_at(frame: int) -> tuple[Callable[..., RemuxedClip], list[int]]:
    """Return a `Remuxer.cut` whose clips from `frame` on are off by one picture, and the lead-ins asked for."""
    cut, asked = Remuxer.cut, list[int]()

    def shifted(self: Remuxer, frames: NDArray[np.int64], container: str, *, lead_in: int = 0) -> RemuxedClip:
        found = cut(self, frames, container, lead_in=lead_in)
        asked.append(lead_in)
        return dataclasses.replace(found, positions=np.maximum(found.positions - 1, 0)) if frames[0] == frame else found

    return shifted, asked


@pytest.mark.parametrize("writer", WRITERS)
def test_frames_that_cannot_be_cut_are_encoded_without_loss(
    make_request: MakeRequest,
    clip_mp4: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    writer: str,
) -> None:
    need_encoder("libx264rgb")
    shifted, asked = shifted_at(14)
    request = make_request(config=config(more=EDGES), video=str(clip_mp4), shard_frames=14, writer=writer)
    monkeypatch.setattr(Remuxer, "cut", shifted)
    report = export(request)
    # 14..27 thrice; then its groups 14..23, again, and 24..27, which are cut as they should be
    assert asked == [0, 0, 1, 4, 0, 1, 4, 0, 0]
    assert (report.totals["rgb"].computed, report.totals["rgb"].failed) == (40, 0)
    assert_holds(request.dataset, source_frames(clip_mp4))
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "vrekit.engine.clips"][-1:]
    assert "frames 14..23 cannot be cut from the source without changing them (frame 14 decodes to other" in warning
    assert "encode: h264" in warning
    clips = _one_row_a_clip(request.dataset)
    assert [row["frame_index"] for row in clips] == [13, 23, 27, 39]  # the last of each
    assert clips[1]["byte_size"] > 3 * clips[0]["byte_size"]
    assert {row["codec"] for row in rgb_rows(request.dataset)} == {"video"}
    assert not validate(request.dataset).problems
    assert export(request).run_id is None


def test_frames_encoded_without_loss_end_at_the_size_of_a_shard_and_resume_to_the_same_bytes(
    make_request: MakeRequest, clip_mp4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_encoder("libx264rgb")
    noise = clip_mp4.with_name("noise.mp4")
    source = "nullsrc=320x240:d=2,geq=random(1)*255:128:128"
    run_ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx264", "-crf", "30", "-g", "12", str(noise))
    shifted, _ = shifted_at(0)
    monkeypatch.setattr(Remuxer, "cut", shifted)
    request = make_request(config=config(), video=str(noise), shard_frames=64, shard_size_bytes=1 << 20)
    export(request)
    assert_holds(request.dataset, source_frames(noise))
    sizes = [row["byte_size"] for row in _one_row_a_clip(request.dataset)]
    assert len(sizes) > 2
    again = dataclasses.replace(request, dataset=request.dataset.with_name("again"))
    export(again)
    assert payloads(again.dataset) == payloads(request.dataset)


def test_without_an_encoder_they_are_failures_that_say_what_to_do(
    make_request: MakeRequest, clip_mp4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifted, _ = shifted_at(14)
    request = make_request(config=config(more=EDGES), video=str(clip_mp4), shard_frames=14)
    with monkeypatch.context() as patch:
        patch.setattr(Remuxer, "cut", shifted)
        patch.setattr("vrekit.codecs.video._UNCUT", {"libnone": ""})
        report = export(request)
    assert (report.totals["rgb"].computed, report.totals["rgb"].failed) == (30, 10)
    assert report.totals["canny"].computed == 40
    (error,) = {row["error"] for row in rgb_rows(request.dataset) if row["status"] == "failed"}
    assert "frames 14..23 cannot be cut from the source without changing them (frame 14 decodes to other" in str(error)
    assert "nor encoded without loss (this FFmpeg has no encoder for lossless h264 (libnone))" in str(error)
    assert "encode: ffv1" in str(error)
    assert not validate(request.dataset).problems
    assert export(request).computed_frames == 0  # failures are left alone
    (again,) = resume(request.dataset)
    assert again.totals["rgb"].computed == 10
    assert_holds(request.dataset, source_frames(clip_mp4))


@pytest.mark.parametrize("writer", WRITERS)
def test_pictures_that_are_refreshed_bit_by_bit(make_request: MakeRequest, tmp_path: Path, writer: str) -> None:
    need_encoder("libx264rgb")
    path = intra_refresh(tmp_path / "refresh.mp4")
    frames = source_frames(path)
    request = make_request(config=config(), video=str(path), shard_frames=20, writer=writer)
    assert export(request).totals["rgb"].computed == 50
    assert_holds(request.dataset, frames)
    for frame in np.random.default_rng(0).permutation(50).tolist():  # each with decoders that were nowhere before
        np.testing.assert_array_equal(np.asarray(FrameDataset(request.dataset, ["rgb"])[frame]["rgb"]), frames[frame])
    assert not validate(request.dataset).problems


def test_a_container_that_does_not_take_the_source_stops_the_run_before_its_first_frame(
    make_request: MakeRequest,
) -> None:
    request = make_request(config=config(), video=str(clip("ffv1.mkv")))
    with pytest.raises(VideoError, match=r"ffv1\.mkv: FFmpeg could not copy it: Could not find tag") as caught:
        export(request)
    assert "container: mkv" in str(caught.value.hint)
    assert "0x" not in str(caught.value)
    assert not request.dataset.exists()
    mended = with_config(request, config("{id: video, container: mkv}"))
    assert export(mended).totals["rgb"].computed == 50


def test_a_rotation_that_the_container_loses_is_named(
    make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upright(path: str, stream_index: int, container: str, target: Path) -> None:
        run_ffmpeg("-i", str(clip("h264_bframes.mp4")), "-c", "copy", "-frames:v", "1", str(target))

    monkeypatch.setattr("vrekit.engine.clip_checks.start_of_stream", upright)  # newer FFmpegs keep it in mkv, too
    with pytest.raises(VideoError, match=r"turned by -?90 degrees, which this FFmpeg does not keep in mkv"):
        export(make_request(config=config("{id: video, container: mkv}"), video=str(rotated(90))))


def test_frames_hidden_by_an_edit_list_at_the_start(make_request: MakeRequest, tmp_path: Path) -> None:
    path = tmp_path / "edited.mp4"
    run_ffmpeg("-ss", "0.6", "-i", str(clip("h264_bframes.mp4")), "-c", "copy", str(path))
    request = make_request(config=config(), video=str(path), shard_frames=20)
    assert export(request).failed_frames == 0
    assert_holds(request.dataset, source_frames(path))


def test_frames_that_do_not_decode_are_failures_beside_a_clip_of_the_others(
    make_request: MakeRequest, tmp_path: Path
) -> None:
    path = tmp_path / "cut.mp4"
    data = clip("h264_faststart.mp4").read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with FileSource(path) as source:
        decoded = source.read(source.frame_indices)
    assert 10 < len(decoded.indices) < 50
    request = make_request(config=config(), video=str(path), shard_frames=64)
    report = export(request)
    frames = dict(zip(decoded.indices.tolist(), decoded.frames, strict=True))
    dataset = FrameDataset(request.dataset, ["rgb"])
    stored = dataset.index.frame_index.tolist()
    assert set(range(24)) <= set(stored) <= set(frames)  # the damage is in the group from 24 on
    for row, frame in enumerate(stored):
        np.testing.assert_array_equal(dataset[row]["rgb"].numpy(), frames[frame])
    totals = report.totals["rgb"]
    assert (totals.computed, totals.computed + totals.failed) == (len(stored), len(rgb_rows(request.dataset)))
    assert not validate(request.dataset).problems


def test_mistakes_are_named_before_anything_is_written(make_request: MakeRequest, clip_mp4: Path) -> None:
    request = make_request(config=config())  # an array
    with pytest.raises(UsageError, match=r"copies the packets of a video file; .*square\.npy is none") as caught:
        export(request)
    assert "encode: ffv1" in str(caught.value.hint)
    for text, message in (
        ("representations:\n  rgb: {type: color/rgb, codec: video, output_size: [8, 8]}\n", "nothing but color/rgb"),
        ("representations:\n  flow: {type: flow/dis, codec: {id: video, encode: ffv1}}\n", "uint8 RGB pictures"),
        (config("{id: video, encode: h265}"), "did you mean"),
    ):
        with pytest.raises(ConfigError, match=message):
            export(make_request(config=text, video=str(clip_mp4)))
    assert not request.dataset.exists()


def test_pictures_of_another_sort_and_size_are_encoded(make_request: MakeRequest, clip_mp4: Path) -> None:
    text = "representations:\n  rgb: {type: color/rgb, codec: png, output_size: [32, 48]}\n"
    plain = make_request(config=text, video=str(clip_mp4))
    export(plain)
    ffv1 = with_config(plain, text.replace("png", "{id: video, encode: ffv1}"))
    ffv1 = dataclasses.replace(ffv1, dataset=plain.dataset.with_name("ffv1"))
    export(ffv1)
    expected, found = (FrameDataset(one.dataset)[0:40]["rgb"].numpy() for one in (plain, ffv1))
    np.testing.assert_array_equal(found, expected)


def test_another_codec_under_the_same_name_is_a_conflict(make_request: MakeRequest, clip_mp4: Path) -> None:
    request = make_request(config=config(), video=str(clip_mp4))
    export(request)
    with pytest.raises(ConflictError, match=r"rgb\.codec"):
        export(with_config(request, config("{id: video, encode: ffv1}")))


@pytest.mark.parametrize("writer", WRITERS)
def test_a_flipped_byte_is_found_by_validate_and_by_readers(
    make_request: MakeRequest, clip_mp4: Path, writer: str
) -> None:
    request = make_request(config=config(), video=str(clip_mp4), shard_frames=14, writer=writer)
    export(request)
    report = validate(request.dataset)
    assert (report.problems, report.payloads) == ([], 3)
    damage_clip(request.dataset, frame=20)
    (problem,) = validate(request.dataset).problems
    assert (problem.code, problem.frame_index, problem.representation) == ("checksum", 14, "rgb")
    dataset = FrameDataset(request.dataset, ["rgb"])
    assert dataset[13]["frame_index"] == 13
    with pytest.raises(ChecksumError, match=r"clip/0000002\d, representation 'rgb'"):
        dataset[20]
    lenient = FrameDataset(request.dataset, ["rgb"], on_error="skip")
    assert lenient.batch(np.arange(40))["frame_index"].tolist() == [*range(14), *range(28, 40)]
    assert lenient.skipped == 14


# -- other commands ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", WRITERS)
def test_a_subset_copies_whole_clips_with_the_rows_it_names(
    make_request: MakeRequest, clip_mp4: Path, tmp_path: Path, writer: str
) -> None:
    request = make_request(config=config(more=EDGES), video=str(clip_mp4), shard_frames=14)
    export(request)
    chosen = [3, 15, 16, 39]
    with open_dataset(request.dataset) as dataset:
        subset = Subset({("clip", frame): None for frame in chosen})
        report = materialize(subset, dataset, tmp_path / "copy", writer=writer)
        assert (report.frames, report.samples) == (4, 8)
        assert materialize(subset, dataset, tmp_path / "copy", writer=writer).samples == 0
    assert FrameDataset(tmp_path / "copy").index.frame_index.tolist() == chosen
    assert_holds(tmp_path / "copy", source_frames(clip_mp4))
    assert not validate(tmp_path / "copy").problems


def test_statistics_are_those_of_stills(make_request: MakeRequest, clip_mp4: Path) -> None:
    found = []
    for codec in ("video", "png"):
        request = make_request(config=config(codec), video=str(clip_mp4), shard_frames=14)
        request = dataclasses.replace(request, dataset=request.dataset.with_name(codec))
        export(request)
        with open_dataset(request.dataset) as dataset:
            report = compute_statistics(dataset, threads=2)
            assert (report.measured, report.failures) == (40, ())
        with open_dataset(request.dataset) as dataset:
            found.append(dataset.sandbox.fetch("SELECT luma_mean, phash, motion FROM frames ORDER BY frame_index"))
    assert found[0].equals(found[1])


def test_ffmpeg_plays_a_clip_as_the_source_shows_it(make_request: MakeRequest, clip_mp4: Path, tmp_path: Path) -> None:
    request = make_request(config=config(), video=str(clip_mp4), shard_frames=12)  # at key frames
    export(request)
    frames = source_frames(clip_mp4)
    for name, data in payloads(request.dataset).items():
        path = tmp_path / "extracted.mp4"
        path.write_bytes(data)
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        shown = np.frombuffer(raw, np.uint8).reshape(-1, *frames.shape[1:])
        first = int(name.split("/")[1][:8])
        # FFmpeg's command line rounds colours otherwise than its library as torchcodec calls it
        assert np.abs(shown[0].astype(np.int16) - frames[first]).max() <= 4
        assert len(shown) >= min(12, 40 - first)


def test_clips_that_are_not_used_are_dropped(make_request: MakeRequest, clip_mp4: Path) -> None:
    request = make_request(config=config(), video=str(clip_mp4), shard_frames=8)
    export(request)
    frames = source_frames(clip_mp4)
    dataset = FrameDataset(request.dataset, ["rgb"])
    clips = dataset._reader._clips
    assert isinstance(clips, ClipReader)
    clips.max_bytes = 1
    for row in (0, 39, 8, 0, 20):
        np.testing.assert_array_equal(dataset[row]["rgb"].numpy(), frames[row])
        assert len(clips._clips) == 1
    clips.max_bytes = 1 << 30
    dataset.batch(np.arange(40))
    assert len(clips._clips) == 5


@pytest.mark.parametrize("writer", WRITERS)
def test_repair_takes_out_the_whole_clip_and_resume_makes_it_again(
    make_request: MakeRequest, clip_mp4: Path, writer: str
) -> None:
    request = make_request(config=config(), video=str(clip_mp4), shard_frames=14, writer=writer)
    export(request)
    damage_clip(request.dataset, frame=20)
    report = repair(request.dataset, validate(request.dataset).problems)
    assert (report.samples, report.left) == (["clip/00000014.rgb.mp4"], [])
    assert [row["frame_index"] for row in rgb_rows(request.dataset)] == [*range(14), *range(28, 40)]
    (again,) = resume(request.dataset)
    assert again.totals["rgb"].computed == 14
    assert_holds(request.dataset, source_frames(clip_mp4))
    assert not validate(request.dataset).problems
