"""Building a representation from config parameters: every mistake is found and named."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, get_type_hints

import numpy as np
import pytest

from vrekit.core.errors import ConfigError, UsageError
from vrekit.core.frames import FrameBatch, Output
from vrekit.core.spec import Kind, OutputSpec
from vrekit.representations.base import Representation
from vrekit.representations.edges.canny import Canny
from vrekit.representations.parameters import Parameter, build, describe_parameters
from vrekit.representations.registry import REPRESENTATIONS


class Mode(StrEnum):
    SLOW = "slow"
    FAST = "fast"


class Plain(Representation):
    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        return OutputSpec(kind=Kind.EDGES, dtype="uint8", shape=(height, width), axes="HW")

    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        return Output(data=np.zeros(batch.frames.shape[:3], np.uint8))


@dataclass
class Everything(Plain):
    size: tuple[int, int]
    ratio: float
    name: str = "x y"
    mode: Mode = Mode.SLOW
    level: Literal["low", "high"] | None = None
    angles: tuple[float, ...] = ()
    flags: "dict[str, bool] | None" = None

    def __post_init__(self) -> None:
        if self.ratio < 0:
            raise UsageError("ratio must not be negative", hint="take 0.5")


def test_yaml_values_become_python_values() -> None:
    built = build(
        Everything,
        {"size": [3, 4], "ratio": 2, "mode": "fast", "level": "high", "angles": [1, 2.5], "flags": {"a": True}},
        "thing",
    )
    assert built == Everything((3, 4), 2.0, mode=Mode.FAST, level="high", angles=(1.0, 2.5), flags={"a": True})
    assert isinstance(built.ratio, float)
    assert isinstance(built.size, tuple)
    assert isinstance(built.mode, Mode)
    assert build(Everything, {"size": (3, 4), "ratio": 0.5, "level": None}, "thing").size == (3, 4)


def test_every_mistake_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Everything, {"size": [3, "4"], "raito": 1.0, "mode": "medium", "angles": 5, "level": "mid"}, "thing")
    assert caught.value.mistakes == (
        "thing: parameter 'size[1]' must be list of 2 int, got [3, '4']",
        "thing: unknown parameter 'raito' (did you mean 'ratio'?)",
        "thing: parameter 'mode' must be slow | fast, got 'medium'",
        "thing: parameter 'angles' must be list of float, got 5",
        "thing: parameter 'level' must be low | high | null, got 'mid'",
        "thing: parameter 'ratio' (float) is missing",
    )
    assert caught.value.hint is not None
    assert "size (list of 2 int), ratio (float)" in caught.value.hint


@pytest.mark.parametrize(
    ("params", "wrong"),
    [
        ({"threshold1": "100"}, "threshold1"),
        ({"threshold1": True}, "threshold1"),
        ({"aperture_size": 3.0}, "aperture_size"),
        ({"aperture_size": None}, "aperture_size"),
        ({"l2_gradient": 1}, "l2_gradient"),
        ({"l2_gradient": "yes"}, "l2_gradient"),
    ],
)
def test_types_are_taken_literally(params: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"canny: parameter '{wrong}' must be"):
        build(Canny, params, "canny")


def test_what_the_type_itself_refuses() -> None:
    with pytest.raises(ConfigError, match="thing: ratio must not be negative") as caught:
        build(Everything, {"size": [1, 1], "ratio": -1}, "thing")
    assert caught.value.hint == "take 0.5"


def test_plain_constructors() -> None:
    class Old(Plain):
        def __init__(self, amount, *, scale: int = 2, **rest: Any) -> None:  # type: ignore[no-untyped-def] # on purpose
            self.amount, self.scale, self.rest = amount, scale, rest
            if amount == "bad":
                raise ValueError("amount is bad")

    built = build(Old, {"amount": [1], "extra": 5}, "old")
    assert (built.amount, built.scale, built.rest) == ([1], 2, {"extra": 5})
    with pytest.raises(ConfigError, match=r"'amount' \(Any\) is missing"):
        build(Old, {}, "old")
    with pytest.raises(ConfigError, match="old: amount is bad"):
        build(Old, {"amount": "bad"}, "old")
    assert build(Plain, {}, "plain").uses_frames
    with pytest.raises(ConfigError, match="unknown parameter 'x'"):
        build(Plain, {"x": 1}, "plain")


def test_types_pydantic_does_not_know() -> None:
    class Array(Plain):
        def __init__(self, kernel: np.ndarray[Any, Any]) -> None:
            self.kernel = kernel

    kernel = np.ones(3)
    assert build(Array, {"kernel": kernel}, "array").kernel is kernel
    with pytest.raises(ConfigError, match="'kernel' must be"):
        build(Array, {"kernel": [1, 2]}, "array")


def test_description() -> None:
    hints = get_type_hints(Canny, include_extras=True)
    assert describe_parameters(Canny) == (
        Parameter("threshold1", "float from -1000000 to 1000000", "100.0", hints["threshold1"]),
        Parameter("threshold2", "float from -1000000 to 1000000", "200.0", hints["threshold2"]),
        Parameter("aperture_size", "int from 3 to 7", "3", hints["aperture_size"]),
        Parameter("l2_gradient", "bool", "true", bool),
    )
    described = {parameter.name: (parameter.type, parameter.default) for parameter in describe_parameters(Everything)}
    assert described == {
        "size": ("list of 2 int", None),
        "ratio": ("float", None),
        "name": ("str", '"x y"'),
        "mode": ("slow | fast", "slow"),
        "level": ("low | high | null", "null"),
        "angles": ("list of float", "[]"),
        "flags": ("dict of str, bool | null", "null"),
    }


# The parameters of the configs shipped with upstream VRE.
UPSTREAM: dict[str, dict[str, Any]] = {
    "edges/canny": {"threshold1": 100, "threshold2": 200, "aperture_size": 3, "l2_gradient": True},
    "normals/svd": {
        "sensor_fov": 75,
        "sensor_size": [3840, 2160],
        "window_size": 11,
        "input_downsample_step": None,
        "stride": None,
    },
    "soft-segmentation/halftone": {
        "sample": 3,
        "scale": 1,
        "percentage": 91,
        "angles": [0, 15, 30, 45],
        "antialias": False,
        "resolution": [240, 426],
    },
    "soft-segmentation/generalized-boundaries": {
        "use_median_filtering": True,
        "adjust_to_rgb": True,
        "max_channels": 3,
    },
    "descriptor/sift": {
        "sigma": 1.6,
        "num_intervals": 3,
        "assumed_blur": 0.5,
        "image_border_width": 5,
        "max_keypoints": None,
        "process_scale": 1.0,
    },
}


@pytest.mark.parametrize("name", sorted(UPSTREAM))
def test_upstream_parameters_are_accepted(name: str) -> None:
    cls = REPRESENTATIONS.load(name)
    assert isinstance(build(cls, UPSTREAM[name], "upstream"), cls)
    assert {parameter.name for parameter in describe_parameters(cls)} == set(UPSTREAM[name])
