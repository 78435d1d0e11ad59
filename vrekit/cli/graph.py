"""`vrekit graph`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrekit.cli.output import command, note, print_json, say

if TYPE_CHECKING:
    from vrekit.core.spec import RepresentationSpec


@command
def graph(
    config: Annotated[
        str,
        typer.Argument(help="Config file, name of a shipped one, or folder of a dataset.", metavar="CONFIG|DATASET"),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Draw it to this file, e.g. dag.svg or dag.png.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print nodes and edges as JSON.")] = False,
) -> None:
    """Show which representation is computed from which, as text or as a picture.

    Example:
        vrekit graph quickstart -o dag.svg
    """
    from vrekit.graph.build import topological_order
    from vrekit.graph.draw import as_text, save_picture

    specs = topological_order(_specs(config))
    if output is not None:
        save_picture(specs, output)
        note(f"wrote {output}")
    elif as_json:
        print_json([spec.to_json() for spec in specs])
    else:
        say(as_text(specs))


def _specs(config: str) -> list["RepresentationSpec"]:
    from vrekit.catalog.manifest import MANIFEST_NAME
    from vrekit.config.loader import load_config

    if (Path(config) / MANIFEST_NAME).exists():
        return _specs_of_dataset(Path(config))
    return list(load_config(config).representations)


def _specs_of_dataset(folder: Path) -> list["RepresentationSpec"]:
    """Return what the dataset holds, and what that was computed from without being stored itself."""
    from vrekit.catalog.manifest import read_manifest
    from vrekit.catalog.runs import read_runs
    from vrekit.core.documents import Fields
    from vrekit.core.spec import RepresentationSpec

    specs = {name: record.spec for name, record in read_manifest(folder).representations.items()}
    asked: dict[str, Fields] = {}
    for run in read_runs(folder):
        request = Fields(run.request, f"the request of run {run.run_id}")
        asked |= {spec.text("name"): spec for spec in request.list_of("representations", [])}
    left = [*specs]
    while left:
        for name in specs[left.pop()].dependencies:
            if name not in specs and name in asked:
                specs[name] = RepresentationSpec.from_json(asked[name])
                left.append(name)
    return list(specs.values())
