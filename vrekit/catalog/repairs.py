"""A repair under way: what is damaged goes to quarantine, and is reported.

quarantine/<time>/problems.json          what was wrong
quarantine/<time>/<video>/<member>       payloads that were taken out of a shard or table
quarantine/<time>/shards/…               tars and sidecars that could not be read at all
quarantine/<time>/lance/…                fragments, versions and tables that could not be read at all
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vrekit.catalog.manifest import Manifest
from vrekit.catalog.payload_checks import Problem
from vrekit.catalog.quarantine import move_aside, new_quarantine
from vrekit.core.files import storage_errors, write_atomic
from vrekit.core.reports import Report

Key = tuple[str, int, str]
KEY_COLUMNS = ("video_id", "frame_index", "representation")

# Problems of single payloads; of these, `place` and a damaged tar say nothing about the payload's bytes.
BAD_PAYLOAD = {"checksum", "decode", "layout", "unknown"}
BAD_PLACE = {"place", "orphan"}
BAD_FILE = {"row", "sidecar", "missing-shard"}
OF_COPIES = {"index", "tag"}  # of a Lance table; they are made anew
OF_TABLES = OF_COPIES | {"fragment", "lost-table", "version"}

HINTS = {
    "duplicate": "`vrekit gc` removes what is stored twice",
    "codec": "install what it needs, or restore dataset.json from a backup",
    "storage": "`vrekit merge` of this dataset into a new one leaves it out",
    "unreadable": "check its permissions",
    "unfinished": "`vrekit resume` goes on with it",
    "table": "what the message names is the reason, not damage",
}


@dataclass(slots=True, kw_only=True)
class RepairReport(Report):
    """What a repair did.

    Attributes:
        quarantine: Where the damaged samples are now, relative to the dataset; None when there were none.
        samples: Samples taken out, `video/frame.representation`.
        shards: Shards written anew or, for Lance, tables from which rows were deleted.
        left: What was not repaired, and why.
    """

    quarantine: str | None = None
    samples: list[str] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


class Repair:
    """One repair of a dataset.

    Attributes:
        folder: The dataset.
        manifest: Of the dataset.
        quarantine: Where damaged files go.
        report: What was done.
        settled: Problems that went with others: of payloads that were dropped because another shard has them too.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.quarantine = new_quarantine(folder)
        self.report = RepairReport()
        self.settled: set[tuple[str, Key]] = set()

    def write_problems(self, problems: Sequence[Problem]) -> None:
        """Make the quarantine folder and note in it what was wrong."""
        with storage_errors(self.quarantine):
            self.quarantine.mkdir(parents=True)
        text = json.dumps([asdict(problem) for problem in problems], indent=2, ensure_ascii=False)
        write_atomic(self.quarantine / "problems.json", text.encode() + b"\n")
        self.report.quarantine = self.quarantine.relative_to(self.folder).as_posix()

    def move_aside(self, *paths: Path) -> None:
        """Move files or folders of the dataset to quarantine."""
        move_aside(self.folder, self.quarantine, *paths)

    def place(self, name: str, *, note: bool = True) -> Path:
        """Return where in the quarantine a payload goes, in a folder that is there.

        Args:
            name: Path inside it; the caller has checked it.
            note: Report it.
        """
        target = self.quarantine / name
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        if note:
            self.report.samples.append(name)
        return target


def key_of(problem: Problem) -> Key:
    """Return the row that a problem is about."""
    return (
        problem.video_id or "",
        problem.frame_index if problem.frame_index is not None else -1,
        problem.representation or "",
    )
