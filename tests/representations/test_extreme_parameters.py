"""Every parameter of every type has a range: a value is refused with it, or a small computation ends."""

import contextlib
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrekit.core.errors import ComputeError, ConfigError, UsageError
from vrekit.core.frames import FrameBatch, Output
from vrekit.core.spec import Kind, OutputSpec
from vrekit.representations.base import Representation
from vrekit.representations.parameters import Parameter, build, describe_parameters
from vrekit.representations.registry import REPRESENTATIONS

SIDE = 32
SMALL = 1 << 20  # values of an output that is still computed here
REQUIRED: dict[str, dict[str, Any]] = {
    "external/files": {"path": "DATA/{frame}.npy", "kind": "depth"},
    "external/table": {"path": "DATA/t.csv", "time_column": "t"},
    "normals/svd": {"sensor_fov": 75.0},
}
DEPENDENCIES = {
    "color/hsv": OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=(SIDE, SIDE, 3), axes="HWC"),
    "normals/svd": OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(SIDE, SIDE), axes="HW", unit="m"),
}
CASES = [
    (name, parameter.name) for name in REPRESENTATIONS for parameter in describe_parameters(REPRESENTATIONS.load(name))
]
NUMBERS = st.one_of(
    st.sampled_from(
        [0, 1, -1, 2, 3, 5, 7, 9, 31, 255, 1000, 1001, 2**31 - 1, 2**31, 2**63, 10**21, -(2**31), -(10**21)]
    ),
    st.sampled_from([0.0, -0.0, 0.5, 1e-300, 1e-6, 1e30, 1e308, -1e308, math.inf, -math.inf, math.nan]),
    st.integers(),
    st.floats(),
)
VALUES: st.SearchStrategy[Any] = st.one_of(
    NUMBERS,
    st.lists(NUMBERS, max_size=4),
    st.sampled_from([None, True, "", "x" * 1000, "fast", "depth", "KC", {}, [[]], ["a", "a"]]),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for frame in range(2):
        np.save(folder / f"{frame}.npy", np.full((SIDE, SIDE), 1.5, np.float32))
    (folder / "t.csv").write_text("t,x\n0,1\n1,2\n")
    return folder


def _compute(name: str, instance: Representation) -> None:
    given_specs = {"it": DEPENDENCIES[name]} if name in DEPENDENCIES else {}
    spec = instance.output_spec(SIDE, SIDE, given_specs)
    before, after = instance.context
    assert before + after <= 2000
    if math.prod(side or 1 for side in spec.shape) > SMALL:
        return
    frames = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    batch = FrameBatch(frames=frames, indices=np.array([0]), pts_seconds=np.array([0.0]))
    inputs: Mapping[str, Output] = {
        key: Output(data=np.ones((1, SIDE, SIDE) + (3,) * (one.axes == "HWC"), one.dtype))
        for key, one in given_specs.items()
    }
    assert len(instance.compute(batch, inputs)) == 1


@pytest.mark.parametrize(("name", "parameter"), CASES)
@settings(max_examples=15, deadline=None)
@given(value=VALUES)
def test_a_value_is_refused_or_computed(data: Path, name: str, parameter: str, value: object) -> None:
    params = {
        key: text.replace("DATA", str(data)) if isinstance(text, str) else text
        for key, text in REQUIRED.get(name, {}).items()
    }
    with contextlib.suppress(UsageError, ComputeError):
        _compute(name, build(REPRESENTATIONS.load(name), {**params, parameter: value}, "it"))


def _numbers_without_range(annotation: Any) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return False
    return annotation in (int, float) or (origin is not typing.Literal and any(map(_numbers_without_range, arguments)))


@pytest.mark.parametrize("name", list(REPRESENTATIONS))
def test_every_number_has_a_range(name: str) -> None:
    parameters: tuple[Parameter, ...] = describe_parameters(REPRESENTATIONS.load(name))
    assert [one.name for one in parameters if _numbers_without_range(one.annotation)] == []


@pytest.mark.parametrize("delta", [2_000_000_000, -1001, 10**21])
def test_the_range_is_told(delta: int) -> None:
    with pytest.raises(ConfigError, match=rf"(?m)flow: parameter 'delta' must be int from -1000 to 1000, got {delta}$"):
        build(REPRESENTATIONS.load("flow/dis"), {"delta": delta}, "flow")


def test_window_points_outside_the_image_change_nothing() -> None:
    from vrekit.representations.normals.plane_fit import window_normals

    depth = np.random.default_rng(0).uniform(1, 2, (9, 12)).astype(np.float32)
    ray_x, ray_y = np.linspace(-1, 1, 12), np.linspace(-1, 1, 9)
    whole = window_normals(depth, ray_x, ray_y, 23, 1)  # the whole image from everywhere
    np.testing.assert_array_equal(window_normals(depth, ray_x, ray_y, 1001, 1), whole)
