"""The files of a dataset beside its payloads: are their bytes those that were written, and can that be known at all?"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from vrekit.catalog.index import INDEX_FOLDER, false_files
from vrekit.catalog.items import ITEMS_FOLDER
from vrekit.catalog.manifest import MANIFEST_NAME, Manifest
from vrekit.catalog.parquet_files import check_parquet, check_text, checksum_of, map_parquet
from vrekit.catalog.payload_checks import Problem
from vrekit.catalog.runs import RUNS_FOLDER
from vrekit.catalog.statistics import STATISTICS_FOLDER, read_statistics
from vrekit.catalog.storage import Storage
from vrekit.core.documents import read_document
from vrekit.core.errors import DatasetError
from vrekit.core.files import list_files, list_folders


def file_problems(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """Yield the damaged ones among the files that repeat or measure what payloads hold."""
    for path in _derived_files(folder):
        reason = None
        try:
            check_parquet(path)
            with map_parquet(path, dictionaries=True) as file:
                for number in range(file.num_row_groups):
                    check_text(file.read_row_group(number), path)
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


def false_indexes(storage: Storage) -> Iterator[Problem]:
    """Yield the files of the index that do not hold what the metadata of the shards says."""
    try:
        for path in false_files(storage):
            message = "it says other things than the metadata it was made from; it can be deleted, and made anew"
            yield Problem(code="derived", path=path.relative_to(storage.folder).as_posix(), message=message)
    except (DatasetError, OSError, pa.ArrowException):
        return  # metadata that is damaged is reported elsewhere


def _derived_files(folder: Path) -> Iterator[Path]:
    for name in (INDEX_FOLDER, STATISTICS_FOLDER, ITEMS_FOLDER):
        for inside in (folder / name, *list_folders(folder / name)):
            yield from (inside / entry.name for entry in list_files(inside, _is_parquet))


def _is_parquet(name: str) -> bool:
    return name.endswith(".parquet") and name[0] != "."


def unprotected_files(storage: Storage) -> Iterator[Problem]:
    """Yield one warning for each kind of file of which some have no checksum, as older versions wrote them."""
    counts: Counter[str] = Counter()
    unprotected: Counter[str] = Counter()
    for path, is_protected in (*_documents(storage.folder), *storage.checksums(), *_of_derived_files(storage.folder)):
        relative = path.relative_to(storage.folder)
        counts[relative.parts[0]] += 1
        unprotected[relative.parts[0]] += not is_protected
    for kind, count in unprotected.items():
        if count:
            message = (
                f"{count} of {counts[kind]} such files have no checksum, so changed bytes in them may go unseen: "
                "an older version wrote them"
            )
            yield Problem(code="unprotected", path=kind, message=message)


def _documents(folder: Path) -> Iterator[tuple[Path, bool]]:
    for path in (folder / MANIFEST_NAME, *(folder / RUNS_FOLDER).glob("*.json")):
        with suppress(DatasetError, OSError):  # reported as a problem
            yield path, read_document(path).is_protected


def _of_derived_files(folder: Path) -> Iterator[tuple[Path, bool]]:
    for path in _derived_files(folder):
        with suppress(DatasetError, OSError):
            yield path, checksum_of(path) is not None
