"""What `vrekit gc` removes and keeps: a collector that the jobs and the storages hand their leftovers to."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from vrekit.core.errors import LockedError
from vrekit.core.locks import OwnedFile
from vrekit.core.reports import Report


@dataclass(slots=True, kw_only=True)
class GcReport(Report):
    """What was removed, or with `dry_run` would be.

    Attributes:
        removed: `path`, `bytes` and `why` of each file that goes.
        kept: `path` and `why` of leftovers that stay for now.
        rows: Superseded metadata rows that were dropped.
        freed_bytes: Bytes of all that goes.
    """

    removed: list[dict[str, Any]] = field(default_factory=list)
    kept: list[dict[str, str]] = field(default_factory=list)
    rows: int = 0
    freed_bytes: int = 0


class GarbageCollector:
    """Removes files of one dataset and reports it.

    Attributes:
        folder: The dataset.
        older_than: Age from which on work that could still be resumed is given up.
        dry_run: Only report what would be removed.
        report: What was done.
    """

    def __init__(self, folder: Path, *, older_than: timedelta, dry_run: bool) -> None:
        self.folder = folder
        self.older_than = older_than
        self.dry_run = dry_run
        self.report = GcReport()
        self._before = time.time() - older_than.total_seconds()

    def is_old(self, path: Path) -> bool:
        """Return whether a file was last written before `older_than`."""
        return path.stat().st_mtime <= self._before

    @contextmanager
    def owned(self, lock: Path) -> Iterator[bool]:
        """Own a lock file meanwhile; gives False if a process has it."""
        if self.dry_run and not lock.exists():
            yield True
            return
        try:
            owned = OwnedFile(lock, lock.name)
        except LockedError:
            yield False
            return
        try:
            yield True
        finally:
            owned.release()

    def remove(self, path: Path, why: str) -> None:
        """Remove a file."""
        status = path.stat()
        # the bytes of a tar that is still linked to its partial file are not freed
        self.note(path.relative_to(self.folder).as_posix(), status.st_size if status.st_nlink == 1 else 0, why)
        if not self.dry_run:
            path.unlink()

    def note(self, path: str, size: int, why: str) -> None:
        """Report bytes that go in another way."""
        self.report.removed.append({"path": path, "bytes": size, "why": why})
        self.report.freed_bytes += size

    def keep(self, path: Path, why: str) -> None:
        """Report a leftover that stays."""
        self.report.kept.append({"path": path.relative_to(self.folder).as_posix(), "why": why})
