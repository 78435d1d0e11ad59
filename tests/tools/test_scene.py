from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tools.scene import CLASSES, COLOR_MAP, Camera, Pose, Scene, SceneFrame
from vrekit.core.frames import FrameBatch, Output
from vrekit.representations.normals.svd import NormalsSVD

SKY, WATER, RESIDENTIAL, FOREST = (CLASSES.index(name) for name in ("sky", "water", "residential", "forest"))
FPS = 25.0


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(seed=0, width=320, height=180)


@pytest.fixture(scope="module")
def frames(scene: Scene) -> list[SceneFrame]:
    return [scene.render(t) for t in (0.0, 1 / FPS, 3.0, 3.0 + 1 / FPS)]


def world_points(scene: Scene, frame: SceneFrame) -> NDArray[np.float64]:
    points = scene.camera.pixel_rays() * frame.depth_meters[..., None]
    return points @ frame.pose.camera_to_world.T + frame.pose.position


def interior(frame: SceneFrame, *, size: int = 3, degrees: float = 3.0) -> NDArray[np.bool_]:
    """Pixels whose whole window lies on one surface: finite depth, one class, normals that hardly turn."""
    kernel = np.ones((size, size), np.uint8)
    one_class = cv2.dilate(frame.classes, kernel) == cv2.erode(frame.classes, kernel)
    spread = np.zeros(frame.classes.shape)
    for axis in range(3):
        component = np.nan_to_num(frame.normals[..., axis], nan=9.0)
        spread += (cv2.dilate(component, kernel) - cv2.erode(component, kernel)) ** 2
    return np.asarray(one_class & (frame.classes != SKY) & (np.sqrt(spread) < np.radians(degrees)), bool)


def warp(image: NDArray[Any], pixels: NDArray[np.floating]) -> NDArray[Any]:
    """The image at fractional pixels (H, W, 2), zero outside."""
    column, row = np.ascontiguousarray(np.moveaxis(pixels, -1, 0), np.float32)
    return np.asarray(cv2.remap(image, column, row, cv2.INTER_LINEAR))


def angles(a: NDArray[np.float64], b: NDArray[np.float32]) -> NDArray[np.float64]:
    cosine = (a.astype(np.float64) * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def test_arrays_have_the_promised_form(scene: Scene, frames: list[SceneFrame]) -> None:
    for frame in frames:
        assert frame.rgb.shape == (180, 320, 3)
        assert frame.rgb.dtype == np.uint8
        assert frame.depth_meters.dtype == frame.normals.dtype == np.float32
        assert frame.classes.dtype == np.uint8
        sky = frame.classes == SKY
        np.testing.assert_array_equal(np.isnan(frame.depth_meters), sky)
        np.testing.assert_array_equal(np.isnan(frame.normals).any(axis=-1), sky)
        assert frame.depth_meters[~sky].min() > 5
        np.testing.assert_allclose(np.linalg.norm(frame.normals[~sky], axis=-1), 1, atol=1e-5)
        facing = (frame.normals * scene.camera.pixel_rays()).sum(axis=-1)
        assert (facing[~sky] >= -1e-6).all()


def test_the_flight_shows_every_class_and_the_picture_uses_its_range() -> None:
    small = Scene(seed=0, width=160, height=90)
    flight = [small.render(t) for t in np.linspace(0, 6, 5)]
    seen = np.mean([np.bincount(f.classes.ravel(), minlength=len(CLASSES)) / f.classes.size for f in flight], axis=0)
    assert (seen > 0.01).all(), dict(zip(CLASSES, seen, strict=True))
    assert len(COLOR_MAP) == len(CLASSES)
    for frame in flight:
        assert frame.rgb.min() < 50
        assert frame.rgb.max() > 220
        assert frame.rgb.std() > 30


def test_same_seed_same_pixels_other_seed_other_world(frames: list[SceneFrame]) -> None:
    again = Scene(seed=0, width=320, height=180).render(3.0)
    for name in ("rgb", "depth_meters", "normals", "classes"):
        np.testing.assert_array_equal(getattr(again, name), getattr(frames[2], name))
    other = Scene(seed=1, width=320, height=180).render(3.0)
    assert (other.classes != again.classes).mean() > 0.2


def test_water_is_the_plane_zero(scene: Scene, frames: list[SceneFrame]) -> None:
    for frame in frames:
        wet = frame.classes == WATER
        assert wet.sum() > 100
        np.testing.assert_allclose(world_points(scene, frame)[wet][:, 2], 0, atol=2e-3)
        down = frame.normals[wet] @ frame.pose.camera_to_world.T
        np.testing.assert_allclose(down, np.broadcast_to([0, 0, -1], down.shape), atol=1e-5)


def test_nothing_lies_before_the_depth(scene: Scene, frames: list[SceneFrame]) -> None:
    """March finely along some rays: the ground is not crossed before the depth says so."""
    frame = frames[2]
    ground = np.flatnonzero(np.isin(frame.classes, (SKY, RESIDENTIAL, FOREST), invert=True).ravel())
    rays = np.random.default_rng(0).choice(ground, 400, replace=False)
    depth = frame.depth_meters.ravel()[rays].astype(np.float64)
    direction = (scene.camera.pixel_rays() @ frame.pose.camera_to_world.T).reshape(-1, 3)[rays]
    along = depth[:, None] * np.linspace(0.02, 0.999, 1500)
    points = frame.pose.position + along[..., None] * direction[:, None]
    height = scene.terrain.ground(points[..., 0], points[..., 1])[0]
    free = (points[..., 2] > np.maximum(height, 0) - 1e-3).all(axis=1)
    assert free.mean() >= 0.995
    at = frame.pose.position + depth[:, None] * direction
    on_surface = at[:, 2] - np.maximum(scene.terrain.ground(at[:, 0], at[:, 1])[0], 0)
    np.testing.assert_allclose(on_surface, 0, atol=2e-3)


@pytest.mark.parametrize("label", ["land", "road", "water", "residential", "forest"])
def test_normals_are_those_of_the_depth(scene: Scene, frames: list[SceneFrame], label: str) -> None:
    errors = []
    for frame in frames:
        points = scene.camera.pixel_rays() * frame.depth_meters[..., None]
        across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
        differences = np.cross(across, down)
        inside = (interior(frame) & (frame.classes == CLASSES.index(label)))[1:-1, 1:-1]
        errors.append(angles(differences[inside], frame.normals[1:-1, 1:-1][inside]))
    error = np.concatenate(errors)
    assert len(error) > 200
    assert np.median(error) < 0.5


@pytest.mark.parametrize("window_size", [5, 11])
def test_svd_normals_of_the_depth_are_the_true_normals(
    scene: Scene, frames: list[SceneFrame], window_size: int
) -> None:
    depth = np.stack([frame.depth_meters for frame in frames])
    batch = FrameBatch(
        frames=np.stack([frame.rgb for frame in frames]),
        indices=np.arange(len(frames)),
        pts_seconds=np.array([frame.time_seconds for frame in frames]),
    )
    computed = NormalsSVD(sensor_fov=75.0, window_size=window_size).compute(batch, {"depth": Output(data=depth)})
    for position, frame in enumerate(frames):
        inside = interior(frame, size=window_size)
        assert inside.mean() > 0.1
        error = angles(np.asarray(computed.frame(position), np.float64)[inside], frame.normals[inside])
        assert np.median(error) < 0.5


def test_flow_along_the_optical_axis_is_radial(scene: Scene, frames: list[SceneFrame]) -> None:
    """Moving ahead by d takes pixel p to c + (p - c) * z / (z - d): known without any rotation."""
    frame = frames[0]
    pose, ahead = frame.pose, 1.5
    x, y, z = pose.position + ahead * pose.camera_to_world[:, 2]
    angles_only = {name: getattr(pose, name) for name in ("yaw_degrees", "pitch_degrees", "roll_degrees")}
    moved = scene.render_pose(Pose(x=x, y=y, z=z, **angles_only))
    flow, _ = scene.flow(frame, moved)
    u, v = np.meshgrid(np.arange(320) - 160.0, np.arange(180) - 90.0)
    depth = np.where(frame.classes == SKY, np.inf, frame.depth_meters).astype(np.float64)
    growth = np.where(np.isinf(depth), 0, ahead / (depth - ahead))
    np.testing.assert_allclose(flow, np.stack([u * growth, v * growth], axis=-1), atol=1e-3)


def test_flow_lands_on_the_same_point(scene: Scene, frames: list[SceneFrame]) -> None:
    for frame, following in ((frames[0], frames[1]), (frames[2], frames[3])):
        flow, visible = scene.flow(frame, following)
        assert flow.dtype == np.float32
        assert 0.9 < visible.mean() < 1
        start = np.stack(np.meshgrid(np.arange(320), np.arange(180)), axis=-1)
        column, row = np.moveaxis(np.rint(start + flow).astype(int), -1, 0)
        column, row = column.clip(0, 319), row.clip(0, 179)
        inside = visible & interior(frame, size=5) & interior(following)[row, column]
        assert (following.classes[row, column] == frame.classes)[inside].mean() > 0.99
        there = (world_points(scene, frame) - following.pose.position) @ following.pose.camera_to_world
        pixel_apart = np.abs(there[..., 2] / following.depth_meters[row, column] - 1)[inside]
        assert np.median(pixel_apart) < 0.005  # up to half a pixel lies between the two


def test_flow_explains_the_pictures(scene: Scene, frames: list[SceneFrame]) -> None:
    for frame in (frames[0], frames[2]):
        later = scene.render(frame.time_seconds + 0.4)
        flow, visible = scene.flow(frame, later)
        start = np.stack(np.meshgrid(np.arange(320), np.arange(180)), axis=-1)
        warped = warp(later.rgb, start + flow)
        change = np.abs(frame.rgb.astype(int) - later.rgb)[visible].mean()
        unexplained = np.abs(frame.rgb.astype(int) - warped)[visible].mean()
        assert unexplained < 0.25 * change


def test_flow_back_and_forth_cancels(scene: Scene, frames: list[SceneFrame]) -> None:
    forward, visible = scene.flow(frames[0], frames[1])
    backward, _ = scene.flow(frames[1], frames[0])
    start = np.stack(np.meshgrid(np.arange(320), np.arange(180)), axis=-1)
    returned = warp(backward, start + forward)
    inside = visible & interior(frames[0], size=5)
    assert np.median(np.linalg.norm(forward + returned, axis=-1)[inside]) < 0.02


def test_flow_to_itself_is_zero_and_all_visible(scene: Scene, frames: list[SceneFrame]) -> None:
    flow, visible = scene.flow(frames[0], frames[0])
    np.testing.assert_allclose(flow, 0, atol=1e-3)
    assert visible.all()


def test_what_is_hidden_agrees_with_a_finer_picture(scene: Scene, frames: list[SceneFrame]) -> None:
    """At four times the resolution, the other picture has a pixel within 1/8 pixel of every point looked for."""
    later = scene.render(3.6)
    flow, visible = scene.flow(frames[2], later)
    fine = Scene(seed=0, width=4 * 320, height=4 * 180).render(3.6)
    u, v = np.moveaxis(np.stack(np.meshgrid(np.arange(320), np.arange(180)), axis=-1) + flow, -1, 0)
    inside = (u >= 0) & (u <= 319) & (v >= 0) & (v <= 179) & (frames[2].classes != SKY)
    there = (world_points(scene, frames[2]) - later.pose.position) @ later.pose.camera_to_world
    seen = fine.depth_meters[np.rint(4 * v[inside]).astype(int), np.rint(4 * u[inside]).astype(int)]
    hidden = there[..., 2][inside] > 1.02 * seen
    assert 0.01 < hidden.mean() < 0.1
    agree = ~visible[inside] == hidden
    assert agree.mean() > 0.97
    row, column = np.rint(v[inside]).astype(int), np.rint(u[inside]).astype(int)
    assert agree[interior(later)[row, column]].mean() > 0.999  # `visible` may err by half a pixel at borders only


@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 3), (64, 64), (33, 90)])
def test_any_size_renders(width: int, height: int) -> None:
    scene = Scene(seed=3, width=width, height=height)
    frame = scene.render(100.0)
    assert frame.rgb.shape == (height, width, 3)
    flow, visible = scene.flow(frame, scene.render(100.04))
    assert flow.shape == (height, width, 2)
    assert visible.shape == (height, width)


def test_camera_projects_what_it_unprojects() -> None:
    camera = Camera(640, 360, 75.0)
    assert camera.fx == pytest.approx(640 / 3840 * np.hypot(1920, 1080) / np.tan(np.radians(37.5)))
    u, v = np.array([0.0, 320.0, 639.0]), np.array([0.0, 180.0, 359.0])
    points = camera.rays(u, v) * np.array([[3.0], [50.0], [800.0]])
    np.testing.assert_allclose(camera.project(points), np.stack([u, v], axis=-1), atol=1e-9)
    assert np.isnan(camera.project(-points)).all()


@pytest.mark.parametrize("bad", [{"width": 0}, {"height": -1}, {"fov_degrees": 180.0}, {"fov_degrees": 0.0}])
def test_impossible_cameras_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Camera(**({"width": 10, "height": 10} | bad))  # type: ignore[arg-type]  # one of them is a float on purpose
