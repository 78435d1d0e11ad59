"""Text of a dataset stays text: it does not command the terminal, forge messages, or add HTML to the card."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.jobs.merge_datasets import make_dataset
from tests.metadata_files import edited
from vrekit.catalog.card import card_text
from vrekit.catalog.storage import open_storage

TEXTS = [
    r"\[/foo]",
    "[bold]x",
    r"\[link=https://x.example]y",
    "\x1b]0;pwned\x07\x1b[2J",
    "a\nerror: fake\r",
    "\u202egpj",
]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_text_of_a_dataset_commands_nothing(run: Callable[..., Result], tmp_path: Path, text: str) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(3)})
    with edited(folder / "dataset.json") as manifest:
        manifest["videos"]["car"]["uri"] = text
    for arguments in (("info", folder), ("query", folder, "--sql", "SELECT uri FROM videos"), ("validate", folder)):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert not any(control in result.output for control in "\x1b\x07\r\u202e")
        assert "\nerror: fake" not in result.output
    if text.startswith(("\\[", "[")):
        assert text in run("query", folder, "--sql", "SELECT uri FROM videos").output


def test_the_card_shows_text_as_it_is(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "d", {"car": range(3)})
    with edited(folder / "dataset.json") as manifest:
        manifest["videos"]["car"]["codec"] = "x | <script>alert(1)</script>\n# pwn"
        manifest["created_with"] = "<img src=x>\n\n# pwn"
    text = card_text(open_storage(folder))
    assert "<script" not in text
    assert "<img" not in text
    assert "\n# pwn" not in text
    assert r"x \| &lt;script&gt;alert(1)&lt;/script&gt; \# pwn" in text
