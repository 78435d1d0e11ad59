"""`vrekit convert`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vrekit.cli.interrupts import goes_on
from vrekit.cli.merge import Storage, run_merge
from vrekit.cli.output import command, human_bytes, human_seconds, note, print_json
from vrekit.core.counting import counted
from vrekit.core.units import parse_bytes

SHOWN = 20


class Origin(StrEnum):
    """What is converted."""

    VREKIT = "vrekit"
    VRE = "vre"


@command(reads=["source"])
def convert(
    source: Annotated[
        Path, typer.Argument(help="Folder or URL of the dataset, or folder of VRE's output.", metavar="SOURCE")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new dataset, e.g. out-lance.")],
    writer: Annotated[
        Storage | None,
        typer.Option(help="Storage of the new dataset. Default: webdataset for VRE, else the other one."),
    ] = None,
    origin: Annotated[
        Origin, typer.Option("--from", help="What SOURCE is: a dataset of vrekit, or an output folder of VRE.")
    ] = Origin.VREKIT,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="VRE: the config it ran with; it tells what the arrays mean.")
    ] = None,
    video: Annotated[
        str | None, typer.Option(help="VRE: the video it read; gives timestamps, and ties the dataset to its content.")
    ] = None,
    video_id: Annotated[
        str | None, typer.Option(help="VRE: name of the video in the dataset. Default: from the video's file name.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="VRE: what a representation's arrays mean, e.g. --kind dpt=depth.")
    ] = None,
    codec: Annotated[str, typer.Option(help="VRE: exact codec for the arrays: npy.zst or npy.")] = "npy.zst",
    shard_size: Annotated[str | None, typer.Option(help="Close a shard at this size, e.g. 512MB.")] = None,
    shard_frames: Annotated[
        int | None, typer.Option(help="Close a shard at this many frame numbers, e.g. 4096.", min=1, max=1_000_000_000)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report to stdout.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No live display.")] = False,
) -> None:
    """Convert a dataset between tar shards and Lance tables, or make one from the output of VRE.

    Between storages the payloads stay as they are, byte for byte. VRE's arrays keep every bit, their durations and run
    ids; files that are damaged or hold pickled objects become failed frames. The same command again goes on after an
    interruption.

    Example:
        vrekit convert out -o out-lance --writer lance
    """
    from vrekit.core.errors import UsageError

    size = parse_bytes(shard_size, "--shard-size") if shard_size else None
    if origin is Origin.VRE:
        _import_vre(
            source,
            output,
            writer=(writer or Storage.WEBDATASET).value,
            config=config,
            video=video,
            video_id=video_id,
            kinds=_pairs(kind or []),
            codec=codec,
            shard_frames=shard_frames,
            shard_size_bytes=size,
            as_json=as_json,
        )
        return
    if config or video or video_id or kind:
        raise UsageError("--config, --video, --video-id and --kind describe the output of VRE", hint="add --from vre")
    from vrekit.catalog.manifest import read_manifest
    from vrekit.jobs.merge.manifests import Layout

    if writer is None:
        writer = Storage.WEBDATASET if read_manifest(source).writer == "lance" else Storage.LANCE
    layout = Layout(writer=writer.value, shard_frames=shard_frames, shard_size_bytes=size)
    run_merge([source], output, layout=layout, on_conflict="error", as_json=as_json, no_progress=no_progress)


def _pairs(texts: list[str]) -> dict[str, str]:
    from vrekit.core.errors import UsageError

    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"--kind {text!r} is not NAME=KIND", hint="such as --kind dpt=depth")
        pairs[name] = value
    return pairs


def _import_vre(source: Path, output: Path, *, as_json: bool, **options: object) -> None:
    import time

    from vrekit.jobs.vre.run import VreRequest, import_vre

    started = time.perf_counter()
    with goes_on():
        report = import_vre(VreRequest(source=source, output=output, **options))  # type: ignore[arg-type]  # its fields
    if as_json:
        print_json(report.to_json())
    else:
        for line in report.skipped:
            note(f"skipped: {line}")
        for old, new in report.renamed.items():
            note(f"renamed: {old!r} is {new!r} in the dataset")
        for failure in report.failures[:SHOWN]:
            note(f"failed: frame {failure['frame_index']} {failure['representation']}: {failure['error']}")
        if len(report.failures) > SHOWN:
            note(f"… and {len(report.failures) - SHOWN} more: `vrekit info {output}`")
        already = sum(report.already.values())
        note(
            f"{counted(sum(report.stored.values()), 'payload')} of {counted(len(report.stored), 'representation')}, "
            f"{human_bytes(report.stored_bytes)}, in {human_seconds(time.perf_counter() - started)} → {output}"
            + (f"; {already} were there already" if already else "")
        )
    if report.failures:
        raise typer.Exit(1)
