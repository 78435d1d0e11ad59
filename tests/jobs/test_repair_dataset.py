"""`vrekit repair`: a lost or damaged manifest, damaged run records, and what `validate --repair` does."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.jobs.merge_datasets import file_hashes, make_dataset, rows_of
from vrekit.catalog.manifest import COPY_NAME, MANIFEST_NAME, read_manifest
from vrekit.catalog.runs import run_files
from vrekit.cli.app import app
from vrekit.core.errors import DatasetError
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.merge.run import merge
from vrekit.jobs.repair_dataset import repair_dataset

MakeRequest = Callable[..., ExportRequest]


def lose(path: Path, how: str) -> None:
    if how == "lost":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_text('{"format_version": 1}')


@pytest.mark.parametrize("how", ["lost", "empty", "half", "other"])
def test_the_manifest_is_restored(make_request: MakeRequest, how: str) -> None:
    folder = make_request().dataset
    export(make_request(frames=make_request().frames))
    rows, manifest = rows_of(folder), (folder / MANIFEST_NAME).read_bytes()
    assert (folder / COPY_NAME).read_bytes() == manifest
    lose(folder / MANIFEST_NAME, how)
    for command in (lambda: read_manifest(folder), lambda: resume(folder), lambda: export(make_request())):
        with pytest.raises(DatasetError) as caught:
            command()
        assert str(caught.value.hint).startswith("`vrekit repair DATASET` restores it")
    damaged = file_hashes(folder)
    dry = repair_dataset(folder, dry_run=True)
    assert (dry.restored, dry.validation, file_hashes(folder)) == ([MANIFEST_NAME], None, damaged)
    done = repair_dataset(folder)
    assert done.restored == [MANIFEST_NAME]
    assert done.validation is not None
    assert not done.validation.problems
    assert (folder / MANIFEST_NAME).read_bytes() == (folder / COPY_NAME).read_bytes() == manifest
    assert len(list(folder.glob("quarantine/*/dataset.json"))) == (how != "lost")
    assert rows_of(folder) == rows
    assert [report.run_id for report in resume(folder)] == [None]


def test_a_merged_manifest_is_restored(tmp_path: Path) -> None:
    make_dataset(tmp_path / "a", {"car": range(8)})
    make_dataset(tmp_path / "b", {"bus": range(8)})
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    before = read_manifest(tmp_path / "all")
    (tmp_path / "all" / MANIFEST_NAME).unlink()
    repair_dataset(tmp_path / "all")
    assert read_manifest(tmp_path / "all") == before


@pytest.mark.parametrize("how", ["lost", "empty", "old"])
def test_the_copy_is_written_again(make_request: MakeRequest, how: str) -> None:
    request = make_request()
    export(request)
    copy = request.dataset / COPY_NAME
    manifest = copy.read_bytes()
    if how == "old":
        copy.write_bytes(manifest.replace(b'"shard_frames": 8', b'"shard_frames": 9'))
    else:
        lose(copy, how)
    if how == "lost":
        export(request)  # a dataset of an older version has none
    else:
        assert repair_dataset(request.dataset).restored == [COPY_NAME]
    assert copy.read_bytes() == manifest


def test_neither_can_be_read(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(8)})
    lose(folder / MANIFEST_NAME, "half")
    lose(folder / COPY_NAME, "lost")
    before = file_hashes(folder)
    with pytest.raises(DatasetError, match=r"cannot be rebuilt from the runs:\n  no run's record says") as caught:
        repair_dataset(folder)
    assert caught.value.hint == "restore dataset.json or dataset.json.bak from a backup of yours"
    for path in run_files(folder):
        path.unlink()
    with pytest.raises(DatasetError, match=r"dataset\.json is damaged") as caught:
        repair_dataset(folder)
    assert (
        caught.value.hint == "there is no dataset.json.bak and no run to restore it from: "
        "restore one of both from a backup of yours"
    )
    assert {name for name in before if "runs/" not in name} == set(file_hashes(folder)) - {".lock"}


def test_damaged_run_records_are_set_aside(make_request: MakeRequest) -> None:
    request = make_request()
    export(request)
    (path,) = run_files(request.dataset)
    path.write_bytes(b"")
    with pytest.raises(DatasetError, match="is damaged") as caught:
        resume(request.dataset)
    assert str(caught.value.hint).startswith("`vrekit repair DATASET` sets it aside")
    name = path.relative_to(request.dataset).as_posix()
    assert repair_dataset(request.dataset, dry_run=True).set_aside == [name]
    assert path.exists()
    assert repair_dataset(request.dataset).set_aside == [name]
    assert list(request.dataset.glob(f"quarantine/*/{name}"))
    assert export(request).run_id is None


def test_the_command(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(8)})
    runner = CliRunner()
    lose(folder / MANIFEST_NAME, "half")
    dry = runner.invoke(app, ["repair", str(folder), "--dry-run"])
    assert dry.exit_code == 1
    assert "would restore dataset.json\n" in dry.stderr
    again = runner.invoke(app, ["validate", str(folder), "--repair", "--json"])
    assert again.exit_code == 0
    assert json.loads(again.stdout)["restored"] == ["dataset.json", "README.md"]
    (tar,) = folder.glob("shards/*/*.tar")
    shutil.copyfile("/dev/null", tar)
    dry = runner.invoke(app, ["repair", str(folder), "--dry-run"])
    assert dry.exit_code == 1
    assert f"`vrekit repair {folder}` moves what is damaged to quarantine/" in dry.stderr
    done = runner.invoke(app, ["repair", str(folder)])
    assert done.exit_code == 0
    assert "1 shard repaired; what was damaged is in " in done.stderr
    clean = runner.invoke(app, ["repair", str(folder)])
    assert clean.exit_code == 0
    assert "no frame is stored" in clean.stdout
    assert clean.stderr.endswith(": 1 warning\n")
