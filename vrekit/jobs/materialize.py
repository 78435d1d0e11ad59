"""Copy the samples of a subset into a dataset of their own, byte for byte: nothing is decoded or encoded again."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from vrekit import __version__
from vrekit.catalog.card import write_card
from vrekit.catalog.cells import Cell, CellWriter, Clip, Payload, Sample
from vrekit.catalog.dataset import Dataset
from vrekit.catalog.manifest import MANIFEST_NAME, Manifest, manifest_lock, read_manifest, write_manifest
from vrekit.catalog.places import check_places
from vrekit.catalog.progress import read_progress
from vrekit.catalog.runs import RUNS_FOLDER, read_runs, write_run
from vrekit.catalog.storage import open_storage, storage_type
from vrekit.catalog.subset import Names, Subset, verify
from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.schema import SampleRow
from vrekit.jobs.merge.origin import is_untouched
from vrekit.jobs.payload_source import PayloadSource

_PLACE = ("shard", "byte_offset", "byte_size", "checksum")  # what the writer fills in
_FRAMES_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterializeReport:
    """What was copied, and how many of the subset's samples the target had already."""

    frames: int
    samples: int
    already: int
    stored_bytes: int


def materialize(
    subset: Subset,
    dataset: Dataset,
    output: Path,
    *,
    writer: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> MaterializeReport:
    """Copy what a subset names into a dataset of its own, with the manifest entries and run records that belong to it.

    Samples that the target has already are left alone, so the same call again goes on after an interruption. Frames
    lie in the order of their numbers; the subset's order and its file stay valid for the copy.

    Args:
        subset: Frames and representations.
        dataset: Where they are.
        output: Folder of the new dataset.
        writer: Storage of the new dataset; None takes that of the source.
        progress: Called with the number of frames that were copied or found since the last call.

    Raises:
        DatasetError: If the dataset lacks something the subset names.
        UsageError: If the subset is empty, or `output` is the dataset itself or holds something else.
        ConflictError: If `output` is a dataset with another video or other parameters under the same name.
        ChecksumError: If a payload changed since it was written.
    """
    check_places(dataset.folder)
    check_places(output)
    _check(subset, dataset, output, writer)
    names = _names(subset, dataset)
    manifest = _make_target(subset, dataset, output, names, writer)
    by_video: dict[str, dict[int, Names]] = {}
    for (video_id, frame), wanted in sorted(subset.frames.items(), key=lambda item: item[0]):
        by_video.setdefault(video_id, {})[frame] = wanted
    copied_frames = samples = size = wanted_samples = 0
    run_ids: set[str] = set()
    storage = open_storage(output, manifest)
    target = storage.writer()
    for video_id, frames in by_video.items():
        source = PayloadSource(dataset, video_id, names)
        here = {
            (frame, name)
            for frame, name in source.rows
            if frame in frames and ((chosen := frames[frame]) is None or name in chosen)
        }
        run_ids |= {source.rows[key]["run_id"] for key in here}
        wanted_samples += len(here)
        before = read_progress(storage, video_id)
        done = {(frame, name) for name in names for frame in before.done_frames(name).tolist()}
        changed: set[int] = set()
        for group, members in manifest.groups.items():
            left = sorted(key for key in here - done if key[1] in members)
            for first, part in groupby(left, key=lambda key: key[0] // manifest.shard_frames * manifest.shard_frames):
                cell = Cell(video_id, group, first, first + manifest.shard_frames - 1)
                with target.open_cell(cell) as open_cell:
                    if manifest.representations[members[0]].clips:
                        for clip in _clips(source, list(part), open_cell, manifest):
                            open_cell.append_clip(clip)
                            changed.update(row.frame_index for row in clip.rows)
                            samples += len(clip.rows)
                            size += len(clip.data or b"")
                        continue
                    for sample in _samples(source, list(part), open_cell, manifest):
                        open_cell.append(sample)
                        changed.add(sample.frame_index)
                        samples += len(sample.payloads)
                        size += sum(len(payload.data or b"") for payload in sample.payloads)
        copied_frames += len(changed)
        progress(len(frames))
    target.close()
    _copy_runs(dataset.folder, output, run_ids)
    _record_shards(output, target.committed)
    return MaterializeReport(frames=copied_frames, samples=samples, already=wanted_samples - samples, stored_bytes=size)


def _check(subset: Subset, dataset: Dataset, output: Path, writer: str | None) -> None:
    if writer is not None:
        storage_type(writer)
    if not len(subset):
        raise UsageError("the subset is empty: there is nothing to copy")
    if output.resolve() == dataset.folder.resolve():
        raise UsageError(f"{output} is the dataset itself", hint="choose another folder with -o")
    if not (output / MANIFEST_NAME).exists() and not is_untouched(output):
        raise UsageError(f"{output} exists and is no dataset", hint="choose a new or empty folder with -o")
    for video_id in dict.fromkeys(video_id for video_id, _ in subset.frames):
        if video_id not in dataset.manifest.videos:
            raise DatasetError(
                f"{dataset.folder} has no video {video_id!r}", hint="`vrekit subset verify` lists what it lacks"
            )
    found = verify(subset, dataset)
    if not found.is_good:
        some = [*found.missing, *(f"{key} ({', '.join(names)})" for key, names in found.incomplete.items())]
        raise DatasetError(
            f"{dataset.folder} lacks {len(some)} of the subset's {found.count} frames: {', '.join(some[:3])}",
            hint="`vrekit subset verify` lists them all",
        )


def _names(subset: Subset, dataset: Dataset) -> list[str]:
    """Return the stored representations that some frame of the subset names."""
    stored = dataset.manifest.stored_names
    if any(names is None for names in subset.frames.values()):
        return stored
    wanted = frozenset().union(*(names for names in subset.frames.values() if names is not None))
    return [name for name in stored if name in wanted]


def _make_target(subset: Subset, dataset: Dataset, output: Path, names: Sequence[str], writer: str | None) -> Manifest:
    source = dataset.manifest
    kept = set(names)
    for name, record in source.representations.items():  # in dependency order
        if record.is_virtual and set(record.spec.dependencies) <= kept:
            kept.add(name)
    with manifest_lock(output):
        if (output / MANIFEST_NAME).exists():
            manifest = read_manifest(output)
        else:
            manifest = replace(
                source, writer=writer or source.writer, videos={}, representations={}, created_with=__version__
            )
        records = {name: replace(record, group=None) for name, record in source.representations.items() if name in kept}
        manifest = manifest.with_representations(records)
        for video_id in dict.fromkeys(video_id for video_id, _ in subset.frames):
            manifest = manifest.with_video(video_id, source.videos[video_id])
        write_manifest(output, manifest)
        write_card(open_storage(output, manifest))
    return manifest


def _samples(
    source: PayloadSource, keys: list[tuple[int, str]], cell: CellWriter, manifest: Manifest
) -> Iterator[Sample]:
    recovered = cell.recovered
    keys = [(frame, name) for frame, name in keys if recovered.get(frame, {}).get(name) != "ok"]
    frames: dict[int, list[str]] = {}
    for frame, name in keys:
        frames.setdefault(frame, []).append(name)
    order = list(manifest.representations)
    for batch in _batches(frames):
        names = sorted({name for frame in batch for name in frames[frame]}, key=order.index)
        payloads = source.read(batch, names)
        for frame in batch:
            wanted = [name for name in names if name in frames[frame]]
            parts = tuple(
                _payload(source, frame, name, payloads[frame, name], manifest.representations[name].suffix)
                for name in wanted
            )
            yield Sample(source.video_id, frame, parts)


def _clips(source: PayloadSource, keys: list[tuple[int, str]], cell: CellWriter, manifest: Manifest) -> Iterator[Clip]:
    """Yield whole clips with the rows of the wanted frames."""
    recovered = cell.recovered
    keys = [(frame, name) for frame, name in keys if recovered.get(frame, {}).get(name) != "ok"]
    for _, of_clip in groupby(keys, key=lambda key: source.place(*key)):
        wanted = list(of_clip)
        frame, name = wanted[0]
        data = source.read([frame], [name])[frame, name]
        source.check(frame, name, data)
        rows = tuple(_row(source, frame, name) for frame, name in wanted)
        yield Clip(rows, manifest.representations[name].suffix or "", data)


def _batches(frames: Iterable[int]) -> Iterator[list[int]]:
    ordered = list(frames)
    for at in range(0, len(ordered), _FRAMES_AT_ONCE):
        yield ordered[at : at + _FRAMES_AT_ONCE]


def _payload(source: PayloadSource, frame: int, name: str, data: bytes, suffix: str | None) -> Payload:
    source.check(frame, name, data)
    return Payload(_row(source, frame, name), suffix or "", data)


def _row(source: PayloadSource, frame: int, name: str) -> SampleRow:
    row: Mapping[str, Any] = source.rows[frame, name]
    fields = {column: value for column, value in row.items() if column not in _PLACE}
    return SampleRow(**{**fields, "shape": tuple(row["shape"])})


def _copy_runs(source: Path, output: Path, run_ids: Iterable[str]) -> None:
    wanted = set(run_ids)
    for record in read_runs(source):
        if record.run_id in wanted and not (output / RUNS_FOLDER / f"{record.run_id}.json").exists():
            write_run(output, replace(record, shards={}))  # the shards of the result are others


def _record_shards(output: Path, committed: Collection[str]) -> None:
    """List the new shards with the runs that their first rows are from."""
    found = open_storage(output).shard_facts(committed)
    for record in read_runs(output) if found else ():
        if record.run_id in found:
            write_run(output, replace(record, shards={**record.shards, **found[record.run_id]}))
