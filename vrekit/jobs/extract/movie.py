"""A video of pictures, for people: H.264 in mp4, which every player and browser shows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import ClipEncoder
from vrekit.codecs.video import Video
from vrekit.core.errors import CodecError

_CODEC = Video(encode="h264", crf=18, gop=64)
_DEFAULT_FPS = 25.0


class Movie:
    """A video that is being encoded, picture by picture.

    Args:
        path: Its name, for messages.
        fps: Pictures per second.
    """

    def __init__(self, path: str, fps: float) -> None:
        self.path = path
        self.fps = fps
        self.frames: list[int] = []
        self._encoder: ClipEncoder | None = None

    def add(self, frame: int, picture: NDArray[np.uint8]) -> None:
        """Add the picture of a frame, (H, W, 3); an odd side gets its last row or column twice, as players want it.

        Raises:
            CodecError: If it cannot be encoded, or has another size than the first.
        """
        height, width = picture.shape[:2]
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            if self._encoder is None:
                self._encoder = _CODEC.open_encoder(height=even.shape[0], width=even.shape[1], fps=self.fps)
            self._encoder.add(even)
        except CodecError as error:
            hint = error.hint or "a video has pictures of one size, 16x16 or more; --to png takes any"
            raise CodecError(f"{self.path}, frame {frame}: {error.message}", hint=hint) from error
        self.frames.append(frame)

    def finish_to(self, path: Path) -> None:
        """Write the video to a file.

        Raises:
            CodecError: If the encoder failed, or there is no picture.
        """
        if self._encoder is None:
            raise CodecError(f"{self.path} has no frames")
        try:
            self._encoder.finish_to(path)
        except CodecError as error:
            raise CodecError(f"{self.path}: {error.message}", hint=error.hint) from error

    def abort(self) -> None:
        """Stop the encoder."""
        if self._encoder is not None:
            self._encoder.abort()


def frame_rate(times: Sequence[float], fps: float | None) -> float:
    """Return the rate at which frames take as long as in the video they are from.

    Args:
        times: Their presentation times in seconds, NaN without a clock.
        fps: Frames per second of the video, where it is known.
    """
    span = max(times) - min(times) if np.isfinite(times).all() and len(times) > 1 else 0.0
    rate = (len(times) - 1) / span if span > 0 else fps or _DEFAULT_FPS
    return float(min(max(rate, 0.1), 1000.0)) if np.isfinite(rate) else _DEFAULT_FPS
