"""Which frames of a video: `--frames 0..100`, `5,8,22`, `0..1000:10`, `--every 3`, `--fps 2`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vrekit.core.documents import MAX_DOCUMENT_BYTES, Fields
from vrekit.core.errors import UsageError

_PART = re.compile(r"([0-9]{1,18})|([0-9]{0,18})\.\.([0-9]{0,18})(?::([0-9]{1,18}))?")
_HINT_SYNTAX = "write 5, 5,8,22, 0..100 (without frame 100), 10.., ..50, or 0..1000:10 (every tenth)"


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Frame numbers `start`, `start + step`, ... below `stop`; those of them that exist.

    Attributes:
        start: First number.
        stop: Number behind the last one; None goes to the end of the video.
        step: Distance of the numbers, at least 1.
    """

    start: int = 0
    stop: int | None = None
    step: int = 1

    def __post_init__(self) -> None:
        if self.start < 0 or (self.stop is not None and self.stop < 0):
            raise UsageError(f"frame range {self}: numbers count from 0", hint=_HINT_SYNTAX)
        if self.step < 1:
            raise UsageError(f"frame range {self}: the step must be 1 or more", hint=_HINT_SYNTAX)
        if self.stop is not None and self.stop <= self.start:
            what = "is empty" if self.stop == self.start else "runs backwards"
            raise UsageError(
                f"frame range {self} {what}",
                hint=f"the end is not included: {self.start}..{self.start + 1} is one frame",
            )

    def __str__(self) -> str:
        stop = "" if self.stop is None else self.stop
        return f"{self.start}..{stop}" + (f":{self.step}" if self.step != 1 else "")


@dataclass(frozen=True, slots=True)
class FrameSelection:
    """A choice of frames, before it is known which ones a video has.

    Attributes:
        parts: Ranges, and single numbers that must exist; empty chooses all frames.
        every: Of the chosen frames keep the first, the `every`-th behind it, and so on.
        fps: Keep the frames nearest to the ticks of a clock that runs at this rate from the video's first frame on.
            The clock does not depend on `parts`: ranges that split a video choose the same frames as the whole.
    """

    parts: tuple[FrameRange | int, ...] = ()
    every: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        for part in self.parts:
            if isinstance(part, int) and part < 0:
                raise UsageError(f"frame {part}: numbers count from 0", hint=_HINT_SYNTAX)
        if self.every is not None and self.every < 1:
            raise UsageError(f"every must be 1 or more, got {self.every}", hint="every=3 keeps frames 0, 3, 6, ...")
        if self.fps is not None and not (self.fps > 0 and np.isfinite(self.fps)):
            raise UsageError(f"fps must be a positive number, got {self.fps}", hint="fps=2 keeps two frames a second")
        if self.every is not None and self.fps is not None:
            raise UsageError("every and fps both thin out frames", hint="give one of them")

    def __str__(self) -> str:
        return ",".join(map(str, self.parts)) or "0.."

    def select(
        self, frame_indices: NDArray[np.int64], pts_seconds: NDArray[np.float64] | None = None
    ) -> NDArray[np.int64]:
        """Return the chosen frame numbers, int64, rising, without repeats, at least one.

        Args:
            frame_indices: Numbers of all frames of the video, rising, int64 (N,).
            pts_seconds: Their presentation times, float64 seconds (N,), rising between jumps of the clock;
                only needed for `fps`.

        Raises:
            UsageError: If a single number does not exist, a range chooses nothing, or `fps` is asked of a video without
                times. A range that merely ends behind the video is cut off there.
        """
        numbers = np.asarray(frame_indices, np.int64)
        if not len(numbers):
            raise UsageError("the video has no frames")
        has = f"the video has frames {numbers[0]}..{numbers[-1]} (the last one included)"
        if len(numbers) <= numbers[-1] - numbers[0]:
            has += f" with gaps, {len(numbers)} in all"
        chosen = np.full(len(numbers), not self.parts)
        for part in self.parts:
            if isinstance(part, int):
                mask = numbers == part
                if not mask.any():
                    raise UsageError(f"there is no frame {part}", hint=has)
            else:
                mask = (numbers >= part.start) & ((numbers - part.start) % part.step == 0)
                if part.stop is not None:
                    mask &= numbers < part.stop
                if not mask.any():
                    raise UsageError(f"frame range {part} holds no frame", hint=has)
            chosen |= mask
        if self.fps is not None:
            chosen &= _nearest_to_ticks(self.fps, pts_seconds, len(numbers))
            if not chosen.any():
                raise UsageError(
                    f"none of the frames {self} is the nearest to a tick of {self.fps:g} fps",
                    hint="choose a longer range or a higher fps",
                )
        return np.asarray(numbers[chosen][:: self.every or 1], np.int64)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict that `from_json` reads."""
        return {"frames": str(self), "every": self.every, "fps": self.fps}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | Fields) -> Self:
        """Return the selection that `to_json` described.

        Raises:
            DatasetError: If it is none.
        """
        fields = Fields.of(data, "a selection of frames")
        with fields.checking():
            return cls(
                _parse_parts(fields.text("frames", max_length=MAX_DOCUMENT_BYTES)),
                every=fields.integer("every", None, low=1),
                fps=fields.number("fps", None, low=0),
            )


def parse_frames(text: str | None, *, every: int | None = None, fps: float | None = None) -> FrameSelection:
    """Return the selection that `--frames`, `--every` and `--fps` describe; None or `..` is all frames.

    Example:
        >>> parse_frames("0..6:2,22").select(np.arange(30)).tolist()
        [0, 2, 4, 22]

    Raises:
        UsageError: If the text is malformed, a number negative, or a range empty or backwards.
    """
    return FrameSelection(() if text is None else _parse_parts(text), every=every, fps=fps)


def _parse_parts(text: str) -> tuple[FrameRange | int, ...]:
    parts: list[FrameRange | int] = []
    for piece in text.split(","):
        match = _PART.fullmatch(piece.strip())
        if match is None:
            raise UsageError(f"frames {text!r}: {piece.strip()!r} is no frame number and no range", hint=_HINT_SYNTAX)
        number, start, stop, step = match.groups()
        if number is not None:
            parts.append(int(number))
        else:
            parts.append(FrameRange(int(start or 0), int(stop) if stop else None, int(step) if step else 1))
    return tuple(parts)


def _nearest_to_ticks(fps: float, pts_seconds: NDArray[np.float64] | None, count: int) -> NDArray[np.bool_]:
    """Return which frames are the nearest to some tick; of two equally near ones the earlier.

    A frame is nearest to the times from half-way to the one before up to half-way to the one behind it. It is chosen
    if a tick lies in there, so this costs the same for any fps.
    """
    if pts_seconds is None or np.isnan(pts_seconds).any():
        raise UsageError(
            f"frames cannot be chosen at {fps:g} fps: this source has no presentation times",
            hint="use every=N, or open the folder or array with the fps it was recorded at",
        )
    if len(pts_seconds) != count:
        raise UsageError(f"{count} frames, but {len(pts_seconds)} presentation times")
    times = np.asarray(pts_seconds, np.float64)
    restarts = np.flatnonzero(np.diff(times) < 0) + 1  # a clock that jumps back starts anew there
    return np.concatenate([_nearest_in_part(fps, part) for part in np.split(times, restarts)])


def _nearest_in_part(fps: float, times: NDArray[np.float64]) -> NDArray[np.bool_]:
    ticks = (times - times[0]) * fps
    middles = (ticks[1:] + ticks[:-1]) / 2
    from_tick = np.floor(np.concatenate([[-1.0], middles]))
    to_tick = np.floor(np.concatenate([middles, ticks[-1:] + 1e-9]))
    return np.asarray(to_tick > from_tick)
