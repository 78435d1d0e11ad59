"""Stated error bounds, for every code and every direction rather than for samples."""

import inspect

import numpy as np
import pytest

from tests.codecs.codec_samples import angles_within
from vrekit.codecs.presets import PRESETS
from vrekit.codecs.registry import codec_from_config
from vrekit.codecs.stages.gaplog import Gaplog
from vrekit.codecs.stages.octahedral import Octahedral
from vrekit.core.errors import CodecError, UsageError


@pytest.mark.parametrize("name", ["mm-delta", "mm-jxl"])
def test_millimetres_are_kept_to_half_a_millimetre_over_the_whole_range(name: str) -> None:
    codec = codec_from_config(name)
    depth = np.linspace(0, 65.5344, 1 << 18).reshape(512, 512)  # float64: four values a code, ends included
    decoded = codec.decode(codec.encode(depth), dtype=depth.dtype, shape=depth.shape)
    assert np.abs(decoded - depth).max() <= 0.0005 + 1e-12
    assert np.abs(decoded - depth).max() >= 0.00049, "the bound is not tight: the test looks at too few values"


def test_a_step_that_is_a_power_of_two_rounds_nothing_in_float32() -> None:
    codec = codec_from_config({"id": "mm-delta", "step": 1 / 1024})
    depth = np.linspace(0, 63.998, 1 << 20).astype(np.float32).reshape(1024, 1024)
    decoded = codec.decode(codec.encode(depth), dtype=depth.dtype, shape=depth.shape)
    error = np.abs(decoded.astype(np.float64) - depth)
    assert error.max() <= 1 / 2048  # not a bit more
    assert error.max() > 0.000487


def test_every_millimetre_survives_exactly() -> None:
    codec = codec_from_config("mm-delta")
    depth = (np.arange(65535) / 1000).astype(np.float32)[None]
    assert np.array_equal(codec.decode(codec.encode(depth), dtype=depth.dtype, shape=depth.shape), depth)


def test_every_step_of_flow_survives_exactly_in_both_encodings() -> None:
    steps = (np.arange(65535) - 32768).astype(np.float32) / 64
    flow = np.stack([steps, steps[::-1]], axis=-1)[None]
    for name in ("flow-delta", "flow-kitti"):
        codec = codec_from_config(name)
        assert np.array_equal(codec.decode(codec.encode(flow), dtype=flow.dtype, shape=flow.shape), flow)


@pytest.mark.parametrize(("levels", "max_gap"), [(100, 16.0), (253, 16.0), (1, 0.1), (63, 1000.0)])
@pytest.mark.parametrize("are_probabilities", [False, True])
def test_gaps_of_any_size_are_within_the_bound(levels: int, max_gap: float, are_probabilities: bool) -> None:
    """Two classes, a winner and a loser: dense from a tie to beyond the second level, then up to `max_gap`."""
    half_step = (1 + max_gap) ** (0.5 / levels) - 1
    first_level = (1 + max_gap) ** (1 / levels) - 1
    exact = np.concatenate([[0.0, 1.3e-6], np.linspace(0, 3 * half_step, 4096), np.geomspace(1e-9, max_gap, 4096)])
    exact = np.minimum(exact, max_gap if not are_probabilities else 600.0)  # exp(-gap) is to be a normal number
    scores = np.stack([np.zeros_like(exact), -exact])
    if are_probabilities:
        scores = np.exp(scores) / np.exp(scores).sum(axis=0)
        exact = np.log(scores[0] / scores[1])
    stage = Gaplog("probabilities" if are_probabilities else "logits", levels, max_gap)
    decoded = np.empty_like(scores)
    stage.decode(stage.encode(scores), decoded)
    assert (decoded.argmax(axis=0) == 0).all()
    found = np.log(decoded[0] / decoded[1]) if are_probabilities else decoded[0] - decoded[1]
    error, rounding = np.abs(found - exact), 1e-5 * (1 + exact)  # gaps and their logarithms are float32
    near = exact < half_step
    assert (error[near] <= first_level - exact[near] + rounding[near]).all()
    assert (error[~near] <= half_step * (1 + exact[~near]) + rounding[~near]).all()
    assert error[near].max() == pytest.approx(first_level, rel=1e-4), "the bound of near ties is not tight"


def test_the_stated_error_of_gaplog_has_near_ties_in_it() -> None:
    assert 100 * (17**0.005 - 1) <= 1.43
    assert 17**0.005 - 1 <= 0.0143
    assert 0.0287 < 17**0.01 - 1 <= 0.0288
    assert PRESETS["gaplog-jls"].error == "gap: 1.43% + 0.0143 nats; near ties 0.0288 nats"
    assert "0.0288" in (inspect.getdoc(Gaplog) or "")


@pytest.mark.parametrize(("bits", "degrees"), [(8, 0.98), (10, 0.25), (12, 0.062)])
@pytest.mark.parametrize("axis", [0, 2])
def test_octahedral_bound_holds_for_a_quarter_million_directions(bits: int, degrees: float, axis: int) -> None:
    rng = np.random.default_rng(7)
    normals = rng.normal(size=(512, 512, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    stage = Octahedral(bits=bits, axis=axis)
    array = np.ascontiguousarray(np.moveaxis(normals, 2, axis))
    out = np.empty_like(array)
    stage.decode(stage.encode(array), out)
    decoded = np.moveaxis(out, axis, 2)
    angles_within(degrees)(normals, decoded)
    with pytest.raises(AssertionError):
        angles_within(degrees * 0.8)(normals, decoded)  # the stated bound is no more than a quarter too large


def test_octahedral_keeps_every_code_that_it_can_write() -> None:
    stage = Octahedral(bits=8)
    u, v = np.meshgrid(np.arange(255), np.arange(255), indexing="ij")
    codes = np.stack([u, v]).astype(np.uint8)
    vectors = np.empty((255, 255, 3), np.float64)
    stage.decode(codes, vectors)
    again = np.empty_like(vectors)
    stage.decode(stage.encode(vectors), again)
    np.testing.assert_allclose(again, vectors, atol=1e-12)  # some directions on the fold have two codes


@pytest.mark.parametrize(
    ("name", "options", "value", "message"),
    [
        ("mm-delta", {}, -0.001, "outside"),
        ("mm-delta", {}, 65.536, "outside"),
        ("mm-delta", {}, np.inf, "outside"),
        ("u16-jxl", {"minimum": 0, "maximum": 1}, 1.001, "outside"),
        ("u8-jls", {"minimum": 0, "maximum": 1}, np.nan, "no code is reserved"),
        ("log-delta", {}, -1.0, "negative"),
        ("log-delta", {}, -np.inf, "negative"),
        ("log-delta", {"relative_error": 1e-4, "minimum": 1e-3}, 1e30, "beyond"),
        ("f16.npy", {}, 70000.0, "65504"),
        ("gaplog-jls", {}, np.inf, "inf"),
        ("gaplog-jls", {"scores": "probabilities"}, 2.0, "no probabilities"),
        ("gaplog-jls", {"scores": "probabilities"}, -0.5, "no probabilities"),
    ],
)
def test_values_outside_are_refused_with_a_hint(
    name: str, options: dict[str, float], value: float, message: str
) -> None:
    array = np.full((1, 3, 4), 1.0, np.float32)
    array[0, 1, 2] = value
    with pytest.raises(CodecError, match=message) as caught:
        codec_from_config({"id": name, **options}).encode(array)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["flow-delta", "flow-kitti", "mm-delta", "normals-delta"])
def test_values_that_overflow_when_scaled_are_refused_without_a_warning(name: str) -> None:
    array = np.zeros((3, 4, 2))
    array[1, 2, 1] = np.finfo(np.float64).max
    with pytest.raises(CodecError, match=r"values 0\.0\.\.1\.79\d+e\+308 are outside"):
        codec_from_config(name).encode(array)


def test_normals_that_are_no_unit_vectors_are_refused() -> None:
    normals = np.zeros((2, 2, 3), np.float32)
    normals[0, 0] = [0.5, 0, 0]
    with pytest.raises(CodecError, match=r"unit length.* 0\.5") as caught:
        codec_from_config("oct-delta").encode(normals)
    assert caught.value.hint


def test_flow_beyond_512_pixels_is_refused_and_a_half_missing_vector_is_missing() -> None:
    flow = np.zeros((2, 2, 2), np.float32)
    flow[0, 0, 0] = np.nan
    codec = codec_from_config("flow-kitti")
    decoded = codec.decode(codec.encode(flow), dtype=flow.dtype, shape=flow.shape)
    assert np.isnan(decoded[0, 0]).all()
    assert np.isfinite(decoded[1:]).all()
    flow[1, 1, 1] = 600
    for name in ("flow-kitti", "flow-delta"):
        with pytest.raises(CodecError, match="outside"):
            codec_from_config(name).encode(flow)


def test_float16_arrays_survive_lossless_codecs_bit_for_bit() -> None:
    """JPEG XL's lossless float16 is not lossless (libjxl issue 3844), so no codec of ours may use it."""
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(256, 256)
    for name in ("pco", "npy", "npy.zst"):
        codec = codec_from_config(name)
        assert codec.decode(codec.encode(halves), dtype=halves.dtype, shape=halves.shape).tobytes() == halves.tobytes()
    with pytest.raises(CodecError, match="uint8 or uint16"):
        codec_from_config("jxl").encode(halves)


def test_more_planes_than_an_image_is_high_stand_in_columns() -> None:
    planes = np.random.default_rng(0).integers(0, 200, (150, 500, 3), dtype=np.uint8)  # 75000 rows
    for name in ("jls", "jxl"):
        codec = codec_from_config({"stages": ["planes", name]})
        decoded = codec.decode(codec.encode(planes), dtype=planes.dtype, shape=planes.shape)
        assert np.array_equal(decoded, planes)
    with pytest.raises(CodecError, match="height 70000"):
        codec_from_config({"stages": ["planes", "jls"]}).encode(np.zeros((70000, 1), np.uint8))


@pytest.mark.parametrize("minimum", [1e-30, 1e-6, 1e-3, 1.0, 1e20])
@pytest.mark.parametrize("relative_error", [1e-4, 2e-4, 4e-4, 1e-2])
def test_log_keeps_its_relative_error_for_every_option(relative_error: float, minimum: float) -> None:
    codec = codec_from_config({"id": "log-delta", "relative_error": relative_error, "minimum": minimum})
    rng = np.random.default_rng(0)
    highest = min(np.log(minimum) + 65532 * 1.98 * np.log1p(relative_error), np.log(3e38))
    values = np.exp(rng.uniform(np.log(minimum), highest, (500, 500))).astype(np.float32)
    values = np.maximum(values, np.nextafter(np.float32(minimum), np.float32(np.inf)))
    decoded = codec.decode(codec.encode(values), dtype=values.dtype, shape=values.shape).astype(np.float64)
    error = np.abs(decoded - values) / values
    assert error.max() <= relative_error + np.finfo(np.float32).eps
    assert error.max() >= 0.98 * relative_error, "the bound is not tight: the test looks at too few values"


def test_a_range_far_from_zero_keeps_half_a_step() -> None:
    codec = codec_from_config({"id": "u16-delta", "minimum": 1e15, "maximum": 1e15 + 1})
    times = 1e15 + np.arange(9).reshape(3, 3) / 8  # float64 has steps of 1/8 there
    assert np.array_equal(codec.decode(codec.encode(times), dtype=times.dtype, shape=times.shape), times)


@pytest.mark.parametrize(
    "options",
    [
        {"id": "log-delta", "minimum": 5.0},
        {"id": "log-delta", "relative_error": 0.01, "minimum": 1.0},
        {"id": "log-jxl", "relative_error": 0.1},
        {"id": "u16-delta", "minimum": 0.0, "maximum": 70000.0, "bits": 5},
    ],
)
def test_no_finite_value_comes_back_infinite(options: dict[str, object]) -> None:
    values = np.arange(0x7B00, 0x7C00, dtype=np.uint16).view(np.float16).reshape(16, 16)  # 57344..65504, all of them
    codec = codec_from_config(options)
    assert np.isfinite(codec.decode(codec.encode(values), dtype=values.dtype, shape=values.shape)).all()


@pytest.mark.parametrize(
    "options",
    [
        {"id": "mm-delta", "step": 1e-320},
        {"id": "mm-delta", "step": 1e305},
        {"id": "mm-delta", "step": 10**400},
        {"id": "u16-delta", "minimum": -1e308, "maximum": 1e308},
        {"id": "u16-delta", "minimum": 0.0, "maximum": 1e-320},
    ],
)
def test_steps_that_floats_cannot_reckon_with_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"step|range"):
        codec_from_config(options)
