"""What a representation is (RepresentationSpec) and what one frame of it looks like (OutputSpec).

Both are plain values that survive a trip through JSON: they are stored in `dataset.json`, so that a dataset
describes itself.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

from vrekit.core.documents import Fields
from vrekit.core.errors import UsageError
from vrekit.core.names import MAX_DEPENDENCIES, MAX_NAME_LENGTH, check_representation_name

# `canny.image`: the exported jpg pictures of `canny`, `canny.image_png`: its png ones; no user's name has a dot.
IMAGE_SUFFIX = ".image"
IMAGE_TYPE = "image"
MAX_NAMES = 1 << 20  # of classes or columns
MAX_AXES = 8
MAX_SIDE = 2**31
MAX_ARRAY_BYTES = 2**40  # of one frame
MAX_IMAGE_SIDE = 1 << 20
MAX_IMAGE_PIXELS = 1 << 28  # of one frame: more is a mistake, or an attack
_ITEM_BYTES = {
    "bool": 1,
    **{f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": bits // 8 for bits in (16, 32, 64, 128)},
    "complex64": 8,
    "complex128": 16,
    "str": 1,
}
_SHORT_DTYPE = re.compile(r"[<>=|]?[?a-zA-Z][a-z0-9]{0,15}(\[[0-9a-zA-Z]{1,8}\])?")


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
    def from_json(cls, data: Mapping[str, Any] | Fields) -> Self:
        """Return the spec `to_json` described; lists become tuples again, keys of newer minor versions are ignored.

        Raises:
            DatasetError: If it is none.
        """
        fields = Fields.of(data, "an output")
        dtype = fields.text("dtype", max_length=32)
        shape = tuple(fields.items("shape", max_count=MAX_AXES))
        item_bytes = _item_bytes(dtype)
        if item_bytes is None:
            fields.fail("dtype", "a plain dtype such as 'float32'")
        for side in shape:
            if side is not None and (type(side) is not int or not 0 <= side < MAX_SIDE):
                raise fields.error(f"'shape' holds {side!r}, expected null or an integer from 0 to {MAX_SIDE - 1}")
        if math.prod(side or 1 for side in shape) * item_bytes > MAX_ARRAY_BYTES:
            raise fields.error(
                f"one frame of shape {list(shape)}, dtype {dtype}, has more than {MAX_ARRAY_BYTES} bytes"
            )
        with fields.checking():
            return cls(
                kind=Kind(fields.choice("kind", _KINDS)),
                dtype=dtype,
                shape=shape,
                axes=fields.text("axes", pattern=_AXES),
                value_range=_value_range(fields),
                unit=fields.text("unit", None, max_length=100) or None,
                classes=_names(fields, "classes"),
                color_map=_color_map(fields),
                columns=_names(fields, "columns"),
                natural=fields.flag("natural", None),
                invalid_value=_invalid_value(fields),
                description=fields.text("description", ""),
            )


_KINDS = tuple(kind.value for kind in Kind)
_AXES = re.compile("[A-Za-z]*")


def _item_bytes(dtype: str) -> int | None:
    """Return the size of an element, None for what is no dtype of plain elements."""
    if dtype in _ITEM_BYTES:
        return _ITEM_BYTES[dtype]
    if not _SHORT_DTYPE.fullmatch(dtype):
        return None
    import numpy as np

    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError):
        return None
    return found.itemsize if found.kind in "biufcmM" else None


def _value_range(fields: Fields) -> tuple[float, float] | None:
    found = fields.items("value_range", None)
    if found is None:
        return None
    if len(found) != 2 or any(type(value) not in (int, float) or value != value for value in found):
        fields.fail("value_range", "two numbers")
    return found[0], found[1]


def _names(fields: Fields, key: str) -> tuple[str, ...] | None:
    found = fields.items(key, None, kind=str, max_count=MAX_NAMES)
    return None if found is None else tuple(found)


def _color_map(fields: Fields) -> tuple[tuple[int, int, int], ...] | None:
    found = fields.items("color_map", None, max_count=MAX_NAMES)
    if found is None:
        return None
    for color in found:
        if not isinstance(color, (list, tuple)) or len(color) != 3:
            fields.fail("color_map", "a list of [red, green, blue]")
        if any(type(value) is not int or not 0 <= value <= 255 for value in color):
            raise fields.error(f"'color_map' holds {list(color)!r}, expected integers from 0 to 255")
    return tuple((red, green, blue) for red, green, blue in found)


def _invalid_value(fields: Fields) -> float | str | None:
    found = fields.raw().get("invalid_value")
    if found is not None and found != "nan" and type(found) not in (int, float):
        fields.fail("invalid_value", "a number or 'nan'")
    return found


def image_name(owner: str, image_format: str) -> str:
    """Return the name of a representation's exported pictures: one representation a format."""
    return owner + IMAGE_SUFFIX + ("" if image_format == "jpg" else f"_{image_format}")


def image_owner(name: str) -> str | None:
    """Return the representation that `name` has the pictures of, None if `name` is not the name of pictures."""
    owner, mark, ending = name.rpartition(IMAGE_SUFFIX)
    return owner if mark and (not ending or re.fullmatch("_[a-z]{1,16}", ending)) else None


def check_output_name(name: str) -> str:
    """Return `name` if it is legal for a representation or for the pictures of one, else raise UsageError."""
    check_representation_name(image_owner(name) or name)
    return name


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
        check_output_name(self.name)
        if len(self.dependencies) > MAX_DEPENDENCIES:
            raise UsageError(f"{self.name}: {len(self.dependencies)} dependencies, expected at most {MAX_DEPENDENCIES}")

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
    def from_json(cls, data: Mapping[str, Any] | Fields) -> Self:
        """Return the spec `to_json` described; keys of newer minor versions are ignored.

        Raises:
            DatasetError: If it is none.
        """
        fields = Fields.of(data, "a representation")
        dependencies = tuple(fields.items("dependencies", (), kind=str, max_count=MAX_DEPENDENCIES))
        with fields.checking():
            for name in dependencies:
                check_output_name(name)
            return cls(
                name=fields.text("name", max_length=_MAX_OUTPUT_NAME_LENGTH),
                type=fields.text("type", max_length=1 << 14),
                params=fields.free("params", {}),
                dependencies=dependencies,
                batch_size=fields.integer("batch_size", None, low=1),
                device=fields.text("device", "cpu", max_length=100),
                compute_dtype=fields.text("compute_dtype", None, max_length=32),
                store=fields.flag("store", True),
                store_as=fields.text("store_as", None, max_length=100),
                codec=_codec(fields),
                output_size=_output_size(fields),
                output_dtype=fields.text("output_dtype", None, max_length=32),
                images=fields.text("images", None, pattern=_IMAGES),
            )

    def with_options(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced."""
        return replace(self, **changes)


_MAX_OUTPUT_NAME_LENGTH = MAX_NAME_LENGTH + len(IMAGE_SUFFIX) + 17
_IMAGES = re.compile("[a-z]{1,16}")


def _codec(fields: Fields) -> str | dict[str, Any] | None:
    codec = fields.raw().get("codec")
    if codec is not None and not isinstance(codec, (str, dict)):
        fields.fail("codec", "a codec's id or an object")
    return codec


def _output_size(fields: Fields) -> tuple[int, int] | None:
    size = fields.items("output_size", None, kind=int)
    if size is None:
        return None
    if len(size) != 2 or not all(1 <= side <= MAX_IMAGE_SIDE for side in size):
        fields.fail("output_size", f"[height, width], each from 1 to {MAX_IMAGE_SIDE}")
    height, width = size
    if height * width > MAX_IMAGE_PIXELS:
        raise fields.error(f"'output_size' is {height}x{width}, expected at most {MAX_IMAGE_PIXELS} pixels")
    return height, width


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
