"""What lies in an output folder of VRE (1.18: one file a frame and representation).

    NAME/npz/12.npz or NAME/npy/12.npy   the array of frame 12; in npz under the key `arr_0`
    NAME/npz/12_extra.npz                further values, usually a pickled dict
    NAME/png/12.png, NAME/jpg/12.jpg     pictures
    NAME/.repr_metadata.json             seconds, run id and formats of each frame
    .logs/run_metadata-ID-TIME.json      a run: video, arguments, totals

Frames are numbered as in the video; files without a number are ignored. Python objects (pickles) are never loaded.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vrekit.core.documents import MAX_DOCUMENT_BYTES, parse_json
from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.files import check_folder, check_tree, read_regular
from vrekit.core.names import MAX_NAME_LENGTH, RUN_ID

logger = logging.getLogger(__name__)

METADATA_NAME = ".repr_metadata.json"
LOGS_FOLDER = ".logs"
ARRAY_FORMATS = ("npz", "npy")
IMAGE_FORMATS = ("png", "jpg")
EXTRA = "_extra"
_MAX_DIGITS = 15  # of a frame's number: the largest is 2**53 - 1

Files = Mapping[int, Path]


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """What VRE noted about a frame; `seconds` is None when it failed."""

    seconds: float | None
    run_id: str | None


@dataclass(frozen=True, slots=True)
class VreRepresentation:
    """One representation's files, each by frame number.

    Attributes:
        name: As VRE has it, the folder's name.
        arrays: npz files, npy files where there is no npz.
        extras: `_extra.npz` files.
        images: Picture files by format.
        frames: VRE's own records; frames that were never tried have none.
    """

    name: str
    arrays: Files
    extras: Files
    images: Mapping[str, Files]
    frames: Mapping[int, FrameRecord]


@dataclass(frozen=True, slots=True)
class VreRun:
    """One run of VRE: its id, the whole record, and its log file."""

    run_id: str
    record: Mapping[str, Any]
    path: Path
    log: Path | None

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The run's `runtime_args`."""
        found = self.record.get("runtime_args")
        return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True, slots=True)
class VreFolder:
    """An output folder of VRE.

    Attributes:
        path: Where it lies.
        representations: By name.
        runs: Oldest first.
        problems: What could not be read, for people.
    """

    path: Path
    representations: Mapping[str, VreRepresentation]
    runs: tuple[VreRun, ...]
    problems: list[str] = field(default_factory=list)


def read_vre_folder(path: Path) -> VreFolder:
    """Return what lies in an output folder of VRE; arrays are not read.

    Raises:
        UsageError: If there is no such folder, or no representation in it.
        DatasetError: If what is read of it is a link, a pipe or a device: it would copy what lies elsewhere.
    """
    if not path.is_dir():
        raise UsageError(f"{path} is no folder", hint="pass the folder that VRE's -o named")
    problems: list[str] = []
    found = {}
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            representation = _read_representation(folder, problems)
            if representation is not None:
                found[folder.name] = representation
    if not found:
        raise UsageError(
            f"{path} holds no output of VRE: there is no NAME/npz, NAME/npy, NAME/png or NAME/jpg with numbered files",
            hint="pass the folder that VRE's -o named",
        )
    return VreFolder(path, found, _read_runs(path / LOGS_FOLDER, problems), problems)


def _read_representation(folder: Path, problems: list[str]) -> VreRepresentation | None:
    arrays: dict[int, Path] = {}
    extras: dict[int, Path] = {}
    for name in ARRAY_FORMATS + IMAGE_FORMATS:
        if check_folder(folder):
            check_tree(folder / name)
    for name in ARRAY_FORMATS:
        numbered, more = _numbered(folder / name, name)
        arrays = {**numbered, **arrays}
        extras = {**more, **extras}
    images = {name: files for name in IMAGE_FORMATS if (files := _numbered(folder / name, name)[0])}
    frames = _read_frames(folder / METADATA_NAME, problems)
    if not (arrays or images or frames):
        return None
    return VreRepresentation(folder.name, dict(sorted(arrays.items())), dict(sorted(extras.items())), images, frames)


def _numbered(folder: Path, suffix: str) -> tuple[dict[int, Path], dict[int, Path]]:
    """Return the files `12.suffix` and `12_extra.suffix` by number."""
    plain: dict[int, Path] = {}
    extra: dict[int, Path] = {}
    for file in sorted(folder.glob(f"*.{suffix}")) if folder.is_dir() else ():
        number = file.stem.removesuffix(EXTRA)
        if number.isdecimal() and len(number) <= _MAX_DIGITS:
            (extra if file.stem.endswith(EXTRA) else plain)[int(number)] = file
    return dict(sorted(plain.items())), extra


def _read_frames(path: Path, problems: list[str]) -> dict[int, FrameRecord]:
    stats = _read_json(path, problems).get("run_stats") if path.exists() else None
    frames = {}
    for number, entry in stats.items() if isinstance(stats, dict) else ():
        if number.isdecimal() and len(number) <= _MAX_DIGITS and isinstance(entry, dict):
            seconds, run_id = entry.get("duration"), entry.get("run_id")
            frames[int(number)] = FrameRecord(
                float(seconds) if isinstance(seconds, (int, float)) else None,
                run_id if _is_run_id(run_id) else None,
            )
    return frames


def _read_runs(folder: Path, problems: list[str]) -> tuple[VreRun, ...]:
    runs = []
    check_tree(folder)
    for path in folder.glob("run_metadata-*.json"):
        record = _read_json(path, problems)
        run_id = record.get("id")
        if run_id and not _is_run_id(run_id):
            problems.append(f"{path}: the run's id {str(run_id)[:40]!r} is no name")
        elif run_id:
            logs = sorted(folder.glob(f"logs-{run_id}-*.txt"))
            runs.append(VreRun(run_id, record, path, logs[0] if logs else None))
    return tuple(sorted(runs, key=lambda run: run.path.name.split("-", 2)[-1]))  # run_metadata-ID-TIME.json


def _is_run_id(value: object) -> bool:
    return isinstance(value, str) and RUN_ID.fullmatch(value) is not None and len(value) <= MAX_NAME_LENGTH


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        value = parse_json(read_regular(path, max_bytes=MAX_DOCUMENT_BYTES), str(path))
    except (OSError, DatasetError) as error:
        problems.append(f"{path} cannot be read: {error}")
        return {}
    return value if isinstance(value, dict) else {}
