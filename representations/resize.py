"""`output_size` and `output_dtype`: what storing a representation at another size or dtype means for each kind."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vrekit.core.errors import ComputeError, UsageError
from vrekit.core.frames import Output
from vrekit.core.spec import Kind, OutputSpec

_MAPS = (
    Kind.COLOR, Kind.EDGES, Kind.FLOW, Kind.DEPTH, Kind.NORMALS, Kind.LOGITS, Kind.PROBABILITIES, Kind.INDICES, Kind.MASK,
)  # fmt: skip
_COORDINATES = (Kind.BOXES, Kind.POINTS)
_ACROSS = frozenset({"x", "x1", "x2", "cx", "w", "width"})
_DOWN = frozenset({"y", "y1", "y2", "cy", "h", "height"})
_HALF_KNOWN = 0.5  # a resized pixel is known when at least half of what it covers is

Size = tuple[int, int]


def resized_spec(
    spec: OutputSpec, size: Size | None = None, dtype: str | None = None, *, frame_size: Size | None = None
) -> OutputSpec:
    """Return the spec that `resize_output` gives; the arguments and errors are the same."""
    if size is not None:
        spec = _spec_at_size(spec, size, frame_size)
    if dtype is not None and dtype != spec.dtype:
        spec = _spec_as_dtype(spec, dtype)
    return spec


def resize_output(
    output: Output,
    spec: OutputSpec,
    size: Size | None = None,
    dtype: str | None = None,
    *,
    frame_size: Size | None = None,
) -> tuple[Output, OutputSpec]:
    """Return the output at another size and dtype, and its spec.

    Integers (except colours) and masks take the nearest pixel; everything else is averaged over the pixels it covers
    when shrinking and interpolated linearly when growing. NaN and `spec.invalid_value` are left out of averages; where
    more than half is unknown the result is unknown. Flow in pixels is scaled with the image, normals are brought back to
    length 1, box and point coordinates are scaled by `size / frame_size`. Colours keep their meaning between integers
    (0..255, 0..65535) and floats (0..1).

    Args:
        output: What `compute` gave.
        spec: Its spec.
        size: (height, width) to store; None keeps the size.
        dtype: numpy dtype name to store; None keeps the dtype.
        frame_size: (height, width) of the frames that box and point coordinates refer to.

    Raises:
        UsageError: If the size or dtype makes no sense for the kind.
        ComputeError: If a value does not fit the dtype.
    """
    result = resized_spec(spec, size, dtype, frame_size=frame_size)
    if result == spec:
        return output, spec
    change: Callable[[NDArray[Any]], NDArray[Any]]
    if size is None or spec.kind in _MAPS:
        change = _map_resizer(spec, size)
    else:
        change = _coordinate_scaler(spec, size, frame_size or size)
    arrays = [_cast(change(output.frame(position)), spec, result) for position in range(len(output))]
    if spec.is_ragged:
        return Output(data=arrays, valid=output.valid), result
    shape = tuple(length or 0 for length in result.shape)
    data = np.stack(arrays) if arrays else np.zeros((0, *shape), result.dtype)
    return Output(data=data, valid=output.valid), result


def _spec_at_size(spec: OutputSpec, size: Size, frame_size: Size | None) -> OutputSpec:
    if min(size) < 1:
        raise UsageError(f"output_size must be a positive (height, width), got {list(size)}")
    if spec.kind in _MAPS and "H" in spec.axes and "W" in spec.axes:
        lengths = dict(zip(("H", "W"), size, strict=True))
        shape = tuple(lengths.get(axis, length) for axis, length in zip(spec.axes, spec.shape, strict=True))
        return replace(spec, shape=shape)
    if spec.kind in _COORDINATES and spec.columns is not None:
        if frame_size is None:
            raise UsageError(f"output_size: {spec.kind} can only be scaled when the size of the frames is known")
        return spec
    raise UsageError(
        f"output_size makes no sense for {spec.kind} with axes {spec.axes!r}",
        hint="leave output_size out for this representation",
    )


def _spec_as_dtype(spec: OutputSpec, dtype: str) -> OutputSpec:
    try:
        target = np.dtype(dtype)
    except TypeError as error:
        raise UsageError(f"output_dtype {dtype!r} is no numpy dtype", hint="such as float16 or uint8") from error
    if spec.kind is Kind.TEXT or target.kind not in "biuf":
        raise UsageError(f"output_dtype {dtype!r} makes no sense for {spec.kind} of dtype {spec.dtype}")
    source = np.dtype(spec.dtype)
    if spec.kind is Kind.COLOR and target.kind != "b":
        return replace(
            spec, dtype=target.name, value_range=_scaled_range(spec, _full_scale(target) / _full_scale(source))
        )
    if spec.kind is Kind.INDICES and target.kind not in "iu":
        raise UsageError(
            f"output_dtype {dtype!r} would spoil ids: {spec.kind} is stored as integers",
            hint="leave output_dtype out for this representation, or take uint8, uint16, ...",
        )
    if source.kind == "f" and target.kind != "f":
        raise UsageError(
            f"output_dtype {dtype!r} would cut the fractions of {spec.kind} ({spec.dtype})",
            hint="take float16, or a codec that quantises with a known error",
        )
    if target.kind == "b" and source.kind != "b" and spec.value_range != (0, 1):
        raise UsageError(f"output_dtype 'bool' would lose values of {spec.kind} ({spec.dtype})")
    return replace(spec, dtype=target.name)


def _full_scale(dtype: np.dtype[Any]) -> float:
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


def _scaled_range(spec: OutputSpec, factor: float) -> tuple[float, float] | None:
    return None if spec.value_range is None else (spec.value_range[0] * factor, spec.value_range[1] * factor)


def _map_resizer(spec: OutputSpec, size: Size | None) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def resize(array: NDArray[Any]) -> NDArray[Any]:
        if size is None or (array.shape[spec.axes.index("H")], array.shape[spec.axes.index("W")]) == tuple(size):
            return array
        order = [spec.axes.index("H"), spec.axes.index("W")]
        image = np.moveaxis(array, order, (0, 1))
        resized = _resize_map(image, spec, size)
        return np.moveaxis(resized, (0, 1), order)

    return resize


def _resize_map(image: NDArray[Any], spec: OutputSpec, size: Size) -> NDArray[Any]:
    """Return an (H, W, ...) image at another size."""
    if image.dtype.kind != "f" and spec.kind is not Kind.COLOR:
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(size, image.shape, strict=False)
        )
        return image[rows[:, None], columns]
    values = image.astype(np.float64 if image.dtype == np.float64 else np.float32)
    unknown = _unknown_pixels(values, spec)
    if unknown is None:
        resized = _resample(values, size)
    else:
        values[unknown] = 0
        share = _resample((~unknown).astype(values.dtype), size)
        if share.ndim < values.ndim:
            share = share[..., None]
        resized = _resample(values, size) / np.maximum(share, 1e-6)
    if spec.kind is Kind.FLOW and spec.unit in (None, "px"):
        resized = resized * np.array([size[1] / image.shape[1], size[0] / image.shape[0]], resized.dtype)
    if spec.kind is Kind.NORMALS:
        length = np.linalg.norm(resized, axis=-1, keepdims=True)
        resized = np.divide(resized, length, out=np.full_like(resized, np.nan), where=length > 0)
    if unknown is not None:
        invalid = np.nan if spec.invalid_value in (None, "nan") else spec.invalid_value
        resized = np.where(share < _HALF_KNOWN, invalid, resized)
    if image.dtype.kind in "iu":
        resized = np.rint(resized)
    return resized.astype(image.dtype)


def _unknown_pixels(values: NDArray[Any], spec: OutputSpec) -> NDArray[np.bool_] | None:
    """Return (H, W): True where any channel is NaN, infinite or the invalid value; None when there is none."""
    unknown = ~np.isfinite(values)
    if isinstance(spec.invalid_value, (int, float)):
        unknown |= values == spec.invalid_value
    if unknown.ndim == 3:
        unknown = unknown.any(-1)
    return unknown if unknown.any() else None


def _resample(image: NDArray[Any], size: Size) -> NDArray[Any]:
    height, width = min(size[0], image.shape[0]), min(size[1], image.shape[1])
    channels = image[..., None] if image.ndim == 2 else image
    result = np.empty((*size, channels.shape[-1]), image.dtype)
    for channel in range(channels.shape[-1]):
        plane = np.ascontiguousarray(channels[..., channel])
        if plane.shape != (height, width):
            plane = cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA)
        if plane.shape != tuple(size):
            plane = cv2.resize(plane, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        result[..., channel] = plane
    return result[..., 0] if image.ndim == 2 else result


def _coordinate_scaler(spec: OutputSpec, size: Size, frame_size: Size) -> Callable[[NDArray[Any]], NDArray[Any]]:
    down, across = size[0] / frame_size[0], size[1] / frame_size[1]
    factors: Mapping[str, float] = dict.fromkeys(_ACROSS, across) | dict.fromkeys(_DOWN, down)
    factors = {**factors, "size": math.sqrt(across * down)}
    scale = np.array([factors.get(column, 1.0) for column in spec.columns or ()])

    def rescale(array: NDArray[Any]) -> NDArray[Any]:
        return (array * scale).astype(array.dtype)

    return rescale


def _cast(array: NDArray[Any], spec: OutputSpec, result: OutputSpec) -> NDArray[Any]:
    target = np.dtype(result.dtype)
    if array.dtype == target:
        return array
    if spec.kind is Kind.COLOR:
        factor = _full_scale(target) / _full_scale(array.dtype)
        wide = array.astype(np.float64) * factor
        return (np.rint(wide) if target.kind in "iu" else wide).astype(target)
    if target.kind in "iuf":
        limits = np.iinfo(target) if target.kind in "iu" else np.finfo(target)
        finite = array[np.isfinite(array)]
        if finite.size and (finite.min() < limits.min or finite.max() > limits.max):
            raise ComputeError(
                f"values {finite.min()}..{finite.max()} do not fit output_dtype {target.name} "
                f"({limits.min}..{limits.max})"
            )
    return array.astype(target)
