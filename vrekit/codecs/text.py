"""Captions as plain text files."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import Bytes, Codec
from vrekit.core.errors import CodecError

_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Text(Codec):
    """A 0-d array of str ⇄ a UTF-8 file without a byte order mark. Exact, but for trailing NULs, which numpy drops."""

    @property
    def id(self) -> str:
        """`txt`."""
        return "txt"

    @property
    def suffix(self) -> str:
        """`txt`."""
        return "txt"

    @property
    def is_exact(self) -> bool:
        """True."""
        return True

    def config(self) -> dict[str, Any]:
        """Return the id; there are no options."""
        return {"id": "txt"}

    def decoded_layout(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Return the same; refuses everything but one str."""
        if dtype.kind != "U" or shape != ():
            raise CodecError(
                f"codec 'txt' takes one str (shape ()), got {dtype} {shape}", hint="npy.zst takes any numbers"
            )
        return dtype, shape

    def max_encoded_size(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
        """Return 64 MiB: the layout does not say how long a text is."""
        return _MAX_BYTES

    def encode(self, array: NDArray[Any]) -> bytes:
        """Return the text in UTF-8."""
        self.decoded_layout(array.dtype, array.shape)
        try:
            return str(array.item()).encode()
        except UnicodeEncodeError as error:
            raise CodecError(f"text has no UTF-8 form: {error}") from error

    def decode(
        self, data: Bytes, *, dtype: np.dtype[Any], shape: tuple[int, ...], out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return the text as a 0-d array; it is as long as the text unless `dtype` has a length of its own."""
        dtype = np.dtype(dtype)
        self.decoded_layout(dtype, tuple(shape))
        try:
            text = np.asarray(str(bytes(data), "utf-8"))
        except UnicodeDecodeError as error:
            raise CodecError(f"text file is not UTF-8: {error}") from error
        if out is None and dtype.itemsize == 0:
            return text
        target = np.empty((), dtype) if out is None else out
        if text.dtype.itemsize > target.dtype.itemsize or target.dtype.kind != "U" or target.shape != ():
            raise CodecError(f"text is {text.dtype}, expected at most {target.dtype} {target.shape}")
        target[()] = text
        return target
