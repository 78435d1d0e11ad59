"""Lossless WebP (RFC 9649)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import Bytes
from vrekit.codecs.stage import Shape, fits
from vrekit.codecs.stages.image import ImageStage
from vrekit.core.errors import CodecError, UsageError

_SIGNATURE = 0x2F


@dataclass(frozen=True, slots=True)
class Webp(ImageStage):
    """A lossless WebP file of an RGB image; every browser shows it. Exact.

    Attributes:
        method: 0 (fast) .. 6 (small).
    """

    id: ClassVar[str] = "webp"
    suffix: ClassVar[str] = "webp"
    dtypes: ClassVar[tuple[str, ...]] = ("uint8",)
    max_side: ClassVar[int] = 16383

    method: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.method <= 6:
            raise UsageError(f"webp.method is {self.method}, expected 0..6")

    def check(self, dtype: np.dtype[Any], shape: Shape) -> None:
        """Accept (H, W, 3) uint8 only: WebP has no grey images."""
        fits(
            dtype == np.uint8 and len(shape) == 3 and shape[2] == 3 and max(shape[:2]) <= self.max_side,
            self,
            dtype,
            shape,
            f"uint8 of shape (H, W, 3) with sides up to {self.max_side}",
            "png takes grey, 16-bit and larger images, npy.zst any numbers",
        )

    def _encode_image(self, array: NDArray[Any]) -> bytes:
        return bytes(imagecodecs.webp_encode(array, lossless=True, method=self.method))

    def _decode_image(self, data: Any, out: NDArray[Any]) -> NDArray[Any]:
        image: NDArray[Any] = imagecodecs.webp_decode(data, out=out)
        return image

    def _read_shape(self, data: Bytes) -> Shape:
        header = bytes(data[:25])
        if len(header) < 25 or header[:4] != b"RIFF" or header[8:16] != b"WEBPVP8L" or header[20] != _SIGNATURE:
            raise CodecError(f"not a lossless WebP file: it starts with {header[:16]!r}")
        bits = int.from_bytes(header[21:25], "little")
        return ((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, 3)
