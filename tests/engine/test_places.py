"""A dataset's folders may hold links, pipes and devices: nothing reaches a place outside, and nothing waits."""

import io
import os
import re
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from tests.metadata_files import edited
from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.subset import Subset
from vrekit.catalog.summary import summarize
from vrekit.cli.app import app
from vrekit.config.loader import parse_config
from vrekit.core.errors import DatasetError, VrekitError
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.gc import collect_garbage
from vrekit.jobs.materialize import materialize
from vrekit.jobs.merge.manifests import Layout
from vrekit.jobs.merge.run import merge
from vrekit.jobs.repair import repair
from vrekit.jobs.stats import compute_statistics
from vrekit.jobs.transcode.run import transcode
from vrekit.jobs.validate import validate
from vrekit.readers.dataset import FrameDataset
from vrekit.video.selection import parse_frames

CONFIG = "representations: {rgb: {type: color/rgb, codec: png}, canny: {type: edges/canny, codec: npy.zst}}"
SECONDS = 300  # a test that waits longer waits for ever


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of 12x16."""
    path = tmp_path_factory.mktemp("clip") / "clip.npy"
    np.save(path, np.random.default_rng(0).integers(0, 255, (6, 12, 16, 3), np.uint8))
    return path


def request(clip: Path, dataset: Path, frames: str = "0..4", writer: str | None = None) -> ExportRequest:
    """Return the export of some frames."""
    config = parse_config(CONFIG)
    return ExportRequest(
        video=str(clip),
        dataset=dataset,
        representations=config.representations,
        frames=parse_frames(frames),
        fps=10.0,
        shard_frames=2,
        writer=writer,
    )


@pytest.fixture(scope="module")
def made(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A dataset of each writer, with statistics."""
    folders = {}
    for writer in ("webdataset", "lance"):
        folders[writer] = tmp_path_factory.mktemp("made") / writer
        export(request(clip, folders[writer], writer=writer))
        compute_statistics(open_dataset(folders[writer]))
    return folders


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with what garbage collection or a writer would delete, replace or add to."""
    folder = tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    for name in (
        "all-00000000-00000001.tar",
        ".all-00000000.tar.partial",
        ".all-00000000.journal",
        ".x.1.tmp",
        "x.json",
    ):
        for place in (folder, folder / "sub"):
            (place / name).write_bytes(b"mine")
            os.utime(place / name, (1, 1))
    return folder


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """Fail a test that waits for ever."""

    def stop(*_: object) -> None:
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def state(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def to_link(path: Path, outside: Path) -> None:
    """Replace a file or folder by a link to a copy of it outside."""
    target = outside / "moved" / path.name
    target.parent.mkdir(exist_ok=True)
    shutil.move(path, target)
    path.symlink_to(target)


def to_nothing(path: Path, outside: Path) -> None:
    """Replace a file by a link to a file that could be made outside."""
    path.unlink()
    path.symlink_to(outside / "made")


def to_pipe(path: Path) -> None:
    """Replace a file by a pipe."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def commands(clip: Path, dataset: Path, out: Path) -> dict[str, Callable[[], object]]:
    """Return what can be done with a dataset, in an order in which one leaves the next something to do."""
    return {
        "read": lambda: FrameDataset(dataset, ["rgb"])[0],
        "info": lambda: summarize(dataset),
        "validate": lambda: validate(dataset, decode=False),
        "merge": lambda: merge([dataset], out / "merged"),
        "convert": lambda: merge([dataset], out / "converted", layout=Layout(writer="lance")),
        "transcode": lambda: transcode(dataset, out / "transcoded", profile="training"),
        "materialize": lambda: materialize(Subset({("clip", 1): None}), open_dataset(dataset), out / "subset"),
        "query": lambda: open_dataset(dataset).sql("SELECT count(*) AS n FROM samples"),
        "stats": lambda: compute_statistics(open_dataset(dataset)),
        "gc": lambda: collect_garbage(dataset, older_than=timedelta(0)),
        "repair": lambda: repair(dataset, validate(dataset, decode=False).problems),
        "export": lambda: export(request(clip, dataset, "0..6")),
        "resume": lambda: resume(dataset),
    }


TAR_ATTACKS: dict[str, Callable[[Path, Path], object]] = {
    "shards is a link": lambda folder, outside: to_link(folder / "shards", outside),
    "a video's folder is a link": lambda folder, outside: to_link(folder / "shards" / "clip", outside),
    "another folder of shards is a link": lambda folder, outside: (folder / "shards" / "evil").symlink_to(outside),
    "a tar is a link": lambda folder, outside: to_link(next(folder.glob("shards/*/*.tar")), outside),
    "a tar is a pipe": lambda folder, outside: to_pipe(next(folder.glob("shards/*/*.tar"))),
    "a sidecar is a link": lambda folder, outside: to_link(next(folder.glob("shards/*/*.parquet")), outside),
    "a sidecar is a pipe": lambda folder, outside: to_pipe(next(folder.glob("shards/*/*.parquet"))),
    "runs is a link": lambda folder, outside: to_link(folder / "runs", outside),
    "stats is a link": lambda folder, outside: to_link(folder / "stats", outside),
    "index is a link": lambda folder, outside: to_link(folder / "index", outside),
    "items is a link": lambda folder, outside: (folder / "items").symlink_to(outside),
    "quarantine is a link": lambda folder, outside: (folder / "quarantine").symlink_to(outside),
    "the lock is a link": lambda folder, outside: to_link(folder / ".lock", outside),
    "the lock leads to nothing": lambda folder, outside: to_nothing(folder / ".lock", outside),
    "the lock is a pipe": lambda folder, outside: to_pipe(folder / ".lock"),
    "a cell's lock is a link": lambda folder, outside: (folder / "shards/clip/.all-00000004.lock").symlink_to(
        outside / "made"
    ),
    "a journal is a link": lambda folder, outside: (folder / "shards/clip/.all-00000004.journal").symlink_to(
        outside / "x.json"
    ),
    "a shard to be is a link": lambda folder, outside: (folder / "shards/clip/.all-00000004.tar.partial").symlink_to(
        outside / "x.json"
    ),
    "dataset.json is a pipe": lambda folder, outside: to_pipe(folder / "dataset.json"),
    "origin.json is a pipe": lambda folder, outside: to_pipe(folder / "origin.json"),
    "a run is a pipe": lambda folder, outside: to_pipe(next(folder.glob("runs/*.json"))),
    "the card is a link": lambda folder, outside: to_link(folder / "README.md", outside),
}
LANCE_ATTACKS: dict[str, Callable[[Path, Path], object]] = {
    "lance is a link": lambda folder, outside: to_link(folder / "lance", outside),
    "a table is a link": lambda folder, outside: to_link(folder / "lance" / "all.lance", outside),
    "the data is a link": lambda folder, outside: to_link(folder / "lance" / "all.lance" / "data", outside),
    "a data file is a link": lambda folder, outside: to_link(next(folder.glob("lance/*/data/*.lance")), outside),
    "a version is a link": lambda folder, outside: to_link(next(folder.glob("lance/*/_versions/*.manifest")), outside),
    "open cells are a link": lambda folder, outside: to_link(folder / "lance" / ".open", outside),
    "the table's lock is a link": lambda folder, outside: to_link(folder / "lance" / ".all.lock", outside),
    "the table's lock is a pipe": lambda folder, outside: to_pipe(folder / "lance" / ".all.lock"),
    "the list of untidy runs is a link": lambda folder, outside: (folder / "lance" / ".all.untidy").symlink_to(
        outside / "x.json"
    ),
}


@pytest.mark.parametrize(
    ("writer", "name"), [*(("webdataset", name) for name in TAR_ATTACKS), *(("lance", name) for name in LANCE_ATTACKS)]
)
def test_nothing_outside_changes_and_nothing_waits(
    made: dict[str, Path], clip: Path, outside: Path, tmp_path: Path, writer: str, name: str
) -> None:
    dataset = shutil.copytree(made[writer], tmp_path / "in" / "set")
    (TAR_ATTACKS if writer == "webdataset" else LANCE_ATTACKS)[name](dataset, outside)
    before = state(outside)
    refused = {}
    for what, run in commands(clip, dataset, tmp_path / "in").items():
        try:
            run()
        except VrekitError as error:
            refused[what] = str(error)
    assert state(outside) == before
    expected = "is a link|is no folder|is no regular file|has 0 bytes, but its metadata says"
    for message in refused.values():
        assert re.search(expected, message)


def test_a_person_may_keep_shards_elsewhere(
    made: dict[str, Path], outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = shutil.copytree(made["webdataset"], tmp_path / "set")
    to_link(next(dataset.glob("shards/*/*.tar")), outside)
    to_link(dataset / "shards" / "clip", outside)
    with pytest.raises(DatasetError, match="clip is a link") as caught:
        FrameDataset(dataset, ["rgb"])
    assert "VREKIT_FOLLOW_LINKS=1" in (caught.value.hint or "")
    monkeypatch.setenv("VREKIT_FOLLOW_LINKS", "1")
    assert FrameDataset(dataset, ["rgb"])[0]["rgb"].shape == (12, 16, 3)
    assert validate(dataset).problems == []
    merge([dataset], tmp_path / "merged")
    assert validate(tmp_path / "merged").problems == []


def test_validate_lists_links_and_pipes(made: dict[str, Path], outside: Path, tmp_path: Path) -> None:
    dataset = shutil.copytree(made["webdataset"], tmp_path / "set")
    to_pipe(dataset / "shards" / "clip" / "x")
    (dataset / "runs" / "evil").symlink_to(outside)
    problems = [(problem.code, problem.path, problem.message) for problem in validate(dataset).problems]
    assert problems == [
        ("link", "runs/evil", "it is a link"),
        ("link", "shards/clip/x", "it is no regular file"),
        ("link", ".", "payloads are not checked while such files are there"),
    ]


def test_an_unfinished_merge_is_not_continued_through_links(
    made: dict[str, Path], outside: Path, tmp_path: Path
) -> None:
    merge([made["webdataset"]], tmp_path / "out")
    (tmp_path / "out" / "dataset.json").unlink()
    to_link(tmp_path / "out" / "shards" / "clip", outside)
    before = state(outside)
    with pytest.raises(DatasetError, match="shards/clip is a link"):
        merge([made["webdataset"]], tmp_path / "out")
    assert state(outside) == before


def test_a_lance_table_may_not_have_files_elsewhere(made: dict[str, Path], outside: Path, tmp_path: Path) -> None:
    dataset = shutil.copytree(made["lance"], tmp_path / "set")
    table = dataset / "lance" / "all.lance"
    shutil.move(table, outside / "all.lance")
    there = lance.dataset(outside / "all.lance")
    there.shallow_clone(str(table), there.version)
    for read in (
        lambda: FrameDataset(dataset, ["rgb"]),
        lambda: merge([dataset], tmp_path / "merged"),
        lambda: summarize(dataset),
    ):
        with pytest.raises(DatasetError, match=r"all.lance has files outside of the dataset, in .*outside/all.lance"):
            read()
    assert [problem.code for problem in validate(dataset).problems] == ["table"]


def test_a_payload_in_a_lance_table_may_not_be_a_uri(made: dict[str, Path], outside: Path, tmp_path: Path) -> None:
    dataset = shutil.copytree(made["lance"], tmp_path / "set")
    table = lance.dataset(dataset / "lance" / "all.lance")
    rows = table.to_table(columns=[name for name in table.schema.names if name not in ("rgb", "canny")])
    secret = outside / "x.json"
    columns = {name: rows[name].combine_chunks() for name in rows.column_names}
    for name in ("rgb", "canny"):
        columns[name] = lance.blob_array([secret.as_uri()] * len(rows))
    batch = pa.RecordBatch.from_arrays([columns[name] for name in table.schema.names], schema=table.schema)
    shutil.rmtree(dataset / "lance" / "all.lance")
    lance.write_dataset(
        pa.Table.from_batches([batch]),
        dataset / "lance" / "all.lance",
        data_storage_version="2.2",
        enable_stable_row_ids=True,
        allow_external_blob_outside_bases=True,
    )
    found = lance.dataset(dataset / "lance" / "all.lance").read_blobs("rgb", ids=[0, 1])
    assert [data for _, data in found] == [b"mine", b"mine"]  # what Lance does
    for read in (
        lambda: FrameDataset(dataset, ["rgb"])[0],
        lambda: merge([dataset], tmp_path / "merged"),
        lambda: merge([dataset], tmp_path / "converted", layout=Layout(writer="webdataset")),
        lambda: transcode(dataset, tmp_path / "transcoded", profile="training"),
    ):
        with pytest.raises(DatasetError, match="payloads of 'rgb' lie outside of the dataset"):
            read()
    assert [problem.code for problem in validate(dataset).problems] == ["table"]


def test_repair_keeps_members_of_any_name_inside_the_quarantine(made: dict[str, Path], tmp_path: Path) -> None:
    dataset = shutil.copytree(made["webdataset"], tmp_path / "in" / "set")
    tar = next(dataset.glob("shards/*/*.tar"))
    with tarfile.open(tar, "a") as archive:
        for name in ("../../../ESC", "/tmp/ESC2", "..", ".hidden", "a/b c\\d", "plain"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"evil"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"special{kind.decode()}")
            info.type = kind
            info.linkname = "/etc/passwd"
            archive.addfile(info)
    found = validate(dataset).problems
    assert {problem.code for problem in found} == {"orphan", "replaced-shard"}
    report = repair(dataset, found)
    assert report.quarantine is not None
    kept = sorted(path.name for path in (dataset / report.quarantine / "clip").iterdir())
    assert kept == ["ESC", "ESC2", "b_c_d", "hidden", "member", "plain"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["set"]
    assert validate(dataset).problems == []


def test_a_damaged_run_is_left_out_and_reported(
    made: dict[str, Path], clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = shutil.copytree(made["webdataset"], tmp_path / "set")
    export(request(clip, dataset, "0..6"))
    first, second = sorted((dataset / "runs").glob("*.json"))
    shutil.copy(first, dataset / "runs" / "99990101T000000000-000000.json")
    with edited(first) as run:
        run["run_id"] = "../../../settings"
    (dataset / "runs" / "empty.json").write_bytes(b"")
    (dataset / "runs" / "list.json").write_bytes(b"[1]")
    summary = summarize(dataset)
    assert [run.run_id for run in summary.runs] == [second.stem]
    assert len(summary.damaged_runs) == 4
    result = CliRunner().invoke(app, ["info", str(dataset)])
    assert result.exit_code == 0
    assert result.stderr.count("warning: ") == 4
    assert "run id '../../../settings' is not allowed" in result.stderr
    assert "it is the record of run" in result.stderr
    with open_dataset(dataset) as opened:
        assert opened.sql("SELECT run_id FROM runs")["run_id"].to_pylist() == [second.stem]
    assert "empty.json is damaged" in caplog.text
    (report,) = resume(dataset)
    assert report.already == {"rgb": 6, "canny": 6}
    problems = validate(dataset).problems
    assert [problem.code for problem in problems] == ["run"] * 4
    with pytest.raises(DatasetError, match=r"runs/.*json is damaged") as caught:
        merge([dataset], tmp_path / "merged")
    assert "vrekit repair" in (caught.value.hint or "")


def test_virtual_representations_that_cannot_be_computed(made: dict[str, Path], tmp_path: Path) -> None:
    dataset = shutil.copytree(made["webdataset"], tmp_path / "set")
    with edited(dataset / "dataset.json") as manifest:
        rgb = manifest["representations"]["rgb"]
        for name, dependency in {"a": "b", "b": "a", "c": "gone", "deep0": "rgb"}.items():
            spec = {**rgb["spec"], "name": name, "dependencies": [dependency], "store": False}
            manifest["representations"][name] = {**rgb, "spec": spec, "codec": None, "suffix": None, "group": None}
        for number in range(1, 2000):
            above = manifest["representations"]["deep0"]
            spec = {**above["spec"], "name": f"deep{number}", "dependencies": [f"deep{number - 1}"]}
            manifest["representations"][f"deep{number}"] = {**above, "spec": spec}
    assert len(summarize(dataset).representations) == 2 + 2003
    assert open_dataset(dataset).sql("SELECT count(*) AS n FROM representations")["n"].to_pylist() == [2005]
    problems = {problem.representation: problem.message for problem in validate(dataset, decode=False).problems}
    assert sorted(problems, key=str) == ["a", "b", "c"]
    for names, message in [
        (["a"], "a circle of dependencies"),
        (["c"], "gone: not in the dataset"),
        (["deep1999"], "uses the video's frames|needs the video|cannot be computed"),
    ]:
        with pytest.raises(VrekitError, match=message):
            FrameDataset(dataset, names)


@pytest.mark.parametrize("name", [".all-abc.tar.partial", ".-5.tar.partial", ".tar.partial", "..-00000000.tar.partial"])
def test_files_that_are_no_cells_are_left_alone(made: dict[str, Path], clip: Path, tmp_path: Path, name: str) -> None:
    dataset = shutil.copytree(made["webdataset"], tmp_path / "set")
    (dataset / "shards" / "clip" / name).write_bytes(b"mine")
    assert export(request(clip, dataset, "0..6")).computed_frames == 4
    assert (dataset / "shards" / "clip" / name).read_bytes() == b"mine"
