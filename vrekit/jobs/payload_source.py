"""Stored payloads of one video of an open dataset, whatever the storage, checked against their checksums."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.dataset import Dataset
from vrekit.catalog.row_checks import check_rows
from vrekit.catalog.sandbox import sql_literal
from vrekit.catalog.storage import whole_bytes
from vrekit.codecs.base import ClipCodec, Codec, check_payload_size
from vrekit.codecs.registry import stored_codec
from vrekit.core.checksum import crc32
from vrekit.core.errors import ChecksumError, CodecError
from vrekit.core.names import sample_key
from vrekit.core.schema import SAMPLES_SCHEMA
from vrekit.readers.clips import ClipReader
from vrekit.readers.index import FrameIndex


def stored_frames(dataset: Dataset, names: Sequence[str]) -> dict[tuple[str, str], NDArray[np.int64]]:
    """Return the stored frames by (video, representation), rising; with one query, as there may be many of both."""
    listed = ", ".join(sql_literal(name) for name in names)
    table = dataset.sandbox.fetch(
        "SELECT video_id, representation, array_agg(frame_index ORDER BY frame_index) AS frames FROM samples "
        f"WHERE status = 'ok' AND representation IN ({listed}) GROUP BY ALL ORDER BY ALL"
    )
    places = zip(table["video_id"].to_pylist(), table["representation"].to_pylist(), strict=True)
    return {
        place: np.asarray(frames.values.to_numpy(), np.int64)
        for place, frames in zip(places, table["frames"], strict=True)
    }


def stored_rows(dataset: Dataset, video_id: str, names: Sequence[str]) -> pa.Table:
    """Return the metadata rows of what is stored of some representations of a video, by frame and representation."""
    columns = ", ".join(SAMPLES_SCHEMA.names)
    listed = ", ".join(sql_literal(name) for name in names)
    where = f"video_id = {sql_literal(video_id)} AND status = 'ok' AND representation IN ({listed})"
    table: pa.Table = dataset.sandbox.fetch(
        f"SELECT {columns} FROM samples WHERE {where} ORDER BY frame_index, representation"
    ).cast(SAMPLES_SCHEMA)
    check_rows(table, lambda row: f"{dataset.folder}: row {row} of the stored rows of {video_id}")
    return table


class PayloadSource:
    """Reads the stored payloads of some representations of one video.

    Attributes:
        rows: (frame number, representation) → metadata row, of what is stored.
    """

    def __init__(self, dataset: Dataset, video_id: str, names: Sequence[str]) -> None:
        table = stored_rows(dataset, video_id, names)
        self.video_id = video_id
        self.rows: Mapping[tuple[int, str], dict[str, Any]] = {
            (row["frame_index"], row["representation"]): row for row in table.to_pylist()
        }
        self._index = FrameIndex.from_table(table, names)
        self._payloads = dataset.storage.payloads(self._index)
        records = dataset.manifest.representations
        codecs = {name: stored_codec(name, records[name].codec or {}) for name in names}
        self._clip_codecs = {name: codec for name, codec in codecs.items() if isinstance(codec, ClipCodec)}
        self._codecs = {name: codec for name, codec in codecs.items() if isinstance(codec, Codec)}
        self._clips = ClipReader()

    def frames(self, name: str) -> list[int]:
        """Return the frames that a representation is stored for, rising."""
        return [frame for frame, stored in self.rows if stored == name]

    def read(self, frames: Sequence[int], names: Sequence[str]) -> dict[tuple[int, str], bytes]:
        """Return the payloads of some frames and representations by (frame, representation), those that are stored.

        Raises:
            CodecError: If a payload is larger than its codec makes any.
            DatasetError: If a shard is gone or ends too early.
        """
        for place in ((frame, name) for frame in frames for name in names if name in self._codecs):
            self._check_size(*place)
        rows = self._index.find([self.video_id] * len(frames), np.asarray(frames, np.int64))
        payloads = self._payloads.read(rows, [name for name in names if name not in self._clip_codecs])
        found = {
            (frame, name): whole_bytes(payload)
            for name, read in payloads.items()
            for frame, payload in zip(frames, read, strict=True)
            if payload is not None
        }
        for name in names:
            if name in self._clip_codecs:
                found |= self._read_clips(frames, rows, name)
        return found

    def _check_size(self, frame: int, name: str) -> None:
        row = self.rows.get((frame, name))
        if row is not None:
            try:
                check_payload_size(self._codecs[name], row["byte_size"], np.dtype(row["dtype"]), tuple(row["shape"]))
            except CodecError as error:
                message = f"{sample_key(self.video_id, frame)}.{name}: {error.message}"
                raise CodecError(message, hint=error.hint) from error

    def _read_clips(self, frames: Sequence[int], rows: NDArray[np.int64], name: str) -> dict[tuple[int, str], bytes]:
        """Return the clip of each frame; frames of one clip share the same object."""
        column = self._index.columns[name]
        there = np.flatnonzero(column.present[rows])
        places = [(int(column.shard[row]), int(column.offset[row])) for row in rows[there].tolist()]
        some_row = dict(zip(places, rows[there].tolist(), strict=True))
        clips = {
            place: whole_bytes(payload)
            for place, row in some_row.items()
            if (payload := self._payloads.read(np.array([row]), [name])[name][0]) is not None
        }
        return {(frames[at], name): clips[place] for at, place in zip(there.tolist(), places, strict=True)}

    def place(self, frame: int, name: str) -> tuple[str, int]:
        """Return (shard, offset) of a payload: the same for the frames of a clip."""
        row = self.rows[frame, name]
        return row["shard"], row["byte_offset"]

    def check(self, frame: int, name: str, data: bytes) -> None:
        """Raise ChecksumError unless `data` is what was written."""
        found, expected = crc32(data), self.rows[frame, name]["checksum"]
        if found != expected:
            raise ChecksumError(
                f"{sample_key(self.video_id, frame)}.{name}: CRC-32 {found:08x}, its metadata says {expected:08x}",
                hint="`vrekit validate` lists everything that is damaged",
            )

    def decode(self, frame: int, name: str, data: bytes) -> NDArray[Any]:
        """Return the array in a payload, after checking it.

        Raises:
            ChecksumError: If it changed since it was written.
            CodecError: If it does not decode.
        """
        row = self.rows[frame, name]
        clips = self._clip_codecs.get(name)
        if clips is not None:

            def load() -> bytes:
                self.check(frame, name, data)
                return data

            place = (name, *self.place(frame, name))
            positions = np.array([row["payload_index"]], np.int64)
            frames: NDArray[Any] = self._clips.read(clips, place, load, positions, shape=row["shape"])
            return frames[0]  # type: ignore[no-any-return]  # numpy types an item as Any
        self.check(frame, name, data)
        return self._codecs[name].decode(data, dtype=np.dtype(row["dtype"]), shape=tuple(row["shape"]))
