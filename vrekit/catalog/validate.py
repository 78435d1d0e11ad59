"""Metadata against bytes: is every payload where its row says, unchanged, and of the shape it promises?"""

import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vrekit.catalog.frame_checks import frame_warnings
from vrekit.catalog.manifest import MANIFEST_NAME, Manifest, read_manifest
from vrekit.catalog.payload_checks import PayloadChecker, Problem, ValidationReport, by_clip, rows_of
from vrekit.catalog.places import foreign_places
from vrekit.catalog.runs import RUNS_FOLDER, scan_runs
from vrekit.catalog.samples import SHARDS_FOLDER, find_sidecars, read_sidecar
from vrekit.catalog.trust import is_code
from vrekit.catalog.validate_lance import check_tables
from vrekit.core.errors import DatasetError
from vrekit.core.files import open_regular
from vrekit.core.names import sample_key


def validate(folder: Path, *, decode: bool = True) -> ValidationReport:
    """Check every payload of a dataset.

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
    elif manifest.writer == "lance":
        check_tables(folder, checker)
    else:
        check_shards(folder, checker)
    checker.report_values()
    if not foreign:
        report.warnings += frame_warnings(folder, manifest)
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


_END_OF_ARCHIVE = bytes(1024)


def check_shards(folder: Path, checker: PayloadChecker) -> None:
    """Check every row and payload of a dataset's tars, and report what belongs to nobody."""
    for sidecar in find_sidecars(folder):
        _check_shard(folder, sidecar, checker)
    checker.report_duplicates(SHARDS_FOLDER)
    checker.report.problems += _orphans(folder)


def _check_shard(folder: Path, sidecar: Path, checker: PayloadChecker) -> None:
    problems = checker.report.problems
    try:
        table = read_sidecar(sidecar)
    except DatasetError as error:
        relative = sidecar.relative_to(folder).as_posix()
        problems.append(Problem(code="sidecar", path=relative, message=error.message))
        return
    tar = sidecar.with_suffix(".tar")
    name = tar.relative_to(folder).as_posix()
    if not tar.exists():
        message = "the sidecar is there, the tar is not"
        problems.append(Problem(code="missing-shard", path=name, message=message))
        return
    members, broken = _members(tar)
    if broken:
        problems.append(Problem(code="place", path=name, message=f"the tar is damaged: {broken}"))
    in_clips: list[dict[str, Any]] = []
    descriptor = open_regular(tar)

    def payload_of(row: dict[str, Any]) -> bytes | None:
        suffix = checker.manifest.representations[row["representation"]].suffix
        member = f"{sample_key(row['video_id'], row['frame_index'])}.{row['representation']}.{suffix}"
        place = members.pop(member, None)
        if place != (row["byte_offset"], row["byte_size"]) and not (broken and place is None):
            said = (row["byte_offset"], row["byte_size"])
            checker.problem(row, "place", f"the row says offset, size {said}, the tar {place}")
            return None
        return os.pread(descriptor, row["byte_size"], row["byte_offset"])

    try:
        for row in rows_of(table):
            row["shard"] = name
            if not checker.has_payload(row):
                continue
            if row["payload_index"] is not None:
                in_clips.append(row)
            elif (data := payload_of(row)) is not None:
                checker.check(row, data)
        for rows in by_clip(in_clips):
            if (data := payload_of(rows[0])) is not None:
                checker.check_clip(rows, data)
    finally:
        os.close(descriptor)
    problems += [
        Problem(code="orphan", path=name, message=f"member {member} has no metadata row") for member in members
    ]


def _members(tar: Path) -> tuple[dict[str, tuple[int, int]], str]:
    """Return name → (payload offset, size) of every member up to the first damage, and what the damage is."""
    members: dict[str, tuple[int, int]] = {}
    try:
        with os.fdopen(open_regular(tar), "rb") as file:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    members[member.name] = (member.offset_data, member.size)
            # tarfile does not mind, others warn or refuse
            file.seek(-min(len(_END_OF_ARCHIVE), os.fstat(file.fileno()).st_size), os.SEEK_END)
            if file.read() != _END_OF_ARCHIVE:
                return members, "it has no end-of-archive blocks"
    except (tarfile.TarError, OSError, EOFError) as error:
        return members, str(error)
    return members, ""


def _orphans(folder: Path) -> Iterator[Problem]:
    root = folder / SHARDS_FOLDER
    for path in sorted(root.rglob("*")) if root.is_dir() else ():
        relative = path.relative_to(folder).as_posix()
        if path.name.endswith(".tar.partial"):
            message = "an unfinished shard: `vrekit resume` goes on with it"
            yield Problem(code="unfinished", path=relative, message=message)
        elif path.suffix == ".tar" and not path.with_suffix(".parquet").exists():
            yield Problem(code="orphan", path=relative, message="a tar without a sidecar: it was never committed")
