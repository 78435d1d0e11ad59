"""The count of what a run computed, and of what failed."""

import logging
from dataclasses import dataclass, field

from vrekit.catalog.runs import MAX_FAILURES_LISTED, RepresentationTotals
from vrekit.core.schema import SampleRow

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Tally:
    """What happened so far, by representation; `recovered` counts frames that were found in open shards."""

    totals: dict[str, RepresentationTotals] = field(default_factory=dict)
    failures: list[dict[str, object]] = field(default_factory=list)
    streaks: dict[str, int] = field(default_factory=dict)
    last_errors: dict[str, str | None] = field(default_factory=dict)
    recovered: dict[str, int] = field(default_factory=dict)

    def add(self, row: SampleRow, *, stored_bytes: int, by_decoder: bool) -> None:
        """Count one frame of one representation.

        Args:
            row: Its metadata.
            stored_bytes: Size of its payload; of a payload that frames share, count it with one of them.
            by_decoder: It failed because of the video.
        """
        name = row.representation
        before = self.totals.get(name, RepresentationTotals())
        self.totals[name] = RepresentationTotals(
            computed=before.computed + (row.status == "ok"),
            failed=before.failed + (row.status == "failed"),
            compute_seconds=before.compute_seconds + (row.compute_seconds or 0.0),
            encode_seconds=before.encode_seconds + (row.encode_seconds or 0.0),
            raw_bytes=before.raw_bytes + (row.raw_bytes or 0),
            stored_bytes=before.stored_bytes + stored_bytes,
        )
        if row.status == "ok":
            self.streaks[name] = 0
            return
        logger.warning("frame %d: %s failed: %s", row.frame_index, name, row.error)
        if not by_decoder:  # a damaged stretch of video is no reason to stop
            self.streaks[name] = self.streaks.get(name, 0) + 1
            self.last_errors[name] = row.error
        if len(self.failures) < MAX_FAILURES_LISTED:
            self.failures.append(
                {
                    "video_id": row.video_id,
                    "frame_index": row.frame_index,
                    "representation": name,
                    "error": row.error,
                }
            )
