"""`vrekit repair`, and `validate --repair`: everything of a dataset that can be put right, one after the other."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vrekit.catalog.card import CARD_NAME, write_card
from vrekit.catalog.manifest import COPY_NAME, MANIFEST_NAME, Manifest, manifest_lock, read_manifest, write_manifest
from vrekit.catalog.payload_checks import ValidationReport
from vrekit.catalog.quarantine import move_aside, new_quarantine
from vrekit.catalog.runs import read_run, run_files
from vrekit.catalog.validate import validate
from vrekit.core.errors import DatasetError
from vrekit.engine.repair import RepairReport, repair


@dataclass(slots=True, kw_only=True)
class DatasetRepair:
    """What was wrong with a dataset, and what was done; with `dry_run`, what would be.

    Attributes:
        restored: Files that were written again, relative to the dataset.
        set_aside: Files that were moved to quarantine before the check, relative to the dataset.
        validation: What the check found; None when it has to wait for the manifest.
        repair: What was done about that; None when nothing was.
    """

    restored: list[str] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)
    validation: ValidationReport | None = None
    repair: RepairReport | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict: what `validate --json` prints, and what was done."""
        checked = {} if self.validation is None else self.validation.to_json()
        return checked | {
            "restored": self.restored,
            "set_aside": self.set_aside,
            "repair": None if self.repair is None else self.repair.to_json(),
        }


def repair_dataset(folder: Path, *, decode: bool = True, dry_run: bool = False) -> DatasetRepair:
    """Restore a lost or damaged manifest, set damaged run records aside, check every payload and repair what is wrong.

    Args:
        folder: The dataset.
        decode: Also decode every payload.
        dry_run: Only say what would be done.

    Raises:
        DatasetError: If it is no dataset, a newer vrekit wrote it, or neither the manifest nor its copy can be read.
    """
    done = DatasetRepair()
    quarantine = new_quarantine(folder)
    damaged = _damaged_manifest(folder)
    if damaged is None and dry_run:
        done.restored += _lacking(folder, read_manifest(folder))
    elif dry_run:
        done.restored.append(MANIFEST_NAME)
    else:
        with manifest_lock(folder):
            done.restored += _restore(folder, quarantine)
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
        DatasetError: If its copy cannot be read either.
    """
    try:
        read_manifest(folder)
    except DatasetError as error:
        try:
            read_manifest(folder, COPY_NAME)
        except DatasetError as about_copy:
            if not (folder / COPY_NAME).exists():
                raise DatasetError(error.message, hint=_LOST_HINT) from error
            raise DatasetError(f"{error.message}\n{about_copy.message}", hint=_LOST_HINT) from error
        return error
    return None


_LOST_HINT = f"there is no {COPY_NAME} to restore it from: restore one of both from a backup of yours"


def _restore(folder: Path, quarantine: Path) -> list[str]:
    """Write what is lost or damaged of the manifest, its copy and the card; call it with `manifest_lock` held."""
    is_damaged = _damaged_manifest(folder) is not None
    manifest = read_manifest(folder, COPY_NAME if is_damaged else MANIFEST_NAME)
    lacking = _lacking(folder, manifest)
    if is_damaged:
        move_aside(folder, quarantine, folder / MANIFEST_NAME)
    if is_damaged or COPY_NAME in lacking:
        write_manifest(folder, manifest)
    if CARD_NAME in lacking:
        write_card(folder, manifest)
    return [MANIFEST_NAME, *lacking] if is_damaged else lacking


def _lacking(folder: Path, manifest: Manifest) -> list[str]:
    """Return what has to be written again from the manifest."""
    lacking = [] if (folder / CARD_NAME).exists() else [CARD_NAME]
    try:
        return lacking if read_manifest(folder, COPY_NAME) == manifest else [*lacking, COPY_NAME]
    except DatasetError:
        return [*lacking, COPY_NAME]
