"""Pictures of every kind: shape, batch independence, visible invalid pixels, and the colours that must come out."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vrekit.core.frames import Output
from vrekit.core.spec import Kind, OutputSpec
from vrekit.representations.pictures import draw, palette

GRAY = [128, 128, 128]
H, W = 12, 17
random = np.random.default_rng(5)


def spec_of(kind: Kind, dtype: str, shape: tuple[int | None, ...], axes: str, **fields: Any) -> OutputSpec:
    return OutputSpec(kind=kind, dtype=dtype, shape=shape, axes=axes, **fields)


def map_data(*shape: int) -> NDArray[np.float32]:
    return random.random((3, *shape), np.float32)


BOX_COLUMNS = ("x1", "y1", "x2", "y2", "score", "label")
CASES: list[tuple[OutputSpec, NDArray[Any] | Sequence[NDArray[Any]]]] = [
    (spec_of(Kind.COLOR, "uint8", (H, W, 3), "HWC"), random.integers(0, 256, (3, H, W, 3), np.uint8)),
    (spec_of(Kind.COLOR, "uint16", (H, W, 4), "HWC"), random.integers(0, 65536, (3, H, W, 4), np.uint16)),
    (spec_of(Kind.COLOR, "float32", (5, H, W), "CHW"), map_data(5, H, W)),
    (spec_of(Kind.COLOR, "uint8", (H, W), "HW"), random.integers(0, 256, (3, H, W), np.uint8)),
    (spec_of(Kind.EDGES, "uint8", (H, W), "HW"), random.integers(0, 2, (3, H, W), np.uint8)),
    (spec_of(Kind.EDGES, "float16", (H, W, 1), "HWC"), map_data(H, W, 1).astype(np.float16)),
    (spec_of(Kind.FLOW, "float32", (H, W, 2), "HWC"), map_data(H, W, 2) - 0.5),
    (spec_of(Kind.DEPTH, "float32", (H, W), "HW"), map_data(H, W)),
    (spec_of(Kind.DEPTH, "uint16", (1, H, W), "CHW"), random.integers(0, 9999, (3, 1, H, W), np.uint16)),
    (spec_of(Kind.NORMALS, "float16", (3, H, W), "CHW"), (map_data(3, H, W) * 2 - 1).astype(np.float16)),
    (spec_of(Kind.LOGITS, "float32", (7, H, W), "CHW"), map_data(7, H, W)),
    (spec_of(Kind.PROBABILITIES, "float32", (H, W, 1), "HWC"), map_data(H, W, 1)),
    (spec_of(Kind.INDICES, "uint16", (H, W), "HW"), random.integers(0, 999, (3, H, W), np.uint16)),
    (spec_of(Kind.MASK, "bool", (H, W), "HW"), random.random((3, H, W)) > 0.5),
    (
        spec_of(Kind.BOXES, "float32", (None, 6), "KC", columns=BOX_COLUMNS),
        [(random.random((n, 6)) * 900).astype(np.float32) for n in (4, 0, 1)],
    ),
    (
        spec_of(Kind.POINTS, "float32", (None, 2), "KC", columns=("x", "y")),
        [(random.random((n, 2)) * 4000).astype(np.float32) for n in (0, 30, 5)],
    ),
    (spec_of(Kind.EMBEDDING, "float32", (384,), "D"), map_data(384) - 0.5),
    (spec_of(Kind.TABLE, "float64", (2,), "D", columns=("speed", "yaw")), random.random((3, 2))),
    (spec_of(Kind.TEXT, "str", (), ""), [np.array(text) for text in ("", "a car turns left", "Straße, ß\n" * 90)]),
]


def test_every_kind_is_here() -> None:
    assert {spec.kind for spec, _ in CASES} == set(Kind)


@pytest.mark.parametrize(("spec", "data"), CASES, ids=lambda value: str(getattr(value, "kind", "")))
def test_contract(spec: OutputSpec, data: NDArray[Any] | Sequence[NDArray[Any]]) -> None:
    pictures = draw(Output(data=data, valid=np.array([True, True, False])), spec)
    assert pictures.dtype == np.uint8
    assert pictures.shape == (3, *((H, W) if "H" in spec.axes else (540, 960)), 3)
    for position in range(2):
        alone = draw(Output(data=data[position : position + 1]), spec)
        np.testing.assert_array_equal(alone[0], pictures[position])
    assert (pictures[2] == 128).all()
    assert draw(Output(data=data[:0]), spec).shape == (0, *pictures.shape[1:])


@pytest.mark.parametrize(
    ("kind", "channels"),
    [(Kind.COLOR, 3), (Kind.EDGES, 1), (Kind.FLOW, 2), (Kind.DEPTH, 1), (Kind.NORMALS, 3), (Kind.LOGITS, 4)],
)
def test_unknown_pixels_are_gray_and_change_nothing_else(kind: Kind, channels: int) -> None:
    spec = spec_of(kind, "float32", (H, W, channels), "HWC", value_range=(0, 1) if kind is Kind.DEPTH else None)
    data = np.random.default_rng(1).random((1, H, W, channels), np.float32)
    data[0, :, :, 0] = 0.5  # so that percentiles stay the same
    data[0, 5, 5] = 0.5
    before = draw(Output(data=data), spec)[0]
    data[0, 3, 4, channels - 1] = np.nan
    data[0, 7, 8, 0] = np.inf
    after = draw(Output(data=data), spec)[0]
    assert after[3, 4].tolist() == after[7, 8].tolist() == GRAY
    same = np.ones((H, W), bool)
    same[[3, 7], [4, 8]] = False
    if kind is not Kind.FLOW:  # its speeds are relative to the frame's
        np.testing.assert_array_equal(before[same], after[same])
    data[:] = np.nan
    assert (draw(Output(data=data), spec) == 128).all()


def test_numeric_invalid_value() -> None:
    spec = spec_of(Kind.DEPTH, "float32", (1, 3), "HW", invalid_value=-1.0, value_range=(0, 10))
    picture = draw(Output(data=np.array([[[-1, 0, 10]]], np.float32)), spec)[0, 0]
    assert picture[0].tolist() == GRAY
    assert picture[1, 0] < picture[2, 0]  # turbo goes from blue to red
    assert picture[1, 2] > picture[2, 2]


def test_known_colours() -> None:
    axis = np.eye(3, dtype=np.float32).reshape(1, 1, 3, 3)
    normals = draw(Output(data=axis), spec_of(Kind.NORMALS, "float32", (1, 3, 3), "HWC"))[0, 0]
    assert normals.tolist() == [[255, 128, 128], [128, 255, 128], [128, 128, 255]]
    mask = draw(Output(data=np.array([[[True, False]]])), spec_of(Kind.MASK, "bool", (1, 2), "HW"))[0, 0]
    assert mask.tolist() == [[255, 255, 255], [0, 0, 0]]
    edges = draw(Output(data=np.array([[[1, 0]]], np.uint8)), spec_of(Kind.EDGES, "uint8", (1, 2), "HW"))[0, 0]
    assert edges.tolist() == [[255, 255, 255], [0, 0, 0]]
    color = draw(Output(data=np.array([[[[1.0, 0.5, 0]]]])), spec_of(Kind.COLOR, "float64", (1, 1, 3), "HWC"))
    assert color[0, 0, 0].tolist() == [255, 128, 0]
    deep = draw(
        Output(data=np.array([[[[65535, 257, 0]]]], np.uint16)), spec_of(Kind.COLOR, "uint16", (1, 1, 3), "HWC")
    )
    assert deep[0, 0, 0].tolist() == [255, 1, 0]


def test_flow_wheel() -> None:
    spec = spec_of(Kind.FLOW, "float32", (1, 5, 2), "HWC")
    flow = np.array([[[[3, 0], [-3, 0], [0, 3], [0, -3], [0, 0]]]], np.float32)
    wheel = [[255, 0, 0], [0, 255, 255], [128, 255, 0], [128, 0, 255], [255, 255, 255]]  # right left down up still
    np.testing.assert_allclose(draw(Output(data=flow), spec)[0, 0].astype(int), wheel, atol=1)
    np.testing.assert_array_equal(draw(Output(data=flow * 7), spec), draw(Output(data=flow), spec))


def test_ids() -> None:
    ids = np.array([[[0, 1, 2, 3, -1]]], np.int32)
    mapped = spec_of(Kind.INDICES, "int32", (1, 5), "HW", color_map=((9, 8, 7), (1, 2, 3), (4, 5, 6)))
    assert draw(Output(data=ids), mapped)[0, 0].tolist() == [[9, 8, 7], [1, 2, 3], [4, 5, 6], GRAY, GRAY]
    free = spec_of(Kind.INDICES, "int32", (1, 5), "HW")
    drawn = draw(Output(data=ids), free)[0, 0]
    np.testing.assert_array_equal(drawn[:4], palette(4))
    assert drawn[4].tolist() == GRAY
    scores = np.zeros((1, 3, 1, 2), np.float32)
    scores[0, 2, 0, 0] = scores[0, 1, 0, 1] = 1
    logits = spec_of(Kind.LOGITS, "float32", (3, 1, 2), "CHW", color_map=mapped.color_map)
    assert draw(Output(data=scores), logits)[0, 0].tolist() == [[4, 5, 6], [1, 2, 3]]


def test_palette_is_distinct() -> None:
    colors = palette(256)
    assert colors[0].tolist() == [0, 0, 0]
    assert len({tuple(color) for color in colors.tolist()}) > 200
    assert colors[1:].max(axis=1).min() > 150
    np.testing.assert_array_equal(palette(20), colors[:20])


def test_boxes_and_points_stand_where_they_are() -> None:
    boxes = spec_of(Kind.BOXES, "float32", (None, 4), "KC", columns=("x", "y", "width", "height"))
    drawn = draw(Output(data=[np.array([[100, 50, 30, 20]], np.float32)]), boxes)[0].any(-1)
    assert [int(at[0]) + 1 for at in (np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0)))] == [50, 100]
    assert drawn[50, 100:131].all()
    assert not drawn[60, 110]
    points = spec_of(Kind.POINTS, "float32", (None, 2), "KC", columns=("x", "y"))
    small = draw(Output(data=[np.array([[900, 500]], np.float32)]), points)[0].any(-1)
    large = draw(Output(data=[np.array([[900, 500], [1800, 1000]], np.float32)]), points)[0].any(-1)
    assert small[500, 900]
    assert large[250, 450]
    assert large[500, 900]
    assert not draw(Output(data=[np.zeros((0, 2), np.float32)]), points).any()


def test_text_and_bars() -> None:
    text = spec_of(Kind.TEXT, "str", (), "")
    one, two = (draw(Output(data=[np.array(words)]), text)[0] for words in ("a", "a dog"))
    assert 0 < (one > 0).sum() < (two > 0).sum()
    bars: Callable[[list[float]], NDArray[np.uint8]] = lambda values: draw(  # noqa: E731
        Output(data=np.array([values])), spec_of(Kind.EMBEDDING, "float64", (len(values),), "D")
    )[0]
    drawn = np.asarray(bars([1.0, -1.0, 0.5, np.nan]).any(-1))
    heights = [int(drawn[:, at].sum()) for at in (100, 340, 600, 800)]
    assert heights == [269, 269, 134, 540] or heights == [269, 269, 135, 540]
    assert drawn[:270, 100].any()
    assert not drawn[270:, 100].any()
    assert drawn[271:, 340].any()
