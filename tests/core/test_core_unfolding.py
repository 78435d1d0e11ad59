"""Pictures and arrays that unfold to much more than they are, refused before they are decoded."""

import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vrekit.core.errors import ComputeError, VideoError
from vrekit.core.spec import Kind
from vrekit.core.unfolding import check_picture
from vrekit.jobs.vre.payloads import BadFileError, read_array
from vrekit.representations.external.files import Files
from vrekit.video.arrays import load_array
from vrekit.video.folders import ImageFolderSource


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png(height: int, width: int, pixels: bytes) -> bytes:
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


TOO_LONG = png(8, 8, zlib.compress(bytes(1 << 27)))
TOO_LARGE = png(1 << 17, 1 << 17, zlib.compress(bytes(100)))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_pictures_as_they_should_be(form: str) -> None:
    for size in ((1, 1), (333, 222)):
        file = BytesIO()
        Image.effect_noise(size, 90).convert("RGB").save(file, form)
        check_picture(file.getvalue())


def test_what_is_no_picture_passes() -> None:
    for content in (b"", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\nIHDR", b"II*\0", b"hello", bytes(100)):
        check_picture(content)


@pytest.mark.parametrize(("content", "message"), [(TOO_LONG, "too many bytes"), (TOO_LARGE, "more than 268435456 pix")])
def test_png(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_picture(content)
    path = tmp_path / "0.png"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=message):
        ImageFolderSource(tmp_path, fps=None)
    with pytest.raises(ComputeError, match=message):
        Files(str(tmp_path), kind=Kind.DEPTH)._load(path)


@pytest.mark.parametrize("form", ["TIFF", "WEBP", "JPEG2000"])
def test_a_header_of_too_many_pixels(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = BytesIO()
    Image.new("RGB", (300, 300)).save(file, form)
    monkeypatch.setattr("vrekit.core.unfolding.MAX_IMAGE_PIXELS", 80_000)
    with pytest.raises(ValueError, match="more than 80000 pixels"):
        check_picture(file.getvalue())


def array_file(path: Path, shape: tuple[int, ...], data: bytes) -> Path:
    member = BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", member.getvalue() + data)
    return path


def test_npz_whose_header_says_more_or_less_than_it_holds(tmp_path: Path) -> None:
    huge = array_file(tmp_path / "0.npz", (1 << 20, 1 << 20, 1 << 10), bytes(100))
    with pytest.raises(BadFileError, match="its size is not what its header says"):
        read_array(huge, "arr_0")
    with pytest.raises(ComputeError, match=r"0\.npz cannot be read"):
        Files(str(tmp_path), kind=Kind.DEPTH)._load(huge)
    with pytest.raises(VideoError, match="cannot be read as an array"):
        load_array(huge)
    with pytest.raises(BadFileError, match="its size is not what its header says"):
        read_array(array_file(tmp_path / "1.npz", (2, 2), bytes(1 << 24)), "arr_0")
    assert read_array(array_file(tmp_path / "2.npz", (2, 2), bytes(16)), "arr_0").shape == (2, 2)


def test_npz_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = array_file(tmp_path / "0.npz", (1 << 20,), bytes(1 << 22))
    monkeypatch.setattr("vrekit.core.unfolding.MAX_ARRAY_FILE_BYTES", 1 << 20)
    with pytest.raises(BadFileError, match="at most 1048576 are read"):
        read_array(path, "arr_0")
    with pytest.raises(ComputeError, match="at most 1048576 are read"):
        Files(str(tmp_path), kind=Kind.DEPTH)._load(path)
