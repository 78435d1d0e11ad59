"""Small datasets written by hand, with tarfile and pyarrow only, so that the readers are tested without the writers."""

import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.catalog.manifest import Manifest, RepresentationRecord, write_manifest
from vrekit.codecs.registry import codec_from_config
from vrekit.core.checksum import crc32
from vrekit.core.names import sample_key
from vrekit.core.schema import SampleRow, rows_to_table
from vrekit.core.spec import Kind, OutputSpec, RepresentationSpec
from vrekit.representations.base import FrameBatch, Output, Representation
from vrekit.video.base import VideoInfo
from vrekit.writers.webdataset.sidecars import sidecar_bytes

RGB = OutputSpec(kind=Kind.COLOR, dtype="uint8", shape=(6, 8, 3), axes="HWC", value_range=(0, 255))
DEPTH = OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(6, 8), axes="HW", unit="m", invalid_value="nan")
LABEL = OutputSpec(kind=Kind.INDICES, dtype="int64", shape=(), axes="", invalid_value=-1.0)
BOXES = OutputSpec(kind=Kind.BOXES, dtype="float32", shape=(None, 4), axes="KC")


def record(name: str, spec: OutputSpec, codec: str = "npy", **options: Any) -> RepresentationRecord:
    """A stored representation."""
    config = codec_from_config(codec).config()
    suffix = codec_from_config(codec).suffix
    representation = RepresentationSpec(name=name, type="test/stored", **options)
    return RepresentationRecord(
        spec=representation, identity={"name": name}, memory=spec, stored=spec, codec=config, suffix=suffix, group="all"
    )


def virtual(name: str, spec: OutputSpec, type_name: str, *dependencies: str, **params: Any) -> RepresentationRecord:
    """A virtual representation."""
    representation = RepresentationSpec(
        name=name, type=type_name, dependencies=dependencies, params=params, store=False
    )
    return RepresentationRecord(
        spec=representation, identity={"name": name}, memory=spec, stored=spec, codec=None, suffix=None
    )


def make_array(name: str, video_id: str, frame: int, spec: OutputSpec) -> NDArray[Any]:
    """What a frame holds: reproducible noise, so that a test can make it again."""
    rng = np.random.default_rng([frame, *name.encode(), *video_id.encode()])
    shape = tuple(frame % 4 if length is None else length for length in spec.shape)
    return (rng.random(shape) * 200).astype(spec.dtype)


@dataclass
class DatasetBuilder:
    """Frames of a dataset to be; `write` puts them on disk."""

    folder: Path
    records: Mapping[str, RepresentationRecord]
    rows: dict[tuple[str, int, str], tuple[NDArray[Any] | None, SampleRow]] = field(default_factory=dict)

    def add(
        self, video_id: str, frames: Iterable[int], names: Iterable[str] | None = None, *, valid: bool = True
    ) -> None:
        """Add frames with these representations."""
        for frame in frames:
            for name in names or [name for name, known in self.records.items() if not known.is_virtual]:
                self.put(video_id, frame, name, make_array(name, video_id, frame, self.records[name].stored), valid)

    def put(self, video_id: str, frame: int, name: str, array: NDArray[Any] | None, valid: bool = True) -> None:
        """Add one representation of one frame; None for one that failed."""
        row = SampleRow(
            video_id=video_id,
            frame_index=frame,
            pts_seconds=frame / 25,
            representation=name,
            kind=self.records[name].stored.kind,
            run_id="run",
            config_hash=self.records[name].config_hash,
            valid=valid,
        )
        if array is None:
            row = replace(row, status="failed", error="it did not work")
        self.rows[video_id, frame, name] = (array, row)

    def write(self, *, shard_frames: int = 10, group: str = "all") -> Path:
        """Write shards of `shard_frames` frames and the manifest; forget the frames."""
        shards: dict[tuple[str, int], list[tuple[NDArray[Any] | None, SampleRow]]] = {}
        for (video_id, frame, _), entry in sorted(self.rows.items(), key=lambda item: item[0][:2]):
            shards.setdefault((video_id, frame // shard_frames), []).append(entry)
        for (video_id, number), entries in shards.items():
            stem = f"shards/{video_id}/{group}-{number * shard_frames:08d}"
            path = self.folder / f"{stem}.tar"
            path.parent.mkdir(parents=True, exist_ok=True)
            placed = _write_tar(path, f"{stem}.tar", entries, self.records)
            path.with_suffix(".parquet").write_bytes(sidecar_bytes(rows_to_table(placed)))
        self.rows.clear()
        videos = {
            entry.name: VideoInfo(uri=entry.name, fingerprint="1-0", source="memory", frame_count=1, height=6, width=8)
            for entry in sorted((self.folder / "shards").iterdir())
        }
        manifest = Manifest(
            writer="webdataset",
            layout="sample",
            shard_frames=shard_frames,
            shard_size_bytes=1 << 30,
            videos=videos,
            representations=self.records,
        )
        write_manifest(self.folder, manifest)
        return self.folder


def _write_tar(
    path: Path,
    relative: str,
    entries: list[tuple[NDArray[Any] | None, SampleRow]],
    records: Mapping[str, RepresentationRecord],
) -> list[SampleRow]:
    rows = []
    with tarfile.open(path, "w") as tar:
        for array, row in entries:
            known = records[row.representation]
            if array is None or known.codec is None:
                rows.append(row)
                continue
            data = codec_from_config(known.codec).encode(array)
            key = sample_key(row.video_id, row.frame_index)
            member = tarfile.TarInfo(f"{key}.{row.representation}.{known.suffix}")
            member.size = len(data)
            offset = tar.offset + 512
            tar.addfile(member, io.BytesIO(data))
            rows.append(
                replace(
                    row,
                    codec=codec_from_config(known.codec).id,
                    dtype="str" if array.dtype.kind == "U" else array.dtype.name,
                    shape=array.shape,
                    raw_bytes=array.nbytes,
                    byte_offset=offset,
                    byte_size=len(data),
                    checksum=crc32(data),
                    shard=relative,
                )
            )
    return rows


@dataclass
class Inverted(Representation):
    """offset - depth; every fourth frame is said to hold no measurement."""

    offset: float = 0.0

    inputs: ClassVar[tuple[tuple[Kind, ...], ...] | None] = ((Kind.DEPTH,),)
    uses_frames: ClassVar[bool] = False
    thread_safe: ClassVar[bool] = False
    calls: ClassVar[list[tuple[str, list[int], list[float]]]] = []

    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        return next(iter(dependencies.values()))

    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        (name, depth), *_ = dependencies.items()
        self.calls.append((name, batch.indices.tolist(), batch.pts_seconds.tolist()))
        data = np.float32(self.offset) - np.asarray(depth.data, np.float32)
        return Output(data=data, valid=batch.indices % 4 != 3)


class FirstOfAll(Representation):
    """Its first dependency, of any number."""

    inputs: ClassVar[tuple[tuple[Kind, ...], ...] | None] = None
    uses_frames: ClassVar[bool] = False

    def output_spec(self, height: int, width: int, dependencies: Mapping[str, OutputSpec]) -> OutputSpec:
        return next(iter(dependencies.values()))

    def compute(self, batch: FrameBatch, dependencies: Mapping[str, Output]) -> Output:
        return next(iter(dependencies.values()))
