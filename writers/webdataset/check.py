"""`validate` for tar shards: every payload against its row, every member against the rows, every shard against runs."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from vrekit.catalog.parquet_files import checksum_of
from vrekit.catalog.payload_checks import PayloadChecker, Problem, by_clip, good_rows
from vrekit.catalog.row_checks import row_mistakes
from vrekit.catalog.rows import rows_of
from vrekit.catalog.runs import ShardFacts, scan_runs
from vrekit.core.checksum import crc32, crc32_of_range
from vrekit.core.errors import DatasetError
from vrekit.core.files import read_range
from vrekit.writers.webdataset.members import read_members
from vrekit.writers.webdataset.sidecars import (
    SHARDS_FOLDER,
    find_sidecars,
    is_too_long,
    place_mistakes,
    read_unchecked_sidecar,
    short_tars,
)
from vrekit.writers.webdataset.tars import Tars

_LARGE_BYTES = 4 << 20


def check_shards(folder: Path, tars: Tars, checker: PayloadChecker) -> None:
    """Check every row and payload of a dataset's tars, and report what belongs to nobody."""
    for sidecar in find_sidecars(folder):
        _check_shard(folder, sidecar, tars, checker)
    checker.report.problems += _orphans(folder, tars)


class _PayloadInTar:
    """A payload that is there as far as the size of the tar goes; small ones are read once, large ones twice."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self.size = size
        self._place = (descriptor, offset, size)
        self._data = read_range(*self._place) if size < _LARGE_BYTES else None

    def checksum(self) -> int:
        """See StoredPayload."""
        return crc32_of_range(*self._place) or 0 if self._data is None else crc32(self._data)

    def read(self) -> bytes:
        """Return the payload."""
        return read_range(*self._place) if self._data is None else self._data


def _check_shard(folder: Path, sidecar: Path, tars: Tars, checker: PayloadChecker) -> None:
    problems = checker.report.problems
    tar = sidecar.with_suffix(".tar")
    name = tar.relative_to(folder).as_posix()
    try:
        table = read_unchecked_sidecar(sidecar)
    except DatasetError as error:
        code = "unreadable" if isinstance(error.__cause__, PermissionError) else "sidecar"
        problems.append(Problem(code=code, path=sidecar.relative_to(folder).as_posix(), message=error.message))
        return
    mistakes = [*row_mistakes(table), *place_mistakes(table, [sidecar], [len(table)])]
    good = good_rows(table, mistakes, name, checker.report)
    try:
        descriptor = tars.open(name)
    except FileNotFoundError:
        message = "the sidecar is there, the tar is not"
        problems.append(Problem(code="missing-shard", path=name, message=message))
        return
    except OSError as error:
        problems.append(Problem(code="unreadable", path=name, message=f"it cannot be read: {error.strerror}"))
        return
    try:
        found, broken = read_members(descriptor)
    except OSError as error:
        found, broken = [], f"it cannot be read: {error.strerror}"
    members = {member.name: (member.offset, member.size) for member in found if member.is_plain}
    special = [
        f"member {member.name} of type {member.type!r} is no plain file" for member in found if not member.is_plain
    ]
    if not broken and (short := short_tars(folder, good, tars.size)):
        broken = f"it {short[0].problem}"
    if broken:
        problems.append(Problem(code="place", path=name, message=f"the tar is damaged: {broken}"))
    in_clips: list[dict[str, Any]] = []
    tar_bytes = os.fstat(descriptor).st_size

    def payload_of(row: dict[str, Any]) -> _PayloadInTar | None:
        place = members.pop(checker.manifest.member_name(row), None)
        said = (row["byte_offset"], row["byte_size"])
        if place != said and not (broken and place is None):
            checker.problem(row, "place", f"the row says offset, size {said}, the tar {place}")
            return None
        if sum(said) > tar_bytes:
            checker.problem(row, "place", f"the row says offset, size {said}, but the tar ends at {tar_bytes}")
            return None
        return _PayloadInTar(descriptor, *said)

    try:
        for row in rows_of(good):
            if not checker.has_payload(row):
                continue
            if row["payload_index"] is not None:
                in_clips.append(row)
            elif (payload := payload_of(row)) is not None:
                checker.check(row, payload)
        for rows in by_clip(in_clips):
            if (payload := payload_of(rows[0])) is not None:
                checker.check_clip(rows, payload)
    except OSError as error:
        problems.append(Problem(code="unreadable", path=name, message=f"it cannot be read: {error.strerror}"))
        return
    finally:
        os.close(descriptor)
    # With a bad row, it is not known whose members are left.
    left = [f"member {member} has no metadata row" for member in members] if len(good) == len(table) else []
    problems += [Problem(code="orphan", path=name, message=message) for message in left + special]


_NO_SIDECAR = "a tar without a sidecar: that was lost, or the commit was interrupted; `vrekit repair` moves it aside"


def _orphans(folder: Path, tars: Tars) -> Iterator[Problem]:
    root = folder / SHARDS_FOLDER
    for path in sorted(root.rglob("*")) if root.is_dir() else ():
        if is_too_long(path.name):
            message = "its name is too long to be that of a shard; `vrekit repair` moves it aside"
            yield Problem(code="name", path=path.relative_to(folder).as_posix(), message=message)
    for name in tars.names():
        if is_too_long(PurePosixPath(name).name):
            continue
        if name.endswith(".partial"):
            message = "an unfinished shard: `vrekit resume` goes on with it"
            yield Problem(code="unfinished", path=name, message=message)
        elif not (folder / name).with_suffix(".parquet").exists():
            yield Problem(code="orphan", path=name, message=_NO_SIDECAR)


def recorded_shards(folder: Path, tars: Tars) -> Iterator[Problem]:
    """Yield the shards that are not what a run recorded when it committed them."""
    facts: dict[str, tuple[str, ShardFacts]] = {}
    try:
        for record in scan_runs(folder)[0]:
            facts.update((path, (record.run_id, shard)) for path, shard in record.shards.items())
    except DatasetError:
        return  # reported elsewhere
    for path, (run_id, shard) in facts.items():
        tar = folder / path
        try:
            checksum = checksum_of(tar.with_suffix(".parquet"))
            size = tars.size(path)
        except FileNotFoundError:
            if not tar.with_suffix(".parquet").exists():
                message = f"run {run_id} stored {shard.rows} rows there, and its metadata is gone"
                yield Problem(code="lost-shard", path=path, message=message)
            continue
        except (DatasetError, OSError):
            continue
        if checksum != shard.checksum or size != shard.bytes:
            message = f"it is another file than run {run_id} wrote; if you replaced it, --repair forgets the old one"
            yield Problem(code="replaced-shard", path=path, message=message)
