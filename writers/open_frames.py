"""Frames that wait in open shards: an interrupted or running export stored them, and no reader sees them yet."""

import os
from pathlib import Path

from vrekit.core.files import list_files, list_folders, open_regular
from vrekit.writers.journal import lines_of
from vrekit.writers.journal_lines import parse_line


def count_open_frames(root: Path) -> dict[str, int]:
    """Return how many frames of each video are in open shards; of several representations, the most that one has.

    Args:
        root: Folder with a folder for each video, where the journals are.

    Raises:
        DatasetError: If one of the files or folders is a link.
    """
    counts: dict[str, dict[str, int]] = {}
    for video in list_folders(root):
        for entry in list_files(video, lambda name: name.endswith(".journal")):
            of_video = counts.setdefault(video.name, {})
            for name, count in _frames_in(video / entry.name).items():
                of_video[name] = of_video.get(name, 0) + count
    return {video_id: max(of_video.values()) for video_id, of_video in counts.items() if of_video}


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
