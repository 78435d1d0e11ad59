"""`quarantine/<time>/…`: where damaged files of a dataset are moved; the path inside is the one they had."""

import os
from datetime import UTC, datetime
from pathlib import Path

from vrekit.core.files import fsync_folder, make_folder, storage_errors

QUARANTINE_FOLDER = "quarantine"


def new_quarantine(folder: Path) -> Path:
    """Return a new folder inside a dataset's quarantine; it is made when something is moved there."""
    return folder / QUARANTINE_FOLDER / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}"


def move_aside(folder: Path, quarantine: Path, *paths: Path) -> None:
    """Move files or folders of the dataset `folder` into its quarantine, durably; what is not there is passed over."""
    for path in paths:
        if path.exists():
            target = quarantine / path.relative_to(folder)
            with storage_errors(target):
                make_folder(folder, *target.parent.relative_to(folder).parts)
                os.replace(path, target)
                fsync_folder(target.parent)
                fsync_folder(path.parent)
