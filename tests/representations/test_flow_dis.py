"""flow/dis on a texture that moves by a known number of pixels."""

import numpy as np
import pytest

from vrekit.core.errors import UsageError
from vrekit.core.frames import FrameBatch
from vrekit.representations.flow.dis import DIS


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "medium"])
@pytest.mark.parametrize("delta", [1, -1, 2])
def test_known_shift(preset: str, delta: int, moving_batch: FrameBatch) -> None:
    flow = DIS(preset, delta).compute(moving_batch, {})  # type: ignore[arg-type] # a literal
    expected_valid = [0 <= at + delta < 5 for at in range(5)]
    assert [flow.is_valid(at) for at in range(5)] == expected_valid
    for at in range(5):
        if expected_valid[at]:
            inside = flow.frame(at)[10:-10, 10:-10].astype(np.float64)
            np.testing.assert_allclose(np.median(inside, axis=(0, 1)), [2 * delta, -1 * delta], atol=0.2)
        else:
            assert np.isnan(flow.frame(at)).all()


def test_neighbours_come_from_outside_the_batch(moving_batch: FrameBatch) -> None:
    whole = DIS("fast").compute(moving_batch, {})
    alone = FrameBatch(
        frames=moving_batch.frames[[4, 0]],
        indices=moving_batch.indices[[4, 0]],
        pts_seconds=moving_batch.pts_seconds[[4, 0]],
        neighbours={11: moving_batch.frames[1]},
    )
    flow = DIS("fast").compute(alone, {})
    assert [flow.is_valid(0), flow.is_valid(1)] == [False, True]
    np.testing.assert_array_equal(flow.frame(1), whole.frame(0))


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "medium"])
@pytest.mark.parametrize("shape", [(1, 1), (8, 200), (200, 8), (20, 960), (31, 33)])
def test_any_size(preset: str, shape: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8)
    batch = FrameBatch(frames=frames, indices=np.arange(2), pts_seconds=np.zeros(2))
    flow = DIS(preset).compute(batch, {})  # type: ignore[arg-type] # a literal
    assert flow.frame(0).shape == (*shape, 2)
    assert np.isfinite(flow.frame(0)).all()


def test_context_and_parameters() -> None:
    assert DIS(delta=3).context == (0, 3)
    assert DIS(delta=-2).context == (2, 0)
    with pytest.raises(UsageError, match="delta must not be 0"):
        DIS(delta=0)
    with pytest.raises(UsageError, match="preset must be one of ultrafast, fast, medium, got 'slow'"):
        DIS("slow")  # type: ignore[arg-type] # what a Python user may do
