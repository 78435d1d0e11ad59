"""In which form class scores are stored (`store_as:`), and what a reader gets back from each form."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vrekit.codecs.stage import ArrayStage
from vrekit.core.errors import UsageError
from vrekit.core.names import did_you_mean
from vrekit.core.spec import Kind, OutputSpec

FORMS = ("indices", "logits", "probabilities", "top-k")
_SCORES = (Kind.LOGITS, Kind.PROBABILITIES)
_TOP = re.compile(r"top-([1-9]\d*)")


@dataclass(frozen=True, slots=True, repr=False)
class Converted:
    """Class scores in the form that was asked for.

    Attributes:
        data: The array.
        spec: What it is now.
        lost: What this form no longer has, compared with what was decoded; empty when nothing is lost.
    """

    data: NDArray[Any]
    spec: OutputSpec
    lost: str

    def __repr__(self) -> str:
        return f"Converted({self.spec.kind}, {self.data.shape} {self.data.dtype}, lost={self.lost!r})"


def conversion_stages(store_as: str, spec: OutputSpec) -> tuple[ArrayStage, ...]:
    """Return the stages that turn what `spec` describes into the form `store_as`; none if it has that form.

    Args:
        store_as: `"logits"`, `"probabilities"`, `"indices"`, or `"top-k"` (the 3 best; `"top-5"` for 5).
        spec: What the representation computes.

    Raises:
        UsageError: If there is no such form, or it needs more than there is.
    """
    from vrekit.codecs.stages.indices import Indices
    from vrekit.codecs.stages.planes import Planes
    from vrekit.codecs.stages.softmax import Softmax
    from vrekit.codecs.stages.topk import TopK

    top = _TOP.fullmatch(store_as)
    if store_as not in FORMS and not top:
        raise UsageError(
            f"unknown store_as {store_as!r}{did_you_mean(store_as, FORMS)}", hint=f"one of {', '.join(FORMS)}, top-5"
        )
    if store_as == spec.kind:
        return ()
    if spec.kind in _SCORES:
        if store_as == "indices":
            return (Indices.from_config(Indices.options_for(spec)),)
        if store_as == "probabilities":
            return (Softmax.from_config(Softmax.options_for(spec)),)
        if store_as != "logits":
            k = {"k": int(top[1])} if top else {}
            return (TopK.from_config(TopK.options_for(spec) | k), Planes())
    raise UsageError(
        f"store_as {store_as!r} does not go with {spec.kind}",
        hint="logits can be stored as any form, probabilities as probabilities, indices or top-k; "
        "leave store_as out for everything else",
    )


def as_indices(data: ArrayLike, spec: OutputSpec) -> Converted:
    """Return the winning class of each pixel from decoded logits, probabilities or indices.

    The winner is the first largest score, the same before and after every codec of class scores.

    Args:
        data: One frame as `spec` describes it, or a batch of them (N, ...): an array, or a tensor on the CPU.
        spec: What a frame is, such as `FrameDataset.spec` says.

    Raises:
        UsageError: If these are no class scores, or `data` does not have the shape that `spec` says.
    """
    if spec.kind is Kind.INDICES:
        return _unchanged(data, spec)
    _check_scores(spec, "indices")
    from vrekit.codecs.stages.indices import Indices

    stage = Indices.from_config(Indices.options_for(spec))
    indices = _each_frame(stage.encode, data, spec)
    return Converted(indices, stage.decoded_spec(spec), "all scores: only the winner is left")


def as_probabilities(data: ArrayLike, spec: OutputSpec) -> Converted:
    """Return probabilities from decoded logits, probabilities or indices; indices become one-hot float32.

    Args:
        data: As in `as_indices`.
        spec: Likewise.

    Raises:
        UsageError: If these are no class scores, or `data` does not have the shape that `spec` says.
    """
    if spec.kind is Kind.PROBABILITIES:
        return _unchanged(data, spec)
    if spec.kind is Kind.INDICES:
        return _one_hot(data, spec)
    _check_scores(spec, "probabilities")
    from vrekit.codecs.stages.softmax import Softmax

    stage = Softmax.from_config(Softmax.options_for(spec))
    probabilities = _each_frame(stage.encode, data, spec)
    return Converted(probabilities, stage.decoded_spec(spec), "the offset of each pixel's logits")


def as_logits(data: ArrayLike, spec: OutputSpec) -> Converted:
    """Return logits from decoded logits or probabilities.

    The logits of probabilities are their logarithms: softmax gives the probabilities back; 0 becomes -inf. The winner
    stays the first largest, even where rounding would level it.

    Args:
        data: As in `as_indices`.
        spec: Likewise.

    Raises:
        UsageError: For indices, which say nothing about scores; if these are no class scores, or `data` does not have
            the shape that `spec` says.
    """
    if spec.kind is Kind.LOGITS:
        return _unchanged(data, spec)
    if spec.kind is Kind.INDICES:
        raise UsageError("class indices have no logits", hint="as_probabilities gives one-hot probabilities")
    _check_scores(spec, "logits")

    def logarithms(frame: NDArray[Any]) -> NDArray[Any]:
        from vrekit.codecs.stages.channels_first import class_axis
        from vrekit.codecs.stages.gaplog import first_winner, keep_first

        classes_first = np.moveaxis(frame, class_axis(spec), 0)
        probabilities = classes_first.reshape(len(classes_first), -1)
        with np.errstate(divide="ignore"):
            logits: NDArray[Any] = np.log(probabilities)
        if logits.size:
            keep_first(logits, first_winner(probabilities, probabilities.max(axis=0)))
        return np.ascontiguousarray(np.moveaxis(logits.reshape(classes_first.shape), 0, class_axis(spec)))

    new = replace(spec, kind=Kind.LOGITS, value_range=None)
    return Converted(_each_frame(logarithms, data, spec), new, "the offset of each pixel's logits")


def _unchanged(data: ArrayLike, spec: OutputSpec) -> Converted:
    array, _ = _checked(data, spec)
    return Converted(array, spec, "")


def _checked(data: ArrayLike, spec: OutputSpec) -> tuple[NDArray[Any], bool]:
    """Return the array, and whether it is a batch of frames."""
    array = np.asarray(data)
    is_batch = array.ndim == len(spec.shape) + 1
    shape = array.shape[1:] if is_batch else array.shape
    axis = spec.axes.find("C")
    if len(shape) != len(spec.shape) or (axis >= 0 and shape[axis] != spec.shape[axis]):
        raise UsageError(
            f"data of shape {array.shape} is neither a frame of {spec.kind} {spec.shape} (axes {spec.axes}) nor a batch"
        )
    return array, is_batch


def _each_frame(convert: Callable[[NDArray[Any]], NDArray[Any]], data: ArrayLike, spec: OutputSpec) -> NDArray[Any]:
    """Return what `convert` makes of a frame, or of each frame of a batch."""
    array, is_batch = _checked(data, spec)
    if not is_batch:
        return convert(array)
    if not len(array):
        one = convert(np.zeros(array.shape[1:], array.dtype))
        return np.empty((0, *one.shape), one.dtype)
    return np.stack([convert(frame) for frame in array])


def _check_scores(spec: OutputSpec, wanted: str) -> None:
    if spec.kind not in _SCORES:
        raise UsageError(f"{spec.kind} cannot be read as {wanted}", hint="only logits, probabilities and indices can")


def _one_hot(data: ArrayLike, spec: OutputSpec) -> Converted:
    if spec.classes is None and spec.value_range is None:
        raise UsageError("the number of classes of these indices is not known", hint="give the spec `classes`")
    count = len(spec.classes) if spec.classes is not None else int((spec.value_range or (0, 0))[1]) + 1

    def one_hot(frame: NDArray[Any]) -> NDArray[Any]:
        classes = np.arange(count, dtype=np.int64).reshape(-1, *[1] * frame.ndim)
        hot: NDArray[Any] = (frame == classes).astype(np.float32)
        hot[:, ~hot.any(axis=0)] = np.nan  # an id beyond the classes marks a pixel without a winner
        return hot

    new = replace(
        spec,
        kind=Kind.PROBABILITIES,
        dtype="float32",
        shape=(count, *spec.shape),
        axes="C" + spec.axes,
        value_range=(0.0, 1.0),
        invalid_value=None,
    )
    return Converted(_each_frame(one_hot, data, spec), new, "every score but the winner's: the others are 0")
