"""The packet table of a video file: when each frame is shown, read with `ffprobe` without decoding anything.

torchcodec scans the same table when it opens a file but does not hand it out. We need it for two things: presentation
times of frames that are not decoded, and to tell *which* frame the decoder returned. A decoder skips damaged frames
without a word, so after one the k-th frame it yields is no longer frame k; its presentation time says which it is.
"""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from vrekit.core.ffmpeg import SAFE_INPUT

# Frames that a decoder may keep before it gives the first one: the most that H.264 and HEVC allow.
MOST_REORDERED = 16


@dataclass(frozen=True, slots=True)
class PacketTable:
    """Frames of one video stream in the order they are shown.

    Attributes:
        pts_ticks: int64 (N,): presentation times in units of `time_base`; they rise, except where the container's
            clock stands still or jumps back.
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

    @property
    def is_rising(self) -> bool:
        """Whether a frame's time tells which frame it is: each is shown later than the one before."""
        return bool(np.all(np.diff(self.pts_ticks) > 0))

    @property
    def seek_points(self) -> NDArray[np.int64]:
        """Return the key frames that a seek by time finds, int64 (K,): all before are earlier, all behind are later."""
        latest_before = np.maximum.accumulate(self.pts_ticks)[:-1]
        earliest_behind = np.minimum.accumulate(self.pts_ticks[::-1])[::-1][1:]
        is_found = self.is_key.copy()
        is_found[1:] &= self.pts_ticks[1:] > latest_before
        is_found[:-1] &= self.pts_ticks[:-1] < earliest_behind
        return np.flatnonzero(is_found).astype(np.int64)


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
        reordered: The decoder may give frames in another order than it gets them (B-frames).
        is_corrupt: bool (N,): FFmpeg found in the container that the packet is damaged or not whole.
    """

    pts_ticks: NDArray[np.int64]
    size_bytes: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    is_hidden: NDArray[np.bool_]
    time_base: Fraction
    guessed: bool
    reordered: bool
    is_corrupt: NDArray[np.bool_]

    @property
    def shown(self) -> NDArray[np.int64]:
        """Return the place of each frame's packet, int64 (frames,): those that are shown, by presentation time."""
        places = np.flatnonzero(~self.is_hidden)
        return places[np.argsort(self.pts_ticks[places], kind="stable")]

    @property
    def table(self) -> PacketTable:
        """Return the frames by presentation time: the order a decoder gives them in, unless `jumps_back`."""
        shown = self.shown
        return PacketTable(self.pts_ticks[shown], self.is_key[shown], self.time_base, self.guessed)

    @property
    def jumps_back(self) -> bool:
        """Whether the clock jumps back: a packet is shown before more packets than a decoder keeps."""
        places = np.flatnonzero(~self.is_hidden)
        pts = self.pts_ticks[places]
        ranks = np.empty(len(pts), np.int64)
        ranks[np.argsort(pts, kind="stable")] = np.arange(len(pts))
        if np.any(np.arange(len(pts)) - ranks > (MOST_REORDERED if self.reordered else 0)):
            return True
        keys = self.is_key[places]
        return bool(np.any(pts[keys] < np.maximum.accumulate(pts)[keys]))

    @property
    def is_in_order(self) -> bool:
        """Whether the packets are shown in the order they are stored."""
        return bool(np.all(np.diff(self.pts_ticks[~self.is_hidden]) >= 0))


@dataclass(frozen=True, slots=True)
class Probe:
    """What `ffprobe` tells about the video streams of a file, without decoding it.

    Attributes:
        url: What FFmpeg opened.
        format_name: FFmpeg's name of the container (`mov,mp4,m4a,3gp,3g2,mj2`), empty when it did not open.
        streams: Stream index → its fields by ffprobe's names, for the video streams.
        complaints: What FFmpeg warned of.
    """

    url: str
    format_name: str
    streams: Mapping[int, Mapping[str, str]]
    complaints: tuple[str, ...]
    _packets: Mapping[int, Sequence[Mapping[str, str]]]

    @property
    def refused_format(self) -> str | None:
        """Return the name of the format if it is one that FFmpeg must not open, else None."""
        for line in self.complaints:
            if match := re.match(r"\[(\S+) @ \w+\] Format not on whitelist", line):
                return match[1]
        return None

    def packets(self, stream_index: int) -> Packets | None:
        """Return the packets of a stream, None when their times cannot be told."""
        stream = self.streams.get(stream_index)
        if stream is None:
            return None
        pts: list[int] = []
        sizes: list[int] = []
        flags: list[str] = []
        is_corrupt: list[bool] = []
        missing = False
        listed = self._packets.get(stream_index, ())
        corrupt_dts = {match[1] for line in self.complaints if (match := _corrupt(stream_index).search(line))}
        if corrupt_dts:  # a time tells only if no other packet has it
            counts = Counter(fields.get("dts") for fields in listed)
            corrupt_dts = {dts for dts in corrupt_dts if counts[dts] == 1}
        for fields in listed:
            flag = fields.get("flags", "")
            shown_at = fields.get("pts", "N/A")
            if shown_at == "N/A":
                missing = missing or "D" not in flag
                shown_at = fields.get("dts", "N/A")
            if shown_at == "N/A" and "D" in flag:
                shown_at = str(pts[-1] if pts else 0)
            if shown_at == "N/A":
                return None
            pts.append(int(shown_at))
            sizes.append(int(fields.get("size", "0")))
            flags.append(flag)
            is_corrupt.append("C" in flag or fields.get("dts") in corrupt_dts)  # FFmpeg 5 has no flag for it
        numerator, _, denominator = stream["time_base"].partition("/")
        time_base = Fraction(int(numerator), int(denominator))
        reordered = stream.get("has_b_frames", "0") not in ("0", "N/A")
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
            reordered=reordered,
            is_corrupt=np.array(is_corrupt, np.bool_),
        )

    def without_packets(self) -> "Probe":
        """Return the rest, which is small."""
        return replace(self, _packets={})

    def describe_streams(self) -> str:
        """Return `0 (h264 320x180), 3 (h264 480x270)` for a message."""
        return ", ".join(
            f"{index} ({fields.get('codec_name', '?')} {fields.get('width', '?')}x{fields.get('height', '?')})"
            for index, fields in self.streams.items()
        )


def _corrupt(stream_index: int) -> re.Pattern[str]:
    return re.compile(rf"Packet corrupt \(stream = {stream_index}, dts = (-?\d+)\)")


def probe(url: str, *, stream_index: int | None = None) -> Probe | None:
    """Return what `ffprobe` tells about a file, None when there is no `ffprobe`.

    Args:
        url: What FFmpeg opens, such as `file:/videos/car.mp4`.
        stream_index: Only this stream; None is all video streams.
    """
    chosen = "v" if stream_index is None else str(stream_index)
    result = _ffprobe(
        url,
        ["-select_streams", chosen],
        "packet=stream_index,pts,dts,size,flags:stream=index,codec_name,width,height,time_base,has_b_frames,pix_fmt,"
        "sample_aspect_ratio,field_order,color_range,color_space,color_transfer,color_primaries"
        ":stream_tags=alpha_mode:format=format_name",
    )
    if result is None:
        return None
    lines, complaints = result
    streams: dict[int, Mapping[str, str]] = {}
    packets: dict[int, list[Mapping[str, str]]] = {}
    format_name = ""
    for kind, fields in lines:
        if kind == "packet":
            packets.setdefault(int(fields["stream_index"]), []).append(fields)
        elif kind == "stream":
            streams[int(fields["index"])] = fields
        elif kind == "format":
            format_name = fields.get("format_name", "")
    return Probe(url, format_name, streams, complaints, packets)


def read_packets(url: str, stream_index: int) -> Packets | None:
    """Return the packets of a stream, or None when there is no `ffprobe` or it cannot tell; see `probe`."""
    found = probe(url, stream_index=stream_index)
    return None if found is None else found.packets(stream_index)


def read_decoded_pts(
    url: str, stream_index: int, *, limit: int | None = None, is_strict: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Decode a stream, and return the times of its frames in the order FFmpeg gives them.

    Args:
        url: What FFmpeg opens.
        stream_index: Stream among all streams of the container.
        limit: Stop behind that many packets.
        is_strict: Leave out frames in which the decoder finds errors, instead of concealing them.

    Returns:
        int64 (N,): ticks of the stream's time base, that of the frame before where a frame has none; bool (N,): it
        is a key frame.
    """
    options = ["-select_streams", str(stream_index), *(["-err_detect", "explode"] if is_strict else ["-threads", "1"])]
    if limit is not None:
        options += ["-read_intervals", f"%+#{limit}"]
    lines, _ = _ffprobe(url, options, "frame=key_frame,pts,pkt_dts") or ([], ())
    frames = [fields for _, fields in lines if "key_frame" in fields]  # other lines hold side data
    ticks: list[int] = []
    for fields in frames:
        known = next((fields[name] for name in ("pts", "pkt_dts") if fields.get(name, "N/A") != "N/A"), None)
        ticks.append(int(known) if known is not None else ticks[-1] if ticks else 0)
    keys = [fields.get("key_frame") == "1" for fields in frames]
    return np.asarray(ticks, np.int64), np.asarray(keys, np.bool_)


def _ffprobe(
    url: str, options: list[str], entries: str
) -> tuple[list[tuple[str, dict[str, str]]], tuple[str, ...]] | None:
    """Return (section, fields) of each line, and the warnings; None without `ffprobe`.

    A damaged file gives what can be read.
    """
    program = shutil.which("ffprobe")
    if program is None:
        return None
    result = subprocess.run(
        [program, "-v", "warning", *SAFE_INPUT, *options, "-show_entries", entries, "-of", "compact", "-i", url],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    lines = []
    for line in result.stdout.decode(errors="replace").splitlines():
        kind, *pairs = line.split("|")
        lines.append((kind, dict(pair.split("=", 1) for pair in pairs if "=" in pair)))
    return lines, tuple(result.stderr.decode(errors="replace").splitlines())
