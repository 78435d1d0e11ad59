"""`output_size` and `output_dtype`: what storing a representation at another size or dtype means for each kind."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.core.errors import ComputeError, UsageError
from vrekit.core.frames import Output
from vrekit.core.spec import Kind, OutputSpec

_MAPS = frozenset(Kind) - {Kind.BOXES, Kind.POINTS, Kind.EMBEDDING, Kind.TABLE, Kind.TEXT}
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
    when shrinking and interpolated linearly when growing. Values that are not finite or equal `spec.invalid_value` are
    left out of averages; where they cover more than half of a pixel, it becomes NaN or that value. Flow in pixels is
    scaled with the image, normals are brought back to length 1, box and point coordinates are scaled by
    `size / frame_size`. Colours keep their meaning between integers (0..255, 0..65535) and floats (0..1).

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
    scale = None if size is None or frame_size is None else _coordinate_scale(spec, size, frame_size)
    if result == spec and scale is None:
        return output, spec
    arrays = []
    for position in range(len(output)):
        array: NDArray[Any] = output.frame(position)
        if scale is not None:
            array = (array * scale).astype(array.dtype)
        elif size is not None:
            array = _resize_array(array, spec, size)
        arrays.append(_cast(array, spec, result))
    if spec.is_ragged:
        return Output(data=arrays, valid=output.valid), result
    shape = tuple(length or 0 for length in result.shape)
    data = np.stack(arrays) if arrays else np.zeros((0, *shape), result.dtype)
    return Output(data=data, valid=output.valid), result


def _spec_at_size(spec: OutputSpec, size: Size, frame_size: Size | None) -> OutputSpec:
    if min(size) < 1:
        raise UsageError(f"output_size must be a positive (height, width), got {list(size)}")
    if spec.kind in _MAPS and "H" in spec.axes and "W" in spec.axes:
        lengths = {"H": size[0], "W": size[1]}
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


def _resize_array(array: NDArray[Any], spec: OutputSpec, size: Size) -> NDArray[Any]:
    order = (spec.axes.index("H"), spec.axes.index("W"))
    image = np.moveaxis(array, order, (0, 1))
    return array if image.shape[:2] == tuple(size) else np.moveaxis(_resize_map(image, spec, size), (0, 1), order)


def _resize_map(image: NDArray[Any], spec: OutputSpec, size: Size) -> NDArray[Any]:
    """Return an (H, W, ...) image at another size."""
    if image.dtype.kind != "f" and spec.kind is not Kind.COLOR:
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(np.int64) for new, old in zip(size, image.shape, strict=False)
        )
        return np.asarray(image[rows[:, None], columns])
    values = image.astype(np.float64 if image.dtype == np.float64 else np.float32)
    known = _known_pixels(values, spec)
    share = None
    if known.all():
        resized = _resample(values, size)
    else:
        values[~known] = 0
        share = _resample(known.astype(values.dtype), size).reshape(*size, *[1] * (values.ndim - 2))
        resized = _resample(values, size) / np.maximum(share, 1e-6)
    if spec.kind is Kind.FLOW and spec.unit in (None, "px"):
        resized = resized * np.array([size[1] / image.shape[1], size[0] / image.shape[0]], resized.dtype)
    if spec.kind is Kind.NORMALS:
        length = np.linalg.norm(resized, axis=-1, keepdims=True)
        resized = np.divide(resized, length, out=np.full_like(resized, np.nan), where=length > 0)
    if share is not None:
        invalid = np.nan if spec.invalid_value in (None, "nan") else spec.invalid_value
        resized = np.where(share < _HALF_KNOWN, invalid, resized)
    if image.dtype.kind in "iu":
        resized = np.rint(resized)
    return resized.astype(image.dtype)


def _known_pixels(values: NDArray[Any], spec: OutputSpec) -> NDArray[np.bool_]:
    """Return (H, W): True where every channel is finite and none is the invalid value."""
    known = np.isfinite(values)
    if isinstance(spec.invalid_value, (int, float)):
        known &= values != spec.invalid_value
    return np.asarray(known.reshape(*known.shape[:2], -1).all(-1), np.bool_)


def _resample(image: NDArray[Any], size: Size) -> NDArray[Any]:
    import cv2  # here, because planning asks for `resized_spec` only

    height, width = min(size[0], image.shape[0]), min(size[1], image.shape[1])
    channels = image.reshape(*image.shape[:2], -1)
    result = np.empty((*size, channels.shape[-1]), image.dtype)
    for first in range(0, channels.shape[-1], 4):  # OpenCV takes four channels at once
        part = np.ascontiguousarray(channels[..., first : first + 4])
        if part.shape[:2] != (height, width):
            part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        if part.shape[:2] != tuple(size):
            part = cv2.resize(part, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        result[..., first : first + 4] = part.reshape(*size, -1)
    return result.reshape(*size, *image.shape[2:])


def _coordinate_scale(spec: OutputSpec, size: Size, frame_size: Size) -> NDArray[np.float64] | None:
    """Return the factor of each column of boxes or points, None for other kinds."""
    if spec.kind not in _COORDINATES:
        return None
    down, across = size[0] / frame_size[0], size[1] / frame_size[1]
    factors = {**dict.fromkeys(_ACROSS, across), **dict.fromkeys(_DOWN, down), "size": math.sqrt(across * down)}
    return np.array([factors.get(column, 1.0) for column in spec.columns or ()])


def _cast(array: NDArray[Any], spec: OutputSpec, result: OutputSpec) -> NDArray[Any]:
    target = np.dtype(result.dtype)
    if array.dtype == target:
        return array
    if spec.kind is Kind.COLOR:
        factor = _full_scale(target) / _full_scale(array.dtype)
        wide = array.astype(np.float64) * factor
        if target.kind in "iu":
            wide = np.rint(np.clip(np.nan_to_num(wide), 0, _full_scale(target)))
        return wide.astype(target)
    if target.kind in "iuf":
        limits = np.iinfo(target) if target.kind in "iu" else np.finfo(target)
        finite = array[np.isfinite(array)]
        if finite.size and (finite.min() < limits.min or finite.max() > limits.max):
            raise ComputeError(
                f"values {finite.min()}..{finite.max()} do not fit output_dtype {target.name} "
                f"({limits.min}..{limits.max})"
            )
    return array.astype(target)
