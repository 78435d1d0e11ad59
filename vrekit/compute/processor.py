"""One batch through the graph: compute in order, convert to the output form. Runs in worker threads."""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vrekit.core.errors import ComputeError, VrekitError
from vrekit.core.frames import FrameBatch, Output
from vrekit.graph.build import Graph, Node
from vrekit.representations.base import LearnedRepresentation
from vrekit.representations.resize import resize_output


class Computed:
    """What one representation gave for a batch: whole outputs, and reasons for the frames without one.

    One thread at a time uses an object.

    Attributes:
        errors: Why a frame has no array, by frame number.
        seconds: How long computing took.
    """

    def __init__(self) -> None:
        self.errors: dict[int, str] = {}
        self.seconds = 0.0
        self._outputs: list[Output] = []
        self._in_numpy: dict[int, Output] = {}
        self._places: dict[int, tuple[int, int]] = {}  # frame number → output, position in it

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, frame: int) -> bool:
        return frame in self._places

    def add(self, frames: Sequence[int], output: Output) -> None:
        """Take the output for some frames, which has one array for each."""
        number = len(self._outputs)
        self._outputs.append(output)
        self._places.update((frame, (number, position)) for position, frame in enumerate(frames))

    def array(self, frame: int) -> NDArray[Any]:
        """Return the array of one frame."""
        number, position = self._places[frame]
        return self._numpy(number).frame(position)

    def is_valid(self, frame: int) -> bool:
        """Return whether a frame holds a measurement."""
        number, position = self._places[frame]
        return self._outputs[number].is_valid(position)

    def output(self, frames: Sequence[int], *, tensors: bool = False) -> Output:
        """Return some frames as the Output that a dependent's `compute` takes.

        Args:
            frames: Frame numbers; they have arrays.
            tensors: Leave torch tensors as they are.
        """
        places = [self._places[frame] for frame in frames]
        number, start = places[0]
        valid = np.array([self.is_valid(frame) for frame in frames], np.bool_)
        of_one = self._outputs[number] if tensors else self._numpy(number)
        if not isinstance(of_one.data, Sequence) and _has_axes(of_one.data):
            if places == [(number, position) for position in range(start, start + len(frames))]:
                return Output(data=of_one.data[start : start + len(frames)], valid=valid)
            if tensors and not isinstance(of_one.data, np.ndarray) and all(place[0] == number for place in places):
                return Output(data=of_one.data[[position for _, position in places]], valid=valid)
        arrays = [self.array(frame) for frame in frames]
        same = len({array.shape for array in arrays}) == 1 and arrays[0].dtype.kind != "U"
        return Output(data=np.stack(arrays) if same else arrays, valid=valid)

    def let_go(self) -> None:
        """Free the arrays; nothing can be asked for any more."""
        self._outputs.clear()
        self._in_numpy.clear()
        self._places.clear()

    def _numpy(self, number: int) -> Output:
        if number not in self._in_numpy:
            self._in_numpy[number] = self._outputs[number].as_numpy()
        return self._in_numpy[number]


def _has_axes(data: Any) -> bool:
    return not isinstance(data, np.ndarray) or data.dtype.kind != "U"


class BatchProcessor:
    """Computes batches; several threads may call `compute` at once."""

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
            if frame not in results[dependency]:
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
                    result.errors[int(batch.indices[chunk[0]])] = reason_of(error)
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
                result.errors[int(batch.indices[position])] = reason_of(error)

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
        tensors = node.instance.takes_tensors
        dependencies = {name: results[name].output(frames, tensors=tensors) for name in node.spec.dependencies}
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
        _check_output(node, output)
        result.add(frames, output)

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
                        raise _WeightsError(
                            f"{node.name} ({node.spec.type}): no weights: {reason_of(error)}"
                        ) from error
                    self._loaded.append(instance)

    def close(self) -> None:
        """Free the weights of learned representations."""
        for instance in self._loaded:
            instance.unload_weights()
        self._loaded.clear()

    def stored_form(self, name: str, computed: Computed, frame: int) -> NDArray[Any]:
        """Return what goes into the codec for one frame: the computed array at its output size and dtype."""
        node, array = self.graph.nodes[name], computed.array(frame)
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


def _check_output(node: Node, output: Output) -> None:
    spec = node.memory
    if spec.dtype == "str":
        return
    arrays: list[tuple[tuple[int, ...], str]]
    if isinstance(output.data, Sequence):
        arrays = [(tuple(array.shape), _dtype_name(array)) for array in map(_with_shape, output.data)]
    else:
        arrays = [(tuple(output.data.shape[1:]), _dtype_name(output.data))]
    for shape, dtype in arrays:
        fits = len(shape) == len(spec.shape) and all(
            want is None or want == got for want, got in zip(spec.shape, shape, strict=True)
        )
        if not fits or dtype != np.dtype(spec.dtype).name:
            raise ComputeError(
                f"{node.name} ({node.spec.type}) returned {dtype} {shape}, "
                f"but its output_spec promises {spec.dtype} {spec.shape}"
            )


def _with_shape(array: Any) -> Any:
    return array if hasattr(array, "shape") else np.asarray(array)


def _dtype_name(array: Any) -> str:
    return str(array.dtype).removeprefix("torch.")


class _WeightsError(ComputeError):
    """Weights that do not load."""


def _is_lasting(error: Exception) -> bool:
    """Return whether trying frame by frame is no use: a missing package, missing weights, a full disk."""
    if isinstance(error, _WeightsError):
        return True
    return isinstance(error, VrekitError) and not isinstance(error, (ComputeError, ValueError))


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def reason_of(error: Exception) -> str:
    """Return an error as a metadata row keeps it."""
    # what cannot be stored as text: the name of a file that is not UTF-8
    text = str(error).strip().encode(errors="backslashreplace").decode() or "no message"
    return text if isinstance(error, VrekitError) else f"{type(error).__name__}: {text}"
