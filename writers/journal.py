"""The open shard: a file that grows, and a journal that says which of its bytes are whole samples.

    <name>.tar.partial or .payloads   samples, appended
    <name>.journal                    one JSON line per sample: {"end": bytes after it, "rows": [...]}

`flush` writes the samples' bytes, syncs them, and only then the journal's lines and syncs those. After a crash every
journal line whose bytes are there with the right checksums is kept; the torn tail of both files is cut off.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vrekit.core.checksum import crc32
from vrekit.core.files import storage_errors

FLUSH_SECONDS = 2.0
_BUFFER_BYTES = 8 << 20
_LARGE_BYTES = 256 << 10

Row = dict[str, Any]


class OpenShard:
    """A file under construction with its journal; appends are cheap, `flush` makes them durable.

    Every write goes to a position of its own, and what was written is forgotten together with where it ended: a flush
    that a full disk or Ctrl-C broke off half-way is tried again by the next one.
    """

    def __init__(self, path: Path, journal_path: Path) -> None:
        self.path = path
        self.journal_path = journal_path
        self.rows: list[Row] = []
        self._chunks: list[bytes] = []
        self._lines: list[bytes] = []
        self._pending = 0
        self._flushed_at = time.monotonic()
        with storage_errors(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            self._journal = os.open(journal_path, os.O_RDWR | os.O_CREAT, 0o666)
            self._written, self._journal_written = self._recover()
        self.size = self._written

    def _recover(self) -> tuple[int, int]:
        """Keep the longest run of whole samples, cut the rest off, and return the sizes of both files."""
        file_size = os.fstat(self._file).st_size
        end, kept = 0, 0
        for line in _read_all(self._journal).splitlines(keepends=True):
            entry = _parse(line)
            if entry is None or entry["end"] > file_size or not self._is_intact(entry["rows"]):
                break
            end, kept = entry["end"], kept + len(line)
            self.rows += entry["rows"]
        os.ftruncate(self._file, end)
        os.ftruncate(self._journal, kept)
        return end, kept

    def _is_intact(self, rows: list[Row]) -> bool:
        payloads = {row["byte_offset"]: row for row in rows if row["status"] == "ok"}  # the frames of a clip share one
        return all(map(self._is_payload, payloads.values()))

    def _is_payload(self, row: Row) -> bool:
        data = self.read(row)
        return bool(len(data) == row["byte_size"] and crc32(data) == row["checksum"])

    def read(self, row: Row) -> bytes:
        """Return the payload of a row that was flushed."""
        return _read(self._file, row["byte_size"], row["byte_offset"])

    def append(self, chunks: Sequence[bytes], rows: Sequence[Mapping[str, Any]]) -> None:
        """Add one sample: its bytes and its metadata rows."""
        added = sum(map(len, chunks))
        self._chunks += chunks
        self._pending += added
        self.size += added
        plain = [dict(row) for row in rows]
        self.rows += plain
        self._lines.append(json.dumps({"end": self.size, "rows": plain}, separators=(",", ":")).encode() + b"\n")
        if self._pending >= _BUFFER_BYTES:
            self._write_chunks()
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
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
            self._journal_written, self._lines = at, []
        self._flushed_at = time.monotonic()

    def seal(self, end: bytes) -> None:
        """Write what ends the file, durably; recovery cuts it off again, as no journal line speaks for it."""
        self.flush()
        with storage_errors(self.path):
            _write(self._file, end, self._written)
            os.fsync(self._file)

    def close(self) -> None:
        """Close both files as they are."""
        os.close(self._file)
        os.close(self._journal)

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


def _read_all(descriptor: int) -> bytes:
    return _read(descriptor, os.fstat(descriptor).st_size, 0)


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
