"""descriptor/sift: what OpenCV finds, in our columns, order and coordinates."""

import re
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vrekit.core.errors import UsageError
from vrekit.core.frames import FrameBatch
from vrekit.representations.descriptor.sift import SIFT
from vrekit.representations.parameters import build

BatchMaker = Callable[..., FrameBatch]


def keypoints(instance: SIFT, batch: FrameBatch, position: int = 0) -> NDArray[np.float32]:
    return instance.compute(batch, {}).frame(position).astype(np.float32)


def test_equals_opencv_strongest_first(moving_batch: FrameBatch) -> None:
    rows = keypoints(SIFT(), moving_batch)
    points, descriptors = cv2.SIFT.create().detectAndCompute(
        cv2.cvtColor(moving_batch.frames[0], cv2.COLOR_RGB2GRAY),
        None,
    )
    assert len(rows) == len(points) > 10
    assert (np.diff(rows[:, 4]) <= 0).all()
    expected = {(*p.pt, p.size, p.angle, p.response): d for p, d in zip(points, descriptors, strict=True)}
    for row in rows.astype(np.float64):
        at = min(expected, key=lambda key: np.abs(np.array(key) - row[:5]).sum())
        np.testing.assert_allclose(row[:5], at, atol=1e-4)
        np.testing.assert_allclose(row[6:], expected[at], atol=1)


def test_moves_with_the_picture(make_batch: BatchMaker) -> None:
    frames = np.zeros((2, 80, 120, 3), np.uint8)
    cv2.circle(frames[0], (40, 30), 6, (255, 255, 255), -1)
    cv2.circle(frames[1], (70, 44), 6, (255, 255, 255), -1)
    batch = make_batch(frames)
    for position, centre in enumerate([(40, 30), (70, 44)]):
        x, y, size = keypoints(SIFT(), batch, position)[0, :3]
        assert (x, y) == pytest.approx(centre, abs=0.6)
        assert 6 < size < 24


@pytest.mark.parametrize("scale", [0.5, 0.75])
def test_process_scale_keeps_frame_coordinates(scale: float, make_batch: BatchMaker) -> None:
    frames = np.zeros((1, 161, 240, 3), np.uint8)
    cv2.circle(frames[0], (100, 70), 14, (255, 255, 255), -1)
    full = keypoints(SIFT(), make_batch(frames))[0]
    small = keypoints(SIFT(process_scale=scale), make_batch(frames))[0]
    np.testing.assert_allclose(small[:2], full[:2], atol=0.75)  # OpenCV is up to 0.25 pixels off, times 2
    assert small[2] == pytest.approx(full[2], rel=0.15)


def test_limits(moving_batch: FrameBatch) -> None:
    every = keypoints(SIFT(), moving_batch)
    np.testing.assert_array_equal(keypoints(SIFT(max_keypoints=7), moving_batch)[:, :6], every[:7, :6])
    inner = keypoints(SIFT(image_border_width=20), moving_batch)
    margin = 20 * 2.0 ** every[:, 5]
    x, y = every[:, 0], every[:, 1]
    kept = (x >= margin) & (x < 97 - margin) & (y >= margin) & (y < 71 - margin)
    assert 0 < kept.sum() < len(every)
    np.testing.assert_array_equal(inner[:, :6], every[kept, :6])


def test_empty_frame_has_no_rows(make_batch: BatchMaker) -> None:
    assert keypoints(SIFT(), make_batch(np.zeros((1, 40, 40, 3), np.uint8))).shape == (0, 134)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"assumed_blur": 0.7}, "'assumed_blur' must be float from 0 to 0.5, got 0.7"),
        ({"image_border_width": 2}, "must be int from 5 to 1000000, got 2"),
        ({"max_keypoints": 0}, "must be int from 1 to 1000000000 | null, got 0"),
        ({"process_scale": 1.5}, "must be float above 0 and at most 1, got 1.5"),
        ({"sigma": 0.0}, "must be float from 0.1 to 32, got 0.0"),
    ],
)
def test_wrong_parameters(params: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        build(SIFT, params, "sift")
