"""How small, how fast and how faithful a codec is on arrays at hand."""

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import Codec
from vrekit.codecs.store_as import as_probabilities
from vrekit.core.spec import Kind, OutputSpec

Array = NDArray[Any]
Result = TypeVar("Result")
_LONG_ENOUGH_SECONDS = 3.0  # after so long, another round says nothing new
_PIECE = 1 << 20  # values that are compared at once: all of a large array in float64 would take several times its size
_SCORE_PIECE = 1 << 18  # scores that are compared at once: that takes some ten arrays of them
_SCORES = (Kind.LOGITS, Kind.PROBABILITIES)
_MEANS = ("argmax_agreement", "kl_divergence", "mean_degrees", "mean_squared_error")  # of the others the largest counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one codec did with some frames.

    Attributes:
        label: What was measured.
        config: The codec's config; None for what is no codec of ours.
        frames: Number of frames.
        raw_bytes: Bytes of the arrays.
        stored_bytes: Bytes of the files.
        encode_seconds: CPU time of one thread for all frames.
        decode_seconds: The same for decoding into memory that is there already.
        errors: Largest and mean errors by name; empty when every value came back.
        fidelity: The same in words: `exact`, `max 0.5 mm`, `argmax 100%, …`.
    """

    label: str
    config: Mapping[str, Any] | None
    frames: int
    raw_bytes: int
    stored_bytes: int
    encode_seconds: float
    decode_seconds: float
    errors: Mapping[str, float]
    fidelity: str

    @property
    def encode_mbps(self) -> float:
        """MB of the raw arrays per CPU second."""
        return self.raw_bytes / 1e6 / max(self.encode_seconds, 1e-9)

    @property
    def decode_mbps(self) -> float:
        """MB of the raw arrays per CPU second."""
        return self.raw_bytes / 1e6 / max(self.decode_seconds, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return asdict(self) | {"encode_mbps": self.encode_mbps, "decode_mbps": self.decode_mbps}


def measure(
    codec: Codec,
    arrays: Sequence[Array],
    spec: OutputSpec,
    *,
    rounds: int = 1,
    label: str | None = None,
    for_size_and_speed: bool = False,
) -> Measurement:
    """Encode and decode some frames and compare.

    Args:
        codec: What to measure.
        arrays: What goes in, one array a frame.
        spec: What it is.
        rounds: Runs of each frame; the best one counts.
        label: Name of the measurement; None takes the codec's.
        for_size_and_speed: Encode once only and do not compare: `fidelity` is then empty.

    Raises:
        CodecError: If a frame does not fit the codec.
    """
    decoded_spec = codec.decoded_spec(spec)
    stored = 0
    encode_seconds = decode_seconds = 0.0
    errors = []
    for at, array in enumerate(arrays):
        dtype, shape = codec.decoded_layout(array.dtype, array.shape)
        seconds, data = timed(partial(codec.encode, array), 1 if for_size_and_speed else rounds)
        encode_seconds += seconds
        out = None if dtype.kind == "U" else np.empty(shape, dtype)
        if at == 0 and rounds == 1:  # what a process does once (tables, memory) is not what a frame takes
            codec.decode(data, dtype=dtype, shape=shape, out=out)
        seconds, decoded = timed(partial(codec.decode, data, dtype=dtype, shape=shape, out=out), rounds)
        decode_seconds += seconds
        stored += len(data)
        if not for_size_and_speed:
            errors.append(compare(array, decoded, spec, decoded_spec))
    merged = merge_errors(errors)
    return Measurement(
        label=label or codec.id,
        config=codec.config(),
        frames=len(arrays),
        raw_bytes=sum(array.nbytes for array in arrays),
        stored_bytes=stored,
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
        errors=merged,
        fidelity="" if for_size_and_speed else in_words(merged, spec),
    )


def measure_npz(
    arrays: Sequence[Array], *, rounds: int = 1, label: str = "npz", raw_bytes: int | None = None
) -> Measurement:
    """Return the same of `np.savez_compressed` and `np.load`, the usual yardstick.

    Args:
        arrays: One array a frame.
        rounds: Runs of each frame; the best one counts.
        label: Name of the measurement.
        raw_bytes: What speeds are reckoned by where `arrays` are a smaller form of the data (float16).
    """
    stored = 0
    encode_seconds = decode_seconds = 0.0
    for array in arrays:
        seconds, data = timed(partial(_npz, array), min(rounds, 2))
        encode_seconds += seconds
        decode_seconds += timed(partial(_from_npz, data), rounds)[0]
        stored += len(data)
    return Measurement(
        label=label,
        config=None,
        frames=len(arrays),
        raw_bytes=raw_bytes or sum(array.nbytes for array in arrays),
        stored_bytes=stored,
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
        errors={},
        fidelity="exact",
    )


def _npz(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, array)
    return buffer.getvalue()


def _from_npz(data: bytes) -> Array:
    array: Array = np.load(io.BytesIO(data))["arr_0"]
    return array


def timed(run: Callable[[], Result], rounds: int) -> tuple[float, Result]:
    """Return the CPU seconds of the best of some runs of a function (at least one), and what it returned."""
    best, spent = float("inf"), 0.0
    while True:
        start = time.process_time()
        result = run()
        seconds = time.process_time() - start
        best, spent, rounds = min(best, seconds), spent + seconds, rounds - 1
        if rounds <= 0 or spent > _LONG_ENOUGH_SECONDS:
            return best, result


def compare(array: Array, decoded: Array, spec: OutputSpec, decoded_spec: OutputSpec) -> dict[str, float]:
    """Return the errors of one frame by name, empty when every value came back.

    Names: `max_error` for most kinds (in the values' own unit), and `max_relative_error` beside it for metres;
    `max_error` and `mean_squared_error` for colours; `mean_degrees`, `max_degrees` for normals; `argmax_agreement`
    (0..1), and where scores came back `kl_divergence` (nats), `max_probability_error` for class scores.

    Args:
        array: What went in.
        decoded: What came back.
        spec: What went in.
        decoded_spec: What came back; differs from `spec` where a stored form keeps less.
    """
    if same_bytes(array, decoded):
        return {}
    if array.dtype.kind == "U":
        return {} if str(array) == str(decoded) else {"max_error": 1.0}
    if spec.kind in _SCORES:
        return _score_errors(array, decoded, spec, decoded_spec)
    if spec.kind is Kind.NORMALS:
        return _angle_errors(array, decoded, spec.axes.index("C"))
    return _number_errors(array, decoded, spec)


def _angle_errors(array: Array, decoded: Array, axis: int) -> dict[str, float]:
    ours, theirs = (np.atleast_2d(np.moveaxis(one, axis, -1)) for one in (array, decoded))
    angle = np.empty(ours.shape[:-1])
    step = max(1, _PIECE * len(ours) // max(1, array.size))
    for start in range(0, len(ours), step):
        piece = slice(start, start + step)
        exact, found = ours[piece].astype(np.float64), theirs[piece].astype(np.float64)
        across = np.linalg.norm(np.cross(exact, found), axis=-1)
        angle[piece] = np.degrees(np.arctan2(across, (exact * found).sum(axis=-1)))
    angle = angle[np.isfinite(angle)]
    return {"mean_degrees": float(angle.mean()), "max_degrees": float(angle.max())} if angle.size else {}


def same_bytes(array: Array, other: Array) -> bool:
    """Return whether two arrays have the same dtype, shape and bits, without a copy of contiguous ones."""
    if array.dtype != other.dtype or array.shape != other.shape:
        return False
    if array.dtype.kind not in "biufc" or array.size == 0:
        return array.tobytes() == other.tobytes()
    flat, other_flat = (np.ascontiguousarray(one).reshape(-1).view(np.uint8) for one in (array, other))
    steps = (slice(start, start + _PIECE) for start in range(0, flat.size, _PIECE))
    return all(np.array_equal(flat[step], other_flat[step]) for step in steps)


def _number_errors(array: Array, decoded: Array, spec: OutputSpec) -> dict[str, float]:
    largest = relative = squares = 0.0
    flat, decoded_flat = array.reshape(-1), decoded.reshape(-1)
    for start in range(0, array.size, _PIECE):
        exact, found = (one[start : start + _PIECE].astype(np.float64) for one in (flat, decoded_flat))
        same = (exact == found) | (np.isnan(exact) & np.isnan(found))
        with np.errstate(invalid="ignore"):
            error = np.where(same, 0.0, np.abs(found - exact))
        largest = float(np.maximum(largest, error.max()))  # NaN stays NaN
        squares += float(np.sum(error**2))
        positive = np.isfinite(exact) & (exact > 0)
        if spec.unit == "m" and positive.any():
            relative = float(np.maximum(relative, (error[positive] / exact[positive]).max()))
    if not largest:
        return {}
    errors = {"max_error": largest}
    if spec.kind is Kind.COLOR:
        errors["mean_squared_error"] = squares / array.size
    if spec.unit == "m":
        errors["max_relative_error"] = relative
    return errors


def _score_errors(array: Array, decoded: Array, spec: OutputSpec, decoded_spec: OutputSpec) -> dict[str, float]:
    axis = spec.axes.index("C") if "C" in spec.axes else 0
    has_scores = decoded_spec.kind in _SCORES
    scores = np.moveaxis(array, axis, 0)  # classes first
    back = np.moveaxis(decoded, axis, 0) if has_scores else decoded
    rows = scores.shape[1] if scores.ndim > 1 else 1
    step = max(1, _SCORE_PIECE * rows // max(1, array.size))
    count = agree = 0
    divergence = largest = 0.0
    for start in range(0, rows, step):
        piece = slice(start, start + step)
        ours = scores[:, piece] if scores.ndim > 1 else scores
        theirs = back if scores.ndim == 1 else back[:, piece] if has_scores else back[piece]
        known = ~np.isnan(ours).any(axis=0)
        count += int(known.sum())
        winner = theirs.argmax(axis=0) if has_scores else theirs
        agree += int((winner == ours.argmax(axis=0))[known].sum())
        if has_scores:
            p, q = _probabilities(ours, axis, spec)[:, known], _probabilities(theirs, axis, decoded_spec)[:, known]
            with np.errstate(divide="ignore", invalid="ignore"):
                divergence += float(np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0).sum())
            largest = float(np.maximum(largest, np.abs(p - q).max(initial=0.0)))
    errors = {"argmax_agreement": agree / count if count else 1.0}
    if has_scores:
        errors["kl_divergence"] = divergence / count if count else 0.0
        errors["max_probability_error"] = largest
    return errors


def _probabilities(scores: Array, axis: int, spec: OutputSpec) -> Array:
    """Return the probabilities of scores, classes first; they lie along `axis` in `spec`."""
    frame = np.moveaxis(scores.astype(np.float64), 0, axis)
    return np.moveaxis(as_probabilities(frame, replace(spec, shape=frame.shape)).data, axis, 0)


def merge_errors(frames: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the errors of some frames together: of means the mean, of largest errors the largest.

    A frame without errors counts as one that has none of the others' either.
    """
    merged = {}
    for name in dict.fromkeys(name for errors in frames for name in errors):
        none = 1.0 if name == "argmax_agreement" else 0.0
        values = [errors.get(name, none) for errors in frames]
        merged[name] = float(np.mean(values)) if name in _MEANS else max(values)
    return merged


def in_words(errors: Mapping[str, float], spec: OutputSpec) -> str:
    """Return errors for people: `exact`, `44.1 dB PSNR, max 19`, `mean 0.084, max 0.236 degrees`."""
    if not errors:
        return "exact"
    if "argmax_agreement" in errors:
        text = f"argmax {100 * errors['argmax_agreement']:.6g}%"
        if "kl_divergence" in errors:
            text += f", KL {errors['kl_divergence']:.1e}, max dP {errors['max_probability_error']:.4f}"
        return text
    if "max_degrees" in errors:
        return f"mean {errors['mean_degrees']:.3f}, max {errors['max_degrees']:.3f} degrees"
    largest = errors["max_error"]
    if "mean_squared_error" in errors and spec.dtype == "uint8":
        return f"{10 * np.log10(255**2 / errors['mean_squared_error']):.1f} dB PSNR, max {largest:.0f}"
    if "max_relative_error" in errors:
        return f"max {1000 * largest:.4g} mm, max {errors['max_relative_error']:.2e} of the value"
    return f"max {largest:.4g}" + (f" {spec.unit}" if spec.unit else "")
