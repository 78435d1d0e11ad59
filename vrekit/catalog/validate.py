"""Metadata against bytes: is every payload where its row says, unchanged, and of the shape it promises?"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vrekit.catalog.file_checks import false_indexes, file_problems, recorded_shards, unprotected_files
from vrekit.catalog.frame_checks import frame_warnings
from vrekit.catalog.lance_samples import TABLES_FOLDER, find_tables
from vrekit.catalog.manifest import MANIFEST_NAME, Manifest, read_manifest
from vrekit.catalog.payload_checks import PayloadChecker, Problem, ValidationReport, by_clip, good_rows, rows_of
from vrekit.catalog.places import foreign_places
from vrekit.catalog.row_checks import row_mistakes
from vrekit.catalog.runs import RUNS_FOLDER, scan_runs
from vrekit.catalog.samples import SHARDS_FOLDER, find_sidecars, place_mistakes, read_unchecked_sidecar, short_tars
from vrekit.catalog.tar_members import read_members
from vrekit.catalog.trust import is_code
from vrekit.catalog.validate_lance import check_tables
from vrekit.core.checksum import crc32, crc32_of_range
from vrekit.core.errors import DatasetError
from vrekit.core.files import open_regular, read_range
from vrekit.core.names import sample_key

_LARGE_BYTES = 4 << 20


def validate(folder: Path, *, decode: bool = True) -> ValidationReport:
    """Check every file and payload of a dataset.

    Args:
        folder: The dataset.
        decode: Also decode every payload.

    Raises:
        DatasetError: If `dataset.json` itself cannot be read.
    """
    started = time.perf_counter()
    manifest = read_manifest(folder)
    report = ValidationReport()
    report.problems += _metadata_problems(folder, manifest)
    checker = PayloadChecker(manifest, report, decode=decode)
    foreign = [Problem(code="link", path=path, message=f"it is {what}") for path, what in foreign_places(folder)]
    report.problems += foreign
    if foreign:
        message = "payloads are not checked while such files are there"
        report.problems.append(Problem(code="link", path=".", message=message))
    else:
        check_tables(folder, checker)
        check_shards(folder, checker)
        checker.report_duplicates(TABLES_FOLDER if manifest.writer == "lance" else SHARDS_FOLDER)
        report.problems += _other_storage(folder, manifest)
        report.problems += file_problems(folder, manifest)
        report.problems += recorded_shards(folder)
        report.warnings += unprotected_files(folder)
        if not any(problem.code in ("fragment", "index") for problem in report.problems):
            # These read all metadata again, and Lance may end the process on damage.
            report.problems += false_indexes(folder, manifest)
            report.warnings += frame_warnings(folder, manifest)
    checker.report_values()
    report.warnings += _code_warnings(manifest)
    report.elapsed_seconds = time.perf_counter() - started
    return report


def _metadata_problems(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    for name, problem in manifest.dependency_problems().items():
        yield Problem(code="dependencies", path=MANIFEST_NAME, message=problem, representation=name)
    try:
        damaged = scan_runs(folder)[1]
    except DatasetError as error:
        damaged = [error]
    yield from (Problem(code="run", path=RUNS_FOLDER, message=one.message) for one in damaged)


def _code_warnings(manifest: Manifest) -> Iterator[Problem]:
    for name, record in manifest.representations.items():
        if record.is_virtual and is_code(record.spec.type):
            message = (
                f"it is computed on read by {record.spec.type!r}, which is code of no installed package: readers "
                "elsewhere refuse it without trust_code=True"
            )
            yield Problem(code="code", path=MANIFEST_NAME, message=message, representation=name)


def _other_storage(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """Yield what lies in the storage that the dataset's writer does not use: no reader looks there."""
    tables = [path.relative_to(folder).as_posix() for path in find_tables(folder)]
    shards = [path.with_suffix(".tar").relative_to(folder).as_posix() for path in find_sidecars(folder)]
    others = shards if manifest.writer == "lance" else tables
    if others:
        message = (
            f"dataset.json says that {manifest.writer!r} wrote the dataset, so readers pass over {len(others)} such"
        )
        yield Problem(code="storage", path=others[0], message=message)


def check_shards(folder: Path, checker: PayloadChecker) -> None:
    """Check every row and payload of a dataset's tars, and report what belongs to nobody."""
    for sidecar in find_sidecars(folder):
        _check_shard(folder, sidecar, checker)
    checker.report.problems += _orphans(folder)


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


def _check_shard(folder: Path, sidecar: Path, checker: PayloadChecker) -> None:
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
        descriptor = open_regular(tar)
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
    if not broken and (short := short_tars(folder, good)):
        broken = f"it {short[0].problem}"
    if broken:
        problems.append(Problem(code="place", path=name, message=f"the tar is damaged: {broken}"))
    in_clips: list[dict[str, Any]] = []
    tar_bytes = os.fstat(descriptor).st_size

    def payload_of(row: dict[str, Any]) -> _PayloadInTar | None:
        suffix = checker.manifest.representations[row["representation"]].suffix
        member = f"{sample_key(row['video_id'], row['frame_index'])}.{row['representation']}.{suffix}"
        place = members.pop(member, None)
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


def _orphans(folder: Path) -> Iterator[Problem]:
    root = folder / SHARDS_FOLDER
    for path in sorted(root.rglob("*")) if root.is_dir() else ():
        relative = path.relative_to(folder).as_posix()
        if path.name.endswith(".tar.partial"):
            message = "an unfinished shard: `vrekit resume` goes on with it"
            yield Problem(code="unfinished", path=relative, message=message)
        elif path.suffix == ".tar" and not path.with_suffix(".parquet").exists():
            yield Problem(code="orphan", path=relative, message=_NO_SIDECAR)
