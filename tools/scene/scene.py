"""The scene: a flight through the world, one `SceneFrame` per moment, and the flow between two of them."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.scene.camera import Camera, Pose
from tools.scene.objects import FOREST_THRESHOLD, build_houses, build_trees, house_hits, solids_hits
from tools.scene.paint import Painter, finish, haze
from tools.scene.terrain import MAIN_ROAD_HALF_WIDTH, SIDE_ROAD_HALF_WIDTH, Terrain

Array = NDArray[np.float32]

CLASSES = ("land", "forest", "residential", "road", "water", "sky")
COLOR_MAP = ((166, 190, 96), (38, 110, 52), (214, 80, 60), (120, 120, 128), (52, 120, 200), (190, 224, 250))
LAND, FOREST, RESIDENTIAL, ROAD, WATER, SKY = range(6)

SPEED_METERS_PER_SECOND = 18.0
_BLOCK = 8  # every 8th ray in both directions is met first; it says where the rays around it may start


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneFrame:
    """One rendered moment with its ground truth.

    Attributes:
        time_seconds: When.
        pose: Where the camera was.
        rgb: The picture, uint8 (H, W, 3).
        depth_meters: z-depth along the optical axis, float32 (H, W); NaN in the sky.
        normals: Unit normals in the camera frame, float32 (H, W, 3), turned so that normal · ray >= 0 (away from the
            camera, as `normals/svd` gives them); NaN in the sky.
        classes: Numbers of `CLASSES`, uint8 (H, W). Houses are residential, trees and the ground of woods are forest.
    """

    time_seconds: float
    pose: Pose
    rgb: NDArray[np.uint8]
    depth_meters: NDArray[np.float32]
    normals: NDArray[np.float32]
    classes: NDArray[np.uint8]

    def __repr__(self) -> str:
        return f"SceneFrame({self.time_seconds:.3f} s, rgb={self.rgb.shape} {self.rgb.dtype}, {self.pose})"


class Scene:
    """A world made from a seed, and a drone's flight along its main road.

    Args:
        seed: Same seed, same world, flight and pixels.
        width: Columns of the picture.
        height: Rows of the picture.
        fov_degrees: Diagonal field of view, see `Camera`.

    Attributes:
        seed: As given.
        camera: Image size and focal lengths.
        terrain: Heights, roads and land cover as functions of (x, y).
    """

    def __init__(self, seed: int = 0, width: int = 640, height: int = 360, fov_degrees: float = 75.0) -> None:
        self.seed = seed
        self.camera = Camera(width, height, fov_degrees)
        self.terrain = Terrain(seed)
        rng = np.random.default_rng([seed, 2])
        self._houses = build_houses(self.terrain, rng)
        self._trees = build_trees(self.terrain, self._houses, rng)
        self._painter = Painter(self.terrain, self._houses, self._trees, seed)
        self._rays = self.camera.pixel_rays()
        rows, columns = (np.arange(-_BLOCK, size + 2 * _BLOCK, _BLOCK) for size in (height, width))
        self._block_rays = self.camera.rays(columns[None, :], rows[:, None])

    def pose(self, time_seconds: float) -> Pose:
        """Return where the camera is at a time; any time, the flight has no end."""

        def path(t: float) -> NDArray[np.float64]:
            x = 40 + SPEED_METERS_PER_SECOND * t
            y = 0.8 * float(self.terrain.main_road_y(np.array(x))) - 18 + 16 * math.sin(0.31 * t)
            return np.array([x, y])

        x, y = path(time_seconds).tolist()
        ahead = path(time_seconds + 2.5) - (x, y)
        turning = math.sin(0.31 * time_seconds + 0.6)
        return Pose(
            x=x,
            y=y,
            z=self.terrain.cruise_height(x, y) + 46 + 6 * math.sin(0.4 * time_seconds),
            yaw_degrees=math.degrees(math.atan2(ahead[1], ahead[0])) + 9 * math.sin(0.45 * time_seconds),
            pitch_degrees=-17 + 3 * math.sin(0.5 * time_seconds),
            roll_degrees=2.5 * turning,
        )

    def render(self, time_seconds: float) -> SceneFrame:
        """Return the frame at a time."""
        return self.render_pose(self.pose(time_seconds), time_seconds)

    def render_pose(self, pose: Pose, time_seconds: float = 0.0) -> SceneFrame:
        """Return what a camera at `pose` sees; it must be above the ground."""
        shape = (self.camera.height, self.camera.width)
        rotation = pose.camera_to_world
        directions = (self._rays @ rotation.T).astype(np.float32)
        flat = directions.reshape(-1, 3)
        origin = pose.position.astype(np.float32)

        land = self._ground_depth(pose, flat).reshape(shape)
        in_sky = np.isinf(land)
        t = np.where(in_sky, 0, land)
        # the world repeats: near its origin float32 positions keep their digits
        x, y = (origin[axis] + t * directions[..., axis] for axis in (0, 1))
        height, slope_x, slope_y = self.terrain.ground(x, y)
        classes, cover, main, side = self._classify(x, y, height)
        classes[in_sky] = SKY
        wet = classes == WATER
        normals = np.stack([-slope_x, -slope_y, np.ones_like(height)], axis=-1)
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        normals[wet] = (0, 0, 1)
        surface = classes.astype(np.int32)  # one number per surface, for smoothing borders

        length = np.linalg.norm(directions, axis=-1)
        unit = directions / length[..., None]
        color = self._painter.ground(x, y, t, height, cover, classes == FOREST)
        color = self._painter.roads(color, main, side, x, y, t)
        if wet.any():
            color = np.where(wet[..., None], self._painter.water(x, y, t, height, unit), color)

        depth = land.ravel().copy()
        houses = house_hits(self._houses, self.camera, pose, flat, depth)
        depth[houses.pixels] = houses.depth
        trees = solids_hits(self._trees, self.camera, pose, flat, depth)
        depth[trees.pixels] = trees.depth
        for hits, label, paint in (
            (houses, RESIDENTIAL, self._painter.houses(self._houses, houses)),
            (trees, FOREST, self._painter.trees(self._trees, trees)),
        ):
            classes.ravel()[hits.pixels] = label
            normals.reshape(-1, 3)[hits.pixels] = hits.normals
            color.reshape(-1, 3)[hits.pixels] = paint
            surface.ravel()[hits.pixels] = len(CLASSES) * (hits.objects + 1) + label
        depth = depth.reshape(shape)
        color = haze(color, np.where(in_sky, 0, depth) * length)
        sky = np.isinf(depth)
        if sky.any():
            rows = np.flatnonzero(sky.any(axis=1))
            part = slice(rows[0], rows[-1] + 1)
            color[part] = np.where(sky[part, :, None], self._painter.sky(unit[part]), color[part])

        in_camera = (normals @ rotation.astype(np.float32)).astype(np.float32)
        away = (in_camera * self._rays.astype(np.float32)).sum(axis=-1, keepdims=True) >= 0
        return SceneFrame(
            time_seconds=time_seconds,
            pose=pose,
            rgb=finish(color, _borders(surface)),
            depth_meters=np.where(sky, np.float32(np.nan), depth),
            normals=np.where(sky[..., None], np.float32(np.nan), np.where(away, in_camera, -in_camera)),
            classes=classes,
        )

    def flow(self, frame: SceneFrame, other: SceneFrame) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return where each pixel of `frame` went in `other`.

        The world stands still, so this is the reprojection of each pixel's point with the two poses; the sky is a
        point at infinity, moved by rotation alone.

        Args:
            frame: Where the pixels are taken.
            other: Where they are looked for; any other frame of this scene, usually the next.

        Returns:
            Flow (dx, dy) in pixels, float32 (H, W, 2), NaN where the point is behind the other camera; and bool (H, W),
            True where the point is inside the other picture and nothing hides it there. What hides it is looked up in
            the nearest pixel of the other picture, so along borders `visible` may err by half a pixel.
        """
        sky = np.isnan(frame.depth_meters)
        depth = np.where(sky, 1.0, frame.depth_meters).astype(np.float64)
        world = (self._rays * depth[..., None]) @ frame.pose.camera_to_world.T
        world += np.where(sky, 0.0, 1.0)[..., None] * (frame.pose.position - other.pose.position)
        there = world @ other.pose.camera_to_world
        pixel = self.camera.project(there)
        height, width = depth.shape
        u, v = np.nan_to_num(pixel[..., 0], nan=-1), np.nan_to_num(pixel[..., 1], nan=-1)
        visible = (u > -1e-6) & (u < width - 1 + 1e-6) & (v > -1e-6) & (v < height - 1 + 1e-6)
        column, row = (np.rint(u).clip(0, width - 1).astype(np.intp), np.rint(v).clip(0, height - 1).astype(np.intp))
        # what the other picture shows there: the nearest pixel's surface, continued as its tangent plane to (u, v)
        seen = other.depth_meters[row, column].astype(np.float64)
        tangent = other.normals[row, column].astype(np.float64)
        ray = self.camera.rays(u, v)
        facing = np.maximum((tangent * ray).sum(axis=-1), 1e-6)
        plane = seen * (tangent * self._rays[row, column]).sum(axis=-1) / facing
        plane = np.clip(plane, 0.9 * seen, 1.1 * seen)
        nothing = np.isnan(seen)
        visible &= np.where(sky, nothing, nothing | (there[..., 2] <= plane * 1.005 + 0.02))
        start = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
        return (pixel - start).astype(np.float32), visible

    def _ground_depth(self, pose: Pose, directions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the depth of land and water per pixel, (H * W,); inf in the sky."""
        coarse = (self._block_rays.reshape(-1, 3) @ pose.camera_to_world.T).astype(np.float32)
        origin = pose.position.astype(np.float32)
        first = self.terrain.intersect(origin, coarse, np.zeros(len(coarse), np.float32))
        # Looking at a heightfield, the surface only gets farther from row to row upwards. So the nearest of the block
        # rays around a pixel (by horizontal distance) bounds it from below, up to the slant that roll adds.
        reach = (first * np.hypot(coarse[:, 0], coarse[:, 1])).reshape(self._block_rays.shape[:2])
        nearest = cv2.erode(np.minimum(reach, np.float32(1e6)), np.ones((3, 3), np.uint8))
        camera = self.camera
        row = (np.arange(camera.height) // _BLOCK + 1)[:, None]
        column = (np.arange(camera.width) // _BLOCK + 1)[None, :]
        bound = np.minimum(nearest[row, column], nearest[row + 1, column + 1]).ravel()
        start = 0.97 * bound / np.maximum(np.hypot(directions[:, 0], directions[:, 1]), 1e-6)
        return self.terrain.intersect(origin, directions, start.astype(np.float32))

    def _classify(
        self, x: Array, y: Array, height: Array
    ) -> tuple[NDArray[np.uint8], tuple[Array, Array, Array], Array, Array]:
        """Return the class of the ground at (x, y), and what decided it: cover noise and distances to the roads."""
        cover = self.terrain.cover(x, y)
        main, side = self.terrain.main_road(x, y), self.terrain.side_road(x, y)
        on_main, on_side = np.abs(main) < MAIN_ROAD_HALF_WIDTH, np.abs(side) < SIDE_ROAD_HALF_WIDTH
        verge = np.minimum(np.abs(main) - MAIN_ROAD_HALF_WIDTH, np.abs(side) - SIDE_ROAD_HALF_WIDTH) < 2
        classes = np.zeros(x.shape, np.uint8)
        classes[(cover[0] > FOREST_THRESHOLD) & ~verge & (height > 1.0)] = FOREST
        classes[on_main | on_side] = ROAD
        classes[height < 0] = WATER
        return classes, cover, main, side


def _borders(surface: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return where a pixel's right or lower neighbour is another surface, on both sides of the border."""
    border = np.zeros(surface.shape, bool)
    across = surface[:, 1:] != surface[:, :-1]
    border[:, 1:] |= across
    border[:, :-1] |= across
    down = surface[1:] != surface[:-1]
    border[1:] |= down
    border[:-1] |= down
    return border
