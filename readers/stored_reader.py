"""From row numbers to arrays: payloads are read, checked, and decoded straight into the batch."""

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest
from vrekit.catalog.storage import PayloadReader
from vrekit.codecs.base import ClipCodec
from vrekit.core.errors import CodecError, DatasetError
from vrekit.core.fork_lock import ForkSafeLock
from vrekit.readers.clips import ClipReader
from vrekit.readers.index import MISSING, FrameIndex
from vrekit.readers.open_batch import OpenBatch, fill_value
from vrekit.readers.payloads import StoredPayloads
from vrekit.readers.subset import Missing

logger = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]
_HINT = "`vrekit validate` lists what is damaged; on_error='skip' leaves such frames out"


class StoredReader:
    """Fills batches with stored representations; threads may call it at once.

    Args:
        manifest: The dataset's manifest.
        index: The frames to read.
        payloads: Where their payloads are read.
        names: Stored representations to read.
        clips: Decodes those whose payloads are clips.
        missing: What a frame without a payload gets: nothing under `none`, else the invalid value.
        verify: Check every payload against its CRC-32.
        on_error: `"raise"`, or `"skip"` to mark damaged frames in the batch.

    Raises:
        DatasetError: If a codec is not to be had here, or frames share payloads that their codec cannot read.

    Attributes:
        skipped: Number of damaged frames left out so far, in this process.
    """

    def __init__(
        self,
        manifest: Manifest,
        index: FrameIndex,
        payloads: PayloadReader,
        names: Sequence[str],
        *,
        clips: ClipReader,
        missing: Missing,
        verify: bool,
        on_error: OnError,
    ) -> None:
        self.skipped = 0
        self._index = index
        self._payloads = StoredPayloads(manifest, index, payloads, hint=_HINT, clips=clips, verify=verify)
        self._names = tuple(names)
        self._missing = missing
        self._on_error = on_error
        self._specs = {name: manifest.representations[name].stored for name in names}
        self._in_clips = [name for name in names if isinstance(self._payloads.codec(name), ClipCodec)]
        self._whole = [name for name in names if name not in self._in_clips]
        for name in self._whole:
            if (index.columns[name].payload_index != MISSING).any():
                raise DatasetError(
                    f"frames of {name!r} share payloads (column payload_index), which its codec cannot read",
                    hint="pip install --upgrade vrekit",
                )
        # the last entry is that of layout -1: no payload
        self._layout_bytes = np.array([layout.size_bytes for layout in index.layouts] + [0], np.int64)
        self._lock = ForkSafeLock()

    def size_bytes(self, rows: NDArray[np.int64]) -> int:
        """Return about how much memory reading these rows takes: payloads and decoded arrays."""
        columns = [self._index.columns[name] for name in self._names]
        decoded = sum(int(self._layout_bytes[column.layout[rows]].sum()) for column in columns)
        # clips are in the memory that `ClipReader` has for them
        return decoded + sum(int(self._index.columns[name].size[rows].sum()) for name in self._whole)

    def fill(self, batch: OpenBatch, positions: NDArray[np.int64]) -> None:
        """Read and decode some positions of a batch.

        Raises:
            ChecksumError: If a payload differs from its checksum, unless damaged frames are skipped.
            CodecError: If a payload does not decode, likewise.
            DatasetError: If a shard is gone or ends too early, likewise.
        """
        try:
            payloads = self._payloads.read(batch.rows[positions], self._whole)
        except (CodecError, DatasetError) as error:
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
        for name in self._in_clips:
            self._fill_from_clips(batch, name, positions)

    def _fill_from_clips(self, batch: OpenBatch, name: str, positions: NDArray[np.int64]) -> None:
        column = self._index.columns[name]
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
        column, arrays = self._index.columns[name], batch.arrays[name]
        rows = batch.rows[positions]
        first = int(rows[0])
        wanted, at = np.unique(column.payload_index[rows], return_inverse=True)
        frames = self._payloads.clip_frames(name, first, wanted.astype(np.int64))
        for position, number in zip(positions.tolist(), at.tolist(), strict=True):
            if isinstance(arrays, np.ndarray):
                arrays[position] = frames[number]
            else:
                arrays[position] = frames[number].copy()

    def _decode(self, batch: OpenBatch, name: str, position: int, payload: memoryview | None) -> None:
        row = int(batch.rows[position])
        column, arrays = self._index.columns[name], batch.arrays[name]
        if payload is None and self._missing is Missing.NONE:
            return
        # [position, ...] is a view even where a frame is a single number
        out = arrays[position, ...] if isinstance(arrays, np.ndarray) else None
        if payload is None:
            layout = self._index.layouts[column.layout[row]]
            array = np.full(layout.shape, fill_value(self._specs[name], layout.dtype), layout.dtype)
            if out is not None:
                out[...] = array
        else:
            array = self._payloads.decode(name, row, payload, out)
        if out is None:
            arrays[position] = array

    def _skip(self, batch: OpenBatch, position: int, error: Exception) -> None:
        with self._lock:
            if batch.damaged[position]:
                return
            batch.damaged[position] = True
            self.skipped += 1
            first = self.skipped == 1
        log = logger.warning if first else logger.debug
        log("skipped a damaged frame: %s%s", error, "; more are counted, not logged" if first else "")
