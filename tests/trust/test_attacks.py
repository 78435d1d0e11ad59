"""What a stranger's dataset may try: no code runs, nothing outside is read, written or deleted, nothing hangs.

Each attack is tried on every command and on the readers. `Arena.check` asserts what holds for all of them.
"""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.trust.arena import CONFIG, Arena, Attack, edit_json, edit_manifest, edit_rows, edit_runs, run
from vrekit.catalog.dataset import open_dataset
from vrekit.config.loader import parse_config
from vrekit.core.documents import document_bytes
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import numpy as np

    folder = tmp_path_factory.mktemp("templates")
    frames = np.random.default_rng(0).integers(0, 255, (8, 24, 32, 3), np.uint8)
    np.save(folder / "clip.npy", frames)
    np.save(folder / "other.npy", frames[::-1])
    for writer in ("webdataset", "lance"):
        request = ExportRequest(
            video=str(folder / "clip.npy"),
            dataset=folder / writer,
            representations=parse_config(CONFIG).representations,
            writer=writer,
            shard_frames=4,
            threads=1,
        )
        export(request)
    return {name: folder / name for name in ("webdataset", "lance")} | {"other": folder / "other.npy"}


@pytest.fixture
def arena(templates: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arena:
    arena = Arena(tmp_path, templates["webdataset"], templates["other"])
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    from vrekit.catalog.query import Query, select
    from vrekit.catalog.subset import Subset

    with open_dataset(arena.template) as dataset:
        Subset.from_selection(select(dataset, Query(where="frame_index < 6"))).write(tmp_path / "subset.parquet")
    shutil.rmtree(arena.template / "index", ignore_errors=True)
    return arena


@pytest.fixture
def lance_arena(arena: Arena, templates: dict[str, Path]) -> Arena:
    return Arena(arena.root, templates["lance"], arena.video)


def nothing(dataset: Path) -> None:
    """No attack."""


def test_an_honest_dataset_works_everywhere(arena: Arena) -> None:
    said = arena.check(nothing)
    wrong = {name: text for name, text in said.items() if not text.startswith(("0: ", "read"))}
    assert not wrong


def test_an_honest_lance_dataset_works_everywhere(lance_arena: Arena) -> None:
    said = lance_arena.check(nothing)
    wrong = {name: text for name, text in said.items() if not text.startswith(("0: ", "read"))}
    assert set(wrong) <= {"convert"}  # it is one already


# -- code --------------------------------------------------------------------------------------------------------

EVIL_CODE = """
import pathlib
pathlib.Path(__file__).resolve().parents[4].joinpath("PWNED").write_text("by import")
class X:
    def __init__(self, **params):
        pathlib.Path(__file__).resolve().parents[4].joinpath("PWNED").write_text("by call")
"""
TYPES: dict[str, tuple[str, dict[str, Any]]] = {
    "a program": ("subprocess:Popen", {"args": ["touch", "PWNED"]}),
    "a shell": ("os:system", {"command": "touch PWNED"}),
    "a file of its own": ("./evil.py:X", {}),
    "a file by its name": ("evil.py:X", {}),
    "a file through the process": ("/proc/self/cwd/../a/b/c/evil/evil.py:X", {}),
    "a module of the standard library": ("pathlib:Path", {}),
}


def record_type(type_name: str, params: dict[str, Any]) -> Attack:
    def attack(dataset: Path) -> None:
        (dataset / "evil.py").write_text(EVIL_CODE)

        def of_manifest(data: dict[str, Any]) -> None:
            data["representations"]["hsv"]["spec"] |= {"type": type_name, "params": params}

        def of_run(data: dict[str, Any]) -> None:
            data["status"] = "running"
            data["request"] |= {"config_folder": str(dataset), "working_folder": str(dataset)}
            for spec in data["request"]["representations"]:
                spec |= {"type": type_name, "params": params}

        edit_manifest(dataset, of_manifest)
        edit_runs(dataset, of_run)

    return attack


@pytest.mark.parametrize("what", TYPES)
def test_recorded_code_does_not_run(arena: Arena, what: str) -> None:
    type_name, params = TYPES[what]
    said = arena.check(record_type(type_name, params))
    for name in ("read all", "loader", "resume"):
        assert type_name in said[name], said[name]
        assert "trust" in said[name], said[name]
    assert said["read rgb"] == "read"
    assert said["query"].startswith("0: ")


@pytest.mark.parametrize("what", ["a program", "a file of its own"])
def test_recorded_code_does_not_run_for_lance(lance_arena: Arena, what: str) -> None:
    said = lance_arena.check(record_type(*TYPES[what]))
    assert "trust" in said["read all"]
    assert said["read rgb"] == "read"


# -- paths -------------------------------------------------------------------------------------------------------


def set_group(group: str) -> Attack:
    def change(data: dict[str, Any]) -> None:
        for record in data["representations"].values():
            if record["group"] is not None:
                record["group"] = group

    return lambda dataset: edit_manifest(dataset, change)


def rename_video(video_id: str) -> Attack:
    def attack(dataset: Path) -> None:
        edit_manifest(dataset, lambda data: data.update(videos={video_id: next(iter(data["videos"].values()))}))
        edit_runs(dataset, lambda data: data.update(video_id=video_id))
        if (dataset / "shards").exists():
            edit_rows(dataset, video_id=video_id)

    return attack


def set_suffix(suffix: str) -> Attack:
    return lambda dataset: edit_manifest(dataset, lambda data: data["representations"]["rgb"].update(suffix=suffix))


def set_run_id(run_id: str) -> Attack:
    return lambda dataset: edit_runs(dataset, lambda data: data.update(run_id=run_id))


def rename_representation(name: str) -> Attack:
    def change(data: dict[str, Any]) -> None:
        data["representations"][name] = data["representations"].pop("canny")
        data["representations"][name]["spec"]["name"] = name

    def attack(dataset: Path) -> None:
        edit_manifest(dataset, change)

    return attack


NAMES = {
    "group": set_group("../../../ESCAPED"),
    "absolute group": set_group("/proc/self/cwd/ESCAPED"),
    "run id": set_run_id("../../victim/settings"),
    "run id of a file elsewhere": set_run_id("../../../../a/victim/settings"),
    "video id": rename_video("../../../VIDESC"),
    "suffix": set_suffix("../../../../x"),
    "representation": rename_representation("../../../REPRESC"),
}


@pytest.mark.parametrize("what", NAMES)
def test_names_lead_nowhere(arena: Arena, what: str) -> None:
    arena.check(NAMES[what])


@pytest.mark.parametrize("what", NAMES)
def test_names_lead_nowhere_for_lance(lance_arena: Arena, what: str) -> None:
    lance_arena.check(NAMES[what])


@pytest.mark.parametrize(
    "shard", ["../../../victim/notes.txt", "/dev/zero", "/etc/passwd", "dataset.json", "", "shards"]
)
def test_rows_name_no_file_outside(arena: Arena, shard: str) -> None:
    said = arena.check(lambda dataset: edit_rows(dataset, shard=shard))
    assert said["validate"].startswith("1: ")
    assert said["read all"] != "read"


# -- links, pipes, devices ---------------------------------------------------------------------------------------


def bait_of(dataset: Path) -> Path:
    return dataset.parents[2] / "victim"


def replace_by_link(pattern: str) -> Attack:
    def attack(dataset: Path) -> None:
        path = next(iter(sorted(dataset.glob(pattern))))
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(bait_of(dataset) if "." not in path.name[1:] else bait_of(dataset) / "notes.txt")

    return attack


def add_link(name: str, target: str = "") -> Attack:
    def attack(dataset: Path) -> None:
        path = dataset / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(bait_of(dataset) / target)

    return attack


def replace_by_pipe(pattern: str) -> Attack:
    def attack(dataset: Path) -> None:
        path = next(iter(sorted(dataset.glob(pattern))))
        path.unlink()
        os.mkfifo(path)

    return attack


def replace_by_socket(pattern: str) -> Attack:
    def attack(dataset: Path) -> None:
        path = next(iter(sorted(dataset.glob(pattern))))
        path.unlink()
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket is short
        try:
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(path.name)
        finally:
            os.chdir(here)

    return attack


LINKS = {
    "a folder of shards": add_link("shards/evil"),
    "all shards": replace_by_link("shards"),
    "a tar": replace_by_link("shards/*/*.tar"),
    "a sidecar": replace_by_link("shards/*/*.parquet"),
    "the folder of runs": replace_by_link("runs"),
    "a run": replace_by_link("runs/*.json"),
    "dataset.json": replace_by_link("dataset.json"),
    "the lock": add_link(".lock", "LOCKED"),
    "the lock of a cell": add_link("shards/clip/.all-00000000.lock", "LOCKED"),
    "the lock of another cell": add_link("shards/other/.all-00000000.lock", "LOCKED"),
    "an open shard": add_link("shards/other/.all-00000000.tar.partial", "notes.txt"),
    "a journal": add_link("shards/other/.all-00000000.journal", "settings.json"),
    "the index": add_link("index"),
    "a file of the index": add_link("index/samples.parquet", "notes.txt"),
    "the statistics": add_link("stats"),
    "the items": add_link("items"),
    "the quarantine": add_link("quarantine"),
    "lance": add_link("lance"),
    "lance's open cells": add_link("lance/.open"),
    "the card": replace_by_link("README.md"),
    "the origin": add_link("origin.json", "settings.json"),
}


@pytest.mark.parametrize("what", LINKS)
def test_links_are_not_followed(arena: Arena, what: str) -> None:
    arena.check(LINKS[what])


LANCE_LINKS = {
    "all tables": replace_by_link("lance"),
    "the table": replace_by_link("lance/*.lance"),
    "its data": replace_by_link("lance/*.lance/data"),
    "its versions": replace_by_link("lance/*.lance/_versions"),
    "a data file": replace_by_link("lance/*.lance/data/*.lance"),
    "the lock": add_link("lance/.all.lock", "LOCKED"),
    "what is untidy": add_link("lance/.all.untidy", "notes.txt"),
    "its open cells": add_link("lance/.open"),
    "its tags": add_link("lance/all.lance/_refs"),
}


@pytest.mark.parametrize("what", LANCE_LINKS)
def test_links_are_not_followed_for_lance(lance_arena: Arena, what: str) -> None:
    lance_arena.check(LANCE_LINKS[what])


PIPES = {
    "a tar": "shards/*/*.tar",
    "a sidecar": "shards/*/*.parquet",
    "a run": "runs/*.json",
    "dataset.json": "dataset.json",
    "a log": "runs/*.log",
    "the card": "README.md",
}


@pytest.mark.parametrize("what", PIPES)
@pytest.mark.parametrize("make", [replace_by_pipe, replace_by_socket])
def test_pipes_and_sockets_do_not_hang(arena: Arena, what: str, make: Callable[[str], Attack]) -> None:
    arena.check(make(PIPES[what]))


@pytest.mark.parametrize("pattern", ["lance/*.lance/data/*.lance", "lance/*.lance/_versions/*.manifest"])
def test_pipes_do_not_hang_for_lance(lance_arena: Arena, pattern: str) -> None:
    lance_arena.check(replace_by_pipe(pattern))


# -- metadata that cannot be -------------------------------------------------------------------------------------


def raw_manifest(text: bytes) -> Attack:
    def attack(dataset: Path) -> None:
        (dataset / "dataset.json").write_bytes(text)

    return attack


def raw_run(text: bytes) -> Attack:
    def attack(dataset: Path) -> None:
        for path in (dataset / "runs").glob("*.json"):
            path.write_bytes(text)

    return attack


def manifest_field(*path: str, value: Any) -> Attack:
    def change(data: dict[str, Any]) -> None:
        *parents, last = path
        for key in parents:
            data = data[key]
        data[last] = value

    return lambda dataset: edit_manifest(dataset, change)


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


METADATA = {
    "deep": raw_manifest(nested(100_000)),
    "deep run": raw_run(nested(100_000)),
    "deep, but not too deep for a parser": manifest_field(
        "representations", "rgb", "identity", value={"a": [[[[]]]] * 3}
    ),
    "long integer": raw_manifest(b'{"format_version": ' + b"9" * 5000 + b"}"),
    "a list": raw_manifest(b"[1]"),
    "a run that is a list": raw_run(b"[1]"),
    "empty run": raw_run(b""),
    "half a run": raw_run(b'{"run_id": "x", "video_id":'),
    "codec list": manifest_field("representations", "rgb", "codec", value=[1, 2]),
    "codec of nothing": manifest_field("representations", "rgb", "codec", value={}),
    "codec without end": manifest_field("representations", "rgb", "codec", value={"id": "os:system"}),
    "codec stages": manifest_field(
        "representations", "rgb", "codec", value={"id": "x", "stages": [{"id": "os:system"}]}
    ),
    "large dtype": manifest_field("representations", "rgb", "stored", "dtype", value="(99999999999)f8"),
    "object dtype": manifest_field("representations", "rgb", "stored", "dtype", value="O"),
    "large shape": manifest_field("representations", "rgb", "stored", "shape", value=[10**9, 10**9, 3]),
    "large output": manifest_field("representations", "hsv", "spec", "output_size", value=[10**6, 10**6]),
    "negative shape": manifest_field("representations", "rgb", "stored", "shape", value=[-1, 3, 3]),
    "no grid": manifest_field("shard_frames", value=0),
    "negative grid": manifest_field("shard_frames", value=-5),
    "no shard size": manifest_field("shard_size_bytes", value=0),
    "version true": manifest_field("format_version", value=True),
    "version -1": manifest_field("format_version", value=-1),
    "version of tomorrow": manifest_field("format_version", value=99),
    "unknown writer": manifest_field("writer", value="../x"),
    "the other writer": manifest_field("writer", value="lance"),
    "writer of a type": manifest_field("writer", value={"a": 1}),
    "circle": manifest_field("representations", "hsv", "spec", "dependencies", value=["hsv"]),
    "missing dependency": manifest_field("representations", "hsv", "spec", "dependencies", value=["nowhere"]),
    "videos are a list": manifest_field("videos", value=[1]),
    "frames of text": manifest_field("videos", "clip", "frame_count", value="many"),
    "videos gone": manifest_field("videos", value={}),
    "representations gone": manifest_field("representations", value={}),
    "nul in a name": manifest_field("videos", "clip", "uri", value="\0"),
}


@pytest.mark.parametrize("what", METADATA)
def test_metadata_that_cannot_be(arena: Arena, what: str) -> None:
    arena.check(METADATA[what])


ROWS: dict[str, dict[str, Any]] = {
    "no checksum": {"checksum": None},
    "no codec": {"codec": None},
    "no dtype": {"dtype": None},
    "large dtype": {"dtype": "i1,(99999999999)f8"},
    "object dtype": {"dtype": "O"},
    "large shape": {"shape": [2**31 - 1, 2**31 - 1, 3]},
    "negative shape": {"shape": [-1, -1, 3]},
    "negative offset": {"byte_offset": -1},
    "large offset": {"byte_offset": 2**62},
    "negative size": {"byte_size": -1},
    "large size": {"byte_size": 2**62},
    "raw bytes": {"raw_bytes": 2**62},
    "negative frame": {"frame_index": -3},
    "large frame": {"frame_index": 2**62},
    "unknown status": {"status": "maybe"},
    "unknown kind": {"kind": "soul"},
    "unknown representation": {"representation": "../x"},
    "unknown video": {"video_id": "../x"},
    "run id": {"run_id": "../../x"},
    "payload index": {"payload_index": -7},
    "everything failed without a word": {"status": "failed", "error": None},
}


@pytest.mark.parametrize("what", ROWS)
def test_rows_that_cannot_be(arena: Arena, what: str) -> None:
    said = arena.check(lambda dataset: edit_rows(dataset, **ROWS[what]))
    assert said["validate"].startswith("1: "), said["validate"]


# -- tars and subsets --------------------------------------------------------------------------------------------


def hostile_tar(dataset: Path) -> None:
    """Add members that lead outside, and a link."""
    import io
    import tarfile

    tar = next(iter((dataset / "shards").glob("*/*.tar")))
    with tarfile.open(tar, "a") as archive:
        for name in ("../../../ESC.rgb.png", "/ESC.rgb.png", "clip/00000000.esc.png"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"ESC"))
        link = tarfile.TarInfo("clip/00000001.esc.png")
        link.type = tarfile.SYMTYPE
        link.linkname = "../../../../victim/notes.txt"
        archive.addfile(link)


def test_tar_members_lead_nowhere(arena: Arena) -> None:
    said = arena.check(hostile_tar)
    assert said["validate"].startswith("1: ")


def subset_rows(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        import pyarrow as pa

        table = pq.ParquetFile(path).read()
        for name, value in changes.items():
            kind = table.schema.field(name).type
            table = table.set_column(table.schema.get_field_index(name), name, pa.array([value] * len(table), kind))
        pq.write_table(table, path)

    return change


@pytest.mark.parametrize(
    "changes",
    [{"video_id": "../../x"}, {"key": "../../x/00000000"}, {"frame_index": -1}, {"representations": ["../../x"]}],
    ids=str,
)
def test_subsets_lead_nowhere(arena: Arena, changes: dict[str, Any]) -> None:
    arena.set_up(nothing)
    subset_rows(**changes)(arena.root / "subset.parquet")
    before = arena.surroundings()
    for arguments in (
        ("subset", "materialize", arena.root / "subset.parquet", arena.dataset, "-o", arena.work / "materialized"),
        ("subset", "verify", arena.root / "subset.parquet", arena.dataset),
        ("subset", "info", arena.root / "subset.parquet"),
    ):
        said = run(*arguments)
        assert said.startswith(("1: ", "2: ")), (arguments, said)
    assert arena.surroundings() == before


def test_a_journal_of_a_stranger_is_no_path(arena: Arena) -> None:
    def attack(dataset: Path) -> None:
        folder = dataset / "shards" / "more"
        folder.mkdir()
        (folder / ".all-00000000.tar.partial").write_bytes(b"x" * 4096)
        row = {"byte_offset": 0, "byte_size": 3, "checksum": 0, "status": "ok", "shard": "../../x", "video_id": "../x"}
        line = b'{"end": 4096, "rows": [%s]}\n' % document_bytes(row).replace(b"\n", b" ")
        (folder / ".all-00000000.journal").write_bytes(line * 3)

    arena.check(attack)


def test_origin_names_no_folder(arena: Arena) -> None:
    def attack(dataset: Path) -> None:
        origin = {"format": 1, "sources": [{"folder": "../../victim", "digest": "x"}], "options": {}}
        (dataset / "origin.json").write_bytes(document_bytes(origin))
        edit_json(dataset / "origin.json", lambda data: data.update(options={"transcode": {"rgb": ["os:system"]}}))

    arena.check(attack)
