"""What `vrekit stats` measures on one frame: plain functions on arrays.

Legend: H height, W width.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vrekit.core.spec import OutputSpec

MOTION_WIDTH = 160  # pixels; flow at this size takes about 1 ms, and its mean hardly changes with more


@dataclass(frozen=True, slots=True)
class Appearance:
    """Measurements of one picture.

    Attributes:
        luma_mean: Mean luma (ITU-R BT.601), 0..1.
        sharpness: Variance of the Laplacian of the luma on the scale 0..1: low when blurred.
        phash: 64-bit perceptual hash; near-duplicates differ in few bits.
        small: Luma at most MOTION_WIDTH wide, uint8, for `motion`.
        scale: Width of the picture over the width of `small`.
    """

    luma_mean: float
    sharpness: float
    phash: int
    small: NDArray[np.uint8]
    scale: float


def appearance(image: NDArray[np.uint8]) -> Appearance:
    """Measure an RGB picture, uint8 (H, W, 3)."""
    gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    height, width = gray.shape
    laplacian = cv2.Laplacian(gray, cv2.CV_32F) / 255
    small_width = min(width, MOTION_WIDTH)
    size = (small_width, max(1, round(height * small_width / width)))
    small = gray if size == (width, height) else cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    return Appearance(
        luma_mean=float(gray.mean()) / 255,
        sharpness=float(laplacian.var()),
        phash=perceptual_hash(gray),
        small=np.asarray(small, np.uint8),
        scale=width / small_width,
    )


def perceptual_hash(gray: NDArray[np.uint8]) -> int:
    """Return the DCT hash of a gray picture (H, W): pHash of Zauner, "Implementation and benchmarking of perceptual
    image hash functions", 2010.

    The picture is scaled to 32x32; of its cosine transform the 8x8 lowest frequencies are compared with their median
    (the constant one left out). Bit i, from the highest, is frequency i in row order.
    """  # noqa: D205  # the title of the source does not fit one line
    small = cv2.resize(gray, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].reshape(-1)
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def motion(before: Appearance, now: Appearance, frames_between: int) -> float | None:
    """Return the mean length of the optical flow between two pictures, in pixels per frame.

    Dense inverse search (Kroeger et al., ECCV 2016) on the small lumas, scaled back to the picture's size and divided
    by how many frames lie between. None when the two differ in size or are too small for it.
    """
    if before.small.shape != now.small.shape or min(now.small.shape) < 16:
        return None
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow = search.calc(before.small, now.small, np.zeros((*now.small.shape, 2), np.float32))
    length = np.hypot(flow[..., 0], flow[..., 1]).mean()
    return float(length) * now.scale / frames_between


def depth_range(depth: NDArray[Any], spec: OutputSpec) -> tuple[float | None, float | None]:
    """Return the smallest and largest depth, in the stored unit; None twice when no pixel holds a measurement."""
    values = np.asarray(depth, np.float32).reshape(-1)
    known = np.isfinite(values)
    if isinstance(spec.invalid_value, (int, float)):
        known &= values != spec.invalid_value
    values = values[known]
    return (float(values.min()), float(values.max())) if len(values) else (None, None)


def class_histogram(indices: NDArray[Any], spec: OutputSpec) -> NDArray[np.float32]:
    """Return the share of pixels of each class, float32, one entry per class; unlabelled pixels count as none.

    The length is the number of class names, or one more than the highest index when there are no names.
    """
    flat = np.asarray(indices, np.int64).reshape(-1)
    known = flat >= 0
    if isinstance(spec.invalid_value, (int, float)):
        known &= flat != spec.invalid_value
    counts = np.bincount(flat[known], minlength=len(spec.classes or ()))
    return (counts / max(1, len(flat))).astype(np.float32)
