"""The files of a dataset beside its payloads: are their bytes those that were written, and can that be known at all?"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from vrekit.catalog.index import INDEX_FOLDER, false_files
from vrekit.catalog.items import ITEMS_FOLDER
from vrekit.catalog.lance_ledger import listed_files
from vrekit.catalog.lance_samples import TABLES_FOLDER, find_tables, open_table
from vrekit.catalog.manifest import MANIFEST_NAME, Manifest
from vrekit.catalog.parquet_files import check_parquet, checksum_of, map_parquet
from vrekit.catalog.payload_checks import Problem
from vrekit.catalog.runs import RUNS_FOLDER, ShardFacts, scan_runs
from vrekit.catalog.samples import find_sidecars
from vrekit.catalog.statistics import STATISTICS_FOLDER, read_statistics
from vrekit.core.documents import read_document
from vrekit.core.errors import DatasetError
from vrekit.core.files import list_files, list_folders


def file_problems(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """Yield the damaged ones among the files that repeat or measure what payloads hold."""
    for path in _derived_files(folder):
        reason = None
        try:
            check_parquet(path)
            with map_parquet(path) as file:
                for number in range(file.num_row_groups):
                    file.read_row_group(number)
            if path.parent.name == STATISTICS_FOLDER and path.stem in manifest.videos:
                read_statistics(folder, path.stem)
        except FileNotFoundError:
            continue  # made anew meanwhile
        except DatasetError as error:
            reason = error.message.removeprefix(f"{path} is damaged: ")
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            reason = str(error).split("\n")[0]
        if reason is not None:
            message = f"it is damaged: {reason}; it can be deleted, and made anew"
            yield Problem(code="derived", path=path.relative_to(folder).as_posix(), message=message)


def false_indexes(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """Yield the files of the index that do not hold what the metadata of the shards says."""
    try:
        for path in false_files(folder, manifest):
            message = "it says other things than the metadata it was made from; it can be deleted, and made anew"
            yield Problem(code="derived", path=path.relative_to(folder).as_posix(), message=message)
    except (DatasetError, OSError, pa.ArrowException):
        return  # metadata that is damaged is reported elsewhere


def _derived_files(folder: Path) -> Iterator[Path]:
    for name in (INDEX_FOLDER, STATISTICS_FOLDER, ITEMS_FOLDER):
        for inside in (folder / name, *list_folders(folder / name)):
            yield from (inside / entry.name for entry in list_files(inside, _is_parquet))


def _is_parquet(name: str) -> bool:
    return name.endswith(".parquet") and name[0] != "."


def recorded_shards(folder: Path) -> Iterator[Problem]:
    """Yield the shards that are not what a run recorded when it committed them."""
    facts: dict[str, tuple[str, ShardFacts]] = {}
    try:
        for record in scan_runs(folder)[0]:
            facts.update((path, (record.run_id, shard)) for path, shard in record.shards.items())
    except DatasetError:
        return  # reported elsewhere
    for path, (run_id, shard) in facts.items():
        tar = folder / path
        try:
            checksum = checksum_of(tar.with_suffix(".parquet"))
            size = tar.stat().st_size
        except FileNotFoundError:
            if not tar.with_suffix(".parquet").exists():
                message = f"run {run_id} stored {shard.rows} rows there, and its metadata is gone"
                yield Problem(code="lost-shard", path=path, message=message)
            continue
        except (DatasetError, OSError):
            continue
        if checksum != shard.checksum or size != shard.bytes:
            message = f"it is another file than run {run_id} wrote; if you replaced it, --repair forgets the old one"
            yield Problem(code="replaced-shard", path=path, message=message)


def unprotected_files(folder: Path) -> Iterator[Problem]:
    """Yield one warning for each kind of file of which some have no checksum, as older versions wrote them."""
    counts: Counter[str] = Counter()
    unprotected: dict[str, list[Path]] = {}
    for path in (folder / MANIFEST_NAME, *(folder / RUNS_FOLDER).glob("*.json")):
        kind = RUNS_FOLDER if path.parent.name == RUNS_FOLDER else MANIFEST_NAME
        counts[kind] += 1
        try:
            if not read_document(path).is_protected:
                unprotected.setdefault(kind, []).append(path)
        except (DatasetError, OSError):
            continue  # reported as a problem
    for path in (*find_sidecars(folder), *_derived_files(folder)):
        kind = path.relative_to(folder).parts[0]
        counts[kind] += 1
        try:
            if checksum_of(path) is None:
                unprotected.setdefault(kind, []).append(path)
        except (DatasetError, OSError):
            continue
    for table in find_tables(folder):
        try:
            listed, unlisted = listed_files(open_table(table))
        except (DatasetError, OSError):
            continue
        counts[TABLES_FOLDER] += len(listed) + len(unlisted)
        if unlisted:
            unprotected.setdefault(TABLES_FOLDER, []).extend(table / path for path in unlisted)
    for kind, paths in unprotected.items():
        message = (
            f"{len(paths)} of {counts[kind]} such files have no checksum, so changed bytes in them may go unseen: "
            "an older version wrote them"
        )
        yield Problem(code="unprotected", path=kind, message=message)
