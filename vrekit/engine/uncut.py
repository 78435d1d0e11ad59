"""Frames that no cut of the source shows as it shows them: decoded once more, and encoded without loss."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import ClipCodec, ClipEncoder
from vrekit.core.checksum import crc32
from vrekit.engine.clip_checks import frames_at_once
from vrekit.video.base import VideoSource
from vrekit.video.remux import Remuxer

LEAD_INS = (0, 1, 4)  # key frames before the last possible one that decoding is tried from


@dataclass(frozen=True, slots=True)
class UncutFrame:
    """A frame to be decoded once more.

    Attributes:
        number: In the order of presentation.
        checksum: CRC-32 of the pixels that it must have.
    """

    number: int
    checksum: int


def encode_uncut(
    frames: Sequence[UncutFrame],
    *,
    open_source: Callable[[], VideoSource],
    remuxer: Remuxer,
    codec: ClipCodec,
    fps: float,
    max_bytes: int,
) -> Iterator[tuple[int, bytes]]:
    """Yield clips of consecutive frames, each with their number; it ends early at a frame that cannot be had again.

    Few frames are in memory at a time.

    Args:
        frames: Frames by rising number.
        open_source: Opens the video: a decoder that was elsewhere before may show other frames than a new one.
        remuxer: Knows the key frames of the video.
        codec: Its encoder loses nothing.
        fps: Frames per second of the clips.
        max_bytes: Clips end at this size.

    Raises:
        CodecError: If the encoder fails.
        MissingDependencyError: If the encoder is not installed.
    """
    encoder: ClipEncoder | None = None
    count = 0
    try:
        for pixels in _decoded_again(frames, open_source, remuxer):
            if encoder is None:
                encoder, count = codec.open_encoder(height=pixels.shape[0], width=pixels.shape[1], fps=fps), 0
            encoder.add(pixels)
            count += 1
            if encoder.size_bytes >= max_bytes:
                finished, encoder = encoder, None
                yield count, finished.finish()
        if encoder is not None:
            yield count, encoder.finish()
    finally:
        if encoder is not None:
            encoder.abort()


def _decoded_again(
    frames: Sequence[UncutFrame], open_source: Callable[[], VideoSource], remuxer: Remuxer
) -> Iterator[NDArray[np.uint8]]:
    """Yield the pixels of the frames, up to the first that never are what they were."""
    done = 0
    while done < len(frames):
        before = done
        for lead_in in LEAD_INS:
            first = frames[done].number - remuxer.lead_in_frames(frames[done].number, lead_in)
            with open_source() as source:
                for pixels in _from(first, frames[done:], source):
                    yield pixels
                    done += 1
            if done == len(frames):
                return
        if done == before:
            return


def _from(first: int, frames: Sequence[UncutFrame], source: VideoSource) -> Iterator[NDArray[np.uint8]]:
    """Decode from a frame on and yield the pixels of the frames that were asked for, while they are right."""
    wanted = {frame.number: frame.checksum for frame in frames}
    stop = frames[-1].number + 1
    expected = iter(frame.number for frame in frames)
    at_once = frames_at_once(source.info.height * source.info.width * 3)
    for start, end in pairwise([*range(first, stop, at_once), stop]):
        decoded = source.read(np.arange(start, end))
        for number, pixels in zip(decoded.indices.tolist(), decoded.frames, strict=True):
            if number not in wanted:
                continue
            if number != next(expected) or crc32(np.ascontiguousarray(pixels).data) != wanted[number]:
                return
            yield pixels
