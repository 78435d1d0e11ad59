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
from vrekit.core.errors import CodecError, MissingDependencyError, VrekitError
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

    def finish(self) -> FinishedClip:
        """Return the clip, decoded and compared; if that fails, all of its frames are failures."""
        started = time.perf_counter()
        good = [frame for frame in self._frames if frame.checksum is not None]
        by_decoder = frozenset(frame.row.frame_index for frame in self._frames if frame.by_decoder)
        rows = {frame.row.frame_index: frame.row for frame in self._frames}
        suffix = self._maker.codec.suffix
        if not good:
            return FinishedClip(Clip(tuple(rows.values()), suffix), by_decoder)
        try:
            data, positions = self._encoded(good) if self._maker.remuxer is None else self._cut(good)
        except MissingDependencyError:
            raise
        except VrekitError as error:
            reason = error.message if error.hint is None else f"{error.message} ({error.hint})"
            for frame in good:
                row = frame.row
                failed = replace(row, status="failed", error=reason, codec=None, dtype=None, shape=None, raw_bytes=None)
                rows[row.frame_index] = failed
            return FinishedClip(Clip(tuple(rows.values()), suffix), by_decoder, refused=True)
        share = (time.perf_counter() - started + self._seconds) / len(good)
        for frame, position in zip(good, positions.tolist(), strict=True):
            rows[frame.row.frame_index] = replace(frame.row, payload_index=position, encode_seconds=share)
        return FinishedClip(Clip(tuple(rows.values()), suffix, data), by_decoder)

    def abort(self) -> None:
        """Stop the encoder, if there is one."""
        if self._encoder is not None:
            self._encoder.abort()

    def _encoded(self, good: Sequence[ClipFrame]) -> tuple[bytes, NDArray[np.int64]]:
        if self._encoding_failed or self._encoder is None:
            self.abort()
            raise CodecError(self._encoding_failed or "nothing was encoded")
        data = self._encoder.finish()
        positions = np.arange(len(good), dtype=np.int64)
        different = self._first_difference(data, positions, good, np.empty(0, np.int64))
        if different is not None:
            raise CodecError(f"the encoded clip does not hold what was put in: {different}")
        return data, positions

    def _cut(self, good: Sequence[ClipFrame]) -> tuple[bytes, NDArray[np.int64]]:
        remuxer = self._maker.remuxer
        if remuxer is None:
            raise AssertionError("only a codec that copies the source cuts it")
        frames = np.array([frame.row.frame_index for frame in good], np.int64)
        different: str | None = None
        for lead_in in _LEAD_INS:
            clip = remuxer.cut(frames, self._maker.codec.suffix, lead_in=lead_in)
            different = self._first_difference(clip.data, clip.positions, good, clip.open_keys)
            if different is None:
                return clip.data, clip.positions
            logger.info("cut at frame %d with %d more key frames: %s", frames[0], lead_in, different)
        raise CodecError(
            f"frames {frames[0]}..{frames[-1]} cannot be cut from the source without changing them: {different}",
            hint="`codec: {id: video, encode: ffv1}` stores them exactly",
        )

    def _first_difference(
        self, data: bytes, positions: NDArray[np.int64], good: Sequence[ClipFrame], open_keys: NDArray[np.int64]
    ) -> str | None:
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
            if decoder.frame_count < len(good) or (self._encoder and decoder.frame_count != len(good)):
                return f"it has {decoder.frame_count} frames, expected {len(good)}"
            for first, end in [(0, len(good)), *parts]:
                for start in range(first, end, _FRAMES_AT_ONCE):
                    stop = min(start + _FRAMES_AT_ONCE, end)
                    different = self._difference(good[start:stop], decoder.read(positions[start:stop]))
                    if different is not None:
                        return different
        except CodecError as error:
            return error.message
        return None

    def _difference(self, frames: Sequence[ClipFrame], pixels: NDArray[np.uint8]) -> str | None:
        for frame, decoded in zip(frames, pixels, strict=True):
            if decoded.shape != frame.row.shape:
                return f"frame {frame.row.frame_index} is {decoded.shape}, expected {frame.row.shape}"
            if self._maker.codec.is_exact and pixels_checksum(decoded) != frame.checksum:
                return f"frame {frame.row.frame_index} decodes to other pixels"
        return None


def pixels_checksum(pixels: NDArray[np.uint8]) -> int:
    """Return the CRC-32 of a picture's pixels."""
    return crc32(np.ascontiguousarray(pixels).data)
