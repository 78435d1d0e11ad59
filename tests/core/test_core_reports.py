"""What jobs tell at their end: fields, as JSON can hold them, and how long it took."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from vrekit.core.reports import Report, timed


@dataclass(frozen=True, slots=True)
class Part:
    path: Path
    sizes: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class Copied(Report):
    output: Path
    parts: dict[str, Part] = field(default_factory=dict)
    count: int = 0


def test_a_report_becomes_json() -> None:
    report = Copied(output=Path("out"), parts={"a": Part(Path("x/y"), (1, 2))}, elapsed_seconds=1.23456)
    assert json.dumps(report.to_json()) == (
        '{"output": "out", "parts": {"a": {"path": "x/y", "sizes": [1, 2]}}, "count": 0, "elapsed_seconds": 1.235}'
    )


@timed
def copy(output: Path) -> Copied:
    """Copy something."""
    return Copied(output=output)


def test_the_time_is_measured_and_does_not_count_in_comparisons() -> None:
    report = copy(Path("out"))
    assert report.elapsed_seconds > 0
    assert report == Copied(output=Path("out"))
    assert copy.__doc__ == "Copy something."
