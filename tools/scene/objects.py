"""Houses and trees: where they stand, and where a camera's rays meet them in closed form.

A tree is one or two solids of revolution with x² + y² = a + b z + c z² (cones, ellipsoids, cylinders); a house is a box
under a gable roof, that is, the inside of six planes. Every object is tried against the rays of the rectangle it covers
in the image, all objects at once: P pairs of (object, pixel).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.scene.camera import Camera, Pose
from tools.scene.terrain import MAIN_ROAD_HALF_WIDTH, SIDE_ROAD_HALF_WIDTH, TILE_METERS, Terrain

Array = NDArray[np.float32]

VISIBLE_METERS = 1100.0  # objects farther than this are under two pixels and are left to the colour of the ground
FOREST_THRESHOLD = 0.75  # forest noise above this is woodland


@dataclass(frozen=True, slots=True)
class Hits:
    """Rays that met an object before they met anything else.

    Attributes:
        pixels: Flat pixel numbers, (M,).
        depth: z-depth, float64 (M,) metres.
        normals: Outward world normals, (M, 3).
        local: Hit point in the object's own axes (m above its foot in z), (M, 3), for textures.
        objects: Row of the object, (M,).
    """

    pixels: NDArray[np.int64]
    depth: NDArray[np.float64]
    normals: Array
    local: Array
    objects: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Solids:
    """Solids of revolution about vertical axes: radius² = a + b z + c z² for bottom <= z <= top above the foot.

    Attributes:
        foot: World position of the foot, (K, 3).
        quadric: a, b, c, (K, 3).
        bottom: Lowest z, (K,).
        top: Highest z, (K,).
        radius: Largest radius, (K,).
        color: RGB 0..1, (K, 3).
    """

    foot: Array
    quadric: Array
    bottom: Array
    top: Array
    radius: Array
    color: Array


@dataclass(frozen=True, slots=True)
class Houses:
    """Boxes with gable roofs whose ridge runs along the own y axis.

    Attributes:
        foot: World position of the middle of the floor, (K, 3).
        axes: Cosine and sine of the own x axis against east, (K, 2).
        half: Half widths along own x and y, (K, 2).
        ridge: Height of the ridge, (K,).
        slope: Fall of the roof per metre, (K,).
        wall_color: RGB 0..1, (K, 3).
        roof_color: RGB 0..1, (K, 3).
    """

    foot: Array
    axes: Array
    half: Array
    ridge: Array
    slope: Array
    wall_color: Array
    roof_color: Array


def build_houses(terrain: Terrain, rng: np.random.Generator) -> Houses:
    """Return villages along the main road and single farms along the side road."""
    spots = []
    for start, length in ((60.0, 200.0), (440.0, 190.0), (810.0, 150.0)):
        for along in np.arange(start, start + length, 21.0):
            for side in (-1.0, 1.0):
                x = along + rng.uniform(-3, 3)
                tangent = np.array([2.0, np.diff(terrain.main_road_y(x + np.array([-1.0, 1.0])))[0]])
                tangent /= np.linalg.norm(tangent)
                for row in range(rng.integers(1, 3)):
                    aside = side * (rng.uniform(14, 19) + 23 * row)
                    y = float(terrain.main_road_y(np.array(x)))
                    turn = np.arctan2(tangent[1], tangent[0]) + rng.choice([0, np.pi / 2]) + rng.normal(0, 0.05)
                    spots.append((x - aside * tangent[1], y + aside * tangent[0], turn))
    spots += [
        (190 + rng.choice([-1, 1]) * rng.uniform(80, 110), y, rng.uniform(0, 3)) for y in np.arange(-500, 500, 45.0)
    ]
    x, y, turn = np.array(spots).T
    half = np.stack([rng.uniform(3.4, 4.6, len(x)), rng.uniform(4.6, 6.8, len(x))], axis=-1)
    ground, slope_x, slope_y = terrain.ground(x, y)
    keep = (ground > 1.5) & (np.hypot(slope_x, slope_y) < 0.25)
    keep &= np.abs(terrain.main_road(x, y)) > MAIN_ROAD_HALF_WIDTH + 8
    keep &= np.abs(terrain.side_road(x, y)) > SIDE_ROAD_HALF_WIDTH + 8
    for index in range(1, len(x)):
        keep[index] &= not (keep[:index] & (np.hypot(x[:index] - x[index], y[:index] - y[index]) < 17)).any()
    x, y, turn, half, ground = x[keep], y[keep], turn[keep], half[keep], ground[keep]
    slope = rng.uniform(0.65, 0.95, len(x))
    walls = np.array(
        [[0.93, 0.90, 0.83], [0.96, 0.95, 0.93], [0.90, 0.80, 0.62], [0.82, 0.86, 0.88], [0.93, 0.84, 0.76]]
    )
    roofs = np.array(
        [[0.62, 0.25, 0.16], [0.55, 0.21, 0.15], [0.68, 0.34, 0.22], [0.36, 0.33, 0.34], [0.47, 0.27, 0.20]]
    )
    tone = rng.uniform(0.92, 1.06, (len(x), 1))
    return Houses(
        foot=np.stack([x, y, ground - 0.4], axis=-1).astype(np.float32),
        axes=np.stack([np.cos(turn), np.sin(turn)], axis=-1).astype(np.float32),
        half=half.astype(np.float32),
        ridge=(rng.choice([3.2, 3.6, 5.6], len(x)) + half[:, 0] * slope).astype(np.float32),
        slope=slope.astype(np.float32),
        wall_color=(walls[rng.integers(0, len(walls), len(x))] * tone).astype(np.float32),
        roof_color=(roofs[rng.integers(0, len(roofs), len(x))] * tone).astype(np.float32),
    )


def build_trees(terrain: Terrain, houses: Houses, rng: np.random.Generator) -> Solids:
    """Return woods where the forest noise is high, gardens around the houses, and trees along the main road."""
    side = int(TILE_METERS / 7.5)
    grid = (np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) + 0.5) * (
        TILE_METERS / side
    )
    wild = grid + rng.uniform(-3.2, 3.2, grid.shape)
    garden = np.repeat(houses.foot[:, :2], 3, axis=0) + rng.uniform(-17, 17, (3 * len(houses.foot), 2))
    along = np.arange(0, TILE_METERS, 17.0)
    avenue = np.stack([along, terrain.main_road_y(along) + np.where(np.arange(len(along)) % 2, 9.0, -9.0)], axis=-1)
    position = np.concatenate([wild, garden, avenue])
    x, y = position.T
    forest = terrain.cover(x[None].astype(np.float32), y[None].astype(np.float32))[0][0]
    ground, slope_x, slope_y = terrain.ground(x, y)
    wood = np.arange(len(x)) < len(wild)
    keep = (ground > 1.0) & (~wood | (forest > FOREST_THRESHOLD) | (rng.random(len(x)) < 0.012))
    keep &= np.abs(terrain.main_road(x, y)) > MAIN_ROAD_HALF_WIDTH + 3
    keep &= np.abs(terrain.side_road(x, y)) > SIDE_ROAD_HALF_WIDTH + 3
    for foot, half in zip(houses.foot, houses.half, strict=True):
        keep &= np.hypot(x - foot[0], y - foot[1]) > np.hypot(*half) + 2.2
    x, y, ground, forest, wood = x[keep], y[keep], ground[keep], forest[keep], wood[keep]
    sink = 0.3 + 1.2 * np.hypot(slope_x, slope_y)[keep]  # below the ground downhill too
    count = len(x)
    conifer = wood & (rng.random(count) < np.where(forest > 1.4, 0.8, 0.35))
    size = rng.uniform(0.75, 1.25, count) * np.where(wood, 1.0, 0.8)
    tone = rng.uniform(0.8, 1.2, (count, 1)) * np.array([1.0, 1.0, 1.0]) + rng.normal(0, 0.035, (count, 3))
    foot = np.stack([x, y, ground], axis=-1)

    def cone(which: NDArray[np.bool_], bottom: float, apex: float, radius: float) -> tuple[NDArray[np.float64], ...]:
        s = size[which]
        low, high, wide = bottom * s, apex * s, radius * s
        grade = (wide / (high - low)) ** 2
        quadric = np.stack([grade * high**2, -2 * grade * high, grade], axis=-1)
        return foot[which], quadric, low, high, wide, np.array([0.10, 0.24, 0.11]) * tone[which]

    leafy = ~conifer
    s = size[leafy]
    middle, wide = 4.6 * s, 2.7 * s
    tall = 3.0 * s
    round_ = (wide / tall) ** 2
    crown = np.stack([wide**2 - round_ * middle**2, 2 * round_ * middle, -round_], axis=-1)
    trunk = np.stack([(0.28 * s) ** 2, 0 * s, 0 * s], axis=-1)
    brown = np.array([0.27, 0.19, 0.12]) * tone[leafy]
    parts = [
        cone(conifer, 0.7, 6.6, 2.5),
        cone(conifer, 4.0, 10.0, 1.75),
        (foot[leafy], crown, middle - tall, middle + tall, wide, np.array([0.20, 0.36, 0.11]) * tone[leafy]),
        (foot[leafy], trunk, -sink[leafy], 2.4 * s, 0.28 * s, brown),
    ]
    columns = [np.concatenate(column).astype(np.float32) for column in zip(*parts, strict=True)]
    return Solids(*columns)


def solids_hits(solids: Solids, camera: Camera, pose: Pose, rays: Array, limit: Array) -> Hits:
    """Return the nearest meeting of every ray with the solids, where it comes before `limit`.

    Args:
        solids: K solids of one tile; they repeat with the world.
        camera: Image size and focal lengths.
        pose: Of the camera.
        rays: World directions of all pixels, (H * W, 3), camera z = 1.
        limit: Depth of what is known to be there already, (H * W,) metres; inf for nothing.
    """
    origin = pose.position
    which, shift = _near_copies(solids.foot, origin)
    center = (solids.foot[which] + shift - origin).astype(np.float32)  # feet relative to the camera
    low, high, wide = solids.bottom[which], solids.top[which], solids.radius[which]
    extent = np.stack([wide, wide], axis=-1)
    copy, pixel = _pairs(camera, pose, center, extent, low, high, limit)
    dx, dy, dz = np.ascontiguousarray(rays[pixel].T)
    cx, cy, cz = np.ascontiguousarray(center[copy].T)
    a, b, c = np.ascontiguousarray(solids.quadric[which[copy]].T)
    # start at the point of the ray beside the axis: float32 then keeps its digits
    flat = dx * dx + dy * dy
    t0 = (cx * dx + cy * dy) / flat
    ox, oy, oz = t0 * dx - cx, t0 * dy - cy, t0 * dz - cz
    qa = flat - c * dz * dz
    qb = ox * dx + oy * dy - (0.5 * b + c * oz) * dz
    qc = ox * ox + oy * oy - (a + oz * (b + c * oz))
    qa = np.where(np.abs(qa) < 1e-7, np.float32(1e-7), qa)
    inside = qb * qb - qa * qc
    root = np.sqrt(np.maximum(inside, 0))
    low, high = low[copy], high[copy]
    best = np.full(len(t0), np.inf, np.float32)
    for sign in (-1, 1):
        step = (sign * root - qb) / qa
        z = oz + step * dz
        best = np.where((inside > 0) & (z >= low) & (z <= high) & (t0 + step > 0), np.minimum(best, step), best)
    hit = np.flatnonzero(t0 + best < limit[pixel])
    winners = hit[_nearest(pixel[hit], (t0 + best)[hit], len(limit))]
    step = best[winners]
    x, y, z = (o[winners] + step * d[winners] for o, d in ((ox, dx), (oy, dy), (oz, dz)))
    outward = np.stack([x, y, -(0.5 * b[winners] + c[winners] * z)], axis=-1)
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
    return Hits(
        pixel[winners],
        t0[winners].astype(np.float64) + step,
        outward,
        np.stack([x, y, z], axis=-1),
        which[copy[winners]],
    )


def house_hits(houses: Houses, camera: Camera, pose: Pose, rays: Array, limit: Array) -> Hits:
    """Return the nearest meeting of every ray with the houses, where it comes before `limit`; see `solids_hits`."""
    origin = pose.position
    which, shift = _near_copies(houses.foot, origin)
    center = (houses.foot[which] + shift - origin).astype(np.float32)
    cosine, sine = np.abs(houses.axes[which]).T
    half_x, half_y = houses.half[which].T
    extent = np.stack([cosine * half_x + sine * half_y, sine * half_x + cosine * half_y], axis=-1)
    copy, pixel = _pairs(camera, pose, center, extent, np.zeros_like(half_x), houses.ridge[which], limit)
    house = which[copy]
    (c, s), (hx, hy) = houses.axes[house].T, houses.half[house].T
    ridge, slope = houses.ridge[house], houses.slope[house]
    world = rays[pixel]
    dx, dy, dz = c * world[:, 0] + s * world[:, 1], c * world[:, 1] - s * world[:, 0], world[:, 2]
    foot = -center[copy]
    ox, oy, oz = c * foot[:, 0] + s * foot[:, 1], c * foot[:, 1] - s * foot[:, 0], foot[:, 2]
    # planes n.p <= distance: four walls, two roof slopes
    normals = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (slope, 0, 1), (-slope, 0, 1))
    enter, leave = np.zeros(len(ox), np.float32), np.full(len(ox), np.inf, np.float32)
    plane = np.zeros(len(ox), np.int8)
    for number, ((nx, ny, nz), distance) in enumerate(zip(normals, (hx, hx, hy, hy, ridge, ridge), strict=True)):
        toward = nx * dx + ny * dy + nz * dz
        t = (distance - (nx * ox + ny * oy + nz * oz)) / np.where(toward == 0, np.float32(1e-12), toward)
        entering = (toward < 0) & (t > enter)
        enter = np.where(entering, t, enter)
        plane = np.where(entering, np.int8(number), plane)
        leave = np.where(toward > 0, np.minimum(leave, t), leave)
    hit = np.flatnonzero((enter < leave) & (enter > 0) & (enter < limit[pixel]))
    winners = hit[_nearest(pixel[hit], enter[hit], len(limit))]
    t, face, c, s, slope = enter[winners], plane[winners], c[winners], s[winners], slope[winners]
    roof_side = np.array([0, 0, 0, 0, 1, -1], np.float32)[face]
    own_x = np.array([1, -1, 0, 0, 0, 0], np.float32)[face] + roof_side * slope
    own_y = np.array([0, 0, 1, -1, 0, 0], np.float32)[face]
    outward = np.stack([c * own_x - s * own_y, s * own_x + c * own_y, face >= 4], axis=-1)
    outward = (outward / np.linalg.norm(outward, axis=-1, keepdims=True)).astype(np.float32)
    local = np.stack([o[winners] + t * d[winners] for o, d in ((ox, dx), (oy, dy), (oz, dz))], axis=-1)
    return Hits(pixel[winners], t.astype(np.float64), outward, local, house[winners])


def _near_copies(foot: Array, origin: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return rows and shifts (M, 3) of the copies of periodic objects within `VISIBLE_METERS`."""
    reach = int(np.ceil(VISIBLE_METERS / TILE_METERS)) + 1
    base = np.floor(origin[:2] / TILE_METERS)
    rows, shifts = [], []
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            shift = np.array([(base[0] + i) * TILE_METERS, (base[1] + j) * TILE_METERS, 0.0])
            distance = np.hypot(foot[:, 0] + (shift[0] - origin[0]), foot[:, 1] + (shift[1] - origin[1]))
            near = np.flatnonzero(distance < VISIBLE_METERS)
            rows.append(near)
            shifts.append(np.broadcast_to(shift, (len(near), 3)))
    return np.concatenate(rows), np.concatenate(shifts)


def _pairs(
    camera: Camera, pose: Pose, center: Array, extent: Array, low: Array, high: Array, limit: Array
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return P (object, pixel) pairs: each object with the pixels of the rectangle around its bounding box."""
    corners = np.stack(
        [
            center + np.stack([sx * extent[:, 0], sy * extent[:, 1], z], axis=-1)
            for sx in (-1, 1)
            for sy in (-1, 1)
            for z in (low, high)
        ]
    )
    seen = camera.project(corners @ pose.camera_to_world)
    ahead = np.flatnonzero(np.isfinite(seen).all(axis=(0, 2)))  # objects beside the camera plane are out of view anyway
    first = np.ceil(seen[:, ahead].min(axis=0)).clip(0, None)
    last = np.floor(seen[:, ahead].max(axis=0)).clip(None, [camera.width - 1, camera.height - 1])
    size = (last - first + 1).clip(0, None).astype(np.int64)
    count = size[:, 0] * size[:, 1]
    some = count > 0
    ahead, first, size, count = ahead[some], first[some].astype(np.int64), size[some], count[some]
    rank = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    columns = np.repeat(size[:, 0], count)
    row, column = rank // columns, rank % columns
    pixel = (np.repeat(first[:, 1], count) + row) * camera.width + np.repeat(first[:, 0], count) + column
    return np.repeat(ahead, count), pixel


def _nearest(pixel: NDArray[np.int64], depth: Array, pixels: int) -> NDArray[np.int64]:
    """Return the row of the smallest depth of each pixel that occurs, one row a pixel."""
    buffer = np.full(pixels, np.inf, np.float32)
    np.minimum.at(buffer, pixel, depth)
    rows = np.flatnonzero(depth == buffer[pixel])
    _, unique = np.unique(pixel[rows], return_index=True)
    return rows[unique]
