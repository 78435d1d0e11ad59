"""Names in a dataset's folders that nothing of vrekit's has."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.trust.arena import CONFIG, run
from vrekit.config.loader import parse_config
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    np.save(folder / "clip.npy", np.random.default_rng(0).integers(0, 255, (8, 24, 32, 3), np.uint8))
    representations = parse_config(CONFIG).representations
    video, dataset = str(folder / "clip.npy"), folder / "dataset"
    export(ExportRequest(video=video, dataset=dataset, representations=representations, shard_frames=4, threads=1))
    return dataset


@pytest.fixture
def dataset(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "evil")
    return tmp_path / "evil"


@pytest.mark.parametrize("length", [221, 242, 254])
def test_sidecars_with_long_names_are_set_aside(length: int, dataset: Path) -> None:
    honest = sorted(dataset.glob("shards/clip/*.parquet"))[0]
    for suffix in (".parquet", ".tar"):
        shutil.copy(honest.with_suffix(suffix), honest.parent / ("a" * (length - len(suffix)) + suffix))
    assert run("info", dataset).startswith("0: ")
    assert "name is too long" in run("validate", dataset)
    assert run("gc", dataset, "--older-than", "0").startswith("0: ")
    run("validate", dataset, "--repair")
    assert run("validate", dataset).startswith("0: ")


def test_a_lock_that_is_a_folder(dataset: Path) -> None:
    (dataset / ".lock").unlink(missing_ok=True)
    (dataset / ".lock").mkdir()
    said = run("repair", dataset)
    assert ".lock is a folder" in said, said
    assert "remove it" in said, said
    (dataset / ".lock").rmdir()
    assert run("repair", dataset).startswith("0: ")
