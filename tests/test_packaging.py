"""The layout the project's owner fixed: code in top-level folders, imported as `vrekit.…` through links."""

import importlib.resources
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vrekit

ROOT = Path(__file__).resolve().parent.parent
LINKED = ("configs", "readers", "representations", "writers")
of_checkout = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an sdist has the folders in place of the links")


@of_checkout
@pytest.mark.parametrize("name", LINKED)
def test_link_leads_to_the_top_level_folder(name: str) -> None:
    link = ROOT / "vrekit" / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    assert link.resolve() == ROOT / name


@of_checkout
@pytest.mark.parametrize("name", LINKED)
def test_git_keeps_the_links(name: str) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-s", f"vrekit/{name}"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert listed.startswith("120000 ")


def test_configs_are_resources_of_the_package() -> None:
    text = importlib.resources.files("vrekit.configs").joinpath("quickstart.yaml").read_text()
    assert "representations:" in text


def _modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(out.split())


HEAVY = {"cv2", "duckdb", "imagecodecs", "lance", "numpy", "pyarrow", "torch", "torchcodec", "torchdata"}


def test_import_vrekit_is_light() -> None:
    assert not HEAVY & _modules_after("import vrekit")


def test_every_public_name_is_there_and_typed() -> None:
    """The names, their lazy places and what type checkers see agree; asking for them one by one imports them."""
    assert sorted(vrekit.__all__) == vrekit.__all__ == sorted({*vrekit._PLACES, "__version__"})
    assert set(vrekit.__all__) <= set(dir(vrekit))
    text = (ROOT / "vrekit" / "__init__.py").read_text()
    typed = text.split("if TYPE_CHECKING:")[1].split("__version__")[0]
    for name, place in vrekit._PLACES.items():
        assert getattr(vrekit, name).__name__ == place.split(":")[1]
        assert re.search(rf"\b{name}\b", typed), f"type checkers do not know vrekit.{name}"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vrekit.nothing  # noqa: B018


def test_the_command_line_starts_light() -> None:
    assert not HEAVY & _modules_after("import vrekit.cli.app")


def test_help_is_quick() -> None:
    before = os.times()
    subprocess.run([sys.executable, "-m", "vrekit", "--help"], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    assert cpu <= 0.6  # 0.3 CPU s on a quiet machine; twice that on a busy one
