"""`runs/<run_id>.json`: who computed what, when, with which arguments, versions and device, and what failed."""

import json
import platform
import secrets
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Self

from vrekit import __version__
from vrekit.core.errors import DatasetError
from vrekit.core.files import storage_errors, write_atomic

RUNS_FOLDER = "runs"
_REPORTED_PACKAGES = ("numpy", "opencv-python-headless", "pyarrow", "torch", "torchcodec", "imagecodecs", "pcodec")
MAX_FAILURES_LISTED = 100

RunStatus = Literal["running", "done", "interrupted", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepresentationTotals:
    """What a run did for one representation; seconds are summed over threads, bytes are payload bytes."""

    computed: int = 0
    failed: int = 0
    compute_seconds: float = 0.0
    encode_seconds: float = 0.0
    raw_bytes: int = 0
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run of `export` or `resume`.

    Attributes:
        run_id: Sorts by start time: `20261120T235443512-3f9a2c`.
        request: What was asked, complete enough for `resume` to ask for it again.
        status: `running` in a file nobody is working on means the process was killed.
        totals: By representation name.
        failures: The first failures: video_id, frame_index, representation, error.
    """

    run_id: str
    video_id: str
    request: Mapping[str, Any]
    command: list[str]
    started_at: str
    status: RunStatus = "running"
    finished_at: str | None = None
    elapsed_seconds: float | None = None
    error: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    device: Mapping[str, Any] = field(default_factory=dict)
    totals: Mapping[str, RepresentationTotals] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the record `to_json` described; unknown keys are ignored."""
        fields = {name: data[name] for name in cls.__slots__ if name in data}
        fields["totals"] = {
            name: RepresentationTotals(**{key: totals[key] for key in RepresentationTotals.__slots__ if key in totals})
            for name, totals in data.get("totals", {}).items()
        }
        return cls(**fields)

    def finished(self, status: RunStatus, **changes: Any) -> Self:
        """Return the record of the run's end, now."""
        return replace(self, status=status, finished_at=now_iso(), **changes)


def now_iso() -> str:
    """Return the current UTC time, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_run_id() -> str:
    """Return an id that sorts by start time and does not repeat."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}-{secrets.token_hex(3)}"


def new_run(video_id: str, request: Mapping[str, Any], devices: set[str]) -> RunRecord:
    """Return the record of a run that starts now in this process."""
    return RunRecord(
        run_id=new_run_id(),
        video_id=video_id,
        request=request,
        command=[argument.encode(errors="replace").decode() for argument in sys.argv],  # one need not be UTF-8
        started_at=now_iso(),
        versions={"vrekit": __version__, "python": platform.python_version(), **_package_versions()},
        device={
            "devices": sorted(devices),
            "machine": platform.machine(),
            "system": platform.system(),
            "cpu_count": _usable_cpus(),
        },
    )


def _usable_cpus() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in _REPORTED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def write_run(folder: Path, record: RunRecord) -> None:
    """Write or replace the record of a run; durable on return."""
    runs = folder / RUNS_FOLDER
    with storage_errors(runs):
        runs.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record.to_json(), indent=2, ensure_ascii=False)
    write_atomic(runs / f"{record.run_id}.json", text.encode() + b"\n")


def read_runs(folder: Path) -> list[RunRecord]:
    """Return the records of all runs, oldest first.

    Raises:
        DatasetError: If one is damaged; the message names the file.
    """
    return [read_run(path) for path in run_files(folder)]


def run_files(folder: Path) -> list[Path]:
    """Return the files of all run records of a dataset, oldest first."""
    return sorted((folder / RUNS_FOLDER).glob("*.json"))


def read_run(path: Path) -> RunRecord:
    """Return the record of one run.

    Raises:
        DatasetError: If it is damaged; the message names the file.
    """
    try:
        return RunRecord.from_json(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} is damaged: {error}",
            hint="`vrekit repair DATASET` sets it aside: a run's record is not needed to read the data",
        ) from error


def config_folders(folder: Path) -> tuple[Path, ...]:
    """Return where relative `path/file.py:Class` types of a dataset's configs started from, newest run first."""
    found: dict[Path, None] = {}
    for record in reversed(read_runs(folder)):
        for key in ("config_folder", "working_folder"):
            if record.request.get(key):
                found.setdefault(Path(record.request[key]))
    return tuple(found)
