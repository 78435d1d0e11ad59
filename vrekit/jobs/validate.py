"""Metadata against bytes: is every payload where its row says, unchanged, and of the shape it promises?"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from vrekit.catalog.manifest import MANIFEST_NAME, Manifest
from vrekit.catalog.payload_checks import PayloadChecker, Problem, ValidationReport
from vrekit.catalog.places import foreign_places
from vrekit.catalog.remote import dataset_folder
from vrekit.catalog.runs import RUNS_FOLDER, run_files, scan_runs
from vrekit.catalog.storage import Storage, open_storage, stored_types
from vrekit.catalog.trust import is_code
from vrekit.core.errors import DatasetError
from vrekit.core.reports import timed
from vrekit.jobs.file_checks import false_indexes, file_problems, unprotected_files
from vrekit.jobs.frame_checks import frame_warnings


@timed
def validate(folder: str | Path, *, decode: bool = True) -> ValidationReport:
    """Check every file and payload of a dataset.

    Args:
        folder: The dataset; a path or a URL.
        decode: Also decode every payload.

    Raises:
        DatasetError: If `dataset.json` itself cannot be read.
    """
    folder = dataset_folder(folder)
    storage = open_storage(folder)
    manifest = storage.manifest
    report = ValidationReport()
    report.problems += _metadata_problems(folder, manifest)
    checker = PayloadChecker(manifest, report, decode=decode)
    foreign = [Problem(code="link", path=path, message=f"it is {what}") for path, what in foreign_places(folder)]
    report.problems += foreign
    if foreign:
        message = "payloads are not checked while such files are there"
        report.problems.append(Problem(code="link", path=".", message=message))
    else:
        others = [kind(folder, manifest) for kind in stored_types(folder) if kind.name != storage.name]
        for one in (*others, storage):
            one.check(checker)
        checker.report_duplicates(storage.folder_name)
        report.problems += _unused_storages(storage, others)
        report.problems += file_problems(folder, manifest)
        known = {problem.path for problem in report.problems if problem.code == "place" and problem.frame_index is None}
        report.problems += (problem for problem in storage.recorded() if problem.path not in known)
        report.warnings += unprotected_files(storage)
        if not any(problem.code in ("fragment", "index") for problem in report.problems):
            # These read all metadata again, and Lance may end the process on damage.
            report.problems += false_indexes(storage)
            report.warnings += frame_warnings(storage)
    checker.report_values()
    report.warnings += _code_warnings(manifest)
    report.warnings += _empty(folder, manifest, report)
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


def _empty(folder: Path, manifest: Manifest, report: ValidationReport) -> Iterator[Problem]:
    """Yield a warning if nothing is stored, although representations to store were asked for."""
    if report.payloads or report.problems or all(record.is_virtual for record in manifest.representations.values()):
        return
    how = "`vrekit resume`" if run_files(folder) else "the same `vrekit export …` again"
    message = f"no frame is stored: {how} computes what was asked for"
    yield Problem(code="empty", path=MANIFEST_NAME, message=message)


def _unused_storages(storage: Storage, others: Sequence[Storage]) -> Iterator[Problem]:
    """Yield what lies in storages that the dataset's writer does not use: no reader looks there."""
    for other in others:
        if shards := other.shards():
            message = (
                f"dataset.json says that {storage.name!r} wrote the dataset, so readers pass over {len(shards)} such"
            )
            yield Problem(code="storage", path=shards[0], message=message)
