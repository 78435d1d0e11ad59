"""NumPy's own file format; exact for every dtype without objects."""

import ast
from dataclasses import dataclass
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import Bytes
from vrekit.codecs.stage import ArrayToBytesStage, Shape, fits
from vrekit.core.errors import CodecError

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 1 << 16


@dataclass(frozen=True, slots=True)
class Npy(ArrayToBytesStage):
    """`.npy`, C order (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). Exact."""

    id: ClassVar[str] = "npy"
    suffix: ClassVar[str] = "npy"

    def check(self, dtype: np.dtype[Any], shape: Shape) -> None:
        """Accept every dtype but Python objects and text."""
        fits(dtype.kind in "biufc", self, dtype, shape, "numbers or booleans")

    def encode(self, array: NDArray[Any]) -> bytes:
        """Return header and data."""
        buffer = BytesIO()
        np.lib.format.write_array_header_1_0(buffer, np.lib.format.header_data_from_array_1_0(array))
        return buffer.getvalue() + array.tobytes()

    def decode(self, data: Bytes, out: NDArray[Any]) -> None:
        """Copy the data into `out` after checking the header against it."""
        start, dtype, shape = _read_header(data)
        if dtype != out.dtype or shape != out.shape:
            raise CodecError(f"npy file holds {dtype} {shape}, expected {out.dtype} {out.shape}")
        if len(data) - start != out.nbytes:
            raise CodecError(f"npy file has {len(data) - start} bytes of data, expected {out.nbytes}: is it truncated?")
        # bool(-like) bytes other than 0 and 1 would be undefined behaviour later on
        raw = np.frombuffer(data, np.uint8, offset=start)
        if out.dtype == np.bool_ and raw.size and raw.max() > 1:
            raise CodecError("npy file of booleans holds bytes other than 0 and 1")
        if out.size:
            np.copyto(out, raw.view(out.dtype).reshape(out.shape))

    def max_encoded_size(self, dtype: np.dtype[Any], shape: Shape) -> int:
        """Return the data's size and room for a header."""
        return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize + _MAX_HEADER


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
    try:
        header = ast.literal_eval(bytes(data[begin:end]).decode("latin1").strip())
        dtype, shape, fortran = np.dtype(header["descr"]), header["shape"], header["fortran_order"]
    except (SyntaxError, ValueError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise CodecError(f"npy header does not parse: {error}") from error
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape) or dtype.hasobject:
        raise CodecError(f"npy header is not acceptable: {header!r}")
    if fortran is not False:
        raise CodecError("npy file is in Fortran order; vrekit writes C order")
    return end, dtype, shape
