"""color/rgb, color/hsv, edges/canny, edges/sobel against independent computations."""

import colorsys
import itertools
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vrekit.core.errors import UsageError
from vrekit.core.frames import FrameBatch, Output
from vrekit.core.spec import Kind, OutputSpec
from vrekit.representations.color.hsv import HSV
from vrekit.representations.color.rgb import RGB
from vrekit.representations.edges.canny import Canny
from vrekit.representations.edges.sobel import Sobel

BatchMaker = Callable[..., FrameBatch]


def test_rgb_copies_nothing(moving_batch: FrameBatch) -> None:
    assert RGB().compute(moving_batch, {}).data is moving_batch.frames


@pytest.mark.parametrize("floating", [False, True])
def test_hsv_equals_colorsys(floating: bool, make_batch: BatchMaker) -> None:
    corners = list(itertools.product((0, 1, 127, 128, 254, 255), repeat=3))
    random = np.random.default_rng(0).integers(0, 256, (300, 3)).tolist()
    pixels = np.array(corners + random, np.uint8).reshape(1, 6, -1, 3)
    expected = [colorsys.rgb_to_hsv(*(rgb / 255)) for rgb in pixels.reshape(-1, 3).astype(float)]
    source = (pixels / 255).astype(np.float32) if floating else pixels
    result = np.asarray(HSV().compute(make_batch(pixels), {"rgb": Output(data=source)}).data)
    assert result.dtype == np.float32
    difference = np.abs(result.reshape(-1, 3).astype(np.float64) - np.array(expected))
    difference[:, 0] = np.minimum(difference[:, 0], 1 - difference[:, 0])  # hue is a circle
    assert difference.max() < (2e-5 if floating else 1e-6)


def test_hsv_takes_the_size_of_its_dependency_and_refuses_others() -> None:
    small = OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=(10, 20, 3), axes="HWC")
    assert HSV().output_spec(480, 640, {"rgb": small}).shape == (10, 20, 3)
    planar = OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=(3, 10, 20), axes="CHW")
    with pytest.raises(UsageError, match="'rgb' has axes CHW"):
        HSV().output_spec(480, 640, {"rgb": planar})


def test_canny_equals_opencv(moving_batch: FrameBatch) -> None:
    edges = np.asarray(Canny(80, 170, 5, l2_gradient=False).compute(moving_batch, {}).data, np.uint8)
    expected = [cv2.Canny(f, 80, 170, apertureSize=5, L2gradient=False) for f in moving_batch.frames]
    np.testing.assert_array_equal(edges * 255, expected)
    assert set(np.unique(edges)) == {0, 1}


def test_canny_finds_a_step_of_any_colour(make_batch: BatchMaker) -> None:
    frame = np.zeros((1, 20, 30, 3), np.uint8)
    frame[0, :, 15:, 2] = 200  # blue only
    edges = np.asarray(Canny().compute(make_batch(frame), {}).data)
    assert edges[0].sum(axis=1).tolist() == [1] * 20
    assert set(np.nonzero(edges[0])[1]) <= {14, 15}


@pytest.mark.parametrize("cls", [Canny, Sobel])
def test_aperture_is_checked(cls: type[Canny | Sobel]) -> None:
    with pytest.raises(UsageError, match="aperture_size must be 3, 5 or 7, got 4"):
        cls(aperture_size=4)


def _sobel_by_hand(gray: NDArray[np.float64]) -> NDArray[np.float64]:
    padded = np.pad(gray, 1, mode="reflect")
    result = np.zeros_like(gray)
    for y, x in np.ndindex(*gray.shape):
        window = padded[y : y + 3, x : x + 3]
        dx = window[:, 2] @ [1, 2, 1] - window[:, 0] @ [1, 2, 1]
        dy = window[2] @ [1, 2, 1] - window[0] @ [1, 2, 1]
        result[y, x] = np.hypot(dx, dy) / (4 * 255)
    return np.minimum(result, 1)


def test_sobel_by_hand(make_batch: BatchMaker) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (2, 9, 11, 3), np.uint8)
    result = np.asarray(Sobel().compute(make_batch(frames), {}).data)
    for frame, strength in zip(frames, result, strict=True):
        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float64)
        np.testing.assert_allclose(strength, _sobel_by_hand(gray), atol=1e-6)


@pytest.mark.parametrize("size", [3, 5, 7])
def test_sobel_of_a_full_step_is_one(size: int, make_batch: BatchMaker) -> None:
    frame = np.zeros((1, 20, 30, 3), np.uint8)
    frame[0, :, 15:] = 255
    strength = np.asarray(Sobel(size).compute(make_batch(frame), {}).data)[0]
    np.testing.assert_allclose(strength[:, 14:16], 1, atol=1e-6)
    assert strength[:, : 15 - size // 2].max() == 0
