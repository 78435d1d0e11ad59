"""`vrekit transcode`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrekit.cli.export import Profile
from vrekit.cli.interrupts import goes_on
from vrekit.cli.merge import byte_listener
from vrekit.cli.output import command, human_bytes, human_seconds, note, print_json, table
from vrekit.core.counting import counted
from vrekit.core.units import parse_memory

if TYPE_CHECKING:
    from vrekit.jobs.transcode.report import TranscodeReport


@command(reads=["dataset"])
def transcode(
    dataset: Annotated[Path, typer.Argument(help="Folder or URL of the dataset; it is only read.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the result, e.g. out-small. New or empty.")],
    profile: Annotated[
        Profile | None,
        typer.Option(help="Codecs to change to: for decoding speed, both, bytes, or other programs (`vrekit codecs`)."),
    ] = None,
    lossless: Annotated[
        bool | None,
        typer.Option("--lossless/--lossy", help="The profile's codecs of one sort. Default: its choice for each kind."),
    ] = None,
    codec: Annotated[
        list[str] | None,
        typer.Option(help="Codec of one representation, e.g. --codec rgb=jpg or --codec 'rgb={id: jpg, quality: 90}'."),
    ] = None,
    representations: Annotated[
        list[str] | None,
        typer.Option("--representations", "-r", help="Take only these along, e.g. -r rgb,canny. Default: all."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads that encode. Default: the CPUs.", min=1, max=1024)
    ] = None,
    memory: Annotated[str, typer.Option(help="Bound on frames in flight, e.g. 1GB.")] = "256MiB",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report to stdout.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No live display.")] = False,
) -> None:
    """Make a dataset of the same samples with other codecs.

    Only what gets another codec is decoded and encoded, each payload is checked by decoding it again; the rest is
    copied as bytes. What is lost is said. The same command again goes on after an interruption.

    Example:
        vrekit transcode out --profile training -o out-training
    """
    from vrekit.catalog.manifest import read_manifest
    from vrekit.jobs.transcode.changes import Loss, plan_changes
    from vrekit.jobs.transcode.run import transcode as run_transcode

    names = [name.strip() for part in representations or () for name in part.split(",") if name.strip()]
    options: dict[str, Any] = {
        "profile": profile.value if profile else None,
        "lossy": None if lossless is None else not lossless,
        "codecs": dict(_codec(text) for text in codec or ()),
    }
    for change in plan_changes(read_manifest(dataset), names, **options).values():
        if change.loss in (Loss.NEW, Loss.AGAIN):
            note(f"{change.name}: {change.before} → {change.after} is {change.note}")
    with goes_on(), byte_listener(no_progress, "transcoding") as listener:
        report = run_transcode(
            dataset,
            output,
            **options,
            names=names,
            threads=threads,
            memory_bytes=parse_memory(memory),
            dry_run=dry_run,
            listener=listener,
        )
    if as_json:
        print_json(report.to_json())
    else:
        _print_report(report, dry_run=dry_run)


def _codec(text: str) -> tuple[str, Any]:
    import yaml

    from vrekit.core.errors import UsageError

    name, equals, value = text.partition("=")
    hint = "write --codec rgb=jpg, or --codec 'rgb={id: jpg, quality: 90}'"
    if not (name.strip() and equals and value.strip()):
        raise UsageError(f"--codec {text!r} is not NAME=CODEC", hint=hint)
    try:
        option = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f"--codec {text!r}: {value!r} is no YAML", hint=hint) from error
    if not isinstance(option, (str, dict)):
        raise UsageError(f"--codec {text!r}: {value!r} is neither a codec's name nor its config", hint=hint)
    return name.strip(), option


def _print_report(report: "TranscodeReport", *, dry_run: bool) -> None:
    if report.unfinished:
        note(
            f"warning: {counted(report.unfinished, 'cell')} of an interrupted export not taken along "
            "(`vrekit resume` finishes what is open)"
        )
    rows = []
    for name, part in report.parts.items():
        change = part.change
        after = part.bytes_after
        rows.append(
            [
                name,
                change.before,
                "copied" if change.recoder is None else change.after,
                str(part.payloads),
                human_bytes(part.bytes_before),
                "–" if after is None else human_bytes(after),
                f"{change.note}: {part.fidelity}" if part.errors else change.note,
            ]
        )
    columns = ["representation", "codec before", "after", "payloads", "size before", "size", "loss"]
    table(columns, rows, title=f"{report.source} → {report.output}", stderr=True)
    if dry_run:
        rows_and_bytes = f"{counted(report.rows, 'row')} from {human_bytes(report.bytes_before)} of payloads"
        note(f"would write {rows_and_bytes}; nothing is written")
    elif report.was_finished:
        note(f"{report.output} is finished already: nothing to do")
    else:
        seconds = max(report.elapsed_seconds, 1e-9)
        note(
            f"{counted(report.encoded, 'payload')} encoded and checked, {report.copied} copied, "
            f"{counted(report.failed, 'failed frame')} kept as such: "
            f"{human_bytes(report.bytes_before)} → {human_bytes(report.bytes_after)} in "
            f"{human_seconds(seconds)} ({human_bytes(report.bytes_before / seconds)}/s)"
        )
