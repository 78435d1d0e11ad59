"""`vrekit resume`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vrekit.cli.export import SCRATCH, finish, run_all
from vrekit.cli.output import command
from vrekit.core.units import parse_memory


@command(writes=["dataset"])
def resume(
    dataset: Annotated[Path, typer.Argument(help="Folder or URL of the dataset.")],
    threads: Annotated[int | None, typer.Option(help="Worker threads. Default: the CPUs.", min=1, max=1024)] = None,
    memory: Annotated[str, typer.Option(help="Bound on frames in flight, e.g. 1GB.")] = "128MiB",
    max_failures: Annotated[
        int, typer.Option(help="Stop when a representation fails on this many frames in a row.", min=1)
    ] = 20,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run code that the dataset records: types that are no installed ones.")
    ] = False,
    scratch: Annotated[Path | None, SCRATCH] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report to stdout.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="No live display.")] = False,
) -> None:
    """Finish interrupted exports of a dataset and try failed frames again.

    It needs nothing but the dataset and the videos: every run has recorded what it was asked to do.

    The videos and files that runs/*.json name are read into the dataset: look at those of a stranger first.

    Example:
        vrekit resume out
    """
    from vrekit.catalog.manifest import read_manifest
    from vrekit.catalog.remote import dataset_folder
    from vrekit.engine.export import recorded_requests

    dataset = dataset_folder(dataset, for_writing=True, scratch=scratch)
    read_manifest(dataset)
    requests = [
        replace(request, threads=threads, memory_bytes=parse_memory(memory), max_failures=max_failures)
        for request in recorded_requests(dataset, trust_code=trust_code)
    ]
    finish(run_all(requests, no_progress=no_progress, retry_failed=True), as_json)
