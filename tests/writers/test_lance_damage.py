"""Lost, empty and damaged files of Lance tables: what is whole stays readable, the rest is computed again."""

import os
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.jobs.merge_datasets import rows_of
from vrekit.catalog.dataset import open_dataset
from vrekit.config.loader import parse_config
from vrekit.core.errors import DatasetError
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.gc import collect_garbage
from vrekit.jobs.repair import repair
from vrekit.jobs.validate import validate
from vrekit.readers.dataset import FrameDataset
from vrekit.writers.lance.errors import is_damage, reading_lance
from vrekit.writers.lance.rows import version_files

CONFIG = """
representations:
  rgb: {type: color/rgb, codec: png}
  canny: {type: edges/canny, codec: npy.zst}
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, clip_array: NDArray[np.uint8]) -> ExportRequest:
    """Thirty frames in four fragments of one table."""
    folder = tmp_path_factory.mktemp("lance")
    np.save(folder / "square.npy", clip_array)
    request = ExportRequest(
        video=str(folder / "square.npy"),
        dataset=folder / "out",
        representations=parse_config(CONFIG).representations,
        shard_frames=8,
        threads=2,
        writer="lance",
    )
    export(request)
    return request


@pytest.fixture
def request_(exported: ExportRequest, tmp_path: Path) -> ExportRequest:
    """The same, in a copy to damage."""
    shutil.copytree(exported.dataset, tmp_path / "out")
    return replace(exported, dataset=tmp_path / "out")


def table_of(folder: Path) -> Path:
    (path,) = folder.glob("lance/*.lance")
    return path


def tags_of(folder: Path) -> dict[str, Any]:
    return dict(lance.dataset(str(table_of(folder))).tags.list())


@pytest.mark.parametrize("content", [b"", b"garbage", b"[]", b'{"version": -1}', b'{"version": 99, "manifestSize": 1}'])
@pytest.mark.parametrize("command", ["export", "resume", "gc", "validate"])
def test_damaged_tags_are_put_right(request_: ExportRequest, content: bytes, command: str) -> None:
    folder = request_.dataset
    (tag,) = table_of(folder).glob("_refs/tags/*.json")
    before = rows_of(folder)
    (table_of(folder).parent / ".all.untidy").write_text(
        tag.stem.removeprefix("run-") + "\n"
    )  # or there is nothing to do
    tag.write_bytes(content)
    assert rows_of(folder) == before
    if command == "export":
        export(request_)
    elif command == "resume":
        resume(folder)
    elif command == "gc":
        collect_garbage(folder)
    else:
        assert [problem.code for problem in validate(folder).problems] == ["tag"]
        assert not repair(folder, validate(folder).problems).left
    assert tags_of(folder)[tag.stem]["version"] == lance.dataset(str(table_of(folder))).version
    assert rows_of(folder) == before
    assert not validate(folder).problems


def fragments_of(folder: Path) -> list[tuple[Path, list[int]]]:
    """The data file of each fragment, and its frames."""
    path = table_of(folder)
    return [
        (
            path / "data" / fragment.data_files()[0].path,
            fragment.to_table(columns=["frame_index"])["frame_index"].to_pylist(),
        )
        for fragment in lance.dataset(str(path)).get_fragments()
    ]


def damage(file: Path, how: str) -> None:
    if how == "lost":
        file.unlink()
    elif how == "empty":
        os.truncate(file, 0)
    elif how == "half":
        os.truncate(file, file.stat().st_size // 2)
    else:
        file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize("how", ["lost", "empty", "half", "zeros"])
def test_a_lost_fragment_is_set_aside_and_computed_again(request_: ExportRequest, how: str) -> None:
    folder = request_.dataset
    before = rows_of(folder)
    file, frames = fragments_of(folder)[1]
    assert frames == list(range(8, 16))
    FrameDataset(folder)
    with open_dataset(folder):
        pass  # makes the index, which knows the frames
    damage(file, how)

    report = validate(folder)
    assert report.payloads == 2 * 22
    assert {problem.code for problem in report.problems} == {"fragment"}
    assert f"fragment 1 (8 frames, data/{file.name})" in str(report.problems[0])
    assert report.problems[1].message == "the frames lost with its fragments: square 8..15"

    for index_is_there in (True, False):
        if not index_is_there:
            shutil.rmtree(folder / "index")
        dataset = FrameDataset(folder, ["rgb"])
        assert len(dataset) == (30 if index_is_there else 22)
        assert dataset[20 if index_is_there else 12]["rgb"].shape == (32, 48, 3)
    with open_dataset(folder) as opened:
        assert len(opened.frames.fetchall()) == 22
    assert not (folder / "index").exists() or not list((folder / "index").glob("*.parquet"))

    with pytest.raises(DatasetError, match=r"1 of 4 fragments are lost or damaged: fragment 1 \(8 frames") as caught:
        export(request_)
    assert "validate DATASET --repair" in str(caught.value.hint)

    repaired = repair(folder, report.problems)
    assert not repaired.left
    assert repaired.quarantine is not None
    assert how == "lost" or (folder / repaired.quarantine / file.relative_to(folder)).exists()
    assert not validate(folder).problems
    assert rows_of(folder).keys() == {key for key in before if not 8 <= key[1] < 16}
    resume(folder)
    assert not validate(folder).problems
    after = rows_of(folder)
    assert {key: row["checksum"] for key, row in after.items()} == {key: row["checksum"] for key, row in before.items()}
    assert export(request_).run_id is None


def test_only_the_lost_frames_cannot_be_read(request_: ExportRequest) -> None:
    with open_dataset(request_.dataset):
        pass
    file, _ = fragments_of(request_.dataset)[1]
    file.unlink()
    dataset = FrameDataset(request_.dataset, ["rgb"])
    with pytest.raises(
        DatasetError, match=r"frame square/00000008: the payload of 'rgb': .*all\.lance cannot be read: Not f"
    ):
        dataset.__getitems__([0, 8, 20])
    assert len(dataset.__getitems__([0, 20])) == 2


def version_file(folder: Path, back: int = 0) -> Path:
    return list(version_files(table_of(folder)).values())[back]


@pytest.mark.parametrize("how", ["empty", "half", "zeros"])
def test_a_torn_version(request_: ExportRequest, caplog: pytest.LogCaptureFixture, how: str) -> None:
    folder = request_.dataset
    before = rows_of(folder)
    damage(version_file(folder), how)
    assert rows_of(folder) == before  # the last version only has an index more
    assert "is damaged; version 6 is read instead" in caplog.text
    report = validate(folder)
    assert {problem.code for problem in report.problems} == {"version"}
    assert not repair(folder, report.problems).left
    assert not validate(folder).problems
    assert list(folder.glob("quarantine/*/lance/all.lance/_versions/*.manifest"))
    assert rows_of(folder) == before
    export(request_)


@pytest.mark.parametrize("how", ["lost", "empty", "half", "zeros"])
def test_a_torn_version_that_added_rows(request_: ExportRequest, how: str) -> None:
    folder = request_.dataset
    before = rows_of(folder)
    for back in range(4):  # two indexes, the tag's rows, and the fragment before
        damage(version_file(folder, 0 if how == "lost" else back), how)
    resume(folder)
    assert {key: row["checksum"] for key, row in rows_of(folder).items()} == {
        key: row["checksum"] for key, row in before.items()
    }
    assert not validate(folder).problems


@pytest.mark.parametrize("how", ["lost", "empty", "half", "zeros"])
def test_older_versions_that_are_damaged(request_: ExportRequest, how: str) -> None:
    folder = request_.dataset
    for back in (2, 3):
        damage(version_file(folder, back), how)
    (table_of(folder).parent / ".all.untidy").write_text("some-run\n")
    collect_garbage(folder, older_than=timedelta(0))
    assert not validate(folder).problems


@pytest.mark.parametrize("how", ["lost", "empty", "half", "zeros"])
@pytest.mark.parametrize("what", ["_indices/*/*", "_transactions/*", "_versions/latest_version_hint.json"])
def test_what_is_only_a_copy(request_: ExportRequest, what: str, how: str) -> None:
    folder = request_.dataset
    before = rows_of(folder)
    for file in table_of(folder).glob(what):
        damage(file, how)
    assert rows_of(folder) == before
    report = validate(folder)
    assert {problem.code for problem in report.problems} == ({"index"} if "indices" in what else set())
    assert not repair(folder, report.problems).left
    assert not validate(folder).problems
    export(request_)
    collect_garbage(folder)
    assert rows_of(folder) == before


@pytest.mark.parametrize("how", ["lost", "zeros"])
def test_a_table_of_which_every_version_is_lost(request_: ExportRequest, how: str) -> None:
    folder = request_.dataset
    before = rows_of(folder)
    for file in version_files(table_of(folder)).values():
        damage(file, how)
    with pytest.raises(DatasetError, match=r"all\.lance cannot be opened"):
        rows_of(folder)
    with pytest.raises(DatasetError, match=r"all\.lance cannot be opened"):
        export(request_)
    report = validate(folder)
    assert [problem.code for problem in report.problems] == ["lost-table"]
    assert not repair(folder, report.problems).left
    assert not validate(folder).problems
    resume(folder)
    assert {key: row["checksum"] for key, row in rows_of(folder).items()} == {
        key: row["checksum"] for key, row in before.items()
    }
    assert not validate(folder).problems


@pytest.mark.parametrize(
    ("text", "damage"),
    [
        ("LanceError(IO): file size is too small", True),
        ("… Too many open files (os error 24)", False),
        ("Not supported: … upgrade Lance", False),
    ],
)
def test_what_is_damage(text: str, damage: bool) -> None:
    with pytest.raises(DatasetError, match=r"all\.lance cannot be read: ") as caught, reading_lance("all.lance"):
        raise ValueError(text)
    assert is_damage(caught.value) is damage
