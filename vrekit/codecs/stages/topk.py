"""The k best classes of each pixel, their gaps, and what is left for all others."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.stage import ArrayStage, Layout, Shape
from vrekit.codecs.stages.gaplog import (
    ABSENT,
    MAX_LEVELS,
    NAN,
    blocks,
    check_codes,
    check_scores,
    gap_codes,
    gap_values,
    gaps_to_winner,
    score_options,
    set_probabilities,
)
from vrekit.core.errors import CodecError, UsageError
from vrekit.core.spec import OutputSpec


@dataclass(frozen=True, slots=True)
class TopK(ArrayStage):
    """Class scores (C, ...) → 2 k planes: k class ids (best first), gaps of the 2nd..k-th, gap shared by the rest.

    Gaps are coded as in `Gaplog`, with the same bounds; planes are uint8 for up to 256 classes, else uint16. Decodes
    to scores of all C classes: the classes beyond the k-th share their common probability equally, so sums stay
    right. `argmax` is exact, ties included. With fewer classes than k, all of them are kept. NaN as in `Gaplog`.

    Attributes:
        k: Classes kept, 1 or more.
        scores: `"logits"` or `"probabilities"`.
        levels: As in `Gaplog`.
        max_gap: As in `Gaplog`.
        axis: Where the classes are.
    """

    id: ClassVar[str] = "topk"
    exact: ClassVar[bool] = False

    k: int = 3
    scores: str = "logits"
    levels: int = 253
    max_gap: float = 16.0
    axis: int = 0

    def __post_init__(self) -> None:
        if self.scores not in ("logits", "probabilities"):
            raise UsageError(f"topk.scores is {self.scores!r}, expected 'logits' or 'probabilities'")
        if self.k < 1 or not 1 <= self.levels <= MAX_LEVELS or not 0.1 <= self.max_gap <= 1000.0 or self.axis < 0:
            raise UsageError(f"topk: an option is out of range: {self.config()!r}")

    @classmethod
    def options_for(cls, spec: OutputSpec) -> dict[str, Any]:
        """Return the class axis and whether the scores are logits or probabilities."""
        return score_options(spec)

    def encoded_layout(self, dtype: np.dtype[Any], shape: Shape) -> Layout:
        """Return (2 k, ...) of uint8 or uint16."""
        check_scores(self, dtype, shape, self.axis)
        classes = shape[self.axis]
        code_dtype = np.dtype(np.uint8 if classes <= 256 else np.uint16)
        return code_dtype, (2 * min(self.k, classes), *shape[: self.axis], *shape[self.axis + 1 :])

    def encode(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return ids and gap codes."""
        scores = np.moveaxis(array, self.axis, 0)
        dtype, shape = self.encoded_layout(array.dtype, array.shape)
        planes = np.empty(shape, dtype)
        kept = len(planes) // 2
        for source, target in blocks(scores, planes):
            gaps, winner = gaps_to_winner(source, self.scores == "probabilities")
            invalid = np.isnan(gaps[0])
            gaps[:, invalid] = 0.0
            for rank in range(kept):
                best = winner if rank == 0 else gaps.argmin(axis=0)
                target[rank] = best
                if rank:
                    gap = np.take_along_axis(gaps, best[None], 0)[0]

                    target[kept + rank - 1] = gap_codes(gap, self.levels, self.max_gap)
                np.put_along_axis(gaps, best[None], np.float32(np.inf), 0)
            rest = len(gaps) - kept
            nearest = gaps.min(axis=0)
            nearest[np.isposinf(nearest)] = 0.0  # nothing is left for the rest
            with np.errstate(divide="ignore"):
                # from the nearest one on, since exp(-104) is 0 in float32
                common = nearest + np.log(max(rest, 1)) - np.log(np.exp(nearest - gaps).sum(axis=0))
            target[-1] = gap_codes(common.astype(np.float32), self.levels, self.max_gap)
            target[kept:, invalid] = NAN
        return planes

    def decode(self, array: NDArray[Any], out: NDArray[Any]) -> None:
        """Fill `out` with scores of all classes."""
        are_probabilities = self.scores == "probabilities"
        table = gap_values(self.levels, self.max_gap, are_probabilities, out.dtype)
        scores = np.moveaxis(out, self.axis, 0)
        kept = len(array) // 2
        for planes, target in blocks(array, scores):
            ids, gaps = planes[:kept].astype(np.intp), planes[kept:]
            if ids.size and int(ids.max()) >= len(scores):
                raise CodecError(f"topk: class {int(ids.max())} of {len(scores)}")
            if gaps.size and int(gaps.max()) > ABSENT:
                raise CodecError(f"topk: code {int(gaps.max())} is beyond {ABSENT}")
            check_codes(gaps.astype(np.uint8, copy=False), self.levels)
            values = np.broadcast_to(np.take(table, gaps[-1]), target.shape).copy()
            for rank in range(kept - 1, 0, -1):
                np.put_along_axis(values, ids[rank : rank + 1], np.take(table, gaps[rank - 1 : rank]), 0)
            winner = np.where(gaps[-1] == NAN, table[NAN], table[0])
            np.put_along_axis(values, ids[:1], winner[None], 0)
            if are_probabilities:
                set_probabilities(target, values)
            else:
                target[...] = values
