"""Clips: the frames of one representation and one stretch of video, stored as one small video file.

Frames come in one by one, as for any codec. When a clip is whole it is cut from the source's packets, or its encoder
is closed; then it is decoded again and compared with what came in, before any row says that a frame is stored. Frames
that no cut shows as they came in are encoded without loss, in clips of their own.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.cells import Clip
from vrekit.codecs.base import ClipCodec, ClipEncoder
from vrekit.core.errors import CodecError, MissingDependencyError, VideoError
from vrekit.engine.clip_checks import ClipFrame, Difference, check_container, first_difference
from vrekit.engine.uncut import LEAD_INS, UncutFrame, encode_uncut
from vrekit.video.base import VideoInfo
from vrekit.video.files import FileSource
from vrekit.video.remux import RemuxedClip, Remuxer

logger = logging.getLogger(__name__)

# A reader loads a clip whole before its first frame: a second of 4K footage of a good camera is 12 MB.
MAX_CLIP_BYTES = 128 << 20
DEFAULT_FPS = 25.0  # of clips encoded from a source without a clock


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
        VideoError: If the source's packets cannot be listed, or the container does not take them.
        MissingDependencyError: If FFmpeg's command line is not installed.
    """

    def __init__(self, codec: ClipCodec, info: VideoInfo, *, max_bytes: int) -> None:
        self.codec = codec
        self.info = info
        self.max_bytes = min(max_bytes, MAX_CLIP_BYTES)
        if codec.copies_source:
            check_container(codec, info)
        self.remuxer = Remuxer(info.uri, info.stream_index or 0) if codec.copies_source else None

    def open_source(self) -> FileSource:
        """Return the source, opened for frames that are decoded once more."""
        return FileSource(self.info.uri, stream_index=self.info.stream_index)

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

        Where the source does not let itself be cut, or is damaged, it may be several clips. Frames that can neither be
        cut nor be decoded once more, and all frames of an encoder that failed, are failures.
        """
        started = time.perf_counter()
        good = [frame for frame in self._frames if frame.checksum is not None]
        if not good:
            parts = [_Part(())]
        elif self._maker.remuxer is None:
            parts = [self._encoded(good)]
        else:
            parts = self._encode_uncut(self._cut_all(good, self._maker.remuxer), self._maker.remuxer)
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
        return self._compared(good, data)

    def _compared(self, good: Sequence[ClipFrame], data: bytes) -> "_Part":
        """Return a clip that was encoded, once it is known to hold what was put in."""
        every: NDArray[np.int64] = np.arange(len(good), dtype=np.int64)
        none = np.empty(0, np.int64)
        different = first_difference(self._maker.codec, RemuxedClip(data, every, none, none), good, is_whole=True)
        if different is not None:
            return _Part(good, reason=f"the encoded clip does not hold what was put in: {different.reason}")
        return _Part(good, data, every)

    def _cut_all(self, good: Sequence[ClipFrame], remuxer: Remuxer) -> list["_Part"]:
        """Return clips with these frames; around a group of pictures that cannot be cut there are several."""
        try:
            found = self._cut(good, remuxer)
        except VideoError as error:
            return [_Part(good, reason=error.message)]
        if isinstance(found, _Part):
            return [found]
        bad = found.at
        first, end = remuxer.group_of(good[bad].row.frame_index)
        inside = [first <= frame.row.frame_index < end for frame in good]
        start, stop = inside.index(True), len(good) - inside[::-1].index(True)
        if found.is_start:  # so are the key frames behind it
            stop = len(good)
        if start == 0 and stop == len(good):  # one group: what is before the bad frame may still be had
            before = self._cut_all(good[:bad], remuxer) if bad and not found.is_start else []
            return [*before, _Part(good[len(before) and bad :], reason=found.reason)]
        parts = (good[:start], good[start:stop], good[stop:])
        return [one for part in parts if part for one in self._cut_all(part, remuxer)]

    def _cut(self, good: Sequence[ClipFrame], remuxer: Remuxer) -> "_Part | Difference":
        """Return one clip, or where the last try went wrong."""
        frames = np.array([frame.row.frame_index for frame in good], np.int64)
        different = Difference(0, "")
        for lead_in in LEAD_INS:
            clip = remuxer.cut(frames, self._maker.codec.suffix, lead_in=lead_in)
            found = first_difference(self._maker.codec, clip, good)
            if found is None:
                return _Part(good, clip.data, clip.positions)
            logger.info("cut at frame %d with %d more key frames: %s", frames[0], lead_in, found.reason)
            different = found
        return different

    def _encode_uncut(self, parts: Sequence["_Part"], remuxer: Remuxer) -> list["_Part"]:
        """Return the parts with those that could not be cut encoded without loss, neighbours together."""
        done: list[_Part] = []
        for could_be_cut, some in groupby(parts, key=lambda part: part.data is not None):
            if could_be_cut:
                done += some
                continue
            uncut = list(some)
            frames = [frame for part in uncut for frame in part.frames]
            done += self._encoded_again(frames, remuxer, uncut[0].reason)
        return done

    def _encoded_again(self, good: Sequence[ClipFrame], remuxer: Remuxer, reason: str) -> list["_Part"]:
        maker = self._maker
        first, last = good[0].row.frame_index, good[-1].row.frame_index
        logger.warning(
            "frames %d..%d cannot be cut from the source without changing them (%s): they are encoded without loss, "
            "which takes many times the bytes; `codec: {id: video, encode: h264}` loses some detail and stays small",
            first,
            last,
            reason,
        )
        frames = [UncutFrame(frame.row.frame_index, frame.checksum or 0) for frame in good]
        parts: list[_Part] = []
        done = 0
        why = "decoded once more, they are others"
        try:
            for count, data in encode_uncut(
                frames,
                open_source=maker.open_source,
                remuxer=remuxer,
                codec=maker.codec,
                fps=maker.info.fps or DEFAULT_FPS,
                max_bytes=maker.max_bytes,
            ):
                parts.append(self._compared(good[done : done + count], data))
                done += count
        except (CodecError, MissingDependencyError) as error:
            why = error.message
        if done < len(good):
            reason = (
                f"frames {good[done].row.frame_index}..{last} cannot be cut from the source without changing them "
                f"({reason}), nor encoded without loss ({why}); under another name or in another dataset, "
                "`codec: {id: video, encode: ffv1}` stores them as they were decoded"
            )
            parts.append(_Part(good[done:], reason=reason))
        return parts


@dataclass(frozen=True, slots=True)
class _Part:
    """Frames that became one clip, or why they did not."""

    frames: Sequence[ClipFrame]
    data: bytes | None = None
    positions: NDArray[np.int64] | None = None
    reason: str = ""
