"""Decoded values against the manifest: layout, NaN, infinity, range, class numbers."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest
from vrekit.core.spec import Kind, OutputSpec

_TOLERANCE = 1e-3  # of the range: what codecs with a bounded error may add

_ROWS_KEPT = 1000  # of those with one shape, for messages

Place = tuple[str, str]  # video, representation
Shape = tuple[int, ...]


@dataclass(slots=True)
class _RowsOfShape:
    count: int = 0
    rows: list[Mapping[str, Any]] = field(default_factory=list)


class ValueChecks:
    """Looks at arrays one by one and remembers what is odd, by video and representation."""

    def __init__(self, manifest: Manifest) -> None:
        self._specs = {name: record.stored for name, record in manifest.representations.items()}
        self._counts: Counter[tuple[Place, str]] = Counter()
        self._first: dict[tuple[Place, str], int] = {}
        self._shapes: dict[Place, dict[Shape, _RowsOfShape]] = {}

    def see(self, row: Mapping[str, Any]) -> None:
        """Remember the shape that a stored row says its array has; axes of any length count as 0."""
        axes = self._specs[row["representation"]].shape
        shape = tuple(0 if at < len(axes) and axes[at] is None else side for at, side in enumerate(row["shape"]))
        shapes = self._shapes.setdefault((row["video_id"], row["representation"]), {})
        known = shapes.setdefault(shape, _RowsOfShape())
        known.count += 1
        if len(known.rows) < _ROWS_KEPT:
            known.rows.append({name: row[name] for name in ("video_id", "frame_index", "representation", "shard")})

    def shape_problems(self) -> Iterator[tuple[Mapping[str, Any], str]]:
        """Yield (row, message) for the rows of which the array has another shape than most frames of the video."""
        for shapes in self._shapes.values():
            usual = max(shapes, key=lambda shape: shapes[shape].count)
            for shape, known in shapes.items():
                if shape != usual:
                    message = f"it is an array {shape}, most frames of the video are {usual}"
                    yield from ((row, message) for row in known.rows)

    def shape_warnings(self) -> Iterator[tuple[str, str]]:
        """Yield (representation, message) where no frame has the shape that the manifest says the first video has."""
        for name, spec in self._specs.items():
            found = {shape for (_, other), shapes in self._shapes.items() if other == name for shape in shapes}
            said = tuple(side or 0 for side in spec.shape)
            if found and said not in found:
                yield name, f"dataset.json says that frames are arrays {said}, but stored are {sorted(found)[:3]}"

    def add(self, row: Mapping[str, Any], array: NDArray[Any]) -> str | None:
        """Look at the array of a row, and return why it cannot be what the manifest describes, if so."""
        spec = self._specs[row["representation"]]
        mismatch = _layout_mismatch(array, spec)
        if mismatch is None and row["valid"] and array.size:
            place = (row["video_id"], row["representation"])
            for finding in _findings(array, spec):
                self._counts[place, finding] += 1
                self._first.setdefault((place, finding), row["frame_index"])
        return mismatch

    def findings(self) -> Iterator[tuple[Place, int, str]]:
        """Yield (place, first frame, message) of everything odd."""
        for (place, finding), count in self._counts.items():
            frames = "this frame" if count == 1 else f"{count} frames from this one on"
            yield place, self._first[place, finding], f"{finding} in {frames}"


def _layout_mismatch(array: NDArray[Any], spec: OutputSpec) -> str | None:
    dtype = "str" if array.dtype.kind == "U" else array.dtype.name
    sizes = zip(spec.axes, spec.shape, array.shape, strict=False)
    # rows and columns differ between videos: the manifest has those of the first
    fits = array.ndim == len(spec.shape) and all(want in (None, got) for axis, want, got in sizes if axis not in "HW")
    if dtype == spec.dtype and fits:
        return None
    return f"it decodes to {dtype} {array.shape}, but dataset.json says {spec.dtype} {spec.shape}"


def _findings(array: NDArray[Any], spec: OutputSpec) -> Iterator[str]:
    if array.dtype.kind not in "iuf":
        return
    low, high = array.min(), array.max()  # NaN comes through both
    if array.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
        if np.isnan(low) and spec.invalid_value != "nan":
            yield "NaN, although it does not stand for 'no measurement' here,"
        if np.isinf(array).any():
            yield "infinite values"
        finite = array[np.isfinite(array)]
        if not finite.size:
            return
        low, high = finite.min(), finite.max()
    if spec.value_range is not None:
        least, most = spec.value_range
        margin = _TOLERANCE * (most - least)
        is_marked = isinstance(spec.invalid_value, (int, float)) and spec.invalid_value in (low, high)
        if not is_marked and (low < least - margin or high > most + margin):
            yield f"values outside {least:g}..{most:g}"
    elif spec.kind is Kind.INDICES and spec.classes and high >= len(spec.classes) and high != spec.invalid_value:
        yield f"class numbers beyond the {len(spec.classes)} classes"
