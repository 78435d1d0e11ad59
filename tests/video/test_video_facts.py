"""What a video file says beyond its frames: kept in the dataset, and what frames lose of it is said once."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from tests.video.test_video_damage import cut
from tests.video.video_clips import clip, need_encoder, rotated, run_ffmpeg
from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.manifest import read_manifest
from vrekit.config.loader import load_config
from vrekit.core.errors import VideoError
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.video.base import VideoInfo
from vrekit.video.facts import bit_depth, losses, ranges
from vrekit.video.files import FileSource
from vrekit.video.selection import parse_frames

_SOURCE = "-f lavfi -i testsrc2=size=64x48:rate=25 -frames:v 10"


def info_of(path: Path) -> VideoInfo:
    with FileSource(path) as source:
        return source.info


def made(path: Path, encoder: str, options: str) -> Path:
    need_encoder(encoder)
    run_ffmpeg(*_SOURCE.split(), "-c:v", encoder, *options.split(), str(path))
    return path


def request(video: Path, dataset: Path, *, check_video: bool = False) -> ExportRequest:
    config = dataset.parent / "config.yaml"
    config.write_text("representations:\n  rgb: {type: color/rgb, codec: png}\n")
    return ExportRequest(
        video=str(video),
        dataset=dataset,
        representations=load_config(str(config)).representations,
        frames=parse_frames("0..2"),
        check_video=check_video,
    )


def test_plain_video_has_nothing_to_say() -> None:
    info = info_of(clip("h264_bframes.mp4"))
    assert (info.pixel_format, info.bit_depth, info.has_alpha) == ("yuv420p", 8, False)
    assert (info.sample_aspect_ratio, info.field_order, info.other_streams) == ("1:1", "progressive", ())
    assert (info.is_truncated, info.damaged_frames) == (False, None)
    assert losses(info) == ""


def test_ten_bits_and_hdr(tmp_path: Path) -> None:
    options = "-pix_fmt yuv420p10le -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc -color_range tv"
    info = info_of(made(tmp_path / "hdr.mkv", "ffv1", options))
    assert (info.pixel_format, info.bit_depth) == ("yuv420p10le", 10)
    assert (info.color_primaries, info.color_transfer) == ("bt2020", "smpte2084")
    assert (info.color_space, info.color_range) == ("bt2020nc", "tv")
    assert losses(info) == "10-bit pixels are stored as 8-bit; HDR (smpte2084) is stored without tone mapping"


def test_alpha(tmp_path: Path) -> None:
    info = info_of(made(tmp_path / "alpha.mkv", "ffv1", "-pix_fmt yuva420p"))
    assert info.has_alpha
    assert losses(info) == "transparency is dropped"
    tagged = info_of(made(tmp_path / "alpha.webm", "libvpx-vp9", "-pix_fmt yuva420p -deadline realtime -cpu-used 8"))
    assert (tagged.pixel_format, tagged.has_alpha) == ("yuv420p", True)


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    wide = made(tmp_path / "wide.mp4", "libx264", "-vf setsar=4/3 -pix_fmt yuv420p")
    assert info_of(wide).sample_aspect_ratio == "4:3"
    assert losses(info_of(wide)) == "pixels are not square (4:3) and frames are not scaled"
    assert info_of(rotated(90)).sample_aspect_ratio == "1:1"


def test_interlaced(tmp_path: Path) -> None:
    info = info_of(made(tmp_path / "fields.mp4", "libx264", "-x264-params tff=1 -flags +ildct -pix_fmt yuv420p"))
    assert info.field_order in ("tt", "tb")
    assert losses(info) == "interlaced fields are not separated"


def test_other_streams() -> None:
    info = info_of(clip("two_videos.mp4"))
    assert info.other_streams is not None
    assert [stream.split()[0] for stream in info.other_streams] == ["audio", "video"]
    assert losses(info) == ""


@pytest.mark.parametrize(
    "name", ["h264_open_gop.mkv", "vp9.webm", "mjpeg.avi", "h264_faststart.mp4", "h264_fragmented.mp4", "h264.ts"]
)
def test_files_that_are_cut_off_are_noticed(tmp_path: Path, name: str) -> None:
    path = cut(clip(name), tmp_path / name, 0.6)
    if name.endswith(".ts"):  # not exactly between two packets: that cannot be seen
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 188 * 188 - 50])
    assert info_of(path).is_truncated
    assert losses(info_of(path)).startswith("the file is cut off")
    assert info_of(clip(name)).is_truncated is False


def test_avi_that_a_recorder_never_finished(tmp_path: Path) -> None:
    content = bytearray(clip("mjpeg.avi").read_bytes())
    content[4:8] = bytes(4)
    (tmp_path / "open.avi").write_bytes(content)
    assert info_of(tmp_path / "open.avi").is_truncated


def flipped(target: Path, source: Path, count: int) -> Path:
    content = bytearray(source.read_bytes())
    for at in np.random.default_rng(0).integers(len(content) // 4, len(content) * 3 // 4, count):
        content[at] ^= 0x10
    target.write_bytes(content)
    return target


def test_concealed_damage_is_found_when_asked_for(tmp_path: Path) -> None:
    path = flipped(tmp_path / "flipped.mkv", clip("h264_open_gop.mkv"), 40)
    with FileSource(path) as source:
        assert source.info.damaged_frames is None  # the container has nothing to say
        found = source.damaged_frames()
        assert 3 < len(found) < source.info.frame_count
        assert found.min() > 5
        assert len(source.read(range(source.info.frame_count)).indices) >= 45
        np.testing.assert_array_equal(source.damaged_frames(), found)
    for name in ("h264_bframes.mp4", "h264_open_gop.mkv", "hevc.mp4", "vp9.webm", "mjpeg.avi", "h264.ts"):
        with FileSource(clip(name)) as source:
            assert source.damaged_frames().tolist() == []


def test_damage_cannot_be_looked_for_without_ffprobe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with FileSource(clip("h264_bframes.mp4")) as source, pytest.raises(VideoError, match="`ffprobe` only"):
        source.damaged_frames()


def test_export_keeps_the_facts_and_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    video = made(tmp_path / "deep.mkv", "ffv1", "-pix_fmt yuv420p10le")
    with caplog.at_level(logging.WARNING):
        export(request(video, tmp_path / "out"))
        export(request(video, tmp_path / "out"))
    assert [record.getMessage() for record in caplog.records] == [f"{video}: 10-bit pixels are stored as 8-bit"]
    with open_dataset(tmp_path / "out") as dataset:
        (row,) = dataset.videos.select("bit_depth, pixel_format, other_streams, is_truncated, field_order").fetchall()
    assert row[:4] == (10, "yuv420p10le", [], False)
    assert read_manifest(tmp_path / "out").videos["deep"].other_streams == ()


def test_damage_is_recorded_by_a_later_check_and_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    video = flipped(tmp_path / "flipped.mkv", clip("h264_open_gop.mkv"), 40)
    out = tmp_path / "out"
    export(request(video, out))
    assert read_manifest(out).videos["flipped"].damaged_frames is None
    export(request(video, out, check_video=True))
    damaged = read_manifest(out).videos["flipped"].damaged_frames
    assert damaged
    assert f"{video}: the data of frames {damaged} is damaged" in caplog.text
    export(request(video, out))
    assert read_manifest(out).videos["flipped"].damaged_frames == damaged
    assert "check_video" not in next((out / "runs").glob("*.json")).read_text()
    sound = tmp_path / "sound"
    export(request(clip("h264_bframes.mp4"), sound, check_video=True))
    assert read_manifest(sound).videos["h264_bframes"].damaged_frames == ""


def test_a_dataset_of_before_takes_the_same_video_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    video = made(tmp_path / "deep.mkv", "ffv1", "-pix_fmt yuv420p10le")
    export(request(video, out))
    manifest = json.loads((out / "dataset.json").read_text())
    del manifest["checksum"]
    facts = manifest["videos"]["deep"]
    manifest["videos"]["deep"] = {name: facts[name] for name in list(facts)[: list(facts).index("pixel_format")]}
    (out / "dataset.json").write_text(json.dumps(manifest))
    before = (out / "dataset.json").read_bytes()
    assert read_manifest(out).videos["deep"].bit_depth is None
    export(request(video, out))
    assert (out / "dataset.json").read_bytes() == before
    with open_dataset(out) as dataset:
        assert dataset.videos.select("bit_depth, other_streams").fetchall() == [(None, None)]


@pytest.mark.parametrize(
    ("name", "bits"),
    [("yuv420p", 8), ("nv12", 8), ("p010le", 10), ("yuv444p12be", 12), ("gray16le", 16), ("rgb48le", 16),
     ("rgba64be", 16), ("x2rgb10le", 10), ("nv20le", 10), ("rgb565le", 8), ("gbrapf32le", 32), ("pal8", 8)],
)  # fmt: skip
def test_bit_depth(name: str, bits: int) -> None:
    assert bit_depth(name) == bits


def test_ranges() -> None:
    assert ranges(np.array([5, 8, 9, 10, 22])) == "5,8..11,22"
    assert ranges(np.array([], np.int64)) == ""
