"""The ground: a periodic heightfield with lakes and two roads, and where a ray meets it.

The world repeats every `TILE_METERS` in both directions, so a flight never runs out of it. Heights lie on a grid and
are bilinear inside its cells; water is the plane z = 0 wherever the ground is lower.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Floats = NDArray[Any]  # float32 or float64, as it comes in

TILE_METERS = 1024.0
GRID = 512
CELL_METERS = TILE_METERS / GRID
FAR_METERS = 4000.0  # depth at which the ground ends; haze has hidden it by then
MAIN_ROAD_HALF_WIDTH, SIDE_ROAD_HALF_WIDTH = 3.6, 2.4

_MIN_STEP = 0.01  # part of the distance a ray advances at least: hill tops thinner than this may be missed


def periodic_noise(
    rng: np.random.Generator, size: int, *, exponent: float, cycles: tuple[float, float]
) -> NDArray[np.float64]:
    """Return smooth noise (size, size) that repeats seamlessly, mean 0 and standard deviation 1.

    Args:
        rng: Source of randomness.
        size: Rows and columns.
        exponent: Amplitude falls with frequency to this power.
        cycles: Lowest and highest number of waves across the tile.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    frequency = np.hypot(np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size)[None])
    band = (frequency >= cycles[0]) & (frequency <= cycles[1])
    gain = np.where(band, np.maximum(frequency, 1.0) ** -exponent, 0.0)
    noise = np.fft.irfft2(spectrum * gain, s=(size, size))
    unit: NDArray[np.float64] = noise / noise.std()
    return unit


class Terrain:
    """Heights, roads and land cover as functions of world (x, y).

    Args:
        seed: Same seed, same world.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        self._road_phase = rng.uniform(0, 2 * np.pi, 4)
        centers = np.arange(GRID) * CELL_METERS
        x, y = np.meshgrid(centers, centers)

        height = 15 + 11 * periodic_noise(rng, GRID, exponent=1.9, cycles=(1, 10))
        for along, aside, depth, radius in ((330.0, 95.0, 34.0, 62.0), (720.0, -150.0, 30.0, 75.0)):
            lake_x, lake_y = along, self.main_road_y(np.array(along)) + aside
            distance = np.hypot(_wrap(x - lake_x), 1.3 * _wrap(y - lake_y))
            height -= depth * np.exp(-0.5 * (distance / radius) ** 2)
        gentle = _low_pass(height, cycles=7)
        for lateral, half_width in ((self.main_road(x, y), MAIN_ROAD_HALF_WIDTH), (self.side_road(x, y), 3.0)):
            # an embankment: flat across the road, never under water, blending into the land beside it
            blend = _smoothstep(half_width + 22, half_width + 2.5, np.abs(lateral))
            height += blend * (np.maximum(gentle, 2.5) - height)
        self._cells = _cell_coefficients(height)
        self._cruise = _low_pass(np.maximum(height, 0), cycles=3).astype(np.float32)
        self.max_height = float(height.max())
        surface = np.maximum(height, 0)
        steps = (np.diff(surface, axis=0, append=surface[:1]), np.diff(surface, axis=1, append=surface[:, :1]))
        self._max_slope = float(np.hypot(*steps).max()) / CELL_METERS * 1.05

        forest = periodic_noise(rng, GRID, exponent=1.2, cycles=(3, 24))
        farmland = periodic_noise(rng, GRID, exponent=1.6, cycles=(2, 8))
        tone = periodic_noise(rng, GRID, exponent=0.9, cycles=(4, 80))
        self._cover = np.stack([forest, farmland, tone], axis=-1).astype(np.float32)
        slope_y, slope_x = (np.roll(height, -1, axis) - np.roll(height, 1, axis) for axis in (0, 1))
        up = np.stack([-slope_x, -slope_y, np.full_like(height, 2 * CELL_METERS)], axis=-1)
        self._smooth_normals = (up / np.linalg.norm(up, axis=-1, keepdims=True)).astype(np.float32)

    def main_road_y(self, x: Floats) -> Floats:
        """Return the y of the main road's centre line at x, metres."""
        angle = x * (2 * np.pi / TILE_METERS)
        center: Floats = 60 * np.sin(angle + self._road_phase[0]) + 22 * np.sin(2 * angle + self._road_phase[1])
        return center

    def main_road(self, x: Floats, y: Floats) -> Floats:
        """Return the signed distance to the main road's centre line, metres (exact to first order)."""
        angle = x * (2 * np.pi / TILE_METERS)
        slope = 60 * np.cos(angle + self._road_phase[0]) + 44 * np.cos(2 * angle + self._road_phase[1])
        slope *= 2 * np.pi / TILE_METERS
        distance: Floats = _wrap(y - self.main_road_y(x)) / np.sqrt(1 + slope * slope)
        return distance

    def side_road(self, x: Floats, y: Floats) -> Floats:
        """Return the signed distance to the side road's centre line, metres (exact to first order)."""
        angle = y * (2 * np.pi / TILE_METERS)
        center = 190 + 45 * np.sin(angle + self._road_phase[2]) + 25 * np.sin(2 * angle + self._road_phase[3])
        slope = 45 * np.cos(angle + self._road_phase[2]) + 50 * np.cos(2 * angle + self._road_phase[3])
        slope *= 2 * np.pi / TILE_METERS
        distance: Floats = _wrap(x - center) / np.sqrt(1 + slope * slope)
        return distance

    def ground(self, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
        """Return height of the ground (lake beds included, metres) and its slopes along x and y."""
        dtype = np.result_type(x, np.float32)
        gx, gy = x * dtype.type(1 / CELL_METERS), y * dtype.type(1 / CELL_METERS)
        column, row = np.floor(gx), np.floor(gy)
        gx, gy = gx - column, gy - row
        index = (row.astype(np.int32) & (GRID - 1)) * GRID + (column.astype(np.int32) & (GRID - 1))
        c = np.take(self._cells, index, axis=0)
        slope_x = c[..., 1] + gy * c[..., 3]
        height = c[..., 0] + gx * slope_x + gy * c[..., 2]
        return height, slope_x * dtype.type(1 / CELL_METERS), (c[..., 2] + gx * c[..., 3]) * dtype.type(1 / CELL_METERS)

    def cruise_height(self, x: float, y: float) -> float:
        """Return the height of the land around (x, y), so smooth that a camera can follow it, metres."""
        here = (np.full((1, 1), value, np.float32) for value in (x, y))
        return float(sample(self._cruise, *here)[0, 0])

    def cover(self, x: Floats, y: Floats) -> tuple[Array, Array, Array]:
        """Return forest, farmland and tone noise (standard deviation 1) at (x, y), both (H, W)."""
        forest, farmland, tone = np.moveaxis(sample(self._cover, x, y), -1, 0)
        return forest, farmland, tone

    def smooth_normals(self, x: Floats, y: Floats) -> Array:
        """Return upward normals (H, W, 3) for shading, continuous across grid cells unlike the true ones."""
        return sample(self._smooth_normals, x, y)

    def intersect(self, origin: Array, direction: Array, start: Array) -> Array:
        """Return the ray parameter t where `origin + t * direction` first meets land or water; inf where it never does.

        Args:
            origin: World position of the camera, (3,) metres.
            direction: World directions, (M, 3); with camera z = 1 the result is the z-depth.
            start: Parameters (M,) up to which a ray is known to be free.

        The march takes the largest step that no slope in the world could cut, but at least one percent of the distance;
        the crossing is then closed in on by Illinois steps and two Newton steps in float64.
        """
        dx, dy, dz = (np.ascontiguousarray(direction[:, axis]) for axis in range(3))
        ox, oy, oz = (np.float32(value) for value in origin)
        horizontal = np.hypot(dx, dy)
        closing = np.maximum(self._max_slope * horizontal - dz, 1e-6)  # fastest rate at which the gap can shrink
        hit = np.full(len(dx), np.inf)
        # rays are free above the highest hill; from there on
        with np.errstate(divide="ignore"):
            enter = np.where((dz < 0) & (oz > self.max_height), (self.max_height - oz) / np.minimum(dz, -1e-9), 0)
        t = np.maximum(start, enter).astype(np.float32)
        alive = np.flatnonzero((t < FAR_METERS) & ((dz < 0) | (self._max_slope * horizontal > dz)))
        before = np.zeros(len(dx), np.float32)
        gap_before = np.full(len(dx), np.float32(oz))
        found, low, high, gap_low, gap_high = [], [], [], [], []
        while len(alive):
            now = t[alive]
            z = oz + now * dz[alive]
            gap = z - np.maximum(self.ground(ox + now * dx[alive], oy + now * dy[alive])[0], 0)
            inside = gap <= 0
            if inside.any():
                rays = alive[inside]
                found.append(rays)
                low.append(before[rays])
                high.append(now[inside])
                gap_low.append(gap_before[rays])
                gap_high.append(gap[inside])
            alive, now, gap, z = alive[~inside], now[~inside], gap[~inside], z[~inside]
            before[alive], gap_before[alive] = now, gap
            t[alive] = now + np.maximum(gap / closing[alive], _MIN_STEP * now + 0.05)
            alive = alive[(t[alive] < FAR_METERS) & ((dz[alive] < 0) | (z < self.max_height))]
        if found:
            rays = np.concatenate(found)
            brackets = tuple(np.concatenate(part) for part in (low, high, gap_low, gap_high))
            hit[rays] = self._refine(np.asarray(origin, np.float64), direction[rays], *brackets)
        return hit.astype(np.float32)

    def _refine(
        self, origin: NDArray[np.float64], direction: Array, low: Array, high: Array, gap_low: Array, gap_high: Array
    ) -> NDArray[np.float64]:
        dx, dy, dz = np.ascontiguousarray(direction.T)
        ox, oy, oz = origin.astype(np.float32)
        t = high
        for _ in range(2):
            t = low + (high - low) * (gap_low / np.maximum(gap_low - gap_high, 1e-9))
            gap = oz + t * dz - np.maximum(self.ground(ox + t * dx, oy + t * dy)[0], 0)
            above = gap > 0
            # Illinois: halve the gap kept at the end that stays, or that end would never move
            gap_high = np.where(above, gap_high * np.float32(0.5), gap)
            gap_low = np.where(above, gap, gap_low * np.float32(0.5))
            low, high = np.where(above, t, low), np.where(above, high, t)
        exact = t.astype(np.float64)
        dx, dy, dz = direction.T.astype(np.float64)
        for _ in range(2):
            height, slope_x, slope_y = self.ground(origin[0] + exact * dx, origin[1] + exact * dy)
            wet = height < 0
            rate = dz - np.where(wet, 0, slope_x * dx + slope_y * dy)
            gap64 = origin[2] + exact * dz - np.where(wet, 0, height)
            exact = np.clip(exact - gap64 / np.where(np.abs(rate) > 1e-4, rate, np.inf), low, high)
        # a few rays graze a crease, where Newton jumps to and fro: halve their brackets instead
        rest = np.flatnonzero(np.abs(self._gap(origin, direction, exact)) > 1e-3)
        left, right = low[rest].astype(np.float64), high[rest].astype(np.float64)
        for _ in range(30 if len(rest) else 0):
            middle = 0.5 * (left + right)
            above = self._gap(origin, direction[rest], middle) > 0
            left, right = np.where(above, middle, left), np.where(above, right, middle)
        exact[rest] = right
        return exact

    def _gap(self, origin: NDArray[np.float64], direction: Array, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far above land and water the rays are at `t`, metres."""
        x, y, z = (origin[axis] + t * direction[:, axis] for axis in range(3))
        gap: NDArray[np.float64] = z - np.maximum(self.ground(x, y)[0], 0)
        return gap


def sample(grid: Array | NDArray[np.uint8], x: Floats, y: Floats, *, tile_meters: float = TILE_METERS) -> Array:
    """Return a grid (n, n[, C]) that repeats every `tile_meters`, interpolated at world (x, y), both (H, W) float32."""
    per_tile, size = np.float32(1 / tile_meters), np.float32(grid.shape[0])
    column, row = x * per_tile, y * per_tile
    column, row = (column - np.floor(column)) * size, (row - np.floor(row)) * size
    return np.asarray(cv2.remap(grid, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32)


def _wrap(offset: Floats) -> Floats:
    tiles = np.rint(offset * np.float32(1 / TILE_METERS))
    wrapped: Floats = offset - tiles * np.float32(TILE_METERS)
    return wrapped


def _smoothstep(edge0: float, edge1: float, value: Floats) -> Floats:
    ramp = np.clip((value - edge0) / (edge1 - edge0), 0, 1)
    smooth: Floats = ramp * ramp * (3 - 2 * ramp)
    return smooth


def _low_pass(grid: NDArray[np.float64], *, cycles: float) -> NDArray[np.float64]:
    frequency = np.hypot(np.fft.fftfreq(GRID, 1 / GRID)[:, None], np.fft.rfftfreq(GRID, 1 / GRID)[None])
    return np.fft.irfft2(np.fft.rfft2(grid) * np.exp(-0.5 * (frequency / cycles) ** 2), s=grid.shape)


def _cell_coefficients(height: NDArray[np.float64]) -> Array:
    """Return (GRID * GRID, 4): a + b*fx + c*fy + d*fx*fy inside each cell, one gather a lookup."""
    right, up = np.roll(height, -1, axis=1), np.roll(height, -1, axis=0)
    diagonal = np.roll(right, -1, axis=0)
    cells = np.stack([height, right - height, up - height, diagonal - right - up + height], axis=-1)
    return cells.reshape(-1, 4).astype(np.float32)
