"""Copy the samples of a subset into a dataset of their own, byte for byte: nothing is decoded or encoded again."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from vrekit import __version__
from vrekit.catalog.card import write_card
from vrekit.catalog.dataset import Dataset
from vrekit.catalog.manifest import MANIFEST_NAME, Manifest, manifest_lock, read_manifest, write_manifest
from vrekit.catalog.places import check_places
from vrekit.catalog.rows import SOURCE
from vrekit.catalog.runs import RUNS_FOLDER, read_runs, write_run
from vrekit.catalog.storage import open_storage, storage_type
from vrekit.catalog.subset import Names, Subset, verify
from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.reports import Report, timed
from vrekit.jobs.cells import grouped
from vrekit.jobs.copying import Written, write_samples
from vrekit.jobs.merge.origin import is_untouched
from vrekit.jobs.stored_rows import stored_rows


@dataclass(slots=True, kw_only=True)
class MaterializeReport(Report):
    """What was copied, and how many of the subset's samples the target had already."""

    frames: int
    samples: int
    already: int
    stored_bytes: int


@timed
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
    samples = 0
    total = Written()
    run_ids: set[str] = set()
    storage = open_storage(output, manifest)
    target = storage.writer()
    for video_id, frames in by_video.items():
        table = _chosen(stored_rows(dataset, video_id, names), frames)
        samples += len(table)
        run_ids.update(table["run_id"].unique().to_pylist())
        rows = grouped(table.append_column(SOURCE, pa.repeat(pa.scalar(0, pa.int32()), len(table))), manifest)
        total += write_samples(rows, video_id, {0: dataset.storage}, storage, target)
        progress(len(frames))
    target.close()
    _copy_runs(dataset.folder, output, run_ids)
    _record_shards(output, target.committed)
    return MaterializeReport(
        frames=total.frames, samples=total.samples, already=samples - total.samples, stored_bytes=total.stored_bytes
    )


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


def _chosen(table: pa.Table, frames: Mapping[int, Names]) -> pa.Table:
    """Return the rows that a subset names."""
    places = zip(table["frame_index"].to_pylist(), table["representation"].to_pylist(), strict=True)
    is_chosen = [frame in frames and ((names := frames[frame]) is None or name in names) for frame, name in places]
    return table.filter(pa.array(is_chosen, pa.bool_()))


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
