"""descriptor/sift: keypoints with SIFT descriptors (Lowe 2004, OpenCV's implementation)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vrekit.representations.base import FrameBatch, Kind, Output, OutputSpec, Representation

_COLUMNS = ("x", "y", "size", "angle", "response", "octave", *(f"descriptor_{i}" for i in range(128)))
_OPENCV_BLUR = 0.5  # the blur OpenCV assumes in every input
_OPENCV_BORDER = 5  # pixels OpenCV leaves out at the border of each octave


@dataclass
class SIFT(Representation):
    """Keypoints, strongest first: ragged float32 (K, 134).

    The columns are x, y (pixels, 0 is the centre of the first pixel), size (diameter, pixels), angle (degrees,
    0..360), response (contrast), octave (-1 is the doubled image, 0 the image itself) and 128 descriptor values,
    0..255.

    Args:
        sigma: Gaussian blur of the first image of each octave, pixels.
        num_intervals: Scales per octave.
        assumed_blur: Blur the camera left in the frame, pixels; at most 0.5.
        image_border_width: Pixels (of its octave) a keypoint keeps from the border; at least 5.
        max_keypoints: Keep only the strongest; None keeps all.
        process_scale: Detect on a frame shrunk by this factor (0..1]; x, y and size stay in pixels of the frame.
    """

    sigma: Annotated[float, Field(ge=0.1, le=32)] = 1.6
    num_intervals: Annotated[int, Field(ge=1, le=16)] = 3
    assumed_blur: Annotated[float, Field(ge=0, le=_OPENCV_BLUR)] = 0.5
    image_border_width: Annotated[int, Field(ge=_OPENCV_BORDER, le=1_000_000)] = 5
    max_keypoints: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    process_scale: Annotated[float, Field(gt=0, le=1)] = 1.0

    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        """Return ragged rows of 134 float32 columns."""
        return OutputSpec(
            kind=Kind.POINTS,
            dtype="float32",
            shape=(None, len(_COLUMNS)),
            axes="KC",
            unit="px",
            columns=_COLUMNS,
            description="SIFT keypoints and descriptors, strongest first",
        )

    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        """Detect and describe the keypoints of each frame."""
        return Output(data=[self._one(frame) for frame in batch.frames])

    def _one(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        gray: NDArray[Any] = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        height, width = gray.shape
        if self.process_scale != 1:
            small = (max(1, round(width * self.process_scale)), max(1, round(height * self.process_scale)))
            gray = cv2.resize(gray, small, interpolation=cv2.INTER_AREA)
        if self.assumed_blur < _OPENCV_BLUR:  # blurs add in squares: bring the image to the blur OpenCV expects
            gray = cv2.GaussianBlur(gray, (0, 0), math.sqrt(_OPENCV_BLUR**2 - self.assumed_blur**2))
        sift = cv2.SIFT.create(nOctaveLayers=self.num_intervals, sigma=self.sigma)
        keypoints = [point for point in sift.detect(gray, None) if self._keeps(point, gray.shape)]
        keypoints.sort(key=lambda point: (-point.response, point.pt, point.size, point.angle))
        rows = np.zeros((0, len(_COLUMNS)), np.float32)
        if keypoints := keypoints[: self.max_keypoints]:
            described, descriptors = sift.compute(gray, keypoints)
            rows = np.empty((len(described), len(_COLUMNS)), np.float32)
            rows[:, :6] = [(*p.pt, p.size, p.angle, p.response, _octave(p)) for p in described]
            rows[:, 6:] = descriptors
        scale_x, scale_y = width / gray.shape[1], height / gray.shape[0]
        rows[:, 0] = (rows[:, 0] + 0.5) * scale_x - 0.5
        rows[:, 1] = (rows[:, 1] + 0.5) * scale_y - 0.5
        rows[:, 2] *= math.sqrt(scale_x * scale_y)
        return rows

    def _keeps(self, point: Any, shape: tuple[int, ...]) -> bool:
        margin = self.image_border_width * 2.0 ** _octave(point)
        x, y = point.pt
        return self.image_border_width == _OPENCV_BORDER or (
            margin <= x < shape[1] - margin and margin <= y < shape[0] - margin
        )


def _octave(point: Any) -> int:
    """Return the octave, which OpenCV packs as a signed byte into the low bits."""
    low = int(point.octave) & 255
    return low - 256 if low > 127 else low
