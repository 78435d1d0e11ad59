"""`vrekit export`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrekit.cli.interrupts import goes_on
from vrekit.cli.output import command, human_bytes, human_seconds, note, print_error, print_json, table, wants_progress
from vrekit.core.counting import counted
from vrekit.core.units import parse_bytes, parse_memory

if TYPE_CHECKING:
    from vrekit.core.errors import VrekitError
    from vrekit.core.reports import ProgressListener
    from vrekit.engine.export import ExportReport
    from vrekit.engine.request import ExportRequest

    Outcome = tuple[list[ExportReport], VrekitError | None]


class WriterName(StrEnum):
    """Storage formats."""

    LANCE = "lance"
    WEBDATASET = "webdataset"


class Layout(StrEnum):
    """What a shard holds."""

    SAMPLE = "sample"
    REPRESENTATION = "representation"


class ImageFormat(StrEnum):
    """Picture formats."""

    JPG = "jpg"
    PNG = "png"


class Profile(StrEnum):
    """What codecs are chosen for."""

    TRAINING = "training"
    BALANCED = "balanced"
    ARCHIVE = "archive"
    PLAIN = "plain"


SCRATCH = typer.Option(
    "--scratch", help="Where the open shards of a dataset behind a URL lie, e.g. /local/scratch. Default: the cache."
)


@command(writes=["output"])
def export(
    videos: Annotated[
        list[str], typer.Argument(help="Video files, folders of images or arrays, or array files.", metavar="VIDEO")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder or URL of the dataset, e.g. out. Made if missing.")
    ],
    config: Annotated[
        str, typer.Option("--config", "-c", help="Config file, or the name of a shipped one (`vrekit list configs`).")
    ] = "quickstart",
    representations: Annotated[
        list[str] | None,
        typer.Option("--representations", "-r", help="Only these, e.g. -r rgb,canny. Default: all of the config."),
    ] = None,
    frames: Annotated[
        str | None, typer.Option(help="Frame numbers: 0..100 (100 excluded), 5, 5,8,22, 10.., ..50, 0..1000:10.")
    ] = None,
    every: Annotated[int | None, typer.Option(help="Every n-th of the chosen frames, e.g. 10.", min=1)] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second to take, by timestamps, e.g. 2.")] = None,
    images: Annotated[
        ImageFormat | None, typer.Option(help="Also export a picture of every representation, in the same sample.")
    ] = None,
    video_id: Annotated[
        str | None, typer.Option(help="Name of the video in the dataset. Default: from its file name.")
    ] = None,
    stream: Annotated[int | None, typer.Option(help="Video stream of a file with several, e.g. 3.", min=0)] = None,
    source_fps: Annotated[
        float | None, typer.Option(help="Frames per second of a folder or array, which has no clock.")
    ] = None,
    writer: Annotated[WriterName | None, typer.Option(help="Storage format. Default: webdataset.")] = None,
    layout: Annotated[
        Layout | None,
        typer.Option(help="Shards with all representations of a frame (default), or shards for each of them."),
    ] = None,
    shard_size: Annotated[
        str | None, typer.Option(help="Close a shard at this size, e.g. 512MB. Default: 1GB.")
    ] = None,
    shard_frames: Annotated[
        int | None,
        typer.Option(help="Close a shard at this many frame numbers. Default: 1024.", min=1, max=1_000_000_000),
    ] = None,
    profile: Annotated[
        Profile,
        typer.Option(help="What default codecs are chosen for: decoding speed, both, bytes, or other programs."),
    ] = Profile.BALANCED,
    batch_size: Annotated[
        int | None, typer.Option(help="Frames per computing step. Default: the config's, 8.", min=1, max=1_000_000)
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Worker threads. Default: the CPUs.", min=1, max=1024)] = None,
    memory: Annotated[str, typer.Option(help="Bound on frames in flight, e.g. 1GB.")] = "128MiB",
    max_failures: Annotated[
        int, typer.Option(help="Stop when a representation fails on this many frames in a row.", min=1)
    ] = 20,
    check_video: Annotated[
        bool,
        typer.Option("--check-video", help="First decode each video once, to record which frames decode with errors."),
    ] = False,
    scratch: Annotated[Path | None, SCRATCH] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be computed and how large it gets; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report to stdout.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No live display.")] = False,
) -> None:
    """Compute representations of videos and store them as a dataset.

    Frames that are stored already are left alone, so the same command again continues where it stopped.

    Example:
        vrekit export clip.mp4 -o out --config quickstart --frames 0..100
    """
    from vrekit.catalog.remote import dataset_folder
    from vrekit.config.loader import load_config
    from vrekit.core.errors import UsageError
    from vrekit.engine.request import ExportRequest
    from vrekit.engine.videos import requests_for
    from vrekit.video.selection import parse_frames

    only = tuple(name.strip() for part in representations or () for name in part.split(",") if name.strip())
    if representations and not only:
        raise UsageError("--representations names none", hint="write -r rgb,canny, or leave it away for all of them")
    loaded = load_config(config)
    output = dataset_folder(output, for_writing=True, scratch=scratch)
    request = ExportRequest(
        video=videos[0],
        dataset=output,
        representations=loaded.representations,
        config_folder=loaded.folder,
        only=only,
        video_id=video_id,
        frames=parse_frames(frames, every=every, fps=fps),
        stream_index=stream,
        fps=source_fps,
        images=images.value if images else None,
        writer=writer.value if writer else None,
        layout=layout.value if layout else None,
        shard_frames=shard_frames,
        shard_size_bytes=parse_bytes(shard_size, "--shard-size") if shard_size else None,
        profile=profile.value,
        batch_size=batch_size or loaded.batch_size,
        threads=threads,
        memory_bytes=parse_memory(memory),
        max_failures=max_failures,
        check_video=check_video,
        position=loaded.position,
    )
    requests = requests_for(videos, request)
    if dry_run:
        _dry_run(requests, as_json)
        return
    finish(run_all(requests, no_progress=no_progress), as_json)


def run_all(requests: "list[ExportRequest]", *, no_progress: bool, retry_failed: bool = False) -> "Outcome":
    """Export one request after another, with a live display where it makes sense.

    A video that cannot be read, or that another process is at work on, does not keep the others from being exported:
    the last such error is returned, those before it are printed.
    """
    from vrekit.catalog.manifest import MANIFEST_NAME
    from vrekit.catalog.remote import shown
    from vrekit.engine.export import export as run_export
    from vrekit.engine.videos import export_all

    def run(request: "ExportRequest") -> "ExportReport":
        def how() -> str:
            if not (request.dataset / MANIFEST_NAME).exists():
                return "nothing was stored yet; the same command begins again"
            return f"what is done is kept; `vrekit resume {shown(str(request.dataset))}` goes on from there"

        with goes_on(how), _listener(no_progress) as listener:
            return run_export(request, listener, retry_failed=retry_failed)

    reports, errors = export_all(requests, run)
    for error in errors[:-1]:
        print_error(error.message, error.hint)
    return reports, errors[-1] if errors else None


class _Silent:
    def __enter__(self) -> "ProgressListener":
        from vrekit.core.reports import ProgressListener

        return ProgressListener()

    def __exit__(self, *exc: object) -> None: ...


def _listener(no_progress: bool) -> Any:
    if not wants_progress(no_progress):
        return _Silent()
    from vrekit.cli.progress import ProgressBars

    return ProgressBars()


def finish(outcome: "Outcome", as_json: bool) -> None:
    """Print the summary of exports; then raise what `run_all` returned, or exit 1 when frames failed."""
    reports, error = outcome
    if error is not None and not reports:
        raise error
    if as_json:
        print_json([report.to_json() for report in reports])
    else:
        for report in reports:
            _print_report(report)
    if error is not None:
        raise error
    failed = sum(report.failed_frames + sum(report.failed_before.values()) for report in reports)
    if failed:
        dataset = reports[0].dataset
        note(
            f"{counted(failed, 'result')} failed (frames × representations); their errors: `vrekit info {dataset}`; "
            f"try again: `vrekit resume {dataset}`"
        )
        raise typer.Exit(1)


def _print_report(report: "ExportReport") -> None:
    title = f"{report.video_id} → {report.dataset}: {counted(report.frames, 'frame')}"
    if report.run_id is None:
        note(f"{title}, all stored already: nothing to compute ({human_seconds(report.elapsed_seconds)})")
        return
    rows = []
    for name, done in report.totals.items():
        count = done.computed + done.failed
        rows.append(
            [
                name,
                str(done.computed),
                str(report.already.get(name, 0)),
                str(done.failed),
                f"{done.compute_seconds / max(1, count) * 1000:.1f}",
                f"{done.encode_seconds / max(1, count) * 1000:.1f}",
                human_bytes(done.stored_bytes),
                f"{done.raw_bytes / done.stored_bytes:.1f}" if done.stored_bytes else "–",
            ]
        )
    head = "representation", "computed", "stored\nbefore", "failed", "compute\nms", "encode\nms", "size", "×\nsmaller"
    table([*head], rows, title=title, stderr=True)  # fits 80 columns
    most = max((done.computed + done.failed for done in report.totals.values()), default=0)
    size = human_bytes(sum(done.stored_bytes for done in report.totals.values()))
    note(
        f"{counted(most, 'frame')} in {human_seconds(report.elapsed_seconds)} "
        f"({most / report.elapsed_seconds:.1f} frames/s), {size}, run {report.run_id}"
    )


def _dry_run(requests: "list[ExportRequest]", as_json: bool) -> None:
    from vrekit.engine.estimate import estimate

    estimates = [estimate(request) for request in requests]
    if as_json:
        print_json([one.to_json() for one in estimates])
        return
    for one in estimates:
        rows = [
            [
                part.name,
                str(part.frames),
                str(part.already),
                str(part.failed_before),
                human_bytes(part.estimated_bytes),
                human_seconds(part.estimated_seconds),
                part.codec,
            ]
            for part in one.parts
        ]
        columns = [
            "representation",
            "to\ncompute",
            "stored\nbefore",
            "failed\nbefore",
            "≈ size",
            "≈ CPU\ntime",
            "codec",
        ]
        table(columns, rows, title=f"{one.video_id}: {counted(one.frames, 'frame')} (nothing is written)")
        note(
            f"about {human_bytes(one.estimated_bytes)} and {human_seconds(one.estimated_seconds)} of CPU time, "
            f"from {counted(one.sampled_frames, 'frame')} computed and encoded as a sample"
        )
