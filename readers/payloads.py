"""Stored payloads by row of an index: sizes are checked before payloads are read, checksums before they are decoded."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest
from vrekit.catalog.storage import PayloadReader, Storage, whole_bytes
from vrekit.codecs.base import ClipCodec, Codec, check_payload_size
from vrekit.codecs.registry import stored_codec
from vrekit.core.checksum import check_crc32
from vrekit.core.errors import ChecksumError, CodecError, DatasetError
from vrekit.readers.clips import ClipReader
from vrekit.readers.index import MISSING, FrameIndex, Layout

_LARGE_BYTES = 16 << 20


class StoredPayloads:
    """Reads, checks and decodes the payloads of a dataset; threads may call it at once.

    Codecs are loaded when they are needed: payloads can be copied without theirs.

    Args:
        manifest: The dataset's manifest.
        index: Frames, and where their payloads are.
        reader: Reads the payloads that are in `index`.
        hint: What to do about a payload that changed since it was written.
        clips: Decodes payloads that are clips.
        verify: Check every payload against its CRC-32.

    Attributes:
        index: Frames, and where their payloads are.
    """

    def __init__(
        self,
        manifest: Manifest,
        index: FrameIndex,
        reader: PayloadReader,
        *,
        hint: str,
        clips: ClipReader | None = None,
        verify: bool = True,
    ) -> None:
        self.index = index
        self._reader = reader
        self._configs = {name: manifest.representations[name].codec or {} for name in index.columns}
        self._codecs: dict[str, Codec | ClipCodec] = {}
        self._hint = hint
        self._clips = clips or ClipReader()
        self._verify = verify

    @classmethod
    def of_rows(cls, storage: Storage, table: pa.Table, names: Sequence[str]) -> Self:
        """Return the payloads of some metadata rows.

        Args:
            storage: The dataset.
            table: Rows with (at least) INDEX_COLUMNS.
            names: Stored representations.
        """
        index = FrameIndex.from_table(table, names)
        hint = f"`vrekit validate {storage.folder} --repair` moves damaged samples aside"
        return cls(storage.manifest, index, storage.payloads(index), hint=hint)

    def codec(self, name: str) -> Codec | ClipCodec:
        """Return what decodes a representation.

        Raises:
            DatasetError: If it is not to be had here.
        """
        if name not in self._codecs:
            self._codecs[name] = stored_codec(name, self._configs[name])
        return self._codecs[name]

    def read(self, rows: NDArray[np.int64], names: Sequence[str]) -> dict[str, list[memoryview | None]]:
        """Return payloads by representation, None where a row has none. They are not checked yet.

        Raises:
            CodecError: If one is larger than its codec makes any.
            DatasetError: If a shard is gone or ends too early.
        """
        for name in names:
            self._check_sizes(name, rows)
        return self._reader.read(rows, names)

    def read_own(self, rows: NDArray[np.int64], name: str) -> list[memoryview | None]:
        """Return what `read` does for one representation, but None for frames of clips, which `array` reads."""
        if (self.index.columns[name].payload_index[rows] != MISSING).any():
            return [None] * len(rows)
        return self.read(rows, [name])[name]

    def read_checked(self, rows: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], bytes]:
        """Return the payloads of stored metadata rows of one video, by (frame, representation).

        Raises:
            ChecksumError: If one changed since it was written.
            CodecError: If one is larger than its codec makes any.
            DatasetError: If one is not there.
        """
        payloads: dict[tuple[int, str], bytes] = {}
        for name in dict.fromkeys(row["representation"] for row in rows):
            mine = [row for row in rows if row["representation"] == name]
            frames = [row["frame_index"] for row in mine]
            places = self.index.find([mine[0]["video_id"]] * len(mine), np.array(frames, np.int64))
            for frame, place, payload in zip(frames, places.tolist(), self.read(places, [name])[name], strict=True):
                payloads[frame, name] = self._checked_bytes(name, place, payload)
        return payloads

    def check(self, name: str, row: int, payload: bytes | memoryview) -> None:
        """Raise ChecksumError unless a payload is what was written."""
        if self._verify:
            expected = int(self.index.columns[name].checksum[row])
            check_crc32(payload, expected, lambda: self.place(name, row), hint=self._hint)

    def decode(self, name: str, row: int, payload: bytes | memoryview, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the array in a payload of one frame, after checking it.

        Raises:
            ChecksumError: If it changed since it was written.
            CodecError: If it does not decode.
        """
        self.check(name, row, payload)
        layout, codec = self._layout(name, row), self.codec(name)
        assert isinstance(codec, Codec)
        try:
            return codec.decode(payload, dtype=layout.dtype, shape=layout.shape, out=out)
        except CodecError as error:
            raise CodecError(f"{self.place(name, row)}: {error.message}", hint=error.hint) from error

    def clip_frames(self, name: str, row: int, payload_index: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return frames of a clip, uint8 (N, H, W, 3).

        Args:
            name: The representation.
            row: Of any frame in the clip.
            payload_index: Places of the frames in the clip, rising.

        Raises:
            ChecksumError: If the clip changed since it was written.
            CodecError: If it does not decode.
            DatasetError: If it is gone.
        """
        column, codec = self.index.columns[name], self.codec(name)
        assert isinstance(codec, ClipCodec)
        place = (name, int(column.shard[row]), int(column.offset[row]))
        shape = self._layout(name, row).shape
        try:
            return self._clips.read(codec, place, lambda: self._read_clip(name, row), payload_index, shape=shape)
        except ChecksumError:
            raise
        except CodecError as error:
            raise CodecError(f"{self.place(name, row)}: {error.message}", hint=error.hint) from error

    def array(self, name: str, row: int, payload: bytes | memoryview | None) -> NDArray[Any]:
        """Return the array of one frame, be it a payload of its own or a part of a clip.

        Args:
            name: The representation.
            row: Of the frame; it has a payload.
            payload: What `read_own` returned for it.

        Raises:
            ChecksumError: If the payload changed since it was written.
            CodecError: If it does not decode.
            DatasetError: If it is gone.
        """
        if isinstance(self.codec(name), ClipCodec):
            at = self.index.columns[name].payload_index[row : row + 1].astype(np.int64)
            frame: NDArray[np.uint8] = self.clip_frames(name, row, at)[0]
            return frame
        if payload is None:
            raise DatasetError(f"{self.place(name, row)}: its payload is not there")
        return self.decode(name, row, payload)

    def place(self, name: str, row: int) -> str:
        """Return where a payload is, for messages."""
        shard = self.index.shards[self.index.columns[name].shard[row]]
        return f"{shard}: frame {self.index.key(row)}, representation {name!r}"

    def _layout(self, name: str, row: int) -> Layout:
        layout: Layout = self.index.layouts[self.index.columns[name].layout[row]]
        return layout

    def _read_clip(self, name: str, row: int) -> bytes:
        return self._checked_bytes(name, row, self._reader.read(np.array([row]), [name])[name][0])

    def _checked_bytes(self, name: str, row: int, payload: memoryview | None) -> bytes:
        if payload is None:
            raise DatasetError(f"{self.place(name, row)}: its payload is not there", hint=self._hint)
        self.check(name, row, payload)
        return whole_bytes(payload)

    def _check_sizes(self, name: str, rows: NDArray[np.int64]) -> None:
        """Raise CodecError for a payload that is larger than any of its layout; see `check_payload_size`."""
        sizes = self.index.columns[name].size[rows]
        if sizes.max(initial=0) < _LARGE_BYTES:
            return
        codec = self.codec(name)
        if isinstance(codec, ClipCodec):
            return
        for row in rows[sizes >= _LARGE_BYTES].tolist():
            layout, size = self._layout(name, row), int(self.index.columns[name].size[row])
            try:
                check_payload_size(codec, size, layout.dtype, layout.shape)
            except CodecError as error:
                raise CodecError(f"{self.place(name, row)}: {error.message}", hint=error.hint) from error
