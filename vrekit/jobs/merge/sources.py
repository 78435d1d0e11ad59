"""The datasets a merge reads; nothing in their folders is ever changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vrekit.catalog.index import source_digests
from vrekit.catalog.manifest import Manifest, read_manifest
from vrekit.catalog.places import check_places
from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.names import check_local
from vrekit.writers.lance.rows import OPEN_FOLDER, TABLES_FOLDER
from vrekit.writers.webdataset.sidecars import SHARDS_FOLDER, read_samples


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset to merge.

    Attributes:
        number: Its place among the sources, from 0.
        folder: Where it lies.
        manifest: Its `dataset.json`.
        digest: Changes when a shard or statistics are added, removed or replaced.
    """

    number: int
    folder: Path
    manifest: Manifest
    digest: str

    def has_changed(self) -> bool:
        """Return whether something was written to it since it was opened."""
        return source_digests(self.folder, self.manifest).frames != self.digest

    def open_cells(self) -> int:
        """Return how many cells an interrupted or running export has not committed yet."""
        partials = [
            *(self.folder / SHARDS_FOLDER).glob("*/.*.tar.partial"),
            *(self.folder / TABLES_FOLDER / OPEN_FOLDER).glob("*/*.payloads"),
        ]
        return len(partials)

    def read_rows(self, video_id: str, names: frozenset[str], columns: Sequence[str] | None = None) -> pa.Table:
        """Return the metadata rows of one video and some representations, in stored order.

        Raises:
            DatasetError: If a sidecar is damaged or a row does not fit the manifest.
        """
        wanted = None if columns is None else tuple(dict.fromkeys([*columns, "representation", "config_hash"]))
        table = read_samples(self.folder, columns=wanted, video_ids=[video_id])
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
        manifest = read_manifest(folder)
        check_places(folder)
        sources.append(Source(number, folder, manifest, source_digests(folder, manifest).frames))
    check_places(output)
    return sources
