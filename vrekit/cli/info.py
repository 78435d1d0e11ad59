"""`vrekit info`."""

from pathlib import Path
from typing import Annotated

import typer

from vrekit.cli.output import command, human_bytes, human_seconds, note, print_json, say, table
from vrekit.core.counting import counted


@command(reads=["dataset"])
def info(
    dataset: Annotated[Path, typer.Argument(help="Folder or URL of the dataset.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what a dataset holds: videos, representations, sizes, runs and failures.

    Example:
        vrekit info out
    """
    from vrekit.catalog.summary import summarize

    summary = summarize(dataset)
    waiting = summary.open_frames
    if as_json:
        print_json(summary.to_json())
        return
    manifest = summary.manifest
    say(
        f"{dataset}: {manifest.writer}, format version {manifest.format_version}, {counted(summary.shards, 'shard')}, "
        f"{human_bytes(sum(one.stored_bytes for one in summary.representations))} of payloads\n"
    )
    videos = [
        [
            video_id,
            f"{summary.frames.get(video_id, 0)} of {one.frame_count}",
            f"{one.width}x{one.height}",
            f"{one.fps:.3f}".rstrip("0").rstrip(".") if one.fps else "–",
            one.codec or one.source,
            one.uri,
        ]
        for video_id, one in manifest.videos.items()
    ]
    table(["video", "frames stored", "size", "fps", "codec", "source"], videos)
    for video_id, count in waiting.items():
        frames = f"{counted(count, 'more frame')} in an open shard"
        say(f"{video_id}: {frames}; `vrekit resume {dataset}` goes on with them")
    representations = [
        [
            one.name,
            one.type,
            one.kind,
            one.codec or "virtual",
            str(one.frames) if one.codec else "–",
            str(one.failed) if one.failed else "–",
            human_bytes(one.stored_bytes) if one.codec else "–",
            human_bytes(one.stored_bytes / one.frames) if one.frames else "–",
            f"{one.raw_bytes / one.stored_bytes:.1f}" if one.stored_bytes else "–",
            f"{one.compute_seconds / one.frames * 1000:.1f}" if one.frames else "–",
        ]
        for one in summary.representations
    ]
    columns = ["representation", "type", "kind", "codec", "frames", "failed", "size", "a frame", "× smaller", "ms"]
    table(columns, representations)
    runs = [
        [
            run.run_id,
            run.video_id,
            "running or killed" if run.status == "running" else run.status,
            str(sum(totals.computed for totals in run.totals.values())),
            str(sum(totals.failed for totals in run.totals.values())),
            human_seconds(run.elapsed_seconds) if run.elapsed_seconds is not None else "–",
        ]
        for run in summary.runs
    ]
    table(["run", "video", "status", "computed", "failed", "time"], runs)
    for damaged in summary.damaged_runs:
        note(f"warning: {damaged}")
    for tar in summary.damaged_tars:
        say(f"damaged: {tar.path} {tar.problem}; `vrekit validate --repair {dataset}` takes it out")
    for failure in summary.failures:
        say(
            f"failed: {failure['video_id']} frame {failure['frame_index']} "
            f"{failure['representation']}: {failure['error']}"
        )
