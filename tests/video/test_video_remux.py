"""Clips cut out of videos without encoding anything: every frame is the source's, wherever the cut lies."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.video.video_clips import clip, ffmpeg_frames, rotated, run_ffmpeg
from vrekit.codecs.video import Video
from vrekit.core.errors import CodecError, VideoError
from vrekit.video.files import FileSource
from vrekit.video.packets import read_packets
from vrekit.video.remux import RemuxedClip, Remuxer

CLIPS = {
    "av1.mkv": "mp4",
    "ffv1.mkv": "mkv",
    "h264.ts": "mp4",
    "h264_bframes.mp4": "mp4",
    "h264_fragmented.mp4": "mp4",
    "h264_one_key_frame.mp4": "mkv",
    "h264_open_gop.mkv": "mp4",
    "hevc.mp4": "mp4",
    "hevc_10bit.mkv": "mp4",
    "mjpeg.avi": "mp4",
    "non_zero_start.mp4": "mkv",
    "two_videos.mp4": "mp4",
    "vfr.mp4": "mp4",
    "vp9.webm": "mp4",
}


def source_frames(path: Path, stream_index: int | None = None) -> tuple[FileSource, NDArray[np.uint8]]:
    source = FileSource(path, stream_index=stream_index)
    decoded = source.read(source.frame_indices)
    assert not decoded.failures
    return source, decoded.frames


def remuxer(source: FileSource) -> Remuxer:
    assert source.info.stream_index is not None
    return Remuxer(source.info.uri, source.info.stream_index)


def decoded(cut: RemuxedClip) -> NDArray[np.uint8]:
    return Video().open_decoder(cut.data).read(cut.positions)


def cut_exactly(
    source: FileSource, frames: NDArray[np.uint8], wanted: NDArray[np.int64], container: str
) -> RemuxedClip:
    """Return a clip in which the wanted frames are those of the source.

    From the last key frame of an open group FFmpeg gives no last frame; an earlier start makes up for that.
    """
    for lead_in in (0, 1):
        cut = remuxer(source).cut(wanted, container, lead_in=lead_in)
        try:
            if np.array_equal(decoded(cut), frames[wanted]):
                return cut
        except CodecError:
            continue
    pytest.fail(f"frames {wanted[0]}..{wanted[-1]} changed")


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_of_a_clip_is_that_of_the_source(name: str, tmp_path: Path) -> None:
    source, frames = source_frames(clip(name))
    count = len(frames)
    for first, last in ((count - 1, count - 1), (5, 9), (min(13, count - 7), min(29, count - 2)), (0, count - 1)):
        wanted = np.arange(first, last + 1)
        cut = cut_exactly(source, frames, wanted, CLIPS[name])
    decoder = Video().open_decoder(cut.data)
    for frame in np.random.default_rng(0).permutation(count)[:25]:
        np.testing.assert_array_equal(decoder.read(cut.positions[[frame]])[0], frames[frame])
    # what a player shows: nothing but frames of the source, and no broken ones
    path = tmp_path / f"clip.{CLIPS[name]}"
    path.write_bytes(cut.data)
    shown = ffmpeg_frames(path, 0, *frames.shape[1:3])
    packets = read_packets(f"file:{path}", 0)
    assert packets is not None
    assert len(shown) == len(packets.shown) > int(cut.positions[-1])


def test_a_stream_that_is_not_the_first(tmp_path: Path) -> None:
    source, frames = source_frames(clip("two_videos.mp4"), stream_index=2)
    cut = remuxer(source).cut(np.arange(3, 11), "mp4")
    np.testing.assert_array_equal(decoded(cut), frames[3:11])


@pytest.mark.parametrize("degrees", [90, 180])
def test_rotation_is_kept(degrees: int) -> None:
    source, frames = source_frames(rotated(degrees))
    cut = remuxer(source).cut(np.arange(14, 20), "mp4")
    np.testing.assert_array_equal(decoded(cut), frames[14:20])


def test_frames_hidden_by_an_edit_list(tmp_path: Path) -> None:
    path = tmp_path / "edited.mp4"
    run_ffmpeg("-ss", "0.6", "-i", str(clip("h264_bframes.mp4")), "-c", "copy", str(path))
    source, frames = source_frames(path)
    packets = read_packets(f"file:{path}", 0)
    assert packets is not None
    assert packets.is_hidden.any()
    for first in (0, 4, 20):
        cut = remuxer(source).cut(np.arange(first, first + 5), "mp4")
        np.testing.assert_array_equal(decoded(cut), frames[first : first + 5])


def test_sparse_frames_have_their_places_in_the_clip() -> None:
    source, frames = source_frames(clip("h264_bframes.mp4"))
    cut = remuxer(source).cut(np.array([14, 20, 33]), "mp4")
    assert cut.positions.tolist() == [2, 8, 21]  # the key frame before 14 is 12
    np.testing.assert_array_equal(decoded(cut), frames[[14, 20, 33]])


def test_a_longer_lead_in_starts_at_an_earlier_key_frame() -> None:
    source, frames = source_frames(clip("h264_bframes.mp4"))
    assert [remuxer(source).lead_in_frames(30, lead_in) for lead_in in (0, 1, 2, 3)] == [6, 18, 30, 30]
    cut = remuxer(source).cut(np.array([30]), "mp4", lead_in=1)
    assert cut.positions.tolist() == [18]
    np.testing.assert_array_equal(decoded(cut), frames[[30]])
    assert remuxer(source).cut(np.array([30]), "mp4", lead_in=99).positions.tolist() == [30]


def test_the_same_cut_gives_the_same_bytes_that_start_at_zero_and_hold_no_more_than_needed(tmp_path: Path) -> None:
    source, _ = source_frames(clip("h264_bframes.mp4"))
    one, two = (remuxer(source).cut(np.arange(26, 36), "mp4").data for _ in range(2))
    assert one == two
    path = tmp_path / "clip.mp4"
    path.write_bytes(one)
    packets = read_packets(f"file:{path}", 0)
    assert packets is not None
    assert packets.pts_ticks.min() == 0
    assert bool(packets.is_key[0])
    assert len(packets.shown) <= 12 + 3  # frames 24..35, and B-frames' references behind them
    assert len(one) < remuxer(source).size_bytes(np.arange(26, 36)) + 4000


def test_groups_of_one_picture_have_no_keys_to_seek_to() -> None:
    source, _ = source_frames(clip("mjpeg.avi"))
    cut = remuxer(source).cut(np.arange(3, 9), "mp4")
    assert cut.keys.tolist() == cut.open_keys.tolist() == []


def test_parts_fit_and_begin_at_key_frames() -> None:
    source, frames = source_frames(clip("h264_bframes.mp4"))
    every = np.arange(5, len(frames))
    whole = remuxer(source).size_bytes(every)
    parts = remuxer(source).split(every, whole // 2)
    np.testing.assert_array_equal(np.concatenate(parts), every)
    assert [int(part[0]) % 12 for part in parts[1:]] == [0] * (len(parts) - 1)
    assert all(remuxer(source).size_bytes(part) <= whole // 2 for part in parts)
    assert [len(part) for part in remuxer(source).split(every, 1)] == [1] * len(every)
    assert len(remuxer(source).split(every, whole)) == 1


def test_a_container_that_does_not_take_the_stream_is_named() -> None:
    source, _ = source_frames(clip("ffv1.mkv"))
    with pytest.raises(VideoError, match="not currently supported in container") as caught:
        remuxer(source).cut(np.arange(3), "mp4")
    assert caught.value.hint is not None
    assert "container: mkv" in caught.value.hint


def test_a_stream_without_times_is_refused() -> None:
    with pytest.raises(VideoError, match="no times"):
        Remuxer(str(clip("mpeg4_bframes.avi")), 0)


def test_what_ffmpeg_says_is_in_the_message(tmp_path: Path) -> None:
    source, _ = source_frames(clip("h264_bframes.mp4"))
    cutter = remuxer(source)
    cutter.path = str(tmp_path / "gone.mp4")
    with pytest.raises(VideoError, match=r"gone\.mp4: No such file"):
        cutter.cut(np.arange(3), "mp4")


def test_open_groups_are_told() -> None:
    found = {}
    for name in ("h264_open_gop.mkv", "h264_bframes.mp4", "hevc.mp4"):
        source, _ = source_frames(clip(name))
        cut = remuxer(source).cut(np.arange(14, 50), "mp4")  # from 12 on; what is shown before it is left out
        assert cut.positions[0] == 2
        found[name] = (cut.open_keys + 12).tolist()
        assert set(found[name]) <= set((cut.keys + 12).tolist()) == {12, 24, 36, 48}
    assert found == {"h264_open_gop.mkv": [48], "h264_bframes.mp4": [], "hevc.mp4": [24, 36, 48]}
