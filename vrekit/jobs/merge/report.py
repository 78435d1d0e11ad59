"""What a merge tells while it works, and at its end."""

from dataclasses import dataclass, field
from pathlib import Path

from vrekit.core.reports import Report
from vrekit.jobs.merge.manifests import Conflict


@dataclass(slots=True, kw_only=True)
class MergeReport(Report):
    """What a merge did, or with `dry_run` would do.

    Attributes:
        output: Folder of the result.
        sources: Folders of the sources.
        writer: Storage of the result.
        videos: Number of videos.
        rows: Metadata rows of the result.
        payload_bytes: Bytes of its payloads.
        duplicates: Rows left out because another source has the same payload for the same frame.
        superseded: Rows left out because they are failures of frames that are stored.
        conflicts: Where the sources disagree; solved by `on_conflict` unless that is `error`.
        renamed: Videos that the result has under the name of another source: `folder: name → name`.
        unfinished: Sources with open shards of an interrupted export, which are not copied: `folder: count`.
        shards: Shards or fragments written by this call.
        kept_whole: Those of them that equal a shard or fragment of a source.
        already: Shards that an interrupted merge had finished.
        was_finished: Whether the output was complete before the call.
    """

    output: Path
    sources: list[Path]
    writer: str
    videos: int = 0
    rows: int = 0
    payload_bytes: int = 0
    duplicates: int = 0
    superseded: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    shards: int = 0
    kept_whole: int = 0
    already: int = 0
    was_finished: bool = False
