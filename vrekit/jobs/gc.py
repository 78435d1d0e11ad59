"""`vrekit gc`: remove what no reader and no `resume` needs. Nothing that a living process owns is touched."""

import re
from datetime import timedelta
from pathlib import Path

from vrekit.catalog.garbage import GarbageCollector, GcReport
from vrekit.catalog.index import INDEX_FOLDER, index_digest, source_digests
from vrekit.catalog.places import check_places, own_folders
from vrekit.catalog.remote import refuse_remote
from vrekit.catalog.storage import Storage, open_storage
from vrekit.core.reports import timed

DEFAULT_AGE = timedelta(hours=24)
_TEMPORARY = re.compile(r"\..*\.(tmp|merging)")


@timed
def collect_garbage(folder: Path, *, older_than: timedelta = DEFAULT_AGE, dry_run: bool = False) -> GcReport:
    """Remove the leftovers of a dataset.

    Those are: open shards of dead processes that nobody resumed for `older_than`
    (what they hold is computed again when it is wanted); temporary files as old; metadata rows that a better row
    hides, with their payloads; an index that is stale; old versions of Lance tables. A reader that has the dataset
    open must be opened again afterwards.

    Args:
        folder: The dataset.
        older_than: Age from which on work that could still be resumed is given up.
        dry_run: Only say what would be removed.

    Raises:
        DatasetError: If it is no dataset, or the metadata of a shard is damaged (`validate --repair` comes first).
    """
    refuse_remote(folder, "cleared up")
    storage = open_storage(folder)
    check_places(folder)  # what is deleted lies in the dataset
    collector = GarbageCollector(folder, older_than=older_than, dry_run=dry_run)
    storage.collect_garbage(collector)
    _temporary_files(collector)
    _stale_index(storage, collector)
    return collector.report


def _temporary_files(collector: GarbageCollector) -> None:
    """Remove what an interrupted write of a small file left."""
    hidden = [*collector.folder.glob(".*")]
    for name in own_folders():
        hidden += [*(collector.folder / name).glob(".*"), *(collector.folder / name).glob("*/.*")]
    for path in sorted(hidden):
        if _TEMPORARY.fullmatch(path.name) and path.is_file() and collector.is_old(path):
            collector.remove(path, "a temporary file")


def _stale_index(storage: Storage, collector: GarbageCollector) -> None:
    """Remove an index that does not describe the dataset as it is; it is made anew when it is needed."""
    digests = source_digests(storage)
    for path in sorted((storage.folder / INDEX_FOLDER).glob("*.parquet")):
        if index_digest(path) != (digests.samples if path.stem == "samples" else digests.frames):
            collector.remove(path, "a stale index")
