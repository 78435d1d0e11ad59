"""What every representation type must do: a plug-in's tests inherit it."""

import pickle
from abc import abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.core.frames import FrameBatch, Output
from vrekit.core.spec import OutputSpec
from vrekit.representations.base import Representation
from vrekit.representations.parameters import describe_parameters

Dependencies = Mapping[str, tuple[OutputSpec, Output]]


def moving_frames() -> NDArray[np.uint8]:
    """Return 5 frames (71, 97, 3) of a smooth random texture that moves 2 pixels right and 1 up per frame."""
    import cv2

    noise = np.random.default_rng(7).integers(0, 256, (120, 140, 3), np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), noise, 0, 255, cv2.NORM_MINMAX)
    frames = np.stack([texture[20 + t : 91 + t, 30 - 2 * t : 127 - 2 * t] for t in range(5)])
    return np.asarray(frames, np.uint8)


@dataclass(frozen=True)
class Subject:
    """A representation with frames, and with what it depends on."""

    instance: Representation
    batch: FrameBatch
    spec: OutputSpec
    dependencies: Mapping[str, Output]

    def compute(self, positions: list[int], instance: Representation | None = None) -> Output:
        """Return the output for some of the frames, as one batch."""
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


def assert_same(left: Output, right: Output, left_at: int, right_at: int) -> None:
    """Assert that two frames are equal, values and validity."""
    assert left.is_valid(left_at) == right.is_valid(right_at)
    np.testing.assert_array_equal(left.frame(left_at), right.frame(right_at))


class RepresentationContract:
    """Tests of one representation; pytest runs those of a subclass.

    Example:
        >>> class TestInvert(RepresentationContract):
        ...     def make_representation(self):
        ...         return Invert(strength=0.5)
    """

    @abstractmethod
    def make_representation(self) -> Representation:
        """Return the representation with some parameters."""

    def make_batch(self) -> FrameBatch:
        """Return 5 frames with numbers in a row; by default moving ones of 71x97, numbers 10 to 14."""
        indices = np.arange(10, 15, dtype=np.int64)
        return FrameBatch(frames=moving_frames(), indices=indices, pts_seconds=indices / 10)

    def make_dependencies(self, batch: FrameBatch) -> Dependencies:
        """Return spec and output, for these frames, of each representation that it depends on; by default none."""
        return {}

    def subject(self) -> Subject:
        """Return all of it together."""
        instance, batch = self.make_representation(), self.make_batch()
        given = self.make_dependencies(batch)
        height, width = batch.frames.shape[1:3]
        spec = instance.output_spec(height, width, {name: spec for name, (spec, _) in given.items()})
        return Subject(instance, batch, spec, {name: output for name, (_, output) in given.items()})

    def test_output_is_what_the_spec_says(self) -> None:
        subject = self.subject()
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

    def test_values_do_not_depend_on_the_batch(self) -> None:
        subject = self.subject()
        whole = subject.compute([0, 1, 2, 3, 4])
        for position in range(5):
            assert_same(whole, subject.compute([position]), position, 0)
        sparse = subject.compute([0, 3, 4])
        for at, position in enumerate([0, 3, 4]):
            assert_same(whole, sparse, position, at)

    def test_threads_give_equal_values(self) -> None:
        subject = self.subject()
        if not subject.instance.thread_safe:
            return
        expected = subject.compute([0, 1, 2, 3, 4])
        positions = [p for _ in range(4) for p in range(5)]
        fresh = pickle.loads(pickle.dumps(subject.instance))  # so that first-use loading is raced for as well
        with ThreadPoolExecutor(4) as pool:
            for position, output in zip(
                positions, pool.map(lambda p: subject.compute([p], fresh), positions), strict=True
            ):
                assert_same(expected, output, position, 0)

    def test_pickled_copy_computes_the_same(self) -> None:
        subject = self.subject()
        copy = pickle.loads(pickle.dumps(subject.instance))
        assert_same(subject.compute([2]), subject.compute([2], copy), 0, 0)

    def test_pictures(self) -> None:
        subject = self.subject()
        output = subject.compute([0, 1, 2, 3, 4])
        pictures = subject.instance.make_images(output, subject.spec)
        assert pictures.dtype == np.uint8
        assert pictures.shape[0] == 5
        assert pictures.shape[3:] == (3,)
        for position in range(5):
            alone = subject.instance.make_images(subject.compute([position]), subject.spec)
            np.testing.assert_array_equal(alone[0], pictures[position])

    def test_parameters_have_types(self) -> None:
        for parameter in describe_parameters(type(self.make_representation())):
            assert parameter.type != "Any", f"{parameter.name} has no annotation"

    def test_inputs_left_alone(self) -> None:
        subject = self.subject()
        before = subject.batch.frames.copy()
        dependencies = {name: np.array(output.data) for name, output in subject.dependencies.items()}
        subject.compute([0, 1, 2, 3, 4])
        np.testing.assert_array_equal(subject.batch.frames, before)
        for name, data in dependencies.items():
            np.testing.assert_array_equal(np.asarray(subject.dependencies[name].data), data)
