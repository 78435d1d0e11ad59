"""Docs say what is there: the CLI reference is current, and what pages link to exists."""

import re
from pathlib import Path

import pytest

from tools.make_cli_docs import TARGET, command_names, render

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_cli_reference_is_current() -> None:
    assert TARGET.read_text(encoding="utf-8") == render(), "run `python -m tools.make_cli_docs`"


@pytest.mark.parametrize("name", command_names())
def test_every_command_has_an_example(name: str) -> None:
    section = TARGET.read_text(encoding="utf-8").split(f"## vrekit {name}\n")[1].split("\n## ")[0]
    assert "Example" in section
    assert f"vrekit {name}" in section.split("Example")[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_in_code_style_exist(page: Path) -> None:
    folders = "vrekit|writers|readers|representations|configs|tests|tools|docs"
    for target in re.findall(rf"`((?:{folders})/[\w./\-]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / target).exists() or (ROOT / "vrekit" / target).exists(), f"{page.name} names {target}"
