"""normals/svd against a plain SVD per pixel, and against planes and spheres with known normals."""

import math
import re

import numpy as np
import pytest
from numpy.typing import NDArray

from vrekit.core.errors import UsageError
from vrekit.core.frames import FrameBatch, Output
from vrekit.core.spec import Kind, OutputSpec
from vrekit.representations.normals.svd import NormalsSVD
from vrekit.representations.parameters import build

Floats = NDArray[np.float64]


def compute(instance: NormalsSVD, depth: Floats) -> Floats:
    """Return the normals of one depth map."""
    batch = FrameBatch(frames=np.zeros((1, 0, 0, 3), np.uint8), indices=np.zeros(1, np.int64), pts_seconds=np.zeros(1))
    output = instance.compute(batch, {"depth": Output(data=depth.astype(np.float32)[None])})
    assert output.frame(0).dtype == np.float32
    return output.frame(0).astype(np.float64)


def rays(height: int, width: int, fov: float, sensor: tuple[int, int]) -> Floats:
    """Return the ray (x, y, 1) of each pixel, from the definition of a diagonal field of view."""
    distance = math.hypot(*sensor) / 2 / math.tan(math.radians(fov / 2))
    x = (np.arange(width) - width / 2) / width * sensor[0] / distance
    y = (np.arange(height) - height / 2) / height * sensor[1] / distance
    return np.dstack([*np.meshgrid(x, y), np.ones((height, width))])


def svd_by_hand(depth: Floats, ray: Floats, window: int, stride: int) -> Floats:
    """Return normals by one SVD per pixel; NaN where fewer than 3 points or only a line."""
    height, width = depth.shape
    points = ray * depth[..., None]
    offsets = (np.arange(window) - window // 2) * stride
    normals = np.full((height, width, 3), np.nan)
    for v, u in np.ndindex(height, width):
        inside = [
            points[y, x]
            for y in v + offsets
            for x in u + offsets
            if 0 <= y < height and 0 <= x < width and np.isfinite(depth[y, x]) and depth[y, x] > 0
        ]
        if len(inside) < 3:
            continue
        centred = np.array(inside) - np.mean(inside, axis=0)
        _, singular, directions = np.linalg.svd(centred, full_matrices=False)
        if singular[1] > 1e-5 * singular[0]:
            normals[v, u] = directions[2] * (1 if directions[2] @ ray[v, u] >= 0 else -1)
    return normals


def degrees_between(left: Floats, right: Floats) -> Floats:
    cross = np.linalg.norm(np.cross(left, right), axis=-1)
    return np.asarray(np.degrees(np.arctan2(cross, (left * right).sum(-1))))


@pytest.mark.parametrize(("window", "stride"), [(3, 1), (5, 1), (5, 2), (11, 1)])
def test_equals_one_svd_per_pixel(window: int, stride: int) -> None:
    random = np.random.default_rng(window)
    depth = (3 + random.random((33, 19))).astype(np.float32).astype(np.float64)  # rows: more than one block
    depth[4:9, 3:12] = np.nan
    depth[20, 5] = 0
    depth[21:30, 10] = np.inf
    depth[30:, :3] = -1
    sensor = (3840, 2160)
    normals = compute(NormalsSVD(75, sensor, window, stride), depth)
    expected = svd_by_hand(depth, rays(33, 19, 75, sensor), window, stride)
    np.testing.assert_array_equal(np.isnan(normals), np.isnan(expected))
    known = ~np.isnan(expected[..., 0])
    assert known.any()
    assert degrees_between(normals[known], expected[known]).max() < 0.01
    np.testing.assert_allclose(np.linalg.norm(normals[known], axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_plane(step: int) -> None:
    normal = np.array([0.3, -0.5, 0.8]) / np.linalg.norm([0.3, -0.5, 0.8])
    ray = rays(70, 101, 60, (101, 70))
    depth = 4 / (ray @ normal)
    normals = compute(NormalsSVD(60, window_size=7, input_downsample_step=step), depth)
    assert normals.shape == (-(-70 // step), -(-101 // step), 3)
    assert degrees_between(normals, np.broadcast_to(normal, normals.shape)).max() < 0.01


def test_sphere() -> None:
    ray = rays(120, 160, 50, (160, 120))
    centre, radius = np.array([0.1, -0.2, 6.0]), 2.0
    squared, along = (ray * ray).sum(-1), ray @ centre
    root = along**2 - squared * (centre @ centre - radius**2)
    depth = np.where(root > 0, (along - np.sqrt(np.maximum(root, 0))) / squared, np.nan)
    truth = (centre - ray * depth[..., None]) / radius  # away from the camera: into the sphere
    normals = compute(NormalsSVD(50, window_size=5), depth)
    middle = root > 1.5
    assert middle.sum() > 2000
    assert np.median(degrees_between(normals[middle], truth[middle])) < 0.1
    assert degrees_between(normals[middle], truth[middle]).max() < 1


def test_unknown_depth_stays_where_windows_lack_points() -> None:
    depth = np.full((40, 60), 2.0)
    depth[10:30, 20:40] = np.nan
    depth[5, 50] = 0
    normals = compute(NormalsSVD(70, window_size=5), depth)
    unknown = np.zeros((40, 60), bool)
    unknown[11:29, 21:39] = True  # their windows reach at most one row or one column of points: none, or a line
    unknown[[11, 11, 28, 28], [21, 38, 21, 38]] = False  # at the corners a row and a column meet, enough for a plane
    np.testing.assert_array_equal(np.isnan(normals[..., 0]), unknown)
    np.testing.assert_allclose(normals[~unknown], np.broadcast_to([0, 0, 1], normals[~unknown].shape), atol=1e-4)


def test_one_far_point_leaves_no_trace_outside_its_windows() -> None:
    depth = 1 + np.random.default_rng(3).random((60, 80)) / 100
    far = depth.copy()
    far[30, 20] = 1e8
    plain, disturbed = (compute(NormalsSVD(70, window_size=7), d) for d in (depth, far))
    touched = np.zeros((60, 80), bool)
    touched[27:34, 17:24] = True
    np.testing.assert_array_equal(plain[~touched], disturbed[~touched])


def test_depth_scale_does_not_matter_and_line_gives_nothing() -> None:
    depth = 1 + np.random.default_rng(3).random((20, 30))
    instance = NormalsSVD(70, window_size=5)
    np.testing.assert_allclose(compute(instance, depth * 4096), compute(instance, depth), atol=1e-5)
    assert np.isnan(compute(instance, np.full((1, 9), 2.0))).all()
    assert np.isnan(compute(instance, np.full((20, 30), np.nan))).all()


def test_validity_follows_the_depth_and_specs() -> None:
    batch = FrameBatch(frames=np.zeros((2, 0, 0, 3), np.uint8), indices=np.arange(2), pts_seconds=np.zeros(2))
    depth = Output(data=np.ones((2, 1, 8, 9), np.float32), valid=np.array([True, False]))
    output = NormalsSVD(70, window_size=3).compute(batch, {"d": depth})
    assert [output.is_valid(0), output.is_valid(1)] == [True, False]
    assert output.frame(0).shape == (8, 9, 3)
    spec = OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(8, 9, 1), axes="HWC")
    assert NormalsSVD(70, input_downsample_step=4).output_spec(540, 960, {"d": spec}).shape == (2, 3, 3)
    with pytest.raises(UsageError, match="one value a pixel, but 'd' has"):
        NormalsSVD(70).output_spec(
            540, 960, {"d": OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(8, 9, 2), axes="HWC")}
        )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"sensor_fov": 180}, "must be float from 0.01 to 179.99, got 180"),
        ({"sensor_fov": 70, "window_size": 4}, "must be odd, got 4"),
        ({"sensor_fov": 70, "stride": 0}, "'stride' must be int from 1 to 1000 | null, got 0"),
        (
            {"sensor_fov": 70, "sensor_size": [0, 3]},
            "'sensor_size[0]' must be list of 2 int from 1 to 1000000 | null, got [0, 3]",
        ),
    ],
)
def test_wrong_parameters(params: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        build(NormalsSVD, params, "normals")
