"""Fingerprints: equal content, equal fingerprint."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from vrekit.core.errors import VideoError
from vrekit.video.fingerprint import WHOLE_BYTES, fingerprint


def test_small_files_are_hashed_whole(tmp_path: Path) -> None:
    for content in (b"", b"hello", bytes(range(256)) * 40):
        path = tmp_path / "file"
        path.write_bytes(content)
        assert fingerprint(path) == f"{len(content)}-{hashlib.sha256(content).hexdigest()[:16]}"


def test_large_files_are_sampled_as_documented(tmp_path: Path) -> None:
    path = tmp_path / "large"
    size = WHOLE_BYTES + 12345
    content = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    content.tofile(path)
    mib, block = 1024 * 1024, 256 * 1024
    starts = [(size - block) * number // 63 for number in range(64)]
    pieces = [content[:mib], *(content[start : start + block] for start in starts), content[-mib:]]
    expected = hashlib.sha256(b"".join(piece.tobytes() for piece in pieces)).hexdigest()[:16]
    assert fingerprint(path) == f"{size}-{expected}"
    content[-1] ^= 1
    content.tofile(path)
    assert fingerprint(path) != f"{size}-{expected}"


def test_name_and_place_do_not_matter_content_does(tmp_path: Path) -> None:
    first, second = tmp_path / "a.mp4", tmp_path / "b.mkv"
    first.write_bytes(b"x" * 100)
    second.write_bytes(b"x" * 100)
    assert fingerprint(first) == fingerprint(str(second))
    second.write_bytes(b"x" * 99 + b"y")
    assert fingerprint(first) != fingerprint(second)
    assert re.fullmatch(r"100-[0-9a-f]{16}", fingerprint(second))


def test_folders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for number in (3, 1, 2):
            (tmp_path / name / f"{number}.png").write_bytes(bytes([number]) * 10)
    (tmp_path / "two" / "Thumbs.db").write_bytes(b"not a frame")
    before = fingerprint(tmp_path / "one")
    assert before == fingerprint(tmp_path / "two")
    assert before.startswith("30-")
    (tmp_path / "two" / "1.png").rename(tmp_path / "two" / "4.png")
    assert fingerprint(tmp_path / "two") != before


def test_arrays() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    assert fingerprint(array) == fingerprint(array.copy(order="F"))
    assert fingerprint(array) == fingerprint(np.repeat(array, 2, axis=0)[::2])
    assert fingerprint(array) != fingerprint(array.reshape(1, 4, 2, 3))
    assert fingerprint(array) != fingerprint(array.view(np.int8))
    assert fingerprint(array).startswith("24-")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="cannot be read: No such file") as caught:
        fingerprint(tmp_path / "missing")
    assert caught.value.hint
