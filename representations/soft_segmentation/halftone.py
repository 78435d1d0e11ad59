"""soft-segmentation/halftone: an image as three rotated screens of dots, as newspapers print it.

Each of cyan, magenta and yellow is turned by its own angle and cut into boxes of `sample` x `sample` pixels; a box
becomes a dot whose area is proportional to the box's mean; the screen is turned back. A box has only
`255 * sample**2 + 1` possible sums, so one dot per sum is drawn beforehand and the screens are looked up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import Field

from vrekit.core.errors import UsageError
from vrekit.core.spec import MAX_IMAGE_PIXELS
from vrekit.representations.base import FrameBatch, Kind, Output, OutputSpec, Representation

_ANTIALIAS = 4  # screens are drawn this much larger and shrunk
_LARGEST_TABLE_BYTES = 256 << 20

_Angle = Annotated[int, Field(ge=-3600, le=3600)]
_Side = Annotated[int, Field(ge=1, le=65536)]


@dataclass
class Halftone(Representation):
    """Dot screens of cyan, magenta and yellow: uint8 (h, w, 3), 255 inside a dot; black is left out.

    The same numbers as upstream VRE's (times 255; there they are float32).

    Args:
        sample: Side of the box a dot stands for, pixels.
        scale: Size of a dot's box in the output over `sample`; the output is `resolution` times `scale`.
        percentage: Share of the gray part of a pixel that is moved to black (and so left out), 0..100.
        angles: Counter-clockwise turn of the cyan, magenta, yellow and black screens, degrees. Black is not used.
        antialias: Draw the dots 4 times larger and shrink them, for smooth edges.
        resolution: (height, width) the frame is resized to first, pixels.
    """

    sample: Annotated[int, Field(ge=1, le=64)] = 3
    scale: Annotated[int, Field(ge=1, le=64)] = 1
    percentage: Annotated[float, Field(ge=0, le=100)] = 91.0
    angles: tuple[_Angle, _Angle, _Angle, _Angle] = (0, 15, 30, 45)
    antialias: bool = False
    resolution: tuple[_Side, _Side] = (240, 426)

    def __post_init__(self) -> None:
        height, width = (side * self._upscale for side in self.resolution)
        if height * width > MAX_IMAGE_PIXELS:
            raise UsageError(
                f"resolution {list(self.resolution)} with scale {self.scale} would need a drawing of {height}x{width} "
                f"pixels, expected at most {MAX_IMAGE_PIXELS}",
                hint="take a smaller resolution or scale, or no antialias",
            )
        table_bytes = (self.sample**2 * 255 + 1) * (self.sample * self._upscale + 2) ** 2
        if table_bytes > _LARGEST_TABLE_BYTES:
            raise UsageError(
                f"sample {self.sample} with scale {self.scale} would need a {table_bytes >> 20} MiB table of dots",
                hint="take a smaller sample or scale, or no antialias",
            )

    @property
    def _upscale(self) -> int:
        return self.scale * (_ANTIALIAS if self.antialias else 1)

    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        """Return a uint8 image of `resolution` times `scale`."""
        return OutputSpec(
            kind=Kind.COLOR,
            dtype="uint8",
            shape=(self.resolution[0] * self.scale, self.resolution[1] * self.scale, 3),
            axes="HWC",
            value_range=(0, 255),
            description="cyan, magenta and yellow halftone screens",
        )

    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        """Screen each frame."""
        shape = (self.resolution[0] * self.scale, self.resolution[1] * self.scale, 3)
        result = np.empty((len(batch), *shape), np.uint8)
        for frame, screens in zip(batch.frames, result, strict=True):
            height, width = self.resolution
            small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)  # what upstream does
            inks = _remove_gray(255 - np.asarray(small, np.uint8), self.percentage)
            for channel in range(3):
                screens[..., channel] = self._screen(inks[..., channel], self.angles[channel])
        return Output(data=result)

    def _screen(self, ink: NDArray[np.uint8], angle: int) -> NDArray[np.uint8]:
        height, width = ink.shape
        turned = np.asarray(Image.fromarray(ink).rotate(angle, expand=True))
        dots = Image.fromarray(_draw_dots(turned, self.sample, self._upscale)).rotate(-angle, expand=True)
        high, wide = height * self._upscale, width * self._upscale
        left, top = (dots.width - wide) / 2, (dots.height - high) / 2
        screen = dots.crop((left, top, left + wide, top + high))
        if self.antialias:
            screen = screen.resize((width * self.scale, height * self.scale), Image.Resampling.BILINEAR)
        return np.asarray(screen)


def _remove_gray(inks: NDArray[np.uint8], percentage: float) -> NDArray[np.uint8]:
    """Take `percentage` of the part that cyan, magenta and yellow have in common out of each."""
    gray = (inks.min(-1).astype(np.int64) * percentage / 100).astype(np.uint8)
    return np.asarray(inks - gray[..., None], np.uint8)


def _draw_dots(ink: NDArray[np.uint8], sample: int, upscale: int) -> NDArray[np.uint8]:
    """Return the screen of an ink: (H * upscale, W * upscale)."""
    table = _dot_table(sample, upscale)
    side = sample * upscale
    height, width = ink.shape
    rows, columns = -(-height // sample), -(-width // sample)
    padded = np.zeros((rows * sample, columns * sample), np.int64)
    padded[:height, :width] = ink
    dots = table[padded.reshape(rows, sample, columns, sample).sum((1, 3))]  # (rows, columns, side + 2, side + 2)
    canvas = np.zeros((rows * side + 2, columns * side + 2), np.uint8)
    canvas[1:-1, 1:-1] = dots[:, :, 1:-1, 1:-1].transpose(0, 2, 1, 3).reshape(rows * side, columns * side)
    # What spills over a box's edge lies on the boxes around it; the brighter wins where dots overlap.
    for y in range(side + 2):
        for x in range(side + 2) if y in (0, side + 1) else (0, side + 1):
            covered = canvas[y::side][:rows][:, x::side][:, :columns]
            np.maximum(covered, dots[:, :, y, x], out=covered)
    return canvas[1:-1, 1:-1][: height * upscale, : width * upscale]


@lru_cache(maxsize=4)
def _dot_table(sample: int, upscale: int) -> NDArray[np.uint8]:
    """Return one dot per possible box sum: (255 * sample**2 + 1, side + 2, side + 2), side = sample * upscale.

    The margin of one pixel is there because PIL draws up to and including the end coordinate.
    """
    side = sample * upscale
    table = np.zeros((sample * sample * 255 + 1, side + 2, side + 2), np.uint8)
    for total in range(len(table)):
        diameter = (total / (sample * sample) / 255) ** 0.5 * side
        low = (side - diameter) / 2 + 1
        dot = Image.new("L", (side + 2, side + 2))
        ImageDraw.Draw(dot).ellipse([(low, low), (low + diameter, low + diameter)], fill=255)
        table[total] = np.asarray(dot)
    table.flags.writeable = False
    return table
