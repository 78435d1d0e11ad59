"""Frames that wait in open shards: an interrupted or running export stored them, and no reader sees them yet."""

import os
from collections.abc import Iterator
from pathlib import Path

from vrekit.catalog.lance_samples import OPEN_FOLDER, TABLES_FOLDER
from vrekit.catalog.samples import SHARDS_FOLDER
from vrekit.core.files import list_files, list_folders, open_regular
from vrekit.writers.journal import lines_of
from vrekit.writers.journal_lines import parse_line


def open_frames(folder: Path) -> dict[str, int]:
    """Return how many frames of each video are in open shards; of several representations, the most that one has.

    Args:
        folder: The dataset.

    Raises:
        DatasetError: If one of the files or folders is a link.
    """
    counts: dict[str, dict[str, int]] = {}
    for journal in _journals(folder):
        of_video = counts.setdefault(journal.parent.name, {})
        for name, count in _frames_in(journal).items():
            of_video[name] = of_video.get(name, 0) + count
    return {video_id: max(of_video.values()) for video_id, of_video in counts.items() if of_video}


def _journals(folder: Path) -> Iterator[Path]:
    for root in (folder / SHARDS_FOLDER, folder / TABLES_FOLDER / OPEN_FOLDER):
        for video in list_folders(root):
            yield from (video / entry.name for entry in list_files(video, lambda name: name.endswith(".journal")))


def _frames_in(journal: Path) -> dict[str, int]:
    """Return the number of stored frames by representation, up to the first line that is no writer's."""
    counts: dict[str, int] = {}
    try:
        descriptor = open_regular(journal)
    except FileNotFoundError:  # its shard was committed meanwhile
        return counts
    try:
        for line in lines_of(descriptor):
            parsed = parse_line(line)
            if parsed is None:
                break
            for row in parsed[1]:
                if row["status"] == "ok":
                    counts[row["representation"]] = counts.get(row["representation"], 0) + 1
    finally:
        os.close(descriptor)
    return counts
