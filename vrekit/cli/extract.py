"""`vrekit extract`."""

from pathlib import Path
from typing import Annotated

import typer

from vrekit.cli.interrupts import goes_on
from vrekit.cli.output import command, human_bytes, human_seconds, note, print_json, wants_progress
from vrekit.cli.over_frames import frames_bar


@command(reads=["dataset"])
def extract(
    dataset: Annotated[Path, typer.Argument(help="Folder or URL of the dataset; it is only read.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the files, e.g. files. New or empty.")],
    to: Annotated[
        list[str] | None,
        typer.Option(
            help="Formats, e.g. --to png,npy. Values: npy, json, txt. Pictures of them: png, jpg, mp4. Default: "
            "values, as PNG where a PNG holds them, else as NumPy file, JSON or text."
        ),
    ] = None,
    representations: Annotated[
        list[str] | None,
        typer.Option(
            "--representations", "-r", help="Only these, e.g. -r rgb,canny. Default: all but exported pictures."
        ),
    ] = None,
    videos: Annotated[
        list[str] | None, typer.Option("--video", help="Only these videos, e.g. --video car. Default: all.")
    ] = None,
    frames: Annotated[
        str | None, typer.Option(help="Frame numbers of each video: 0..100 (100 excluded), 5,8,22, 0..1000:10.")
    ] = None,
    every: Annotated[int | None, typer.Option(help="Every n-th of the chosen frames, e.g. 10.", min=1)] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second to take, by timestamps, e.g. 2.")] = None,
    where: Annotated[
        str | None, typer.Option(help='Only frames that an SQL predicate selects, e.g. "motion > 1" (`vrekit query`).')
    ] = None,
    subset: Annotated[
        Path | None, typer.Option(help="Only frames of a subset file, e.g. dark.parquet (`vrekit query … --save`).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are in the folder.")] = False,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Let virtual representations run code that the dataset records.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(help="Threads that decode and encode. Default: the CPUs.", min=1, max=1024)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report to stdout.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No live display.")] = False,
) -> None:
    """Write frames as files that any program opens: FOLDER/VIDEO/FRAME.REPRESENTATION.ENDING, and an index of them.

    A video (mp4) is one file for each video and representation. FOLDER/index.jsonl has a line for each file. The same
    command again goes on after an interruption.

    Example:
        vrekit extract out -o files --to png,npy -r rgb,flow --frames 0..100
    """
    from vrekit.jobs.extract.run import INDEX_NAME, ExtractRequest
    from vrekit.jobs.extract.run import extract as run_extract
    from vrekit.video.selection import parse_frames

    request = ExtractRequest(
        dataset=dataset,
        output=output,
        formats=_words(to),
        representations=_words(representations),
        videos=_words(videos),
        frames=parse_frames(frames, every=every, fps=fps),
        where=where,
        subset=subset,
        force=force,
        trust_code=trust_code,
        threads=threads,
    )
    with goes_on(), frames_bar("extracting", show=wants_progress(no_progress)) as progress:
        report = run_extract(request, progress=progress)
    if as_json:
        print_json(report.to_json())
        return
    seconds = max(report.elapsed_seconds, 1e-9)
    done = f", {report.already} were there already" if report.already else ""
    note(
        f"{report.files} files of {report.frames} frames, {human_bytes(report.size_bytes)}{done} → {output} "
        f"({human_seconds(seconds)}, {human_bytes(report.size_bytes / seconds)}/s); {INDEX_NAME} lists them"
    )
    if report.missing:
        note(f"{report.missing} values are not in the dataset (failed, or never exported): no file")


def _words(parts: list[str] | None) -> tuple[str, ...]:
    return tuple(word.strip() for part in parts or () for word in part.split(",") if word.strip())
