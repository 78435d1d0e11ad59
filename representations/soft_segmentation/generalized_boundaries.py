"""soft-segmentation/generalized-boundaries: colours that occur together become one soft segment.

The soft segmentation of "Efficient Closed-Form Solution to Generalized Boundary Detection" (Leordeanu, Sukthankar,
Sminchisescu, ECCV 2012, https://link.springer.com/chapter/10.1007/978-3-642-33765-9_37), with upstream VRE's settings:

1. Shrink the frame to 300 pixels (longer side) and quantise it to 15 x 11 x 7 HSV colours.
2. Note for windows of 16 x 16 pixels, every 8 pixels, which colours they hold; PCA of these sets, keeping half of the
   energy, is a model of which colours go together.
3. For windows every 30 pixels: complete the window's own set of colours by the model, and rate each pixel by how
   likely its colour belongs to it. That is one map per window.
4. PCA over these maps: the first components are the soft segments.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vrekit.core.errors import UsageError
from vrekit.representations.base import FrameBatch, Kind, Output, OutputSpec, Representation

_LONGER_SIDE = 300
_HUES, _SATURATIONS, _VALUES = 15, 11, 7
_WINDOW = 16
_MODEL_STEP = 8
_MAP_STEP = 30
_ENERGY = 0.5
_FIT_STEP = 3  # pixels between the samples of the colour adjustment
_EPSILON = float(np.finfo(np.float32).eps)

Floats = NDArray[np.float32]


@dataclass
class GeneralizedBoundaries(Representation):
    """Soft segments of the frame: float32 (H, W, C), 0..1 over the whole frame.

    C is 3, or `max_channels` without `adjust_to_rgb`.

    Args:
        use_median_filtering: Smooth the segments by a 3x3 median.
        adjust_to_rgb: Map the segments linearly to the colours of the frame, so that they look like it.
        max_channels: Components to keep; at most one per 30 x 30 pixels of the shrunk frame (60 at 16:9).
    """

    use_median_filtering: bool = True
    adjust_to_rgb: bool = True
    max_channels: Annotated[int, Field(ge=1, le=1000)] = 3

    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        """Return a float32 image of the frame's size.

        Raises:
            UsageError: If the frame is too narrow for `max_channels` components.
        """
        rows, columns = (len(_window_starts(side, _MAP_STEP)) for side in _shrunk(height, width))
        if rows * columns < self.max_channels:
            raise UsageError(
                f"a {width}x{height} frame has {rows * columns} windows, too few for {self.max_channels = }"
            )
        return OutputSpec(
            kind=Kind.COLOR,
            dtype="float32",
            shape=(height, width, 3 if self.adjust_to_rgb else self.max_channels),
            axes="HWC",
            value_range=(0, 1),
            description="soft segments by generalized boundaries",
        )

    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        """Segment each frame."""
        channels = 3 if self.adjust_to_rgb else self.max_channels
        result = np.empty((*batch.frames.shape[:3], channels), np.float32)
        for position, frame in enumerate(batch.frames):
            result[position] = self._one(frame)
        return Output(data=result)

    def _one(self, frame: NDArray[np.uint8]) -> Floats:
        height, width = frame.shape[:2]
        rows, columns = _shrunk(height, width)
        step = max(height, width) / _LONGER_SIDE
        picked = frame[(np.arange(rows) * step).astype(int)][:, (np.arange(columns) * step).astype(int)]
        low, high = (frame.reshape(-1, 3).min(0) / np.float32(255), frame.reshape(-1, 3).max(0) / np.float32(255))
        image = (picked / np.float32(255) - low) / (high - low + _EPSILON)
        maps = _window_maps(_quantise(image))
        segments = _principal_components(maps, self.max_channels).reshape(rows, columns, -1)
        if self.use_median_filtering:
            planes = [cv2.medianBlur(np.ascontiguousarray(plane), 3) for plane in np.moveaxis(segments, -1, 0)]
            segments = np.asarray(np.stack(planes, -1), np.float32)
        if self.adjust_to_rgb:
            segments = _fit_colors(segments, image)
        resized = [
            cv2.resize(np.ascontiguousarray(channel), (width, height), interpolation=cv2.INTER_CUBIC)
            for channel in np.moveaxis(segments, -1, 0)
        ]
        return _stretch(np.asarray(np.stack(resized, -1), np.float32), None)


def _shrunk(height: int, width: int) -> tuple[int, int]:
    scale = _LONGER_SIDE / max(height, width)
    return max(1, int(height * scale)), max(1, int(width * scale))


def _window_starts(side: int, step: int) -> NDArray[np.int64]:
    return np.arange(0, max(0, side - _WINDOW), step)


def _stretch(image: Floats, axes: tuple[int, ...] | None) -> Floats:
    """Return the image with its smallest value along the axes at 0 and its largest at 1."""
    low, high = image.min(axes), image.max(axes)
    return np.asarray((image - low) / (high - low + _EPSILON), np.float32)


def _quantise(image: Floats) -> NDArray[np.int64]:
    """Return the colour number 0..1154 of each pixel of an RGB image in 0..1."""
    top = np.array([_HUES - 1, _SATURATIONS - 1, _VALUES - 1], np.float32)
    # Halves are rounded to odd numbers, as counting colours from 1 makes upstream do.
    levels = (np.rint(_stretch(_to_hsv(image), (0, 1)) * top + 1) - 1).astype(np.int64)
    return np.asarray(levels[..., 0] + _HUES * (levels[..., 1] + _SATURATIONS * levels[..., 2]))


def _to_hsv(image: Floats) -> Floats:
    """Return hue / 360, saturation, value as upstream VRE has them: gray has hue 0.5, black has saturation 1."""
    red, green, blue = np.moveaxis(image, -1, 0)
    value = image.max(-1)
    spread = value - image.min(-1) + np.float32(1e-10)
    offset = np.choose(
        image.argmin(-1),
        [180 + 60 * (blue - green) / spread, 300 + 60 * (red - blue) / spread, 60 + 60 * (green - red) / spread],
    )
    return np.stack([offset / 360, spread / (value + np.float32(1e-10)), value], axis=-1)


def _colors_in_windows(colors: NDArray[np.int64], count: int, step: int) -> Floats:
    """Return which colours each window holds, 0 or 1, as (windows, count)."""
    windows = np.lib.stride_tricks.sliding_window_view(colors, (_WINDOW, _WINDOW))
    rows, columns = (_window_starts(side, step) for side in colors.shape)
    chosen = windows[rows[:, None], columns].reshape(len(rows) * len(columns), -1)
    held = np.zeros((len(chosen), count), np.float32)
    np.put_along_axis(held, chosen, 1.0, axis=1)
    return held


def _window_maps(colors: NDArray[np.int64]) -> Floats:
    """Return for each map window how much each pixel's colour belongs to it, 0..1: (windows, pixels)."""
    # Colours that occur nowhere have zero rows in the covariance: leaving them out changes nothing and is much smaller.
    present, compact = np.unique(colors, return_inverse=True)
    compact = compact.reshape(colors.shape)
    held = _colors_in_windows(compact, len(present), _MODEL_STEP)
    mean = held.mean(axis=0)
    energy, vectors = _descending_eigenvectors((held - mean).T @ (held - mean))
    reached = np.cumsum(energy)
    basis = vectors[:, : int(np.argmax(reached > reached[-1] * _ENERGY)) + 1]
    likely = (_colors_in_windows(compact, len(present), _MAP_STEP) - mean) @ basis @ basis.T
    inside, outside = np.maximum(mean + likely, 0), np.maximum(mean - likely, 0)
    return np.asarray((inside / (inside + outside + _EPSILON))[:, compact.ravel()], np.float32)


def _principal_components(maps: Floats, count: int) -> Floats:
    """Return the `count` strongest components of the maps: (pixels, count)."""
    maps = maps - maps.mean(axis=1, keepdims=True)
    _, vectors = _descending_eigenvectors(maps @ maps.T)
    return np.asarray(maps.T @ vectors[:, :count], np.float32)


def _descending_eigenvectors(matrix: Floats) -> tuple[Floats, Floats]:
    """Return eigenvalues, largest first, and eigenvectors; the largest entry of each vector is positive."""
    values, vectors = np.linalg.eigh(matrix)
    values, vectors = values[::-1], vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    return values, vectors * np.sign(vectors[largest, np.arange(len(values))])


def _fit_colors(segments: Floats, image: Floats) -> Floats:
    """Return the linear combination of the segments that is nearest to the image: (rows, columns, 3)."""
    rows, columns, count = segments.shape
    design = np.concatenate([segments, np.ones((rows, columns, 1), np.float32)], axis=-1)
    sampled = slice(0, -_FIT_STEP, _FIT_STEP)
    weights, *_ = np.linalg.lstsq(
        design[sampled, sampled].reshape(-1, count + 1), image[sampled, sampled].reshape(-1, 3), rcond=None
    )
    return np.asarray(design @ weights, np.float32)
