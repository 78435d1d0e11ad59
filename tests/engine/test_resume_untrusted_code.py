"""A stranger's dataset names types in the records of its runs: those that are code do not run on resume."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.metadata_files import edited
from vrekit.cli.app import app
from vrekit.core.errors import ConfigError, DatasetError
from vrekit.engine.export import export, recorded_requests, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.merge.run import merge
from vrekit.jobs.transcode.run import transcode
from vrekit.readers.dataset import FrameDataset

CONFIG = "representations:\n  rgb: {type: color/rgb, codec: png}\n  mine: {type: 'mine.py:Mine', deps: [rgb]}\n"
TYPE = """
from pathlib import Path
from vrekit.representations.base import Kind, Output, Representation

with Path(__file__).with_suffix(".log").open("a") as log:
    log.write("imported\\n")

class Mine(Representation):
    inputs = ((Kind.COLOR,),)
    uses_frames = False
    def output_spec(self, height, width, dependencies):
        return next(iter(dependencies.values()))
    def compute(self, batch, dependencies):
        return Output(data=255 - next(iter(dependencies.values())).data)
"""


@pytest.fixture
def exported(make_request: Callable[..., ExportRequest], tmp_path: Path) -> Path:
    """A dataset exported with mine.py, which was moved: another path than that of the export."""
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "mine.py").write_text(TYPE)
    export(make_request(config=CONFIG, config_folder=folder, dataset=tmp_path / "out"))
    (folder / "mine.log").unlink()
    (folder / "mine.py").write_text(TYPE + "\n")  # another module: the former one is imported already
    return tmp_path / "out"


def test_resume_imports_no_file_that_a_run_names(exported: Path) -> None:
    log = exported.parent / "configs" / "mine.log"
    for call in (resume, recorded_requests):
        with pytest.raises(DatasetError, match=r"'mine' has the type 'mine.py:Mine': this is code recorded in"):
            call(exported)
    ran = CliRunner().invoke(app, ["resume", str(exported), "--no-progress"])
    assert ran.exit_code == 1
    assert "'mine' has the type 'mine.py:Mine'" in ran.stderr.replace("\n", " ")
    assert "--trust-code" in ran.stderr
    assert not log.exists()


def test_resume_with_trust_code_runs_it_and_is_no_proof(exported: Path) -> None:
    run = next((exported / "runs").glob("*.json"))
    manifest = exported / "dataset.json"
    record = json.loads(manifest.read_text())
    (exported.parent / "configs" / "mine.py").write_text(TYPE + "# changed\n")
    with pytest.raises(DatasetError, match=r"source_sha256"):  # it ran, and is other code than that of the dataset
        resume(exported, trust_code=True)
    assert (exported.parent / "configs" / "mine.log").read_text() == "imported\n"
    assert json.loads(manifest.read_text()) == record
    with pytest.raises(DatasetError, match="this is code recorded in the dataset"):
        resume(exported)
    with edited(run) as changed:
        changed["request"]["representations"][1]["type"] = "os:system"
    with pytest.raises(ConfigError, match=r"type 'os:system' is no subclass of vrekit"):
        resume(exported, trust_code=True)


def test_this_account_goes_on_with_what_it_exported(
    make_request: Callable[..., ExportRequest], tmp_path: Path, exported: Path
) -> None:
    (tmp_path / "configs" / "mine.py").write_text(TYPE)
    (report,) = resume(exported)
    assert report.already == {"rgb": 30, "mine": 30}
    exported.rename(tmp_path / "moved")
    with pytest.raises(DatasetError, match="this is code recorded in the dataset"):
        resume(tmp_path / "moved")
    assert len(resume(tmp_path / "moved", trust_code=True)) == 1
    # naming the code again is the proof for where the dataset lies now; nothing is computed anew
    again = make_request(config=CONFIG, config_folder=tmp_path / "configs", dataset=tmp_path / "moved")
    assert export(again).run_id is None
    assert len(resume(tmp_path / "moved")) == 1


def test_exporting_into_a_strangers_dataset_proves_nothing_of_its_own_code(
    make_request: Callable[..., ExportRequest], exported: Path, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "mine.py").write_text(TYPE + "# evil\n")
    with edited(exported / "dataset.json") as manifest:
        record = manifest["representations"]["mine"] | {"codec": None, "suffix": None, "group": None}
        manifest["representations"]["evil"] = json.loads(json.dumps(record).replace('"mine"', '"evil"'))
    run = next((exported / "runs").glob("*.json"))
    later = Path(shutil.copy(run, exported / "runs" / "99990101T000000000-000000.json"))
    with edited(later) as changed:
        changed["run_id"] = later.stem
        changed["request"]["config_folder"] = str(stranger)
    (tmp_path / "configs" / "mine.py").write_text(TYPE)
    export(make_request(config=CONFIG, config_folder=tmp_path / "configs"))
    with pytest.raises(DatasetError, match=r"'evil' has the type 'mine.py:Mine'"):
        FrameDataset(exported)
    assert not (stranger / "mine.log").exists()


@pytest.mark.parametrize("changes", [{"type": 5}, {"type": [":"]}, {"params": ["touch"]}, {"name": "../x"}])
def test_a_damaged_request_is_named(exported: Path, changes: dict[str, object]) -> None:
    run = next((exported / "runs").glob("*.json"))
    with edited(run) as record:
        record["request"]["representations"][1] |= changes
    with pytest.raises(DatasetError, match=rf"{run.stem}.json: request.representations\[1\] is damaged"):
        resume(exported, trust_code=True)


def test_a_run_cannot_pass_for_a_config(exported: Path) -> None:
    data = json.loads(next((exported / "runs").glob("*.json")).read_text())["request"]
    request = ExportRequest.from_json(data | {"recorded": False, "position": "os:system"}, exported)
    assert request.recorded
    assert request.position is None
    assert not {"recorded", "position", "dataset"} & set(request.to_json())


VIRTUAL = CONFIG.replace("deps: [rgb]", "deps: [rgb], store: false")


def test_a_copy_inherits_what_its_source_has_proof_of(
    make_request: Callable[..., ExportRequest], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(TYPE)
    source = tmp_path / "source"
    export(make_request(config=VIRTUAL, config_folder=tmp_path, dataset=source))
    merge([source], tmp_path / "merged")
    transcode(source, tmp_path / "npy", codecs={"rgb": "npy"})
    for folder in ("merged", "npy"):
        assert len(FrameDataset(tmp_path / folder)) == 30
        assert len(resume(tmp_path / folder)) == 1
    shutil.copytree(source, tmp_path / "copied")
    merge([tmp_path / "copied"], tmp_path / "again")  # a source without proof gives none
    for folder in ("copied", "again"):
        with pytest.raises(DatasetError, match="this is code recorded") as caught:
            FrameDataset(tmp_path / folder)
        assert "at this place (was the dataset moved or copied" in (caught.value.hint or "")


def test_a_copy_inherits_nothing_for_other_code_of_that_name(
    make_request: Callable[..., ExportRequest], tmp_path: Path
) -> None:
    for name in ("own", "stranger"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(TYPE)
    (tmp_path / "own" / "more.npy").write_bytes(Path(make_request().video).read_bytes())
    first, second = tmp_path / "a", tmp_path / "b"
    export(make_request(config=VIRTUAL, config_folder=tmp_path / "own", dataset=first))
    video = str(tmp_path / "own" / "more.npy")
    export(make_request(config=VIRTUAL, config_folder=tmp_path / "own", dataset=second, video=video, video_id="second"))
    for run in (second / "runs").glob("*.json"):  # the newest run decides where `mine.py` is looked for
        with edited(run) as record:
            record["request"]["config_folder"] = str(tmp_path / "stranger")
    (tmp_path / "stranger" / "mine.py").write_text(TYPE + "# evil\n")
    merge([first, second], tmp_path / "merged")
    with pytest.raises(DatasetError, match="this is code recorded"):
        FrameDataset(tmp_path / "merged")
    assert len(FrameDataset(first)) == 30
