"""FileSource on damaged files: every frame that decodes, under its own number, and a reason for each other."""

import json
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.video.video_clips import clip, ffmpeg_frames, ffprobe_pts
from vrekit.core.errors import VideoError
from vrekit.video.decoder import LabelledDecoder
from vrekit.video.files import FileSource


def cut(source: Path, target: Path, fraction: float) -> Path:
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * fraction)])
    return target


def spoil_packets(source: Path, target: Path, *numbers: int) -> Path:
    """Copy a mp4 file with these packets (in decoding order) filled with bytes no decoder accepts."""
    text = subprocess.run(
        ["ffprobe", "-v", "error", "-show_entries", "packet=pos,size", "-of", "json", str(source)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    packets = json.loads(text)["packets"]
    content = bytearray(source.read_bytes())
    for number in numbers:
        offset, size = int(packets[number]["pos"]), int(packets[number]["size"])
        content[offset : offset + size] = b"\xff" * size
    target.write_bytes(content)
    return target


def assert_same_frames_as_ffmpeg(
    path: Path, chunk: int, *, same_pixels: bool = True
) -> tuple[set[int], dict[int, str]]:
    """Read a file in chunks; return the numbers that decoded and the failures."""
    with FileSource(path) as source:
        count = source.info.frame_count
        parts = [source.read(range(first, min(first + chunk, count))) for first in range(0, count, chunk)]
        for first, part in zip(range(0, count, chunk), parts, strict=True):
            assert set(part.indices.tolist()) | set(part.failures) == set(range(first, min(first + chunk, count)))
            assert not set(part.indices.tolist()) & set(part.failures)
        numbers = np.concatenate([part.indices for part in parts])
        np.testing.assert_allclose(source.pts_seconds(numbers), ffprobe_pts(path, 0), atol=1e-6, rtol=0)
        if same_pixels:
            expected = ffmpeg_frames(path, 0, source.info.height, source.info.width)
            np.testing.assert_array_equal(np.concatenate([part.frames for part in parts]), expected)
    failures = {number: reason for part in parts for number, reason in part.failures.items()}
    assert all(failures.values())
    return set(numbers.tolist()), failures


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_truncated_faststart_file_gives_all_that_decodes(tmp_path: Path, chunk: int) -> None:
    path = cut(clip("h264_faststart.mp4"), tmp_path / "cut.mp4", 0.6)
    decoded, failures = assert_same_frames_as_ffmpeg(path, chunk)
    assert 15 < len(decoded) < 45
    assert failures, "the index of the file still lists frames whose data is gone"
    known = ("Invalid data found", "ends before it", "skipped it")
    assert all(any(part in reason for part in known) for reason in failures.values())


@pytest.mark.parametrize("name", ["h264_open_gop.mkv", "h264.ts", "ffv1.mkv", "vp9.webm", "h264_fragmented.mp4"])
def test_truncated_files(tmp_path: Path, name: str) -> None:
    source = clip(name)
    decoded, _ = assert_same_frames_as_ffmpeg(cut(source, tmp_path / f"cut{source.suffix}", 0.6), 8)
    assert len(decoded) > 15


@pytest.mark.parametrize("chunk", [1, 5, 64])
@pytest.mark.parametrize("lost", [0, 23, 49])
def test_one_damaged_frame_does_not_shift_or_lose_the_others(tmp_path: Path, chunk: int, lost: int) -> None:
    source = clip("hevc_intra.mp4")
    path = spoil_packets(source, tmp_path / "damaged.mp4", lost)
    with FileSource(source) as intact, FileSource(path) as damaged:
        expected = intact.read(range(50)).frames
        seen = []
        for first in range(0, 50, chunk):
            part = damaged.read(range(first, min(first + chunk, 50)))
            assert set(part.failures) == ({lost} & set(range(first, first + chunk)))
            np.testing.assert_array_equal(part.frames, expected[part.indices])
            seen += part.indices.tolist()
        assert seen == [number for number in range(50) if number != lost]
        reason = damaged.read([lost]).failures[lost]
    assert "Invalid data found" in reason or "ends before it" in reason


@pytest.mark.parametrize("name", ["hevc.mp4", "h264_bframes.mp4", "h264_one_key_frame.mp4"])
def test_lost_packets_in_the_middle(tmp_path: Path, name: str) -> None:
    source = clip(name)
    path = spoil_packets(source, tmp_path / "damaged.mp4", 17, 18, 31)
    decoded, failures = assert_same_frames_as_ffmpeg(path, 6, same_pixels=False)
    assert 1 <= len(failures) <= 12
    assert {0, 1, 2, 47, 48, 49} <= decoded
    with FileSource(source) as intact, FileSource(path) as damaged:
        np.testing.assert_array_equal(damaged.read([0]).frames, intact.read([0]).frames)
        # Asked for singly, at random and again, the same frames are lost.
        for number in np.random.default_rng(1).permutation(50).tolist():
            assert (number in damaged.read([number]).failures) == (number in failures)


def test_first_packets_lost(tmp_path: Path) -> None:
    # The decoder fails before it gave any frame; there is no other key frame to start from.
    path = spoil_packets(clip("h264_one_key_frame.mp4"), tmp_path / "damaged.mp4", 1, 2)
    decoded, failures = assert_same_frames_as_ffmpeg(path, 10, same_pixels=False)
    assert 0 in decoded
    assert len(decoded) > 40
    assert failures


def test_frames_behind_the_damage_are_found_by_jumping(tmp_path: Path) -> None:
    path = spoil_packets(clip("hevc.mp4"), tmp_path / "damaged.mp4", 20, 21)
    _, failures = assert_same_frames_as_ffmpeg(path, 50, same_pixels=False)
    lost = min(failures)
    with FileSource(path) as source:
        batch = source.read([lost, 48])
    assert batch.indices.tolist() == [48]
    assert list(batch.failures) == [lost]


def test_effort_is_linear_however_much_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One key frame and faults all over: starting again behind each would decode from frame 0 every time.
    path = spoil_packets(clip("h264_one_key_frame.mp4"), tmp_path / "damaged.mp4", *range(5, 50, 4))
    calls: Counter[str] = Counter()
    pull = LabelledDecoder.pull

    def counting_pull(decoder: LabelledDecoder) -> object:
        calls["pull"] += 1
        return pull(decoder)

    monkeypatch.setattr(LabelledDecoder, "pull", counting_pull)
    with FileSource(path) as source:
        count = source.info.frame_count
        got = sum(len(source.read([number]).indices) for number in range(count))
    assert got > 10
    assert calls["pull"] <= 3 * count


def test_file_without_its_index_cannot_be_opened(tmp_path: Path) -> None:
    path = cut(clip("h264_bframes.mp4"), tmp_path / "no_moov.mp4", 0.6)
    with pytest.raises(VideoError, match=r"no_moov\.mp4: cannot be opened as a video: Invalid data found") as caught:
        FileSource(path)
    assert "cut off" in str(caught.value.hint)


def test_damage_cannot_be_placed_without_ffprobe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cut(clip("h264_faststart.mp4"), tmp_path / "cut.mp4", 0.6)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(VideoError, match="without `ffprobe`") as caught:
        FileSource(path)
    assert "apt install ffmpeg" in str(caught.value.hint)
