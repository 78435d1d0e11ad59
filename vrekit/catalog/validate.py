"""Metadata against bytes: is every payload where its row says, unchanged, and of the shape it promises?"""

import os
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vrekit.catalog.manifest import Manifest, read_manifest
from vrekit.catalog.samples import SHARDS_FOLDER, find_sidecars, read_sidecar
from vrekit.codecs.base import Codec
from vrekit.codecs.registry import codec_from_config
from vrekit.core.checksum import crc32
from vrekit.core.errors import CodecError, DatasetError
from vrekit.core.names import sample_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        code: Short name: `checksum`, `decode`, `place`, `missing-shard`, `orphan`, `duplicate`, `unknown`, `sidecar`.
        path: File it is about, relative to the dataset.
        message: What is wrong, for people.
        video_id: Video of the row, if it is about one.
        frame_index: Frame of the row, if it is about one.
        representation: Representation of the row, if it is about one.
    """

    code: str
    path: str
    message: str
    video_id: str | None = None
    frame_index: int | None = None
    representation: str | None = None

    def __str__(self) -> str:
        about = f" {self.video_id} frame {self.frame_index} {self.representation}" if self.representation else ""
        return f"{self.code}: {self.path}:{about} {self.message}"


@dataclass(slots=True, kw_only=True)
class ValidationReport:
    """What was checked and what is wrong."""

    payloads: int = 0
    payload_bytes: int = 0
    elapsed_seconds: float = 0.0
    problems: list[Problem] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return asdict(self) | {"ok": not self.problems}


def validate(folder: Path, *, decode: bool = True) -> ValidationReport:
    """Check every payload of a dataset.

    Args:
        folder: The dataset.
        decode: Also decode every payload.

    Raises:
        DatasetError: If `dataset.json` itself cannot be read.
    """
    started = time.perf_counter()
    report = ValidationReport()
    manifest = read_manifest(folder)
    codecs = {
        name: codec_from_config(record.codec)
        for name, record in manifest.representations.items()
        if record.codec is not None
    }
    seen: Counter[tuple[str, int, str]] = Counter()
    for sidecar in find_sidecars(folder):
        report.problems += _check_shard(folder, sidecar, manifest, codecs if decode else {}, seen, report)
    report.problems += [
        Problem(
            code="duplicate",
            path=SHARDS_FOLDER,
            message=f"is stored {count} times",
            video_id=video_id,
            frame_index=frame,
            representation=name,
        )
        for (video_id, frame, name), count in seen.items()
        if count > 1
    ]
    report.problems += _orphans(folder)
    report.elapsed_seconds = time.perf_counter() - started
    return report


def _check_shard(
    folder: Path,
    sidecar: Path,
    manifest: Manifest,
    codecs: Mapping[str, Codec],
    seen: Counter[tuple[str, int, str]],
    report: ValidationReport,
) -> Iterator[Problem]:
    relative = sidecar.relative_to(folder).as_posix()
    try:
        table = read_sidecar(sidecar)
    except DatasetError as error:
        yield Problem(code="sidecar", path=relative, message=error.message)
        return
    tar = sidecar.with_suffix(".tar")
    name = tar.relative_to(folder).as_posix()
    if not tar.exists():
        yield Problem(code="missing-shard", path=name, message="the sidecar is there, the tar is not")
        return
    members, broken = _members(tar)
    if broken:
        yield Problem(code="place", path=name, message=f"the tar is damaged: {broken}")
    descriptor = os.open(tar, os.O_RDONLY)
    try:
        for row in _rows(table):
            yield from _check_row(row, name, descriptor, members, manifest, codecs, seen, report)
    finally:
        os.close(descriptor)
    for member in members:
        yield Problem(code="orphan", path=name, message=f"member {member} has no metadata row")


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


def _members(tar: Path) -> tuple[dict[str, tuple[int, int]], str]:
    """Return name → (payload offset, size) of every member up to the first damage, and what the damage is."""
    members: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                members[member.name] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError) as error:
        return members, str(error)
    return members, ""


def _check_row(
    row: Mapping[str, Any],
    shard: str,
    descriptor: int,
    members: dict[str, tuple[int, int]],
    manifest: Manifest,
    codecs: Mapping[str, Codec],
    seen: Counter[tuple[str, int, str]],
    report: ValidationReport,
) -> Iterator[Problem]:
    def problem(code: str, message: str) -> Problem:
        keys = ("video_id", "frame_index", "representation")
        return Problem(code=code, path=shard, message=message, **{key: row[key] for key in keys})

    name = row["representation"]
    record = manifest.representations.get(name)
    if record is None or row["video_id"] not in manifest.videos:
        yield problem("unknown", "dataset.json does not know this video or representation")
        return
    if row["config_hash"] != record.config_hash:
        yield problem("unknown", f"config hash {row['config_hash']}, but dataset.json has {record.config_hash}")
    if row["status"] != "ok":
        return
    seen[row["video_id"], row["frame_index"], name] += 1
    member = f"{sample_key(row['video_id'], row['frame_index'])}.{name}.{record.suffix}"
    place = members.pop(member, None)
    if place != (row["byte_offset"], row["byte_size"]):
        yield problem("place", f"the row says offset, size {(row['byte_offset'], row['byte_size'])}, the tar {place}")
        return
    data = os.pread(descriptor, row["byte_size"], row["byte_offset"])
    report.payloads += 1
    report.payload_bytes += len(data)
    if len(data) != row["byte_size"] or crc32(data) != row["checksum"]:
        yield problem("checksum", f"CRC-32 {crc32(data):08x}, the row says {row['checksum']:08x}")
        return
    codec = codecs.get(name)
    if codec is not None:
        try:
            codec.decode(data, dtype=np.dtype(row["dtype"]), shape=tuple(row["shape"]))
        except CodecError as error:
            yield problem("decode", error.message)


def _orphans(folder: Path) -> Iterator[Problem]:
    root = folder / SHARDS_FOLDER
    for path in sorted(root.rglob("*")) if root.is_dir() else ():
        relative = path.relative_to(folder).as_posix()
        if path.name.endswith(".tar.partial"):
            message = "an unfinished shard: `vrekit resume` goes on with it"
            yield Problem(code="unfinished", path=relative, message=message)
        elif path.suffix == ".tar" and not path.with_suffix(".parquet").exists():
            yield Problem(code="orphan", path=relative, message="a tar without a sidecar: it was never committed")
