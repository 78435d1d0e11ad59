"""`vrekit repair`, and `validate --repair`: everything of a dataset that can be put right, one after the other."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vrekit.catalog.card import CARD_NAME, write_card
from vrekit.catalog.manifest import (
    COPY_NAME,
    MANIFEST_NAME,
    Manifest,
    has_lost_manifest,
    manifest_lock,
    read_manifest,
    write_manifest,
)
from vrekit.catalog.payload_checks import ValidationReport
from vrekit.catalog.quarantine import move_aside, new_quarantine
from vrekit.catalog.remote import refuse_remote
from vrekit.catalog.repairs import RepairReport
from vrekit.catalog.runs import read_run, run_files
from vrekit.catalog.storage import open_storage
from vrekit.core.documents import read_document
from vrekit.core.errors import DatasetError
from vrekit.core.reports import Report, timed
from vrekit.core.schema import FORMAT_VERSION
from vrekit.jobs.rebuild import rebuild_manifest
from vrekit.jobs.repair import repair
from vrekit.jobs.validate import validate


@dataclass(slots=True, kw_only=True)
class DatasetRepair(Report):
    """What was wrong with a dataset, and what was done; with `dry_run`, what would be.

    Attributes:
        restored: Files that were written again, relative to the dataset.
        rebuilt: Whether the manifest came from the run records, since its copy could not be read either.
        left_out: What of the runs is not in the rebuilt manifest, and why.
        set_aside: Files that were moved to quarantine before the check, relative to the dataset.
        validation: What the check found; None when it has to wait for the manifest.
        repair: What was done about that; None when nothing was.
    """

    restored: list[str] = field(default_factory=list)
    rebuilt: bool = False
    left_out: list[str] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)
    validation: ValidationReport | None = None
    repair: RepairReport | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict: what `validate --json` prints, and what was done."""
        checked = {} if self.validation is None else self.validation.to_json()
        return checked | {
            "elapsed_seconds": round(self.elapsed_seconds, 3),
            "restored": self.restored,
            "rebuilt": self.rebuilt,
            "left_out": self.left_out,
            "set_aside": self.set_aside,
            "repair": None if self.repair is None else self.repair.to_json(),
        }


@timed
def repair_dataset(
    folder: str | Path, *, decode: bool = True, dry_run: bool = False, trust_code: bool = False
) -> DatasetRepair:
    """Restore a lost or damaged manifest, set damaged run records aside, check every payload and repair what is wrong.

    The manifest comes from its copy; when that cannot be read either, it is rebuilt from the runs (`engine.rebuild`).

    Args:
        folder: The dataset.
        decode: Also decode every payload.
        dry_run: Only say what would be done.
        trust_code: Rebuilding the manifest may run types that are code recorded in the dataset.

    Raises:
        DatasetError: If it is no dataset, a newer vrekit wrote it, or the manifest can be neither restored nor rebuilt.
    """
    refuse_remote(folder, "repaired")
    folder = Path(folder)
    done = DatasetRepair()
    quarantine = new_quarantine(folder)
    damaged = _damaged_manifest(folder)
    if damaged is None and dry_run:
        done.restored += _lacking(folder, read_manifest(folder))
    elif dry_run:
        _find_manifest(folder, done, trust_code)
        done.restored.append(MANIFEST_NAME)
    else:
        with manifest_lock(folder):
            _restore(folder, quarantine, done, trust_code)
    for path in run_files(folder):
        try:
            read_run(path)
        except DatasetError:
            done.set_aside.append(path.relative_to(folder).as_posix())
            if not dry_run:
                move_aside(folder, quarantine, path)
    if damaged is None or not dry_run:
        done.validation = validate(folder, decode=decode)
        if done.validation.problems and not dry_run:
            done.repair = repair(folder, done.validation.problems)
    return done


def _damaged_manifest(folder: Path) -> DatasetError | None:
    """Return why the manifest cannot be read.

    Raises:
        DatasetError: If there is nothing to restore it from, or a newer vrekit wrote it or its copy.
    """
    try:
        read_manifest(folder)
    except DatasetError as error:
        try:
            read_manifest(folder, COPY_NAME)
        except DatasetError as about_copy:
            both = f"{error.message}\n{about_copy.message}" if (folder / COPY_NAME).exists() else error.message
            if not _may_be_replaced(folder / COPY_NAME):
                raise about_copy from error
            if not _may_be_replaced(folder / MANIFEST_NAME):
                raise error from None
            if not (folder / MANIFEST_NAME).exists() and not has_lost_manifest(folder):
                raise error from None
            if not run_files(folder):
                raise DatasetError(both, hint=_LOST_HINT) from error
            return DatasetError(both, hint=_LOST_HINT)
        return error
    return None


_LOST_HINT = f"there is no {COPY_NAME} and no run to restore it from: restore one of both from a backup of yours"


def _may_be_replaced(path: Path) -> bool:
    """Return whether a manifest is lost or damaged; not when it may not be read, or a newer vrekit wrote it."""
    try:
        version = read_document(path).fields.raw().get("format_version")
    except (FileNotFoundError, DatasetError):
        return True
    except OSError:
        return False
    return not (isinstance(version, int) and version > FORMAT_VERSION)


def _find_manifest(folder: Path, done: DatasetRepair, trust_code: bool) -> Manifest:
    """Return the manifest from its file, its copy or the runs, and note whether it was rebuilt."""
    for name in (MANIFEST_NAME, COPY_NAME):
        try:
            return read_manifest(folder, name)
        except DatasetError:
            continue
    rebuilt = rebuild_manifest(folder, trust_code=trust_code)
    done.rebuilt, done.left_out = True, rebuilt.left_out
    return rebuilt.manifest


def _restore(folder: Path, quarantine: Path, done: DatasetRepair, trust_code: bool) -> None:
    """Write what is lost or damaged of the manifest, its copy and the card; call it with `manifest_lock` held."""
    is_damaged = _damaged_manifest(folder) is not None
    manifest = _find_manifest(folder, done, trust_code)
    lacking = _lacking(folder, manifest)
    if is_damaged:
        move_aside(folder, quarantine, folder / MANIFEST_NAME)
    if done.rebuilt:
        move_aside(folder, quarantine, folder / COPY_NAME)
    if is_damaged or COPY_NAME in lacking:
        write_manifest(folder, manifest)
    if CARD_NAME in lacking:
        write_card(open_storage(folder, manifest))
    done.restored += [MANIFEST_NAME, *lacking] if is_damaged else lacking


def _lacking(folder: Path, manifest: Manifest) -> list[str]:
    """Return what has to be written again from the manifest."""
    lacking = [] if (folder / CARD_NAME).exists() else [CARD_NAME]
    try:
        return lacking if read_manifest(folder, COPY_NAME) == manifest else [*lacking, COPY_NAME]
    except DatasetError:
        return [*lacking, COPY_NAME]
