"""Colours: sun and sky light, fields, roads, water, walls and leaves. Nothing here changes the ground truth.

All colours are linear-ish RGB 0..1 float32; `finish` turns them into the 8-bit picture.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tools.scene.objects import Hits, Houses, Solids
from tools.scene.terrain import (
    MAIN_ROAD_HALF_WIDTH,
    SIDE_ROAD_HALF_WIDTH,
    TILE_METERS,
    Terrain,
    periodic_noise,
    sample,
)

Array = NDArray[np.float32]
Floats = NDArray[Any]  # float32 or float64, as it comes in

SUN = np.array([-0.45, 0.58, 0.68]) / np.linalg.norm([-0.45, 0.58, 0.68])
SUN_LIGHT = np.array([1.02, 0.93, 0.78], np.float32)
SKY_LIGHT = np.array([0.36, 0.43, 0.54], np.float32)
HORIZON = np.array([0.80, 0.87, 0.94], np.float32)
ZENITH = np.array([0.24, 0.47, 0.80], np.float32)
HAZE_METERS = 2600.0
_SHADOW_GRID = 2048  # half a metre
_DETAIL_METERS = 24.0  # the fine texture repeats after this
_CROPS = np.array(
    [
        [0.74, 0.66, 0.36],
        [0.44, 0.53, 0.22],
        [0.56, 0.60, 0.27],
        [0.53, 0.41, 0.27],
        [0.80, 0.74, 0.42],
        [0.36, 0.47, 0.20],
        [0.86, 0.79, 0.28],
        [0.60, 0.51, 0.33],
    ],
    np.float32,
)


class Painter:
    """Textures of one world and the light on it.

    Args:
        terrain: The ground.
        houses: They and the trees throw shadows on it.
        trees: See `houses`.
        seed: Same seed, same textures.
    """

    def __init__(self, terrain: Terrain, houses: Houses, trees: Solids, seed: int) -> None:
        rng = np.random.default_rng([seed, 3])
        self._terrain = terrain
        self._detail = periodic_noise(rng, 256, exponent=0.7, cycles=(3, 100)).astype(np.float32)
        self._clouds = periodic_noise(rng, 256, exponent=1.5, cycles=(2, 60)).astype(np.float32)
        self._sunlit = _sunlit_map(houses, trees)

    def ground(
        self,
        x: Array,
        y: Array,
        depth: Array,
        height: Array,
        cover: tuple[Array, Array, Array],
        wood: NDArray[np.bool_],
    ) -> Array:
        """Return the colour of dry land at world (x, y), all (H, W), as (H, W, 3).

        Args:
            x: East, metres.
            y: North, metres.
            depth: z-depth, metres; fine detail fades with it.
            height: Of the ground, metres.
            cover: Forest, farmland and tone noise.
            wood: Where the ground is a forest's floor.
        """
        _, farmland, tone = cover
        near = np.exp(depth * np.float32(-1 / 160))
        detail = sample(self._detail, x, y, tile_meters=_DETAIL_METERS) * near
        coarse = sample(self._detail, y, x, tile_meters=10 * _DETAIL_METERS)
        color = _rgb(0.38, 0.47, 0.20) + (0.035 * tone + 0.03 * coarse)[..., None] * _rgb(1.0, 0.55, 0.25)
        u, v = 0.906 * x + 0.423 * y, 0.906 * y - 0.423 * x
        u, v = u / 74 + 0.12 * np.sin(v / 90), v / 47
        column, row = np.floor(u), np.floor(v)
        crop = ((column * 5 + row * 3 + np.floor(7.3 * np.sin(column * 12.9 + row * 78.2))).astype(np.int32)) & 7
        furrows = 0.035 * np.sin(v * np.float32(2 * np.pi * 47 / 2.2)) * np.exp(depth * np.float32(-1 / 70))
        hedge = np.minimum(_edge_distance(u) * 74, _edge_distance(v) * 47) > 1.6
        field = (farmland > 0.1) & hedge & (height > 2.0)
        color = np.where(field[..., None], _CROPS[crop] + (furrows + 0.02 * tone)[..., None], color)
        sand = np.clip((1.1 - height) * np.float32(1.1), 0, 1)[..., None]
        color += sand * (_rgb(0.80, 0.72, 0.52) - color)
        color = np.where(wood[..., None], _rgb(0.17, 0.24, 0.10) + (0.02 * tone)[..., None], color)
        color *= (1 + 0.10 * detail)[..., None]
        normals = self._terrain.smooth_normals(x, y)
        return self._light(color, normals, sample(self._sunlit, x, y) * np.float32(1 / 255))

    def roads(self, color: Array, main: Array, side: Array, x: Array, y: Array, depth: Array) -> Array:
        """Return `color` of the ground (H, W, 3) with the roads on it; `main`, `side` are distances to centre lines."""
        main, side = np.abs(main), np.abs(side)
        shade = color.sum(axis=-1, keepdims=True) * np.float32(1 / 1.25)  # keeps the shadows that lie on the ground
        grain = 1 + 0.05 * sample(self._detail, x, y, tile_meters=9.0) * np.exp(depth * np.float32(-1 / 80))
        track = _rgb(0.66, 0.57, 0.42) * (0.92 + 0.10 * np.cos(side * 3.4))[..., None]
        on_side = (side < SIDE_ROAD_HALF_WIDTH)[..., None]
        asphalt = np.full((*main.shape, 3), 0.45, np.float32) * _rgb(1.0, 1.0, 1.03)
        # lines grow with distance so that they fade instead of flicker
        line = 0.11 + depth * np.float32(0.0007)
        dash = (main < line) & (np.mod(x, 9.0) < 4.5)
        edge = np.abs(main - (MAIN_ROAD_HALF_WIDTH - 0.45)) < line
        asphalt = np.where((dash | edge)[..., None], np.float32(0.88), asphalt)
        on_main = (main < MAIN_ROAD_HALF_WIDTH)[..., None]
        surface = np.where(on_main, asphalt, track) * grain[..., None] * np.clip(shade, 0.45, 1.25)
        return np.where(on_main | on_side, surface, color)

    def water(self, x: Array, y: Array, depth: Array, bed: Array, direction: Array) -> Array:
        """Return the colour of the lakes (H, W, 3).

        Args:
            x: East, metres.
            y: North, metres.
            depth: z-depth, metres.
            bed: Height of the lake bed, negative metres.
            direction: Unit world directions of the rays, (H, W, 3).
        """
        calm = np.exp(depth * np.float32(-1 / 250))
        ripple = sample(self._detail, x + 0.4 * y, y, tile_meters=16.0) + 0.7 * sample(
            self._detail, y, x, tile_meters=61.0
        )
        facing = np.clip(-direction[..., 2] + 0.035 * ripple * calm, 0.02, 1)
        mirror = (0.03 + 0.75 * (1 - facing) ** 4)[..., None]
        clear = np.exp(bed * np.float32(0.55))[..., None]
        body = _rgb(0.07, 0.23, 0.33) + clear * (_rgb(0.36, 0.50, 0.42) - _rgb(0.07, 0.23, 0.33))
        sky = HORIZON + np.sqrt(facing)[..., None] * (ZENITH - HORIZON)
        foam = (np.clip(bed + 0.28, 0, 0.2) * 1.2)[..., None]
        lit = 0.75 + 0.25 * sample(self._sunlit, x, y)[..., None] * np.float32(1 / 255)
        glitter = (0.012 * ripple * calm)[..., None]
        return np.asarray(body * lit + mirror * (sky - body) + foam + glitter, np.float32)

    def sky(self, direction: Array) -> Array:
        """Return the colour of the sky in unit world directions (H, W, 3): it is infinitely far, clouds included."""
        up = np.clip(direction[..., 2], 0, 1)
        color = HORIZON + (1 - np.exp(-4.5 * up))[..., None] * (ZENITH - HORIZON)
        glow = np.clip(direction @ SUN.astype(np.float32), 0, 1)[..., None]
        color = color + _rgb(0.25, 0.18, 0.08) * glow**8
        x, y = direction[..., 0] / (up + 0.12), direction[..., 1] / (up + 0.12)
        cloud = sample(self._clouds, x, y, tile_meters=6.0) + 0.35 * sample(self._clouds, y, x, tile_meters=1.7)
        cover = np.clip((cloud - 0.35) * 0.8, 0, 1)[..., None] * np.clip(up * 7, 0, 1)[..., None]
        return np.asarray(color + 0.85 * cover * (_rgb(0.98, 0.98, 0.99) - color), np.float32)

    def trees(self, trees: Solids, hits: Hits) -> Array:
        """Return colours (M, 3) of hits on trees."""
        x, y, z = hits.local.T
        phase = hits.objects.astype(np.float32)
        clumps = np.sin(3.1 * x + phase) * np.sin(2.7 * y + 1.7 * phase) + 0.6 * np.sin(4.3 * z + 5.1 * x) * np.sin(
            6.1 * y
        )
        fade = np.exp(hits.depth.astype(np.float32) * np.float32(-1 / 260))
        dusk = np.clip(0.62 + 0.45 * z / trees.top[hits.objects], 0.5, 1)  # less sky the deeper in the crown
        color = trees.color[hits.objects] * (dusk * (1 + 0.20 * clumps * fade))[..., None]
        return self._light(color * np.float32(1.15), hits.normals, np.float32(1))

    def houses(self, houses: Houses, hits: Hits) -> Array:
        """Return colours (M, 3) of hits on houses: plaster with windows, tiles."""
        x, y, z = hits.local.T
        rows = hits.objects
        half_x, half_y = houses.half[rows].T
        fade = np.exp(hits.depth.astype(np.float32) * np.float32(-1 / 200))
        roof = hits.normals[:, 2] > 0.1
        along = np.where(np.abs(np.abs(x) - half_x) < np.abs(np.abs(y) - half_y), y, x)
        eaves = houses.ridge[rows] - houses.slope[rows] * half_x
        floor = np.mod(z - 0.4, 2.7)
        window = (_edge_distance(along / 2.4) * 2.4 < 0.48) & (floor > 0.95) & (floor < 2.1)
        window &= z < eaves - 0.2
        wall = np.where(window[:, None], _rgb(0.24, 0.29, 0.36), houses.wall_color[rows])
        wall = wall * np.clip(0.8 + 0.2 * z, 0.8, 1)[:, None]  # a little dirt at the foot
        tiles = (
            houses.roof_color[rows] * (1 + 0.09 * np.sin(np.abs(x) * 13) * fade + 0.04 * np.sin(y * 21) * fade)[:, None]
        )
        return self._light(np.where(roof[:, None], tiles, wall).astype(np.float32), hits.normals, np.float32(1))

    def _light(self, color: Floats, normals: Array, sunlit: Array | np.float32) -> Array:
        sun = np.clip(normals @ SUN.astype(np.float32), 0, 1) * sunlit
        sky = 0.62 + 0.38 * normals[..., 2]
        light = sun[..., None] * SUN_LIGHT + sky[..., None] * SKY_LIGHT
        return np.asarray(color * light * np.float32(1.12), np.float32)


def haze(color: Array, distance: Array) -> Array:
    """Return colours (..., 3) seen through `distance` metres of air."""
    part = 1 - np.exp(-((distance * np.float32(1 / HAZE_METERS)) ** 1.3))
    return np.asarray(color + part[..., None] * (HORIZON - color), np.float32)


def finish(color: Array, borders: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the 8-bit picture of colours (H, W, 3): contrast, and `borders` between surfaces smoothed."""
    plain = np.clip(color, 0, 1)
    crisp = plain + 0.22 * plain * (1 - plain) * (2 * plain - 1)
    image = (crisp * 255 + 0.5).astype(np.uint8)
    return np.where(borders[..., None], cv2.GaussianBlur(image, (3, 3), 0.75), image)


def _rgb(red: float, green: float, blue: float) -> Array:
    return np.array([red, green, blue], np.float32)


def _edge_distance(value: Floats) -> Floats:
    distance: Floats = np.abs(value - np.rint(value))
    return distance


def _sunlit_map(houses: Houses, trees: Solids) -> NDArray[np.uint8]:
    """Return 255 where the sun reaches level ground and 0 in the shadows of houses and trees, periodic."""
    scale = _SHADOW_GRID / TILE_METERS
    pad = int(24 * scale)
    canvas = np.full((_SHADOW_GRID + 2 * pad, _SHADOW_GRID + 2 * pad), 255, np.uint8)
    away = (-SUN[:2] / SUN[2]).astype(np.float32)

    part = np.linspace(0, 1, 4, dtype=np.float32)
    z = trees.bottom[:, None] + part * (trees.top - trees.bottom)[:, None]
    a, b, c = (trees.quadric[:, [i]] for i in range(3))
    radius = np.sqrt(np.maximum(a + z * (b + c * z), 0))
    angle = np.linspace(0, 2 * np.pi, 9, dtype=np.float32)[:-1]
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    shapes = trees.foot[:, None, None, :2] + z[..., None, None] * away + radius[..., None, None] * circle
    outlines = list(shapes.reshape(len(z), -1, 2))

    eaves = houses.ridge - houses.slope * houses.half[:, 0]
    own = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0], [-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])
    own = np.concatenate([own, [[0, -1, 2], [0, 1, 2]]])
    heights = np.stack([np.zeros_like(eaves), eaves, houses.ridge], axis=-1)[:, own[:, 2]]
    x, y = houses.half[:, [0]] * own[:, 0], houses.half[:, [1]] * own[:, 1]
    cosine, sine = houses.axes[:, [0]], houses.axes[:, [1]]
    corners = np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=-1)
    outlines += list(houses.foot[:, None, :2] + corners + heights[..., None] * away)

    for outline in outlines:
        center = outline[0] - np.mod(outline[0], TILE_METERS)
        points = np.round(((outline - center) * scale + pad) * 16).astype(np.int32)
        cv2.fillConvexPoly(canvas, cv2.convexHull(points), 0, cv2.LINE_AA, 4)
    canvas[pad : 2 * pad] = np.minimum(canvas[pad : 2 * pad], canvas[-pad:])
    canvas[-2 * pad : -pad] = np.minimum(canvas[-2 * pad : -pad], canvas[:pad])
    canvas[:, pad : 2 * pad] = np.minimum(canvas[:, pad : 2 * pad], canvas[:, -pad:])
    canvas[:, -2 * pad : -pad] = np.minimum(canvas[:, -2 * pad : -pad], canvas[:, :pad])
    return np.asarray(cv2.GaussianBlur(canvas[pad:-pad, pad:-pad], (3, 3), 0.8), np.uint8)
