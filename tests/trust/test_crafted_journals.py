"""Working files that a stranger wrote: `resume` takes over what is from this cell, and nothing else."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trust.arena import CONFIG, run
from vrekit.config.loader import parse_config
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.readers import FrameDataset
from vrekit.writers.journal_lines import make_line
from vrekit.writers.webdataset.sidecars import read_sidecar

pytestmark = pytest.mark.timeout(120)

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    np.save(folder / "clip.npy", np.random.default_rng(0).integers(0, 255, (8, 24, 32, 3), np.uint8))
    representations = parse_config(CONFIG).representations
    video, dataset = str(folder / "clip.npy"), folder / "dataset"
    export(ExportRequest(video=video, dataset=dataset, representations=representations, threads=1))
    return dataset


def reopened(template: Path, target: Path, change: Callable[[Rows], object]) -> Path:
    """Return a dataset whose only shard is open again, with a journal whose rows were changed."""
    shutil.copytree(template, target)
    (sidecar,) = target.glob("shards/clip/*.parquet")
    table = read_sidecar(sidecar)
    tar = sidecar.with_suffix(".tar")
    lines = []
    by_frame: dict[int, Rows] = {}
    for row in table.to_pylist():
        by_frame.setdefault(row["frame_index"], []).append(row | {"shard": ""})
    for rows in by_frame.values():
        end = max(row["byte_offset"] + -(-row["byte_size"] // 512) * 512 for row in rows)
        change(rows)
        lines.append(make_line(end, rows))
    tar.rename(tar.with_name(".all-00000000.tar.partial"))
    tar.with_name(".all-00000000.journal").write_bytes(b"".join(lines))
    sidecar.unlink()
    shutil.rmtree(target / "index", ignore_errors=True)
    return target


def set_all(**values: Any) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        for row in rows:
            row.update(values)

    return change


def shift(rows: Rows) -> None:
    for row in rows:
        row["frame_index"] += 8_000_000


CHANGES: dict[str, Callable[[Rows], object]] = {
    "nothing": lambda rows: None,
    "another video": set_all(video_id="other"),
    "a path as video": set_all(video_id="../../victim"),
    "a frame outside of the cell": shift,
    "a path as run": set_all(run_id="../../x"),
    "no run": set_all(run_id=""),
    "a run of another name": set_all(run_id="nobody"),
    "another config": set_all(config_hash="0" * 16),
    "a path as config": set_all(config_hash="../../x"),
    "another kind": set_all(kind="depth"),
    "another codec": set_all(codec="npy"),
    "a path as shard": set_all(shard="../../x.tar"),
    "another shape": set_all(shape=[1, 1, 1]),
    "a huge shape": set_all(shape=[2**31 - 1, 2**31 - 1, 2**31 - 1]),
    "another dtype": set_all(dtype="float64"),
    "an object dtype": set_all(dtype="O"),
    "a representation that is not there": set_all(representation="other"),
    "a time that is none": set_all(pts_seconds=float("nan")),
    "raw bytes that are negative": set_all(raw_bytes=-1),
    "a clip's frame": set_all(payload_index=2**31 - 1),
}


TAKEN_OVER = {"nothing", "a path as shard", "a time that is none", "another codec"}


@pytest.mark.parametrize("what", CHANGES)
def test_resume_takes_over_only_what_can_be_read(what: str, template: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    dataset = reopened(template, tmp_path / "evil", CHANGES[what])
    before = {path.name for path in dataset.glob("runs/*.json")}
    said = run("resume", dataset)
    assert said.startswith("0: "), said
    (sidecar,) = dataset.glob("shards/clip/*.parquet")
    runs = set(read_sidecar(sidecar)["run_id"].to_pylist())
    assert (runs <= {name.removesuffix(".json") for name in before}) == (what in TAKEN_OVER), runs
    if what == "another codec":  # only decoding tells; `validate` finds it
        assert run("validate", dataset, "--repair").startswith("0: ")
        assert run("resume", dataset).startswith("0: ")
    checked = run("validate", dataset)
    assert checked.startswith("0: "), checked
    honest, here = FrameDataset(template, ["rgb", "canny"]), FrameDataset(dataset, ["rgb", "canny"])
    assert len(honest) == len(here)
    for number in range(8):
        for name in ("rgb", "canny"):
            assert np.array_equal(honest[number][name], here[number][name]), (number, name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil", "victim"]
    assert not list((tmp_path / "victim").iterdir())
