"""From row numbers to arrays: payloads are read, checked, and decoded straight into the batch."""

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest
from vrekit.catalog.storage import PayloadReader, whole_bytes
from vrekit.codecs.base import ClipCodec, Codec, check_payload_size
from vrekit.codecs.registry import stored_codec
from vrekit.core.checksum import crc32
from vrekit.core.errors import ChecksumError, CodecError, DatasetError
from vrekit.core.fork_lock import ForkSafeLock
from vrekit.readers.clips import ClipReader
from vrekit.readers.index import MISSING, FrameIndex
from vrekit.readers.open_batch import OpenBatch, fill_value
from vrekit.readers.subset import Missing

logger = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]
_LARGE_BYTES = 16 << 20


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
        self._payloads = payloads
        self._names = tuple(names)
        self._missing = missing
        self._verify = verify
        self._on_error = on_error
        records = {name: manifest.representations[name] for name in names}
        self._specs = {name: record.stored for name, record in records.items()}
        codecs = {name: stored_codec(name, record.codec or {}) for name, record in records.items()}
        self._clip_codecs = {name: codec for name, codec in codecs.items() if isinstance(codec, ClipCodec)}
        self._clips = clips
        self._codecs = {name: codec for name, codec in codecs.items() if isinstance(codec, Codec)}
        self._whole = list(self._codecs)
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
            self._check_sizes(batch.rows[positions])
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
        for name in self._clip_codecs:
            self._fill_from_clips(batch, name, positions)

    def _check_sizes(self, rows: NDArray[np.int64]) -> None:
        """Raise CodecError for a payload that is larger than any of its layout; see `check_payload_size`."""
        for name in self._whole:
            column = self._index.columns[name]
            sizes = column.size[rows]
            if sizes.max(initial=0) < _LARGE_BYTES:
                continue
            for row in rows[sizes >= _LARGE_BYTES].tolist():
                layout = self._index.layouts[column.layout[row]]
                try:
                    check_payload_size(self._codecs[name], int(column.size[row]), layout.dtype, layout.shape)
                except CodecError as error:
                    raise CodecError(f"{self._place(name, row)}: {error.message}", hint=error.hint) from error

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
        place = (name, int(column.shard[first]), int(column.offset[first]))
        try:
            frames = self._clips.read(
                self._clip_codecs[name],
                place,
                lambda: self._load_clip(name, first),
                wanted.astype(np.int64),
                shape=self._index.layouts[column.layout[first]].shape,
            )
        except ChecksumError:
            raise
        except CodecError as error:
            raise CodecError(f"{self._place(name, first)}: {error.message}", hint=error.hint) from error
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
        return whole_bytes(payload)

    def _decode(self, batch: OpenBatch, name: str, position: int, payload: memoryview | None) -> None:
        row = int(batch.rows[position])
        column, arrays = self._index.columns[name], batch.arrays[name]
        if payload is None and self._missing is Missing.NONE:
            return
        layout = self._index.layouts[column.layout[row]]
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
        expected = int(self._index.columns[name].checksum[row])
        if self._verify and crc32(payload) != expected:
            raise ChecksumError(
                f"{self._place(name, row)}: the stored bytes have CRC-32 {crc32(payload):08x}, "
                f"expected {expected:08x}: they changed since they were written",
                hint="`vrekit validate` lists what is damaged; on_error='skip' leaves such frames out",
            )

    def _place(self, name: str, row: int) -> str:
        shard = self._index.shards[self._index.columns[name].shard[row]]
        return f"{shard}: frame {self._index.key(row)}, representation {name!r}"

    def _skip(self, batch: OpenBatch, position: int, error: Exception) -> None:
        with self._lock:
            if batch.damaged[position]:
                return
            batch.damaged[position] = True
            self.skipped += 1
            first = self.skipped == 1
        log = logger.warning if first else logger.debug
        log("skipped a damaged frame: %s%s", error, "; more are counted, not logged" if first else "")
