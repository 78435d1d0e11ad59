"""Arrays as videos: one in memory, or a whole clip in a `.npy` or `.npz` file."""

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vrekit.core.errors import UsageError, VideoError
from vrekit.video.base import DecodedFrames, VideoInfo, VideoSource, positions_of
from vrekit.video.fingerprint import fingerprint


class ArraySource(VideoSource):
    """Frames of an array (N, H, W, 3): uint8 RGB, or floats in 0..1 that are rounded to 8 bits when read.

    What `read` returns is a copy: whoever gets it may change it.

    Args:
        array: The frames (anything `numpy.asarray` takes, such as a CPU torch tensor), or the path of a `.npy`
            (memory-mapped) or `.npz` file that holds them.
        fps: Frames per second; frame number k is then shown at k / fps. None: no clock, times are NaN.
        frame_indices: Rising frame numbers, one for each frame; None numbers them 0..N-1.

    Raises:
        VideoError: If the array is not (N, H, W, 3) uint8 or float with at least one frame, or the file is damaged or
            holds Python objects.
        UsageError: If `fps` or `frame_indices` cannot be right.
    """

    def __init__(
        self,
        array: ArrayLike | os.PathLike[str] | str,
        *,
        fps: float | None = None,
        frame_indices: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> None:
        path = Path(array) if isinstance(array, str | os.PathLike) else None
        uri = "memory" if path is None else str(path)
        frames = np.asarray(array) if path is None else load_array(path, memory_map=True)
        if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
            raise VideoError(
                f"{uri}: a video array has shape (frames, height, width, 3), got {frames.shape}",
                hint="channels come last and no side is 0; a single frame is array[None]",
            )
        check_frame_dtype(frames.dtype, uri)
        numbers = np.arange(len(frames)) if frame_indices is None else np.asarray(frame_indices)
        self._frames: NDArray[np.generic] | None = frames
        self._frame_indices = _checked_numbers(numbers, len(frames), uri)
        self._fps = check_fps(fps)
        self.info = VideoInfo(
            uri=uri,
            fingerprint=fingerprint(frames if path is None else path),
            source="memory" if path is None else "arrays",
            frame_count=len(frames),
            height=frames.shape[1],
            width=frames.shape[2],
            fps=self._fps,
            duration_seconds=None if self._fps is None else len(frames) / self._fps,
        )

    @property
    def frame_indices(self) -> NDArray[np.int64]:
        """Return the frame numbers in rising order."""
        return self._frame_indices

    def pts_seconds(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return frame number / fps, NaN without an fps."""
        return times_of(indices, self._fps)

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> DecodedFrames:
        """Return frames, uint8 RGB (M, H, W, 3); frames with floats outside 0..1 are in `failures`."""
        if self._frames is None:
            raise VideoError(f"{self.info.uri}: the source is closed")
        positions = positions_of(indices, self._frame_indices, self.info.uri)
        numbers = self._frame_indices[positions]
        if len(positions) and positions[-1] - positions[0] == len(positions) - 1:
            chosen = self._frames[positions[0] : positions[-1] + 1]
        else:
            chosen = self._frames[positions]
        if chosen.dtype == np.uint8:
            return DecodedFrames(np.array(chosen, np.uint8, order="C"), numbers, {})
        pixels = np.empty(chosen.shape, np.uint8)
        good = np.zeros(len(numbers), np.bool_)
        failures: dict[int, str] = {}
        for position, number in enumerate(numbers.tolist()):
            try:
                pixels[position] = to_uint8(chosen[position])
                good[position] = True
            except ValueError as error:
                failures[number] = str(error)
        return DecodedFrames(pixels[good], numbers[good], failures)

    def close(self) -> None:
        """Let go of the array."""
        self._frames = None


def load_array(path: Path, *, memory_map: bool = False) -> NDArray[np.generic]:
    """Return the array of a `.npy` file, or the only one (or `arr_0`) of a `.npz` file; never unpickles.

    Raises:
        VideoError: If the file is missing, damaged, holds Python objects, or has several arrays and no `arr_0`.
    """
    try:
        loaded = np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            names = loaded.files
            if len(names) == 1 or "arr_0" in names:
                array: NDArray[np.generic] = loaded["arr_0" if "arr_0" in names else names[0]]
                return array
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise VideoError(f"{path}: cannot be read as an array: {error}", hint="is the file complete?") from error
    raise VideoError(f"{path}: holds {len(names)} arrays ({', '.join(names)})", hint="keep one, or name it arr_0")


def check_frame_dtype(dtype: np.dtype[np.generic], uri: str) -> None:
    """Raise VideoError unless frames of this dtype can be read: uint8, or floats in 0..1."""
    if dtype != np.uint8 and dtype.kind != "f":
        raise VideoError(
            f"{uri}: frames are uint8 (0..255) or float (0..1), got {dtype}", hint="convert with .astype()"
        )


def to_uint8(frame: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return a uint8 frame as it is, a float frame in 0..1 as `round(255 x)`.

    Raises:
        ValueError: If a float is not within 0..1.
    """
    if frame.dtype == np.uint8:
        return np.asarray(frame, np.uint8)
    values = frame.astype(np.float64 if frame.dtype.itemsize > 4 else np.float32)
    low, high = values.min(initial=0), values.max(initial=0)
    if not (low >= 0 and high <= 1):  # also refuses NaN
        raise ValueError(f"float frames must lie in 0..1, got {low:.6g}..{high:.6g}")
    return np.asarray(np.rint(values * 255), np.uint8)


def check_fps(fps: float | None) -> float | None:
    """Return `fps`, raise UsageError unless it is None or a positive number."""
    if fps is not None and not (fps > 0 and np.isfinite(fps)):
        raise UsageError(f"fps must be a positive number, got {fps}")
    return None if fps is None else float(fps)


def times_of(indices: NDArray[np.int64], fps: float | None) -> NDArray[np.float64]:
    """Return number / fps in seconds, NaN for each when there is no fps."""
    numbers = np.asarray(indices, np.float64)
    return np.full(numbers.shape, np.nan) if fps is None else numbers / fps


def _checked_numbers(numbers: NDArray[np.generic], count: int, uri: str) -> NDArray[np.int64]:
    if numbers.shape != (count,) or numbers.dtype.kind not in "iu":
        raise UsageError(f"{uri}: frame_indices must be {count} integers, got {numbers.dtype} {numbers.shape}")
    result = numbers.astype(np.int64)
    if result[0] < 0 or np.any(np.diff(result) <= 0):
        raise UsageError(f"{uri}: frame_indices must rise from 0 or more without repeats")
    return result
