"""The open shard: a tar that grows, and a journal that says which of its bytes are whole samples.

    <group>-<first>.tar.partial      samples, appended
    <group>-<first>.journal          one JSON line per sample: {"end": bytes of tar after it, "rows": [metadata rows]}

`flush` writes the tar's bytes, syncs them, and only then the journal's lines and syncs those. After a crash every
journal line whose tar bytes are there with the right checksums is kept; the torn tail of both files is cut off.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vrekit.core.checksum import crc32
from vrekit.core.files import storage_errors
from vrekit.writers.tar_format import END_OF_ARCHIVE

FLUSH_SECONDS = 2.0
_BUFFER_BYTES = 8 << 20

Row = dict[str, Any]


class OpenShard:
    """A tar under construction with its journal; appends are cheap, `flush` makes them durable."""

    def __init__(self, tar_path: Path, journal_path: Path) -> None:
        self.tar_path = tar_path
        self.journal_path = journal_path
        self.rows: list[Row] = []
        self._lines: list[bytes] = []
        self._flushed_at = time.monotonic()
        with storage_errors(tar_path):
            # unbuffered: samples are gathered in _chunks and written with one writev per flush
            self._tar = os.open(tar_path, os.O_RDWR | os.O_CREAT, 0o666)
            self._journal = os.open(journal_path, os.O_RDWR | os.O_CREAT, 0o666)
            self.size = self._recover()
        self._chunks: list[bytes] = []
        self._pending = 0

    def _recover(self) -> int:
        """Keep the longest run of whole samples, cut the rest off, and return the tar's size."""
        tar_size = os.fstat(self._tar).st_size
        text = _read_all(self._journal)
        end, kept = 0, 0
        for line in text.splitlines(keepends=True):
            entry = _parse(line)
            if entry is None or entry["end"] > tar_size or not self._is_intact(entry["rows"]):
                break
            end, kept = entry["end"], kept + len(line)
            self.rows += entry["rows"]
        os.ftruncate(self._tar, end)
        os.ftruncate(self._journal, kept)
        os.lseek(self._tar, 0, os.SEEK_END)
        os.lseek(self._journal, 0, os.SEEK_END)
        return end

    def _is_intact(self, rows: list[Row]) -> bool:
        for row in rows:
            if row["status"] != "ok":
                continue
            data = os.pread(self._tar, row["byte_size"], row["byte_offset"])
            if len(data) != row["byte_size"] or crc32(data) != row["checksum"]:
                return False
        return True

    def append(self, chunks: Sequence[bytes], rows: Sequence[Mapping[str, Any]]) -> None:
        """Add one sample: its tar bytes and its metadata rows."""
        added = sum(map(len, chunks))
        self._chunks += chunks
        self._pending += added
        self.size += added
        plain = [dict(row) for row in rows]
        self.rows += plain
        self._lines.append(json.dumps({"end": self.size, "rows": plain}, separators=(",", ":")).encode() + b"\n")
        if self._pending >= _BUFFER_BYTES:
            self._write_tar()
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def _write_tar(self) -> None:
        with storage_errors(self.tar_path):
            _write_all(self._tar, b"".join(self._chunks))
        self._chunks, self._pending = [], 0

    def flush(self) -> None:
        """Make every appended sample durable: first its bytes, then the line that vouches for them."""
        self._write_tar()
        if self._lines:
            with storage_errors(self.tar_path):
                os.fsync(self._tar)
                _write_all(self._journal, b"".join(self._lines))
                os.fsync(self._journal)
            self._lines = []
        self._flushed_at = time.monotonic()

    def seal(self) -> None:
        """Write the end of the archive and make the tar durable; the journal still ends before it."""
        self.flush()
        with storage_errors(self.tar_path):
            _write_all(self._tar, END_OF_ARCHIVE)
            os.fsync(self._tar)

    def close(self) -> None:
        """Close both files as they are."""
        os.close(self._tar)
        os.close(self._journal)

    def remove(self) -> None:
        """Close and delete both files."""
        self.close()
        self.tar_path.unlink(missing_ok=True)
        self.journal_path.unlink(missing_ok=True)


def _read_all(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    parts, at = [], 0
    while at < size:
        part = os.pread(descriptor, size - at, at)
        if not part:
            break
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "end" in entry and "rows" in entry else None
