"""Lance tables as the storage of a dataset; see `Storage` for what each method promises."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from vrekit.catalog.storage import Copied, CopyPlan, LostPart, PayloadPlaces, Storage, StoredPart
from vrekit.core.errors import DatasetError
from vrekit.core.files import listing
from vrekit.writers.lance.payloads import LancePayloads
from vrekit.writers.lance.rows import (
    OPEN_FOLDER,
    PARTIAL_SUFFIX,
    TABLES_FOLDER,
    LostFragment,
    find_tables,
    lance_samples,
    open_table,
)
from vrekit.writers.open_frames import count_open_frames

if TYPE_CHECKING:
    from vrekit.catalog.garbage import GarbageCollector
    from vrekit.catalog.payload_checks import PayloadChecker, Problem
    from vrekit.catalog.repairs import Repair
    from vrekit.writers.lance.writer import LanceWriter


class LanceStorage(Storage):
    """Lance tables, one for each group of representations."""

    name = "lance"
    folder_name = TABLES_FOLDER
    holds_runs_apart = True
    copies_whole_parts = True

    def rows(self, columns: Sequence[str] | None = None, video_ids: Sequence[str] | None = None) -> pa.Table:
        """See Storage."""
        return lance_samples(self.folder, columns, video_ids)

    def tables(
        self,
        columns: Sequence[str] | None = None,
        *,
        dictionaries: bool = False,  # Lance gives text as text
        lost: list[LostPart] | None = None,
    ) -> Iterator[pa.Table]:
        """See Storage; all rows come as one table."""
        found: list[LostFragment] = []
        table = lance_samples(self.folder, columns, lost=None if lost is None else found)
        if lost is not None:
            lost += found
        yield table

    def state(self) -> Iterator[bytes]:
        """See Storage."""
        for table in find_tables(self.folder):
            yield listing(table / "_versions", self.folder, ".manifest")

    def shards(self) -> list[str]:
        """See Storage."""
        return [path.relative_to(self.folder).as_posix() for path in find_tables(self.folder)]

    def open_cells(self) -> list[Path]:
        """See Storage."""
        return sorted((self.folder / TABLES_FOLDER / OPEN_FOLDER).glob(f"*/*.{PARTIAL_SUFFIX}"))

    def open_frames(self) -> dict[str, int]:
        """See Storage."""
        return count_open_frames(self.folder / TABLES_FOLDER / OPEN_FOLDER)

    @classmethod
    def parts(cls, folder: Path) -> list[StoredPart]:
        """See Storage."""
        return [StoredPart(path.stem, None, partial(_rows_of_table, folder, path)) for path in find_tables(folder)]

    def payloads(self, places: PayloadPlaces) -> LancePayloads:
        """See Storage."""
        return LancePayloads(self.folder, places)

    def writer(self) -> "LanceWriter":
        """See Storage."""
        from vrekit.writers.lance.writer import LanceWriter

        manifest = self.manifest
        return LanceWriter(
            self.folder,
            groups=manifest.groups,
            shard_frames=manifest.shard_frames,
            shard_size_bytes=manifest.shard_size_bytes,
        )

    def check(self, checker: "PayloadChecker") -> None:
        """See Storage."""
        from vrekit.writers.lance.check import check_tables

        check_tables(self, checker)

    def checksums(self) -> Iterator[tuple[Path, bool]]:
        """See Storage."""
        from vrekit.writers.lance.ledger import listed_files

        for table in find_tables(self.folder):
            with suppress(DatasetError, OSError):
                listed, unlisted = listed_files(open_table(table))
                yield from ((table / name, True) for name in listed)
                yield from ((table / name, False) for name in unlisted)

    def repair(self, path: str, problems: "Sequence[Problem]", work: "Repair") -> None:
        """See Storage."""
        from vrekit.writers.lance.repair import repair_table

        repair_table(path, problems, work)

    def collect_garbage(self, collector: "GarbageCollector") -> None:
        """See Storage."""
        from vrekit.writers.lance.garbage import collect

        collect(self.folder, self.writer(), collector)

    def copy_from(self, plan: CopyPlan) -> Copied:
        """See Storage: fragments of Lance tables are copied whole where every row of them is part of the result."""
        from vrekit.writers.lance.copying import copy_fragments

        count = copy_fragments(self, plan)
        return Copied(shards=count, kept_whole=count)

    def finish(self, run_ids: Sequence[str]) -> None:
        """See Storage."""
        from vrekit.writers.lance.copying import finish_tables

        finish_tables(self.folder, self.manifest, run_ids)

    def card_text(self) -> str:
        """See Storage."""
        return (
            "Without it: `lance/<group>.lance` are Lance tables with one row per frame. Column `<representation>` has "
            "the payloads (`lance.dataset(path).read_blobs(column, indices=[...])`), `<representation>:<field>` their "
            "CRC-32, dtype, shape and so on; `dataset.json` says how each representation was computed and encoded."
        )


def _rows_of_table(folder: Path, path: Path, columns: Sequence[str]) -> pa.Table:
    return lance_samples(folder, columns, table=path, lost=[])
