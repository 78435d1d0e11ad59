"""Tars with headers that vrekit does not write: they are named, and their claims cost neither memory nor disk."""

import os
import tarfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.merge_datasets import make_dataset, members_of
from vrekit.jobs.repair import repair
from vrekit.jobs.validate import validate
from vrekit.writers.webdataset.members import TarMember, read_members
from vrekit.writers.webdataset.tar_format import BLOCK, END_OF_ARCHIVE, header, padding

HUGE = 3 << 30


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "d", {"car": range(8)}, ["rgb"])


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


def special(name: str, size: int, kind: str, **fields: bytes) -> bytes:
    """Return a header of another type; `at_<offset>` replaces bytes of it."""
    block = bytearray(header(name, size))
    block[156:157] = kind.encode()
    for field, value in fields.items():
        at = int(field.removeprefix("at_"))
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def append(tar: Path, *parts: bytes) -> None:
    tar.write_bytes(tar.read_bytes().removesuffix(END_OF_ARCHIVE) + b"".join(parts))


def only_tar(dataset: Path) -> Path:
    (tar,) = dataset.glob("shards/*/*.tar")
    return tar


def scan(path: Path, content: bytes) -> tuple[list[TarMember], str]:
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_members(descriptor)
    finally:
        os.close(descriptor)


def stored_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", ["L", "K", "x", "g", "X"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_long_name_is_not_read(dataset: Path, kind: str, whole: bool) -> None:
    before = members_of(dataset)
    tar = only_tar(dataset)
    append(tar, special("././@LongLink", HUGE, kind))
    if whole:
        os.truncate(tar, tar.stat().st_size + HUGE + len(END_OF_ARCHIVE))  # a hole
    with little_memory():
        problems = validate(dataset, decode=False).problems
        report = repair(dataset, problems)
    messages = [problem.message for problem in problems if problem.path.endswith(".tar")]
    if whole:
        assert f"member ././@LongLink of type '{kind}' is no plain file" in messages
    else:
        assert any("member ././@LongLink ends at byte" in message for message in messages)
    assert report.left == []
    assert stored_bytes(dataset) < 1 << 20
    assert members_of(dataset) == before
    assert validate(dataset).problems == []


def test_a_sparse_member_is_named_and_not_copied(dataset: Path) -> None:
    before = members_of(dataset)
    tar = only_tar(dataset)
    hole = {"at_257": b"ustar  \0", "at_386": b"%011o\0" % HUGE + b"%011o\0" % 0, "at_483": b"%011o\0" % HUGE}
    stray = header("car/00000099.rgb.npy", 5) + b"stray" + padding(5)
    append(tar, special("car/hole", 0, "S", **hole), stray, END_OF_ARCHIVE)
    with tarfile.open(tar) as archive:
        assert archive.getmember("car/hole").size == HUGE  # what tarfile takes it for
    with little_memory():
        problems = validate(dataset, decode=False).problems
        report = repair(dataset, problems)
    assert [problem.message for problem in problems if problem.code == "orphan"] == [
        "member car/00000099.rgb.npy has no metadata row",
        "member car/hole of type 'S' is no plain file",
    ]
    assert report.quarantine is not None
    quarantine = dataset / report.quarantine
    assert [path.name for path in (quarantine / "car").iterdir()] == ["00000099.rgb.npy"]
    assert (quarantine / "car/00000099.rgb.npy").read_bytes() == b"stray"
    assert "car/hole" in (quarantine / "problems.json").read_text()
    assert members_of(dataset) == before
    assert validate(dataset).problems == []


def test_a_large_orphan_is_copied_in_pieces(dataset: Path) -> None:
    tar = only_tar(dataset)
    size = (60 << 20) + 7
    append(tar, header("car/00000099.rgb.npy", size))
    os.truncate(tar, tar.stat().st_size + size + len(padding(size) + END_OF_ARCHIVE))
    with little_memory():
        report = repair(dataset, validate(dataset).problems)
    assert (dataset / str(report.quarantine) / "car/00000099.rgb.npy").stat().st_size == size


def test_members_and_damages(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    long = "v" * 90 + "/" + "n" * 60
    good = header(long, 3) + b"abc" + padding(3) + header("empty", 0)
    members = [TarMember(long, BLOCK, 3, "0"), TarMember("empty", 3 * BLOCK, 0, "0")]
    assert scan(path, good + END_OF_ARCHIVE) == (members, "")
    assert scan(path, good + bytes(10240)) == (members, "")
    assert scan(path, END_OF_ARCHIVE) == ([], "")
    no_end = "it has no end-of-archive blocks"
    for tail in (b"", bytes(BLOCK), END_OF_ARCHIVE[:-1], END_OF_ARCHIVE + b"x"):
        assert scan(path, good + tail) == (members, no_end)
    assert scan(path, b"") == ([], no_end)
    not_valid = (members[:1], f"the header at byte {2 * BLOCK} is not valid")
    flipped = header("empty", 0).replace(b"empty", b"emptz")
    for last in (flipped, special("base-256", 0, "0", at_124=b"\x80"), special("sign", 0, "0", at_124=b"-"), b"x"):
        assert scan(path, good[: 2 * BLOCK] + last + END_OF_ARCHIVE) == not_valid
    assert scan(path, good[: 3 * BLOCK - 1]) == not_valid
    cut = header("cut", 9) + b"12345678"
    assert scan(path, cut) == ([], "member cut ends at byte 521, the tar at 520")
    link = special("link", HUGE, "2")
    assert scan(path, link + END_OF_ARCHIVE) == ([TarMember("link", BLOCK, 0, "2")], "")
    latin = special("?", 0, "0", at_0=b"\xff")
    assert scan(path, latin + END_OF_ARCHIVE) == ([TarMember("\\xff", BLOCK, 0, "0")], "")
