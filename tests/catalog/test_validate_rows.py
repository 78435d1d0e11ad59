"""What a reader would refuse, and what it would read wrongly without a word, is a problem to `validate`."""

import json
import os
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.merge_datasets import make_dataset, members_of
from vrekit.catalog.index import load_index
from vrekit.catalog.manifest import MANIFEST_NAME, read_manifest
from vrekit.catalog.statistics import Statistics, statistics_path, write_statistics
from vrekit.catalog.storage import open_storage
from vrekit.core.errors import VrekitError
from vrekit.core.files import open_regular
from vrekit.core.schema import SAMPLES_SCHEMA, rows_to_table
from vrekit.jobs.repair import repair
from vrekit.jobs.validate import validate
from vrekit.readers import FrameDataset
from vrekit.writers.webdataset.sidecars import find_sidecars, read_sidecar, sidecar_bytes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "d", {"car": range(8), "bus": range(4)}, ["rgb", "depth"])


def change_row(folder: Path, number: int, **values: Any) -> Path:
    """Change a row of the first sidecar, with a right checksum."""
    sidecar = find_sidecars(folder)[0]
    rows = read_sidecar(sidecar).to_pylist()
    rows[number].update(values)
    sidecar.write_bytes(sidecar_bytes(rows_to_table(rows)))
    return sidecar


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / MANIFEST_NAME
    data = json.loads(path.read_bytes())
    del data["checksum"]
    change(data)
    path.write_text(json.dumps(data))


def found(folder: Path, **options: bool) -> set[tuple[str, str]]:
    return {(problem.code, problem.path) for problem in validate(folder, **options).problems}


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"shard": "../../../etc/passwd"}, "row"),
        ({"shard": "shards/car/all-00000000-00000007.tar"}, "row"),
        ({"checksum": None}, "row"),
        ({"raw_bytes": 1}, "row"),
        ({"dtype": "i1,(99999999999)f8"}, "row"),
        ({"kind": "flow"}, "row"),
        ({"codec": "png"}, "row"),
        ({"byte_offset": 2**61}, "place"),
        ({"byte_size": 2**61}, "row"),
        ({"byte_size": 2**31}, "place"),
        ({"payload_index": 0}, "decode"),
        ({"frame_index": 7}, "row"),
        ({"status": "failed"}, "row"),
    ],
)
def test_a_wrong_row_is_a_problem_and_repaired(folder: Path, values: dict[str, Any], code: str) -> None:
    sidecar = change_row(folder, 3, **values)
    report = validate(folder)
    tar = sidecar.with_suffix(".tar").relative_to(folder).as_posix()
    assert (code, tar) in {(problem.code, problem.path) for problem in report.problems}
    assert report.payloads >= 2 * 12 - 2  # the others are checked all the same
    assert repair(folder, report.problems).left == []
    assert validate(folder).problems == []
    assert len(FrameDataset(folder, missing="none")) >= 8


def test_random_changes_of_rows_do_not_go_unseen(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(4)}, ["rgb", "depth"])
    expected = FrameDataset(folder)[:]
    rng = random.Random(5)
    (sidecar,) = find_sidecars(folder)
    whole = sidecar.read_bytes()
    rows = read_sidecar(sidecar).to_pylist()
    # these cannot be known from the payload: the time, whether the frame was measured, who computed it and how long
    free = {"pts_seconds", "valid", "run_id", "error", "compute_seconds", "encode_seconds"}
    columns = [name for name in SAMPLES_SCHEMA.names if name not in free]
    unseen = []
    for _ in range(int(os.environ.get("VREKIT_EXHAUSTIVE", "0")) * 400 + 60):
        number, name = rng.randrange(len(rows)), rng.choice(columns)
        value = other_value(rng, rows, number, name)
        changed = [dict(row) for row in rows]
        changed[number][name] = value
        sidecar.write_bytes(sidecar_bytes(rows_to_table(changed)))
        if not is_read_as(folder, expected) and not validate(folder).problems:
            unseen.append((number, name, value))
    sidecar.write_bytes(whole)
    assert unseen == []


def other_value(rng: random.Random, rows: list[dict[str, Any]], number: int, name: str) -> Any:
    """Return a value of another row, one near by, or one that no row has."""
    old = rows[number][name]
    if pa.types.is_integer(SAMPLES_SCHEMA.field(name).type):
        near = old or 0
        choices: list[Any] = [near + 1, max(near - 1, 0), near ^ 1 << rng.randrange(31), 0, rng.choice(rows)[name]]
        return rng.choice(choices)
    if isinstance(old, list):
        return rng.choice([old[::-1], [*old, 1], old[:-1], [1, *old], [side + 1 for side in old], None])
    choices = [rng.choice(rows)[name], "x", "", "float64", "uint8", "png", "failed", "depth", "../x"]
    return rng.choice([*choices, None] if SAMPLES_SCHEMA.field(name).nullable else choices)


def is_read_as(folder: Path, expected: dict[str, Any]) -> bool:
    try:
        batch = FrameDataset(folder, missing="raise")[:]
    except VrekitError:
        return False
    return batch["key"] == expected["key"] and all(
        np.array_equal(np.asarray(one), np.asarray(other))
        for name in ("rgb", "depth")
        for one, other in zip(batch[name], expected[name], strict=True)
    )


def test_both_storages_are_looked_at_whatever_the_manifest_says(folder: Path) -> None:
    def say(data: dict[str, Any]) -> None:
        data["writer"] = "lance"

    change_manifest(folder, say)
    report = validate(folder)
    assert report.payloads == 2 * 12
    assert [problem.code for problem in report.problems] == ["storage"]
    assert "so readers pass over 2 such" in report.problems[0].message


def test_a_codec_that_cannot_be_set_up_is_a_problem(folder: Path) -> None:
    def say(data: dict[str, Any]) -> None:
        data["representations"]["rgb"]["codec"] = {"id": "os:system"}

    change_manifest(folder, say)
    report = validate(folder)
    assert ("codec", MANIFEST_NAME) in {(problem.code, problem.path) for problem in report.problems}
    assert report.payloads == 2 * 12


def test_sizes_that_no_frame_has_are_a_warning(folder: Path) -> None:
    def say(data: dict[str, Any]) -> None:
        data["representations"]["depth"]["stored"]["shape"] = [999]

    change_manifest(folder, say)
    assert any("dataset.json says that frames are arrays" in one.message for one in validate(folder).warnings)


def test_shards_that_may_not_be_read_are_named_and_the_others_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = find_sidecars(folder)[0].with_suffix(".tar")

    def refuse(path: Path) -> int:
        if Path(path) == first:
            raise PermissionError(13, "Permission denied")
        return open_regular(path)

    monkeypatch.setattr("vrekit.writers.webdataset.tars.open_regular", refuse)
    report = validate(folder)
    assert [(one.code, one.path) for one in report.problems] == [("unreadable", first.relative_to(folder).as_posix())]
    assert report.payloads == 2 * 8
    left = repair(folder, report.problems).left
    assert len(left) == 1
    assert "check its permissions" in left[0]
    assert first.exists()


def test_damaged_derived_files_are_problems_and_repaired(folder: Path) -> None:
    manifest = read_manifest(folder)
    load_index(open_storage(folder, manifest))
    from vrekit.catalog.statistics import STATISTICS_SCHEMA

    write_statistics(folder, "car", Statistics(STATISTICS_SCHEMA.empty_table()))
    assert found(folder) == set()
    for path in (folder / "index/frames.parquet", statistics_path(folder, "car")):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    assert found(folder) == {("derived", "index/frames.parquet"), ("derived", "stats/car.parquet")}
    assert repair(folder, validate(folder).problems).left == []
    assert found(folder) == set()


def test_files_without_checksums_are_one_warning_a_kind(folder: Path) -> None:
    assert validate(folder).warnings == []
    for sidecar in find_sidecars(folder):
        table = pq.ParquetFile(sidecar).read().replace_schema_metadata({"vrekit.format_version": "1"})
        pq.write_table(table, sidecar)
    change_manifest(folder, lambda data: data)
    report = validate(folder)
    assert report.problems == []
    assert [(one.code, one.path) for one in report.warnings] == [
        ("unprotected", MANIFEST_NAME),
        ("unprotected", "shards"),
    ]
    assert "2 of 2 such files have no checksum" in report.warnings[1].message
    assert len(members_of(folder)) == 2 * 12


def test_problems_can_be_told_as_json(folder: Path) -> None:
    change_row(folder, 0, error="x", kind="\ud7ff")
    report = validate(folder)
    json.dumps(report.to_json())
    assert all(asdict(one) for one in report.problems)
