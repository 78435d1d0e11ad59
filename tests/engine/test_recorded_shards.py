"""A run records the shards that it committed, so that one which is gone or was replaced is noticed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.jobs.merge_datasets import make_dataset, members_of
from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.parquet_files import checksum_of
from vrekit.catalog.runs import read_runs
from vrekit.catalog.subset import Subset
from vrekit.catalog.summary import summarize
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.gc import collect_garbage
from vrekit.jobs.materialize import materialize
from vrekit.jobs.merge.manifests import Layout
from vrekit.jobs.merge.run import merge
from vrekit.jobs.repair import repair
from vrekit.jobs.transcode.run import transcode
from vrekit.jobs.validate import validate
from vrekit.writers.webdataset.sidecars import find_sidecars, read_sidecar, sidecar_bytes

MakeRequest = Callable[..., ExportRequest]


def problems(folder: Path) -> list[tuple[str, str]]:
    return [(problem.code, problem.path) for problem in validate(folder).problems]


def test_the_record_says_what_was_committed(make_request: MakeRequest) -> None:
    request = make_request()
    export(request)
    (run,) = read_runs(request.dataset)
    sidecars = find_sidecars(request.dataset)
    assert len(sidecars) > 1
    for sidecar in sidecars:
        facts = run.shards[sidecar.with_suffix(".tar").relative_to(request.dataset).as_posix()]
        assert facts.bytes == sidecar.with_suffix(".tar").stat().st_size
        assert facts.rows == pq.ParquetFile(sidecar).metadata.num_rows
        assert facts.checksum == checksum_of(sidecar)
    assert len(run.shards) == len(sidecars)
    assert problems(request.dataset) == []


def test_a_shard_that_is_gone_is_noticed_and_computed_again(make_request: MakeRequest) -> None:
    request = make_request()
    export(request)
    folder = request.dataset
    whole = members_of(folder)
    sidecar = find_sidecars(folder)[1]
    tar = sidecar.with_suffix(".tar")
    tar.unlink()
    sidecar.unlink()
    name = tar.relative_to(folder).as_posix()
    assert problems(folder) == [("lost-shard", name)]
    report = repair(folder, validate(folder).problems)
    assert (report.left, report.shards) == ([], [name])
    assert problems(folder) == []
    resume(folder)
    assert members_of(folder) == whole
    assert problems(folder) == []
    assert name in read_runs(folder)[-1].shards


def test_another_sidecar_is_noticed(make_request: MakeRequest) -> None:
    request = make_request()
    export(request)
    folder = request.dataset
    sidecar = find_sidecars(folder)[0]
    table = read_sidecar(sidecar)
    names = table["run_id"].to_pylist()
    other = table.set_column(
        table.column_names.index("run_id"), table.schema.field("run_id"), [[name[:-1] + "x" for name in names]]
    )
    sidecar.write_bytes(sidecar_bytes(other))
    name = sidecar.with_suffix(".tar").relative_to(folder).as_posix()
    assert problems(folder) == [("replaced-shard", name)]
    repair(folder, validate(folder).problems)
    assert problems(folder) == []


def test_what_writes_shards_anew_takes_them_out_of_the_records(make_request: MakeRequest) -> None:
    request = make_request()
    export(request)
    folder = request.dataset
    sidecar = find_sidecars(folder)[0]
    data = bytearray(sidecar.with_suffix(".tar").read_bytes())
    data[600] ^= 1
    sidecar.with_suffix(".tar").write_bytes(data)
    repair(folder, validate(folder).problems)
    assert problems(folder) == []
    name = sidecar.with_suffix(".tar").relative_to(folder).as_posix()
    assert name not in read_runs(folder)[0].shards
    assert len(read_runs(folder)[0].shards) > 0
    resume(folder)


def lose_a_shard(folder: Path) -> str:
    sidecar = find_sidecars(folder)[1]
    sidecar.unlink()
    sidecar.with_suffix(".tar").unlink()
    return sidecar.with_suffix(".tar").relative_to(folder).as_posix()


@pytest.mark.parametrize("job", ["merge", "transcode", "materialize"])
def test_a_copy_records_its_own_shards(make_request: MakeRequest, tmp_path: Path, job: str) -> None:
    request = make_request()
    export(request)
    folder = tmp_path / "copy"
    if job == "merge":
        merge([request.dataset], folder, layout=Layout(shard_frames=16))
    elif job == "materialize":
        with open_dataset(request.dataset) as dataset:
            materialize(Subset({("square", frame): None for frame in range(30)}), dataset, folder)
    else:
        transcode(request.dataset, folder, codecs={"rgb": "npy"})
    assert problems(folder) == []
    (run,) = read_runs(folder)
    assert len(run.shards) == len(find_sidecars(folder)) > 1
    name = lose_a_shard(folder)
    assert problems(folder) == [("lost-shard", name)]
    (lost,) = summarize(folder).damaged_tars
    assert (lost.path, lost.problem) == (name, f"is lost with its metadata ({run.shards[name].rows} rows)")
    assert repair(folder, validate(folder).problems).shards == [name]
    resume(folder)
    assert (problems(folder), summarize(folder).damaged_tars) == ([], ())


def test_gc_takes_superseded_shards_out_of_the_records(make_request: MakeRequest) -> None:
    request = make_request()
    export(request)
    folder = request.dataset
    first = find_sidecars(folder)[0]
    copy = first.with_name(f"{first.stem}-1.parquet")
    shutil.copy(first.with_suffix(".tar"), copy.with_suffix(".tar"))
    table = read_sidecar(first)
    shard = copy.with_suffix(".tar").relative_to(folder).as_posix()
    at = table.column_names.index("shard")
    copy.write_bytes(sidecar_bytes(table.set_column(at, table.schema.field(at), [[shard] * len(table)])))
    assert {code for code, _ in problems(folder)} == {"duplicate"}
    collect_garbage(folder)
    assert problems(folder) == []
    with open_dataset(folder) as dataset:
        assert len(dataset.sql("SELECT * FROM frames")) > 0


def test_other_writers_record_no_shards(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(4)}, ["rgb"], writer="lance")
    assert all(not run.shards for run in read_runs(folder))
    assert problems(folder) == []
