"""edges/canny: binary edges by hysteresis of the image gradient (Canny 1986, OpenCV's implementation)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from vrekit.core.errors import UsageError
from vrekit.representations.base import FrameBatch, Kind, Output, OutputSpec, Representation


@dataclass
class Canny(Representation):
    """Edges of the RGB frame: uint8 (H, W), 1 on an edge, else 0.

    uint8 because every image codec stores it without loss; 0/1 (not 0/255) because edge strength is 0..1 whatever
    the type. At each pixel the colour channel with the strongest gradient counts.

    Args:
        threshold1: Lower hysteresis threshold on the gradient of 0..255 values: weaker pixels are never edges.
        threshold2: Upper threshold: stronger pixels always are; those between are when they touch an edge.
        aperture_size: Size of the Sobel window: 3, 5 or 7 pixels. Thresholds grow with it.
        l2_gradient: Measure the gradient by its Euclidean length instead of |dx| + |dy|.
    """

    threshold1: Annotated[float, Field(ge=-1e6, le=1e6)] = 100.0
    threshold2: Annotated[float, Field(ge=-1e6, le=1e6)] = 200.0
    aperture_size: Annotated[int, Field(ge=3, le=7)] = 3
    l2_gradient: bool = True

    def __post_init__(self) -> None:
        if self.aperture_size not in (3, 5, 7):
            raise UsageError(f"aperture_size must be 3, 5 or 7, got {self.aperture_size}")

    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        """Return a uint8 0/1 map of the frame's size."""
        return OutputSpec(
            kind=Kind.EDGES,
            dtype="uint8",
            shape=(height, width),
            axes="HW",
            value_range=(0, 1),
            description="Canny edges, 1 on an edge",
        )

    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        """Find the edges of each frame."""
        edges = np.empty(batch.frames.shape[:3], np.uint8)
        for frame, edge in zip(batch.frames, edges, strict=True):
            cv2.Canny(
                frame,
                self.threshold1,
                self.threshold2,
                edges=edge,
                apertureSize=self.aperture_size,
                L2gradient=self.l2_gradient,
            )
        return Output(data=np.minimum(edges, 1, out=edges))
