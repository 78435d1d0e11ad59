"""Folders of frame files: which files are frames, and which number each has."""

import re
from pathlib import Path

from vrekit.core.errors import VideoError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
ARRAY_SUFFIXES = frozenset({".npy", ".npz"})


def list_frame_files(folder: Path) -> list[Path]:
    """Return the image and array files of a folder, sorted by name; hidden files and all others are left out.

    Raises:
        VideoError: If a pipe, socket or device has the name of a frame file: reading it may never end.
    """
    named = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES | ARRAY_SUFFIXES and not path.name.startswith(".")
    )
    files = [path for path in named if path.is_file()]
    if len(files) < len(named):
        odd = next((path for path in named if path.exists() and not path.is_file() and not path.is_dir()), None)
        if odd is not None:
            raise VideoError(f"{odd}: a pipe, socket or device, not a file", hint="take it out of the folder")
    return files


def number_frame_files(folder: Path, files: list[Path]) -> dict[int, Path]:
    """Return frame number -> file in rising order.

    A file's number is the last integer in its name without suffix (`frame_0005.png` -> 5, `cam2_shot-17.npz` -> 17).
    If no file has one, they are numbered 0..n-1 in natural order.

    Raises:
        VideoError: If two files have the same number, or only some have one.
    """
    found = {path: re.findall(r"[0-9]+", path.stem) for path in files}
    without = [path for path, digits in found.items() if not digits]
    if len(without) == len(files):
        return dict(enumerate(sorted(files, key=lambda path: (path.stem.lower(), path.name))))
    if without:
        raise VideoError(
            f"{folder}: {without[0].name} has no frame number in its name, other files have",
            hint="number every file, or none",
        )
    numbered: dict[int, Path] = {}
    for path in files:
        number = int(found[path][-1])
        if number >= 1 << 63:
            raise VideoError(f"{folder}: the frame number of {path.name} is too large", hint="number files from 0")
        if number in numbered:
            raise VideoError(
                f"{folder}: {numbered[number].name} and {path.name} are both frame {number}",
                hint="the last integer in a file's name is its frame number; keep one file for each",
            )
        numbered[number] = path
    return dict(sorted(numbered.items()))
