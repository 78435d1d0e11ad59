"""Every key a config may hold, with its type (pydantic), and pydantic's errors as mistakes for people.

The keys of upstream VRE stand beside ours; `settings.py` says which of them mean the same.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from vrekit.config.document import UNKNOWN
from vrekit.config.source import KeyPath, Mistake
from vrekit.core.names import closest, did_you_mean
from vrekit.core.spec import MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE

MAX_BATCH_SIZE = 1_000_000
STORE_AS = ("logits", "probabilities", "indices", "top-k")
IMAGES = ("jpg", "png")
COMPUTE_DTYPES = ("bfloat16", "float16", "float32", "float64")
OUTPUT_DTYPES = (
    "bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip
_DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:[0-9]+)?")
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping (key: value)",
    "int_type": "a whole number",
    "list_type": "a list, such as [rgb]",
    "model_type": "a mapping (key: value)",
    "string_type": "text",
}


def _wrong(expected: str, value: object, suggestion: str = "") -> PydanticCustomError:
    return PydanticCustomError("vrekit", "{text}", {"text": f"expected {expected}, got {describe(value)}{suggestion}"})


def _choice(*options: str, nothing: tuple[str, ...] = ()) -> Callable[[object], str | None]:
    """Return a check for one of `options`; the words in `nothing` mean None."""

    def check(value: object) -> str | None:
        if value is None or value in nothing:
            return None
        if isinstance(value, str) and value in options:
            return value
        words = [*options, *nothing]
        suggestion = did_you_mean(value, words) if isinstance(value, str) else ""
        raise _wrong(f"{', '.join(words[:-1])} or {words[-1]}", value, suggestion)

    return check


def _store_as(value: object) -> str | None:
    if isinstance(value, str) and re.fullmatch(r"top-[1-9]\d*", value):
        return value
    return _choice(*STORE_AS)(value)


def _batch_size(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_BATCH_SIZE):
        return value
    raise _wrong(f"a whole number from 1 to {MAX_BATCH_SIZE}", value)


def _device(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and _DEVICE.fullmatch(value):
        return value
    suggestion = did_you_mean(value, ["cpu", "cuda", "mps", "xpu"]) if isinstance(value, str) else ""
    raise _wrong("a device such as cpu, cuda or cuda:1", value, suggestion)


def _output_size(value: object) -> tuple[int, int] | None:
    if value is None or value in ("native", "not-set"):
        return None
    if isinstance(value, list) and len(value) == 2:
        height, width = value
        if all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in value):
            if height > MAX_IMAGE_SIDE or width > MAX_IMAGE_SIDE or height * width > MAX_IMAGE_PIXELS:
                raise _wrong(f"at most {MAX_IMAGE_PIXELS} pixels", value)
            return height, width
    raise _wrong("[height, width] in pixels, or native", value)


def _codec(value: object) -> str | dict[str, Any] | None:
    if value is None or (isinstance(value, str) and value) or (isinstance(value, dict) and value):
        return value
    raise _wrong("a codec's id, such as npy.zst, or a mapping with its configuration", value)


BatchSize = Annotated[int | None, BeforeValidator(_batch_size)]
Device = Annotated[str | None, BeforeValidator(_device)]
ComputeDtype = Annotated[str | None, BeforeValidator(_choice(*COMPUTE_DTYPES))]
OutputSize = Annotated[Any, BeforeValidator(_output_size)]
OutputDtype = Annotated[str | None, BeforeValidator(_choice(*OUTPUT_DTYPES, nothing=("not-set",)))]
Images = Annotated[str | None, BeforeValidator(_choice(*IMAGES, nothing=("not-set",)))]
CodecChoice = Annotated[Any, BeforeValidator(_codec)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ComputeParameters(_Section):
    """Upstream's `compute_parameters`."""

    batch_size: BatchSize = None


class LearnedParameters(_Section):
    """Upstream's `learned_parameters`."""

    device: Device = None


class IoParameters(_Section):
    """Upstream's `io_parameters`."""

    binary_format: Annotated[str | None, BeforeValidator(_choice("npz", "npy", nothing=("not-set",)))] = None
    image_format: Images = None
    compress: bool | None = None
    output_size: OutputSize = None
    output_dtype: OutputDtype = None


class Globals(_Section):
    """What holds for every representation that does not say otherwise."""

    batch_size: BatchSize = None
    device: Device = None
    codec: CodecChoice = None
    output_size: OutputSize = None
    output_dtype: OutputDtype = None
    images: Images = None


class RepresentationEntry(_Section):
    """One entry under `representations`."""

    type: str
    dependencies: list[str] | None = None
    deps: list[str] | None = None
    params: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    batch_size: BatchSize = None
    device: Device = None
    dtype: ComputeDtype = None
    store: bool | None = None
    store_as: Annotated[str | None, BeforeValidator(_store_as)] = None
    codec: CodecChoice = None
    output_size: OutputSize = None
    output_dtype: OutputDtype = None
    images: Images = None
    compute_parameters: ComputeParameters | None = None
    io_parameters: IoParameters | None = None
    learned_parameters: LearnedParameters | None = None


class ConfigFile(_Section):
    """A whole config."""

    globals: Globals | None = None
    default_compute_parameters: ComputeParameters | None = None
    default_io_parameters: IoParameters | None = None
    default_learned_parameters: LearnedParameters | None = None
    representations: dict[str, RepresentationEntry] = Field(min_length=1)


def check_values(value: Mapping[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
    """Check keys and values against the schema.

    Args:
        value: The config as plain values. Keys at the top that start with `x-` are for anchors and are not looked at.

    Returns:
        The validated values (only the keys that are given; empty if anything is wrong), and the mistakes.
    """
    try:
        config = ConfigFile.model_validate({key: item for key, item in value.items() if not key.startswith("x-")})
    except ValidationError as error:
        return {}, [_mistake(detail) for detail in error.errors(include_url=False) if not _is_told(detail)]
    return config.model_dump(exclude_unset=True), []


def describe(value: object) -> str:
    """Return a value as a message shows it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list() if any(isinstance(item, (list, dict)) for item in value) or len(value) > 4:
            return "a list"
        case list():
            return f"[{', '.join(map(describe, value))}]"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_told(detail: ErrorDetails) -> bool:
    """Return whether a value is wrong only because it holds UNKNOWN, whose mistake is recorded already."""
    value = detail["input"]
    is_value_wrong = detail["type"] not in ("extra_forbidden", "missing", "too_short")
    return is_value_wrong and (value is UNKNOWN or (isinstance(value, list) and UNKNOWN in value))


def _mistake(detail: ErrorDetails) -> Mistake:
    path: KeyPath = detail["loc"]
    match detail["type"]:
        case "extra_forbidden":
            return Mistake(path, _unknown_key(path))
        case "missing" if path == ("representations",):
            return Mistake(
                (), "there is no 'representations'; it maps a name to its type, such as {rgb: {type: color/rgb}}"
            )
        case "missing":
            return Mistake(path[:-1], f"{path[-1]!r} is missing")
        case "too_short":
            return Mistake(path, "there are no representations; add one, such as rgb: {type: color/rgb}")
        case "vrekit":
            return Mistake(path, detail["msg"])
    expected = _EXPECTED.get(detail["type"])
    if path == ("representations",) and expected:
        expected = "a mapping of names, such as {rgb: {type: color/rgb}}"
    got = describe(detail["input"])
    return Mistake(path, f"expected {expected}, got {got}" if expected else f"{detail['msg']}, got {got}")


def _unknown_key(path: KeyPath) -> str:
    """Return what is said of an unknown key: the closest known one, or the section it belongs to."""
    key = str(path[-1])
    section = _section_at(path[:-1])
    if near := closest(key, section.model_fields):
        return f"unknown key (did you mean {near!r}?)"
    homes = (
        ("a representation", RepresentationEntry),
        ("'globals'", Globals),
        ("'io_parameters'", IoParameters),
    )
    found = [where for where, model in homes if key in model.model_fields and model is not section]
    belongs = f"it belongs to {' or '.join(found)}" if found else f"there are {', '.join(section.model_fields)}"
    return f"unknown key; {belongs}"


def _section_at(path: KeyPath) -> type[BaseModel]:
    """Return the model that stands at a path of the config."""
    model: type[BaseModel] = ConfigFile
    for key in path:
        if isinstance(key, str) and key in model.model_fields:
            annotation = model.model_fields[key].annotation
            model = next(iter(_models_in(annotation)), model)
    return model


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
