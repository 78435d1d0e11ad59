"""Pictures for people: any output as uint8 RGB, drawn by its kind.

Every picture depends on its own frame only, so it is the same whatever the batch. Pixels without a measurement, and
frames marked invalid, are gray.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vrekit.core.frames import Output
from vrekit.core.spec import Kind, OutputSpec

Picture = NDArray[np.uint8]

_GRAY = 128
_CANVAS = (540, 960)  # for what has no size of its own: boxes, points, vectors, text
_PERCENTILES = (2.0, 98.0)  # the ends of the depth colours; a few outliers would otherwise hide the rest
_LINE_HEIGHT = 28
_LINE_CHARACTERS = 90


def draw(output: Output, spec: OutputSpec) -> Picture:
    """Return a picture of each frame: uint8 (N, H, W, 3).

    Maps keep their size. Boxes, points, vectors and text are drawn on black 540 x 960, where coordinates are halved
    until all of them fit.

    - color: as it is (floats 0..1 times 255; other than 3 channels: the first three, the rest black).
    - edges: white is 1. mask: white is true.
    - depth: the colours of turbo, from `spec.value_range`, else the frame's 2nd to 98th percentile.
    - flow: hue is the direction, saturation the speed over the frame's 98th percentile.
    - normals: (n + 1) / 2.
    - indices: `spec.color_map`, else a fixed palette; logits, probabilities: their largest class.
    """
    if not len(output):
        return np.zeros((0, *_picture_size(spec), 3), np.uint8)
    drawer = _DRAWERS[spec.kind]
    pictures = []
    for position in range(len(output)):
        if output.is_valid(position):
            pictures.append(drawer(output.frame(position), spec))
        else:
            pictures.append(np.full((*_picture_size(spec), 3), _GRAY, np.uint8))
    return np.stack(pictures)


def palette(count: int) -> Picture:
    """Return `count` well separated colours, uint8 (count, 3); the first is black, the others never are."""
    hues = (np.arange(count) * 0.618034 * 360) % 360  # the golden ratio spreads any number of hues evenly
    values = np.where(np.arange(count) % 3 == 1, 0.7, 1.0)
    hsv = np.stack([hues, np.full(count, 0.75), values], axis=-1).astype(np.float32)
    colors = np.rint(np.asarray(cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]) * 255).astype(np.uint8)
    colors[:1] = 0
    return np.asarray(colors, np.uint8)


def _picture_size(spec: OutputSpec) -> tuple[int, int]:
    height, width = spec.size_of("H"), spec.size_of("W")
    return _CANVAS if height is None or width is None else (height, width)


def _channels_last(array: NDArray[Any], spec: OutputSpec) -> NDArray[Any]:
    """Return a map as (H, W, C)."""
    if "C" not in spec.axes:
        array = array[..., None]
        return np.moveaxis(array, [spec.axes.index("H"), spec.axes.index("W")], [0, 1])
    return np.moveaxis(array, [spec.axes.index(axis) for axis in "HWC"], [0, 1, 2])


def _known(values: NDArray[Any], spec: OutputSpec) -> NDArray[np.bool_]:
    """Return (H, W): True where every channel is finite and none is the invalid value."""
    if values.dtype.kind != "f" and spec.invalid_value is None:
        return np.ones(values.shape[:2], np.bool_)
    known = np.isfinite(values)
    if isinstance(spec.invalid_value, (int, float)):
        known &= values != spec.invalid_value
    return np.asarray(known.all(-1))


def _to_bytes(values: NDArray[Any]) -> Picture:
    """Return 0..1 as 0..255; the caller paints over what is not finite."""
    return np.rint(np.clip(np.nan_to_num(values.astype(np.float32)), 0, 1) * 255).astype(np.uint8)


def _gray_out(picture: Picture, known: NDArray[np.bool_]) -> Picture:
    picture[~known] = _GRAY
    return picture


def _draw_color(array: NDArray[Any], spec: OutputSpec) -> Picture:
    values = _channels_last(array, spec)
    known = _known(values, spec)
    if values.dtype.kind in "iu":
        values = values if values.dtype == np.uint8 else values / np.iinfo(values.dtype).max
    colors = values if values.dtype == np.uint8 else _to_bytes(values)
    if colors.shape[-1] == 1:
        colors = np.repeat(colors, 3, axis=-1)
    picture = np.zeros((*colors.shape[:2], 3), np.uint8)
    picture[..., : min(3, colors.shape[-1])] = colors[..., :3]
    return _gray_out(picture, known)


def _draw_strength(array: NDArray[Any], spec: OutputSpec) -> Picture:
    values = _channels_last(array, spec)
    return _gray_out(np.repeat(_to_bytes(values[..., :1]), 3, axis=-1), _known(values, spec))


def _draw_depth(array: NDArray[Any], spec: OutputSpec) -> Picture:
    values = _channels_last(array, spec)[..., :1].astype(np.float64)
    known = _known(values, spec)
    if not known.any():
        return np.full((*known.shape, 3), _GRAY, np.uint8)
    low, high = spec.value_range or np.percentile(values[known], _PERCENTILES)
    levels = _to_bytes((values[..., 0] - low) / max(high - low, 1e-12))
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return _gray_out(np.asarray(colors, np.uint8), known)


def _draw_flow(array: NDArray[Any], spec: OutputSpec) -> Picture:
    values = _channels_last(array, spec).astype(np.float32)
    known = _known(values, spec)
    flow = np.where(known[..., None], values, 0)
    speed, direction = cv2.cartToPolar(
        np.ascontiguousarray(flow[..., 0]), np.ascontiguousarray(flow[..., 1]), angleInDegrees=True
    )
    fastest = np.percentile(speed[known], _PERCENTILES[1]) if known.any() else 0.0
    hsv = np.stack([direction % 360, np.clip(speed / max(fastest, 1e-6), 0, 1), np.ones_like(speed)], axis=-1)
    return _gray_out(_to_bytes(cv2.cvtColor(hsv.astype(np.float32), cv2.COLOR_HSV2RGB)), known)


def _draw_normals(array: NDArray[Any], spec: OutputSpec) -> Picture:
    values = _channels_last(array, spec)
    return _gray_out(_to_bytes((values.astype(np.float32) + 1) / 2), _known(values, spec))


def _draw_indices(array: NDArray[Any], spec: OutputSpec) -> Picture:
    values = _channels_last(array, spec)[..., :1]
    return _paint_ids(values[..., 0].astype(np.int64), _known(values, spec) & (values[..., 0] >= 0), spec)


def _draw_scores(array: NDArray[Any], spec: OutputSpec) -> Picture:
    values = _channels_last(array, spec)
    if values.shape[-1] == 1:
        return _draw_strength(array, spec)
    return _paint_ids(values.argmax(-1), _known(values, spec), spec)


def _paint_ids(ids: NDArray[np.int64], known: NDArray[np.bool_], spec: OutputSpec) -> Picture:
    colors = np.array(spec.color_map, np.uint8) if spec.color_map else palette(256)
    if not spec.color_map:
        ids = np.where(ids > 255, (ids - 1) % 255 + 1, ids)  # instance ids go on; black stays for 0
    known = known & (ids < len(colors))
    return _gray_out(colors[np.where(known, ids, 0)], known)


def _draw_boxes(array: NDArray[Any], spec: OutputSpec) -> Picture:
    columns = _columns(array, spec)
    if {"x", "y", "width", "height"} <= set(columns):
        corners = [columns["x"], columns["y"], columns["x"] + columns["width"], columns["y"] + columns["height"]]
    else:
        corners = [columns.get(name, array[:, at]) for at, name in enumerate(("x1", "y1", "x2", "y2"))]
    boxes = _fit(np.stack(corners, axis=-1).astype(np.float64))
    colors = _row_colors(columns, len(array))
    picture = np.zeros((*_CANVAS, 3), np.uint8)
    for (x1, y1, x2, y2), color in zip(boxes, colors, strict=True):
        cv2.rectangle(picture, (x1, y1), (x2, y2), color, 2)
    return picture


def _draw_points(array: NDArray[Any], spec: OutputSpec) -> Picture:
    columns = _columns(array, spec)
    at = _fit(np.stack([columns.get("x", array[:, 0]), columns.get("y", array[:, 1])], axis=-1).astype(np.float64))
    picture = np.zeros((*_CANVAS, 3), np.uint8)
    for (x, y), color in zip(at, _row_colors(columns, len(array)), strict=True):
        cv2.circle(picture, (x, y), 3, color, -1)
    return picture


def _columns(array: NDArray[Any], spec: OutputSpec) -> Mapping[str, NDArray[Any]]:
    return {name: array[:, at] for at, name in enumerate(spec.columns or ())}


def _fit(coordinates: NDArray[np.float64]) -> list[list[int]]:
    """Return (K, 2 or 4) x, y coordinates as whole canvas pixels, halved until all lie inside it."""
    finite = np.where(np.isfinite(coordinates), coordinates, 0)
    farthest = max((finite[:, 0::2].max(initial=0) + 1) / _CANVAS[1], (finite[:, 1::2].max(initial=0) + 1) / _CANVAS[0])
    halvings = max(0, int(np.ceil(np.log2(farthest))))
    limit = 4.0 * max(_CANVAS)
    scaled: list[list[int]] = np.rint(np.clip(finite / 2**halvings, -limit, limit)).astype(np.int64).tolist()
    return scaled


def _row_colors(columns: Mapping[str, NDArray[Any]], count: int) -> Sequence[tuple[int, ...]]:
    labels = np.nan_to_num(columns.get("label", np.zeros(count))).astype(np.int64)
    colors = palette(256)[1:]
    return [tuple(color) for color in colors[labels % len(colors)].tolist()]


def _draw_vector(array: NDArray[Any], spec: OutputSpec) -> Picture:
    """Draw the values as bars from the middle line, the largest absolute value reaching the border."""
    values = array.astype(np.float64).ravel()
    finite = np.isfinite(values)
    largest = np.abs(values[finite]).max(initial=0.0) or 1.0
    height, width = _CANVAS
    picture = np.zeros((height, width, 3), np.uint8)
    edges = np.linspace(0, width, len(values) + 1).astype(int)
    middle = height // 2
    for value, known, left, right in zip(values, finite, edges[:-1], edges[1:], strict=True):
        bar = slice(left, max(right - (right - left > 3), left + 1))
        if not known:
            picture[:, bar] = _GRAY
        elif value:
            end = middle - round(value / largest * (middle - 1))
            picture[min(end, middle) : max(end, middle), bar] = (80, 200, 120) if value > 0 else (230, 90, 70)
    return picture


def _draw_table(array: NDArray[Any], spec: OutputSpec) -> Picture:
    values = array.ravel().tolist()
    names = spec.columns or tuple(str(at) for at in range(len(values)))
    return _write([f"{name}: {value:.6g}" for name, value in zip(names, values, strict=True)])


def _draw_text(array: NDArray[Any], spec: OutputSpec) -> Picture:
    return _write([part for line in str(array).splitlines() for part in textwrap.wrap(line, _LINE_CHARACTERS) or [""]])


def _write(lines: Sequence[str]) -> Picture:
    image = Image.new("RGB", (_CANVAS[1], _CANVAS[0]))
    font = ImageFont.load_default(size=20)
    pen = ImageDraw.Draw(image)
    most = _CANVAS[0] // _LINE_HEIGHT
    shown = lines if len(lines) <= most else [*lines[: most - 1], f"... and {len(lines) - most + 1} more lines"]
    for row, line in enumerate(shown):
        color = (_GRAY, _GRAY, _GRAY) if line.endswith(": nan") else (255, 255, 255)
        pen.text((8, row * _LINE_HEIGHT + 4), line, font=font, fill=color)
    return np.asarray(image, np.uint8)


_DRAWERS: Mapping[Kind, Callable[[NDArray[Any], OutputSpec], Picture]] = {
    Kind.COLOR: _draw_color,
    Kind.EDGES: _draw_strength,
    Kind.FLOW: _draw_flow,
    Kind.DEPTH: _draw_depth,
    Kind.NORMALS: _draw_normals,
    Kind.LOGITS: _draw_scores,
    Kind.PROBABILITIES: _draw_scores,
    Kind.INDICES: _draw_indices,
    Kind.MASK: _draw_strength,
    Kind.BOXES: _draw_boxes,
    Kind.POINTS: _draw_points,
    Kind.EMBEDDING: _draw_vector,
    Kind.TABLE: _draw_table,
    Kind.TEXT: _draw_text,
}
