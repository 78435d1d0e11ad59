"""Small files that unfold to very much: pictures and npz arrays are measured before they are decoded."""

import io
import zipfile
from typing import NamedTuple

from vrekit.core.spec import MAX_IMAGE_PIXELS

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_ARRAY_FILE_BYTES = 1 << 32  # of the array of one frame
_MAX_OTHER_BYTES = 1 << 20  # of PNG chunks without pixels: texts, colour profiles, EXIF
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


class PngSizes(NamedTuple):
    """What is counted in a PNG file.

    Attributes:
        height: Rows.
        width: Columns.
        channels: Numbers a pixel; 1 for a palette.
        pixel_bytes: Compressed pixels.
        other_bytes: Everything else.
    """

    height: int
    width: int
    channels: int
    pixel_bytes: int
    other_bytes: int

    def check(self) -> None:
        """Raise ValueError if more follows the pixels than belongs there: decoders go on to its end."""
        raw_bytes = self.height * (2 + self.width * self.channels * 2)  # 16 bits a number
        # what does not compress grows by less than 1/64
        if self.pixel_bytes > raw_bytes + raw_bytes // 64 + _MAX_OTHER_BYTES // 16:
            raise ValueError(
                f"PNG of {self.height}x{self.width} pixels has too many bytes for them: {self.pixel_bytes}"
            )
        if self.other_bytes > _MAX_OTHER_BYTES:
            raise ValueError(f"PNG has {self.other_bytes} bytes beside the pixels, at most {_MAX_OTHER_BYTES} are read")


def png_sizes(data: memoryview) -> PngSizes:
    """Return the sizes in a PNG file, without a look at its contents; of a damaged one as far as it goes."""
    pixel_bytes, at = 0, len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if bytes(data[at + 4 : at + 8]) == b"IDAT":
            pixel_bytes += size
        at += 12 + size
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    channels = _PNG_CHANNELS.get(data[25], 0) if len(data) > 25 else 0
    return PngSizes(height, width, channels, pixel_bytes, len(data) - pixel_bytes)


def check_picture(content: bytes) -> None:
    """Raise ValueError if a picture file has more pixels than a frame may have, or unfolds to more than its pixels.

    A file of an unknown format passes: that is the decoder's business.
    """
    from PIL import Image

    if content.startswith(PNG_SIGNATURE):
        sizes = png_sizes(memoryview(content))
        pixels = sizes.height * sizes.width
        sizes.check()
    else:
        try:
            with Image.open(io.BytesIO(content)) as image:
                pixels = image.width * image.height
        except Image.DecompressionBombError:
            pixels = MAX_IMAGE_PIXELS + 1
        except (OSError, ValueError, SyntaxError, MemoryError):
            return
    if pixels > MAX_IMAGE_PIXELS:
        raise ValueError(f"the picture has more than {MAX_IMAGE_PIXELS} pixels")


def check_npz_member(archive: zipfile.ZipFile, key: str) -> None:
    """Raise ValueError if the array `key` of an npz file is larger than the array of one frame may be."""
    name = f"{key}.npy" if f"{key}.npy" in archive.namelist() else key
    size = archive.getinfo(name).file_size
    if size > MAX_ARRAY_FILE_BYTES:
        raise ValueError(f"its array {key!r} has {size} bytes, at most {MAX_ARRAY_FILE_BYTES} are read")
