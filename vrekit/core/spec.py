"""What a representation is (RepresentationSpec) and what one frame of it looks like (OutputSpec).

Both are plain values that survive a trip through JSON: they are stored in `dataset.json`, so that a dataset
describes itself.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from vrekit.core.names import check_representation_name

# `canny.image`: the exported jpg pictures of `canny`, `canny.image_png`: its png ones; no user's name has a dot.
IMAGE_SUFFIX = ".image"
IMAGE_TYPE = "image"
MAX_IMAGE_PIXELS = 1 << 28  # of one frame: more is a mistake, or an attack


class Kind(StrEnum):
    """What the numbers of a representation mean; codecs, pictures and resizing go by it."""

    COLOR = "color"  # pixels for people: uint8 0..255 or float 0..1
    EDGES = "edges"  # edge strength 0..1
    FLOW = "flow"  # (dx, dy) in pixels of the stored frame
    DEPTH = "depth"  # metres when unit == "m", else relative
    NORMALS = "normals"  # unit vectors, -1..1
    LOGITS = "logits"  # unnormalised class scores
    PROBABILITIES = "probabilities"  # class scores that sum to 1
    INDICES = "indices"  # class or instance ids
    MASK = "mask"  # boolean
    BOXES = "boxes"  # ragged rows of box columns
    POINTS = "points"  # ragged rows of point columns
    EMBEDDING = "embedding"  # feature vectors
    TABLE = "table"  # named scalars (sensors)
    TEXT = "text"  # captions


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """What one frame of a representation looks like in memory.

    Attributes:
        kind: What the numbers mean.
        dtype: numpy dtype name, such as `"float32"`; `"str"` for text.
        shape: Shape of one frame; None marks a ragged axis (boxes, keypoints).
        axes: One letter per axis: H, W, C, K (rows of a ragged array), D (vector). `"HWC"`, `"CHW"`, `"HW"`, `"KC"`.
        value_range: Smallest and largest value that can occur, when known.
        unit: `"px"`, `"m"`, ... when there is one.
        classes: Class names of logits, probabilities, indices.
        color_map: One RGB triple per class, for pictures.
        columns: Names of the last axis of boxes, points and tables, such as `("x1", "y1", "x2", "y2", "score")`.
        natural: True for pixels of a camera: codecs that lose what eyes miss may be a profile's default for them only.
        invalid_value: The value of pixels or frames without a measurement; NaN is spelled `"nan"`.
        description: One line for people.
    """

    kind: Kind
    dtype: str
    shape: tuple[int | None, ...]
    axes: str
    value_range: tuple[float, float] | None = None
    unit: str | None = None
    classes: tuple[str, ...] | None = None
    color_map: tuple[tuple[int, int, int], ...] | None = None
    columns: tuple[str, ...] | None = None
    natural: bool | None = None
    invalid_value: float | str | None = None
    description: str = ""

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.shape):
            raise ValueError(f"{self.axes = } does not name the axes of {self.shape = }")

    @property
    def is_ragged(self) -> bool:
        """Whether frames differ in shape."""
        return None in self.shape

    def size_of(self, axis: str) -> int | None:
        """Return the length of an axis by its letter, None if it is ragged or absent."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict without the fields that are unset."""
        return {k: v for k, v in asdict(self).items() if v is not None and (v != "" or k == "axes")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the spec `to_json` described; lists become tuples again, keys of newer minor versions are ignored."""
        fields = {name: data[name] for name in cls.__slots__ if name in data}
        fields["kind"] = Kind(fields["kind"])
        fields["shape"] = tuple(fields["shape"])
        for name in ("value_range", "classes", "columns"):
            if fields.get(name) is not None:
                fields[name] = tuple(fields[name])
        if fields.get("color_map") is not None:
            fields["color_map"] = tuple(tuple(rgb) for rgb in fields["color_map"])
        return cls(**fields)


def image_name(owner: str, image_format: str) -> str:
    """Return the name of a representation's exported pictures: one representation a format."""
    return owner + IMAGE_SUFFIX + ("" if image_format == "jpg" else f"_{image_format}")


def image_owner(name: str) -> str | None:
    """Return the representation that `name` has the pictures of, None if `name` is not the name of pictures."""
    owner, mark, ending = name.rpartition(IMAGE_SUFFIX)
    return owner if mark and (not ending or re.fullmatch("_[a-z]+", ending)) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepresentationSpec:
    """One node of the DAG as the config asks for it.

    Attributes:
        name: Unique name within a dataset.
        type: Registry id (`edges/canny`), `module:Class`, or `path/file.py:Class`.
        params: Parameters of the type.
        dependencies: Names of the representations it is computed from, in the order the type expects.
        batch_size: Frames per `compute` call; None takes the export's default.
        device: `cpu`, `cuda`, `cuda:1`, ...; only learned representations look at it.
        compute_dtype: dtype a learned representation runs in, such as `bfloat16`.
        store: False makes it virtual: never written, computed on read.
        store_as: Stored form where a kind has several (logits: `logits|probabilities|indices|top-k`).
        codec: Codec id or config; None takes the default of its kind.
        output_size: (height, width) to resize to before storing; None keeps the computed size.
        output_dtype: dtype to cast to before storing; None keeps the computed dtype.
        images: Image format to export beside the data (`jpg`, `png`), or None.
    """

    name: str
    type: str
    params: Mapping[str, Any] = field(default_factory=dict)
    dependencies: tuple[str, ...] = ()
    batch_size: int | None = None
    device: str = "cpu"
    compute_dtype: str | None = None
    store: bool = True
    store_as: str | None = None
    codec: str | Mapping[str, Any] | None = None
    output_size: tuple[int, int] | None = None
    output_dtype: str | None = None
    images: str | None = None

    def __post_init__(self) -> None:
        check_representation_name(image_owner(self.name) or self.name)

    def identity(self) -> dict[str, Any]:
        """Return what decides the computed values: how it is run (batch size, device, images) is left out."""
        return {
            "type": self.type,
            "params": dict(self.params),
            "dependencies": list(self.dependencies),
            "compute_dtype": self.compute_dtype,
            "output_size": list(self.output_size) if self.output_size else None,
            "output_dtype": self.output_dtype,
        }

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        data = asdict(self)
        data["params"] = dict(self.params)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the spec `to_json` described; keys of newer minor versions are ignored."""
        fields = {name: data[name] for name in cls.__slots__ if name in data}
        fields["dependencies"] = tuple(fields.get("dependencies", ()))
        if fields.get("output_size"):
            fields["output_size"] = tuple(fields["output_size"])
        return cls(**fields)

    def with_options(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced."""
        return replace(self, **changes)


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def digest(value: Any) -> str:
    """Return 16 hex digits of the SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    raise TypeError(f"{type(value).__name__} {value!r} has no JSON form")
