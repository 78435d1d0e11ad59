"""`extract` and `show` on datasets and output folders that a stranger prepared."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trust.arena import CONFIG, edit_manifest, edit_rows, run
from vrekit.config.loader import parse_config
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    np.save(folder / "clip.npy", np.random.default_rng(0).integers(0, 255, (4, 24, 32, 3), np.uint8))
    representations = parse_config(CONFIG).representations
    video, dataset = str(folder / "clip.npy"), folder / "dataset"
    export(ExportRequest(video=video, dataset=dataset, representations=representations, threads=1))
    return dataset


@pytest.fixture
def dataset(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "evil")
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "mine.txt").write_text("private")
    return tmp_path / "evil"


def victim_is_whole(dataset: Path) -> bool:
    victim = dataset.parent / "victim"
    return [path.name for path in victim.iterdir()] == ["mine.txt"] and (victim / "mine.txt").read_text() == "private"


FORMS = ("png", "npy", "json", "txt", "jpg", "mp4")


@pytest.mark.parametrize("place", ["clip", "index.jsonl", "clip/00000000.rgb.png", "clip/rgb.mp4", "rgb.mp4"])
@pytest.mark.parametrize("kind", ["symbolic", "hard", "pipe", "folder"])
def test_output_folders_with_links(place: str, kind: str, dataset: Path, tmp_path: Path) -> None:
    path = tmp_path / "files" / place
    path.parent.mkdir(parents=True)
    mine = tmp_path / "victim" / "mine.txt"
    if kind == "symbolic":
        path.symlink_to(mine.parent if place == "clip" else mine)
    elif kind == "hard":
        os.link(mine, path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    for form in ("png,npy", "mp4"):
        for force in ((), ("--force",)):
            run("extract", dataset, "-o", tmp_path / "files", "--to", form, "-r", "rgb", *force)
            assert victim_is_whole(dataset), (form, force)


LINES: dict[str, Any] = {
    "a path": {"path": "../../victim/mine.txt", "video_id": "clip", "frame_index": 0},
    "deep": None,
    "text": "x",
    "a large number": {"frame_index": 10**400},
}


@pytest.mark.parametrize("what", LINES)
def test_lists_of_files_that_cannot_be(what: str, dataset: Path, tmp_path: Path) -> None:
    assert run("extract", dataset, "-o", tmp_path / "files", "--to", "npy", "-r", "rgb").startswith("0: ")
    index = tmp_path / "files" / "index.jsonl"
    line = "[" * 100_000 if LINES[what] is None else json.dumps(LINES[what])
    honest = index.read_text().splitlines()
    changed = json.loads(honest[0])
    if isinstance(LINES[what], dict):
        line = json.dumps(changed | LINES[what])
    for text in (line + "\n", "\n".join([line, *honest]) + "\n", "\n".join(honest) + "\n" + line):
        index.write_text(text)
        run("extract", dataset, "-o", tmp_path / "files", "--to", "npy", "-r", "rgb")
        run("extract", dataset, "-o", tmp_path / "files", "--to", "npy", "-r", "rgb", "--force")
        assert victim_is_whole(dataset)


ROWS: dict[str, dict[str, Any]] = {
    "a huge shape": {"shape": [2**31 - 1, 2**31 - 1, 3]},
    "no shape": {"shape": []},
    "many sides": {"shape": [1] * 40},
    "objects": {"dtype": "O"},
    "another dtype": {"dtype": "float64"},
    "endless time": {"pts_seconds": float("inf")},
    "no time": {"pts_seconds": float("nan")},
    "another codec": {"codec": "../../x"},
}


@pytest.mark.parametrize("what", ROWS)
def test_rows_that_cannot_be(what: str, dataset: Path, tmp_path: Path) -> None:
    edit_rows(dataset, **ROWS[what])
    for form in FORMS:
        run("extract", dataset, "-o", tmp_path / "files" / form, "--to", form)
    for arguments in ((), ("--json",), ("-r", "rgb")):
        run("show", dataset, "clip/0", *arguments)
    assert victim_is_whole(dataset)


SPECS: dict[str, dict[str, Any]] = {
    "a suffix that is a path": {"suffix": "../../victim/mine.txt"},
    "a suffix that is long": {"suffix": "x" * 300},
    "endless range": {"value_range": [float("-inf"), float("inf")]},
    "no range": {"value_range": [float("nan"), float("nan")]},
    "many classes": {"classes": ["x"] * 100_000},
    "classes with control characters": {"classes": ["\x1b]0;x\x07\x1b[2J"] * 3},
    "a unit with control characters": {"unit": "\x1b[2J\x1b]0;x\x07"},
}


@pytest.mark.parametrize("what", SPECS)
def test_specs_that_cannot_be(what: str, dataset: Path, tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        for record in data["representations"].values():
            for name, value in SPECS[what].items():
                if name in record:
                    record[name] = value
                for part in ("memory", "stored", "output"):
                    if isinstance(record.get(part), dict):
                        record[part][name] = value

    edit_manifest(dataset, change)
    for form in FORMS:
        run("extract", dataset, "-o", tmp_path / "files" / form, "--to", form)
    for arguments in ((), ("--json",), ("-r", "rgb")):
        said = run("show", dataset, "clip/0", *arguments)
        assert "\x1b[2J" not in said
        assert "\x1b]0" not in said
    assert victim_is_whole(dataset)
