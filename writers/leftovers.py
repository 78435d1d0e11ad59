"""Cells under construction that nobody goes on with."""

from collections.abc import Callable, Sequence
from pathlib import Path

from vrekit.catalog.garbage import GarbageCollector


def collect_open_cells(
    collector: GarbageCollector,
    root: Path,
    prefix: str,
    suffix: str,
    belonging: Callable[[Sequence[Path]], Sequence[Path]] = lambda _: (),
) -> None:
    """Remove open cells that nobody owns and nobody touched for long.

    Args:
        collector: Removes them.
        root: Folder with a folder for each video.
        prefix: Of the working files' names.
        suffix: Of the file that holds the payloads.
        belonging: Returns more files that go with the working files of a cell.
    """
    stems = {
        path.parent / path.name.removesuffix(f".{ending}")
        for ending in (suffix, "journal", "lock")
        for path in root.glob(f"*/{prefix}*.{ending}")
    }
    for stem in sorted(stems):
        lock, *files = (stem.with_name(f"{stem.name}.{ending}") for ending in ("lock", suffix, "journal"))
        with collector.owned(lock) as is_mine:
            there = [path for path in files if path.exists()]
            if not is_mine:
                collector.keep(lock, "a process is writing it")
            elif not all(map(collector.is_old, there)):
                collector.keep(there[0], "an interrupted export that `vrekit resume` can go on with")
            else:
                for path in [*belonging(there), *there]:
                    collector.remove(path, "an interrupted export that nobody resumed")
