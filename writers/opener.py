"""The writer a dataset's manifest asks for."""

from pathlib import Path

from vrekit.catalog.cells import DatasetWriter
from vrekit.catalog.manifest import WRITERS, Manifest
from vrekit.core.errors import UsageError
from vrekit.writers.lance.writer import LanceWriter
from vrekit.writers.webdataset.writer import WebDatasetWriter


def open_writer(folder: Path, manifest: Manifest) -> DatasetWriter:
    """Return the writer for the dataset in `folder`."""
    if manifest.writer == "webdataset":
        return WebDatasetWriter(folder, shard_frames=manifest.shard_frames, shard_size_bytes=manifest.shard_size_bytes)
    if manifest.writer == "lance":
        return LanceWriter(
            folder,
            groups=manifest.groups,
            shard_frames=manifest.shard_frames,
            shard_size_bytes=manifest.shard_size_bytes,
        )
    raise UsageError(f"unknown writer {manifest.writer!r}", hint=f"known writers: {', '.join(WRITERS)}")
