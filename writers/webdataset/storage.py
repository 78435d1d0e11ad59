"""Tar shards as the storage of a dataset; see `Storage` for what each method promises."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from vrekit.catalog.manifest import Manifest
from vrekit.catalog.parquet_files import checksum_of
from vrekit.catalog.remote import RemoteDataset
from vrekit.catalog.runs import ShardFacts
from vrekit.catalog.storage import (
    Copied,
    CopyPlan,
    LostPart,
    PayloadPlaces,
    ShortShard,
    Storage,
    StoredPart,
)
from vrekit.core.errors import DatasetError
from vrekit.core.files import list_folders, listing
from vrekit.core.text import yaml_text
from vrekit.writers.open_frames import count_open_frames
from vrekit.writers.webdataset.members import endings_in
from vrekit.writers.webdataset.payloads import TarPayloads
from vrekit.writers.webdataset.sidecars import (
    PARTIAL_SUFFIX,
    SHARDS_FOLDER,
    OpenSidecar,
    find_sidecars,
    open_sidecars,
    read_opened,
    read_sidecar,
    read_sidecars,
    short_tars,
    split_shard_name,
)
from vrekit.writers.webdataset.tars import LocalTars, Tars

if TYPE_CHECKING:
    from vrekit.catalog.garbage import GarbageCollector
    from vrekit.catalog.payload_checks import PayloadChecker, Problem
    from vrekit.catalog.repairs import Repair
    from vrekit.catalog.rows import GroupedRows
    from vrekit.core.stores import Store
    from vrekit.writers.webdataset.writer import WebDatasetWriter

_PART_BYTES = 4 << 20  # of sidecars that are read at once, about 200,000 rows
_PART_ROWS = 1 << 21  # equal rows take no bytes


class TarStorage(Storage):
    """WebDataset tars with Parquet sidecars."""

    name = "webdataset"
    folder_name = SHARDS_FOLDER

    @classmethod
    def behind_url(cls, remote: RemoteDataset, manifest: Manifest) -> Storage:
        """See Storage."""
        from vrekit.writers.webdataset.remote import RemoteTarStorage

        return RemoteTarStorage(remote, manifest)

    @staticmethod
    def mirror(store: "Store", *, may_be_new: bool = False) -> Path:
        """Return a local folder with the metadata of a dataset behind a URL."""
        from vrekit.writers.webdataset.mirror import mirror

        return mirror(store.location, store=store, may_be_new=may_be_new)

    def _tars(self) -> Tars:
        return LocalTars(self.folder)

    def rows(self, columns: Sequence[str] | None = None, video_ids: Sequence[str] | None = None) -> pa.Table:
        """See Storage."""
        return read_sidecars(find_sidecars(self.folder, video_ids), columns)

    def tables(
        self,
        columns: Sequence[str] | None = None,
        *,
        dictionaries: bool = False,
        lost: list[LostPart] | None = None,  # a damaged sidecar raises: nobody knows what it was about
    ) -> Iterator[pa.Table]:
        """See Storage."""
        videos = groupby(find_sidecars(self.folder), key=lambda path: path.parent)
        for part in _parts((list(of_video) for _, of_video in videos), columns):
            yield read_opened(part, columns, dictionaries=dictionaries)

    def state(self) -> Iterator[bytes]:
        """See Storage."""
        for root in list_folders(self.folder / SHARDS_FOLDER):
            yield listing(root, self.folder, ".parquet")

    def shards(self) -> list[str]:
        """See Storage."""
        sidecars = find_sidecars(self.folder)
        return [path.with_suffix(".tar").relative_to(self.folder).as_posix() for path in sidecars]

    def short_shards(self, rows: pa.Table) -> list[ShortShard]:
        """See Storage; it takes one `stat` a tar."""
        return short_tars(self.folder, rows)

    def open_cells(self) -> list[Path]:
        """See Storage."""
        return sorted((self.folder / SHARDS_FOLDER).glob(f"*/.*.{PARTIAL_SUFFIX}"))

    def open_frames(self) -> dict[str, int]:
        """See Storage."""
        return count_open_frames(self.folder / SHARDS_FOLDER)

    @classmethod
    def parts(cls, folder: Path) -> list[StoredPart]:
        """See Storage."""
        found = []
        for path in find_sidecars(folder):
            if place := split_shard_name(path.stem):
                endings = partial(endings_in, path.with_suffix(".tar"))
                found.append(StoredPart(place[0], (place[1], place[2]), partial(read_sidecar, path), endings))
        return found

    def payloads(self, places: PayloadPlaces) -> TarPayloads:
        """See Storage."""
        return TarPayloads(self.folder, places)

    def writer(self) -> "WebDatasetWriter":
        """See Storage."""
        from vrekit.writers.webdataset.writer import WebDatasetWriter

        manifest = self.manifest
        return WebDatasetWriter(
            self.folder, shard_frames=manifest.shard_frames, shard_size_bytes=manifest.shard_size_bytes
        )

    def check(self, checker: "PayloadChecker") -> None:
        """See Storage."""
        from vrekit.writers.webdataset.check import check_shards

        check_shards(self.folder, self._tars(), checker)

    def recorded(self) -> "Iterator[Problem]":
        """See Storage."""
        from vrekit.writers.webdataset.check import recorded_shards

        return recorded_shards(self.folder, self._tars())

    def shard_facts(self, paths: Collection[str] | None = None) -> dict[str, dict[str, ShardFacts]]:
        """See Storage."""
        found: dict[str, dict[str, ShardFacts]] = {}
        for path in self.shards() if paths is None else paths:
            sidecar = (self.folder / path).with_suffix(".parquet")
            run_ids = read_sidecar(sidecar, ("run_id",))["run_id"]
            checksum = checksum_of(sidecar) or ""
            facts = ShardFacts(bytes=self._tars().size(path), rows=len(run_ids), checksum=checksum)
            found.setdefault(run_ids[0].as_py(), {})[path] = facts
        return found

    def checksums(self) -> Iterator[tuple[Path, bool]]:
        """See Storage."""
        for path in find_sidecars(self.folder):
            with suppress(DatasetError, OSError):
                yield path, checksum_of(path) is not None

    def repair(self, path: str, problems: "Sequence[Problem]", work: "Repair") -> None:
        """See Storage."""
        from vrekit.writers.webdataset.repair import repair_shard

        repair_shard(path, problems, work)

    def collect_garbage(self, collector: "GarbageCollector") -> None:
        """See Storage."""
        from vrekit.writers.webdataset.garbage import collect

        collect(self.folder, self.manifest, collector)

    def copied_bytes(self, rows: "GroupedRows", sources: Sequence[Storage]) -> int:
        """See Storage: of tars, headers and padding are copied, too."""
        from vrekit.writers.webdataset.packing import member_sizes

        return int(np.sum(member_sizes(rows))) if _are_tars(sources) else rows.payload_bytes

    def copy_from(self, plan: CopyPlan) -> Copied:
        """See Storage: from tars, shards are put together from ranges of the sources' shards."""
        from vrekit.writers.webdataset.commit_shards import commit_shards
        from vrekit.writers.webdataset.new_shard import new_shards

        if not _are_tars([source.storage for source in plan.sources]):
            return Copied()
        shards = new_shards(self.folder, self.manifest, plan)
        done = commit_shards(shards, plan.advance, link=plan.link, sync=plan.sync)
        return Copied(is_complete=True, shards=done.written, kept_whole=done.kept_whole, already=done.already)

    def finish(self, run_ids: Sequence[str]) -> None:
        """See Storage: remove what killed calls left."""
        from vrekit.writers.webdataset.new_shard import TEMPORARY_SUFFIX

        for path in (self.folder / SHARDS_FOLDER).glob("*/.*"):
            if path.name.endswith((TEMPORARY_SUFFIX, ".tmp")):
                os.unlink(path)

    def card_configs(self) -> list[str]:
        """See Storage: without them, `datasets` would load the Parquet sidecars and see a test split in `test_…`."""
        manifest = self.manifest
        # the default has samples with every representation, not one with clips
        clips = {record.group for record in manifest.representations.values() if record.clips}
        default = next((group for group in manifest.groups if group not in clips), next(iter(manifest.groups), None))
        lines = ["configs:"]
        for group in manifest.groups:
            lines += [f"- config_name: {yaml_text(group)}"]
            lines += ["  default: true"] if group == default else []
            path = yaml_text(f"{SHARDS_FOLDER}/*/{group}-????????-*.tar")
            lines += ["  data_files:", "  - split: train", f"    path: {path}"]
        infos = [line for group in manifest.groups for line in self._columns(group)]
        return [*lines, "dataset_info:", *infos] if infos else lines

    def _columns(self, group: str) -> list[str]:
        """Return the columns of a group's samples, none if one of them is of a kind that is not known here."""
        from vrekit.catalog.card_features import column_type

        types = {
            f"{name}.{record.suffix}": column_type(name, record)
            for name, record in self.manifest.representations.items()
            if record.group == group
        }
        if None in types.values():
            return []
        lines = [f"- config_name: {yaml_text(group)}", "  features:"]
        for name, kind in {**types, "__key__": "dtype: string", "__url__": "dtype: string"}.items():
            lines.append(f"  - {{name: {yaml_text(name)}, {kind}}}")
        return lines

    def card_text(self) -> str:
        """See Storage."""
        return (
            "Without it: the shards are plain WebDataset tars (samples `<video>/<frame>.<representation>.<ext>`); the "
            "`.parquet` file beside each tar has one row per frame and representation, with the payload's place in the "
            "tar, its CRC-32, dtype and shape. `dataset.json` says how each representation was computed and encoded."
            "\n\n"
            "A sample may lack representations: frames fail, and merged datasets differ. `datasets.load_dataset` on "
            "this folder takes the columns from this card and has None there. The builder `webdataset` on its own "
            "takes the columns of the first samples and drops all others silently, unless it is given `features=`."
        )


def _parts(videos: Iterable[list[Path]], columns: Sequence[str] | None) -> Iterator[list[OpenSidecar]]:
    """Yield the sidecars of whole videos, so many that reading them at once pays, and takes little memory."""
    gathered: list[list[Path]] = []
    size = 0
    for paths in videos:
        gathered.append(paths)
        size += sum(path.stat().st_size for path in paths)
        if size >= _PART_BYTES:
            yield from _few_rows(gathered, columns)
            gathered, size = [], 0
    yield from _few_rows(gathered, columns)


def _few_rows(videos: Sequence[list[Path]], columns: Sequence[str] | None) -> Iterator[list[OpenSidecar]]:
    """Yield the sidecars of videos at once, or of fewer videos where they have very many rows for their bytes."""
    opened = iter(open_sidecars([path for paths in videos for path in paths], columns))
    part: list[OpenSidecar] = []
    for paths in videos:
        of_video = list(islice(opened, len(paths)))
        if part and sum(sidecar.rows for sidecar in (*part, *of_video)) > _PART_ROWS:
            yield part
            part = []
        part = part + of_video
    if part:
        yield part


def _are_tars(sources: Sequence[Storage]) -> bool:
    return all(type(source) is TarStorage for source in sources)  # those behind URLs have no files to copy from
