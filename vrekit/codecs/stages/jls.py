"""Lossless JPEG-LS (ITU-T T.87) through CharLS."""

from dataclasses import dataclass
from typing import Any, ClassVar

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import Bytes
from vrekit.codecs.stage import Shape
from vrekit.codecs.stages.image import ImageStage
from vrekit.core.errors import CodecError

_START_OF_FRAME, _START_OF_SCAN = 0xF7, 0xDA


@dataclass(frozen=True, slots=True)
class Jls(ImageStage):
    """A grey JPEG-LS file: the best of size and speed on quantised maps and class indices. Exact."""

    id: ClassVar[str] = "jls"
    suffix: ClassVar[str] = "jls"
    channels: ClassVar[tuple[int, ...]] = ()

    def _encode_image(self, array: NDArray[Any]) -> bytes:
        try:
            return bytes(imagecodecs.jpegls_encode(array))
        except imagecodecs.JpeglsError:  # noise can grow beyond the memory it reserves; 32 bits a pixel are the limit
            return bytes(imagecodecs.jpegls_encode(array, out=4 * array.size + (1 << 16)))

    def _decode_image(self, data: Any, out: NDArray[Any]) -> NDArray[Any]:
        image: NDArray[Any] = imagecodecs.jpegls_decode(data, out=out)
        return image

    def _read_shape(self, data: Bytes) -> Shape:
        # segments up to the scan: FF, marker, length; the frame header FF F7 holds precision, height, width, components
        view = memoryview(data)
        if bytes(view[:2]) != b"\xff\xd8" or bytes(view[-2:]) != b"\xff\xd9":
            raise CodecError("JPEG-LS file has no start or no end: is it truncated?")
        at = 2
        shape: Shape | None = None
        while view[at + 1] != _START_OF_SCAN:
            if view[at] != 0xFF:
                raise CodecError("JPEG-LS file has damaged headers")
            if view[at + 1] == _START_OF_FRAME:
                height, width = (int.from_bytes(view[at + k : at + k + 2], "big") for k in (5, 7))
                shape = (height, width, view[at + 9])
            at += 2 + int.from_bytes(view[at + 2 : at + 4], "big")
        scan = np.frombuffer(view, np.uint8, offset=at)[2 + int.from_bytes(view[at + 2 : at + 4], "big") : -2]
        # a marker inside of the scan ends the data early, and CharLS then spins for seconds
        if shape is None or ((scan[:-1] == 0xFF) & (scan[1:] >= 0x80)).any():
            raise CodecError("JPEG-LS file has no frame header, or a marker within its pixels")
        return shape[:2] if shape[2] == 1 else shape
