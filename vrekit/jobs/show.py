"""Everything a dataset knows about one frame: values, statistics, how each is stored, and who computed it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from vrekit.catalog.storage import open_storage
from vrekit.core.errors import UsageError, VrekitError
from vrekit.core.names import did_you_mean, parse_key, sample_key
from vrekit.core.spec import Kind, OutputSpec, image_owner
from vrekit.jobs.extract.forms import picture_of
from vrekit.readers import FrameDataset
from vrekit.representations.pictures import Picture

MAX_VALUES = 256  # an array with more values is told by its statistics only
_TOP_CLASSES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """One representation of one frame.

    Attributes:
        name: The representation.
        spec: What the manifest says about its frames.
        array: Its values; None where there are none.
        valid: Whether they are a measurement.
        stored: Columns of its metadata row: codec, sizes, run, times. Empty for a virtual one.
        problem: Why there are no values; None where there are.
    """

    name: str
    spec: OutputSpec
    array: NDArray[Any] | None
    valid: bool
    stored: Mapping[str, Any]
    problem: str | None = None

    def picture(self) -> Picture:
        """Return the values as a picture: uint8 (H, W, 3).

        Raises:
            UsageError: If there are none.
        """
        if self.array is None:
            raise UsageError(f"{self.name} has no values to draw: {self.problem}")
        return picture_of(self.spec, self.array, self.valid)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict; values of arrays up to MAX_VALUES, statistics of all."""
        spec = self.spec
        found: dict[str, Any] = {
            "name": self.name,
            "kind": str(spec.kind),
            "unit": spec.unit,
            "value_range": None if spec.value_range is None else [_number(value) for value in spec.value_range],
            "columns": None if spec.columns is None else list(spec.columns),
            "valid": self.valid,
            "stored": dict(self.stored) or None,
            "problem": self.problem,
        }
        if self.array is None:
            return found
        found["dtype"] = "str" if self.array.dtype.kind == "U" else self.array.dtype.name
        found["shape"] = list(self.array.shape)
        found["statistics"] = statistics(self.array, spec)
        if self.array.dtype.kind == "U":
            found["values"] = str(self.array.item())
        elif self.array.size <= MAX_VALUES and self.array.dtype.kind in "biuf":
            found["values"] = _plain(self.array.tolist())
        return found


def inspect_frame(
    folder: Path, key: str, names: Sequence[str] = (), *, trust_code: bool = False
) -> tuple[str, float | None, list[Inspected]]:
    """Return the frame's key as it is stored, its time in seconds, and its representations.

    Args:
        folder: The dataset.
        key: The frame: `car/00000012`, or `car/12`.
        names: Representations; empty means all stored ones but the exported pictures.
        trust_code: Let virtual representations run code that the dataset records.

    Raises:
        DatasetError: If the dataset cannot be read.
        UsageError: If there is no such frame or representation.
    """
    storage = open_storage(folder)
    manifest = storage.manifest
    records = manifest.representations
    for name in names:
        if name not in records:
            raise UsageError(
                f"{folder} has no representation {name!r}{did_you_mean(name, records)}",
                hint=f"it has {', '.join(records) or 'none'}",
            )
    chosen = tuple(dict.fromkeys(names)) or tuple(one for one in manifest.stored_names if image_owner(one) is None)
    video, frame = parse_key(key)
    if video not in manifest.videos:
        raise UsageError(
            f"{folder} has no video {video!r}{did_you_mean(video, manifest.videos)}",
            hint="`vrekit info` lists its videos",
        )
    table = storage.rows(video_ids=[video])
    # a retried frame has several rows; the stored one counts
    rows = {row["representation"]: row for row in sorted(_rows(table, frame), key=lambda row: row["status"] == "ok")}
    if not rows:
        raise UsageError(f"no frame {key!r} in {folder}", hint=_frames_of(video, table))
    values = _values(folder, sample_key(video, frame), chosen, trust_code)
    found = []
    for name in chosen:
        row = rows.get(name)
        value, valid, problem = values[name]
        if row is not None and row["status"] != "ok":
            problem = f"it failed: {row['error']}"
        elif value is None and problem is None:
            problem = "the dataset does not have it of this frame"
        array = None if value is None else np.array(value) if isinstance(value, str) else value.numpy()
        found.append(
            Inspected(
                name=name,
                spec=records[name].stored,
                array=array,
                valid=valid,
                stored={} if row is None else _told(row),
                problem=problem,
            )
        )
    times = [row["pts_seconds"] for row in rows.values() if row["pts_seconds"] is not None]
    return sample_key(video, frame), times[0] if times else None, found


def statistics(array: NDArray[Any], spec: OutputSpec) -> dict[str, Any]:
    """Return what describes an array in a few numbers, JSON-able; empty for text and arrays without values."""
    if array.dtype.kind == "U" or not array.size:
        return {}
    if array.dtype.kind == "b":
        return {"true_share": float(array.mean())}
    numbers = array.astype(np.float64) if array.dtype.kind in "iuf" else np.abs(array)
    known = numbers[np.isfinite(numbers)]
    found: dict[str, Any] = {"finite_share": known.size / array.size}
    if known.size:
        found |= {
            "min": _number(known.min()),
            "max": _number(known.max()),
            "mean": _number(known.mean()),
            "std": _number(known.std()),
        }
    if spec.kind is Kind.INDICES:
        ids, counts = np.unique(array, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:_TOP_CLASSES]
        found["classes"] = [
            {"id": int(ids[at]), "name": _class_name(spec, int(ids[at])), "share": counts[at] / array.size}
            for at in order.tolist()
        ]
    return found


def _class_name(spec: OutputSpec, number: int) -> str | None:
    classes = spec.classes or ()
    return classes[number] if 0 <= number < len(classes) else None


def _rows(table: Any, frame: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.filter(pc.equal(table["frame_index"], frame)).to_pylist()
    return rows


def _frames_of(video: str, table: Any) -> str:
    if not len(table):
        return f"nothing is stored of {video}"
    limits = pc.min_max(table["frame_index"]).as_py()
    count = pc.count_distinct(table["frame_index"]).as_py()
    return f"{video} has {count} frames here, {limits['min']} to {limits['max']}"


def _values(folder: Path, key: str, names: Sequence[str], trust_code: bool) -> dict[str, tuple[Any, bool, str | None]]:
    """Return value, validity and what is wrong of each representation; a damaged one does not hide the others."""
    try:
        dataset = FrameDataset(folder, names, subset=[key], missing="none", trust_code=trust_code)
        sample = dataset[0]
    except VrekitError as error:
        if len(names) == 1:
            return {names[0]: (None, False, error.message)}
        return {name: value for one in names for name, value in _values(folder, key, [one], trust_code).items()}
    return {name: (sample[name], bool(sample[f"{name}.valid"]), None) for name in names}


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    columns = ("codec", "byte_size", "raw_bytes", "shard", "run_id", "compute_seconds", "encode_seconds", "checksum")
    return {name: row[name] for name in columns}


def _number(value: Any) -> float | int | str:
    number = float(value)
    if not np.isfinite(number):
        return str(number)
    return int(number) if number == int(number) else number


def _plain(values: Any) -> Any:
    """Return nested lists with what JSON has no number for as text."""
    if isinstance(values, list):
        return [_plain(value) for value in values]
    return str(values) if isinstance(values, float) and not np.isfinite(values) else values
