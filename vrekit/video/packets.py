"""The packet table of a video file: when each frame is shown, read with `ffprobe` without decoding anything.

torchcodec scans the same table when it opens a file but does not hand it out. We need it for two things: presentation
times of frames that are not decoded, and to tell *which* frame the decoder returned. A decoder skips damaged frames
without a word, so after one the k-th frame it yields is no longer frame k; its presentation time says which it is.
"""

import shutil
import subprocess
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PacketTable:
    """Frames of one video stream in the order they are shown.

    Attributes:
        pts_ticks: int64 (N,): presentation times in units of `time_base`, rising.
        is_key: bool (N,): decoding can start at this frame.
        time_base: Seconds per tick.
        guessed: Some presentation times are missing in a stream with reordered frames (AVI with B-frames), so frame
            numbers cannot be told.
    """

    pts_ticks: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    time_base: Fraction
    guessed: bool = False

    @property
    def pts_seconds(self) -> NDArray[np.float64]:
        """Return presentation times, float64 seconds, shape (N,)."""
        # The same operations in the same order as torchcodec, so that equal ticks give equal seconds.
        return self.pts_ticks.astype(np.float64) * self.time_base.numerator / self.time_base.denominator


@dataclass(frozen=True, slots=True)
class Packets:
    """Packets of one video stream in the order they are stored and decoded.

    Attributes:
        pts_ticks: int64 (N,): presentation times in units of `time_base`; the decoding time where there is none.
        size_bytes: int64 (N,): size of each.
        is_key: bool (N,): decoding can start at this packet.
        is_hidden: bool (N,): it lies before the start of the edit, so its frame is decoded but never shown.
        time_base: Seconds per tick.
        guessed: Some presentation times are missing in a stream with reordered frames.
    """

    pts_ticks: NDArray[np.int64]
    size_bytes: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    is_hidden: NDArray[np.bool_]
    time_base: Fraction
    guessed: bool

    @property
    def shown(self) -> NDArray[np.int64]:
        """Return the place of each frame's packet, int64 (frames,): those that are shown, by presentation time."""
        places = np.flatnonzero(~self.is_hidden)
        return places[np.argsort(self.pts_ticks[places], kind="stable")]


def read_packets(url: str, stream_index: int) -> Packets | None:
    """Return the packets of a stream, or None when there is no `ffprobe` or it cannot tell.

    Args:
        url: What FFmpeg opens, such as `file:/videos/car.mp4`.
        stream_index: Index of the video stream among all streams of the container.
    """
    lines = _ffprobe(
        url,
        ["-select_streams", str(stream_index)],
        "packet=pts,dts,size,flags:stream=time_base,has_b_frames",
    )
    pts: list[int] = []
    sizes: list[int] = []
    flags: list[str] = []
    time_base, reordered, missing = Fraction(0), False, False
    for kind, fields in lines:
        if kind == "packet":
            shown_at = fields.get("pts", "N/A")
            if shown_at == "N/A":
                missing = missing or "D" not in fields.get("flags", "")
                shown_at = fields.get("dts", "N/A")
            if shown_at == "N/A" and "D" in fields.get("flags", ""):
                shown_at = str(pts[-1] if pts else 0)
            if shown_at == "N/A":
                return None
            pts.append(int(shown_at))
            sizes.append(int(fields.get("size", "0")))
            flags.append(fields.get("flags", ""))
        elif kind == "stream":
            numerator, _, denominator = fields["time_base"].partition("/")
            time_base = Fraction(int(numerator), int(denominator))
            reordered = fields.get("has_b_frames", "0") not in ("0", "N/A")
    is_hidden = np.array(["D" in flag for flag in flags], np.bool_)  # D: to be discarded
    if is_hidden.all() or not time_base:
        return None
    return Packets(
        np.asarray(pts, np.int64),
        np.asarray(sizes, np.int64),
        np.array(["K" in flag for flag in flags], np.bool_),
        is_hidden,
        time_base,
        guessed=missing and reordered,
    )


def read_packet_table(url: str, stream_index: int) -> PacketTable | None:
    """Return the packet table of a stream, or None when there is no `ffprobe` or it cannot tell; see `read_packets`."""
    packets = read_packets(url, stream_index)
    if packets is None:
        return None
    shown = packets.shown
    return PacketTable(packets.pts_ticks[shown], packets.is_key[shown], packets.time_base, packets.guessed)


def describe_video_streams(url: str) -> str:
    """Return `0 (h264 320x180), 3 (h264 480x270)` for a message; empty when it cannot be told."""
    lines = _ffprobe(url, ["-select_streams", "v"], "stream=index,codec_name,width,height")
    return ", ".join(
        f"{fields['index']} ({fields.get('codec_name', '?')} {fields.get('width', '?')}x{fields.get('height', '?')})"
        for kind, fields in lines
        if kind == "stream" and "index" in fields
    )


def _ffprobe(url: str, options: list[str], entries: str) -> list[tuple[str, dict[str, str]]]:
    """Return (section, fields) of each line; empty without `ffprobe`. A damaged file gives what can be read."""
    program = shutil.which("ffprobe")
    if program is None:
        return []
    result = subprocess.run(
        [program, "-v", "quiet", *options, "-show_entries", entries, "-of", "compact", "-i", url],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    lines = []
    for line in result.stdout.decode(errors="replace").splitlines():
        kind, *pairs = line.split("|")
        lines.append((kind, dict(pair.split("=", 1) for pair in pairs if "=" in pair)))
    return lines
