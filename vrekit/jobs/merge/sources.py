"""The datasets a merge reads; nothing in their folders is ever changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vrekit.catalog.index import source_digests
from vrekit.catalog.manifest import Manifest
from vrekit.catalog.places import check_places
from vrekit.catalog.storage import Storage, open_storage
from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.names import check_local


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset to merge.

    Attributes:
        number: Its place among the sources, from 0.
        storage: Of the dataset.
        digest: Changes when a shard or statistics are added, removed or replaced.
    """

    number: int
    storage: Storage
    digest: str

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.storage.folder

    @property
    def manifest(self) -> Manifest:
        """Its `dataset.json`."""
        return self.storage.manifest

    def has_changed(self) -> bool:
        """Return whether something was written to it since it was opened."""
        return source_digests(self.storage).frames != self.digest

    def open_cells(self) -> int:
        """Return how many cells an interrupted or running export has not committed yet."""
        return len(self.storage.open_cells())

    def read_rows(self, video_id: str, names: frozenset[str], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the metadata rows of one video and some representations, in stored order.

        Raises:
            DatasetError: If a sidecar is damaged or a row does not fit the manifest.
        """
        wanted = None if columns is None else tuple(dict.fromkeys([*columns, "representation", "config_hash"]))
        table = self.storage.rows(wanted, [video_id])
        records = self.manifest.representations
        pairs = table.group_by(["representation", "config_hash"]).aggregate([])
        for row in pairs.to_pylist():
            record = records.get(row["representation"])
            if record is None or record.config_hash != row["config_hash"]:
                raise DatasetError(
                    f"{self.folder}: {video_id} has rows of {row['representation']!r} with config hash "
                    f"{row['config_hash']}, which its dataset.json does not know",
                    hint=f"`vrekit validate {self.folder} --repair` moves them aside",
                )
        return table.filter(pc.is_in(table["representation"], pa.array(sorted(names), pa.string())))


def open_sources(folders: Sequence[Path], output: Path) -> list[Source]:
    """Return the datasets in `folders`.

    Raises:
        UsageError: If one is named twice or is the output, or a path is a URL.
        DatasetError: If one is no dataset, or has links or pipes where its files should be; or if the output has.
    """
    check_local(output)
    seen: dict[Path, Path] = {}
    sources = []
    for number, folder in enumerate(folders):
        place = folder.resolve()
        if place in seen:
            raise UsageError(f"{folder} and {seen[place]} are the same dataset", hint="name each source once")
        if place == output.resolve():
            raise UsageError(f"{output} is one of the sources", hint="choose another folder with -o")
        seen[place] = folder
        storage = open_storage(folder)
        check_places(folder)
        sources.append(Source(number, storage, source_digests(storage).frames))
    check_places(output)
    return sources
