"""A picture of one representation of one frame, which notebooks draw."""

import os
from pathlib import Path

from vrekit.codecs.registry import codec_from_config
from vrekit.core.errors import UsageError
from vrekit.core.files import write_atomic
from vrekit.representations.pictures import Picture


class ShownPicture:
    """A picture; a notebook draws it when it is the last value of a cell.

    Attributes:
        title: What it shows: `"car/00000012 flow"`.
        array: Pixels, uint8 (H, W, 3), RGB.
    """

    def __init__(self, title: str, array: Picture) -> None:
        self.title = title
        self.array = array

    def __repr__(self) -> str:
        height, width, _ = self.array.shape
        return f"ShownPicture({self.title!r}, {width}x{height})"

    def _repr_png_(self) -> bytes:
        return codec_from_config("png").encode(self.array)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a `.png` or `.jpg` file.

        Raises:
            UsageError: If the name has another ending.
        """
        path = Path(path)
        check_picture_name(path)
        write_atomic(path, codec_from_config("png" if path.suffix.lower() == ".png" else "jpg").encode(self.array))


def check_picture_name(path: Path) -> None:
    """Raise UsageError unless `ShownPicture.save` can write such a file."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UsageError(f"{path} does not end in .png or .jpg", hint="a name such as frame.png")
