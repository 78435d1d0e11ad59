"""Whose code may run: the proof lies in the user's state folder, and what is doubtful counts for nothing."""

import json
import os
from pathlib import Path

import pytest

from vrekit.catalog.trust import RecordedCode, is_code
from vrekit.core.errors import DatasetError
from vrekit.core.spec import RepresentationSpec

SPEC = RepresentationSpec(name="x", type="mine.py:X", params={"strength": 0.5})


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "vrekit" / "trusted-code"


@pytest.fixture
def code(tmp_path: Path, state: Path) -> RecordedCode:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "mine.py").write_text("X = 1\n")
    (tmp_path / "out").mkdir()
    return RecordedCode(dataset=tmp_path / "out", folders=(folder,))


@pytest.mark.parametrize(
    ("type_name", "expected"),
    [("edges/canny", False), ("image", False), ("edges/cany", False), ("os:system", True), ("a/b.py:X", True)],
)
def test_code_is_what_no_package_registers(type_name: str, expected: bool) -> None:
    assert is_code(type_name) is expected


def test_the_same_code_in_the_same_dataset_is_trusted(code: RecordedCode, state: Path) -> None:
    assert code.refused([SPEC]) == [SPEC]
    code.remember([SPEC, RepresentationSpec(name="c", type="edges/canny")])
    code.remember([SPEC])
    assert code.refused([SPEC]) == []
    (proof,) = state.iterdir()
    facts = json.loads(proof.read_text())
    assert (facts["dataset"], facts["type"], facts["params"]) == (str(code.dataset), "mine.py:X", {"strength": 0.5})
    assert [path.stat().st_mode & 0o777 for path in (state.parent, state, proof)] == [0o700, 0o700, 0o600]


def test_anything_else_is_not(code: RecordedCode, tmp_path: Path) -> None:
    code.remember([SPEC])
    link = tmp_path / "link"
    link.symlink_to(code.dataset)
    assert RecordedCode(dataset=link, folders=code.folders).refused([SPEC]) == []
    others = [
        RecordedCode(dataset=tmp_path / "other", folders=code.folders),
        RecordedCode(dataset=code.dataset, folders=()),  # no such file there
        RecordedCode(dataset=code.dataset, folders=(tmp_path / "evil", *code.folders)),
    ]
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "mine.py").write_text("X = 1\n")
    for other in others:
        assert other.refused([SPEC]) == [SPEC]
    for changes in ({"params": {"strength": 1.0}}, {"type": "mine.py:Y"}, {"type": "os:system"}):
        assert code.refused([SPEC.with_options(**changes)])
    (code.folders[0] / "mine.py").write_text("X = 2\n")
    assert code.refused([SPEC]) == [SPEC]
    assert RecordedCode(dataset=code.dataset, folders=code.folders, trust_code=True).refused([SPEC]) == []


def test_a_doubtful_store_counts_for_nothing(
    code: RecordedCode, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code.remember([SPEC])
    (proof,) = state.iterdir()
    for path, mode in ((state.parent, 0o700), (state, 0o700), (proof, 0o600)):
        path.chmod(mode | 0o020)
        assert code.refused([SPEC]) == [SPEC]
        path.chmod(mode)
    assert code.refused([SPEC]) == []
    with monkeypatch.context() as patch:
        own = os.geteuid()
        patch.setattr(os, "geteuid", lambda: own + 1)
        assert code.refused([SPEC]) == [SPEC]
    for path in (proof, state, state.parent):
        elsewhere = tmp_path / f"real-{path.name}"
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
        assert code.refused([SPEC]) == [SPEC]
        if path != proof:
            code.remember([RepresentationSpec(name="y", type="json:Y")])
            assert list(state.iterdir()) == [proof]  # nothing is written through a link
        path.unlink()
        elsewhere.rename(path)
    assert code.refused([SPEC]) == []


def test_a_store_inside_the_dataset_counts_for_nothing(
    code: RecordedCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for state in (code.dataset / "state", Path("state")):
        monkeypatch.setenv("XDG_STATE_HOME", str(state))
        monkeypatch.setenv("HOME", str(code.dataset))
        monkeypatch.chdir(code.dataset)
        code.remember([SPEC])
        assert code.refused([SPEC]) == [SPEC]
        assert list(code.dataset.iterdir()) == []
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    code.remember([SPEC])
    assert code.refused([SPEC]) == []
    assert (tmp_path / "home" / ".local" / "state" / "vrekit" / "trusted-code").is_dir()


def test_a_home_that_cannot_be_written_is_no_error(code: RecordedCode, state: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    code.remember([SPEC])
    assert code.refused([SPEC]) == [SPEC]


def test_the_message_names_types_representations_and_how_to_go_on(code: RecordedCode) -> None:
    specs = [RepresentationSpec(name=f"x{number}", type="os:system") for number in range(8)]
    with pytest.raises(DatasetError) as raised:
        code.check(specs, otherwise="do without")
    assert raised.match("'x0' has the type 'os:system'.*'x4' has .* and 3 more: this is code recorded in the dataset")
    assert str(raised.value.hint).endswith("or export to it again with a config of your own, or do without")


@pytest.mark.parametrize("type_name", [f"{'x' * 5000}.py:X", "\0.py:X", "a\ud800.py:X"])
def test_names_that_no_file_can_have_are_refused(code: RecordedCode, type_name: str) -> None:
    code.remember([SPEC])
    spec = RepresentationSpec(name="x", type=type_name)
    assert code.refused([spec]) == [spec]
