"""The open shard: a file that grows, and a journal that says which of its bytes are whole samples.

    <name>.tar.partial or .payloads   samples, appended
    <name>.journal                    one JSON line per sample: {"end": bytes after it, "rows": [...]}

`flush` writes the samples' bytes, syncs them, and only then the journal's lines and syncs those. After a crash every
journal line whose bytes are there with the right checksums is kept; the torn tail of both files is cut off.

The rows are in the journal only: as Python objects, those of 100,000 frames would take a gigabyte. Who needs them reads
the journal back, block by block, which Arrow parses faster than it takes Python objects.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import json as arrow_json

from vrekit.core.checksum import crc32
from vrekit.core.errors import DatasetError
from vrekit.core.files import open_regular, storage_errors
from vrekit.core.schema import SAMPLES_SCHEMA

FLUSH_SECONDS = 2.0
_BUFFER_BYTES = 8 << 20
_LARGE_BYTES = 256 << 10
_BLOCK_BYTES = 2 << 20  # of the journal, about 4,000 rows

Row = dict[str, Any]

_as_json = json.JSONEncoder(separators=(",", ":")).encode
# Through float64, as Python's numbers go: the shortest decimals of a number are not those of its float32.
_JOURNAL_SCHEMA = pa.schema(
    [
        pa.field(
            "rows",
            pa.list_(
                pa.struct(
                    [
                        pa.field(field.name, pa.float64() if pa.types.is_floating(field.type) else field.type)
                        for field in SAMPLES_SCHEMA
                    ]
                )
            ),
        )
    ]
)


class OpenShard:
    """A file under construction with its journal; appends are cheap, `flush` makes them durable.

    Every write goes to a position of its own, and what was written is forgotten together with where it ended: a flush
    that a full disk or Ctrl-C broke off half-way is tried again by the next one.

    Attributes:
        path: The file.
        journal_path: Its journal.
        size: Bytes of all samples, flushed or not.
        first_frame: Frame number of the first row; None when there is none.
        last_frame: Frame number of the last row.
    """

    def __init__(self, path: Path, journal_path: Path) -> None:
        self.path = path
        self.journal_path = journal_path
        self.first_frame: int | None = None
        self.last_frame: int | None = None
        self._chunks: list[bytes] = []
        self._lines: list[bytes] = []
        self._pending = 0  # bytes of the chunks
        self._pending_lines = 0  # bytes of the lines
        self._flushed_at = time.monotonic()
        with storage_errors(path):
            self._file = open_regular(path, os.O_RDWR | os.O_CREAT)
            self._journal = open_regular(journal_path, os.O_RDWR | os.O_CREAT)
            self._written, self._journal_written = self._recover()
        self.size = self._written

    def _recover(self) -> tuple[int, int]:
        """Keep the longest run of whole samples, cut the rest off, and return the sizes of both files."""
        file_size = os.fstat(self._file).st_size
        end, kept = 0, 0
        for line in _lines(self._journal):
            entry = _parse(line)
            if entry is None or entry["end"] > file_size or not self._is_intact(entry["rows"]):
                break
            end, kept = entry["end"], kept + len(line)
            self._note_frames(entry["rows"])
        os.ftruncate(self._file, end)
        os.ftruncate(self._journal, kept)
        return end, kept

    def _is_intact(self, rows: list[Row]) -> bool:
        payloads = {row["byte_offset"]: row for row in rows if row["status"] == "ok"}  # the frames of a clip share one
        return all(map(self._is_payload, payloads.values()))

    def _is_payload(self, row: Row) -> bool:
        data = self.read(row["byte_offset"], row["byte_size"])
        return bool(len(data) == row["byte_size"] and crc32(data) == row["checksum"])

    def _note_frames(self, rows: Sequence[Row]) -> None:
        if self.first_frame is None:
            self.first_frame = rows[0]["frame_index"]
        self.last_frame = rows[-1]["frame_index"]

    @property
    def is_empty(self) -> bool:
        """Whether nothing was appended."""
        return self.first_frame is None

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes that were flushed."""
        return _read(self._file, size, offset)

    def tables(self) -> Iterator[pa.Table]:
        """Yield the rows that were flushed, in order, some thousands at a time; those of a sample stay together."""
        for block in _blocks(self._journal, self._journal_written):
            parsed = arrow_json.read_json(
                pa.BufferReader(block),
                read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(block)),
                parse_options=arrow_json.ParseOptions(
                    explicit_schema=_JOURNAL_SCHEMA, unexpected_field_behavior="ignore"
                ),
            )
            columns = zip(parsed["rows"].combine_chunks().flatten().flatten(), SAMPLES_SCHEMA.types, strict=True)
            yield pa.table([column.cast(kind) for column, kind in columns], schema=SAMPLES_SCHEMA)

    def append(self, chunks: Sequence[bytes], rows: Sequence[Row]) -> None:
        """Add one sample: its bytes and its metadata rows."""
        added = sum(map(len, chunks))
        self._chunks += chunks
        self._pending += added
        self.size += added
        self._note_frames(rows)
        line = _as_json({"end": self.size, "rows": rows}).encode() + b"\n"
        self._lines.append(line)
        self._pending_lines += len(line)
        if self._pending >= _BUFFER_BYTES:
            self._write_chunks()
        if self._pending_lines >= _BUFFER_BYTES or time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def _write_chunks(self) -> None:
        at = self._written
        with storage_errors(self.path):
            for data in _joined(self._chunks):
                at = _write(self._file, data, at)
        self._written, self._chunks, self._pending = at, [], 0

    def flush(self) -> None:
        """Make every appended sample durable: first its bytes, then the line that vouches for them."""
        self._write_chunks()
        if self._lines:
            with storage_errors(self.path):
                os.fsync(self._file)
                at = _write(self._journal, b"".join(self._lines), self._journal_written)
                os.fsync(self._journal)
            self._journal_written, self._lines, self._pending_lines = at, [], 0
        self._flushed_at = time.monotonic()

    def seal(self, end: bytes) -> None:
        """Write what ends the file, durably; recovery cuts it off again, as no journal line speaks for it."""
        self.flush()
        with storage_errors(self.path):
            _write(self._file, end, self._written)
            os.fsync(self._file)

    def close(self) -> None:
        """Close both files as they are; again does nothing, as Ctrl-C may come at any point of a commit."""
        descriptors, self._file, self._journal = (self._file, self._journal), -1, -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def remove(self) -> None:
        """Close and delete both files."""
        self.close()
        self.path.unlink(missing_ok=True)
        self.journal_path.unlink(missing_ok=True)


def _read(descriptor: int, size: int, at: int) -> bytes:
    """Return `size` bytes from `at`, fewer where the file ends; one `pread` gives at most 2 GiB."""
    parts: list[bytes] = []
    while size > 0:
        part = os.pread(descriptor, size, at)
        if not part:
            break
        parts.append(part)
        at += len(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _blocks(descriptor: int, end: int) -> Iterator[bytes]:
    """Yield a file up to `end` in pieces that end with a line each; a torn last line is left out."""
    at, rest = 0, b""
    while at < end:
        block = _read(descriptor, min(_BLOCK_BYTES, end - at), at)
        if not block:
            raise DatasetError("a journal was cut short while it was read", hint="does another program change it?")
        at += len(block)
        whole, newline, left = block.rpartition(b"\n")
        if newline:
            yield rest + whole + newline
            rest = left
        else:
            rest += block


def _lines(descriptor: int) -> Iterator[bytes]:
    for block in _blocks(descriptor, os.fstat(descriptor).st_size):
        yield from block.splitlines(keepends=True)


def _joined(chunks: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in fewer pieces: small neighbours joined, large ones as they are, as copying costs."""
    small: list[bytes] = []
    for chunk in chunks:
        if len(chunk) < _LARGE_BYTES:
            small.append(chunk)
            continue
        if small:
            yield b"".join(small)
            small = []
        yield chunk
    if small:
        yield b"".join(small)


def _write(descriptor: int, data: bytes, at: int) -> int:
    """Write all of `data` from `at` on, and return where it ends."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, at)
        view, at = view[count:], at + count
    return at


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "end" in entry and "rows" in entry else None
