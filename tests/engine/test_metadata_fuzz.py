"""Any change of a dataset's JSON files: commands work or raise one of vrekit's errors, and nothing outside changes.

The small run has some hundred changes; VREKIT_EXHAUSTIVE=1 makes thousands.
"""

import copy
import json
import os
import random
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.manifest import read_manifest
from vrekit.catalog.runs import read_runs, write_run
from vrekit.catalog.summary import summarize
from vrekit.config.loader import parse_config
from vrekit.core.documents import CHECKSUM_KEY
from vrekit.core.errors import VideoError, VrekitError
from vrekit.engine.export import export, recorded_requests, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.merge.run import merge
from vrekit.jobs.validate import validate
from vrekit.readers.dataset import FrameDataset

COUNT = int(os.environ.get("VREKIT_FUZZ_COUNT", "3000" if os.environ.get("VREKIT_EXHAUSTIVE") else "60"))
MOST_SECONDS = 20.0  # of all commands with one change, on a busy machine
CONFIG = """
representations:
  rgb: {type: color/rgb, codec: png}
  canny: {type: edges/canny, codec: npy.zst}
  hsv: {type: color/hsv, deps: [rgb], store: false, output_size: [6, 8]}
"""
NASTY: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400),
    *(0.0, -0.5, 1e308, float("nan"), float("inf"), -float("inf")),
    *("", "x", "0", "nan", "..", "../../../ESCAPED", "/etc/passwd", "a/b", "a\0b", "a\nb", "é\u202e", "x" * 5000),
    *("\ud800", "os:system", "subprocess:Popen", "evil.py:X", "object", "(99999999999)f8", "[" * 300, "%s{0}$(id)"),
    *([], {}, [None], [1, 2], [[]], {"id": "png"}, {"id": 5}, {"": None}, {"a": {"b": [1]}}, [1] * 5000),
    *("rgb", "canny", "hsv", "clip", "all", "png", "lance", "webdataset", "uint8", [2, 2], [10**6, 10**6]),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dataset of each writer: what a merge made, so that it has all files."""
    place = tmp_path_factory.mktemp("made")
    np.save(place / "clip.npy", np.random.default_rng(0).integers(0, 255, (3, 12, 16, 3), np.uint8))
    folders = {}
    for writer in ("webdataset", "lance"):
        export(
            ExportRequest(
                video=str(place / "clip.npy"),
                dataset=place / f"{writer}-export",
                representations=parse_config(CONFIG).representations,
                fps=10.0,
                writer=writer,
            )
        )
        merge([place / f"{writer}-export"], place / writer)
        with open_dataset(place / writer):  # has an index from now on
            folders[writer] = place / writer
    return folders


# -- changes -------------------------------------------------------------------------------------------------------


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside a JSON value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def inside(value: Any, path: tuple[Any, ...]) -> Any:
    """Return the value at a path."""
    for key in path:
        value = value[key]
    return value


def mutate(data: dict[str, Any], chance: random.Random) -> None:
    """Change one to three things of a JSON object."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        found = list(places(data))
        if not found:
            return
        path = chance.choice(found)
        above, key = inside(data, path[:-1]), path[-1]
        kind = chance.choice(("replace",) * 6 + ("delete", "rename", "duplicate", "swap", "wrap", "nest", "twist"))
        if kind == "replace":
            above[key] = copy.deepcopy(chance.choice(NASTY))
        elif kind == "delete":
            del above[key]
        elif kind == "swap":
            other = chance.choice(found)
            with_other = inside(data, other[:-1])
            above[key], with_other[other[-1]] = copy.deepcopy(with_other[other[-1]]), copy.deepcopy(above[key])
        elif kind == "wrap":
            above[key] = chance.choice(([above[key]], {"id": above[key]}))
        elif kind == "nest":
            for _ in range(chance.choice((3, 60, 70, 100))):
                above[key] = [above[key]]
        elif kind == "twist" and isinstance(above[key], (int, float)):
            above[key] = chance.choice((-above[key], above[key] + 1, above[key] * 1000, str(above[key])))
        elif isinstance(above, dict):
            name = chance.choice([one for one in NASTY if isinstance(one, str)])
            above[name] = copy.deepcopy(above[key])
            if kind == "rename":
                del above[key]
        elif isinstance(above, list):
            above.append(copy.deepcopy(above[key]))


def text_of(data: Any, chance: random.Random) -> bytes:
    """Return JSON text, most often with a checksum that is right."""
    if isinstance(data, dict):
        data.pop(CHECKSUM_KEY, None)
        if chance.random() < 0.8:
            data = {**data, CHECKSUM_KEY: "crc32:00000000"}
    text = json.dumps(data, indent=2, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass") + b"\n"
    at = text.rfind(b"crc32:00000000")
    return text if at < 0 else text[: at + 6] + b"%08x" % zlib.crc32(text) + text[at + 14 :]


def corrupt(text: bytes, chance: random.Random) -> bytes:
    """Change some bytes."""
    data = bytearray(text)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(data))
        kind = chance.choice(("flip", "set", "cut", "insert", "repeat"))
        if kind == "flip":
            data[at] ^= 1 << chance.randrange(8)
        elif kind == "set":
            data[at] = chance.randrange(256)
        elif kind == "cut":
            del data[at : at + chance.randrange(1, 50)]
        elif kind == "insert":
            data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
        else:
            data[at:at] = data[at : at + chance.randrange(1, 2000)]
        if not data:
            break
    if chance.random() < 0.5:  # without a checksum nothing but the content tells
        data = bytearray(bytes(data).replace(b'"checksum"', b'"former"'))
    return bytes(data)


def change(dataset: Path, chance: random.Random) -> None:
    """Change one of a dataset's JSON files."""
    runs = sorted((dataset / "runs").glob("*.json"))
    path = chance.choice([dataset / "dataset.json"] * 6 + [runs[0]] * 3 + [dataset / "origin.json"])
    text = path.read_bytes()
    if chance.random() < 0.15:
        path.write_bytes(corrupt(text, chance))
        return
    data = json.loads(text)
    mutate(data, chance)
    if path.name == "dataset.json" and chance.random() < 0.7:
        mend_hashes(data)
    path.write_bytes(text_of(data, chance))


def mend_hashes(data: dict[str, Any]) -> None:
    """Have each representation's hash be that of its identity, as far as there is one."""
    from vrekit.core.spec import digest

    records = data.get("representations")
    for record in records.values() if isinstance(records, dict) else ():
        if isinstance(record, dict) and isinstance(record.get("identity"), dict):
            try:
                record["config_hash"] = digest(record["identity"])
            except ValueError:
                continue


# -- what is run ---------------------------------------------------------------------------------------------------


def read(dataset: Path) -> None:
    """Read a frame."""
    frames = FrameDataset(dataset, verify=False)
    if len(frames):
        frames[0]


def query(dataset: Path) -> None:
    """Read every table."""
    with open_dataset(dataset) as opened:
        for table in ("samples", "frames", "videos", "representations", "runs", "items"):
            opened.sql(f"SELECT * FROM {table} LIMIT 1")


COMMANDS: dict[str, Callable[[Path, Path], object]] = {
    "manifest": lambda dataset, _: read_manifest(dataset),
    "runs": lambda dataset, _: read_runs(dataset),
    "info": lambda dataset, _: json.dumps(summarize(dataset).to_json(), default=str),
    "requests": lambda dataset, _: recorded_requests(dataset),
    "validate": lambda dataset, _: validate(dataset, decode=False),
    "read": lambda dataset, _: read(dataset),
    "query": lambda dataset, _: query(dataset),
    "merge": lambda dataset, output: merge([dataset], output),
}


def run_all(dataset: Path, output: Path) -> dict[str, str]:
    """Run every command; return what each of them said."""
    said = {}
    for name, run in COMMANDS.items():
        try:
            run(dataset, output)
        except VrekitError as error:
            said[name] = error.message
        else:
            said[name] = ""
    assert max(map(len, said.values())) < 20_000
    return said


@pytest.mark.parametrize("writer", ["webdataset", "lance"])
def test_commands_survive_any_change(
    made: dict[str, Path], tmp_path: Path, writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran: list[object] = []
    monkeypatch.setattr("os.system", ran.append)
    monkeypatch.setattr("subprocess.Popen", lambda *args, **_: ran.append(args))
    clean = made[writer]
    names = {path.name for path in tmp_path.iterdir()}
    good = 0
    slowest = 0.0
    for seed in range(COUNT):
        chance = random.Random(f"{writer} {seed}")
        place = tmp_path / "in" / "side"
        place.mkdir(parents=True)
        dataset, output = place / "set", place / "out"
        shutil.copytree(clean, dataset, copy_function=os.link)
        for path in [dataset / "dataset.json", dataset / "origin.json", *dataset.glob("runs/*.json")]:
            content = path.read_bytes()
            path.unlink()  # the clean one is not written to through the link
            path.write_bytes(content)
        change(dataset, chance)
        (dataset / "evil.py").write_text("raise SystemExit('it ran')\n")
        started = time.perf_counter()
        try:
            said = run_all(dataset, output)
        except BaseException as error:
            kept = tmp_path.parent / f"failed-{writer}-{seed}"
            shutil.copytree(dataset, kept, dirs_exist_ok=True)
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}; see {kept}") from error
        slowest = max(slowest, time.perf_counter() - started)
        good += not any(said.values())
        assert {path.name for path in tmp_path.iterdir()} == names | {"in"}, seed
        assert {path.name for path in (tmp_path / "in").iterdir()} == {"side"}, seed
        assert {path.name for path in place.iterdir()} <= {"set", "out"}, seed
        assert ran == [], seed
        shutil.rmtree(tmp_path / "in")
    assert slowest < MOST_SECONDS
    print(f"{COUNT} changes, {good} harmless, the slowest took {slowest:.2f} s")


@pytest.mark.parametrize("name", ["x" * 5000, "a" * 300 + ".mp4"])
def test_a_recorded_video_whose_name_no_file_can_have(made: dict[str, Path], tmp_path: Path, name: str) -> None:
    shutil.copytree(made["webdataset"], tmp_path / "set")
    (run,) = read_runs(tmp_path / "set")
    write_run(tmp_path / "set", replace(run, request={**run.request, "video": name}))
    with pytest.raises(VideoError, match="file name too long"):
        resume(tmp_path / "set")
