"""Cut frames out of a video file as a small file of their own, packet by packet: nothing is decoded or encoded again.

A clip starts at a key frame at or before its first frame and ends behind the last packet that its last frame needs.
FFmpeg's command line does the copying, in two passes, because only FFmpeg knows where its seek lands: the first lists
the packets that it would copy (`-f framecrc`, no file is written), the second leaves out, by number, those that the
clip must not have. Those are the packets before the key frame, the ones behind the end, and of an open group of
pictures the frames that are decoded after the key frame but shown before it: they refer to the group before, which the
clip does not have, and a decoder would skip or garble them.
"""

import logging
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vrekit.core.errors import VideoError
from vrekit.core.ffmpeg import MUXERS, SAFE_INPUT, ffmpeg_program
from vrekit.video.packets import Packets, read_packets

logger = logging.getLogger(__name__)

_HINT = "`codec: {id: video, encode: ffv1}` keeps the frames exactly without cutting the file"
_BACK_SECONDS = (0.0, 5.0, 60.0)  # how far before the key frame to seek, when FFmpeg lands behind it
_BEYOND_SECONDS = 2.0  # how far behind the last packet to read, as FFmpeg stops by decoding times


@dataclass(frozen=True, slots=True)
class RemuxedClip:
    """Frames of a video in a file of their own.

    Attributes:
        data: The file.
        positions: int64 (N,): place of each frame that was asked for among the clip's frames, in the order of
            presentation, from 0.
        keys: int64 (K,): places of the key frames that have other frames behind them in their group. Decoders seek to
            them, but cannot start without mistakes at all of them: those of an intra refresh hold a part of the
            picture only.
        open_keys: int64: those of `keys` that begin an open group: frames that are decoded after the key frame but
            shown before it refer to the group before.
    """

    data: bytes
    positions: NDArray[np.int64]
    keys: NDArray[np.int64]
    open_keys: NDArray[np.int64]


class Remuxer:
    """Cuts clips out of one video stream.

    Args:
        path: The video file.
        stream_index: Stream among all streams of the container.

    Raises:
        VideoError: If the packets of the stream cannot be listed.
        MissingDependencyError: If FFmpeg's command line is not installed.
    """

    def __init__(self, path: str, stream_index: int) -> None:
        self.path = path
        self.stream_index = stream_index
        packets = read_packets(f"file:{path}", stream_index) if ffmpeg_program() else None
        if packets is None or packets.guessed:
            raise VideoError(f"{path}: its packets have no times, so it cannot be cut", hint=_HINT)
        if packets.jumps_back:
            raise VideoError(f"{path}: its clock jumps back, so it cannot be cut", hint=_HINT)
        self._packets: Packets = packets
        self._shown = packets.shown

    def split(self, frames: NDArray[np.int64], max_bytes: int) -> list[NDArray[np.int64]]:
        """Return `frames` (rising) in parts of which each makes a clip of at most `max_bytes`, or a single frame.

        Parts begin at a key frame where there is one, so that no packet is stored twice.
        """
        sizes = self._packets.size_bytes[self._shown]
        before = np.concatenate([[0], np.cumsum(sizes)])
        keys = np.flatnonzero(self._packets.is_key[self._shown])
        parts = []
        start = 0
        while start < len(frames):
            key = _last_at_most(keys, int(frames[start]))
            fits = int(np.searchsorted(before[frames[start:] + 1] - before[key], max_bytes, side="right"))
            stop = start + max(1, fits)
            if stop < len(frames):
                at_key = int(np.searchsorted(frames, _last_at_most(keys, int(frames[stop]))))
                stop = at_key if at_key > start else stop
            parts.append(frames[start:stop])
            start = stop
        return parts

    def lead_in_frames(self, frame: int, lead_in: int = 0) -> int:
        """Return how many frames lie between the key frame that decoding starts at and `frame`.

        Args:
            frame: Number in the order of presentation.
            lead_in: Start that many key frames earlier than decoding needs in a sound stream.
        """
        keys = np.flatnonzero(self._packets.is_key[self._shown])
        at = int(np.searchsorted(keys, frame, side="right")) - 1 - lead_in
        return frame - int(keys[at]) if at >= 0 else frame

    def group_of(self, frame: int) -> tuple[int, int]:
        """Return the group of pictures with a frame: its first frame, and the first of the next group."""
        keys = np.flatnonzero(self._packets.is_key[self._shown])
        behind = keys[keys > frame]
        return _last_at_most(keys, frame), int(behind[0]) if len(behind) else len(self._shown)

    def size_bytes(self, frames: NDArray[np.int64]) -> int:
        """Return about how many bytes a clip with these frames (rising) has: those of its packets."""
        first = int(frames[0])
        packets = self._shown[first - self.lead_in_frames(first) : int(frames[-1]) + 1]
        return int(self._packets.size_bytes[packets].sum())

    def cut(self, frames: NDArray[np.int64], container: str, *, lead_in: int = 0) -> RemuxedClip:
        """Return a clip with these frames (rising) and whatever is between them.

        Args:
            frames: Numbers of frames in the order of presentation.
            container: `mp4` or `mkv`.
            lead_in: Start that many key frames earlier than decoding needs in a sound stream.

        Raises:
            VideoError: If FFmpeg cannot cut there, or the container does not take the stream.
        """
        chosen = self._choose(frames, lead_in)
        pts = self._packets.pts_ticks
        shown = chosen[np.argsort(pts[chosen], kind="stable")]
        positions = np.searchsorted(pts[shown], pts[self._shown[frames]])
        if not np.array_equal(shown[positions], self._shown[frames]):
            raise VideoError(f"{self.path}: several frames have the same presentation time", hint=_HINT)
        with tempfile.TemporaryDirectory(prefix="vrekit_clip_") as folder:
            path = Path(folder) / f"clip.{container}"
            self._copy(chosen, path, MUXERS[container])
            copied = read_packets(f"file:{path}", 0)
            if copied is None or len(copied.shown) != len(chosen):
                found = 0 if copied is None else len(copied.shown)
                raise VideoError(f"{self.path}: {len(chosen)} packets were copied, the clip has {found}", hint=_HINT)
            keys, open_keys = (np.searchsorted(pts[shown], pts[some]).astype(np.int64) for some in self._groups(chosen))
            return RemuxedClip(path.read_bytes(), positions.astype(np.int64), keys, open_keys)

    def _groups(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return those of `chosen` that begin a group of several pictures, and those that begin an open one."""
        pts = self._packets.pts_ticks[chosen]
        starts = np.flatnonzero(self._packets.is_key[chosen])
        counts = np.diff(np.append(starts, len(chosen)))
        earliest = np.minimum.reduceat(pts, starts)
        return chosen[starts[counts > 1]], chosen[starts[earliest < pts[starts]]]

    def _choose(self, frames: NDArray[np.int64], lead_in: int) -> NDArray[np.int64]:
        """Return the places of the packets of a clip."""
        packets = self._packets
        first, last = (int(packets.pts_ticks[self._shown[frame]]) for frame in (frames[0], frames[-1]))
        end = int(self._shown[frames].max()) + 1
        keys = np.flatnonzero(packets.is_key & (packets.pts_ticks <= first))
        keys = keys[keys < end]
        if not len(keys):
            raise VideoError(f"{self.path}: no key frame at or before frame {frames[0]}", hint=_HINT)
        key = int(keys[max(0, len(keys) - 1 - lead_in)])
        behind: NDArray[np.int64] = np.arange(key, len(packets.pts_ticks))
        behind = behind[packets.pts_ticks[behind] >= packets.pts_ticks[key]]
        # up to the last that is decoded of what is shown until `last`: references that are shown later stay in
        end = int(behind[packets.pts_ticks[behind] <= last].max()) + 1
        return behind[behind < end]

    def _copy(self, chosen: NDArray[np.int64], path: Path, muxer: str) -> None:
        packets = self._packets
        seconds = float(packets.time_base)
        start = float(packets.pts_ticks[chosen[0]]) * seconds
        stop = float(packets.pts_ticks[chosen].max()) * seconds + _BEYOND_SECONDS
        for seek, until in self._spans(int(chosen[0]), start, stop):
            options = ["-copyts", *(["-ss", f"{seek:.6f}", "-seek_timestamp", "1"] if seek is not None else [])]
            options += ["-i", f"file:{self.path}", "-map", f"0:{self.stream_index}", "-c", "copy"]
            options += ["-to", f"{until:.6f}"] if until is not None else []
            listed = _listed_sizes(_ffmpeg([*options, "-f", "framecrc", "-"], self.path))
            at = self._place_of(listed, int(chosen[0]), int(chosen[-1]))
            if at is None:
                continue
            dropped = np.setdiff1d(np.arange(at, at + len(listed)), chosen) - at
            filters = ["-bsf:v", f"noise=drop='{_any_of(dropped)}'"] if len(dropped) else []
            options += [*filters, "-map_metadata", "-1", "-map_chapters", "-1", "-fflags", "+bitexact"]
            _ffmpeg([*options, "-output_ts_offset", f"{-start:.6f}", "-f", muxer, f"file:{path}"], self.path)
            return
        raise VideoError(f"{self.path}: FFmpeg cannot seek to the key frame at {start:.3f} s", hint=_HINT)

    def _spans(self, key: int, start: float, stop: float) -> Iterator[tuple[float | None, float | None]]:
        """Yield seconds to read from and to, None for the ends of the file: the shortest first."""
        if key > 0:
            yield from ((start - back, stop) for back in _BACK_SECONDS)
        yield None, stop
        yield None, None

    def _place_of(self, listed: Sequence[int], first: int, last: int) -> int | None:
        """Return the place of the first of the packets that FFmpeg listed, None if `first` to `last` are not in them.

        They are told by their sizes: after a seek FFmpeg mends decoding times, and with them presentation times.
        """
        sizes = np.asarray(listed, np.int64)
        known = self._packets.size_bytes
        for at in range(first, -1, -1):
            if at + len(sizes) <= last:
                return None
            if at + len(sizes) <= len(known) and np.array_equal(known[at : at + len(sizes)], sizes):
                return at
        return None


def start_of_stream(path: str, stream_index: int, container: str, target: Path) -> None:
    """Copy the first packet of a stream into a file of its own, to see whether the container takes it.

    Args:
        path: The video file.
        stream_index: Stream among all streams of the file.
        container: `mp4` or `mkv`.
        target: The new file.

    Raises:
        VideoError: If the container does not take such a stream.
    """
    options = ["-i", f"file:{path}", "-map", f"0:{stream_index}", "-c", "copy", "-frames:v", "1"]
    _ffmpeg([*options, "-f", MUXERS[container], f"file:{target}"], path)


def _ffmpeg(options: Sequence[str], path: str) -> str:
    command = [ffmpeg_program(), "-v", "error", "-nostdin", "-y", *SAFE_INPUT, *options]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if result.returncode:
        said = result.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        reason = re.sub(r"^\[\w+ @ 0x\w+\] ", "", said[0])  # an address is another one each time
        hint = _HINT
        if "supported in container" in reason or "codec not supported" in reason:
            hint = "`codec: {id: video, container: mkv}` takes nearly every stream, `encode: ffv1` any"
        raise VideoError(f"{path}: FFmpeg could not copy it: {reason}", hint=hint)
    return result.stdout.decode(errors="replace")


def _listed_sizes(framecrc: str) -> list[int]:
    """Return the packet sizes of a `framecrc` listing: `stream, dts, pts, duration, size, crc, …`."""
    lines = (line for line in framecrc.splitlines() if line and not line.startswith("#"))
    return [int(line.split(",")[4]) for line in lines]


def _any_of(numbers: NDArray[np.int64]) -> str:
    """Return an FFmpeg expression that is true when `n` is one of the numbers (rising)."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return "+".join(f"between(n,{run[0]},{run[-1]})" for run in runs)


def _last_at_most(rising: NDArray[np.int64], value: int) -> int:
    at = int(np.searchsorted(rising, value, side="right")) - 1
    return int(rising[at]) if at >= 0 else 0
