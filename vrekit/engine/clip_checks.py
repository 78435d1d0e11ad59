"""Whether a clip holds what was put in: every frame, in order and from each key frame that a reader may start at."""

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import ClipCodec, ClipDecoder
from vrekit.core.checksum import crc32
from vrekit.core.errors import CodecError, VideoError
from vrekit.core.schema import SampleRow
from vrekit.video.base import VideoInfo
from vrekit.video.files import FileSource
from vrekit.video.remux import RemuxedClip, start_of_stream

_FRAMES_AT_ONCE = 16
_BYTES_AT_ONCE = 64 << 20  # of pixels; a frame of 8K video is 100 MB


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
class Difference:
    """Which of a clip's frames is the first that is not what it should be, and why.

    Attributes:
        at: Place among the frames.
        reason: For a message.
        is_start: Read from the front of the clip it is right, but decoders cannot start at its key frame.
    """

    at: int
    reason: str
    is_start: bool = False


def frames_at_once(frame_bytes: int) -> int:
    """Return how many frames of this size, in bytes of pixels, are decoded together."""
    return max(1, min(_FRAMES_AT_ONCE, _BYTES_AT_ONCE // max(1, frame_bytes)))


def pixels_checksum(pixels: NDArray[np.uint8]) -> int:
    """Return the CRC-32 of a picture's pixels."""
    return crc32(np.ascontiguousarray(pixels).data)


def first_difference(
    codec: ClipCodec, clip: RemuxedClip, good: Sequence[ClipFrame], *, is_whole: bool = False
) -> Difference | None:
    """Return what of a clip is not what it should be, None when all frames are there and exact if they must be.

    Args:
        codec: Decodes the clip.
        clip: The clip.
        good: The frames.
        is_whole: The clip must have no other frames.
    """
    try:
        decoder = codec.open_decoder(clip.data)
    except CodecError as error:
        return Difference(0, error.message)
    if decoder.frame_count < len(good) or (is_whole and decoder.frame_count != len(good)):
        return Difference(0, f"it has {decoder.frame_count} frames, expected {len(good)}")
    found = _difference_between(codec, 0, len(good), clip, good, decoder)
    if found is not None:
        return found
    # Decoding is tried from each key frame, too: the last first, so that the decoder has to seek to each. One frame
    # tells; behind the key frame of an open group it takes all of the group.
    starts = [*np.searchsorted(clip.positions, clip.keys).tolist(), len(good)]
    for number in range(len(clip.keys))[::-1]:
        at, end = starts[number], starts[number + 1]
        if at == end:
            continue
        key = clip.keys[number : number + 1]
        rewinds = decoder.rewinds
        with contextlib.suppress(CodecError):  # whatever it is, it shows again below
            decoder.read(key)
        is_start = decoder.rewinds > rewinds
        different = _difference_between(codec, at, end if key in clip.open_keys else at + 1, clip, good, decoder)
        if different is None and is_start:
            reason = f"decoders cannot start at the key frame before frame {good[at].row.frame_index + 1}"
            different = Difference(at, reason, is_start=True)
        found = different or found
    return found


def _difference_between(
    codec: ClipCodec, first: int, end: int, clip: RemuxedClip, good: Sequence[ClipFrame], decoder: ClipDecoder
) -> Difference | None:
    at_once = frames_at_once(good[first].row.raw_bytes or 0) if first < end else 1
    for start in range(first, end, at_once):
        stop = min(start + at_once, end)
        try:
            pixels = decoder.read(clip.positions[start:stop])
        except CodecError as error:
            return _first_undecodable(codec, clip.data, clip.positions, start, error.message)
        for at, decoded in enumerate(pixels, start):
            reason = _reason(codec, good[at], decoded)
            if reason is not None:
                return Difference(at, reason)
    return None


def _first_undecodable(
    codec: ClipCodec, data: bytes, positions: NDArray[np.int64], start: int, reason: str
) -> Difference:
    decoder = codec.open_decoder(data)
    for at in range(start, len(positions)):
        try:
            decoder.read(positions[at : at + 1])
        except CodecError as error:
            return Difference(at, error.message)
    return Difference(start, reason)


def _reason(codec: ClipCodec, frame: ClipFrame, decoded: NDArray[np.uint8]) -> str | None:
    number = frame.row.frame_index
    if decoded.shape != frame.row.shape:
        return f"frame {number} is {decoded.shape}, expected {frame.row.shape}"
    if codec.is_exact and pixels_checksum(decoded) != frame.checksum:
        return f"frame {number} decodes to other pixels"
    return None


def check_container(codec: ClipCodec, info: VideoInfo) -> None:
    """Raise VideoError unless the container of `codec`, which copies packets, takes the source with its rotation."""
    with tempfile.TemporaryDirectory(prefix="vrekit_clip_") as folder:
        path = Path(folder) / f"start.{codec.suffix}"
        start_of_stream(info.uri, info.stream_index or 0, codec.suffix, path)
        try:
            with FileSource(path) as source:
                kept = source.info.rotation_degrees
        except VideoError:  # an edit list hides the first packet: the first cut will tell
            return
    if (kept - info.rotation_degrees) % 360:
        raise VideoError(
            f"{info.uri}: it is turned by {info.rotation_degrees:g} degrees, which this FFmpeg does not keep in "
            f"{codec.suffix}",
            hint="`codec: video` takes mp4, which does",
        )
