"""The open shard: a file that grows, and a journal that says which of its bytes are whole samples.

    <name>.tar.partial or .payloads   samples, appended
    <name>.journal                    one JSON line per sample, see `journal_lines`

`flush` writes the samples' bytes, syncs them, and only then the journal's lines and syncs those. A timer flushes
FLUSH_SECONDS after the first sample that is not durable, whether more samples come or not. After a crash every journal
line whose bytes are there with the right checksums is kept; the torn tail of both files is cut off.

The rows are in the journal only: as Python objects, those of 100,000 frames would take a gigabyte. Who needs them reads
the journal back, block by block, which Arrow parses faster than it takes Python objects.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import json as arrow_json

from vrekit.catalog.cells import Cell
from vrekit.core.checksum import crc32_of_range
from vrekit.core.errors import DatasetError
from vrekit.core.files import open_to_change, storage_errors
from vrekit.core.schema import SAMPLES_SCHEMA
from vrekit.writers.journal_lines import MAX_LINE_BYTES, Row, make_line, parse_line

FLUSH_SECONDS = 2.0
_BUFFER_BYTES = 8 << 20
_LARGE_BYTES = 256 << 10
_BLOCK_BYTES = 2 << 20  # of the journal, about 4,000 rows

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
    that a full disk or Ctrl-C broke off half-way is tried again by the next one. One thread appends; a timer's thread
    flushes too. What goes wrong there is raised by the next `append` or `flush`.

    Attributes:
        path: The file.
        journal_path: Its journal.
        size: Bytes of all samples, flushed or not.
        first_frame: Frame number of the first row; None when there is none.
        last_frame: Frame number of the last row.
    """

    def __init__(self, path: Path, journal_path: Path, cell: Cell) -> None:
        """Open both files, and recover the samples that are whole.

        Args:
            path: The file.
            journal_path: Its journal.
            cell: What the samples are from; others in the journal count as damage.
        """
        self.path = path
        self.journal_path = journal_path
        self.first_frame: int | None = None
        self.last_frame: int | None = None
        self._chunks: list[bytes] = []
        self._lines: list[bytes] = []
        self._pending = 0  # bytes of the chunks
        self._pending_lines = 0  # bytes of the lines
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None  # set while a flush is due
        self._error: Exception | None = None  # of the timer's flush
        with storage_errors(path):
            self._file = open_to_change(path, os.O_RDWR | os.O_CREAT)
            self._journal = open_to_change(journal_path, os.O_RDWR | os.O_CREAT)
            self._written, self._journal_written = self._recover(cell)
        self.size = self._written

    def _recover(self, cell: Cell) -> tuple[int, int]:
        """Keep the longest run of whole samples, cut the rest off, and return the sizes of both files."""
        file_size = os.fstat(self._file).st_size
        end, kept = 0, 0
        for line in lines_of(self._journal):
            parsed = parse_line(line)
            if parsed is None or not end <= parsed[0] <= file_size:
                break
            start, (end_of_sample, rows) = end, parsed
            if not (self._come_next(rows, cell) and self._are_intact(rows, start, end_of_sample)):
                break
            end, kept = end_of_sample, kept + len(line)
            self._note_frames(rows)
        os.ftruncate(self._file, end)
        os.ftruncate(self._journal, kept)
        return end, kept

    def _come_next(self, rows: list[Row], cell: Cell) -> bool:
        """Return whether the rows are from the cell, and from frames behind those noted so far."""
        frames = [row["frame_index"] for row in rows]
        first = cell.first if self.last_frame is None else self.last_frame + 1
        is_rising = frames == sorted(frames) and first <= frames[0] and frames[-1] <= cell.last
        return is_rising and all(row["video_id"] == cell.video_id for row in rows)

    def _are_intact(self, rows: list[Row], start: int, end: int) -> bool:
        """Return whether the payloads of a sample are there, between `start` and `end`, as they were written."""
        places = {(row["byte_offset"], row["byte_size"], row["checksum"]) for row in rows if row["status"] == "ok"}
        return all(  # the frames of a clip share one
            start <= offset and offset + size <= end and crc32_of_range(self._file, offset, size) == checksum
            for offset, size, checksum in places
        )

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
        """Add one sample: its bytes and its metadata rows; durable within FLUSH_SECONDS."""
        with self._lock:
            self._raise_late_error()
            added = sum(map(len, chunks))
            self._chunks += chunks
            self._pending += added
            self.size += added
            self._note_frames(rows)
            line = make_line(self.size, rows)
            self._lines.append(line)
            self._pending_lines += len(line)
            if self._pending_lines >= _BUFFER_BYTES:
                self._flush()
                return
            if self._pending >= _BUFFER_BYTES:
                self._write_chunks()
            if self._timer is None:
                self._timer = threading.Timer(FLUSH_SECONDS, self._flush_due)
                self._timer.daemon = True  # a process that ends without `close` was interrupted: it need not wait
                self._timer.start()

    def _flush_due(self) -> None:
        with self._lock:
            if self._timer is not threading.current_thread():
                return  # somebody else flushed, or closed the file, while this thread waited for the lock
            try:
                self._flush()
            except Exception as error:  # such as a full disk; it belongs to the thread that appends
                self._timer, self._error = None, error

    def _raise_late_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write_chunks(self) -> None:
        at = self._written
        with storage_errors(self.path):
            for data in _joined(self._chunks):
                at = _write(self._file, data, at)
        self._written, self._chunks, self._pending = at, [], 0

    def flush(self) -> None:
        """Make every appended sample durable: first its bytes, then the line that vouches for them."""
        with self._lock:
            self._flush()
            self._raise_late_error()

    def _flush(self) -> None:
        self._write_chunks()
        if self._lines:
            with storage_errors(self.path):
                os.fsync(self._file)
                at = _write(self._journal, b"".join(self._lines), self._journal_written)
                os.fsync(self._journal)
            self._journal_written, self._lines, self._pending_lines = at, [], 0
        self._stop_timer()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def seal(self, end: bytes) -> None:
        """Write what ends the file, durably; recovery cuts it off again, as no journal line speaks for it."""
        self.flush()
        with storage_errors(self.path):
            _write(self._file, end, self._written)
            os.fsync(self._file)

    def close(self) -> None:
        """Close both files as they are; again does nothing, as Ctrl-C may come at any point of a commit."""
        with self._lock:
            self._stop_timer()
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


def lines_of(descriptor: int) -> Iterator[bytes]:
    """Yield the lines of a journal, and an overlong one not to its end; none of them is believed yet."""
    rest = b""
    for at in range(0, os.fstat(descriptor).st_size, _BLOCK_BYTES):
        *whole, rest = (rest + _read(descriptor, _BLOCK_BYTES, at)).split(b"\n")
        yield from (line + b"\n" for line in whole)
        if len(rest) > MAX_LINE_BYTES:
            break
    if rest:
        yield rest


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
