"""Rows and writers of datasets whose manifest a test has in hand, or that have none yet."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from vrekit.catalog.cells import DatasetWriter
from vrekit.catalog.manifest import Manifest
from vrekit.catalog.progress import Progress
from vrekit.catalog.progress import read_progress as progress_of_storage
from vrekit.catalog.storage import PayloadPlaces, PayloadReader, Storage, open_storage, storage_type, stored_types


def storage_in(folder: Path) -> Storage:
    """Return the storage whose folder is in a dataset, which needs no manifest."""
    kind = next(iter(stored_types(folder)), storage_type("webdataset"))
    return kind(folder, Manifest(writer=kind.name, layout="sample", shard_frames=1, shard_size_bytes=1))


def read_samples(
    folder: Path, *, columns: Sequence[str] | None = None, video_ids: Sequence[str] | None = None
) -> pa.Table:
    """Return the metadata rows of a dataset."""
    return storage_in(folder).rows(columns, video_ids)


def read_progress(folder: Path, video_id: str) -> Progress:
    """Return which frames of a video are stored."""
    return progress_of_storage(storage_in(folder), video_id)


def open_writer(folder: Path, manifest: Manifest) -> DatasetWriter:
    """Return what adds samples to a dataset."""
    return open_storage(folder, manifest).writer()


def open_payloads(folder: Path, manifest: Manifest, places: PayloadPlaces) -> PayloadReader:
    """Return what reads payloads of a dataset."""
    return open_storage(folder, manifest).payloads(places)
