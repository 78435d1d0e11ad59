"""docs/codecs.md names every codec, every row of the profiles and every measured codec that the code has."""

from pathlib import Path

from vrekit.codecs.presets import PRESETS
from vrekit.codecs.profiles import TABLE, Choice

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "codecs.md").read_text(encoding="utf-8")


def test_every_codec_is_in_the_table_with_its_error() -> None:
    for name, preset in PRESETS.items():
        row = next((line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")), None)
        assert row is not None, f"docs/codecs.md has no row for {name}"
        assert preset.error in row
        assert preset.summary in row


def test_the_profiles_in_the_page_are_those_of_the_code() -> None:
    for title, choices in TABLE.items():
        cells = next(line for line in PAGE.splitlines() if line.startswith(f"| {title} |")).split(" | ")[1:]
        for cell, profile in zip(cells, ("training", "balanced", "archive", "plain"), strict=True):
            assert [name in cell for name in _names(choices[profile])] == [True] * len(_names(choices[profile]))
            bold = cell.split("**")[1]
            choice = choices[profile]
            taken = choice.lossy if choice.lossy is not None and choice.lossy_by_default else choice.lossless
            assert f"`{taken if isinstance(taken, str) else (taken or {})['id']}`" in bold


def _names(choice: Choice) -> list[str]:
    options = [choice.lossless] + ([choice.lossy] if choice.lossy is not None else [])
    return [f"`{option if isinstance(option, str) else option['id']}`" for option in options]
