"""Smallest-variance direction of every window of a point image, from moments instead of a per-pixel SVD.

A window's normal is the eigenvector of the smallest eigenvalue of the covariance of its 3-D points. The covariance
follows from sums of x, y, z and their products over the window, and those are ten separable filters. The smallest
eigenvector of a symmetric 3x3 matrix has a closed form, evaluated for all pixels at once.

Legend: h rows, w columns.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_ROWS_PER_BLOCK = 24  # the working arrays of a block stay in the processor's cache; 16 to 48 are equally fast
_NO_PLANE = 1e-13  # breadth of a window over the sum of its squared distances: rounding is below, planes are above


class _Symmetric(NamedTuple):
    """The six different entries of a symmetric 3x3 matrix, each an (h, w) array."""

    xx: Floats
    xy: Floats
    xz: Floats
    yy: Floats
    yz: Floats
    zz: Floats


def window_normals(
    depth: NDArray[np.floating], ray_x: Floats, ray_y: Floats, window_size: int, stride: int
) -> NDArray[np.float32]:
    """Return the unit normal of the plane that fits each pixel's window best.

    Args:
        depth: (h, w) depths along z; pixels that are not finite or not positive are left out of every window.
        ray_x: (w,) x of the ray (x, y, 1) through each column.
        ray_y: (h,) y of the ray through each row.
        window_size: Points per window side, odd; windows are cut off at the image border.
        stride: Pixels between neighbouring points of a window.

    Returns:
        (h, w, 3) float32, pointing away from the camera (normal · ray >= 0); NaN where a window has fewer than three
        points or all of them lie on a line.
    """
    height, width = depth.shape
    reach = window_size // 2 * stride
    normals = np.empty((height, width, 3), np.float32)
    for first in range(0, height, _ROWS_PER_BLOCK):
        last = min(first + _ROWS_PER_BLOCK, height)
        above, below = max(0, first - reach), min(height, last + reach)
        moments = _window_moments(depth[above:below], ray_x, ray_y[above:below], window_size, stride)
        block = [moment[first - above : last - above] for moment in moments]
        normals[first:last] = _normals_from_moments(block, ray_x, ray_y[first:last, None])
    return normals


def _window_moments(
    depth: NDArray[np.floating], ray_x: Floats, ray_y: Floats, window_size: int, stride: int
) -> list[Floats]:
    """Return window sums of 1, x, y, z, xx, xy, xz, yy, yz, zz, each (h, w), with x = z ray_x and y = z ray_y."""
    z = depth.astype(np.float64)
    known = np.isfinite(z) & (z > 0)
    np.copyto(z, 0.0, where=~known)
    x, y = z * ray_x, z * ray_y[:, None]
    down, across = (_taps(side, window_size, stride) for side in z.shape)
    # Every window is summed afresh. cv2.boxFilter is no faster here, and its running sums (add what enters, subtract
    # what leaves) would carry the rounding error of one far point along the whole row.
    return [
        np.asarray(cv2.sepFilter2D(moment, cv2.CV_64F, across, down, borderType=cv2.BORDER_CONSTANT), np.float64)
        for moment in (known.astype(np.float64), x, y, z, x * x, x * y, x * z, y * y, y * z, z * z)
    ]


def _taps(side: int, window_size: int, stride: int) -> Floats:
    """Return the kernel of a window along one axis: 1 at its points, without those that always lie outside."""
    reach = min(window_size // 2, (side - 1) // stride)
    kernel = np.zeros(2 * reach * stride + 1)
    kernel[::stride] = 1
    return kernel


def _normals_from_moments(moments: list[Floats], ray_x: Floats, ray_y: Floats) -> NDArray[np.float32]:
    count, x, y, z, xx, xy, xz, yy, yz, zz = moments
    share = 1 / np.maximum(count, 1)
    mean_x, mean_y, mean_z = x * share, y * share, z * share
    covariance = _Symmetric(
        xx=xx - mean_x * x,
        xy=xy - mean_x * y,
        xz=xz - mean_x * z,
        yy=yy - mean_y * y,
        yz=yz - mean_y * z,
        zz=zz - mean_z * z,
    )
    (nx, ny, nz), breadth = _smallest_eigenvector(covariance)
    no_plane = (count < 3) | (breadth <= _NO_PLANE * (xx + yy + zz))
    scale = np.where(nx * ray_x + ny * ray_y + nz < 0, -1.0, 1.0)
    scale /= np.sqrt(nx * nx + ny * ny + nz * nz)
    scale[no_plane] = np.nan
    return np.stack((nx * scale, ny * scale, nz * scale), axis=-1, dtype=np.float32, casting="same_kind")


def _smallest_eigenvector(matrix: _Symmetric) -> tuple[tuple[Floats, Floats, Floats], Floats]:
    """Return the eigenvector of the smallest eigenvalue (any length above 0), and the breadth.

    The breadth is the sum of the products of two eigenvalues over the trace: about the middle eigenvalue, 0 for points
    on a line. Eigenvalues by the trigonometric solution of the characteristic cubic (Smith 1961), on the matrix divided
    by its trace. The columns of the adjugate of (matrix - eigenvalue) are parallel to the eigenvector; the one with the
    largest diagonal entry is the most accurate.
    """
    trace = matrix.xx + matrix.yy + matrix.zz
    scale = 1 / np.maximum(trace, np.finfo(np.float64).tiny)
    xx, xy, xz, yy, yz, zz = (entry * scale for entry in matrix)
    dx, dy, dz = xx - 1 / 3, yy - 1 / 3, zz - 1 / 3
    squares = xy * xy + xz * xz + yz * yz
    spread = np.sqrt((dx * dx + dy * dy + dz * dz + 2 * squares) / 6)
    determinant = dx * (dy * dz - yz * yz) - xy * (xy * dz - yz * xz) + xz * (xy * yz - dy * xz)
    cosine = determinant / np.maximum(2 * spread * spread * spread, np.finfo(np.float64).tiny)
    angle = np.arccos(np.clip(cosine, -1, 1)) / 3
    smallest = 1 / 3 + 2 * spread * np.cos(angle + 2 * np.pi / 3)
    pairs = (xx * yy - xy * xy) + (xx * zz - xz * xz) + (yy * zz - yz * yz)

    dx, dy, dz = xx - smallest, yy - smallest, zz - smallest
    minor_x, minor_y, minor_z = dy * dz - yz * yz, dx * dz - xz * xz, dx * dy - xy * xy
    minor_xy, minor_xz, minor_yz = xz * yz - xy * dz, xy * yz - xz * dy, xy * xz - yz * dx
    use_x = (minor_x >= minor_y) & (minor_x >= minor_z)
    use_y = ~use_x & (minor_y >= minor_z)
    vector = (
        np.where(use_x, minor_x, np.where(use_y, minor_xy, minor_xz)),
        np.where(use_x, minor_xy, np.where(use_y, minor_y, minor_yz)),
        np.where(use_x, minor_xz, np.where(use_y, minor_yz, minor_z)),
    )
    return vector, pairs * trace
