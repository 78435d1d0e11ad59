"""Every Python and shell block of every page runs, in the order of the page, as a reader would run it.

A page is run in a folder of its own that has `clip.mp4` and, but for the README, the dataset `out` that "60 seconds" in
the README makes of it; `SETUP` adds what a page says its reader has. A comment before a block, which no reader sees,
changes what happens to it:

    <!-- block: file mine.py -->            the block is the content of this file
    <!-- block: skip: needs a GPU -->       the block is not run, and why
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.doc_setup import SETUP, make_clip, make_dataset

ROOT = Path(__file__).resolve().parent.parent
PAGES = {page.relative_to(ROOT).as_posix(): page for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])}
_BLOCK = re.compile(r"^(?:<!-- block: ([^\n]*?) -->\n+)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RUN = ("bash", "python")
_LANGUAGES = (*_RUN, "text", "yaml")  # tests/config/test_config_docs.py reads the YAML


@dataclass(frozen=True)
class Block:
    """One block of a page: first line, language, text, and what its comment says."""

    line: int
    language: str
    text: str
    mark: str


def blocks_of(text: str) -> list[Block]:
    """Return the blocks of a page."""
    return [
        Block(text[: match.start(3)].count("\n"), match[2], match[3], match[1] or "") for match in _BLOCK.finditer(text)
    ]


def run_page(text: str, folder: Path, names: dict[str, Any]) -> int:
    """Run the blocks of a page in `folder`; return how many ran.

    Raises:
        AssertionError: If one fails.
    """
    ran = 0
    for block in blocks_of(text):
        kind, _, rest = block.mark.partition(" ")
        if kind == "file":
            (folder / rest).write_text(block.text, encoding="utf-8")
        elif block.language in _RUN and kind != "skip:":
            _run(block, folder, names)
            ran += 1
    return ran


def _run(block: Block, folder: Path, names: dict[str, Any]) -> None:
    if block.language == "python":
        try:
            exec(compile("\n" * block.line + block.text, "page", "exec"), names)
        except Exception as error:
            raise AssertionError(f"the Python block in line {block.line} fails: {error!r}") from error
        return
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, f"the shell block in line {block.line} fails\n{block.text}\n{done.stderr[-3000:]}"


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clip.mp4 and out, to be copied."""
    folder = tmp_path_factory.mktemp("demo")
    make_clip(folder / "clip.mp4")
    make_dataset(folder)
    return folder


@pytest.fixture
def page_folder(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder."""
    shutil.copytree(demo, tmp_path / "page")
    monkeypatch.chdir(tmp_path / "page")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path / "page"


def _has_blocks(page: Path) -> bool:
    return any(block.language in _RUN and not block.mark for block in blocks_of(page.read_text(encoding="utf-8")))


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a page is many commands, and a busy machine takes ten times as long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its tars open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("page", [name for name, page in PAGES.items() if _has_blocks(page)])
def test_the_blocks_of_a_page_run(page: str, page_folder: Path) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    if page in SETUP:
        SETUP[page](page_folder)
    assert run_page(PAGES[page].read_text(encoding="utf-8"), page_folder, names) > 0


@pytest.mark.parametrize("page", PAGES)
def test_marks_and_languages(page: str) -> None:
    """A mark is one that is known and has its reason; no commands hide in a form that is not run."""
    text = PAGES[page].read_text(encoding="utf-8")
    blocks = blocks_of(text)
    assert text.count("<!-- block:") == sum(bool(block.mark) for block in blocks), "a mark without a block below it"
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks), "a fence that is not closed, or indented"
    for block in blocks:
        where = f"line {block.line}"
        assert block.language in _LANGUAGES, f"{where}: a block needs a language: {', '.join(_LANGUAGES)}"
        assert re.fullmatch(r"|file [\w.]+|skip: \w.{9,}", block.mark), f"{where}: unknown mark {block.mark!r}"
    outside = _BLOCK.sub("", text)
    hidden = re.findall(r"(?:^|\n)\n+(    (?:vrekit|pip|python|ffmpeg|import|from|\./tools) ?.*)", outside)
    assert not hidden, "indented commands are not run: put them between ```bash and ```"


def test_a_failing_block_fails(tmp_path: Path) -> None:
    assert run_page("```python\nx = 1\n```\n\n```bash\ntrue\n```\n", tmp_path, {}) == 2
    with pytest.raises(AssertionError, match=r"the Python block in line 4 fails: ZeroDivisionError"):
        run_page("# a\n\ntext\n```python\n1 / 0\n```\n", tmp_path, {})
    with pytest.raises(AssertionError, match="the shell block in line 1 fails"):
        run_page("```bash\nfalse\ntrue\n```\n", tmp_path, {})
    marked = "<!-- block: skip: it takes a GPU -->\n\n```bash\nfalse\n```\n"
    marked += "<!-- block: file a.py -->\n```python\nx = 2\n```\n"
    assert run_page(marked, tmp_path, {}) == 0
    assert (tmp_path / "a.py").read_text() == "x = 2\n"
