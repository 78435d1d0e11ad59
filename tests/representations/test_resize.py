"""output_size and output_dtype for every kind."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vrekit.core.errors import ComputeError, UsageError
from vrekit.core.frames import Output
from vrekit.core.spec import Kind, OutputSpec
from vrekit.representations.resize import resize_output, resized_spec


def spec_of(kind: Kind, data: NDArray[Any], axes: str, **fields: Any) -> OutputSpec:
    return OutputSpec(kind=kind, dtype=data.dtype.name, shape=data.shape[1:], axes=axes, **fields)


def resized(kind: Kind, data: NDArray[Any], axes: str, size: tuple[int, int], **fields: Any) -> NDArray[Any]:
    valid = np.arange(len(data)) != 0
    output, spec = resize_output(Output(data=data, valid=valid), spec_of(kind, data, axes, **fields), size)
    result = np.asarray(output.data)
    assert spec == resized_spec(spec_of(kind, data, axes, **fields), size)
    assert (result.dtype, result.shape[1:]) == (np.dtype(spec.dtype), spec.shape)
    assert output.valid is valid
    return result


def test_nothing_to_do_copies_nothing() -> None:
    data = np.zeros((2, 4, 6), np.float32)
    output = Output(data=data)
    for size, dtype in ((None, None), ((4, 6), None), (None, "float32"), ((4, 6), "float32")):
        assert resize_output(output, spec_of(Kind.DEPTH, data, "HW"), size, dtype)[0] is output


@given(
    shape=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    size=st.tuples(st.integers(1, 13), st.integers(1, 13)),
    axes=st.sampled_from(["HW", "HWC", "CHW"]),
    dtype=st.sampled_from(["uint8", "uint16", "int32", "int64", "bool"]),
)
@settings(deadline=None)
def test_ids_take_the_nearest_pixel(shape: tuple[int, int], size: tuple[int, int], axes: str, dtype: str) -> None:
    lengths = {"H": shape[0], "W": shape[1], "C": 2}
    data = np.random.default_rng(0).integers(0, 120, (1, *(lengths[axis] for axis in axes))).astype(dtype)
    result = resized(Kind.INDICES if dtype != "bool" else Kind.MASK, data, axes, size)
    moved, expected = (np.moveaxis(a[0], [axes.index("H"), axes.index("W")], [0, 1]) for a in (result, data))
    for y, x in np.ndindex(*size):
        # The source pixel that holds the centre of the new one, in exact integers.
        source = ((2 * y + 1) * shape[0] // (2 * size[0]), (2 * x + 1) * shape[1] // (2 * size[1]))
        np.testing.assert_array_equal(moved[y, x], expected[source])


@pytest.mark.parametrize("kind", [Kind.DEPTH, Kind.EDGES, Kind.LOGITS, Kind.PROBABILITIES, Kind.COLOR])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_shrinking_averages(kind: Kind, dtype: str) -> None:
    data = np.random.default_rng(0).random((2, 6, 8, 6)).astype(dtype)
    result = resized(kind, data, "HWC", (3, 2))
    expected = data.astype(np.float64).reshape(2, 3, 2, 2, 4, 6).mean((2, 4))
    np.testing.assert_allclose(result, expected, atol=1e-3 if dtype == "float16" else 1e-6)


def test_growing_interpolates_and_mixed_directions_work() -> None:
    ramp = np.tile(np.arange(4, dtype=np.float32), (1, 6, 1))
    grown = resized(Kind.DEPTH, ramp, "HW", (6, 8))
    np.testing.assert_allclose(grown[0, 0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])
    np.testing.assert_allclose(resized(Kind.DEPTH, ramp, "HW", (2, 8)), grown[:, :2])


def test_colour_bytes_are_rounded() -> None:
    data = np.array([[[10, 11], [10, 11]]], np.uint8)
    assert resized(Kind.COLOR, data, "HW", (1, 1)).tolist() == [[[10]]]
    assert resized(Kind.COLOR, data + 1, "HW", (1, 2)).tolist() == [[[11, 12]]]


def test_unknown_pixels_do_not_spread() -> None:
    data = np.full((1, 4, 6), 3.0, np.float32)
    data[0, :2, :2] = np.nan
    data[0, 0, 2] = np.inf
    assert resized(Kind.DEPTH, data, "HW", (2, 3)).tolist()[0][1] == [3, 3, 3]
    first = resized(Kind.DEPTH, data, "HW", (2, 3))[0, 0]
    assert np.isnan(first[0])
    assert first[1:].tolist() == [3, 3]
    marked = np.where(np.isfinite(data), data, -1).astype(np.float32)
    result = resized(Kind.DEPTH, marked, "HW", (2, 3), invalid_value=-1.0)
    assert result.tolist() == [[[-1, 3, 3], [3, 3, 3]]]
    assert np.isnan(resized(Kind.DEPTH, np.full((1, 3, 3), np.nan, np.float32), "HW", (2, 5))).all()


def test_integer_depth_is_not_averaged_with_holes() -> None:
    data = np.array([[[0, 4000], [4000, 4000]]], np.uint16)
    assert set(resized(Kind.DEPTH, data, "HW", (3, 3)).ravel().tolist()) <= {0, 4000}


def test_flow_is_scaled_with_the_picture() -> None:
    data = np.tile(np.array([4.0, -6.0], np.float32), (1, 10, 20, 1))
    np.testing.assert_allclose(resized(Kind.FLOW, data, "HWC", (5, 40), unit="px")[0, 0, 0], [8, -3])
    np.testing.assert_allclose(resized(Kind.FLOW, data, "HWC", (5, 40), unit="frame widths")[0, 0, 0], [4, -6])
    planar = np.ascontiguousarray(data.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(resized(Kind.FLOW, planar, "CHW", (5, 40))[0, :, 0, 0], [8, -3])


def test_normals_stay_unit_vectors() -> None:
    data = np.random.default_rng(0).normal(size=(1, 9, 12, 3))
    data /= np.linalg.norm(data, axis=-1, keepdims=True)
    data[0, :3, :4] = np.nan
    for size in ((3, 4), (20, 30)):
        result = resized(Kind.NORMALS, data.astype(np.float32), "HWC", size)[0]
        known = ~np.isnan(result).any(-1)
        assert known.mean() > 0.8
        np.testing.assert_allclose(np.linalg.norm(result[known], axis=-1), 1, atol=1e-5)
    opposite = np.array([[[[0, 0, 1], [0, 0, -1]]]], np.float32)
    assert np.isnan(resized(Kind.NORMALS, opposite, "HWC", (1, 1))).all()


def test_probabilities_still_sum_to_one() -> None:
    data = np.random.default_rng(0).random((1, 7, 11, 9), np.float32)
    data /= data.sum(1, keepdims=True)
    for size in ((3, 5), (20, 30)):
        np.testing.assert_allclose(resized(Kind.PROBABILITIES, data, "CHW", size).sum(1), 1, atol=1e-5)


def test_box_and_point_coordinates() -> None:
    columns = ("x1", "y1", "x2", "y2", "score")
    spec = OutputSpec(kind=Kind.BOXES, dtype="float32", shape=(None, 5), axes="KC", columns=columns)
    rows = [np.array([[10, 20, 30, 40, 0.5]], np.float32), np.zeros((0, 5), np.float32)]
    output, result = resize_output(Output(data=rows), spec, (50, 400), frame_size=(100, 200))
    assert result == spec
    assert output.frame(0).tolist() == [[20, 10, 60, 20, 0.5]]
    assert output.frame(1).shape == (0, 5)
    points = OutputSpec(kind=Kind.POINTS, dtype="float32", shape=(None, 3), axes="KC", columns=("x", "y", "size"))
    scaled, _ = resize_output(Output(data=[np.ones((1, 3), np.float32)]), points, (50, 400), frame_size=(100, 200))
    assert scaled.frame(0).tolist() == [[2, 0.5, 1]]
    with pytest.raises(UsageError, match="boxes can only be scaled when the size of the frames is known"):
        resized_spec(spec, (50, 400))


@pytest.mark.parametrize("kind", [Kind.EMBEDDING, Kind.TABLE])
def test_sizes_that_make_no_sense(kind: Kind) -> None:
    with pytest.raises(UsageError, match=f"output_size makes no sense for {kind}"):
        resized_spec(OutputSpec(kind=kind, dtype="float32", shape=(5,), axes="D"), (3, 4))
    with pytest.raises(UsageError, match=r"positive \(height, width\), got \[0, 4\]"):
        resized_spec(OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(5, 5), axes="HW"), (0, 4))


def cast(kind: Kind, data: NDArray[Any], dtype: str, **fields: Any) -> tuple[NDArray[Any], OutputSpec]:
    output, spec = resize_output(Output(data=data), spec_of(kind, data, "HW", **fields), None, dtype)
    result = np.asarray(output.data)
    assert result.dtype.name == spec.dtype == dtype
    return result, spec


def test_colours_keep_their_meaning() -> None:
    data = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    floats, spec = cast(Kind.COLOR, data, "float32", value_range=(0, 255))
    np.testing.assert_allclose(floats, data / 255, atol=1e-7)
    assert spec.value_range == (0, 1)
    np.testing.assert_array_equal(cast(Kind.COLOR, floats, "uint8")[0], data)
    np.testing.assert_array_equal(cast(Kind.COLOR, data, "uint16")[0], data.astype(int) * 257)
    wild = np.array([[[-0.5, 2.0, np.nan, 0.5]]], np.float32)
    assert cast(Kind.COLOR, wild, "uint8")[0].tolist() == [[[0, 255, 0, 128]]]


def test_plain_casts() -> None:
    depth = np.array([[[1.5, np.nan, np.inf]]], np.float32)
    np.testing.assert_array_equal(cast(Kind.DEPTH, depth, "float16")[0], depth.astype(np.float16))
    ids = np.array([[[0, 255]]], np.int64)
    assert cast(Kind.INDICES, ids, "uint8")[0].tolist() == [[[0, 255]]]
    edges = np.array([[[0, 1]]], np.uint8)
    assert cast(Kind.EDGES, edges, "float16")[0].tolist() == [[[0, 1]]]
    assert cast(Kind.EDGES, edges, "bool", value_range=(0, 1))[0].tolist() == [[[False, True]]]
    assert cast(Kind.MASK, edges.astype(bool), "uint8")[0].tolist() == [[[0, 1]]]


@pytest.mark.parametrize(
    ("kind", "data", "dtype"),
    [
        (Kind.INDICES, np.array([[[0, 256]]], np.int64), "uint8"),
        (Kind.INDICES, np.array([[[-1, 3]]], np.int32), "uint16"),
        (Kind.DEPTH, np.array([[[1, 1e6]]], np.float32), "float16"),
    ],
)
def test_values_that_do_not_fit(kind: Kind, data: NDArray[Any], dtype: str) -> None:
    with pytest.raises(ComputeError, match=f"do not fit output_dtype {dtype}"):
        cast(kind, data, dtype)


@pytest.mark.parametrize(
    ("kind", "source", "dtype", "message"),
    [
        (Kind.INDICES, "uint8", "float16", "would spoil ids"),
        (Kind.DEPTH, "float32", "uint16", "would cut the fractions of depth"),
        (Kind.EDGES, "float32", "bool", "would cut the fractions"),
        (Kind.EDGES, "uint8", "bool", "would lose values"),
        (Kind.DEPTH, "float32", "float17", "'float17' is no numpy dtype"),
        (Kind.DEPTH, "float32", "complex64", "makes no sense for depth"),
        (Kind.TEXT, "str", "float32", "makes no sense for text"),
    ],
)
def test_dtypes_that_make_no_sense(kind: Kind, source: str, dtype: str, message: str) -> None:
    spec = OutputSpec(kind=kind, dtype=source, shape=(2, 2), axes="HW")
    with pytest.raises(UsageError, match=message):
        resized_spec(spec, None, dtype)


def test_no_frames() -> None:
    data = np.zeros((0, 4, 6), np.float32)
    output, _ = resize_output(Output(data=data), spec_of(Kind.DEPTH, data, "HW"), (2, 3), "float16")
    array = np.asarray(output.data)
    assert (array.shape, array.dtype.name) == ((0, 2, 3), "float16")
