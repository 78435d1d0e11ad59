"""The pinhole camera and where it is.

Camera axes: X right, Y down, Z forward. World axes, metres: x east, y north, z up. Pixel (u, v) is column, row; its ray
is ((u - W/2) / fx, (v - H/2) / fy, 1), the convention of VRE's `normals/depth-svd`, so that normals computed from the
depth compare with the true ones without a shift.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

SENSOR_SIZE = (3840, 2160)  # width, height in pixels of the sensor that the diagonal field of view belongs to


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Where the camera is and where it looks.

    Attributes:
        x: East, metres.
        y: North, metres.
        z: Height above the lakes' surface, metres.
        yaw_degrees: Direction of view, counter-clockwise from east.
        pitch_degrees: Direction of view above the horizon; negative looks down.
        roll_degrees: Rotation about the direction of view; positive lowers the right side.
    """

    x: float
    y: float
    z: float
    yaw_degrees: float
    pitch_degrees: float
    roll_degrees: float = 0.0

    @property
    def position(self) -> NDArray[np.float64]:
        """Return the camera centre in world metres, (3,)."""
        return np.array([self.x, self.y, self.z])

    @property
    def camera_to_world(self) -> NDArray[np.float64]:
        """Return the rotation that takes camera vectors to world vectors, (3, 3)."""
        yaw, pitch, roll = (math.radians(a) for a in (self.yaw_degrees, self.pitch_degrees, self.roll_degrees))
        forward = np.array([math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw), math.sin(pitch)])
        level_right = np.array([math.sin(yaw), -math.cos(yaw), 0.0])
        level_down = np.cross(forward, level_right)
        right = math.cos(roll) * level_right + math.sin(roll) * level_down
        return np.stack([right, np.cross(forward, right), forward], axis=1)


class Camera:
    """Pinhole camera with a diagonal field of view.

    Args:
        width: Columns, pixels.
        height: Rows, pixels.
        fov_degrees: Field of view along the diagonal of a 3840x2160 sensor; the image is that sensor scaled to
            (width, height), so another aspect ratio stretches the picture rather than cropping it.

    Raises:
        ValueError: If a size is below 1 or the field of view is not between 0 and 180 degrees.
    """

    def __init__(self, width: int, height: int, fov_degrees: float = 75.0) -> None:
        if width < 1 or height < 1:
            raise ValueError(f"got {width = }, {height = }, expected at least 1 pixel each")
        if not 0 < fov_degrees < 180:
            raise ValueError(f"got {fov_degrees = }, expected more than 0 and less than 180")
        self.width, self.height, self.fov_degrees = width, height, fov_degrees
        sensor_width, sensor_height = SENSOR_SIZE
        focal = math.hypot(sensor_width / 2, sensor_height / 2) / math.tan(math.radians(fov_degrees) / 2)
        self.fx = width * focal / sensor_width
        self.fy = height * focal / sensor_height

    def rays(self, u: ArrayLike, v: ArrayLike) -> NDArray[np.float64]:
        """Return camera-frame rays (..., 3) with z = 1 through pixels (u, v): a point is `depth * ray`."""
        x = (np.asarray(u, np.float64) - self.width / 2) / self.fx
        y = (np.asarray(v, np.float64) - self.height / 2) / self.fy
        x, y = np.broadcast_arrays(x, y)
        return np.stack([x, y, np.ones_like(x)], axis=-1)

    def pixel_rays(self) -> NDArray[np.float64]:
        """Return the rays of all pixels, (H, W, 3)."""
        return self.rays(np.arange(self.width)[None, :], np.arange(self.height)[:, None])

    def project(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return pixels (..., 2) as (u, v) of camera-frame points (..., 3); NaN behind the camera."""
        points = np.asarray(points, np.float64)
        z = np.where(points[..., 2] > 1e-9, points[..., 2], np.nan)
        u = points[..., 0] / z * self.fx + self.width / 2
        v = points[..., 1] / z * self.fy + self.height / 2
        return np.stack([u, v], axis=-1)
