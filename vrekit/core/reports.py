"""What jobs tell: while they work, to a listener; at their end, in a report."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R", bound="Report")

# What a job counts that does not count frames by representation.
BYTES = "bytes"
FRAMES = "frames"


class ProgressListener:
    """Receives the events of one job, all from the thread that called it; this one ignores them.

    An export counts frames by the name of their representation; `merge`, `convert` and `transcode` count payload
    bytes, under the name `bytes`; jobs that read frames count these, under the name `frames`.
    """

    def started(self, totals: Mapping[str, int]) -> None:
        """Work begins; `totals` say by name how much there is to do."""

    def advanced(self, name: str, done: int, failed: int = 0, stored_bytes: int = 0) -> None:
        """Some more of `name` is done: written now, or found done already.

        Args:
            name: What is counted.
            done: How many more.
            failed: How many more failed, besides those.
            stored_bytes: Payload bytes that an export stored.
        """

    def checking(self) -> None:
        """Everything is written and is read back now."""

    def finished(self) -> None:
        """No more events come."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What a job did.

    Attributes:
        elapsed_seconds: Wall-clock time of the call.
    """

    elapsed_seconds: float = field(default=0.0, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        data: dict[str, Any] = jsonable(self)
        seconds = data.pop("elapsed_seconds")
        return data | {"elapsed_seconds": round(seconds, 3)}


def timed(job: Callable[P, R]) -> Callable[P, R]:
    """Make a job's report say how long the job took."""

    @wraps(job)
    def timed_job(*args: P.args, **kwargs: P.kwargs) -> R:
        started = time.perf_counter()
        report = job(*args, **kwargs)
        report.elapsed_seconds = time.perf_counter() - started
        return report

    return timed_job


def jsonable(value: Any) -> Any:
    """Return what JSON can hold: dataclasses as dicts, paths as text."""
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: jsonable(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: jsonable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(one) for one in value]
    return value
