"""Class scores as the logarithm of their gap to the winner: one byte a score, and the winner stays the winner."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stage import ArrayStage, Layout, Shape, fits
from vrekit.codecs.stages.channels_first import class_axis
from vrekit.core.errors import CodecError, UsageError
from vrekit.core.spec import Kind, OutputSpec

Scores = Literal["logits", "probabilities"]

NAN, ABSENT = 254, 255  # codes of a pixel without scores, and of a class that is impossible (-inf, or probability 0)
MAX_LEVELS = 253
BLOCK_ELEMENTS = 1 << 17  # scores worked on at a time: half a megabyte of float32 stays in the cache
_SUM_TOLERANCE = 1e-2


@dataclass(frozen=True, slots=True)
class Gaplog(ArrayStage):
    """Logits or probabilities (C, ...) → uint8 codes (C, ...) of each class's gap to the winner.

    With g = max(x) - x for logits, g = log(max(p) / p) for probabilities (nats), and m = `max_gap`:

        code = round(levels * log(1 + g) / log(1 + m)), at least 1, at most `levels`; the first winner alone has 0
        254 = not a number, 255 = impossible class (logit -inf, probability 0)
        g' = exp(code * log(1 + m) / levels) - 1; logit' = -g'; probability' = exp(-g') / sum(exp(-g'))

    What is lost: the offset of a pixel's logits (softmax does not see it), gaps beyond `max_gap` (they saturate), and
    precision: |g' - g| <= r * (1 + g) with r = (1 + m)**(0.5 / levels) - 1 (0.0143 by default). A loser closer than r
    comes back at the first level, q = (1 + m)**(1 / levels) - 1, so |g' - g| = q - g there (q is below 0.0288 by
    default). `argmax` is exact, ties included (the first one wins).
    A pixel with a NaN in any class comes back all NaN. Refused: +inf, probabilities below 0 or with a sum off 1 by
    more than 0.01.

    Attributes:
        scores: `"logits"` or `"probabilities"`.
        levels: 1 .. 253; 100 (16 times smaller than float16 npz at full resolution), 63 is smaller, 253 is finer.
        max_gap: Largest gap that is kept, nats; e**-16 is 1e-7.
        axis: Where the classes are.
    """

    id: ClassVar[str] = "gaplog"
    exact: ClassVar[bool] = False

    scores: str = "logits"
    levels: int = 100
    max_gap: float = 16.0
    axis: int = 0

    def __post_init__(self) -> None:
        if self.scores not in ("logits", "probabilities"):
            raise UsageError(f"gaplog.scores is {self.scores!r}, expected 'logits' or 'probabilities'")
        if not 1 <= self.levels <= MAX_LEVELS:
            raise UsageError(f"gaplog.levels is {self.levels}, expected 1..{MAX_LEVELS}")
        if not 0.1 <= self.max_gap <= 1000.0 or self.axis < 0:
            raise UsageError(f"gaplog: {self.max_gap = }, expected 0.1..1000, or {self.axis = }, expected 0 or more")

    @classmethod
    def options_for(cls, spec: OutputSpec) -> dict[str, Any]:
        """Return the class axis and whether the scores are logits or probabilities."""
        return score_options(spec)

    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return uint8 with the classes in front."""
        check_scores(self, dtype, shape, self.axis)
        return np.dtype(np.uint8), (shape[self.axis], *shape[: self.axis], *shape[self.axis + 1 :])

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the codes."""
        scores = np.moveaxis(array, self.axis, 0)
        codes = np.empty(scores.shape, np.uint8)
        for source, target in blocks(scores, codes):
            gaps, winner = gaps_to_winner(source, self.scores == "probabilities")
            target[...] = gap_codes(gaps, self.levels, self.max_gap)
            # a winner's code is 0 and nobody else's
            np.put_along_axis(target, winner[None], np.where(np.isnan(gaps[0]), np.uint8(NAN), np.uint8(0))[None], 0)
        return codes

    def decode(self, array: NDArray[Any], out: NDArray[Any]) -> None:
        """Fill `out` with logits whose largest is 0, or with probabilities."""
        check_codes(array, self.levels)
        table = gap_values(self.levels, self.max_gap, self.scores == "probabilities", out.dtype)
        scores = np.moveaxis(out, self.axis, 0)
        for codes, target in blocks(array, scores):
            values = np.take(table, codes, mode="clip")
            if self.scores == "probabilities":
                set_probabilities(target, values)
            else:
                target[...] = values


def score_options(spec: OutputSpec) -> dict[str, Any]:
    """Return the options `axis` and `scores` of a stage on class scores."""
    return {"axis": class_axis(spec), "scores": "probabilities" if spec.kind is Kind.PROBABILITIES else "logits"}


def check_scores(stage: ArrayStage, dtype: np.dtype[Any], shape: Shape, axis: int) -> None:
    """Raise CodecError unless these are float scores of at least one class at `axis`, the first or the last one."""
    fits(
        dtype.name in ("float16", "float32", "float64")
        and axis < len(shape)
        and axis in (0, len(shape) - 1)
        and shape[axis] > 0,
        stage,
        dtype,
        shape,
        f"float scores of one or more classes at axis {axis}, which must be the first or the last",
        "pco and npy.zst take scores of any shape, npy.zst any numbers",
    )


def blocks(first: NDArray[Any], second: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield matching (classes, some pixels) parts of two arrays.

    Parts of `second` are views to be written to: it is C-contiguous, or was before its last axis moved to the front.
    """
    flat = [array.reshape(len(array), -1) for array in (first, second)]
    pixels = flat[0].shape[1]
    step = max(1, BLOCK_ELEMENTS // max(1, len(first)))
    for start in range(0, pixels, step):
        yield flat[0][:, start : start + step], flat[1][:, start : start + step]


def gaps_to_winner(scores: NDArray[Any], are_probabilities: bool) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return each class's gap to the winner in nats, (C, N), and the first winner of each pixel, (N,).

    Impossible classes have an infinite gap; all classes of a pixel with a NaN have a NaN gap.

    Raises:
        CodecError: If scores are +inf, or are no probabilities.
    """
    wide = scores.astype(np.float32) if scores.dtype == np.float16 else np.ascontiguousarray(scores)
    best = wide.max(axis=0)  # NaN if any class is
    winner = first_winner(wide, best)
    if np.isposinf(best).any():
        raise CodecError("scores of +inf have no gap to others", hint="clip the scores, or use the codec pco")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if are_probabilities:
            total = wide.sum(axis=0)
            wrong = (wide < 0).any(axis=0) | (np.abs(total - 1.0) > _SUM_TOLERANCE)
            if wrong.any():
                raise CodecError(
                    f"{int(wrong.sum())} pixels hold no probabilities: a value is below 0, or the sum is not 1 but "
                    f"such as {float(total[wrong][0]):.4g}",
                    hint="logits have the kind 'logits'; use the codec pco for other values",
                )
            gaps = np.log(best / wide).astype(np.float32, copy=False)
        else:
            gaps = np.subtract(best, wide).astype(np.float32, copy=False)
            impossible = np.isneginf(best)
            if impossible.any():
                gaps[:, impossible] = np.inf
    if gaps.size and not np.isfinite(gaps.max()):
        # a gap too large for floats is that of a possible class all the same
        possible = wide > 0 if are_probabilities else np.isfinite(wide)
        gaps[np.isposinf(gaps) & possible] = np.finfo(np.float32).max
    return gaps, winner


def first_winner(scores: NDArray[Any], best: NDArray[Any]) -> NDArray[np.intp]:
    """Return the first class whose score equals `best`, (N,); 0 where none does because of NaN."""
    winner = np.zeros(best.shape, np.intp)
    for index in range(len(scores) - 1, 0, -1):
        np.copyto(winner, index, where=scores[index] == best)
    np.copyto(winner, 0, where=scores[0] == best)
    return winner


def gap_codes(gaps: NDArray[np.float32], levels: int, max_gap: float) -> NDArray[np.uint8]:
    """Return codes 1..levels, ABSENT for an infinite gap and NAN for NaN; overwrites nothing."""
    scaled = gaps + np.float32(1.0)
    np.log(scaled, out=scaled)
    scaled *= np.float32(levels / np.log1p(max_gap))
    np.rint(scaled, out=scaled)
    np.clip(scaled, 1, levels, out=scaled)
    top = gaps.max() if gaps.size else 0.0
    if np.isfinite(top):
        return scaled.astype(np.uint8)
    scaled[np.isnan(gaps)] = NAN
    scaled[np.isposinf(gaps)] = ABSENT
    return scaled.astype(np.uint8)


@lru_cache(maxsize=32)
def gap_values(levels: int, max_gap: float, are_probabilities: bool, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return what each of the 256 codes means, read-only: -g' for logits, exp(-g') for probabilities.

    For probabilities the table is float32 at least: float16 has too few digits to sum them up.
    """
    with np.errstate(over="ignore"):  # codes beyond `levels` mean nothing
        gaps = np.expm1(np.arange(256) * (np.log1p(max_gap) / levels))
        gaps[NAN], gaps[ABSENT] = np.nan, np.inf
        if are_probabilities:
            dtype = np.result_type(dtype, np.float32)
        table: NDArray[Any] = (np.exp(-gaps) if are_probabilities else -gaps).astype(dtype)
    table.flags.writeable = False
    return table


def set_probabilities(target: NDArray[Any], values: NDArray[Any]) -> None:
    """Set `target` (C, N) to `values`, float32 or wider, divided by their sums; `values` is overwritten."""
    values /= values.sum(axis=0)
    target[...] = values
    if target.dtype == np.float16:
        keep_first(target, values.argmax(axis=0))


def keep_first(values: NDArray[Any], winner: NDArray[np.integer[Any]]) -> None:
    """Take one ulp from each score before the winner's that rounding made equal to it, and so the first largest.

    Args:
        values: Scores (C, N); changed in place.
        winner: Class of each pixel that is to be the first largest, (N,).
    """
    top = values.max(axis=0)
    before = (values == top) & (np.arange(len(values))[:, None] < winner)
    if before.any():
        np.copyto(values, np.nextafter(top, np.full_like(top, -np.inf)), where=before)


def check_codes(codes: NDArray[np.uint8], levels: int) -> None:
    """Raise CodecError if there is a code that is never written."""
    if codes.size and int(codes.max()) > levels:
        unused = (codes > levels) & (codes < NAN)
        if unused.any():
            raise CodecError(f"gaplog: code {int(codes[unused][0])} is beyond the last level, {levels}")
