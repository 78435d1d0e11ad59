"""What a transcoding did, or would do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vrekit.codecs.measure import in_words, merge_errors
from vrekit.core.reports import Report
from vrekit.jobs.transcode.changes import Change


@dataclass(slots=True, kw_only=True)
class RepresentationReport:
    """What happened to one representation.

    Attributes:
        change: What was to happen.
        payloads: Stored frames.
        bytes_before: Their bytes in the source.
        bytes_after: Their bytes in the result; None in a dry run.
        errors: How much values changed, by name (`vrekit.codecs.measure.compare`), where this call encoded with loss;
            of clips, on some of their frames.
        fidelity: The same in words; `exact` also where no payload was encoded with loss.
    """

    change: Change
    payloads: int = 0
    bytes_before: int = 0
    bytes_after: int | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    fidelity: str = "exact"

    def set_errors(self, frames: Sequence[Mapping[str, float]]) -> None:
        """Take the errors of some frames as those of all."""
        self.errors = merge_errors(frames)
        self.fidelity = in_words(self.errors, self.change.record.stored)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return self.change.to_json() | {name: getattr(self, name) for name in self.__slots__ if name != "change"}


@dataclass(slots=True, kw_only=True)
class TranscodeReport(Report):
    """What a call did, or with `dry_run` would do.

    Attributes:
        source: Folder of the source.
        output: Folder of the result.
        parts: By representation.
        rows: Metadata rows of the result.
        failed: Rows among them of frames that had failed when they were computed.
        encoded: Payloads that this call encoded.
        copied: Payloads that this call copied.
        unfinished: Open cells of an interrupted export of the source, which are not taken along.
        was_finished: Whether the result was complete before.
    """

    source: Path
    output: Path
    parts: dict[str, RepresentationReport]
    rows: int = 0
    failed: int = 0
    encoded: int = 0
    copied: int = 0
    unfinished: int = 0
    was_finished: bool = False

    @property
    def bytes_before(self) -> int:
        """Payload bytes in the source."""
        return sum(part.bytes_before for part in self.parts.values())

    @property
    def bytes_after(self) -> int:
        """Payload bytes in the result; 0 in a dry run."""
        return sum(part.bytes_after or 0 for part in self.parts.values())

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        data = Report.to_json(self) | {"bytes_before": self.bytes_before, "bytes_after": self.bytes_after}
        del data["parts"]
        return data | {"representations": [part.to_json() for part in self.parts.values()]}
