"""Repair of tar shards: damaged payloads go to quarantine, and a shard is written anew without them."""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vrekit.catalog.payload_checks import Problem
from vrekit.catalog.repairs import BAD_FILE, BAD_PAYLOAD, HINTS, KEY_COLUMNS, Key, Repair, key_of
from vrekit.catalog.rows import payload_numbers
from vrekit.core.checksum import crc32_of_range
from vrekit.core.errors import DatasetError
from vrekit.core.files import copy_atomic, open_regular
from vrekit.writers.webdataset.members import read_members
from vrekit.writers.webdataset.rewrite import own_cell, rewrite_shard
from vrekit.writers.webdataset.sidecars import PARTIAL_SUFFIX, find_sidecars, read_sidecar


def repair_shard(path: str, problems: Sequence[Problem], work: Repair) -> None:
    """Repair one shard, named by its tar or its sidecar; see `Storage.repair`."""
    tar = (work.folder / path).with_suffix(".tar")
    sidecar = tar.with_suffix(".parquet")
    if problems[0].code == "orphan" and not sidecar.exists():
        if (work.folder / path).exists():
            _set_aside(tar, work)
        return
    lock = own_cell(sidecar, work.manifest)
    try:
        if {problem.code for problem in problems} & BAD_FILE:
            work.move_aside(sidecar, tar)
        else:
            _take_out(sidecar, tar, problems, work)
        work.report.shards.append(tar.relative_to(work.folder).as_posix())
    finally:
        lock.release()


def _set_aside(tar: Path, work: Repair) -> None:
    """Move a tar without a sidecar to quarantine, unless `resume` goes on with it."""
    lock = own_cell(tar.with_suffix(".parquet"), work.manifest)
    try:
        stem = lock.path.name.removesuffix(".lock")
        name = tar.relative_to(work.folder).as_posix()
        if any(tar.with_name(f"{stem}.{ending}").exists() for ending in ("journal", PARTIAL_SUFFIX)):
            work.report.left.append(f"{name}: orphan ({HINTS['unfinished']})")
        else:
            work.move_aside(tar)
            work.report.shards.append(name)
    finally:
        lock.release()


def _take_out(sidecar: Path, tar: Path, problems: Sequence[Problem], work: Repair) -> None:
    table = read_sidecar(sidecar)
    payload_of = payload_numbers(table)
    bad_keys = {key_of(problem) for problem in problems if problem.code in BAD_PAYLOAD}
    rows = table.select([*KEY_COLUMNS, "byte_offset", "byte_size", "checksum"]).to_pylist()
    keys = [(row["video_id"], row["frame_index"], row["representation"]) for row in rows]
    elsewhere = _stored_elsewhere(sidecar, table, work.folder)
    # A problem is told once of a payload that frames share, with the first of them.
    bad = {number for number, key in zip(payload_of.tolist(), keys, strict=True) if key in bad_keys}
    with os.fdopen(open_regular(tar), "rb") as file:
        for number in np.flatnonzero(payload_of == np.arange(len(table))).tolist():
            row = rows[number]
            place = (file.fileno(), row["byte_offset"], row["byte_size"])
            if number in bad or crc32_of_range(*place) != row["checksum"]:
                bad.add(number)
                copy_atomic(work.place(work.manifest.member_name(row), note=keys[number] not in elsewhere), *place)
    keep = np.array(
        [
            number not in bad and key not in elsewhere if number >= 0 else key not in bad_keys
            for number, key in zip(payload_of.tolist(), keys, strict=True)
        ],
        np.bool_,
    )
    work.settled |= {("duplicate", key) for key in elsewhere}
    _put_orphans(tar, [problem for problem in problems if problem.code == "orphan"], work)
    rewrite_shard(work.folder, work.manifest, sidecar, table, keep)


def _stored_elsewhere(sidecar: Path, table: pa.Table, folder: Path) -> set[Key]:
    """Return what of a shard another one has too: a repair that was killed had come that far."""
    mine = set(zip(*(table[name].to_pylist() for name in ("frame_index", "representation")), strict=True))
    found: set[Key] = set()
    for other in find_sidecars(folder, [sidecar.parent.name]):
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


def _put_orphans(tar: Path, orphans: Sequence[Problem], work: Repair) -> None:
    if not orphans:
        return
    known = {problem.message.removeprefix("member ").removesuffix(" has no metadata row") for problem in orphans}
    with os.fdopen(open_regular(tar), "rb") as file:
        members, _ = read_members(file.fileno())  # what lies behind a damage belongs to nobody
        for member in members:
            if member.is_plain and member.name in known:
                name = re.sub(r"[^A-Za-z0-9_.()+-]", "_", PurePosixPath(member.name).name).lstrip(".")
                target = work.place(f"{tar.parent.name}/{name[-200:] or 'member'}", note=False)
                copy_atomic(target, file.fileno(), member.offset, member.size)
