"""Clips the tests of `vrekit.video` read, made by the ffmpeg command line, and what FFmpeg itself says is in them."""

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

# testsrc2 draws a running clock and moving shapes: no two of its frames are alike.
_SOURCE = "-f lavfi -i testsrc2=size=160x120:rate=25:duration=2"
_LONGER = _SOURCE.replace("duration=2", "duration=4")
_SECOND = "-f lavfi -i testsrc=size=96x64:rate=10:duration=2"
_X264 = "-c:v libx264 -g 12 -bf 3 -pix_fmt yuv420p"

# name -> (encoder it needs, ffmpeg arguments between input and output)
RECIPES: dict[str, tuple[str, str]] = {
    "h264_bframes.mp4": ("libx264", f"{_SOURCE} {_X264}"),
    "h264_open_gop.mkv": ("libx264", f"{_SOURCE} {_X264} -x264-params open-gop=1"),
    "h264_intra_refresh.mp4": (
        "libx264",
        f"{_LONGER} -pix_fmt yuv420p -c:v libx264 -x264-params intra-refresh=1:keyint=12:bframes=2",
    ),
    "h264.ts": ("libx264", f"{_SOURCE} {_X264}"),
    "h264_fragmented.mp4": ("libx264", f"{_SOURCE} {_X264} -movflags frag_keyframe+empty_moov"),
    "h264_one_key_frame.mp4": ("libx264", f"{_SOURCE} -c:v libx264 -g 1000 -bf 2 -pix_fmt yuv420p"),
    "h264_faststart.mp4": ("libx264", f"{_SOURCE} {_X264} -movflags +faststart"),
    "hevc.mp4": ("libx265", f"{_SOURCE} -c:v libx265 -x265-params log-level=error:keyint=12 -pix_fmt yuv420p"),
    "hevc_10bit.mkv": ("libx265", f"{_SOURCE} -c:v libx265 -x265-params log-level=error -pix_fmt yuv420p10le"),
    "hevc_intra.mp4": ("libx265", f"{_SOURCE} -c:v libx265 -x265-params log-level=error:keyint=1 -pix_fmt yuv420p"),
    "av1.mkv": ("libaom-av1", f"{_SOURCE} -frames:v 20 -c:v libaom-av1 -cpu-used 8 -g 8 -usage realtime"),
    "vp9.webm": ("libvpx-vp9", f"{_SOURCE} -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 12"),
    "ffv1.mkv": ("ffv1", f"{_SOURCE} -c:v ffv1 -g 1"),
    "mjpeg.avi": ("mjpeg", f"{_SOURCE} -c:v mjpeg -q:v 3"),
    "odd_size.mp4": ("libx264", f"-f lavfi -i testsrc2=size=107x61:rate=10:duration=1 {_X264.replace('420', '444')}"),
    "vfr.mp4": ("libx264", f"{_SOURCE} -vf select='not(between(mod(n\\,13)\\,3\\,7))' -fps_mode vfr {_X264}"),
    "non_zero_start.mp4": ("libx264", f"{_SOURCE} {_X264} -output_ts_offset 8.333"),
    "two_videos.mp4": (
        "libx264",
        f"{_SOURCE} {_SECOND} -f lavfi -i sine=duration=2 -map 0:v -map 2:a -map 1:v {_X264}",
    ),
    "mpeg4_bframes.avi": ("mpeg4", f"{_SOURCE} -c:v mpeg4 -bf 2"),
    "name with: colon, 100%d.mp4": ("libx264", f"{_SOURCE} -frames:v 5 {_X264}"),
}


@functools.cache
def _folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="vrekit_clips_")


@functools.cache
def _encoders() -> str:
    if shutil.which("ffmpeg") is None:
        return ""
    return subprocess.run(["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, text=True, check=True).stdout


def need_encoder(name: str) -> None:
    """Skip the test when ffmpeg lacks an encoder; in CI that is a failure."""
    if f" {name} " not in _encoders():
        message = f"the ffmpeg command line is missing or has no encoder {name}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


def run_ffmpeg(*arguments: str) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-nostdin", *arguments], check=True, capture_output=True)


@functools.cache
def _made(name: str) -> Path:
    path = Path(_folder().name) / name
    run_ffmpeg(*RECIPES[name][1].split(), f"file:{path}")
    return path


def clip(name: str) -> Path:
    """Return the path of a clip of `RECIPES`, made on first use."""
    need_encoder(RECIPES[name][0])
    return _made(name)


def rotated(degrees: int) -> Path:
    """Return the B-frame clip with a display matrix that asks for a rotation (`-display_rotation`)."""
    path = Path(_folder().name) / f"rotated_{degrees}.mp4"
    if not path.exists():
        source = clip("h264_bframes.mp4")
        # ffmpeg 5 has no -display_rotation; mov writes the matrix from the older `rotate` tag there.
        try:
            run_ffmpeg("-display_rotation", str(degrees), "-i", str(source), "-c", "copy", str(path))
        except subprocess.CalledProcessError:
            run_ffmpeg("-i", str(source), "-c", "copy", "-metadata:s:v", f"rotate={degrees % 360}", str(path))
    return path


def ffmpeg_frames(path: Path, stream_index: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return all frames as FFmpeg decodes them in one go, uint8 (N, H, W, 3)."""
    raw = subprocess.run(
        [
            "ffmpeg",
            "-v",
            "quiet",
            "-nostdin",
            "-threads",
            "1",
            "-i",
            f"file:{path}",
            *f"-map 0:{stream_index} -fps_mode passthrough -f rawvideo -pix_fmt rgb24 -".split(),
        ],
        capture_output=True,
        check=False,  # a damaged file ends in an error after its last frame
    ).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def ffprobe_pts(path: Path, stream_index: int) -> NDArray[np.float64]:
    """Return the presentation times of the frames that decode, float64 seconds (N,), to a microsecond."""
    text = subprocess.run(
        [
            *f"ffprobe -v quiet -threads 1 -select_streams {stream_index} -show_entries frame=pts_time".split(),
            "-of",
            "default=nokey=1:noprint_wrappers=1",
            "-i",
            f"file:{path}",
        ],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return np.array([float(line) for line in text.split() if line != "N/A"])
