"""`runs/<run_id>.json`: who computed what, when, with which arguments, versions and device, and what failed."""

import logging
import os
import platform
import re
import secrets
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Self, get_args

from vrekit import __version__
from vrekit.catalog.manifest import manifest_lock
from vrekit.catalog.remote import remote_of
from vrekit.core.documents import Fields, document_bytes, read_document
from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.files import check_folder, make_folder, storage_errors, write_atomic
from vrekit.core.names import MAX_REPRESENTATIONS, check_run_id, check_video_id
from vrekit.core.threads import usable_cpus
from vrekit.video.base import VideoInfo

logger = logging.getLogger(__name__)
RUNS_FOLDER = "runs"
_REPORTED_PACKAGES = ("numpy", "opencv-python-headless", "pyarrow", "torch", "torchcodec", "imagecodecs", "pcodec")
MAX_FAILURES_LISTED = 100
_MAX_TOTAL = 2**50  # frames or bytes; those of all representations add up to 64 bits
DAMAGED_RUN_HINT = "`vrekit repair DATASET` sets it aside: a run's record is not needed to read the data"

_SHARD = re.compile(r"shards/[A-Za-z0-9][A-Za-z0-9_\-]*/[A-Za-z0-9][^/\0]*\.tar")
_CHECKSUM = re.compile("[0-9a-f]{8}")

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
class ShardFacts:
    """A tar shard as it was committed: bytes of the tar, metadata rows, and the checksum of its sidecar."""

    bytes: int
    rows: int
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run of `export` or `resume`.

    Attributes:
        run_id: Sorts by start time: `20261120T235443512-3f9a2c`.
        request: What was asked, complete enough for `resume` to ask for it again.
        status: `running` in a file nobody is working on means the process was killed.
        totals: By representation name.
        failures: The first failures: video_id, frame_index, representation, error.
        shards: The tar shards that it committed, by path relative to the dataset; in a merged or transcoded dataset,
            the shards whose first row is from this run. Who writes one of them anew takes it out (`forget_shards`).
        video: Facts about the video, as `dataset.json` has them; None in records of an older vrekit.
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
    shards: Mapping[str, ShardFacts] = field(default_factory=dict)
    video: VideoInfo | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict; `video` is left out where it is not known."""
        data = asdict(self)
        del data["video"]
        return data if self.video is None else {**data, "video": self.video.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | Fields) -> Self:
        """Return the record `to_json` described; unknown keys are ignored.

        Raises:
            DatasetError: If it is none.
        """
        fields = Fields.of(data, "a run")
        totals = fields.each("totals") if "totals" in fields else {}
        if len(totals) > MAX_REPRESENTATIONS:
            raise fields.error(f"'totals' has {len(totals)} representations, expected at most {MAX_REPRESENTATIONS}")
        return cls(
            run_id=fields.name("run_id", check_run_id),
            video_id=fields.name("video_id", check_video_id),
            request=fields.free("request"),
            command=list(fields.items("command", kind=str)),
            started_at=fields.text("started_at", max_length=100),
            status=fields.choice("status", get_args(RunStatus), "running"),
            finished_at=fields.text("finished_at", None, max_length=100),
            elapsed_seconds=fields.number("elapsed_seconds", None),
            error=fields.text("error", None),
            versions=_texts(fields, "versions"),
            device=fields.free("device", {}),
            totals={name: _totals(one) for name, one in totals.items()},
            failures=[failure.raw() for failure in fields.list_of("failures", [], max_count=1 << 16)],
            shards={name: _shard(facts) for name, facts in fields.each("shards", check_name=_check_shard).items()}
            if "shards" in fields
            else {},
            video=None if (video := fields.fields("video", None)) is None else VideoInfo.from_json(video),
        )

    def finished(self, status: RunStatus, **changes: Any) -> Self:
        """Return the record of the run's end, now."""
        return replace(self, status=status, finished_at=now_iso(), **changes)


def _texts(fields: Fields, key: str) -> dict[str, str]:
    texts = fields.fields(key, None)
    return {} if texts is None else {name: texts.text(name) for name in texts}


def _totals(fields: Fields) -> RepresentationTotals:
    return RepresentationTotals(
        computed=fields.integer("computed", 0, high=_MAX_TOTAL),
        failed=fields.integer("failed", 0, high=_MAX_TOTAL),
        compute_seconds=fields.number("compute_seconds", 0.0),
        encode_seconds=fields.number("encode_seconds", 0.0),
        raw_bytes=fields.integer("raw_bytes", 0, high=_MAX_TOTAL),
        stored_bytes=fields.integer("stored_bytes", 0, high=_MAX_TOTAL),
    )


def _shard(fields: Fields) -> ShardFacts:
    return ShardFacts(
        bytes=fields.integer("bytes"),
        rows=fields.integer("rows"),
        checksum=fields.text("checksum", pattern=_CHECKSUM),
    )


def _check_shard(path: str) -> None:
    if not _SHARD.fullmatch(path):
        raise UsageError(f"{path[:100]!r} is no shard")


def now_iso() -> str:
    """Return the current UTC time, ISO 8601 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def new_run_id() -> str:
    """Return an id that sorts by start time and does not repeat."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}-{secrets.token_hex(3)}"


def new_run(video_id: str, request: Mapping[str, Any], devices: set[str], video: VideoInfo | None = None) -> RunRecord:
    """Return the record of a run that starts now in this process."""
    return RunRecord(
        run_id=new_run_id(),
        video_id=video_id,
        request=request,
        video=video,
        command=[argument.encode(errors="replace").decode() for argument in sys.argv],  # one need not be UTF-8
        started_at=now_iso(),
        versions={"vrekit": __version__, "python": platform.python_version(), **_package_versions()},
        device={
            "devices": sorted(devices),
            "machine": platform.machine(),
            "system": platform.system(),
            "cpu_count": usable_cpus(),
        },
    )


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
    with storage_errors(folder):
        runs = make_folder(folder, RUNS_FOLDER)
    path = runs / f"{check_run_id(record.run_id)}.json"
    data = document_bytes(record.to_json(), str(path))
    write_atomic(path, data)
    if (remote := remote_of(folder)) is not None:
        remote.store.put(f"{RUNS_FOLDER}/{path.name}", data)


def forget_shards(folder: Path, shards: Collection[str]) -> None:
    """Take shards out of the records of finished runs, before they are written anew or taken out of the dataset.

    Args:
        folder: The dataset.
        shards: Paths of their tars, relative to the dataset.
    """
    with manifest_lock(folder):
        for record in scan_runs(folder)[0]:
            left = {path: facts for path, facts in record.shards.items() if path not in shards}
            if len(left) < len(record.shards):
                write_run(folder, replace(record, shards=left))


def scan_runs(folder: Path) -> tuple[list[RunRecord], list[DatasetError]]:
    """Return the records of all runs, oldest first, and what is wrong with those that cannot be read.

    Raises:
        DatasetError: If the folder of the runs is none of the dataset's.
    """
    records, damaged = [], []
    for path in run_files(folder):
        try:
            records.append(read_run(path))
        except FileNotFoundError:
            continue  # moved away meanwhile
        except DatasetError as error:
            damaged.append(error)
    return records, damaged


def run_files(folder: Path) -> list[Path]:
    """Return the files of all run records of a dataset, oldest first.

    Raises:
        DatasetError: If the folder of the runs is none of the dataset's.
    """
    runs = folder / RUNS_FOLDER
    names = sorted(os.listdir(runs)) if check_folder(runs) else []
    return [runs / name for name in names if name.endswith(".json") and name[0] != "."]


def read_run(path: Path) -> RunRecord:
    """Return the record of one run.

    Raises:
        FileNotFoundError: If there is no such file.
        DatasetError: If it is damaged or cannot be read; the message names the file.
    """
    try:
        fields = read_document(path, hint=DAMAGED_RUN_HINT).fields
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DatasetError(
            f"{path} cannot be read: {os.strerror(error.errno or 0).lower()}", hint=DAMAGED_RUN_HINT
        ) from None
    record = RunRecord.from_json(fields)
    if record.run_id != path.stem:
        raise fields.error(f"it is the record of run {record.run_id!r}")
    return record


def read_runs(folder: Path, *, strict: bool = False) -> list[RunRecord]:
    """Return the records of all runs, oldest first; the log warns of those that cannot be read.

    Args:
        folder: The dataset.
        strict: Raise the error of the first one that cannot be read.

    Raises:
        DatasetError: If one is damaged, and `strict`; the message names the file.
    """
    records, damaged = scan_runs(folder)
    for error in damaged:
        if strict:
            raise error
        logger.warning("%s; the other runs are read", error.message)
    return records


def config_folders(folder: Path) -> tuple[Path, ...]:
    """Return where relative `path/file.py:Class` types of a dataset's configs started from, newest run first."""
    found: dict[Path, None] = {}
    for record in reversed(read_runs(folder)):
        request = Fields(record.request, f"the request of run {record.run_id}")
        for key in ("config_folder", "working_folder"):
            if place := request.text(key, None):
                found.setdefault(Path(place))
    return tuple(found)
