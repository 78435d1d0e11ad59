"""NumPy's own file format; exact for every dtype without objects."""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import Bytes
from vrekit.codecs.stage import ArrayToBytesStage, Shape, fits
from vrekit.core.errors import CodecError

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 1 << 16
_HEADER = re.compile(
    rb"\s*\{\s*'descr':\s*'(?P<descr>[<>|=]?[biufc][0-9]{1,2})',\s*'fortran_order':\s*(?P<fortran>True|False),"
    rb"\s*'shape':\s*\((?P<shape>[0-9, ]{0,400})\),?\s*\}\s*"
)


@dataclass(frozen=True, slots=True)
class Npy(ArrayToBytesStage):
    """`.npy`, C order (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). Exact."""

    id: ClassVar[str] = "npy"
    suffix: ClassVar[str] = "npy"

    def check(self, dtype: np.dtype[Any], shape: Shape) -> None:
        """Accept every dtype but Python objects and text."""
        fits(dtype.kind in "biufc", self, dtype, shape, "numbers or booleans", "txt takes text")

    def encode(self, array: NDArray[Any]) -> bytes:
        """Return header and data."""
        buffer = BytesIO()
        np.lib.format.write_array_header_1_0(buffer, np.lib.format.header_data_from_array_1_0(array))
        if array.size == 0:
            return buffer.getvalue()
        return b"".join((buffer.getvalue(), np.ascontiguousarray(array).reshape(-1).view(np.uint8).data))  # one copy

    def decode(self, data: Bytes, out: NDArray[Any]) -> None:
        """Copy the data into `out` after checking the header against it."""
        np.copyto(out, self.peek(data, out.dtype, out.shape))

    def peek(self, data: Bytes, dtype: np.dtype[Any], shape: Shape) -> NDArray[Any]:
        """Return the data behind the header, not copied."""
        start, found_dtype, found_shape = _read_header(data)
        if found_dtype != dtype or found_shape != shape:
            raise CodecError(f"npy file holds {found_dtype} {found_shape}, expected {dtype} {shape}")
        size = math.prod(shape) * dtype.itemsize
        if len(data) - start != size:
            raise CodecError(f"npy file has {len(data) - start} bytes of data, expected {size}: is it truncated?")
        if size == 0:
            return np.empty(shape, dtype)
        raw = np.frombuffer(data, np.uint8, offset=start)
        if dtype == np.bool_ and raw.max() > 1:  # would be undefined behaviour later on
            raise CodecError("npy file of booleans holds bytes other than 0 and 1")
        return raw.view(dtype).reshape(shape)

    def max_encoded_size(self, dtype: np.dtype[Any], shape: Shape) -> int:
        """Return the data's size and room for a header."""
        return math.prod(shape) * dtype.itemsize + _MAX_HEADER


def _read_header(data: Bytes) -> tuple[int, np.dtype[Any], Shape]:
    """Return (start of the data, dtype, shape); never evaluates code and never unpickles."""
    start = bytes(data[:12])
    if start[:6] != _MAGIC or len(start) < 12 or start[6] not in (1, 2, 3):
        raise CodecError(f"not an npy file: it starts with {start[:8]!r}")
    length_bytes = 2 if start[6] == 1 else 4
    begin = 8 + length_bytes
    end = begin + int.from_bytes(start[8 : 8 + length_bytes], "little")
    if end > min(len(data), _MAX_HEADER):
        raise CodecError(f"npy header claims to end at byte {end} of {len(data)}")
    dtype, shape = _parse_header(bytes(data[begin:end]))
    return end, dtype, shape


@lru_cache(maxsize=256)
def _parse_header(header: bytes) -> tuple[np.dtype[Any], Shape]:
    # Not ast.literal_eval, which NumPy uses: it is not thread-safe in CPython 3.11 ("AST constructor recursion depth
    # mismatch", python/cpython#106905), and takes 20 µs.
    match = _HEADER.fullmatch(header)
    if match is None:
        raise CodecError(f"npy header does not parse: {header[:200]!r}")
    try:
        dtype = np.dtype(match["descr"].decode("latin1"))
        shape = tuple(int(length) for length in match["shape"].split(b",") if length.strip())
    except (TypeError, ValueError) as error:
        raise CodecError(f"npy header does not parse: {error}") from error
    if match["fortran"] == b"True":
        raise CodecError("npy file is in Fortran order; vrekit writes C order")
    return dtype, shape
