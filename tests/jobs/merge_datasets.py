"""Small datasets to merge: payloads that follow from (video, frame, representation), written by the real writers."""

import hashlib
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.storages import open_writer, read_samples
from vrekit.catalog.cells import Cell, Payload, Sample
from vrekit.catalog.manifest import MANIFEST_NAME, Manifest, RepresentationRecord, read_manifest, write_manifest
from vrekit.catalog.runs import RunRecord, write_run
from vrekit.codecs.registry import codec_from_config
from vrekit.core.schema import SampleRow
from vrekit.core.spec import Kind, OutputSpec, RepresentationSpec
from vrekit.video.base import VideoInfo

SPEC = OutputSpec(kind=Kind.EMBEDDING, dtype="uint8", shape=(None,), axes="K")
CODEC = codec_from_config("npy")
COUNT = 64  # frames of every video


def array_of(video_id: str, frame: int, name: str, salt: str = "") -> NDArray[np.uint8]:
    """What a frame holds; between 1 and 900 bytes."""
    seed = hashlib.sha256(f"{video_id}/{frame}/{name}/{salt}".encode()).digest()
    generator = np.random.default_rng(list(seed[:8]))
    return generator.integers(0, 256, int(generator.integers(1, 900)), np.uint8)


def record(name: str, **identity: Any) -> RepresentationRecord:
    return RepresentationRecord(
        spec=RepresentationSpec(name=name, type="test/random"),
        identity={"name": name, **identity},
        memory=SPEC,
        stored=SPEC,
        codec=CODEC.config(),
        suffix=CODEC.suffix,
    )


def video(video_id: str, fingerprint: str | None = None) -> VideoInfo:
    content = hashlib.sha256((fingerprint or video_id).encode()).hexdigest()[:16]
    return VideoInfo(
        uri=f"{video_id}.mp4", fingerprint=f"9-{content}", source="file", frame_count=COUNT, height=4, width=4, fps=10
    )


def make_dataset(
    folder: Path,
    frames: Mapping[str, Iterable[int]],
    names: Iterable[str] = ("rgb", "depth"),
    *,
    writer: str = "webdataset",
    shard_frames: int = 8,
    shard_size_bytes: int = 1 << 30,
    run_id: str = "run-a",
    salt: str = "",
    identity: Mapping[str, Any] | None = None,
    fingerprints: Mapping[str, str] | None = None,
    failed: Iterable[tuple[str, int, str]] = (),
    layout: str = "sample",
) -> Path:
    """Write a dataset, or add to one.

    Args:
        folder: Where.
        frames: Video → frame numbers.
        names: Representations of these frames.
        writer: Storage of a new dataset.
        shard_frames: Grid of a new dataset.
        shard_size_bytes: Shard size of a new dataset.
        run_id: Run that all rows are from.
        salt: Another one makes other payloads.
        identity: What decides the values, besides the name.
        fingerprints: Video → what its fingerprint is made from; the video's name by default.
        failed: (video, frame, representation) that have a failed row.
        layout: Of a new dataset.
    """
    if (folder / MANIFEST_NAME).exists():
        manifest = read_manifest(folder)
    else:
        folder.mkdir(parents=True)
        manifest = Manifest(
            writer=writer, layout=layout, shard_frames=shard_frames, shard_size_bytes=shard_size_bytes, created_with="t"
        )
    for video_id in frames:
        manifest = manifest.with_video(video_id, video(video_id, (fingerprints or {}).get(video_id)))
    manifest = manifest.with_representations({name: record(name, **(identity or {})) for name in names})
    write_manifest(folder, manifest)
    target = open_writer(folder, manifest)
    wanted, failures = set(names), set(failed)
    for video_id, numbers in frames.items():
        for group, members in manifest.groups.items():
            mine = [name for name in members if name in wanted]
            cells: dict[int, list[int]] = {}
            for frame in sorted(numbers):
                cells.setdefault(frame // manifest.shard_frames * manifest.shard_frames, []).append(frame)
            for first, inside in cells.items() if mine else ():
                with target.open_cell(Cell(video_id, group, first, first + manifest.shard_frames - 1)) as cell:
                    for frame in inside:
                        parts = [
                            _payload(video_id, frame, name, manifest, run_id, salt, (video_id, frame, name) in failures)
                            for name in mine
                        ]
                        cell.append(Sample(video_id, frame, tuple(parts)))
        run = RunRecord(
            run_id=run_id, video_id=video_id, request={"convert": "test"}, command=[], started_at="2026-01-01T00:00:00Z"
        )
        write_run(folder, run.finished("done"))
    target.close()
    return folder


def _payload(
    video_id: str, frame: int, name: str, manifest: Manifest, run_id: str, salt: str, is_failed: bool
) -> Payload:
    row = SampleRow(
        video_id=video_id,
        frame_index=frame,
        pts_seconds=frame / 10,
        representation=name,
        kind=SPEC.kind,
        run_id=run_id,
        config_hash=manifest.representations[name].config_hash,
        compute_seconds=0.25,
    )
    if is_failed:
        return Payload(replace(row, status="failed", error="it did not work"))
    array = array_of(video_id, frame, name, salt)
    done = replace(row, codec="npy", dtype="uint8", shape=array.shape, raw_bytes=array.nbytes)
    return Payload(done, CODEC.suffix, CODEC.encode(array))


def rows_of(folder: Path) -> dict[tuple[str, int, str], dict[str, Any]]:
    """Stored rows by key, without the payload's place; fails on a row that is there twice."""
    rows: dict[tuple[str, int, str], dict[str, Any]] = {}
    for row in read_samples(folder).to_pylist():
        key = (row["video_id"], row["frame_index"], row["representation"])
        assert key not in rows, f"{key} is there twice"
        rows[key] = {name: value for name, value in row.items() if name not in ("shard", "byte_offset")}
    return rows


def members_of(folder: Path) -> dict[str, bytes]:
    """All tar members of a dataset by name; fails on a name that is there twice."""
    members: dict[str, bytes] = {}
    for path in sorted((folder / "shards").glob("*/*.tar")):
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                assert member.name not in members, f"{member.name} is there twice"
                content = archive.extractfile(member)
                assert content is not None
                members[member.name] = content.read()
    return members


def member(video_id: str, frame: int, name: str, salt: str = "") -> tuple[str, bytes]:
    return f"{video_id}/{frame:08d}.{name}.npy", CODEC.encode(array_of(video_id, frame, name, salt))


def file_hashes(folder: Path, pattern: str = "**/*") -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    }


def damage_lance(folder: Path, payload: bytes) -> None:
    """Flip a bit in the middle of a payload in the data files of a dataset's tables."""
    for path in folder.glob("lance/*.lance/data/**/*"):
        content = path.read_bytes() if path.is_file() else b""
        at = content.find(payload)
        if at >= 0:
            changed = bytearray(content)
            changed[at + len(payload) - 5] ^= 1
            path.write_bytes(changed)
            return
    raise AssertionError("the payload is not there")
