"""Arrays for every registered codec, and what must hold for each element that comes back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]

SIDES = ((0, 0), (0, 5), (5, 0), (1, 1), (1, 7), (7, 1), (3, 4), (13, 17))
IMAGES: tuple[Shape, ...] = SIDES
ANY: tuple[Shape, ...] = ((), (0,), (1,), (5,), *SIDES, (3, 0, 2), (2, 3, 5), (2, 1, 3, 5))
RGB: tuple[Shape, ...] = tuple((*side, 3) for side in SIDES)
FLOW: tuple[Shape, ...] = tuple((*side, 2) for side in SIDES)
SCORES: tuple[Shape, ...] = ((1,), (4,), *((classes, *side) for classes in (1, 2, 5) for side in SIDES))
FLOATS = ("float16", "float32", "float64")
INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")


@dataclass(frozen=True)
class Case:
    """What a codec takes and what it promises."""

    shapes: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    make: Callable[[np.random.Generator, Shape, np.dtype[Any]], Array]
    check: Callable[[Array, Array], None]
    options: Mapping[str, Any] = field(default_factory=dict)


def bits(rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Random bits: for floats with NaN, infinities, -0 and subnormals."""
    if dtype == np.bool_:
        return np.asarray(rng.random(shape) > 0.5)
    count = int(np.prod(shape)) * dtype.itemsize
    array = np.frombuffer(rng.bytes(count), np.uint8).view(dtype).reshape(shape).copy()
    if dtype.kind == "f" and array.size > 3:
        array.reshape(-1)[:4] = [np.nan, np.inf, -np.inf, -0.0]
    return array


def smooth(low: float, high: float, nan: float = 0.0) -> Callable[[np.random.Generator, Shape, np.dtype[Any]], Array]:
    """Values over low..high, both ends included, a part of them NaN."""

    def make(rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> Array:
        values = np.asarray(rng.uniform(low, high, shape))
        if values.size > 1:
            values.reshape(-1)[:2] = [low, high]
        values = np.where(rng.random(shape) < nan, np.nan, values)
        with np.errstate(over="ignore"):
            return np.asarray(np.clip(values, low, high).astype(dtype))

    return make


def positive(rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Depths over nine orders of magnitude, with zeros, infinities and NaN."""
    values = np.asarray(10.0 ** rng.uniform(-5, 4, shape))
    special = rng.choice([0.0, np.inf, np.nan, 1e-9], shape)
    return np.asarray(np.where(rng.random(shape) < 0.2, special, values).astype(dtype))


def unit_vectors(rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Directions all over the sphere, the axes among them, some zero and some NaN."""
    values = rng.normal(size=shape)
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    flat = values.reshape(-1, 3)
    flat[: min(6, len(flat))] = axes[: len(flat)]
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    flat[rng.random(len(flat)) < 0.05] = 0.0
    flat[rng.random(len(flat)) < 0.05] = np.nan
    return flat.reshape(shape).astype(dtype)


def unit_or_nan(rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Such directions, as any numbers within -1..1."""
    return unit_vectors(rng, shape, dtype).clip(-1, 1)


def logits(rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Logits with ties, near ties, large gaps, impossible classes and invalid pixels."""
    values = np.asarray(rng.normal(0, 6, shape))
    ties = rng.random(shape) < 0.3
    values = np.where(ties, np.round(values / 4) * 4, values)
    values = np.where(rng.random(shape) < 0.05, -np.inf, values)
    values = np.where(rng.random(shape) < 0.02, np.nan, values)
    return np.asarray(values.astype(dtype))


def probabilities(rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Softmax of such logits without -inf in every class."""
    values = logits(rng, shape, np.dtype(np.float64))
    values = np.where(np.isneginf(values).all(axis=0), 0.0, values)
    values = np.exp(values - values.max(axis=0, keepdims=True, initial=-1e300))
    return np.asarray((values / values.sum(axis=0)).astype(dtype))


def same(original: Array, decoded: Array) -> None:
    """Every bit is kept."""
    assert decoded.dtype == original.dtype
    assert decoded.shape == original.shape
    assert decoded.tobytes() == original.tobytes()


def same_numbers(original: Array, decoded: Array) -> None:
    """Every number is kept; one NaN is as good as another."""
    np.testing.assert_array_equal(decoded, original)


def same_layout(original: Array, decoded: Array) -> None:
    """Dtype and shape are kept; the values have no bound."""
    assert (decoded.dtype, decoded.shape) == (original.dtype, original.shape)


def within(absolute: float = 0.0, relative: float = 0.0) -> Callable[[Array, Array], None]:
    """Each error is within the bound plus float rounding; NaN and infinities stay where they were."""

    def check(original: Array, decoded: Array) -> None:
        exact, found = original.astype(np.float64), decoded.astype(np.float64)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(exact))
        np.testing.assert_array_equal(np.isinf(found), np.isinf(exact))
        finite = np.isfinite(exact)
        rounding = float(np.finfo(original.dtype).eps)
        bound = absolute * (1 + 1e-9) + (relative + rounding) * np.abs(exact[finite])
        assert (np.abs(found[finite] - exact[finite]) <= bound).all()

    return check


def angles_within(degrees: float) -> Callable[[Array, Array], None]:
    """Each direction is within the angle; vectors without one keep being zero or NaN."""

    def check(original: Array, decoded: Array) -> None:
        exact, found = original.astype(np.float64).reshape(-1, 3), decoded.astype(np.float64).reshape(-1, 3)
        nan, zero = np.isnan(exact).any(axis=1), (exact == 0).all(axis=1)
        assert np.isnan(found[nan]).all()
        assert (found[zero] == 0).all()
        exact, found = exact[~(nan | zero)], found[~(nan | zero)]
        angle = np.arctan2(np.linalg.norm(np.cross(exact, found), axis=1), (exact * found).sum(axis=1))
        rounding = float(np.finfo(original.dtype).eps) * 4
        assert (angle <= np.radians(degrees) + rounding).all()
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=rounding)

    return check


def gaps(values: Array, *, are_probabilities: bool) -> Array:
    """Each class's gap to the winner in nats, float64; NaN where the pixel has a NaN."""
    exact = values.astype(np.float64)
    if are_probabilities:
        with np.errstate(divide="ignore"):
            exact = np.log(exact)
    best = exact.max(axis=0, keepdims=True) if exact.size else exact
    with np.errstate(invalid="ignore"):
        gap = best - exact
    gap = np.where(np.isnan(gap) & ~np.isnan(best), np.inf, gap)  # all classes impossible
    return np.where(np.isnan(best), np.nan, gap)


def winner(values: Array) -> Array:
    """The first largest class of each pixel; -1 where the pixel has a NaN."""
    if values.size == 0:
        return np.zeros(values.shape[1:], np.int64)
    return np.asarray(np.where(np.isnan(values).any(axis=0), -1, values.argmax(axis=0)))


def gaps_kept(levels: int, max_gap: float, *, are_probabilities: bool) -> Callable[[Array, Array], None]:
    """The winner is the same everywhere and each gap is within the bound in the docstring of Gaplog."""

    def check(original: Array, decoded: Array) -> None:
        np.testing.assert_array_equal(winner(decoded), winner(original))
        exact = gaps(original, are_probabilities=are_probabilities)
        found = gaps(decoded, are_probabilities=are_probabilities)
        impossible = np.isneginf(original).all(axis=0) if not are_probabilities else np.zeros(exact.shape[1:], bool)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(exact))
        finite = np.isfinite(exact) & ~impossible
        loser = np.arange(len(exact)).reshape(-1, *[1] * (exact.ndim - 1)) != winner(original)
        ratio = (1 + max_gap) ** (0.5 / levels) - 1
        kept = np.minimum(exact, max_gap)
        rounding = 16 * float(np.finfo(original.dtype).eps) * (1 + max_gap)
        if are_probabilities:  # the probabilities themselves are rounded, relatively more the smaller they are
            rounding += float(np.finfo(original.dtype).eps)
            tiny = float(np.finfo(original.dtype).tiny)
            with np.errstate(invalid="ignore"):
                finite &= (original >= 64 * tiny) & (np.exp(-found) >= 64 * tiny)
        first_level = (1 + ratio) ** 2 - 1  # the smallest gap that a loser can have
        bound = np.where(loser, np.maximum(ratio * (1 + kept), first_level - kept), ratio * (1 + kept)) + rounding
        error = np.abs(found - kept)
        assert (error[finite] <= bound[finite]).all(), np.max(error[finite] - bound[finite])

    return check


_MILLIMETRES = Case(IMAGES, FLOATS, smooth(0, 65.5, nan=0.1), within(0.0005))
_LOG = Case(ANY, ("float32", "float64"), positive, within(1e-6, relative=4e-4))
_OCTAHEDRAL = Case(RGB, FLOATS, unit_vectors, angles_within(0.25))
_FLOW = Case(FLOW, FLOATS, smooth(-511.5, 511.5, nan=0.1), within(1 / 128))
_GAPLOG = Case(SCORES, FLOATS, logits, gaps_kept(100, 16.0, are_probabilities=False))
_U8 = Case(ANY[2:], FLOATS, smooth(-1, 3), within(4 / 510), {"minimum": -1, "maximum": 3})
_U16 = Case(ANY[2:], FLOATS, smooth(-1, 3, nan=0.1), within(4 / 131068), {"minimum": -1, "maximum": 3})

CASES: Mapping[str, Case] = {
    "arrow": Case(ANY[1:], ("bool", *INTEGERS, *FLOATS), bits, same),
    "bits.npy.zst": Case(ANY, ("bool",), bits, same),
    "coco-rle": Case((*IMAGES, (0, 3, 4), (3, 5, 7), (2, 0, 3)), ("bool",), bits, same),
    "f16.npy": Case(ANY, FLOATS, smooth(-60000, 60000, nan=0.1), within(2**-25, relative=2**-11)),
    "flow-delta": _FLOW,
    "flow-jxl": _FLOW,
    "flow-kitti": Case(FLOW, FLOATS, smooth(-511.5, 511.5), within(1 / 128)),
    "gaplog-delta": _GAPLOG,
    "gaplog-jls": _GAPLOG,
    "gaplog-jxl": _GAPLOG,
    "jls": Case(ANY, ("uint8", "uint16"), bits, same),
    "jpg": Case((*IMAGES, *RGB), ("uint8",), bits, same_layout),
    "json": Case(ANY, ("bool", *INTEGERS, *FLOATS), bits, same_numbers),
    "json.zst": Case(ANY, FLOATS, smooth(-1e4, 1e4, nan=0.1), within(0.005), {"decimals": 2}),
    "jxl": Case((*IMAGES, *RGB), ("uint8", "uint16"), bits, same),
    "log-delta": Case(ANY[1:], ("float32", "float64"), positive, within(1e-6, relative=4e-4)),
    "log-jxl": _LOG,
    "mm-delta": _MILLIMETRES,
    "mm-jxl": _MILLIMETRES,
    "normals-delta": Case(RGB, FLOATS, unit_or_nan, within(1 / 254), {"axis": 2}),
    "npy": Case(ANY, ("bool", *INTEGERS, *FLOATS, "complex64"), bits, same),
    "npy.zst": Case(ANY, ("bool", *INTEGERS, *FLOATS, "complex128"), bits, same),
    "oct-delta": _OCTAHEDRAL,
    "oct-jxl": _OCTAHEDRAL,
    "pco": Case(ANY, (*FLOATS, "int16", "int32", "int64", "uint16", "uint32", "uint64"), bits, same),
    "png": Case((*IMAGES, *RGB), ("uint8", "uint16"), bits, same),
    "rgb-delta": Case(RGB, ("uint8",), bits, same),
    "u16-delta": _U16,
    "u16-jxl": _U16,
    "u8-delta": _U8,
    "u8-jls": _U8,
    "webp": Case(RGB, ("uint8",), bits, same),
}


def arrays(name: str, seed: int = 0) -> list[Array]:
    """Arrays of every shape and dtype that a codec takes."""
    case = CASES[name]
    rng = np.random.default_rng(seed)
    return [case.make(rng, shape, np.dtype(dtype)) for shape in case.shapes for dtype in case.dtypes]
