"""A stranger's dataset names types: those that are code do not run when it is read."""

import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.metadata_files import edited
from vrekit.catalog.dataset import open_dataset
from vrekit.core.errors import DatasetError, UsageError
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.jobs.validate import validate
from vrekit.readers.dataset import FrameDataset
from vrekit.readers.loader import make_loader

CONFIG = """
representations:
  rgb: {type: color/rgb, codec: png}
  hsv: {type: color/hsv, deps: [rgb], store: false}
"""
MARKS = "open({mark!r}, 'w').close()\n"
TYPE = """
from vrekit.representations.base import Kind, Output, Representation

class X(Representation):
    inputs = ((Kind.COLOR,),)
    uses_frames = False
    def output_spec(self, height, width, dependencies):
        return next(iter(dependencies.values()))
    def compute(self, batch, dependencies):
        return Output(data=255 - next(iter(dependencies.values())).data)
"""


def changed(folder: Path, spec: Mapping[str, Any], name: str = "hsv") -> Path:
    """Change the spec of a representation in the manifest, as a stranger may."""
    with edited(folder / "dataset.json") as manifest:
        manifest["representations"][name]["spec"] |= spec
    return folder


@pytest.fixture
def evil(make_request: Callable[..., ExportRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset `evil` with virtual hsv and an evil.py in it, unused so far; its parent is the current folder."""
    folder = tmp_path / "evil"
    export(make_request(config=CONFIG, dataset=folder))
    (folder / "evil.py").write_text(MARKS.format(mark=str(tmp_path / "PWNED")) + TYPE)
    monkeypatch.chdir(tmp_path)
    return folder


ATTACKS: list[tuple[str, dict[str, Any]]] = [
    ("subprocess:Popen", {"args": ["touch", "PWNED"]}),
    ("os:system", {"command": "touch PWNED"}),
    ("evil.evil:X", {}),
    ("./evil/evil.py:X", {}),
    ("/proc/self/cwd/evil/evil.py:X", {}),
    ("evil.py:X", {}),
]


@pytest.mark.parametrize(("type_name", "params"), ATTACKS, ids=lambda value: value if isinstance(value, str) else "")
def test_code_of_a_dataset_does_not_run(
    evil: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type_name: str, params: dict[str, Any]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    changed(evil, {"type": type_name, "params": params})
    with edited(next((evil / "runs").glob("*.json"))) as run:
        run["request"] = {"config_folder": str(evil)}
    for read in (
        lambda: FrameDataset(evil),
        lambda: FrameDataset(evil, ["hsv"]),
        lambda: make_loader(evil, batch_size=2),
    ):
        with pytest.raises(DatasetError, match=f"'hsv' has the type '{type_name}'.*code recorded in") as raised:
            read()
        assert raised.match(r"(?m)it was not run$")
        assert "representations=['rgb']" in str(raised.value.hint)
    assert FrameDataset(evil, ["rgb"])[0]["rgb"].shape == (32, 48, 3)
    assert not (tmp_path / "PWNED").exists()


def test_trusted_code_must_be_a_representation_before_anything_of_it_is_called(evil: Path, tmp_path: Path) -> None:
    for type_name, params in ATTACKS[:2]:
        changed(evil, {"type": type_name, "params": params})
        with pytest.raises(UsageError, match=f"'{type_name}' is no subclass of vrekit.representations.base"):
            FrameDataset(evil, trust_code=True)
    changed(evil, {"type": "vrekit.representations.base:Representation", "params": {}})
    with pytest.raises(UsageError, match="lacks compute, output_spec"):
        FrameDataset(evil, trust_code=True)
    assert not (tmp_path / "PWNED").exists()


def test_trust_code_reads_it_in_workers_too(evil: Path, clip_array: NDArray[np.uint8]) -> None:
    changed(evil, {"type": "./evil/evil.py:X", "params": {}})
    dataset = FrameDataset(evil, ["hsv"], trust_code=True)
    again: FrameDataset = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again[4]["hsv"], 255 - clip_array[4])
    loader = make_loader(evil, batch_size=30, representations=["hsv"], shuffle=False, num_workers=1, trust_code=True)
    np.testing.assert_array_equal(next(iter(loader))["hsv"], 255 - clip_array)
    with pytest.raises(UsageError, match="trust_code belong to the FrameDataset"):
        make_loader(dataset, batch_size=2, trust_code=True)


def test_unpickling_checks_again(
    make_request: Callable[..., ExportRequest], tmp_path: Path, clip_array: NDArray[np.uint8]
) -> None:
    (tmp_path / "mine.py").write_text(TYPE)
    config = CONFIG.replace("color/hsv", "mine.py:X")
    request = make_request(config=config, config_folder=tmp_path)
    export(request)
    stored = pickle.dumps(FrameDataset(request.dataset))
    again: FrameDataset = pickle.loads(stored)
    np.testing.assert_array_equal(again[4]["hsv"], 255 - clip_array[4])
    (tmp_path / "mine.py").write_text(TYPE + "\n")
    with pytest.raises(DatasetError, match=r"'hsv' has the type 'mine.py:X'"):
        pickle.loads(stored)


def test_an_installed_type_reads_no_files_that_a_dataset_names(evil: Path, tmp_path: Path) -> None:
    for frame in range(30):
        np.save(tmp_path / f"{frame}.npy", np.zeros((2, 2), np.float32))
    params = {"path": str(tmp_path / "{frame}.npy"), "kind": "depth"}
    changed(evil, {"type": "external/files", "params": params, "dependencies": []})
    with pytest.raises(
        DatasetError, match=r"'hsv' \(external/files\) is virtual and would read .*npy, which is no part"
    ):
        FrameDataset(evil)
    assert FrameDataset(evil, trust_code=True)[0]["hsv"].shape == (2, 2)


@pytest.mark.parametrize(
    "codec", [{"id": "subprocess:Popen", "args": ["touch", "PWNED"]}, {"stages": [{"id": "os:system"}]}]
)
def test_codecs_are_those_of_packages(evil: Path, tmp_path: Path, codec: object) -> None:
    with edited(evil / "dataset.json") as manifest:
        manifest["representations"]["rgb"]["codec"] = codec
    with pytest.raises(DatasetError, match="the codec of 'rgb' cannot be set up"):
        FrameDataset(evil, ["rgb"], trust_code=True)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("spec", [{"type": 5}, {"type": [":"]}, {"type": None}, {"params": ["touch"]}])
def test_a_type_that_is_no_text_is_damage(evil: Path, spec: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=r"dataset.json: representations.hsv.spec is damaged: '(type|params)' is"):
        FrameDataset(changed(evil, spec))


def test_everything_else_works_and_runs_nothing(evil: Path, tmp_path: Path) -> None:
    from vrekit.jobs.gc import collect_garbage
    from vrekit.jobs.merge.run import merge
    from vrekit.jobs.transcode.run import transcode

    changed(evil, {"type": "./evil/evil.py:X"})
    with open_dataset(evil) as dataset:
        assert dataset.sql("SELECT count(*) AS n FROM samples WHERE frame_index < 3")["n"].to_pylist() == [3]
    report = validate(evil)
    assert report.problems == []
    (warning,) = report.warnings
    assert (warning.code, warning.representation) == ("code", "hsv")
    assert "'./evil/evil.py:X'" in warning.message
    merge([evil], tmp_path / "merged")
    transcode(evil, tmp_path / "transcoded", profile="training")
    collect_garbage(evil)
    assert not (tmp_path / "PWNED").exists()
    for made in ("merged", "transcoded"):
        shutil.rmtree(tmp_path / made / "runs")
        with pytest.raises(DatasetError, match="code recorded in the dataset"):
            FrameDataset(tmp_path / made)
