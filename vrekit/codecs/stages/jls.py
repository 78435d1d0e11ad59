"""Lossless JPEG-LS (ITU-T T.87) through CharLS."""

from dataclasses import dataclass
from typing import Any, ClassVar

import imagecodecs
from numpy.typing import NDArray

from vrekit.codecs.base import Bytes
from vrekit.codecs.stage import Shape
from vrekit.codecs.stages.image import ImageStage
from vrekit.core.errors import CodecError


@dataclass(frozen=True, slots=True)
class Jls(ImageStage):
    """A JPEG-LS file: the best of size and speed on quantised maps and class indices. Exact."""

    id: ClassVar[str] = "jls"
    suffix: ClassVar[str] = "jls"

    def _encode_image(self, array: NDArray[Any]) -> bytes:
        return bytes(imagecodecs.jpegls_encode(array))

    def _decode_image(self, data: Bytes, out: NDArray[Any]) -> NDArray[Any]:
        image: NDArray[Any] = imagecodecs.jpegls_decode(data, out=out)
        return image

    def _read_shape(self, data: Bytes) -> Shape:
        # segments up to the frame header SOF55: FF F7, length, precision, height, width, components
        view = memoryview(data)
        if bytes(view[:2]) != b"\xff\xd8":
            raise CodecError(f"not a JPEG-LS file: it starts with {bytes(view[:8])!r}")
        at = 2
        while bytes(view[at : at + 2]) != b"\xff\xf7":
            if at + 4 > len(view) or view[at] != 0xFF:
                raise CodecError("JPEG-LS file has no frame header")
            at += 2 + int.from_bytes(view[at + 2 : at + 4], "big")
        height, width = int.from_bytes(view[at + 5 : at + 7], "big"), int.from_bytes(view[at + 7 : at + 9], "big")
        return (height, width) if view[at + 9] == 1 else (height, width, view[at + 9])
