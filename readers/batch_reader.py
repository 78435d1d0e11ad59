"""Any rows of an index as a batch: stored representations, and virtual ones computed from them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest
from vrekit.catalog.storage import PayloadReader
from vrekit.catalog.trust import RecordedCode
from vrekit.core.errors import DatasetError
from vrekit.core.frames import Output
from vrekit.readers.clips import ClipReader
from vrekit.readers.index import FrameIndex, Layout
from vrekit.readers.open_batch import Arrays, OpenBatch, empty_tensor, fallback_layout, fill_value, to_torch
from vrekit.readers.pages import PagePool
from vrekit.readers.stored_reader import OnError, StoredReader
from vrekit.readers.subset import Missing
from vrekit.readers.virtual import VirtualRepresentation, computing_order

Batch = dict[str, Any]
# Names of a batch that are no representations.
FRAME_FIELDS = ("video_id", "frame_index", "pts_seconds", "key")
VALID_SUFFIX = ".valid"


class BatchReader:
    """Reads any rows of an index as a batch.

    A batch is made in three steps, so that threads can share the second: `open`, `fill` (any split of the
    positions), `finish`. `read` does all three.
    """

    def __init__(
        self,
        manifest: Manifest,
        index: FrameIndex,
        payloads: PayloadReader,
        names: Sequence[str],
        *,
        missing: Missing,
        verify: bool,
        on_error: OnError,
        device: str,
        code: RecordedCode,
    ) -> None:
        self.index = index
        self.names = tuple(names)
        self._missing = missing
        self._stored, virtual = computing_order(manifest, names)
        self._clips = ClipReader()
        self._pages = PagePool()
        self._reader = StoredReader(
            manifest,
            index,
            payloads,
            self._stored,
            clips=self._clips,
            missing=missing,
            verify=verify,
            on_error=on_error,
        )
        records = manifest.representations
        self._specs = {name: records[name].stored for name in (*self._stored, *virtual)}
        self._virtual = {name: VirtualRepresentation(records[name], device, code) for name in virtual}
        uniform = {name: self._is_uniform(name) for name in self._stored}
        for name in virtual:  # dependencies come first
            uniform[name] = all(uniform[dependency] for dependency in records[name].spec.dependencies)
        self._stacked = {
            name: uniform[name] and not spec.is_ragged and spec.dtype != "str" for name, spec in self._specs.items()
        }

    @property
    def skipped(self) -> int:
        """Number of damaged frames left out so far, in this process."""
        return self._reader.skipped

    def _is_uniform(self, name: str) -> bool:
        """Return whether every frame holds the stored `name`, in one shape and dtype."""
        column = self.index.columns[name]
        if self._missing is Missing.NONE and not column.present.all():
            return False
        return len(column.layout) == 0 or bool((column.layout == column.layout[0]).all())

    def is_stacked(self, name: str) -> bool:
        """Return whether a batch holds `name` as one tensor (N, ...); otherwise it holds a list of N."""
        return self._stacked[name]

    def size_bytes(self, rows: NDArray[np.int64]) -> int:
        """Return about how much memory reading these rows takes."""
        return self._reader.size_bytes(rows)

    def read(self, rows: NDArray[np.int64]) -> Batch:
        """Return the batch of these rows."""
        batch = self.open(rows)
        self.fill(batch, np.arange(len(rows)))
        return self.finish(batch)

    def open(self, rows: NDArray[np.int64]) -> OpenBatch:
        """Return an empty batch for these rows.

        Raises:
            DatasetError: If there is not enough memory for it.
        """
        arrays: dict[str, Arrays] = {}
        tensors = {}
        for name in self._stored:
            if not self._stacked[name] or not len(rows):
                arrays[name] = list[NDArray[Any] | None]([None] * len(rows))
            else:
                layout = self.index.layouts[self.index.columns[name].layout[rows[0]]]
                try:
                    tensors[name] = empty_tensor((len(rows), *layout.shape), layout.dtype, self._pages)
                except (MemoryError, OSError, RuntimeError) as error:
                    raise DatasetError(
                        f"{len(rows)} frames of {name!r}, {layout.dtype} {layout.shape} each, take "
                        f"{len(rows) * layout.size_bytes / 1e9:.1f} GB of memory, which is not to be had: {error}",
                        hint="take a smaller `batch_size`; if frames are not that large, `vrekit validate` says where",
                    ) from error
                arrays[name] = tensors[name].numpy()
        return OpenBatch(rows, arrays, tensors, np.zeros(len(rows), np.bool_))

    def storage_order(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of `rows` sorted by where their payloads lie, so that a split keeps neighbours."""
        if not self._stored:
            return np.arange(len(rows))
        column = self.index.columns[self._stored[0]]
        return np.lexsort((column.payload_index[rows], column.offset[rows], column.shard[rows]))

    def fill(self, batch: OpenBatch, positions: NDArray[np.int64]) -> None:
        """Read and decode the stored representations of some positions of a batch; see `StoredReader.fill`."""
        self._reader.fill(batch, positions)

    def finish(self, batch: OpenBatch) -> Batch:
        """Return a filled batch as tensors and lists, with its virtual representations computed.

        Raises:
            DatasetError: If every frame of it is damaged, or there is not enough memory for virtual ones.
        """
        if batch.damaged.any():
            batch = batch.without_damaged()
        rows = batch.rows
        outputs: dict[str, tuple[Arrays, NDArray[np.bool_]]] = {}
        for name in self._stored:
            outputs[name] = (batch.arrays[name], self.index.columns[name].valid[rows])
        present: dict[str, NDArray[np.bool_]] = {}  # whether each row has what a representation is computed from
        if self._virtual:
            present = {name: self.index.columns[name].present[rows] for name in self._stored}
        for name, representation in self._virtual.items():  # dependencies come first
            try:
                present[name] = _all_present(present, representation.record.spec.dependencies, len(rows))
                outputs[name] = self._compute(representation, rows, outputs, present[name])
            except MemoryError as error:
                raise DatasetError(
                    f"{name!r} of {len(rows)} frames, computed on read, needs more memory than there is: {error}",
                    hint="take a smaller `batch_size`; `vrekit info` tells how large a frame is",
                ) from error
        result: Batch = {}
        for name in self.names:
            arrays, valid = outputs[name]
            tensor = batch.tensors.get(name)
            result[name] = to_torch(arrays, is_text=self._specs[name].dtype == "str") if tensor is None else tensor
            result[name + VALID_SUFFIX] = torch.from_numpy(np.array(valid))
        videos = [self.index.videos[code] for code in self.index.video[rows].tolist()]
        result["video_id"] = videos
        result["frame_index"] = torch.from_numpy(self.index.frame_index[rows])
        result["pts_seconds"] = torch.from_numpy(self.index.pts_seconds[rows])
        result["key"] = [self.index.key(row) for row in rows.tolist()]
        return result

    def _compute(
        self,
        representation: VirtualRepresentation,
        rows: NDArray[np.int64],
        outputs: Mapping[str, tuple[Arrays, NDArray[np.bool_]]],
        present: NDArray[np.bool_],
    ) -> tuple[Arrays, NDArray[np.bool_]]:
        name = representation.record.spec.name
        spec = self._specs[name]
        computed: list[NDArray[Any] | None] = [None] * len(rows)
        valid = np.zeros(len(rows), np.bool_)
        # compute gets frames of one video at a time
        video = self.index.video[rows]
        for code in np.unique(video[present]).tolist():
            positions = np.flatnonzero(present & (video == code))
            dependencies = {}
            for dependency in representation.record.spec.dependencies:
                arrays, dependency_valid = outputs[dependency]
                dependencies[dependency] = Output(data=_select(arrays, positions), valid=dependency_valid[positions])
            chosen = rows[positions]
            output = representation.compute(
                self.index.frame_index[chosen], self.index.pts_seconds[chosen], dependencies
            )
            if len(positions) == len(rows) and self._stacked[name] and isinstance(output.data, np.ndarray):
                return _own(output.data, dependencies), _valid(output)
            for at, position in enumerate(positions.tolist()):
                computed[position] = output.frame(at)
            valid[positions] = _valid(output)
        if self._missing is Missing.FILL and not present.all():
            example = next((array for array in computed if array is not None), None)
            layout = fallback_layout(spec) if example is None else Layout(example.dtype, example.shape)
            if spec.is_ragged:
                layout = fallback_layout(spec)
            for position in np.flatnonzero(~present).tolist():
                computed[position] = np.full(layout.shape, fill_value(spec, layout.dtype), layout.dtype)
        return (np.stack(computed) if self._stacked[name] and len(rows) else computed), valid  # type: ignore[arg-type]  # stacked: no None


def _all_present(
    present: Mapping[str, NDArray[np.bool_]], dependencies: Iterable[str], count: int
) -> NDArray[np.bool_]:
    """Return which of `count` rows have all of `dependencies`."""
    result = np.ones(count, np.bool_)
    for dependency in dependencies:
        result &= present[dependency]
    return result


def _select(arrays: Arrays, positions: NDArray[np.int64]) -> Any:
    """Return some frames of a representation as `compute` takes them: one array where the shapes agree."""
    if isinstance(arrays, np.ndarray):
        return arrays if len(positions) == len(arrays) else arrays[positions]
    chosen = [array for array in (arrays[position] for position in positions.tolist()) if array is not None]
    same = len({array.shape for array in chosen}) == 1 and chosen[0].dtype.kind != "U"
    return np.stack(chosen) if same else chosen


def _own(array: NDArray[Any], dependencies: Mapping[str, Output]) -> NDArray[Any]:
    """Return a writable array that shares no memory with a dependency: changing one tensor must not change another."""
    sources = [output.data for output in dependencies.values() if isinstance(output.data, np.ndarray)]
    shared = any(np.may_share_memory(array, source) for source in sources)
    return np.array(array) if shared else np.require(array, requirements=["C", "W"])


def _valid(output: Output) -> NDArray[np.bool_]:
    return np.ones(len(output), np.bool_) if output.valid is None else np.asarray(output.valid, np.bool_)
