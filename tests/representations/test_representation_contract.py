"""What every registered representation type must do; a new type gets these tests by being registered."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrekit.core.frames import FrameBatch, Output
from vrekit.core.spec import Kind, OutputSpec
from vrekit.representations.base import Representation
from vrekit.representations.parameters import build, describe_parameters
from vrekit.representations.registry import REPRESENTATIONS
from vrekit.testing import RepresentationContract

Dependencies = Mapping[str, tuple[OutputSpec, Output]]


def _rgb(batch: FrameBatch) -> Dependencies:
    spec = OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=batch.frames.shape[1:], axes="HWC")
    return {"rgb": (spec, Output(data=batch.frames))}


def _depth(batch: FrameBatch) -> Dependencies:
    data = 1 + batch.frames.mean(-1, dtype=np.float32) / 64
    data[1, 3:30, 5:40] = np.nan
    spec = OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=data.shape[1:], axes="HW", unit="m")
    return {"depth": (spec, Output(data=data, valid=np.arange(len(data)) != 3))}


def _no_files(_: Path) -> None:
    pass


def _array_files(folder: Path) -> None:
    for frame in (10, 11, 13, 14):
        np.save(folder / f"{frame:06d}.npy", np.full((4, 6), frame, np.float32))


def _table_file(folder: Path) -> None:
    (folder / "imu.csv").write_text("t,speed,yaw\n" + "".join(f"{t / 7},{t * t},{-t}\n" for t in range(20) if t % 4))


@dataclass(frozen=True)
class Case:
    params: Mapping[str, Any] = field(default_factory=dict)
    dependencies: Callable[[FrameBatch], Dependencies] = lambda _: {}
    prepare: Callable[[Path], None] = _no_files


CASES = {
    "color/hsv": Case(dependencies=_rgb),
    "color/rgb": Case(),
    "descriptor/sift": Case({"max_keypoints": 20}),
    "edges/canny": Case(),
    "edges/sobel": Case({"aperture_size": 5}),
    "external/files": Case({"path": "{folder}", "kind": "depth", "missing": "invalid"}, prepare=_array_files),
    "external/table": Case(
        {"path": "{folder}/imu.csv", "time_column": "t", "align": "linear", "tolerance_seconds": 0.2},
        prepare=_table_file,
    ),
    "flow/dis": Case({"preset": "fast"}),
    "normals/svd": Case({"sensor_fov": 75, "window_size": 5}, dependencies=_depth),
    "soft-segmentation/generalized-boundaries": Case(),
    "soft-segmentation/halftone": Case({"resolution": [36, 48]}),
}


class TestRegistered(RepresentationContract):
    @pytest.fixture(autouse=True, params=sorted(REPRESENTATIONS))
    def choose(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        assert request.param in CASES, f"add a case for the new type {request.param}"
        self.case = CASES[request.param]
        self.case.prepare(tmp_path)
        params = {
            key: value.replace("{folder}", str(tmp_path)) if isinstance(value, str) else value
            for key, value in self.case.params.items()
        }
        self.instance: Representation = build(REPRESENTATIONS.load(request.param), params, "subject")

    def make_representation(self) -> Representation:
        return self.instance

    def make_dependencies(self, batch: FrameBatch) -> Dependencies:
        return self.case.dependencies(batch)

    def test_parameters_are_documented(self) -> None:
        kind = type(self.instance)
        for parameter in describe_parameters(kind):
            assert f"    {parameter.name}: " in (kind.__doc__ or ""), f"{parameter.name} is not documented"
