"""What the still-image formats share: which arrays they take, empty arrays, header checks before decoding."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import Bytes
from vrekit.codecs.stage import ArrayToBytesStage, Shape, fits
from vrekit.core.errors import CodecError


class ImageStage(ArrayToBytesStage):
    """An image file: grey (H, W) or colour (H, W, C). An array without pixels is stored as zero bytes.

    Class attributes:
        dtypes: Names of accepted dtypes.
        channels: Accepted numbers of colour channels.
        max_side: Largest height and width.
    """

    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "uint16")
    channels: ClassVar[tuple[int, ...]] = (3,)
    max_side: ClassVar[int] = 65535

    def check(self, dtype: np.dtype[Any], shape: Shape) -> None:
        """Accept images of the class's dtypes, channels and sides."""
        forms = " or ".join(["(H, W)", *(f"(H, W, {count})" for count in self.channels)])
        fits(
            dtype.name in self.dtypes
            and dtype.isnative
            and (len(shape) == 2 or (len(shape) == 3 and shape[2] in self.channels))
            and max(shape[:2]) <= self.max_side,
            self,
            dtype,
            shape,
            f"{' or '.join(self.dtypes)} of shape {forms} with sides up to {self.max_side}",
            "a quantiser stage makes floats uint8 or uint16, the stage 'planes' makes (C, H, W) one tall image; "
            "npy.zst takes any numbers",
        )

    def encode(self, array: NDArray[Any]) -> bytes:
        """Return the file."""
        if array.size == 0:
            return b""
        try:
            return self._encode_image(array)
        except (RuntimeError, ValueError) as error:
            raise CodecError(f"{self.id} cannot encode {array.dtype} {array.shape}: {error}") from error

    def decode(self, data: Bytes, out: NDArray[Any]) -> None:
        """Fill `out` after checking that the file's header promises exactly its shape."""
        if out.size == 0 or len(data) == 0:
            if out.size or len(data):
                raise CodecError(f"{self.id} file has {len(data)} bytes, expected an image of shape {out.shape}")
            return
        try:
            found = self._read_shape(data)
            result = self._decode_image(data, out) if found in (None, out.shape) else None
        except CodecError:
            raise
        # libraries report damage as RuntimeError or ValueError, reading a short header as IndexError
        except (RuntimeError, ValueError, IndexError, TypeError, MemoryError, OSError) as error:
            raise CodecError(f"{self.id} image is damaged or not {out.dtype} {out.shape}: {error}") from error
        if result is None:
            raise CodecError(f"{self.id} image has shape {found}, expected {out.shape}")
        if result is not out:
            if result.shape != out.shape or result.dtype != out.dtype:
                raise CodecError(f"{self.id} image is {result.dtype} {result.shape}, expected {out.dtype} {out.shape}")
            np.copyto(out, result)

    @abstractmethod
    def _encode_image(self, array: NDArray[Any]) -> bytes:
        """Return the file of a non-empty image."""

    @abstractmethod
    def _decode_image(self, data: Any, out: NDArray[Any]) -> NDArray[Any]:
        """Return the image, decoded into `out` where the library can; `data` is Any because stubs forget memoryview."""

    def _read_shape(self, data: Bytes) -> Shape | None:
        """Return the shape the header promises; None where the library checks it before it allocates."""
        return None
