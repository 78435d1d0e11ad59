"""Files with a second name elsewhere (`cp -al`, `merge`, or a stranger): nothing is ever written into them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.trust.arena import CONFIG, run
from vrekit.config.loader import parse_config
from vrekit.core.locks import OwnedFile
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest
from vrekit.writers.webdataset.new_shard import NewShard

pytestmark = pytest.mark.timeout(120)


def export_to(dataset: Path, video: Path, **options: object) -> None:
    representations = parse_config(CONFIG).representations
    request = {"video": str(video), "dataset": dataset, "representations": representations, "threads": 1}
    export(ExportRequest(**request, **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.npy"
    np.save(path, np.random.default_rng(0).integers(0, 255, (8, 24, 32, 3), np.uint8))
    return path


def state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def linked_copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=os.link)


@pytest.mark.parametrize("writer", ["webdataset", "lance"])
def test_a_linked_copy_stays_as_it_is(writer: str, video: Path, tmp_path: Path) -> None:
    export_to(tmp_path / "dataset", video, writer=writer, shard_frames=4)
    linked_copy(tmp_path / "dataset", tmp_path / "copy")
    before = state(tmp_path / "copy")
    (tmp_path / "config.yaml").write_text(CONFIG.replace("sift", "more"))
    config = ("--config", tmp_path / "config.yaml", "--no-progress")
    for arguments in (
        ("export", video, "-o", tmp_path / "dataset", *config),
        ("export", video, "-o", tmp_path / "dataset", *config, "--video-id", "more"),
        ("resume", tmp_path / "dataset"),
        ("gc", tmp_path / "dataset", "--older-than", "0"),
        ("stats", tmp_path / "dataset"),
        ("repair", tmp_path / "dataset"),
    ):
        said = run(*arguments)
        assert state(tmp_path / "copy") == before, said


@pytest.mark.parametrize("name", ["tar.partial", "journal", "lock"])
def test_working_files_that_are_links_to_a_file_of_yours(name: str, video: Path, tmp_path: Path) -> None:
    export_to(tmp_path / "dataset", video)
    (tmp_path / "mine.txt").write_text("private\n" * 1000)
    for path in (tmp_path / "dataset").glob("shards/clip/all-*"):
        path.unlink()
    os.link(tmp_path / "mine.txt", tmp_path / "dataset" / "shards" / "clip" / f".all-00000000.{name}")
    said = run("resume", tmp_path / "dataset")
    assert (tmp_path / "mine.txt").read_text() == "private\n" * 1000, said
    assert said.startswith("0: "), said
    assert run("validate", tmp_path / "dataset").startswith("0: ")


def test_a_lock_with_another_name_is_still_a_lock(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("private")
    os.link(tmp_path / "mine.txt", tmp_path / "a.lock")
    OwnedFile(tmp_path / "a.lock", "it").release()
    assert (tmp_path / "mine.txt").read_text() == "private"
    assert not (tmp_path / "a.lock").exists()


def test_a_merge_that_was_killed_leaves_its_sources(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tar is a hard link already, so that renaming another link to it does nothing."""
    export_to(tmp_path / "a", video)
    before = state(tmp_path / "a")
    write = NewShard.commit

    def killed(self: NewShard, *arguments: object, **options: object) -> bool:
        write(self, *arguments, **options)  # type: ignore[arg-type]
        self.tar.with_suffix(".parquet").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(NewShard, "commit", killed)
    arguments = ("merge", tmp_path / "a", "-o", tmp_path / "merged", "--link", "--no-sync")
    with pytest.raises(AssertionError):  # exit code 130
        run(*arguments)
    monkeypatch.undo()
    said = run(*arguments)
    assert state(tmp_path / "a") == before
    assert said.startswith("0: "), said
    assert run("validate", tmp_path / "merged").startswith("0: ")
