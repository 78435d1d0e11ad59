"""`validate --repair`: what is damaged is moved aside, so that `resume` computes it again; what is good stays."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from vrekit.catalog.payload_checks import Problem
from vrekit.catalog.places import check_places
from vrekit.catalog.remote import refuse_remote
from vrekit.catalog.repairs import (
    BAD_FILE,
    BAD_PAYLOAD,
    BAD_PLACE,
    HINTS,
    OF_COPIES,
    OF_TABLES,
    Repair,
    RepairReport,
    key_of,
)
from vrekit.catalog.runs import forget_shards
from vrekit.catalog.storage import open_storage, storage_types
from vrekit.core.errors import LockedError
from vrekit.core.reports import timed

_OF_RECORDS = {"lost-shard", "replaced-shard"}  # the records of runs forget them
REPAIRED = BAD_PAYLOAD | BAD_PLACE | BAD_FILE | OF_TABLES | _OF_RECORDS | {"derived", "name"}


@timed
def repair(folder: Path, problems: Sequence[Problem]) -> RepairReport:
    """Move aside what `validate` found damaged.

    A shard is written anew without its damaged payloads; payloads whose tar header alone is damaged stay. The new
    shard is durable before the old one goes. In a Lance table, the whole row of the frame goes, and fragments that
    cannot be read; indexes and tags are made anew, and the last version that opens becomes the latest.

    Args:
        folder: The dataset.
        problems: Of `validate`; warnings are not repaired.

    Raises:
        DatasetError: If a table cannot be read.
    """
    refuse_remote(folder, "repaired")
    manifest = open_storage(folder).manifest
    check_places(folder)
    work = Repair(folder, manifest)
    storages = {kind.folder_name: kind(folder, manifest) for kind in storage_types()}
    by_file: dict[str, list[Problem]] = {}
    left: list[Problem] = []
    for problem in problems:
        if problem.code in REPAIRED:
            by_file.setdefault(problem.path, []).append(problem)
        else:
            left.append(problem)
    if noted := [problem for some in by_file.values() for problem in some if problem.code not in OF_COPIES]:
        work.write_problems(noted)
    if by_file:
        forget_shards(folder, {str(PurePosixPath(path).with_suffix(".tar")) for path in by_file})
    for path, some in by_file.items():
        try:
            if {one.code for one in some} <= _OF_RECORDS:
                work.report.shards.append(path)
            elif some[0].code in ("derived", "name"):  # the former are made anew when they are needed
                work.move_aside(folder / path)
                work.report.shards.append(path)
            elif storage := storages.get(PurePosixPath(path).parts[0]):
                storage.repair(path, some, work)
            else:
                left += some
        except LockedError as error:
            work.report.left.append(f"{path}: {error.message}")
    work.report.left += [
        f"{problem.path}: {problem.code} ({HINTS.get(problem.code, 'cannot be repaired')})"
        for problem in left
        if (problem.code, key_of(problem)) not in work.settled
    ]
    return work.report
