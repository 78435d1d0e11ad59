"""From row numbers to tensors: read payloads, check them, decode them straight into the batch, compute virtual ones."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from vrekit.catalog.manifest import Manifest
from vrekit.codecs.registry import clip_codec, codec_from_config
from vrekit.core.checksum import crc32
from vrekit.core.errors import ChecksumError, CodecError, DatasetError
from vrekit.core.frames import Output
from vrekit.core.spec import OutputSpec
from vrekit.readers.clips import ClipReader
from vrekit.readers.index import MISSING, FrameIndex, Layout
from vrekit.readers.locks import ForkSafeLock
from vrekit.readers.payloads import PayloadReader
from vrekit.readers.subset import Missing
from vrekit.readers.virtual import VirtualRepresentation, computing_order, leaves

logger = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]
Batch = dict[str, Any]
# Names of a batch that are no representations.
FRAME_FIELDS = ("video_id", "frame_index", "pts_seconds", "key")
VALID_SUFFIX = ".valid"

Arrays = NDArray[Any] | list[NDArray[Any] | None]


@dataclass(slots=True)
class OpenBatch:
    """A batch that is being filled; threads fill different positions of it at once.

    Attributes:
        rows: Row of each frame, int64 (N,).
        arrays: Stored representations by name: one array (N, ...), or a list of N arrays.
        tensors: The tensors whose memory the arrays (N, ...) are.
        damaged: Which frames have a payload that could not be read, bool (N,).
    """

    rows: NDArray[np.int64]
    arrays: dict[str, Arrays]
    tensors: dict[str, torch.Tensor]
    damaged: NDArray[np.bool_]


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
        folders: tuple[Path, ...] = (),
    ) -> None:
        self.index = index
        self.names = tuple(names)
        self.skipped = 0
        self._payloads = payloads
        self._missing = missing
        self._verify = verify
        self._on_error = on_error
        self._stored, virtual = computing_order(manifest, names)
        records = manifest.representations
        self._specs = {name: records[name].stored for name in (*self._stored, *virtual)}
        self._clip_codecs = {
            name: codec for name in self._stored if (codec := clip_codec(records[name].codec)) is not None
        }
        self._clips = ClipReader()
        self._whole = [name for name in self._stored if name not in self._clip_codecs]
        self._codecs = {name: codec_from_config(records[name].codec or {}) for name in self._whole}
        for name in self._whole:
            if (index.columns[name].payload_index != MISSING).any():
                raise DatasetError(
                    f"frames of {name!r} share payloads (column payload_index), which its codec cannot read",
                    hint="pip install --upgrade vrekit",
                )
        self._virtual = {name: VirtualRepresentation(records[name], device, folders) for name in virtual}
        self._leaves = {name: leaves(manifest, name) for name in (*self._stored, *virtual)}
        self._stacked = {name: self._is_stacked(name) for name in (*self._stored, *virtual)}
        # the last entry is that of layout -1: no payload
        self._layout_bytes = np.array([layout.size_bytes for layout in index.layouts] + [0], np.int64)
        self._lock = ForkSafeLock()

    def _is_stacked(self, name: str) -> bool:
        spec = self._specs[name]
        columns = [self.index.columns[leaf] for leaf in self._leaves[name]]
        if spec.is_ragged or spec.dtype == "str":
            return False
        if self._missing is Missing.NONE and not all(column.present.all() for column in columns):
            return False
        return all(len(column.layout) == 0 or (column.layout == column.layout[0]).all() for column in columns)

    def is_stacked(self, name: str) -> bool:
        """Return whether a batch holds `name` as one tensor (N, ...); otherwise it holds a list of N."""
        return self._stacked[name]

    def size_bytes(self, rows: NDArray[np.int64]) -> int:
        """Return about how much memory reading these rows takes: payloads and decoded arrays."""
        columns = [self.index.columns[name] for name in self._stored]
        decoded = sum(int(self._layout_bytes[column.layout[rows]].sum()) for column in columns)
        # clips are in the memory that `ClipReader` has for them
        return decoded + sum(int(self.index.columns[name].size[rows].sum()) for name in self._whole)

    def read(self, rows: NDArray[np.int64]) -> Batch:
        """Return the batch of these rows."""
        batch = self.open(rows)
        self.fill(batch, np.arange(len(rows)))
        return self.finish(batch)

    def open(self, rows: NDArray[np.int64]) -> OpenBatch:
        """Return an empty batch for these rows."""
        arrays: dict[str, Arrays] = {}
        tensors = {}
        for name in self._stored:
            if not self._stacked[name] or not len(rows):
                arrays[name] = list[NDArray[Any] | None]([None] * len(rows))
            else:
                layout = self.index.layouts[self.index.columns[name].layout[rows[0]]]
                tensors[name] = _empty_tensor((len(rows), *layout.shape), layout.dtype)
                arrays[name] = tensors[name].numpy()
        return OpenBatch(rows, arrays, tensors, np.zeros(len(rows), np.bool_))

    def storage_order(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of `rows` sorted by where their payloads lie, so that a split keeps neighbours."""
        if not self._stored:
            return np.arange(len(rows))
        column = self.index.columns[self._stored[0]]
        return np.lexsort((column.payload_index[rows], column.offset[rows], column.shard[rows]))

    def fill(self, batch: OpenBatch, positions: NDArray[np.int64]) -> None:
        """Read and decode the stored representations of some positions of a batch.

        Raises:
            ChecksumError: If a payload differs from its checksum, unless damaged frames are skipped.
            CodecError: If a payload does not decode, likewise.
            DatasetError: If a shard is gone or ends too early, likewise.
        """
        try:
            payloads = self._payloads.read(batch.rows[positions], self._whole)
        except DatasetError as error:
            if self._on_error == "raise":
                raise
            if len(positions) == 1:
                self._skip(batch, int(positions[0]), error)
            else:
                for position in positions:
                    self.fill(batch, np.array([position]))
            return
        for name in self._whole:
            for position, payload in zip(positions.tolist(), payloads[name], strict=True):
                try:
                    self._decode(batch, name, position, payload)
                except CodecError as error:
                    if self._on_error == "raise":
                        raise
                    self._skip(batch, position, error)
        for name in self._clip_codecs:
            self._fill_from_clips(batch, name, positions)

    def _fill_from_clips(self, batch: OpenBatch, name: str, positions: NDArray[np.int64]) -> None:
        column = self.index.columns[name]
        rows = batch.rows[positions]
        for position in positions[column.shard[rows] == MISSING].tolist():
            self._decode(batch, name, position, None)
        positions = positions[column.shard[rows] != MISSING]
        rows = batch.rows[positions]
        order = np.lexsort((column.payload_index[rows], column.offset[rows], column.shard[rows]))
        positions, rows = positions[order], rows[order]
        starts = np.flatnonzero((np.diff(column.shard[rows]) != 0) | (np.diff(column.offset[rows]) != 0)) + 1
        for part in np.split(positions, starts) if len(positions) else ():
            try:
                self._fill_from_clip(batch, name, part)
            except (CodecError, DatasetError) as error:
                if self._on_error == "raise":
                    raise
                for position in part.tolist():
                    self._skip(batch, position, error)

    def _fill_from_clip(self, batch: OpenBatch, name: str, positions: NDArray[np.int64]) -> None:
        """Decode frames of one clip, in the order they have there."""
        column, arrays = self.index.columns[name], batch.arrays[name]
        rows = batch.rows[positions]
        first = int(rows[0])
        wanted, at = np.unique(column.payload_index[rows], return_inverse=True)
        place = (name, int(column.shard[first]), int(column.offset[first]))
        try:
            frames = self._clips.read(
                self._clip_codecs[name], place, lambda: self._load_clip(name, first), wanted.astype(np.int64)
            )
        except ChecksumError:
            raise
        except CodecError as error:
            raise CodecError(f"{self._place(name, first)}: {error.message}", hint=error.hint) from error
        layout = self.index.layouts[column.layout[first]]
        if frames.shape[1:] != layout.shape:
            raise CodecError(
                f"{self._place(name, first)}: the clip has frames {frames.shape[1:]}, expected {layout.shape}"
            )
        for position, number in zip(positions.tolist(), at.tolist(), strict=True):
            if isinstance(arrays, np.ndarray):
                arrays[position] = frames[number]
            else:
                arrays[position] = frames[number].copy()

    def _load_clip(self, name: str, row: int) -> bytes:
        payload = self._payloads.read(np.array([row]), [name])[name][0]
        if payload is None:
            raise DatasetError(f"{self._place(name, row)}: its clip is not there")
        self._verify_payload(name, row, payload)
        return bytes(payload)

    def _decode(self, batch: OpenBatch, name: str, position: int, payload: memoryview | None) -> None:
        row = int(batch.rows[position])
        column, arrays = self.index.columns[name], batch.arrays[name]
        if payload is None and self._missing is Missing.NONE:
            return
        layout = self.index.layouts[column.layout[row]]
        # [position, ...] is a view even where a frame is a single number
        out = arrays[position, ...] if isinstance(arrays, np.ndarray) else None
        if payload is None:
            filled = np.full(layout.shape, fill_value(self._specs[name], layout.dtype), layout.dtype)
            if out is None:
                arrays[position] = filled
            else:
                out[...] = filled
            return
        self._verify_payload(name, row, payload)
        try:
            array = self._codecs[name].decode(payload, dtype=layout.dtype, shape=layout.shape, out=out)
        except CodecError as error:
            raise CodecError(f"{self._place(name, row)}: {error.message}", hint=error.hint) from error
        if out is None:
            arrays[position] = array

    def _verify_payload(self, name: str, row: int, payload: memoryview) -> None:
        expected = int(self.index.columns[name].checksum[row])
        if self._verify and crc32(payload) != expected:
            raise ChecksumError(
                f"{self._place(name, row)}: the stored bytes have CRC-32 {crc32(payload):08x}, "
                f"expected {expected:08x}: they changed since they were written",
                hint="`vrekit validate` lists what is damaged; on_error='skip' leaves such frames out",
            )

    def _place(self, name: str, row: int) -> str:
        shard = self.index.shards[self.index.columns[name].shard[row]]
        return f"{shard}: frame {self.index.key(row)}, representation {name!r}"

    def _skip(self, batch: OpenBatch, position: int, error: Exception) -> None:
        with self._lock:
            if batch.damaged[position]:
                return
            batch.damaged[position] = True
            self.skipped += 1
            first = self.skipped == 1
        log = logger.warning if first else logger.debug
        log("skipped a damaged frame: %s%s", error, "; more are counted, not logged" if first else "")

    def finish(self, batch: OpenBatch) -> Batch:
        """Return a filled batch as tensors and lists, with its virtual representations computed.

        Raises:
            DatasetError: If every frame of it is damaged.
        """
        if batch.damaged.any():
            batch = _without_damaged(batch)
        rows = batch.rows
        outputs: dict[str, tuple[Arrays, NDArray[np.bool_]]] = {}
        for name in self._stored:
            outputs[name] = (batch.arrays[name], self.index.columns[name].valid[rows])
        for name, representation in self._virtual.items():
            outputs[name] = self._compute(representation, rows, outputs)
        result: Batch = {}
        for name in self.names:
            arrays, valid = outputs[name]
            tensor = batch.tensors.get(name)
            result[name] = _to_torch(arrays, is_text=self._specs[name].dtype == "str") if tensor is None else tensor
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
    ) -> tuple[Arrays, NDArray[np.bool_]]:
        name = representation.record.spec.name
        spec = self._specs[name]
        present = np.ones(len(rows), np.bool_)
        for leaf in self._leaves[name]:
            present &= self.index.columns[leaf].present[rows]
        computed: list[NDArray[Any] | None] = [None] * len(rows)
        valid = np.zeros(len(rows), np.bool_)
        # compute gets frames of one video at a time
        video = self.index.video[rows]
        for code in np.unique(video[present]).tolist():
            positions = np.flatnonzero(present & (video == code))
            dependencies = {
                dependency: Output(data=_select(arrays, positions), valid=dependency_valid[positions])
                for dependency, (arrays, dependency_valid) in outputs.items()
                if dependency in representation.record.spec.dependencies
            }
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


def fallback_layout(spec: OutputSpec) -> Layout:
    """Return the layout of a filled frame when no other frame shows one; ragged axes have length 0."""
    return Layout(np.dtype(spec.dtype), tuple(length or 0 for length in spec.shape))


def fill_value(spec: OutputSpec, dtype: np.dtype[Any]) -> Any:
    """Return what stands for "no measurement": the spec's invalid value, else NaN, 0, False or an empty text."""
    if dtype.kind == "U":
        return ""
    if spec.invalid_value is not None:
        return dtype.type(float(spec.invalid_value))
    return dtype.type(np.nan if dtype.kind in "fc" else 0)


def _empty_tensor(shape: tuple[int, ...], dtype: np.dtype[Any]) -> torch.Tensor:
    torch_dtype = torch.from_numpy(np.empty(0, dtype)).dtype
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch_dtype)
    # Worker processes hand tensors over through shared memory: decoding into it saves copying every batch.
    size_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    storage = torch.UntypedStorage._new_shared(size_bytes)  # type: ignore[no-untyped-call]  # torch's stubs
    return torch.empty(0, dtype=torch_dtype).set_(storage).view(shape)


def _to_torch(arrays: Arrays, *, is_text: bool) -> Any:
    if isinstance(arrays, np.ndarray):
        return torch.from_numpy(arrays)
    if is_text:
        return [None if array is None else str(array[()]) for array in arrays]
    return [None if array is None else torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


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


def _without_damaged(batch: OpenBatch) -> OpenBatch:
    keep = np.flatnonzero(~batch.damaged)
    if not len(keep):
        raise DatasetError(
            f"all {len(batch.rows)} frames of a batch are damaged", hint="`vrekit validate` lists what is damaged"
        )
    arrays: dict[str, Arrays] = {
        name: array[keep] if isinstance(array, np.ndarray) else [array[at] for at in keep.tolist()]
        for name, array in batch.arrays.items()
    }
    tensors = {name: tensor[torch.from_numpy(keep)] for name, tensor in batch.tensors.items()}
    return OpenBatch(batch.rows[keep], arrays, tensors, np.zeros(len(keep), np.bool_))
