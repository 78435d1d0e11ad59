"""`vrekit subset`: saved selections."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrekit.cli.export import WriterName
from vrekit.cli.interrupts import goes_on
from vrekit.cli.output import command, human_bytes, note, print_json, say, table
from vrekit.core.counting import counted

if TYPE_CHECKING:
    from vrekit.catalog.subset import Operation

app = typer.Typer(no_args_is_help=True, help="Combine, check and copy saved selections (`vrekit query … --save`).")

_A = Annotated[Path, typer.Argument(help="A subset file.", metavar="A")]
_B = Annotated[Path, typer.Argument(help="Another subset file.", metavar="B")]
_OUT = Annotated[Path, typer.Option("--output", "-o", help="The subset file to write, e.g. c.parquet.")]
_JSON = Annotated[bool, typer.Option("--json", help="Print as JSON.")]
SHOWN = 20


def _combine(operation: "Operation", a: Path, b: Path, output: Path) -> None:
    from vrekit.catalog.subset import combine, read_subset

    left, right = read_subset(a), read_subset(b)
    result = combine(operation, left, right)
    result.write(output)
    frames = counted(len(result), "frame")
    note(f"{len(left)} {operation} {len(right)} → {frames}, {output} (digest {result.digest[:16]})")


@app.command()
@command
def union(a: _A, b: _B, output: _OUT) -> None:
    """Write the frames of A or B.

    Example:
        vrekit subset union dark.parquet blurred.parquet -o bad.parquet
    """
    _combine("union", a, b, output)


@app.command()
@command
def intersect(a: _A, b: _B, output: _OUT) -> None:
    """Write the frames of both A and B.

    Example:
        vrekit subset intersect dark.parquet moving.parquet -o both.parquet
    """
    _combine("intersect", a, b, output)


@app.command()
@command
def minus(a: _A, b: _B, output: _OUT) -> None:
    """Write the frames of A that are not in B.

    Example:
        vrekit subset minus all.parquet bad.parquet -o good.parquet
    """
    _combine("minus", a, b, output)


@app.command()
@command
def info(
    subset: Annotated[Path, typer.Argument(help="A subset file.")],
    as_json: _JSON = False,
) -> None:
    """Show what a subset holds and how it was made.

    Example:
        vrekit subset info dark.parquet
    """
    from collections import Counter

    from vrekit.catalog.subset import read_subset

    read = read_subset(subset)
    videos = Counter(video_id for video_id, _ in read.frames)
    if as_json:
        print_json({"frames": len(read), "videos": dict(videos), "digest": read.digest, **read.metadata})
        return
    say(f"{subset}: {counted(len(read), 'frame')} of {counted(len(videos), 'video')}, digest {read.digest[:16]}")
    if dataset := read.metadata.get("dataset"):
        say(f"selected from {dataset['name']}")
    for stage in read.metadata.get("stages", []):
        params = ", ".join(f"{name} {value}" for name, value in stage["params"].items() if value is not None)
        before = "" if stage.get("n_in") is None else f"{stage['n_in']} → "
        say(f"  {stage['op']}{f' ({params})' if params else ''}: {before}{stage['n_out']}")
        for source in stage.get("sources", []):
            say(f"    {counted(source['count'], 'frame')}, digest {source['digest'][:16]}")
    shown = [[video_id, str(count)] for video_id, count in videos.most_common(SHOWN)]
    table(["video", "frames"], shown)
    if len(videos) > SHOWN:
        note(f"… and {counted(len(videos) - SHOWN, 'more video')}")


@app.command()
@command(reads=["dataset"])
def verify(
    subset: Annotated[Path, typer.Argument(help="A subset file.")],
    dataset: Annotated[Path, typer.Argument(help="Folder or URL of the dataset.")],
    as_json: _JSON = False,
) -> None:
    """Check that a dataset stores every frame and representation a subset names.

    Exit code 1 when something is missing.

    Example:
        vrekit subset verify dark.parquet out
    """
    from vrekit.catalog.dataset import open_dataset
    from vrekit.catalog.subset import read_subset
    from vrekit.catalog.subset import verify as run_verify

    read = read_subset(subset)
    with open_dataset(dataset) as opened:
        found = run_verify(read, opened)
    if as_json:
        print_json(
            {
                "frames": found.count,
                "good": found.is_good,
                "missing": list(found.missing),
                "incomplete": {key: list(names) for key, names in found.incomplete.items()},
            }
        )
    else:
        lines = [f"missing: {key}" for key in found.missing]
        lines += [f"incomplete: {key} lacks {', '.join(names)}" for key, names in found.incomplete.items()]
        for line in lines[:SHOWN]:
            say(line)
        if len(lines) > SHOWN:
            note(f"… and {len(lines) - SHOWN} more: --json lists all")
        note(
            f"{counted(found.count, 'frame')}: "
            + ("all there" if found.is_good else f"{len(lines)} not as the subset says")
        )
    if not found.is_good:
        raise typer.Exit(1)


@app.command()
@command(reads=["dataset"])
def materialize(
    subset: Annotated[Path, typer.Argument(help="A subset file.")],
    dataset: Annotated[Path, typer.Argument(help="Folder or URL of the dataset to copy from.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new dataset, e.g. small.")],
    writer: Annotated[
        WriterName | None, typer.Option(help="Storage of the new dataset. Default: that of the source.")
    ] = None,
    as_json: _JSON = False,
) -> None:
    """Copy the samples of a subset into a dataset of their own, byte for byte.

    Samples that the new dataset has already are left alone, so the same command goes on after an interruption.

    Example:
        vrekit subset materialize dark.parquet out -o out-dark
    """
    from vrekit.catalog.dataset import open_dataset
    from vrekit.catalog.subset import read_subset
    from vrekit.jobs.materialize import materialize as run_materialize

    read = read_subset(subset)
    with goes_on(), open_dataset(dataset) as opened:
        report = run_materialize(read, opened, output, writer=writer.value if writer else None)
    if as_json:
        print_json(report.to_json())
        return
    note(
        f"{counted(report.samples, 'sample')} of {counted(report.frames, 'frame')}, "
        f"{human_bytes(report.stored_bytes)}, copied to {output}"
        + (f"; {report.already} were there already" if report.already else "")
    )
