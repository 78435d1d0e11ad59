"""normals/svd: surface normals from a depth map, by fitting a plane to the 3-D points around each pixel."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vrekit.core.errors import ComputeError, UsageError
from vrekit.representations.base import FrameBatch, Kind, Output, OutputSpec, Representation
from vrekit.representations.normals.plane_fit import window_normals

_Side = Annotated[int, Field(ge=1, le=1_000_000)]


@dataclass
class NormalsSVD(Representation):
    """Unit normals of a depth map of any size: float32 (h, w, 3), -1..1.

    Axes are the camera's: x right, y down, z forward. Normals point away from the camera (normal · ray >= 0), as
    upstream VRE's do (which stores (n + 1) / 2). Depth that is NaN, infinite, zero or negative is no point; a pixel
    has a normal whenever its window holds three points that are not on one line, else NaN. The scale of the depth
    does not matter, an offset does.

    Args:
        sensor_fov: Diagonal field of view of the camera, degrees.
        sensor_size: (width, height) of the sensor, any unit; only the ratio counts. None takes the depth map's.
        window_size: Points per window side, odd. Larger is smoother.
        stride: Pixels between points of a window; None is 1.
        input_downsample_step: Take every n-th row and column of the depth map first; None is 1. The output has
            ceil(H / n) rows.
    """

    inputs: ClassVar[tuple[tuple[Kind, ...], ...] | None] = ((Kind.DEPTH,),)
    uses_frames: ClassVar[bool] = False

    sensor_fov: Annotated[float, Field(ge=0.01, le=179.99)]
    sensor_size: tuple[_Side, _Side] | None = None
    window_size: Annotated[int, Field(ge=3, le=1001)] = 11
    stride: Annotated[int, Field(ge=1, le=1000)] | None = None
    input_downsample_step: Annotated[int, Field(ge=1, le=1000)] | None = None

    def __post_init__(self) -> None:
        if self.window_size % 2 == 0:
            raise UsageError(f"window_size must be odd, got {self.window_size}")

    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        """Return a float32 map of the depth's size, divided by `input_downsample_step`.

        Raises:
            UsageError: If the dependency is not one value per pixel.
        """
        name, depth = next(iter(dependencies.items()))
        rows, columns = depth.size_of("H"), depth.size_of("W")
        if rows is None or columns is None or depth.size_of("C") not in (None, 1):
            raise UsageError(f"normals/svd needs a depth map with one value a pixel, but {name!r} has {depth.shape = }")
        step = self.input_downsample_step or 1
        return OutputSpec(
            kind=Kind.NORMALS,
            dtype="float32",
            shape=(-(-rows // step), -(-columns // step), 3),
            axes="HWC",
            value_range=(-1, 1),
            invalid_value="nan",
            description="unit normals, x right, y down, z forward, pointing away from the camera",
        )

    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        """Fit a plane to each window of each depth map; a frame without depth has no normals."""
        name, source = next(iter(dependencies.items()))
        maps = []
        for position in range(len(source)):
            depth = source.frame(position)
            if depth.ndim == 3:
                depth = depth[..., 0] if depth.shape[-1] == 1 else depth[0]
            if depth.ndim != 2:
                raise ComputeError(f"normals/svd: {name!r} gave {depth.shape = }, expected (H, W)")
            height, width = depth.shape
            step = self.input_downsample_step or 1
            ray_x, ray_y = self._rays(height, width)
            points = depth[::step, ::step].astype(np.float64)
            maps.append(window_normals(points, ray_x[::step], ray_y[::step], self.window_size, self.stride or 1))
        return Output(data=np.stack(maps), valid=source.valid)

    def _rays(self, height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return x of the ray (x, y, 1) through each column and y of the ray through each row, as VRE has them."""
        sensor_width, sensor_height = self.sensor_size or (width, height)
        distance = math.hypot(sensor_width / 2, sensor_height / 2) / math.tan(math.radians(self.sensor_fov) / 2)
        ray_x = (np.arange(width, dtype=np.float64) - width / 2) * float(sensor_width / (width * distance))
        ray_y = (np.arange(height, dtype=np.float64) - height / 2) * float(sensor_height / (height * distance))
        return ray_x, ray_y
