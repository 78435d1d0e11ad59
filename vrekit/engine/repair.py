"""`validate --repair`: what is damaged is moved aside, so that `resume` computes it again; what is good stays.

quarantine/<time>/problems.json          what was wrong
quarantine/<time>/<video>/<member>       payloads that were taken out of a shard or table
quarantine/<time>/shards/…               tars and sidecars that could not be read at all
quarantine/<time>/lance/…                fragments, versions and tables that could not be read at all
"""

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vrekit.catalog.lance_blobs import payload_pieces
from vrekit.catalog.lance_ledger import check_ledger, data_files_of, record_files
from vrekit.catalog.lance_places import data_file
from vrekit.catalog.lance_probe import harmful_fragments
from vrekit.catalog.lance_samples import LostFragment, column_name, lance_samples, open_table, quoted
from vrekit.catalog.manifest import Manifest, read_manifest
from vrekit.catalog.payload_checks import Problem
from vrekit.catalog.places import check_places
from vrekit.catalog.quarantine import move_aside, new_quarantine
from vrekit.catalog.runs import forget_shards
from vrekit.catalog.samples import find_sidecars, read_sidecar
from vrekit.catalog.tar_members import read_members
from vrekit.core.checksum import crc32_of_range
from vrekit.core.errors import DatasetError, LockedError
from vrekit.core.files import copy_atomic, open_regular, storage_errors, write_atomic
from vrekit.core.lance_errors import reading_lance
from vrekit.engine.merge.rows import payload_numbers
from vrekit.engine.shards import member_name, own_cell, rewrite_shard
from vrekit.writers.lance_table import LanceTable, repair_tags
from vrekit.writers.lance_upkeep import mend_indexes

if TYPE_CHECKING:
    import lance

# Problems of single payloads; of these, `place` and a damaged tar say nothing about the payload's bytes.
_BAD_PAYLOAD = {"checksum", "decode", "layout", "unknown"}
_BAD_PLACE = {"place", "orphan"}
_BAD_FILE = {"row", "sidecar", "missing-shard"}
_OF_COPIES = {"index", "tag"}  # of a Lance table; they are made anew
_OF_TABLES = _OF_COPIES | {"fragment", "lost-table", "version"}
_OF_RECORDS = {"lost-shard", "replaced-shard"}  # the records of runs forget them
REPAIRED = _BAD_PAYLOAD | _BAD_PLACE | _BAD_FILE | _OF_TABLES | _OF_RECORDS | {"derived"}

Key = tuple[str, int, str]
_KEY = ["video_id", "frame_index", "representation"]


@dataclass(slots=True, kw_only=True)
class RepairReport:
    """What a repair did.

    Attributes:
        quarantine: Where the damaged samples are now, relative to the dataset; None when there were none.
        samples: Samples taken out, `video/frame.representation`.
        shards: Shards written anew or, for Lance, tables from which rows were deleted.
        left: What was not repaired, and why.
    """

    quarantine: str | None = None
    samples: list[str] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return asdict(self)


def repair(folder: Path, problems: Sequence[Problem]) -> RepairReport:
    """Move aside what `validate` found damaged.

    A shard is written anew without its damaged payloads; payloads whose tar header alone is damaged stay. The new
    shard is durable before the old one goes. In a Lance table, the whole row of the frame goes, and fragments that
    cannot be read; indexes and tags are made anew, and the last version that opens becomes the latest.

    Args:
        folder: The dataset.
        problems: Of `validate`; warnings are not repaired.

    Raises:
        DatasetError: If a table cannot be read.
    """
    manifest = read_manifest(folder)
    check_places(folder)
    report = RepairReport()
    work = _Repair(folder, manifest, report)
    by_file: dict[str, list[Problem]] = {}
    left: list[Problem] = []
    for problem in problems:
        if problem.code in REPAIRED:
            by_file.setdefault(problem.path, []).append(problem)
        else:
            left.append(problem)
    if noted := [problem for some in by_file.values() for problem in some if problem.code not in _OF_COPIES]:
        work.write_problems(noted)
    if by_file:
        forget_shards(folder, {str(PurePosixPath(path).with_suffix(".tar")) for path in by_file})
    for path, some in by_file.items():
        try:
            if {one.code for one in some} <= _OF_RECORDS:
                report.shards.append(path)
            elif some[0].code == "derived":
                work.repair_derived(path)
            elif path.endswith(".lance"):
                work.repair_table(path, some)
            elif work.is_loose_tar(some[0]):
                work.set_tar_aside(folder / path)
            else:
                work.repair_shard(folder / path, some)
        except LockedError as error:
            report.left.append(f"{path}: {error.message}")
    report.left += [
        f"{problem.path}: {problem.code} ({_HINTS.get(problem.code, 'cannot be repaired')})"
        for problem in left
        if not work.has_settled(problem)
    ]
    return report


_HINTS = {
    "duplicate": "`vrekit gc` removes what is stored twice",
    "codec": "install what it needs, or restore dataset.json from a backup",
    "storage": "`vrekit merge` of this dataset into a new one leaves it out",
    "unreadable": "check its permissions",
    "unfinished": "`vrekit resume` goes on with it",
    "table": "what the message names is the reason, not damage",
}


class _Repair:
    def __init__(self, folder: Path, manifest: Manifest, report: RepairReport) -> None:
        self.folder = folder
        self.manifest = manifest
        self.report = report
        self.quarantine = new_quarantine(folder)
        self._dropped: set[Key] = set()  # of a shard, because another one has them too

    def is_loose_tar(self, problem: Problem) -> bool:
        """Return whether a problem is a tar without a sidecar."""
        return problem.code == "orphan" and not (self.folder / problem.path).with_suffix(".parquet").exists()

    def has_settled(self, problem: Problem) -> bool:
        """Return whether the repair of shards did away with a problem: those of a repair that was stopped half-way."""
        if problem.code == "orphan":
            return not self.is_loose_tar(problem)
        return problem.code == "duplicate" and _key(problem) in self._dropped

    def set_tar_aside(self, tar: Path) -> None:
        """Move a tar without a sidecar to quarantine, unless `resume` goes on with it."""
        lock = own_cell(tar.with_suffix(".parquet"), self.manifest)
        try:
            stem = lock.path.name.removesuffix(".lock")
            if any(tar.with_name(f"{stem}.{ending}").exists() for ending in ("journal", "tar.partial")):
                name = tar.relative_to(self.folder).as_posix()
                self.report.left.append(f"{name}: orphan ({_HINTS['unfinished']})")
            else:
                self._move_aside(tar)
                self.report.shards.append(tar.relative_to(self.folder).as_posix())
        finally:
            lock.release()

    def write_problems(self, problems: Sequence[Problem]) -> None:
        """Make the quarantine folder and note in it what was wrong."""
        with storage_errors(self.quarantine):
            self.quarantine.mkdir(parents=True)
        text = json.dumps([asdict(problem) for problem in problems], indent=2, ensure_ascii=False)
        write_atomic(self.quarantine / "problems.json", text.encode() + b"\n")
        self.report.quarantine = self.quarantine.relative_to(self.folder).as_posix()

    def repair_derived(self, path: str) -> None:
        """Move aside a file that is made anew when it is needed."""
        self._move_aside(self.folder / path)
        self.report.shards.append(path)

    # -- tar shards ------------------------------------------------------------------------------------------------

    def repair_shard(self, path: Path, problems: Sequence[Problem]) -> None:
        """Repair one shard, named by its tar or its sidecar."""
        sidecar, tar = path.with_suffix(".parquet"), path.with_suffix(".tar")
        codes = {problem.code for problem in problems}
        lock = own_cell(sidecar, self.manifest)
        try:
            if codes & _BAD_FILE:
                self._move_aside(sidecar, tar)
            else:
                self._take_out(sidecar, tar, problems)
            self.report.shards.append(tar.relative_to(self.folder).as_posix())
        finally:
            lock.release()

    def _move_aside(self, *paths: Path) -> None:
        move_aside(self.folder, self.quarantine, *paths)

    def _take_out(self, sidecar: Path, tar: Path, problems: Sequence[Problem]) -> None:
        table = read_sidecar(sidecar)
        payload_of = payload_numbers(table)
        bad_keys = {_key(problem) for problem in problems if problem.code in _BAD_PAYLOAD}
        rows = table.select([*_KEY, "byte_offset", "byte_size", "checksum"]).to_pylist()
        keys = [(row["video_id"], row["frame_index"], row["representation"]) for row in rows]
        elsewhere = self._stored_elsewhere(sidecar, table)
        # A problem is told once of a payload that frames share, with the first of them.
        bad = {number for number, key in zip(payload_of.tolist(), keys, strict=True) if key in bad_keys}
        with os.fdopen(open_regular(tar), "rb") as file:
            for number in np.flatnonzero(payload_of == np.arange(len(table))).tolist():
                row = rows[number]
                place = (file.fileno(), row["byte_offset"], row["byte_size"])
                if number in bad or crc32_of_range(*place) != row["checksum"]:
                    bad.add(number)
                    copy_atomic(self._place_of(row, note=keys[number] not in elsewhere), *place)
        keep = np.array(
            [
                number not in bad and key not in elsewhere if number >= 0 else key not in bad_keys
                for number, key in zip(payload_of.tolist(), keys, strict=True)
            ],
            np.bool_,
        )
        self._dropped |= elsewhere
        self._put_orphans(tar, [problem for problem in problems if problem.code == "orphan"])
        rewrite_shard(self.folder, self.manifest, sidecar, table, keep)

    def _stored_elsewhere(self, sidecar: Path, table: pa.Table) -> set[Key]:
        """Return what of a shard another one has too: a repair that was killed had come that far."""
        mine = set(zip(*(table[name].to_pylist() for name in ("frame_index", "representation")), strict=True))
        found: set[Key] = set()
        for other in find_sidecars(self.folder, [sidecar.parent.name]):
            if other == sidecar:
                continue
            try:
                rows = read_sidecar(other, ("frame_index", "representation", "status"))
            except DatasetError:
                continue
            rows = rows.filter(pc.equal(rows["status"], "ok"))
            keys = zip(rows["frame_index"].to_pylist(), rows["representation"].to_pylist(), strict=True)
            found |= {(sidecar.parent.name, *key) for key in keys if key in mine}
        return found

    def _place_of(self, row: Mapping[str, Any], *, note: bool = True) -> Path:
        """Return where in the quarantine the payload of a row goes."""
        name = member_name(dict(row), self.manifest)
        target = self.quarantine / name
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        if note:
            self.report.samples.append(name)
        return target

    def _put_orphans(self, tar: Path, orphans: Sequence[Problem]) -> None:
        if not orphans:
            return
        known = {problem.message.removeprefix("member ").removesuffix(" has no metadata row") for problem in orphans}
        with os.fdopen(open_regular(tar), "rb") as file:
            members, _ = read_members(file.fileno())  # what lies behind a damage belongs to nobody
            for member in members:
                if member.is_plain and member.name in known:
                    name = re.sub(r"[^A-Za-z0-9_.()+-]", "_", PurePosixPath(member.name).name).lstrip(".")
                    target = self.quarantine / tar.parent.name / (name[-200:] or "member")
                    with storage_errors(target):
                        target.parent.mkdir(parents=True, exist_ok=True)
                    copy_atomic(target, file.fileno(), member.offset, member.size)

    # -- Lance tables ----------------------------------------------------------------------------------------------

    def repair_table(self, path: str, problems: Sequence[Problem]) -> None:
        """Repair one table: fragments that are lost go, and the rows of frames that are damaged.

        A row holds all representations of its group.
        """
        codes = {problem.code for problem in problems}
        table_file = self.folder / path
        if "lost-table" in codes:
            self._move_aside(table_file, table_file.with_name(f".{table_file.stem}.untidy"))
        else:
            names = self.manifest.groups.get(table_file.stem, ())
            table = LanceTable(self.folder, table_file.stem, names, quarantine=self.quarantine)
            with table.locked() as dataset:  # which puts versions and tags right
                known = table.files()
                damaged = set(check_ledger(dataset).damaged)
                if versions := [file for file in damaged if file.startswith("_versions/")]:
                    self._move_aside(*(table.path / file for file in versions))
                    dataset = open_table(table.path)
                    repair_tags(dataset)
                bad = [problem for problem in problems if problem.code not in _OF_TABLES]
                without = harmful_fragments(dataset, damaged)
                held = data_files_of(dataset, {_key(problem)[:2] for problem in bad}, without=without) & damaged
                if "fragment" in codes:
                    dataset = self._drop_fragments(table, dataset, damaged - held, without)
                mend_indexes(dataset, damaged)
                if bad:
                    self._drop_frames(table, dataset, bad)
                table.sync(known)
                # The damage of a data file is that of the frames that went.
                record_files(table.path, [str(table.path / file) for file in held])
        self.report.shards.append(path)

    def _drop_fragments(
        self, table: LanceTable, dataset: "lance.LanceDataset", damaged: Collection[str], without: Collection[int]
    ) -> "lance.LanceDataset":
        from lance import LanceDataset, LanceOperation

        lost: list[LostFragment] = []
        lance_samples(self.folder, table=table.path, lost=lost, checked=False, without=without)
        for fragment in dataset.get_fragments():
            files = tuple(file.path for file in fragment.data_files())
            if any(f"data/{name}" in damaged for name in files):
                lost.append(LostFragment(fragment.fragment_id, fragment.metadata.num_rows, files, "its bytes changed"))
        numbers = sorted({fragment.fragment_id for fragment in lost})
        if numbers:
            operation = LanceOperation.Delete([], numbers, "true")
            dataset = LanceDataset.commit(str(table.path), operation, read_version=dataset.version)
        for file in (data_file(table.path, name) for fragment in lost for name in fragment.files):
            self._move_aside(file, file.with_suffix(""))  # and the folder of its blobs
        return dataset

    def _drop_frames(self, table: LanceTable, dataset: "lance.LanceDataset", problems: Sequence[Problem]) -> None:
        keys = {_key(problem) for problem in problems}
        unnamed = {_key(problem) for problem in problems if problem.code == "row"}  # their names may be paths
        rows = lance_samples(self.folder, table=table.path, checked=False)
        frames = sorted({(video_id, frame) for video_id, frame, _ in keys} | _sharing_payloads(rows, keys))
        names = {name: place for place, name in enumerate(self.manifest.representations)}
        of_key = {
            (row["video_id"], row["frame_index"], row["representation"]): row
            for row in rows.select(
                ["video_id", "frame_index", "representation", "byte_offset", "byte_size", "status"]
            ).to_pylist()
            if (row["video_id"], row["frame_index"]) in set(frames)
        }
        for key in sorted(keys, key=lambda key: (key[0], key[1], names.get(key[2], 0))):
            row = of_key.get(key)
            if row is not None and row["byte_offset"] is not None and key not in unnamed:
                write_atomic(self._place_of(row), _blob_pieces(dataset, row))
        for video_id, some in _by_video(frames).items():
            listed = ", ".join(map(str, some))
            dataset.delete(f"video_id = {quoted(video_id)} AND frame_index IN ({listed})")


def _sharing_payloads(rows: pa.Table, keys: set[Key]) -> set[tuple[str, int]]:
    """Return the frames that share a payload, a clip, with one of `keys`: a problem is told with the first of them."""
    columns = [*_KEY, "byte_offset", "payload_index"]
    listed = [row for row in rows.select(columns).to_pylist() if row["payload_index"] is not None]
    clips = {
        (row["representation"], row["byte_offset"])
        for row in listed
        if (row["video_id"], row["frame_index"], row["representation"]) in keys
    }
    return {
        (row["video_id"], row["frame_index"]) for row in listed if (row["representation"], row["byte_offset"]) in clips
    }


def _blob_pieces(dataset: "lance.LanceDataset", row: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield a payload in pieces, as far as it can be read: what cannot is what is wrong with it."""
    try:
        with reading_lance(Path(dataset.uri)):
            yield from payload_pieces(dataset, column_name(row["representation"]), row["byte_offset"]) or ()
    except DatasetError:
        return


def _by_video(frames: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    by_video: dict[str, list[int]] = {}
    for video_id, frame in frames:
        by_video.setdefault(video_id, []).append(frame)
    return by_video


def _key(problem: Problem) -> Key:
    return (
        problem.video_id or "",
        problem.frame_index if problem.frame_index is not None else -1,
        problem.representation or "",
    )
