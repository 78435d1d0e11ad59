"""FileSource on intact files: frame k is FFmpeg's frame k, and is shown when ffprobe says so."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.video.video_clips import RECIPES, clip, ffmpeg_frames, ffprobe_pts, rotated
from vrekit.core.errors import UsageError, VideoError
from vrekit.video.files import FileSource
from vrekit.video.fingerprint import fingerprint

INTACT = [name for name in RECIPES if name != "mpeg4_bframes.avi"]


def read_in_chunks(source: FileSource, size: int) -> NDArray[np.uint8]:
    count = source.info.frame_count
    parts = [source.read(range(first, min(first + size, count))) for first in range(0, count, size)]
    assert all(not part.failures for part in parts)
    np.testing.assert_array_equal(np.concatenate([part.indices for part in parts]), np.arange(count))
    return np.concatenate([part.frames for part in parts])


def assert_frame_exact(source: FileSource, expected: NDArray[np.uint8]) -> int:
    """Check sequential and random reads against all frames of FFmpeg; return the largest difference."""
    count = source.info.frame_count
    assert len(expected) == count
    frames = read_in_chunks(source, 7)
    difference = int(np.abs(frames.astype(np.int16) - expected).max())
    # swscale may round differently on another CPU; neighbours differ by far more than this.
    assert difference <= 2
    order = np.random.default_rng(0).permutation(count)[:25].tolist()
    for number in [count - 1, 0, *order]:
        single = source.read([number])
        assert single.indices.tolist() == [number]
        np.testing.assert_array_equal(single.frames[0], frames[number])
    strided = source.read(range(0, count, 5))
    np.testing.assert_array_equal(strided.frames, frames[::5])
    return difference


@pytest.mark.parametrize("name", INTACT)
def test_frame_k_is_ffmpegs_frame_k(name: str) -> None:
    path = clip(name)
    with FileSource(path) as source:
        info = source.info
        assert info.stream_index is not None
        expected = ffmpeg_frames(path, info.stream_index, info.height, info.width)
        # The comparison can only tell frame k from its neighbours if those differ.
        assert np.abs(np.diff(expected.astype(np.int16), axis=0)).max(axis=(1, 2, 3)).min() > 20
        assert_frame_exact(source, expected)
        np.testing.assert_allclose(
            source.pts_seconds(source.frame_indices), ffprobe_pts(path, info.stream_index), atol=1e-6, rtol=0
        )


def test_what_read_returns() -> None:
    with FileSource(clip("h264_bframes.mp4")) as source:
        batch = source.read(range(3, 9))
        assert batch.frames.shape == (6, 120, 160, 3)
        assert batch.frames.dtype == np.uint8
        assert batch.frames.flags.c_contiguous
        assert batch.frames.flags.writeable
        assert batch.indices.dtype == np.int64
        none = source.read([])
        assert none.frames.shape == (0, 120, 160, 3)
        assert none.indices.tolist() == []


def test_info() -> None:
    path = clip("h264_bframes.mp4")
    with FileSource(path) as source:
        info = source.info
    assert (info.source, info.codec, info.frame_count, info.height, info.width) == ("file", "h264", 50, 120, 160)
    assert info.fps == pytest.approx(25.0)
    assert info.duration_seconds == pytest.approx(2.0)
    assert info.rotation_degrees == 0.0
    assert info.uri == str(path)
    assert info.fingerprint == fingerprint(path)


def test_variable_frame_rate_keeps_the_gaps() -> None:
    with FileSource(clip("vfr.mp4")) as source:
        gaps = np.round(np.diff(source.pts_seconds(source.frame_indices)), 3)
    assert set(gaps.tolist()) == {0.04, 0.24}


def test_first_pts_need_not_be_zero() -> None:
    with FileSource(clip("non_zero_start.mp4")) as source:
        assert source.pts_seconds(np.array([0, 1])).tolist() == pytest.approx([8.333, 8.373], abs=2e-3)
        assert source.info.duration_seconds == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_is_applied(degrees: int) -> None:
    path = rotated(degrees)
    with FileSource(path) as source, FileSource(clip("h264_bframes.mp4")) as upright:
        assert source.info.rotation_degrees % 360 == degrees % 360
        expected_shape = (120, 160) if degrees == 180 else (160, 120)
        assert (source.info.height, source.info.width) == expected_shape
        expected = ffmpeg_frames(path, 0, source.info.height, source.info.width)
        frames = source.read([0, 17]).frames
        np.testing.assert_array_equal(frames, expected[[0, 17]])
        turned = np.rot90(upright.read([17]).frames[0], degrees // 90)
        # Chroma is shared by 2x2 pixels and interpolated, so turning before or after conversion differs at edges.
        assert np.abs(turned.astype(np.int16) - frames[1]).mean() < 8
        assert np.abs(np.rot90(turned, 2).astype(np.int16) - frames[1]).mean() > 20


def test_streams_are_chosen_by_their_index_in_the_container() -> None:
    path = clip("two_videos.mp4")
    with FileSource(path, stream_index=0) as first, FileSource(path, stream_index=2) as second:
        assert (first.info.width, first.info.frame_count, first.info.stream_index) == (160, 50, 0)
        assert (second.info.width, second.info.frame_count, second.info.stream_index) == (96, 20, 2)
        assert_frame_exact(second, ffmpeg_frames(path, 2, 64, 96))
    for wrong in (1, 7):
        with pytest.raises(VideoError, match=f"stream {wrong} is no video stream") as caught:
            FileSource(path, stream_index=wrong)
        assert "0 (h264 160x120), 2 (h264 96x64)" in str(caught.value.hint)
    with pytest.raises(UsageError, match="stream_index must be 0 or more, got -1"):
        FileSource(path, stream_index=-1)


@pytest.mark.parametrize("threads", [0, 3])
def test_threads_do_not_change_frames(threads: int) -> None:
    path = clip("h264_bframes.mp4")
    with FileSource(path) as one, FileSource(path, threads=threads) as many:
        np.testing.assert_array_equal(read_in_chunks(one, 16), read_in_chunks(many, 16))
    with pytest.raises(UsageError, match="threads"):
        FileSource(path, threads=-1)


def test_consecutive_reads_do_not_decode_again() -> None:
    # With one key frame, starting over at each read would decode every frame before it: 12 times the work here.
    path = clip("h264_one_key_frame.mp4")

    def seconds(chunk: int) -> float:
        best = float("inf")
        for _ in range(3):
            with FileSource(path) as source:
                start = time.process_time()
                read_in_chunks(source, chunk)
                best = min(best, time.process_time() - start)
        return best

    assert seconds(2) < 4 * seconds(50)


def test_without_ffprobe_times_come_from_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    path = clip("vfr.mp4")
    with FileSource(path) as source:
        frames, pts = read_in_chunks(source, 8), source.pts_seconds(source.frame_indices)
    monkeypatch.setenv("PATH", "")
    with FileSource(path) as source:
        np.testing.assert_array_equal(source.pts_seconds(source.frame_indices), pts)
        np.testing.assert_array_equal(read_in_chunks(source, 8), frames)


def test_wrong_numbers_are_usage_errors() -> None:
    with FileSource(clip("h264_bframes.mp4")) as source:
        with pytest.raises(UsageError, match="no frame 50") as caught:
            source.read([49, 50])
        assert "0..49" in str(caught.value.hint)
        for wrong in ([3, 3], [4, 2], [-1]):
            with pytest.raises(UsageError):
                source.read(wrong)


def test_closed_source_says_so() -> None:
    source = FileSource(clip("h264_bframes.mp4"))
    source.close()
    with pytest.raises(VideoError, match="closed"):
        source.read([0])


def test_reordered_frames_without_times_are_refused() -> None:
    with pytest.raises(VideoError, match="no presentation times") as caught:
        FileSource(clip("mpeg4_bframes.avi"))
    assert "ffmpeg -i" in str(caught.value.hint)


def test_missing_ffmpeg_libraries_are_one_line_with_a_hint(tmp_path: Path) -> None:
    # A torchcodec that fails on import as the real one does when it finds no FFmpeg.
    package = tmp_path / "torchcodec"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('Could not load libtorchcodec. Likely causes:\\n 1. ...')")
    code = (
        "import sys\nfrom vrekit.video.opener import open_source\nfrom vrekit.core.errors import VideoError\n"
        "try:\n    open_source(sys.argv[1])\nexcept VideoError as error:\n    print(error)\n    print(error.hint)\n"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code, __file__],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"},
        capture_output=True,
        text=True,
        check=True,
    )
    message, hint = result.stdout.splitlines()
    assert message.endswith(
        "torchcodec cannot load FFmpeg's shared libraries: Could not load libtorchcodec. Likely causes:"
    )
    assert "apt install ffmpeg" in hint


@pytest.mark.real_data
def test_real_videos_are_frame_exact(capsys: pytest.CaptureFixture[str]) -> None:
    if "VREKIT_TEST_DATA" not in os.environ:
        pytest.skip("VREKIT_TEST_DATA is not set")
    videos = sorted(Path(os.environ["VREKIT_TEST_DATA"], "videos").iterdir())
    assert videos
    for path in videos:
        if "no_moov" in path.name:
            with pytest.raises(VideoError, match="cannot be opened"):
                FileSource(path)
            continue
        for stream in video_streams(path):
            with FileSource(path, stream_index=stream) as source:
                compared, difference = compare_with_ffmpeg(source, path, stream)
            with capsys.disabled():
                print(f"\n{path.name} stream {stream}: {compared} frames, largest difference {difference}", end="")


def video_streams(path: Path) -> list[int]:
    text = subprocess.run(
        [
            "ffprobe",
            "-v",
            "error",
            "-select_streams",
            "v",
            "-show_entries",
            "stream=index",
            "-of",
            "csv=p=0",
            str(path),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [int(line.split(",")[0]) for line in text.split()]


def compare_with_ffmpeg(source: FileSource, path: Path, stream: int) -> tuple[int, int]:
    """Compare every frame that decodes, in order and at random; return (frames, largest difference)."""
    expected = ffmpeg_frames(path, stream, source.info.height, source.info.width)
    asked = [range(first, min(first + 32, source.info.frame_count)) for first in range(0, source.info.frame_count, 32)]
    numbers = np.zeros(0, np.int64)
    difference = 0
    for part in map(source.read, asked):
        reference = expected[len(numbers) : len(numbers) + len(part.frames)]
        difference = max(difference, int(np.abs(part.frames.astype(np.int16) - reference).max(initial=0)))
        numbers = np.concatenate([numbers, part.indices])
    assert difference <= 2
    assert len(numbers) == len(expected)
    np.testing.assert_allclose(source.pts_seconds(numbers), ffprobe_pts(path, stream), atol=1e-6, rtol=0)
    at = np.random.default_rng(0).permutation(len(numbers))[:20].tolist()
    for position in [len(numbers) - 1, 0, *at]:
        single = source.read([int(numbers[position])])
        assert np.abs(single.frames[0].astype(np.int16) - expected[position]).max() <= 2
    return len(numbers), difference
