"""Tars with headers that vrekit does not write: they are named, and their claims cost neither memory nor disk."""

import os
import tarfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.jobs.merge_datasets import make_dataset, members_of
from vrekit.core.checksum import crc32
from vrekit.core.errors import CodecError
from vrekit.core.names import sample_key
from vrekit.core.schema import rows_to_table
from vrekit.jobs.merge.manifests import Layout
from vrekit.jobs.merge.run import merge
from vrekit.jobs.repair import repair
from vrekit.jobs.validate import validate
from vrekit.readers.dataset import FrameDataset
from vrekit.writers.webdataset.members import TarMember, read_members
from vrekit.writers.webdataset.sidecars import read_sidecar, sidecar_bytes
from vrekit.writers.webdataset.tar_format import BLOCK, END_OF_ARCHIVE, header, padding

HUGE = 3 << 30
LARGE = 200 << 20


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


def stored_blocks(folder: Path) -> int:
    """Return what the files take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


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


@pytest.fixture
def large_row(dataset: Path) -> Path:
    """A dataset whose last payload has 200 MiB, nearly all of it a hole; its row is true but for that size."""
    tar = only_tar(dataset)
    rows = read_sidecar(tar.with_suffix(".parquet")).to_pylist()
    last = max(rows, key=lambda row: row["byte_offset"])
    os.truncate(tar, last["byte_offset"])
    with tar.open("r+b") as file:
        file.seek(last["byte_offset"] - BLOCK)
        name = f"{sample_key('car', last['frame_index'])}.rgb.npy"
        file.write(header(name, LARGE))
        file.truncate(last["byte_offset"] + LARGE + len(END_OF_ARCHIVE))
    change_last_row(dataset, byte_size=LARGE, checksum=crc32(bytes(LARGE)))
    return dataset


def change_last_row(dataset: Path, **values: object) -> None:
    sidecar = only_tar(dataset).with_suffix(".parquet")
    rows = read_sidecar(sidecar).to_pylist()
    max(rows, key=lambda row: row["byte_offset"]).update(values)
    sidecar.write_bytes(sidecar_bytes(rows_to_table(rows)))


def test_a_payload_too_large_for_its_array_is_not_read(large_row: Path) -> None:
    with little_memory():
        problems = validate(large_row).problems
    told = [problem for problem in problems if problem.code == "decode"]
    assert [(problem.frame_index, problem.representation) for problem in told] == [(7, "rgb")]
    assert f"the payload has {LARGE} bytes, but codec 'npy' stores an array uint8" in told[0].message
    with little_memory(), pytest.raises(CodecError, match=f"00000007.*the payload has {LARGE} bytes"):
        FrameDataset(large_row)[7]
    with little_memory(), pytest.raises(CodecError, match=f"car/00000007.*the payload has {LARGE} bytes"):
        merge([large_row], large_row.with_name("lance"), layout=Layout(writer="lance"))


def test_a_hole_is_taken_out_as_a_hole(large_row: Path) -> None:
    with little_memory():
        report = repair(large_row, validate(large_row).problems)
    copy = large_row / str(report.quarantine) / "car/00000007.rgb.npy"
    assert copy.stat().st_size == LARGE
    assert stored_blocks(large_row) < 1 << 20
    assert validate(large_row).problems == []
    assert len(FrameDataset(large_row)) == 7


def test_a_changed_payload_is_not_read_whole(large_row: Path) -> None:
    change_last_row(large_row, shape=(LARGE - 128,), raw_bytes=LARGE - 128)
    with only_tar(large_row).open("r+b") as file:
        file.seek(-(1 << 20), os.SEEK_END)
        file.write(b"x")
    with little_memory():
        (problem,) = [one for one in validate(large_row).problems if one.code != "replaced-shard"]
    assert problem.code == "checksum"


def test_what_needs_more_memory_than_there_is_is_not_decoded(large_row: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_last_row(large_row, shape=(LARGE - 128,), raw_bytes=LARGE - 128)
    monkeypatch.setattr("vrekit.catalog.payload_checks.machine_memory", lambda: 3 * LARGE)
    with little_memory():
        report = validate(large_row)
    assert [problem.code for problem in report.problems] == []
    (warning,) = [one for one in report.warnings if one.code == "memory"]
    assert warning.frame_index == 7
    assert warning.message == "not decoded: that takes 0.4 GB, more than half of this machine's memory"


def test_a_large_orphan_stays_a_hole(dataset: Path) -> None:
    tar = only_tar(dataset)
    append(tar, header("car/00000099.rgb.npy", LARGE))
    os.truncate(tar, tar.stat().st_size + LARGE + len(END_OF_ARCHIVE))
    with little_memory():
        report = repair(dataset, validate(dataset).problems)
    assert (dataset / str(report.quarantine) / "car/00000099.rgb.npy").stat().st_size == LARGE
    assert stored_blocks(dataset) < 1 << 20


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
