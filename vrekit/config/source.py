"""Where the keys of a config stand in its file, and the mistakes found there."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

KeyPath = tuple[str | int, ...]
_SIMPLE_KEY = re.compile(r"[\w()+\-<]+")


@dataclass(frozen=True, slots=True)
class SourceMap:
    """Lines and columns (from 1) of the keys of one config.

    Attributes:
        source: Name of the file, as messages show it.
        positions: Path of a key → (line, column).
    """

    source: str
    positions: Mapping[KeyPath, tuple[int, int]] = field(default_factory=dict, repr=False)

    def locate(self, path: KeyPath) -> tuple[int, int]:
        """Return (line, column) of a key, or of the closest key around it that stands in the file."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.positions:
                return self.positions[path[:length]]
        return (1, 1)

    def position(self, path: KeyPath) -> str:
        """Return `"file:line"` of a key."""
        return f"{self.source}:{self.locate(path)[0]}"


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong, at one key.

    Attributes:
        path: The key.
        text: What is wrong, and what would be right.
        place: (line, column) where that is not simply the key's, as for a key that is given twice.
    """

    path: KeyPath
    text: str
    place: tuple[int, int] | None = None


def render(mistakes: Iterable[Mistake], source_map: SourceMap) -> list[str]:
    """Return `file:line: key: what is wrong` for each mistake, in the order of the file."""
    placed = sorted(
        (
            mistake.place or source_map.locate(mistake.path),
            f"{spell(mistake.path)}: " if mistake.path else "",
            mistake.text,
        )
        for mistake in mistakes
    )
    return list(dict.fromkeys(f"{source_map.source}:{place[0]}: {key}{text}" for place, key, text in placed))


def spell(path: KeyPath) -> str:
    """Return a path as text: `representations.rgb.dependencies[0]`; odd keys are quoted."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += ("." if text else "") + (key if _SIMPLE_KEY.fullmatch(key) else repr(key))
    return text
