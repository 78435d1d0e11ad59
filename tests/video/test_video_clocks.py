"""FileSource on files whose clock stands still or jumps back, or that cannot be sought in: no frame is lost."""

from pathlib import Path

import numpy as np
import pytest

from tests.video.video_clips import clip, ffmpeg_frames, run_ffmpeg
from vrekit.core.errors import VideoError
from vrekit.video.files import FileSource
from vrekit.video.remux import Remuxer
from vrekit.video.selection import parse_frames

_RECLOCKED = {
    "pairs.mkv": ("plain", "setts=pts=floor(N/2)*80:dts=floor(N/2)*80:time_base=1/1000"),
    "seconds.mkv": ("plain", "setts=pts=floor(PTS/12800)*12800:dts=floor(DTS/12800)*12800"),
    "pairs_bframes.mkv": ("bframes", "setts=pts=floor(PTS/1024)*1024"),
    "decoding_times.mp4": ("bframes", "setts=pts=N*512"),
    "back_once.mkv": ("bframes", "setts=pts=PTS-if(gt(N\\,25)\\,512*24\\,0)"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clocks")
    plain = folder / "plain.mp4"
    run_ffmpeg("-i", str(clip("h264_bframes.mp4")), "-c:v", "libx264", "-g", "12", "-bf", "0", str(plain))
    sources = {"plain": plain, "bframes": clip("h264_bframes.mp4")}
    for name, (source, bsf) in _RECLOCKED.items():
        run_ffmpeg("-i", str(sources[source]), "-c", "copy", "-bsf:v", bsf, str(folder / name))
    twice = clip("h264.ts").read_bytes() * 2
    (folder / "restart.ts").write_bytes(twice)
    return folder


def assert_every_frame_is_ffmpegs(path: Path) -> tuple[int, "np.ndarray[tuple[int], np.dtype[np.float64]]"]:
    """Check sequential and random reads against FFmpeg's passthrough frames; return their count and times."""
    expected = ffmpeg_frames(path, 0, 120, 160)
    with FileSource(path) as source:
        count = source.info.frame_count
        assert count == len(expected)
        parts = [source.read(range(first, min(first + 7, count))) for first in range(0, count, 7)]
        assert all(not part.failures for part in parts)
        frames = np.concatenate([part.frames for part in parts])
        assert int(np.abs(frames.astype(np.int16) - expected).max()) <= 2
        for number in [count - 1, 0, *np.random.default_rng(0).permutation(count)[:12].tolist()]:
            single = source.read([number])
            assert single.indices.tolist() == [number]
            np.testing.assert_array_equal(single.frames[0], frames[number])
        np.testing.assert_array_equal(source.read(range(1, count, 9)).frames, frames[1::9])
        return count, source.pts_seconds(source.frame_indices)


@pytest.mark.parametrize("name", [*_RECLOCKED, "restart.ts"])
def test_no_frame_is_lost_whatever_the_clock_does(folder: Path, name: str) -> None:
    count, pts = assert_every_frame_is_ffmpegs(folder / name)
    assert count == (100 if name == "restart.ts" else 50)
    assert np.any(np.diff(pts) <= 0)


def test_times_are_those_of_the_container(folder: Path) -> None:
    with FileSource(folder / "pairs.mkv") as source:
        assert source.pts_seconds(np.arange(5)).tolist() == pytest.approx([0, 0, 0.08, 0.08, 0.16])
    with FileSource(folder / "restart.ts") as source:
        pts = source.pts_seconds(source.frame_indices)
        np.testing.assert_array_equal(pts[:50], pts[50:])
        assert source.info.fps == pytest.approx(25)
        assert source.info.duration_seconds == pytest.approx(4)
        chosen = parse_frames(None, fps=5).select(source.frame_indices, pts)
    assert chosen.tolist() == [*range(0, 50, 5), *range(50, 100, 5)]


def test_a_jumping_clock_is_said_once_and_never_for_others(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("h264_bframes.mp4", "h264_open_gop.mkv", "h264_intra_refresh.mp4", "hevc.mp4", "h264.ts", "vfr.mp4"):
        with FileSource(clip(name)) as source:
            source.read([3])
    assert not caplog.records
    with FileSource(folder / "restart.ts"):
        (record,) = caplog.records
    assert "restart.ts: its clock stands still or jumps back, so the file is decoded once" in record.getMessage()


def test_a_stream_whose_clock_jumps_back_is_not_cut_into_clips(folder: Path) -> None:
    with pytest.raises(VideoError, match="clock jumps back, so it cannot be cut") as caught:
        Remuxer(str(folder / "restart.ts"), 0)
    assert "ffv1" in str(caught.value.hint)


@pytest.mark.parametrize("gop", [10, 999])
def test_webm_cut_off_before_its_index_gives_all_that_decodes(tmp_path: Path, gop: int) -> None:
    clip("vp9.webm")  # skips where there is no encoder
    whole, cut = tmp_path / "whole.webm", tmp_path / "cut.webm"
    run_ffmpeg(
        *["-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=3", "-f", "lavfi", "-i", "sine=duration=3"],
        *f"-map 0 -map 1 -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g {gop} -c:a libopus".split(),
        *("-output_ts_offset", "0.1", str(whole)),
    )
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    count, pts = assert_every_frame_is_ffmpegs(cut)
    assert 25 <= count <= 45
    assert np.all(np.diff(pts) > 0)
