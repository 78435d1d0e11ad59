"""color/hsv: hue, saturation, value of an RGB image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vrekit.core.errors import UsageError
from vrekit.representations.base import FrameBatch, Kind, Output, OutputSpec, Representation


@dataclass
class HSV(Representation):
    """Hue / 360, saturation and value of its colour dependency: float32 (H, W, 3), each 0..1.

    Within 1e-6 of `colorsys.rgb_to_hsv`; gray pixels have hue 0.
    """

    inputs: ClassVar[tuple[tuple[Kind, ...], ...] | None] = ((Kind.COLOR,),)
    uses_frames: ClassVar[bool] = False

    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        """Return a float32 image of the dependency's size.

        Raises:
            UsageError: If the dependency is not an (H, W, 3) image.
        """
        name, source = next(iter(dependencies.items()))
        if source.axes != "HWC" or source.size_of("C") != 3:
            raise UsageError(
                f"color/hsv needs an RGB image with axes HWC and 3 channels, but {name!r} has axes "
                f"{source.axes} and shape {source.shape}"
            )
        return OutputSpec(
            kind=Kind.COLOR,
            dtype="float32",
            shape=source.shape,
            axes="HWC",
            value_range=(0, 1),
            description="hue / 360, saturation, value",
        )

    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        """Convert each image of the dependency."""
        images = np.asarray(next(iter(dependencies.values())).data)
        result = np.empty(images.shape, np.float32)
        for position, image in enumerate(images):
            # OpenCV adds 1.2e-7 to every divisor: negligible on the scale 0..255, up to 3e-5 on the scale 0..1.
            scaled: NDArray[np.float32] = image.astype(np.float32)
            if not np.issubdtype(images.dtype, np.integer):
                scaled *= 255
            cv2.cvtColor(scaled, cv2.COLOR_RGB2HSV, dst=result[position])
        result[..., 0] /= 360
        result[..., 2] /= 255
        return Output(data=result)
