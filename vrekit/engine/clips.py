"""Clips: the frames of one representation and one stretch of video, stored as one small video file.

Frames come in one by one, as for any codec. When a clip is whole it is cut from the source's packets, or its encoder
is closed; then it is decoded again and compared with what came in, before any row says that a frame is stored.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import ClipCodec, ClipEncoder
from vrekit.core.checksum import crc32
from vrekit.core.errors import CodecError, VideoError
from vrekit.core.schema import SampleRow
from vrekit.video.base import VideoInfo
from vrekit.video.remux import Remuxer
from vrekit.writers.base import Clip

logger = logging.getLogger(__name__)

# A reader loads a clip whole before its first frame: a second of 4K footage of a good camera is 12 MB.
MAX_CLIP_BYTES = 128 << 20
DEFAULT_FPS = 25.0  # of clips encoded from a source without a clock
_LEAD_INS = (0, 1, 4)  # key frames before the last possible one that a cut is tried at
_FRAMES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class ClipFrame:
    """One frame on its way into a clip.

    Attributes:
        row: Its metadata row without the payload's place; that of a failure if it has no pixels.
        checksum: CRC-32 of its pixels, None when it failed.
        pixels: uint8 (H, W, 3) when they are to be encoded.
        by_decoder: It failed because the source did not decode.
    """

    row: SampleRow
    checksum: int | None = None
    pixels: NDArray[np.uint8] | None = None
    by_decoder: bool = False


@dataclass(frozen=True, slots=True)
class FinishedClip:
    """A clip to be stored.

    Attributes:
        clip: The payload and its rows.
        by_decoder: Frames whose failure the decoder of the source is to blame for.
        refused: Whether the clip itself failed, and all of its frames with it.
    """

    clip: Clip
    by_decoder: frozenset[int]
    refused: bool = False


class ClipMaker:
    """Makes the clips of one representation.

    Args:
        codec: How they are stored.
        info: Facts about the source.
        max_bytes: Clips are closed at this size; also at MAX_CLIP_BYTES.

    Raises:
        VideoError: If the source's packets cannot be listed.
        MissingDependencyError: If FFmpeg's command line is not installed.
    """

    def __init__(self, codec: ClipCodec, info: VideoInfo, *, max_bytes: int) -> None:
        self.codec = codec
        self.info = info
        self.max_bytes = min(max_bytes, MAX_CLIP_BYTES)
        self.remuxer = Remuxer(info.uri, info.stream_index or 0) if codec.copies_source else None

    def ends(self, frames: NDArray[np.int64]) -> frozenset[int]:
        """Return the frames (of some that rise) that a clip ends at, where this is known before they come in."""
        if self.remuxer is None or not len(frames):
            return frozenset()
        parts = self.remuxer.split(frames, self.max_bytes)
        lead_in = sum(self.remuxer.lead_in_frames(int(part[0])) for part in parts)
        if lead_in > len(frames):
            logger.warning(
                "frames %d..%d are stored with %d frames before them, back to the source's last key frame: "
                "`codec: {id: video, encode: h264}` sets key frames of its own",
                frames[0],
                frames[-1],
                lead_in,
            )
        return frozenset(int(part[-1]) for part in parts)


class ClipBuilder:
    """Gathers the frames of one clip."""

    def __init__(self, maker: ClipMaker, ends: frozenset[int]) -> None:
        self._maker = maker
        self._ends = ends
        self._frames: list[ClipFrame] = []
        self._encoder: ClipEncoder | None = None
        self._encoding_failed = ""
        self._seconds = 0.0

    def add(self, frame: ClipFrame) -> None:
        """Add a frame; they come by rising number."""
        started = time.perf_counter()
        pixels = frame.pixels
        self._frames.append(replace(frame, pixels=None))
        if pixels is None or self._encoding_failed:
            return
        try:
            if self._encoder is None:
                info = self._maker.info
                self._encoder = self._maker.codec.open_encoder(
                    height=pixels.shape[0], width=pixels.shape[1], fps=info.fps or DEFAULT_FPS
                )
            self._encoder.add(pixels)
        except CodecError as error:
            self._encoding_failed = error.message
        self._seconds += time.perf_counter() - started

    @property
    def is_full(self) -> bool:
        """Whether the clip should end behind the last frame."""
        if self._frames and self._frames[-1].row.frame_index in self._ends:
            return True
        return self._encoder is not None and self._encoder.size_bytes >= self._maker.max_bytes

    def finish(self) -> list[FinishedClip]:
        """Return the clip, decoded and compared.

        Where the source is damaged it may be several clips, around frames that cannot be had from a cut: those, and
        all frames of an encoder that failed, are failures.
        """
        started = time.perf_counter()
        good = [frame for frame in self._frames if frame.checksum is not None]
        if not good:
            parts = [_Part(())]
        elif self._maker.remuxer is None:
            parts = [self._encoded(good)]
        else:
            parts = self._cut_all(good, self._maker.remuxer)
        share = (time.perf_counter() - started + self._seconds) / max(1, len(good))
        # frames that never decoded go with the part before them
        starts = [-1, *(part.frames[0].row.frame_index for part in parts[1:])]
        finished = []
        for part, start, end in zip(parts, starts, [*starts[1:], None], strict=True):
            number_of = (frame.row.frame_index for frame in self._frames)
            inside = [n for n, at in enumerate(number_of) if at >= start and (end is None or at < end)]
            finished.append(self._finished(part, [self._frames[n] for n in inside], share))
        return finished

    def _finished(self, part: "_Part", frames: Sequence[ClipFrame], share: float) -> FinishedClip:
        rows = {frame.row.frame_index: frame.row for frame in frames}
        for at, frame in enumerate(part.frames):
            row = frame.row
            if part.positions is None:
                row = replace(row, status="failed", error=part.reason, codec=None, dtype=None, shape=None)
                rows[row.frame_index] = replace(row, raw_bytes=None)
            else:
                rows[row.frame_index] = replace(row, payload_index=int(part.positions[at]), encode_seconds=share)
        clip = Clip(tuple(rows.values()), self._maker.codec.suffix, part.data)
        by_decoder = frozenset(frame.row.frame_index for frame in frames if frame.by_decoder)
        return FinishedClip(clip, by_decoder, refused=bool(part.reason))

    def abort(self) -> None:
        """Stop the encoder, if there is one."""
        if self._encoder is not None:
            self._encoder.abort()

    def _encoded(self, good: Sequence[ClipFrame]) -> "_Part":
        if self._encoding_failed or self._encoder is None:
            self.abort()
            return _Part(good, reason=self._encoding_failed or "nothing was encoded")
        try:
            data = self._encoder.finish()
        except CodecError as error:
            return _Part(good, reason=error.message)
        positions = np.arange(len(good), dtype=np.int64)
        different = self._first_difference(data, positions, good, np.empty(0, np.int64))
        if different is not None:
            return _Part(good, reason=f"the encoded clip does not hold what was put in: {different.reason}")
        return _Part(good, data, positions)

    def _cut_all(self, good: Sequence[ClipFrame], remuxer: Remuxer) -> list["_Part"]:
        """Return clips with these frames; around a group of pictures that cannot be cut there are several."""
        try:
            found = self._cut(good, remuxer)
        except VideoError as error:
            return [_Part(good, reason=error.message if error.hint is None else f"{error.message} ({error.hint})")]
        if isinstance(found, _Part):
            return [found]
        bad = found.at
        first, end = remuxer.group_of(good[bad].row.frame_index)
        inside = [first <= frame.row.frame_index < end for frame in good]
        start, stop = inside.index(True), len(good) - inside[::-1].index(True)
        if start == 0 and stop == len(good):  # one group: what is before the bad frame may still be had
            reason = (
                f"frames {good[bad].row.frame_index}..{good[-1].row.frame_index} cannot be cut from the source without "
                f"changing them: {found.reason} (`codec: {{id: video, encode: ffv1}}` stores them exactly)"
            )
            before = self._cut_all(good[:bad], remuxer) if bad else []
            return [*before, _Part(good[bad:], reason=reason)]
        parts = (good[:start], good[start:stop], good[stop:])
        return [one for part in parts if part for one in self._cut_all(part, remuxer)]

    def _cut(self, good: Sequence[ClipFrame], remuxer: Remuxer) -> "_Part | _Difference":
        """Return one clip, or where the last try went wrong."""
        frames = np.array([frame.row.frame_index for frame in good], np.int64)
        different = _Difference(0, "")
        for lead_in in _LEAD_INS:
            clip = remuxer.cut(frames, self._maker.codec.suffix, lead_in=lead_in)
            found = self._first_difference(clip.data, clip.positions, good, clip.open_keys)
            if found is None:
                return _Part(good, clip.data, clip.positions)
            logger.info("cut at frame %d with %d more key frames: %s", frames[0], lead_in, found.reason)
            different = found
        return different

    def _first_difference(
        self, data: bytes, positions: NDArray[np.int64], good: Sequence[ClipFrame], open_keys: NDArray[np.int64]
    ) -> "_Difference | None":
        """Return what of a clip is not what it should be, None when all frames are there and exact if they must be.

        Args:
            data: The clip.
            positions: Place of each frame in it.
            good: The frames.
            open_keys: Places where decoding is tried to start, besides the front: the last of them first, so that the
                decoder has to seek to each.
        """
        starts = [0, *np.searchsorted(positions, open_keys).tolist(), len(good)]
        parts = list(pairwise(starts))[::-1] if len(open_keys) else []
        try:
            decoder = self._maker.codec.open_decoder(data)
        except CodecError as error:
            return _Difference(0, error.message)
        if decoder.frame_count < len(good) or (self._encoder and decoder.frame_count != len(good)):
            return _Difference(0, f"it has {decoder.frame_count} frames, expected {len(good)}")
        for first, end in [(0, len(good)), *parts]:
            for start in range(first, end, _FRAMES_AT_ONCE):
                stop = min(start + _FRAMES_AT_ONCE, end)
                try:
                    pixels = decoder.read(positions[start:stop])
                except CodecError as error:
                    return self._first_undecodable(data, positions, start, error.message)
                for at, decoded in enumerate(pixels, start):
                    reason = self._difference(good[at], decoded)
                    if reason is not None:
                        return _Difference(at, reason)
        return None

    def _first_undecodable(self, data: bytes, positions: NDArray[np.int64], start: int, reason: str) -> "_Difference":
        decoder = self._maker.codec.open_decoder(data)
        for at in range(start, len(positions)):
            try:
                decoder.read(positions[at : at + 1])
            except CodecError as error:
                return _Difference(at, error.message)
        return _Difference(start, reason)

    def _difference(self, frame: ClipFrame, decoded: NDArray[np.uint8]) -> str | None:
        number = frame.row.frame_index
        if decoded.shape != frame.row.shape:
            return f"frame {number} is {decoded.shape}, expected {frame.row.shape}"
        if self._maker.codec.is_exact and pixels_checksum(decoded) != frame.checksum:
            return f"frame {number} decodes to other pixels"
        return None


@dataclass(frozen=True, slots=True)
class _Part:
    """Frames that became one clip, or why they did not."""

    frames: Sequence[ClipFrame]
    data: bytes | None = None
    positions: NDArray[np.int64] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Difference:
    """Which of a clip's frames is the first that is not what it should be, and why."""

    at: int
    reason: str


def pixels_checksum(pixels: NDArray[np.uint8]) -> int:
    """Return the CRC-32 of a picture's pixels."""
    return crc32(np.ascontiguousarray(pixels).data)
