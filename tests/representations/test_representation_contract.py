"""What every registered representation type must do; a new type gets these tests by being registered."""

import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vrekit.core.frames import FrameBatch, Output
from vrekit.core.spec import Kind, OutputSpec
from vrekit.representations.base import Representation
from vrekit.representations.parameters import build, describe_parameters
from vrekit.representations.registry import REPRESENTATIONS

Dependencies = dict[str, tuple[OutputSpec, Output]]


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


@dataclass(frozen=True)
class Subject:
    instance: Representation
    batch: FrameBatch
    spec: OutputSpec
    dependencies: Mapping[str, Output]

    def compute(self, positions: list[int], instance: Representation | None = None) -> Output:
        batch = self.batch
        part = FrameBatch(
            frames=batch.frames[positions],
            indices=batch.indices[positions],
            pts_seconds=batch.pts_seconds[positions],
            neighbours=dict(zip(batch.indices.tolist(), batch.frames, strict=True)),
        )
        dependencies = {
            name: Output(
                data=np.asarray(output.data)[positions],
                valid=None if output.valid is None else output.valid[positions],
            )
            for name, output in self.dependencies.items()
        }
        return (instance or self.instance).compute(part, dependencies)


@pytest.fixture(params=sorted(REPRESENTATIONS))
def subject(request: pytest.FixtureRequest, tmp_path: Path, moving_batch: FrameBatch) -> Subject:
    assert request.param in CASES, f"add a case for the new type {request.param}"
    case = CASES[request.param]
    case.prepare(tmp_path)
    params = {
        key: value.replace("{folder}", str(tmp_path)) if isinstance(value, str) else value
        for key, value in case.params.items()
    }
    instance = build(REPRESENTATIONS.load(request.param), params, "subject")
    given = case.dependencies(moving_batch)
    spec = instance.output_spec(*moving_batch.frames.shape[1:3], {name: spec for name, (spec, _) in given.items()})
    return Subject(instance, moving_batch, spec, {name: output for name, (_, output) in given.items()})


def assert_same(left: Output, right: Output, left_at: int, right_at: int) -> None:
    assert left.is_valid(left_at) == right.is_valid(right_at)
    np.testing.assert_array_equal(left.frame(left_at), right.frame(right_at))


def test_output_is_what_the_spec_says(subject: Subject) -> None:
    output = subject.compute([0, 1, 2, 3, 4])
    assert len(output) == 5
    for position in range(5):
        array = output.frame(position)
        assert array.dtype.name == subject.spec.dtype
        assert array.ndim == len(subject.spec.shape)
        assert all(want in (None, got) for want, got in zip(subject.spec.shape, array.shape, strict=True))
        if subject.spec.value_range is not None:
            values: NDArray[Any] = array[np.isfinite(array)]
            assert values.min() >= subject.spec.value_range[0]
            assert values.max() <= subject.spec.value_range[1]
    assert OutputSpec.from_json(subject.spec.to_json()) == subject.spec


def test_values_do_not_depend_on_the_batch(subject: Subject) -> None:
    whole = subject.compute([0, 1, 2, 3, 4])
    for position in range(5):
        assert_same(whole, subject.compute([position]), position, 0)
    sparse = subject.compute([0, 3, 4])
    for at, position in enumerate([0, 3, 4]):
        assert_same(whole, sparse, position, at)


def test_threads_give_equal_values(subject: Subject) -> None:
    if not subject.instance.thread_safe:
        pytest.skip("declared not thread-safe")
    expected = subject.compute([0, 1, 2, 3, 4])
    positions = [p for _ in range(4) for p in range(5)]
    fresh = pickle.loads(pickle.dumps(subject.instance))  # so that first-use loading is raced for as well
    with ThreadPoolExecutor(4) as pool:
        for position, output in zip(positions, pool.map(lambda p: subject.compute([p], fresh), positions), strict=True):
            assert_same(expected, output, position, 0)


def test_pickled_copy_computes_the_same(subject: Subject) -> None:
    copy = pickle.loads(pickle.dumps(subject.instance))
    assert_same(subject.compute([2]), subject.compute([2], copy), 0, 0)


def test_pictures(subject: Subject) -> None:
    output = subject.compute([0, 1, 2, 3, 4])
    pictures = subject.instance.make_images(output, subject.spec)
    assert pictures.dtype == np.uint8
    assert pictures.shape[0] == 5
    assert pictures.shape[3:] == (3,)
    for position in range(5):
        alone = subject.instance.make_images(subject.compute([position]), subject.spec)
        np.testing.assert_array_equal(alone[0], pictures[position])


def test_parameters_are_described(subject: Subject) -> None:
    cls = type(subject.instance)
    for parameter in describe_parameters(cls):
        assert parameter.type != "Any"
        assert f"    {parameter.name}: " in (cls.__doc__ or ""), f"{parameter.name} is not documented"


def test_inputs_left_alone(subject: Subject) -> None:
    before = subject.batch.frames.copy()
    dependencies = {name: np.array(output.data) for name, output in subject.dependencies.items()}
    subject.compute([0, 1, 2, 3, 4])
    np.testing.assert_array_equal(subject.batch.frames, before)
    for name, data in dependencies.items():
        np.testing.assert_array_equal(np.asarray(subject.dependencies[name].data), data)
