"""One batch through the graph: compute in order, convert to the stored form, encode. Runs in worker threads."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import ClipCodec, Codec
from vrekit.core.errors import ComputeError, VrekitError
from vrekit.core.frames import FrameBatch, Output
from vrekit.core.schema import SampleRow
from vrekit.engine.clip_checks import ClipFrame, pixels_checksum
from vrekit.graph.build import Graph, Node
from vrekit.representations.base import LearnedRepresentation
from vrekit.representations.resize import resize_output
from vrekit.writers.base import Payload


@dataclass(slots=True)
class Computed:
    """What one representation gave for a batch: arrays by frame number, and reasons for the frames without one."""

    arrays: dict[int, NDArray[Any]] = field(default_factory=dict)
    valid: dict[int, bool] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    def output(self, frames: Sequence[int]) -> Output:
        """Return these frames as the Output a dependent's `compute` takes."""
        arrays = [self.arrays[frame] for frame in frames]
        same = len({array.shape for array in arrays}) == 1 and arrays[0].dtype.kind != "U"
        return Output(
            data=_stack(arrays) if same else arrays, valid=np.array([self.valid[frame] for frame in frames], bool)
        )


def _stack(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    # Frames of one compute call are views of one array: hand that back instead of copying it.
    first = arrays[0].base
    if isinstance(first, np.ndarray) and first.shape[1:] == arrays[0].shape and len(first) == len(arrays):
        starts = [array.__array_interface__["data"][0] for array in arrays]
        expected = [first.__array_interface__["data"][0] + i * first.strides[0] for i in range(len(arrays))]
        if starts == expected:
            return first
    return np.stack(arrays)


class BatchProcessor:
    """Computes and encodes batches; several threads may call `process` at once."""

    def __init__(self, graph: Graph, *, batch_size: int | None = None) -> None:
        self.graph = graph
        self._sizes = {name: node.spec.batch_size or batch_size or 1 << 30 for name, node in graph.nodes.items()}
        self._locks = {name: threading.Lock() for name, node in graph.nodes.items() if not node.instance.thread_safe}
        self._loaded: list[LearnedRepresentation] = []
        self._load_lock = threading.Lock()

    def compute(
        self, batch: FrameBatch, names: Sequence[str], given: Mapping[str, Computed], decode_errors: Mapping[int, str]
    ) -> dict[str, Computed]:
        """Compute representations for a batch.

        Args:
            batch: The frames that decoded.
            names: Representations to compute, each after its dependencies.
            given: Dependencies that need no computing because they were read back from the dataset.
            decode_errors: Frames that did not decode; they fail for every representation.
        """
        results = dict(given)
        for name in names:
            node = self.graph.nodes[name]
            result = Computed()
            positions = []
            for position, frame in enumerate(batch.indices.tolist()):
                reason = self._why_not(node, frame, results)
                if reason is None:
                    positions.append(position)
                else:
                    result.errors[frame] = reason
            result.errors.update(decode_errors)
            started = time.perf_counter()
            self._compute_positions(node, batch, positions, results, result)
            result.seconds = time.perf_counter() - started
            results[name] = result
        return results

    def _why_not(self, node: Node, frame: int, results: Mapping[str, Computed]) -> str | None:
        for dependency in node.spec.dependencies:
            if frame not in results[dependency].arrays:
                return f"dependency {dependency!r} failed: {results[dependency].errors.get(frame, 'not computed')}"
        return None

    def _compute_positions(
        self,
        node: Node,
        batch: FrameBatch,
        positions: list[int],
        results: Mapping[str, Computed],
        result: Computed,
    ) -> None:
        at = 0
        while at < len(positions):
            chunk = positions[at : at + self._sizes[node.name]]
            try:
                self._compute_chunk(node, batch, chunk, results, result)
            except Exception as error:
                if _is_out_of_memory(error) and len(chunk) > 1:
                    self._sizes[node.name] = max(1, len(chunk) // 2)
                    continue
                if _is_lasting(error):
                    raise
                if len(chunk) == 1:
                    result.errors[int(batch.indices[chunk[0]])] = _reason(error)
                else:
                    self._compute_singly(node, batch, chunk, results, result)
            at += len(chunk)

    def _compute_singly(
        self,
        node: Node,
        batch: FrameBatch,
        chunk: list[int],
        results: Mapping[str, Computed],
        result: Computed,
    ) -> None:
        for position in chunk:
            try:
                self._compute_chunk(node, batch, [position], results, result)
            except Exception as error:
                if _is_lasting(error):
                    raise
                result.errors[int(batch.indices[position])] = _reason(error)

    def _compute_chunk(
        self,
        node: Node,
        batch: FrameBatch,
        chunk: list[int],
        results: Mapping[str, Computed],
        result: Computed,
    ) -> None:
        part = _take(batch, chunk)
        frames = part.indices.tolist()
        dependencies = {name: results[name].output(frames) for name in node.spec.dependencies}
        lock = self._locks.get(node.name)
        if lock is None:
            output = node.instance.compute(part, dependencies)
        else:
            with lock:
                self._ensure_loaded(node)
                output = node.instance.compute(part, dependencies)
        if not isinstance(output, Output):
            raise ComputeError(
                f"compute of {node.name} ({node.spec.type}) returned {type(output).__name__}, not an Output"
            )
        if len(output) != len(frames):
            raise ComputeError(
                f"{node.name} ({node.spec.type}) returned {len(output)} outputs for {len(frames)} frames"
            )
        for position, frame in enumerate(frames):
            array = output.frame(position)
            _check_array(node, array)
            result.arrays[frame] = array
            result.valid[frame] = output.is_valid(position)

    def _ensure_loaded(self, node: Node) -> None:
        instance = node.instance
        if isinstance(instance, LearnedRepresentation):
            with self._load_lock:
                if instance not in self._loaded:
                    try:
                        instance.load_weights(node.spec.device)
                    except VrekitError:
                        raise
                    except Exception as error:
                        raise _WeightsError(f"{node.name} ({node.spec.type}): no weights: {_reason(error)}") from error
                    self._loaded.append(instance)

    def close(self) -> None:
        """Free the weights of learned representations."""
        for instance in self._loaded:
            instance.unload_weights()
        self._loaded.clear()

    def encode(self, name: str, computed: Computed, frame: int, row: SampleRow, suffix: str = "") -> Payload:
        """Return the payload of one frame; a frame that failed, or that its codec refuses, is a failed row.

        Args:
            name: Representation.
            computed: Its result for the batch.
            frame: Frame number.
            row: Columns that do not depend on the result.
            suffix: File name ending of its payloads.
        """
        node = self.graph.nodes[name]
        codec = node.codec
        if not isinstance(codec, Codec):
            raise TypeError(f"{name} is virtual or stored in clips, and cannot be encoded frame by frame")
        if frame not in computed.arrays:
            return Payload(replace(row, status="failed", error=computed.errors.get(frame, "not computed")))
        started = time.perf_counter()
        try:
            array = self.stored_form(name, computed, frame)
            data = codec.encode(array)
        except Exception as error:
            return Payload(replace(row, status="failed", error=_reason(error)))
        dtype, shape = codec.decoded_layout(array.dtype, array.shape)
        done = replace(
            row,
            valid=computed.valid[frame],
            encode_seconds=time.perf_counter() - started,
            codec=codec.id,
            dtype="str" if dtype.kind == "U" else dtype.name,
            shape=tuple(shape),
            raw_bytes=int(np.prod(shape, dtype=np.int64)) * dtype.itemsize,
        )
        return Payload(done, suffix, data)

    def clip_frame(self, name: str, computed: Computed, frame: int, row: SampleRow, *, by_decoder: bool) -> ClipFrame:
        """Return one frame of a representation that is stored in clips; arguments as for `encode`.

        Args:
            name: Representation.
            computed: Its result for the batch.
            frame: Frame number.
            row: Columns that do not depend on the result.
            by_decoder: Whether the source's frame did not decode.
        """
        codec = self.graph.nodes[name].codec
        if not isinstance(codec, ClipCodec):
            raise TypeError(f"{name} is not stored in clips")
        reason = computed.errors.get(frame, "not computed")
        if frame in computed.arrays:
            try:
                array = self.stored_form(name, computed, frame)
                checksum = pixels_checksum(array)
            except Exception as error:
                reason = _reason(error)
            else:
                done = replace(
                    row,
                    valid=computed.valid[frame],
                    codec=codec.id,
                    dtype=array.dtype.name,
                    shape=array.shape,
                    raw_bytes=array.nbytes,
                )
                return ClipFrame(done, checksum, None if codec.copies_source else array)
        return ClipFrame(replace(row, status="failed", error=reason), by_decoder=by_decoder)

    def stored_form(self, name: str, computed: Computed, frame: int) -> NDArray[Any]:
        """Return what goes into the codec for one frame: the computed array at its output size and dtype."""
        node, array = self.graph.nodes[name], computed.arrays[frame]
        size, dtype = node.spec.output_size, node.spec.output_dtype
        if size is None and dtype is None:
            return array
        output = Output(data=array[None])
        resized, _ = resize_output(output, node.memory, size, dtype, frame_size=node.frame_size)
        return resized.frame(0)


def _take(batch: FrameBatch, positions: list[int]) -> FrameBatch:
    if len(positions) == len(batch):
        return batch
    start, stop = positions[0], positions[-1] + 1
    if stop - start == len(positions):
        chosen: slice | list[int] = slice(start, stop)  # a view; a list would copy the pixels
    else:
        chosen = positions
    neighbours = dict(batch.neighbours)
    neighbours.update(zip(batch.indices.tolist(), batch.frames, strict=True))
    return FrameBatch(
        frames=batch.frames[chosen],
        indices=batch.indices[chosen],
        pts_seconds=batch.pts_seconds[chosen],
        neighbours=neighbours,
    )


def _check_array(node: Node, array: NDArray[Any]) -> None:
    spec = node.memory
    if spec.dtype == "str":
        return
    fits = len(array.shape) == len(spec.shape) and all(
        want is None or want == got for want, got in zip(spec.shape, array.shape, strict=True)
    )
    if not fits or array.dtype != np.dtype(spec.dtype):
        raise ComputeError(
            f"{node.name} ({node.spec.type}) returned {array.dtype} {array.shape}, "
            f"but its output_spec promises {spec.dtype} {spec.shape}"
        )


class _WeightsError(ComputeError):
    """Weights that do not load."""


def _is_lasting(error: Exception) -> bool:
    """Return whether trying frame by frame is no use: a missing package, missing weights, a full disk."""
    if isinstance(error, _WeightsError):
        return True
    return isinstance(error, VrekitError) and not isinstance(error, (ComputeError, ValueError))


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _reason(error: Exception) -> str:
    # what cannot be stored as text: the name of a file that is not UTF-8
    text = str(error).strip().encode(errors="backslashreplace").decode() or "no message"
    return text if isinstance(error, VrekitError) else f"{type(error).__name__}: {text}"
