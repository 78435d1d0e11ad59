"""Registries: built-in names, entry points of other packages, `module:Class`, `path/file.py:Class`."""

import os
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

import vrekit.core.registry as registry_module
from vrekit.core.errors import MissingDependencyError, UsageError
from vrekit.core.registry import Registry

GROUP = "vrekit.tests"


def make(**extras: str) -> Registry:
    entries = {"decoder": "json:JSONDecoder", "missing/one": "not_installed_anywhere.deep:Thing"}
    return Registry("representation type", entries, group=GROUP, extras=extras)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    points: list[EntryPoint] = []
    monkeypatch.setattr(registry_module, "entry_points", lambda group: EntryPoints(points).select(group=group))
    return points


def test_built_in_names_load_on_first_use() -> None:
    import json

    registry = make()
    assert registry.load("decoder") is json.JSONDecoder
    assert list(registry) == ["decoder", "missing/one"]
    assert "decoder" in registry
    assert "json" not in registry
    assert registry.location("decoder") == "json:JSONDecoder"


def test_an_unsorted_registry_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="not sorted"):
        Registry("thing", {"b": "x:X", "a": "x:X"}, group=GROUP)


def test_entry_points_join(plugins: list[EntryPoint]) -> None:
    import json

    plugins.append(EntryPoint("encoder", "json:JSONEncoder [fast]", GROUP))
    plugins.append(EntryPoint("other", "json:JSONEncoder", "some.other.group"))
    registry = make()
    assert registry.load("encoder") is json.JSONEncoder
    assert list(registry) == ["decoder", "encoder", "missing/one"]


def test_a_name_registered_twice_is_an_error(plugins: list[EntryPoint]) -> None:
    plugins.append(EntryPoint("decoder", "json:JSONEncoder", GROUP))
    with pytest.raises(UsageError, match=r"'decoder' is registered twice .*json:JSONEncoder"):
        list(make())


def test_unknown_names_get_the_closest() -> None:
    with pytest.raises(
        UsageError, match=r"unknown representation type 'decodr' \(did you mean 'decoder'\?\)"
    ) as caught:
        make().load("decodr")
    assert "vrekit list representations" in str(caught.value.hint)


def test_a_missing_package_names_what_to_install() -> None:
    with pytest.raises(MissingDependencyError, match="needs the package 'absent_package'") as caught:
        Registry("thing", {"x": "tests.core.needs_absent_package:X"}, group=GROUP, extras={"x": "models"}).load("x")
    assert caught.value.hint == "pip install 'vrekit[models]'"
    with pytest.raises(UsageError, match="there is no module 'not_installed_anywhere'"):
        make().load("missing/one")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("json:JSONDecodr", "json has no 'JSONDecodr' \\(did you mean 'JSONDecoder'"),
        ("json.nowhere:X", "there is no module 'json.nowhere'"),
        (":X", "failed on import: ValueError"),
        (".relative:X", "failed on import: TypeError"),
        ("nowhere.py:X", "no file nowhere.py"),
    ],
)
def test_what_does_not_load_says_why(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make().load(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def (", "SyntaxError"),
        ("from json import nothing_of_that_name", "ImportError: cannot import name"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
@pytest.mark.parametrize("spelled", ["file", "module"])
def test_code_that_fails_on_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str, spelled: str
) -> None:
    (tmp_path / "broken_type.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    name = "broken_type.py:X" if spelled == "file" else "broken_type:X"
    before = set(sys.modules)
    with pytest.raises(UsageError, match=f"failed on import: .*{message}"):
        make().load(name, relative_to=tmp_path)
    assert not {new for new in set(sys.modules) - before if "broken_type" in new}


def test_folders_are_tried_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("first", "second", "current"):
        (tmp_path / folder).mkdir()
    (tmp_path / "second" / "mine.py").write_text("class X: place = 'second'")
    (tmp_path / "current" / "mine.py").write_text("class X: place = 'current'")
    monkeypatch.chdir(tmp_path / "current")
    folders = [tmp_path / "first", tmp_path / "second"]
    assert make().load("mine.py:X", relative_to=folders).place == "second"
    assert make().load("mine.py:X", relative_to=tmp_path / "first").place == "current"
    with pytest.raises(UsageError, match=r"no file other\.py") as caught:
        make().load("other.py:X", relative_to=folders)
    assert caught.value.hint == f"looked for {' and '.join(str(f / 'other.py') for f in [*folders, Path.cwd()])}"


def test_a_file_is_imported_once_and_again_when_its_text_changed(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("class X: value = 1")
    first = make().load(f"{path}:X")
    assert make().load(f"{path}:X") is first
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_text("class X: value = 2")  # as long and as old: what cached bytecode would go by
    os.utime(path, ns=times)
    assert make().load(f"{path}:X").value == 2
    assert first.value == 1


def test_classes_of_a_file_know_their_source(tmp_path: Path) -> None:
    import inspect

    path = tmp_path / "mine.py"
    path.write_text("class X:\n    value = 1\n")
    assert inspect.getsourcefile(make().load(f"{path}:X")) == str(path.resolve())
