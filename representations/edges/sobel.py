"""edges/sobel: gradient magnitude of the gray image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from vrekit.core.errors import UsageError
from vrekit.representations.base import FrameBatch, Kind, Output, OutputSpec, Representation


@dataclass
class Sobel(Representation):
    """Length of the Sobel gradient of the gray frame: float32 (H, W), 0..1.

    1 is a straight edge from black to white; the few corners that are steeper (up to 1.12 at size 3) are cut to 1.

    Args:
        aperture_size: Size of the Sobel window: 3, 5 or 7 pixels.
    """

    aperture_size: Annotated[int, Field(ge=3, le=7)] = 3

    def __post_init__(self) -> None:
        if self.aperture_size not in (3, 5, 7):
            raise UsageError(f"aperture_size must be 3, 5 or 7, got {self.aperture_size}")

    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        """Return a float32 map of the frame's size."""
        return OutputSpec(
            kind=Kind.EDGES,
            dtype="float32",
            shape=(height, width),
            axes="HW",
            value_range=(0, 1),
            description="Sobel gradient magnitude, 1 is a black-to-white step",
        )

    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        """Measure the gradient of each frame."""
        derivative, smoothing = cv2.getDerivKernels(1, 0, self.aperture_size)
        full_step = 255 * float(np.maximum(derivative, 0).sum() * smoothing.sum())
        result = np.empty(batch.frames.shape[:3], np.float32)
        for frame, strength in zip(batch.frames, result, strict=True):
            gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            # Unscaled gradients are whole numbers. What OpenCV rounds (scale, magnitude) depends on where in memory the
            # pixel lies, so that a frame would change with its batch.
            dx = cv2.Sobel(gray, cv2.CV_32F, 1, 0, ksize=self.aperture_size)
            dy = cv2.Sobel(gray, cv2.CV_32F, 0, 1, ksize=self.aperture_size)
            np.sqrt(dx * dx + dy * dy, out=strength)
        result /= full_step
        return Output(data=np.minimum(result, 1, out=result))
