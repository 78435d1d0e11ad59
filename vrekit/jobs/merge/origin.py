"""`origin.json`: what a dataset that was not exported was made from."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from vrekit import __version__
from vrekit.catalog.manifest import ORIGIN_NAME
from vrekit.catalog.remote import location_of
from vrekit.catalog.runs import now_iso
from vrekit.core.documents import document_bytes, read_document
from vrekit.core.files import is_temporary, write_atomic
from vrekit.jobs.merge.manifests import Layout, OnConflict
from vrekit.jobs.merge.sources import Source

LOCK_NAME = ".merge.lock"  # held while a process makes the dataset
_LOCKS = (LOCK_NAME, ".lock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a merge was asked to do, and when.

    Attributes:
        sources: `folder` (absolute) and `digest` of each source, in order.
        options: Layout and conflict rule.
        created_with: Version of vrekit.
        started_at: When the first call began, UTC.
        finished_at: When it was finished, None before.
    """

    sources: tuple[dict[str, str], ...]
    options: dict[str, Any]
    created_with: str
    started_at: str
    finished_at: str | None = None

    @classmethod
    def of(cls, sources: Sequence[Source], layout: Layout, on_conflict: OnConflict) -> Self:
        """Return the origin of a merge that begins now."""
        return cls(
            sources=tuple({"folder": location_of(source.folder), "digest": source.digest} for source in sources),
            options={**asdict(layout), "on_conflict": on_conflict},
            created_with=__version__,
            started_at=now_iso(),
        )

    def is_same(self, other: "Origin") -> bool:
        """Return whether both give the same result."""
        return self.sources == other.sources and self.options == other.options

    def describe_difference(self, other: "Origin") -> str:
        """Return in what two merges differ, for people."""
        folders, others = ([source["folder"] for source in one.sources] for one in (self, other))
        if folders != others:
            return f"it merges {', '.join(folders)}"
        if self.options != other.options:
            changed = [name for name, value in self.options.items() if other.options.get(name) != value]
            return ", ".join(f"{name} was {self.options[name]}" for name in changed)
        changed = [a["folder"] for a, b in zip(self.sources, other.sources, strict=True) if a != b]
        return f"{', '.join(changed)} was written to since it began"

    def write(self, folder: Path) -> None:
        """Write the file, durably."""
        path = folder / ORIGIN_NAME
        write_atomic(path, document_bytes({"format": 2, **asdict(self)}, str(path)))

    def finished(self) -> Self:
        """Return the origin of a merge that ends now."""
        return replace(self, finished_at=now_iso())


def is_untouched(output: Path) -> bool:
    """Return whether nothing is there yet but, at most, what a call leaves that was killed at its very start."""
    if not output.exists():
        return True
    return output.is_dir() and all(entry.name in _LOCKS or is_temporary(entry) for entry in output.iterdir())


def read_origin(folder: Path) -> Origin | None:
    """Return what a dataset was made from, None if it says nothing about that.

    Raises:
        DatasetError: If the file is damaged.
    """
    try:
        fields = read_document(folder / ORIGIN_NAME, hint="nothing else needs it: delete it").fields
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Origin(
        sources=tuple(
            {"folder": source.text("folder"), "digest": source.text("digest", max_length=1000)}
            for source in fields.list_of("sources")
        ),
        options=fields.fields("options").raw(),
        created_with=fields.text("created_with", max_length=1000),
        started_at=fields.text("started_at", max_length=100),
        finished_at=fields.text("finished_at", None, max_length=100),
    )
