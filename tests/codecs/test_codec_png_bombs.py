"""PNG files that are small, and would take seconds to read to their end."""

import zlib

import numpy as np
import pytest

from vrekit.codecs.stages.png import Png
from vrekit.core.errors import CodecError


class TestPngThatUnfolds:
    @staticmethod
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    def file(self, pixels: bytes, other: bytes = b"") -> bytes:
        header = self.chunk(b"IHDR", bytes([0, 0, 0, 8, 0, 0, 0, 8, 8, 2, 0, 0, 0]))
        return b"\x89PNG\r\n\x1a\n" + header + other + self.chunk(b"IDAT", pixels) + self.chunk(b"IEND", b"")

    def test_pixels_behind_the_last_row(self) -> None:
        out = np.empty((8, 8, 3), np.uint8)
        Png().decode(self.file(zlib.compress(bytes(8 * 25))), out)
        with pytest.raises(CodecError, match="PNG of 8x8 pixels has too many bytes for them"):
            Png().decode(self.file(zlib.compress(bytes(1 << 27))), out)

    def test_a_long_text(self) -> None:
        pixels = zlib.compress(bytes(8 * 25))
        text = self.chunk(b"zTXt", b"a\0\0" + bytes(1 << 20))
        with pytest.raises(CodecError, match="bytes beside the pixels"):
            Png().decode(self.file(pixels, text), np.empty((8, 8, 3), np.uint8))

    def test_what_does_not_compress_and_descriptions_are_read(self) -> None:
        image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
        raw = zlib.compress(b"".join(b"\0" + row.tobytes() for row in image), 0)
        out = np.empty_like(image)
        Png().decode(self.file(raw, self.chunk(b"tEXt", b"Title\0" + b"x" * 5000)), out)
        np.testing.assert_array_equal(out, image)
