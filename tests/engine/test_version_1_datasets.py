"""Datasets that were written before format version 2 are read as they are, and can be extended and merged."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.manifest import read_manifest
from vrekit.catalog.runs import read_runs
from vrekit.catalog.summary import summarize
from vrekit.config.loader import load_config
from vrekit.core.documents import read_document
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.merge.run import merge
from vrekit.jobs.validate import validate
from vrekit.readers.dataset import FrameDataset
from vrekit.video.selection import parse_frames

GOLDEN = Path(__file__).parent.parent / "golden" / "datasets"
NAMES = ["v1-tar", "v1-lance"]
FRAMES = np.load(GOLDEN / "clip.npy")


@pytest.fixture(params=NAMES)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy of a dataset."""
    return Path(shutil.copytree(GOLDEN / request.param, tmp_path / request.param))


def state(folder: Path) -> dict[str, bytes]:
    """Return the content of every file but the index, which is derived."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != "index"
    }


def request(dataset: Path, frames: str) -> ExportRequest:
    """Return the export that made the dataset, of other frames."""
    config = load_config(str(GOLDEN / "config.yaml"))
    return ExportRequest(
        video=str(GOLDEN / "clip.npy"),
        dataset=dataset,
        representations=config.representations,
        config_folder=GOLDEN,
        frames=parse_frames(frames),
        fps=10.0,
        images="jpg",
    )


def check_content(dataset: Path, count: int) -> None:
    """Check what every reader gives of the first frames."""
    frames = FrameDataset(dataset, ["rgb", "canny", "hsv"])
    assert len(frames) == count
    for number in range(count):
        assert np.array_equal(frames[number]["rgb"].numpy(), FRAMES[number])
    assert frames[0]["hsv"].shape == (12, 16, 3)
    assert validate(dataset).problems == []
    rows = open_dataset(dataset).sql("SELECT count(*) AS n FROM samples").to_pylist()
    assert rows == [{"n": 4 * count}]


def test_reading_changes_nothing(old: Path) -> None:
    before = state(old)
    assert json.loads(before["dataset.json"])["format_version"] == 1
    assert read_manifest(old).format_version == 1
    assert not read_document(old / "dataset.json").is_protected
    assert len(read_runs(old)) == len(summarize(old).runs) == 1
    check_content(old, 4)
    assert state(old) == before


def test_an_export_of_what_is_there_changes_nothing(old: Path) -> None:
    before = state(old)
    assert export(request(old, "0..4")).run_id is None
    assert {name: data for name, data in state(old).items() if not name.endswith(".lock")} == before


def test_it_is_extended_and_resumed(old: Path) -> None:
    report = export(request(old, "0..6"))
    assert (report.computed_frames, report.failed_frames) == (8, 0)
    assert [one.run_id for one in resume(old)] == [None, None]
    check_content(old, 6)


def test_a_manifest_that_is_written_gets_version_2_and_a_checksum(old: Path) -> None:
    config = load_config(str(GOLDEN / "config.yaml"))
    again = config.representations[1].with_options(name="canny2")
    export(ExportRequest(video=str(GOLDEN / "clip.npy"), dataset=old, representations=(again,), fps=10.0))
    document = read_document(old / "dataset.json")
    assert document.is_protected
    assert document.fields.integer("format_version") == 2
    assert "format version 2" in (old / "README.md").read_text()
    assert read_manifest(old).groups == {"all": ["rgb", "canny", "rgb.image", "canny.image"], "canny2": ["canny2"]}
    check = validate(old)
    assert (check.problems, check.payloads) == ([], 16 + 6)


def test_both_are_merged(old: Path, tmp_path: Path) -> None:
    merge([old], tmp_path / "merged")
    assert read_document(tmp_path / "merged" / "dataset.json").fields.integer("format_version") == 2
    check_content(tmp_path / "merged", 4)
    assert [run.run_id for run in read_runs(tmp_path / "merged")] == [run.run_id for run in read_runs(old)]
