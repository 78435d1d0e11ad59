"""color/rgb: the decoded frames themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from vrekit.representations.base import FrameBatch, Kind, Output, OutputSpec, Representation


@dataclass
class RGB(Representation):
    """The frames as decoded: uint8 (H, W, 3), 0..255. Nothing is copied."""

    is_source: ClassVar[bool] = True

    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        """Return a uint8 colour image of the frame's size."""
        return OutputSpec(
            kind=Kind.COLOR,
            dtype="uint8",
            shape=(height, width, 3),
            axes="HWC",
            value_range=(0, 255),
            natural=True,
            description="decoded RGB pixels",
        )

    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        """Return the batch's own pixel array."""
        return Output(data=batch.frames)
