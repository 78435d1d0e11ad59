"""Imports point down only: a room imports rooms of the floors below it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "vrekit"

FLOORS = [
    {"cli"},
    {"api", "testing"},
    {"jobs"},
    {"engine"},
    {"readers"},
    {"compute", "writers"},
    {"catalog", "config", "graph"},
    {"codecs", "representations", "video"},
    {"core"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ROOMS = sorted(FLOOR_OF)


def _imported_modules(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules.add(node.module or "")
        elif isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
    return modules


def _edges(room: str) -> set[tuple[str, str]]:
    """(file, room it imports) for every import of another room."""
    edges = set()
    for path in sorted((PACKAGE / room).rglob("*.py")):
        for module in _imported_modules(path):
            parts = module.split(".")
            if parts[0] == "vrekit" and len(parts) > 1 and parts[1] != room:
                edges.add((path.relative_to(PACKAGE).as_posix(), parts[1]))
    return edges


def test_every_room_has_a_floor() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms - {"configs"} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down(room: str) -> None:
    wrong = {(path, target) for path, target in _edges(room) if FLOOR_OF[target] <= FLOOR_OF[room]}
    assert not wrong


def test_nothing_imports_the_package_root_for_more_than_its_version() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "vrekit":
                assert {alias.name for alias in node.names} <= {"__version__"}, path
