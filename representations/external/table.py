"""external/table: time-stamped rows (sensors, captions, ground truth) brought to the frames of the video."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from numpy.typing import NDArray
from pydantic import Field

from vrekit.core.errors import ComputeError, UsageError
from vrekit.core.names import did_you_mean
from vrekit.representations.base import FrameBatch, Kind, Output, OutputSpec, Representation
from vrekit.representations.external.lazy import Lazy

_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@dataclass(frozen=True, slots=True)
class _Rows:
    """The table in rising order of time or frame number.

    Attributes:
        order: (R,) float64 video seconds, or int64 frame numbers.
        columns: Names of the value columns.
        numbers: (R, C) float64, NaN where the table has none; None for text.
        texts: R strings; None for numbers.
        known: (R,) bool: False where a text is null.
    """

    order: NDArray[Any]
    columns: tuple[str, ...]
    numbers: NDArray[np.float64] | None
    texts: tuple[str, ...] | None
    known: NDArray[np.bool_]


@dataclass
class Table(Representation):
    """One row of a CSV, Parquet or JSON-lines file per frame: float64 (C,), or text for a single column of strings.

    Rows are found by time (`time_column`) or by frame number (`frame_column`). A frame without a row within the
    tolerance is NaN (or an empty text) and marked invalid; a missing value in a row is NaN.

    Args:
        path: `.csv`, `.parquet`, `.jsonl` or `.ndjson` file.
        columns: Columns to take, in this order; None takes every numeric column except time and frame.
        time_column: Column of times: numbers in `time_unit`, or timestamps (seconds since 1970).
        frame_column: Column of frame numbers, instead of times.
        time_unit: Unit of numeric times: s, ms, us or ns.
        time_offset_seconds: Added to the table's times to get the video's (pts): `video = table + offset`.
        align: `nearest` takes the row nearest in time (the earlier of two). `linear` goes in a straight line from the
            row before to the row after; where only one of them is within the tolerance (at the edge of a gap, before
            the first row, after the last one), it takes that row. Angles that wrap around need `nearest`.
        tolerance_seconds: Largest time between a frame and a row that is used.
    """

    uses_frames: ClassVar[bool] = False
    path_parameters: ClassVar[tuple[str, ...]] = ("path",)

    path: str
    columns: tuple[str, ...] | None = None
    time_column: str | None = None
    frame_column: str | None = None
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    time_offset_seconds: Annotated[float, Field(ge=-1e12, le=1e12)] = 0.0
    align: Literal["nearest", "linear"] = "nearest"
    tolerance_seconds: Annotated[float, Field(ge=0)] = 0.1
    _rows: Lazy[_Rows] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if (self.time_column is None) == (self.frame_column is None):
            raise UsageError("exactly one of time_column and frame_column must be given")
        if self.time_unit not in _UNITS:
            raise UsageError(f"time_unit must be one of {', '.join(_UNITS)}, got {self.time_unit!r}")
        if self.align not in ("nearest", "linear"):
            raise UsageError(f"align must be 'nearest' or 'linear', got {self.align!r}")
        if self.columns is not None and (not self.columns or len(set(self.columns)) < len(self.columns)):
            raise UsageError(f"columns must name each column once, got {list(self.columns)}")
        self._rows = Lazy(self._load)

    @property
    def version(self) -> int:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return 2 for `linear`, which in version 1 gave no value at the edges of a gap; else 1."""
        return 2 if self.align == "linear" else 1

    def data_digest(self) -> str | None:
        """Return 16 hex digits of the SHA-256 of the file: another table is another representation."""
        try:
            with Path(self.path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()[:16]
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read: {error.strerror}", hint="check `path`") from error

    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        """Return a vector with named columns, or text.

        Raises:
            UsageError: If the file cannot be read, or lacks a column, or its columns do not suit.
        """
        rows = self._rows()
        description = f"rows of {Path(self.path).name}"
        if rows.numbers is None:
            return OutputSpec(kind=Kind.TEXT, dtype="str", shape=(), axes="", description=description)
        return OutputSpec(
            kind=Kind.TABLE,
            dtype="float64",
            shape=(len(rows.columns),),
            axes="D",
            columns=rows.columns,
            invalid_value="nan",
            description=description,
        )

    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        """Find the row of each frame.

        Raises:
            ComputeError: If rows are found by time but the video has no clock.
        """
        rows = self._rows()
        if self.frame_column is not None:
            before, after, weight, valid = _match_frames(rows.order, batch.indices)
        else:
            if np.isnan(batch.pts_seconds).any():
                raise ComputeError(
                    "this video has no clock, so rows cannot be found by time",
                    hint="use frame_column, or give the video a frame rate",
                )
            before, after, weight, valid = _match_times(
                rows.order, batch.pts_seconds, self.tolerance_seconds, linear=self.align == "linear"
            )
        if rows.numbers is None or rows.texts is not None:
            return _texts(rows.texts or (), rows.known, before, valid)
        values = np.full((len(batch), len(rows.columns)), np.nan)
        first, second, share = rows.numbers[before[valid]], rows.numbers[after[valid]], weight[valid, None]
        # Where a row is hit exactly the other one must not matter, not even a NaN in it.
        values[valid] = np.where(share == 0, first, np.where(share == 1, second, first + share * (second - first)))
        return Output(data=values, valid=valid)

    def _load(self) -> _Rows:
        table = _read_table(Path(self.path))
        key = self.time_column if self.time_column is not None else self.frame_column
        for name in (key, *(self.columns or ())):
            if name not in table.column_names:
                raise UsageError(
                    f"{self.path} has no column {name!r}{did_you_mean(str(name), table.column_names)}",
                    hint=f"it has {', '.join(table.column_names)}",
                )
        order = self._times(table[key]) if self.time_column is not None else _frame_numbers(table[key], self.path)
        columns = self.columns or tuple(
            name for name in table.column_names if name != key and _is_number(table.schema.field(name).type)
        )
        texts = [name for name in columns if not _is_number(table.schema.field(name).type)]
        if not columns:
            raise UsageError(f"{self.path} has no numeric column beside {key!r}", hint="name a text column in columns")
        if texts and (len(columns) > 1 or not _is_text(table.schema.field(texts[0]).type)):
            raise UsageError(
                f"{self.path}: column {texts[0]!r} is {table.schema.field(texts[0]).type}, not a number",
                hint="text goes into a representation of its own, with one column",
            )
        if texts and self.align == "linear":
            raise UsageError("align: linear needs numbers, not text", hint="use align: nearest")
        usable = np.flatnonzero(~np.isnan(order))
        sorting = usable[np.argsort(order[usable], kind="stable")]
        order = order[sorting]
        if self.frame_column is not None:
            order = order.astype(np.int64)
            twice = order[1:][np.diff(order) == 0]
            if len(twice):
                raise UsageError(f"{self.path}: frame {twice[0]} has more than one row")
        known = np.ones(len(order), np.bool_)
        if texts:
            column = table[texts[0]]
            known = column.is_valid().to_numpy()[sorting]
            strings = tuple(column.fill_null("").take(pa.array(sorting)).to_pylist())
            return _Rows(order, columns, None, strings, known)
        numbers = np.stack([_numbers(table[name]) for name in columns], axis=-1)[sorting]
        return _Rows(order, columns, numbers, None, known)

    def _times(self, column: pa.ChunkedArray) -> NDArray[np.float64]:
        if pa.types.is_timestamp(column.type):
            seconds = _numbers(column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())) * 1e-9
        elif _is_number(column.type):
            seconds = _numbers(column) * _UNITS[self.time_unit]
        else:
            raise UsageError(
                f"{self.path}: time column {self.time_column!r} is {column.type}, not a number or timestamp"
            )
        return seconds + self.time_offset_seconds


def _read_table(path: Path) -> pa.Table:
    readers = {
        ".csv": pyarrow.csv.read_csv,
        ".jsonl": pyarrow.json.read_json,
        ".ndjson": pyarrow.json.read_json,
        ".parquet": pyarrow.parquet.read_table,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path}: a table is one of {', '.join(readers)}")
    try:
        table = reader(path)
        for position, column in enumerate(table.schema):
            if pa.types.is_dictionary(column.type):  # pandas' categories
                table = table.set_column(position, column.name, table[position].cast(column.type.value_type))
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"table {path} cannot be read: {error}") from error
    return table


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return a numeric column as float64 with NaN for nulls; integers above 2**53 are rounded."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    floats = pyarrow.compute.cast(column, pa.float64(), safe=False)
    return np.asarray(floats.fill_null(float("nan")).to_numpy(), np.float64)


def _frame_numbers(column: pa.ChunkedArray, path: str) -> NDArray[np.float64]:
    if not _is_number(column.type):
        raise UsageError(f"{path}: the frame column is {column.type}, not a number")
    numbers = _numbers(column)
    odd = numbers[np.isfinite(numbers) & (numbers != np.rint(numbers))]
    if len(odd):
        raise UsageError(f"{path}: {odd[0]} in the frame column is not a whole number")
    return numbers


Match = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]


def _match_frames(order: NDArray[np.int64], frames: NDArray[np.int64]) -> Match:
    """Return (row before, row after, weight of the latter, found) for frame numbers that must match exactly."""
    if not len(order):
        return _nothing(len(frames))
    row = np.minimum(np.searchsorted(order, frames), len(order) - 1)
    return row, row, np.zeros(len(frames)), order[row] == frames


def _match_times(order: NDArray[np.float64], times: NDArray[np.float64], tolerance: float, *, linear: bool) -> Match:
    """Return (row before, row after, weight of the latter, found) for times."""
    if not len(order):
        return _nothing(len(times))
    after = np.searchsorted(order, times)  # the first row at or after the time
    before = np.maximum(after - 1, 0)
    after = np.minimum(after, len(order) - 1)
    before = np.where(order[after] <= times, after, before)  # an exact hit, or past the last row
    until_before, until_after = times - order[before], order[after] - times
    earlier = np.searchsorted(order, order[before])  # the first of rows with equal times
    nearest = np.where(np.abs(until_before) <= np.abs(until_after), earlier, after)
    valid = np.abs(times - order[nearest]) <= tolerance
    if not linear:
        return nearest, nearest, np.zeros(len(times)), valid
    between = (until_before > 0) & (until_before <= tolerance) & (until_after > 0) & (until_after <= tolerance)
    weight = np.divide(until_before, order[after] - order[before], out=np.zeros(len(times)), where=between)
    return np.where(between, before, nearest), np.where(between, after, nearest), weight, valid


def _nothing(count: int) -> Match:
    none = np.zeros(count, np.int64)
    return none, none, np.zeros(count), np.zeros(count, np.bool_)


def _texts(
    texts: tuple[str, ...], known: NDArray[np.bool_], row: NDArray[np.int64], valid: NDArray[np.bool_]
) -> Output:
    found = np.zeros(len(valid), np.bool_)
    found[valid] = known[row[valid]]
    picked = [np.array(texts[at] if ok else "", dtype=np.str_) for at, ok in zip(row.tolist(), found, strict=True)]
    return Output(data=picked, valid=found)
