"""Parameters of a representation type: checked against the annotations of its `__init__`, listed for the docs."""

import inspect
import json
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from vrekit.core.errors import ConfigError, UsageError
from vrekit.core.names import did_you_mean
from vrekit.representations.base import Representation

RepresentationT = TypeVar("RepresentationT", bound=Representation)
_LIMITS = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}
_LONGEST_VALUE = 100
_LARGEST_PLAIN = 10**9
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a representation type.

    Attributes:
        name: Its name in the config.
        type: Its type and range for people: `int from 1 to 9 | null`, `"fast" | "medium"`, `list of 2 int`.
        default: Its default as YAML spells it, None when it must be given.
        annotation: Its type for Python; `typing.Any` when it has none.
    """

    name: str
    type: str
    default: str | None
    annotation: Any


def describe_parameters(cls: type[Representation]) -> tuple[Parameter, ...]:
    """Return the parameters of a representation type, in the order of its `__init__`."""
    hints = typing.get_type_hints(cls.__init__, include_extras=True)
    signature = inspect.signature(cls)
    return tuple(
        Parameter(
            name=name,
            type=_spell_type(hints.get(name, Any)),
            default=None if parameter.default is parameter.empty else _spell_value(parameter.default),
            annotation=hints.get(name, Any),
        )
        for name, parameter in signature.parameters.items()
        if parameter.kind not in _VARIADIC
    )


def build(cls: type[RepresentationT], params: Mapping[str, Any], name: str) -> RepresentationT:
    """Return `cls(**params)` after checking the parameters' names, types and ranges.

    Types are taken literally (`"3"` is no number, `true` no integer), except that a list may stand for a tuple and an
    integer for a float, because YAML has no other way to write them. A range is `Annotated[int, Field(ge=1)]`.

    Args:
        cls: Representation type.
        params: Parameters by name, as YAML or JSON gives them.
        name: Name of the representation, for messages.

    Raises:
        ConfigError: With every mistake found: unknown names (and the closest right one), missing ones, wrong types,
            values out of range; or what the type itself says about values it does not accept.
    """
    known = {parameter.name: parameter for parameter in describe_parameters(cls)}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())
    mistakes: list[str] = []
    values: dict[str, Any] = {}
    for key, value in params.items():
        if key not in known:
            if open_ended:
                values[key] = value
            else:
                mistakes.append(f"{name}: unknown parameter {key!r}{did_you_mean(str(key), known)}")
            continue
        try:
            values[key] = _checked(value, known[key].annotation)
        except ValidationError as error:
            mistakes += [f"{name}: {_spell_mistake(key, known[key], value, error)}"]
    mistakes += [
        f"{name}: parameter {parameter.name!r} ({parameter.type}) is missing"
        for parameter in known.values()
        if parameter.default is None and parameter.name not in params
    ]
    if mistakes:
        listed = ", ".join(f"{p.name} ({p.type})" for p in known.values()) or "none"
        raise ConfigError(mistakes, hint=f"parameters of {name}: {listed}")
    try:
        return cls(**values)
    except UsageError as error:
        raise ConfigError(f"{name}: {error.message}", hint=error.hint) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: {error}") from error


def _checked(value: Any, annotation: Any) -> Any:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticSchemaGenerationError:
        return value
    except PydanticUserError:  # the type brings a configuration of its own
        adapter = TypeAdapter(annotation)
    try:
        # Strict JSON is what we want: arrays for tuples and strings for enums, but no string for a number.
        return adapter.validate_json(json.dumps(value), strict=True)
    except TypeError:  # not JSON: given by Python code, not by a config
        return adapter.validate_python(value, strict=True)


def _spell_mistake(key: str, parameter: Parameter, value: Any, error: ValidationError) -> str:
    first = error.errors()[0]
    where = "".join(f"[{part}]" for part in first["loc"] if isinstance(part, int))
    got = repr(value)
    shown = got if len(got) <= _LONGEST_VALUE else f"{got[:_LONGEST_VALUE]}…"
    return f"parameter {key + where!r} must be {parameter.type}, got {shown}"


def _spell_type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _spell_type(arguments[0]) + _spell_range(arguments[1:])
    if annotation is type(None) or annotation is None:
        return "null"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_spell_type(argument) for argument in arguments)
    if origin is Literal:
        return " | ".join(_spell_value(argument) for argument in arguments)
    if origin is tuple and arguments:
        if arguments[-1] is Ellipsis:
            return f"list of {_spell_type(arguments[0])}"
        kinds = {_spell_type(argument) for argument in arguments}
        return f"list of {len(arguments)} {' or '.join(sorted(kinds))}"
    if origin is not None and arguments:
        return f"{_spell_type(origin)} of {', '.join(_spell_type(argument) for argument in arguments)}"
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return " | ".join(_spell_value(member) for member in annotation)
    return str(getattr(annotation, "__name__", annotation))


def _spell_range(metadata: Iterable[Any]) -> str:
    limits = {
        name: getattr(limit, name)
        for field in metadata
        if isinstance(field, FieldInfo)
        for limit in field.metadata
        for name in _LIMITS
        if hasattr(limit, name)
    }
    if limits.keys() == {"ge", "le"}:
        return f" from {_spell_limit(limits['ge'])} to {_spell_limit(limits['le'])}"
    spelled = [f"{words} {_spell_limit(limits[name])}" for name, words in _LIMITS.items() if name in limits]
    return f" {' and '.join(spelled)}" if spelled else ""


def _spell_limit(limit: float) -> str:
    return str(int(limit)) if limit == int(limit) and abs(limit) <= _LARGEST_PLAIN else f"{limit:g}"


def _spell_value(value: Any) -> str:
    plain = value.value if isinstance(value, Enum) else value
    return plain if isinstance(plain, str) and plain.isidentifier() else json.dumps(plain, default=str)
