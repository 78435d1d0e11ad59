"""Small arrays as JSON: boxes, keypoints, sensor values."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import Bytes
from vrekit.codecs.stage import ArrayToBytesStage, Shape, fits
from vrekit.core.errors import CodecError, UsageError
from vrekit.core.spec import OutputSpec

_SPECIAL = {"inf": np.inf, "-inf": -np.inf}


@dataclass(frozen=True, slots=True)
class JsonRows(ArrayToBytesStage):
    """A JSON file: `{"columns": [...], "rows": ...}`, or just the rows where columns have no names.

    Rows are nested lists of numbers; NaN is null, infinities are "inf" and "-inf". Exact with `decimals: null`
    (floats are written with as many digits as tell them apart); else the largest error is half a unit of the last
    decimal, and the float rounding of the value itself.

    Attributes:
        columns: Names of the last axis.
        decimals: Digits kept after the point.
    """

    id: ClassVar[str] = "json"
    suffix: ClassVar[str] = "json"

    columns: tuple[str, ...] | None = None
    decimals: int | None = None

    def __post_init__(self) -> None:
        if self.decimals is not None and not 0 <= self.decimals <= 15:
            raise UsageError(f"json.decimals is {self.decimals}, expected 0..15 or null")

    @property
    def is_exact(self) -> bool:
        """Whether nothing is rounded."""
        return self.decimals is None

    @classmethod
    def options_for(cls, spec: OutputSpec) -> dict[str, Any]:
        """Return the names of the columns."""
        return {"columns": spec.columns} if spec.columns and spec.shape and spec.shape[-1] == len(spec.columns) else {}

    def check(self, dtype: np.dtype[Any], shape: Shape) -> None:
        """Accept numbers and booleans; with columns, as many as the last axis has."""
        fits(
            dtype.kind in "biuf" and dtype.itemsize <= 8 and len(shape) <= 8,
            self,
            dtype,
            shape,
            "numbers or booleans",
            "npy.zst takes any numbers",
        )
        if self.columns is not None:
            count = len(self.columns)
            fits(
                len(shape) > 0 and shape[-1] == count,
                self,
                dtype,
                shape,
                f"arrays whose last axis has {count}",
                "name each column in `columns`; npy.zst takes any numbers",
            )

    def max_encoded_size(self, dtype: np.dtype[Any], shape: Shape) -> int:
        """Return room for the names, the numbers, and the brackets of all rows."""
        names = len(json.dumps(self.columns))
        rows = sum(math.prod(shape[:at]) for at in range(len(shape)))
        return ArrayToBytesStage.max_encoded_size(self, dtype, shape) + names + 3 * rows

    def encode(self, array: NDArray[Any]) -> bytes:
        """Return the file."""
        rows = _plain(array, self.decimals)
        document = rows if self.columns is None else {"columns": list(self.columns), "rows": rows}
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()

    def decode(self, data: Bytes, out: NDArray[Any]) -> None:
        """Fill `out` from the rows."""
        try:
            document = json.loads(bytes(data), parse_constant=_no_constant)
            rows = document
            if self.columns is not None:
                if document["columns"] != list(self.columns):
                    raise CodecError(f"json file has columns {document['columns']!r}, expected {list(self.columns)}")
                rows = document["rows"]
            flat = _flat(rows, out.shape)
            if found := set(map(type, flat)) - _TYPES[out.dtype.kind]:  # numpy would round 1.5, and take true for 1
                raise CodecError(f"json file holds {found.pop().__name__} values, expected {out.dtype}")
            numbers = np.array(flat, dtype=_parsed_dtype(out.dtype))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, UnicodeError) as error:
            if isinstance(error, CodecError):
                raise
            raise CodecError(f"json file is damaged or not {out.dtype} {out.shape}: {error}") from error
        with np.errstate(over="ignore"):
            np.copyto(out, numbers.reshape(out.shape), casting="unsafe")


_TYPES: Mapping[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}


def _parsed_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype to parse as: the array's own, but float64 for small floats, whose parser is the same."""
    return np.dtype(np.float64) if dtype.kind == "f" else dtype


def _plain(array: NDArray[Any], decimals: int | None) -> Any:
    if array.dtype.kind != "f":
        return array.tolist()
    if decimals is not None:
        wide = np.round(array.astype(np.float64), decimals)
        values: list[Any] = wide.reshape(-1).tolist()
    else:  # str() of a float32 has the fewest digits that give the same float32
        values = [float(str(value)) for value in array.reshape(-1)]
    for at in np.flatnonzero(~np.isfinite(array.reshape(-1))).tolist():
        value = values[at]
        values[at] = None if np.isnan(value) else "inf" if value > 0 else "-inf"
    return _nested(values, array.shape)


def _nested(values: list[Any], shape: Shape) -> Any:
    if not shape:
        return values[0]
    size = len(values) // shape[0] if shape[0] else 0
    return [_nested(values[at * size : (at + 1) * size], shape[1:]) for at in range(shape[0])]


def _flat(rows: Any, shape: Shape) -> list[Any]:
    """Return the numbers of nested lists after checking that they have this shape."""
    if not shape:
        if rows is None:
            return [np.nan]
        if isinstance(rows, str):
            return [_SPECIAL[rows]]
        if isinstance(rows, (int, float)):
            return [rows]
        raise CodecError(f"json file holds {str(rows)[:50]!r}, expected a number")
    if not isinstance(rows, list) or len(rows) != shape[0]:
        found = f"a list of {len(rows)}" if isinstance(rows, list) else str(rows)[:50]
        raise CodecError(f"json file holds {found}, expected a list of {shape[0]}")
    return [number for row in rows for number in _flat(row, shape[1:])]


def _no_constant(name: str) -> Any:
    raise CodecError(f"json file holds {name}, which is not JSON")
