"""`lance/<group>.checksums`: the CRC-32 of the files of a Lance table that hold metadata, for Lance keeps none.

One line a file, appended when the file is written, the later line counts:

    <CRC-32 of the rest of the line, 8 hex digits> {"path": "data/….lance", "bytes": 8123, "crc32": "0a1b2c3d"}

Listed are data files, versions, indexes and deletions, none of which ever changes. Files of payloads alone are not:
rows have checksums of payloads. A line that is damaged counts as not there.
"""

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vrekit.core.checksum import crc32, crc32_of_range
from vrekit.core.documents import Fields, parse_json
from vrekit.core.errors import DatasetError
from vrekit.core.files import open_regular, open_to_change, read_regular, write_atomic
from vrekit.writers.lance.errors import reading_lance
from vrekit.writers.lance.rows import version_files

if TYPE_CHECKING:
    import lance

INDEXES_FOLDER = "_indices/"
_LISTED = re.compile(r"data/[^/]+\.lance|_versions/[^/]+\.manifest|_indices/.+|_deletions/.+")
_DIGITS = re.compile("[0-9a-f]{8}")
_MAX_LEDGER_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class ListedFile:
    """Size and CRC-32 of a file, as it was written."""

    bytes: int
    crc32: int


@dataclass(frozen=True, slots=True)
class LedgerCheck:
    """How the files of a table compare with its ledger; paths are relative to the table.

    Attributes:
        damaged: Files that are not what was written.
        unlisted: Files of which nothing is known.
        checked: How many are what was written.
    """

    damaged: list[str]
    unlisted: list[str]
    checked: int


def ledger_path(table: Path) -> Path:
    """Return where the ledger of a table lies."""
    return table.with_name(f"{table.stem}.checksums")


def record_files(table: Path, files: Iterable[str]) -> None:
    """Append new files of a table to its ledger, durably; call it with the table's lock held.

    Args:
        table: The table's folder.
        files: Paths; those that are not to be listed are passed over.
    """
    lines = []
    for path in sorted(files):
        relative = os.path.relpath(path, table)
        listed = _listed_file(Path(path)) if _LISTED.fullmatch(relative) else None
        if listed is not None:
            lines.append(_line(relative, listed))
    if lines:
        descriptor = open_to_change(ledger_path(table), os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            size = os.fstat(descriptor).st_size
            is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # by a full disk, or a power cut
            with os.fdopen(descriptor, "ab", closefd=False) as file:
                file.write(b"\n" * is_torn + b"".join(lines))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def prune_ledger(table: Path) -> None:
    """Take the files that are gone out of the ledger of a table; call it with the table's lock held."""
    listed = read_ledger(table)
    there = {path: known for path, known in listed.items() if (table / path).exists()}
    if len(there) < len(listed):
        write_atomic(ledger_path(table), b"".join(_line(path, known) for path, known in there.items()))


def read_ledger(table: Path) -> dict[str, ListedFile]:
    """Return the listed files of a table by path, in the order they were written; none if there is no ledger.

    Raises:
        DatasetError: If the ledger is no regular file, or has a line that is none.
    """
    try:
        text = read_regular(ledger_path(table), max_bytes=_MAX_LEDGER_BYTES)
    except FileNotFoundError:
        return {}
    return dict(_entries(text))


def list_committed(dataset: "lance.LanceDataset") -> None:
    """List what a writer committed that was killed before it could; call it with the table's lock held.

    Data files have their lines before they are committed, so the version is left: it is listed if it opens, which it
    did, and all of its data files are there as their lines say. In a table that an older version of vrekit wrote some
    have none, and nothing is listed. Nor are indexes: whoever tidies the table makes those anew that have no line.
    """
    table = Path(dataset.uri)
    listed = read_ledger(table)
    unlisted = _files_in_use(dataset, table) - listed.keys()
    sizes = {f"data/{file.path}": file.file_size_bytes for one in dataset.get_fragments() for file in one.data_files()}
    if unlisted and all(path in listed and listed[path].bytes == size for path, size in sizes.items()):
        record_files(table, [str(table / path) for path in unlisted if not path.startswith(INDEXES_FOLDER)])


def check_ledger(dataset: "lance.LanceDataset") -> LedgerCheck:
    """Compare the files of a table's version with its ledger; every file is read.

    Raises:
        DatasetError: If the ledger is no regular file, or the table is damaged.
        OSError: If a file cannot be read.
    """
    table = Path(dataset.uri)
    listed = read_ledger(table)
    damaged, unlisted, checked = [], [], 0
    for relative in sorted(_files_in_use(dataset, table)):
        found = _listed_file(table / relative)
        if found is None:
            continue  # others say that it is lost
        if relative not in listed:
            unlisted.append(relative)
        elif found != listed[relative]:
            damaged.append(relative)
        else:
            checked += 1
    return LedgerCheck(damaged, unlisted, checked)


def _files_in_use(dataset: "lance.LanceDataset", table: Path) -> set[str]:
    """Return the metadata files that a version consists of, relative to the table."""
    found = {f"_versions/{version_files(table)[dataset.version].name}"}
    with reading_lance(table):
        for fragment in dataset.get_fragments():
            found |= {f"data/{file.path}" for file in fragment.data_files()}
            if deletions := fragment.deletion_file():
                found.add(str(deletions))
        for index in dataset.describe_indices():
            for segment in index.segments:
                folder = table / "_indices" / str(segment.uuid)
                found |= {path.relative_to(table).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {path for path in found if _LISTED.fullmatch(path) and ".." not in path.split("/")}


def listed_files(dataset: "lance.LanceDataset") -> tuple[list[str], list[str]]:
    """Return the metadata files of a table's version that its ledger has, and those that it lacks; none is read."""
    table = Path(dataset.uri)
    files, listed = sorted(_files_in_use(dataset, table)), read_ledger(table)
    return [file for file in files if file in listed], [file for file in files if file not in listed]


def data_files_of(
    dataset: "lance.LanceDataset", frames: Collection[tuple[str, int]], *, without: Collection[int] = ()
) -> set[str]:
    """Return the data files, relative to the table, of the fragments that hold some of these frames.

    Args:
        dataset: The table.
        frames: Video and frame number.
        without: Fragments that are not read.
    """
    found = set()
    wanted = set(frames)
    for fragment in dataset.get_fragments() if wanted else ():
        if fragment.fragment_id in without:
            continue
        try:
            with reading_lance(dataset.uri):
                rows = fragment.to_table(columns=["video_id", "frame_index"])
        except DatasetError:
            continue  # it is lost
        if not wanted.isdisjoint(zip(rows["video_id"].to_pylist(), rows["frame_index"].to_pylist(), strict=True)):
            found |= {f"data/{file.path}" for file in fragment.data_files()}
    return found


def _listed_file(path: Path) -> ListedFile | None:
    """Return what a file is now; None if it is gone."""
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(descriptor).st_size
        found = crc32_of_range(descriptor, 0, size)
    finally:
        os.close(descriptor)
    return None if found is None else ListedFile(size, found)


def _line(path: str, listed: ListedFile) -> bytes:
    text = json.dumps({"path": path, "bytes": listed.bytes, "crc32": f"{listed.crc32:08x}"}).encode()
    return b"%08x %s\n" % (crc32(text), text)


def _entries(text: bytes) -> Iterator[tuple[str, ListedFile]]:
    for line in text.split(b"\n"):
        digits, _, rest = line.partition(b" ")
        if digits == b"%08x" % crc32(rest):
            fields = Fields.of(parse_json(rest, "the ledger"), "a line of the ledger")
            path = fields.text("path", pattern=_LISTED)
            if ".." not in path.split("/"):
                yield path, ListedFile(fields.integer("bytes"), int(fields.text("crc32", pattern=_DIGITS), 16))
