"""Typed stages, the parts a codec is put together from, in the order array → array, array → bytes, bytes → bytes.

A stage is a frozen dataclass: its class attribute `id` and its fields are its JSON config. Stages hold no state,
so one object serves all threads.
"""

import types
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import Bytes, max_file_size
from vrekit.core.errors import CodecError, UsageError
from vrekit.core.names import did_you_mean
from vrekit.core.spec import OutputSpec

Shape = tuple[int, ...]
Layout = tuple[np.dtype[Any], Shape]


@dataclass(frozen=True, slots=True)
class Stage(ABC):
    """One step of a codec; `id` never changes meaning, so that stored configs decode forever.

    A stage that loses precision says `exact = False`.
    """

    id: ClassVar[str]
    exact: ClassVar[bool] = True

    @property
    def is_exact(self) -> bool:
        """Whether decoding gives back every value, with these options."""
        return self.exact

    def config(self) -> dict[str, Any]:
        """Return the id and every field, JSON-able."""
        return {"id": self.id, **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}}

    @classmethod
    def options_for(cls, spec: OutputSpec) -> dict[str, Any]:
        """Return options that follow from what is stored (class axis, value range); explicit ones win over them."""
        return {}

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Return the names of the fields."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the stage `config()` described.

        Raises:
            UsageError: If an option is unknown, missing, or of another type; the message names it.
        """
        options = {name: value for name, value in config.items() if name != "id"}
        known = cls.option_names()
        for name in map(str, options):
            if name not in known:
                raise UsageError(
                    f"codec stage {cls.id!r} has no option {name!r}{did_you_mean(name, known)}",
                    hint=f"its options: {', '.join(known) or 'none'}",
                )
        hints = get_type_hints(cls)
        for field in fields(cls):
            if field.name in options:
                options[field.name] = _typed(options[field.name], hints[field.name], f"{cls.id}.{field.name}")
            elif field.default is MISSING:
                raise UsageError(f"codec stage {cls.id!r} needs the option {field.name!r}")
        return cls(**options)


class ArrayStage(Stage):
    """Array → array.

    A stage with `one_way = True` stores another thing than it gets (class indices for logits): its decoded array is
    what it stored, and it must come before all others.
    """

    one_way: ClassVar[bool] = False

    @property
    def is_exact(self) -> bool:
        """Whether decoding gives back every value, with these options."""
        return self.exact and not self.one_way

    @property
    def is_plain(self) -> bool:
        """Whether the encoded array is the decoded one, up to rounding: a reader of the file alone sees the values."""
        return self.one_way

    def decoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return dtype and shape of what comes back for an array of this dtype and shape; only one-way stages differ.

        Raises:
            CodecError: If the stage cannot take such an array.
        """
        return dtype, shape

    def decoded_spec(self, spec: OutputSpec) -> OutputSpec:
        """Return the spec of what comes back."""
        return spec

    @abstractmethod
    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return dtype and shape of the encoded array for a *decoded* array of this dtype and shape.

        Raises:
            CodecError: If the stage cannot take such an array.
        """

    @abstractmethod
    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the encoded array.

        Raises:
            CodecError: If values do not fit.
        """

    @abstractmethod
    def decode(self, array: NDArray[Any], out: NDArray[Any]) -> None:
        """Fill `out` (C-contiguous, the decoded layout) from the encoded array.

        Raises:
            CodecError: If `array` holds codes that `encode` never writes.
        """

    def view(self, out: NDArray[Any]) -> NDArray[Any] | None:
        """Return a C-contiguous view of `out` with the encoded layout where decoding is mere reshaping, else None."""
        return None


class ArrayToBytesStage(Stage):
    """Array → bytes: the file format, which gives the file name its ending."""

    suffix: ClassVar[str]

    @abstractmethod
    def check(self, dtype: np.dtype[Any], shape: Shape) -> None:
        """Raise CodecError if the format cannot hold an array of this dtype and shape."""

    @abstractmethod
    def encode(self, array: NDArray[Any]) -> bytes:
        """Return the file of a C-contiguous array that passed `check`."""

    @abstractmethod
    def decode(self, data: Bytes, out: NDArray[Any]) -> None:
        """Fill `out` (C-contiguous) from the file.

        Raises:
            CodecError: If the bytes are damaged, or hold another dtype or shape than `out` has.
        """

    def peek(self, data: Bytes, dtype: np.dtype[Any], shape: Shape) -> NDArray[Any] | None:
        """Return the array as a view of `data` where the format allows it, else None; it is read once and dropped."""
        return None

    def max_encoded_size(self, dtype: np.dtype[Any], shape: Shape) -> int:
        """Return a bound on the file's bytes: a later bytes → bytes stage refuses to unpack more than that."""
        return max_file_size(dtype, shape)


class BytesStage(Stage):
    """Bytes → bytes: general compression of the file."""

    suffix: ClassVar[str]

    @abstractmethod
    def encode(self, data: bytes) -> bytes:
        """Return the packed bytes."""

    @abstractmethod
    def decode(self, data: Bytes, max_size: int) -> Bytes:
        """Return the unpacked bytes.

        Raises:
            CodecError: If the bytes are damaged or claim to unpack to more than `max_size` bytes.
        """


def _typed(value: Any, hint: Any, what: str) -> Any:
    """Return `value` as the annotated type (a JSON list as a tuple, an int as a float), or raise UsageError."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for option in options:
        if option is type(None) and value is None:
            return None
        if option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError as error:
                raise UsageError(f"{what} has {len(str(value))} digits, more than a float holds") from error
        if get_origin(option) is tuple and isinstance(value, (list, tuple)):
            return tuple(_typed(item, get_args(option)[0], what) for item in value)
        if isinstance(option, type) and isinstance(value, option) and (option is bool or not isinstance(value, bool)):
            return value
    expected = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise UsageError(f"{what} is {value!r}, expected {expected}", hint=_yaml_hint(value, options))


def _yaml_hint(value: Any, options: tuple[Any, ...]) -> str | None:
    """Return how to write a value that YAML takes for another type: `420` is a number, `1e-3` is text."""
    if str in options and isinstance(value, int) and not isinstance(value, bool):
        return f'in YAML, write "{value}" with the quotes'
    if float in options and isinstance(value, str):
        try:
            return f"YAML takes this for text: write {float(value)!r}"
        except ValueError:
            return None
    return None


def fits(condition: bool, stage: Stage, dtype: np.dtype[Any], shape: Shape, expected: str, hint: str) -> None:
    """Raise CodecError saying what `stage` takes, and what else to use, unless `condition` holds."""
    if not condition:
        raise CodecError(f"codec stage {stage.id!r} takes {expected}, got {dtype} {shape}", hint=hint)
