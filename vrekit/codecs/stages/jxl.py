"""Lossless JPEG XL (ISO/IEC 18181) through libjxl."""

from dataclasses import dataclass
from typing import Any, ClassVar

import imagecodecs
from numpy.typing import NDArray

from vrekit.codecs.stages.image import ImageStage
from vrekit.codecs.stages.libjxl_faults import is_safe_at_effort_1
from vrekit.core.errors import UsageError

_EFFORTS = (1, 2, 7)


@dataclass(frozen=True, slots=True)
class Jxl(ImageStage):
    """A JPEG XL file. Exact.

    float16 is refused on purpose: libjxl's lossless mode does not keep it (libjxl issue 3844).

    Attributes:
        effort: 1 (fast), 2 or 7 (small). The others are bigger *and* slower on such data (docs/codecs.md).
    """

    id: ClassVar[str] = "jxl"
    suffix: ClassVar[str] = "jxl"
    channels: ClassVar[tuple[int, ...]] = (3, 4)
    max_side: ClassVar[int] = 1 << 18  # of level 5, which every decoder reads

    effort: int = 1

    def __post_init__(self) -> None:
        if self.effort not in _EFFORTS:
            raise UsageError(f"jxl.effort is {self.effort}, expected one of {_EFFORTS}")

    def _encode_image(self, array: NDArray[Any]) -> bytes:
        effort = 2 if self.effort == 1 and not is_safe_at_effort_1(array) else self.effort
        return bytes(imagecodecs.jpegxl_encode(array, lossless=True, effort=effort, numthreads=1))

    def _decode_image(self, data: Any, out: NDArray[Any]) -> NDArray[Any]:
        image: NDArray[Any] = imagecodecs.jpegxl_decode(data, out=out, numthreads=1)
        return image
