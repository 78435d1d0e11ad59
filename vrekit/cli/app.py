"""The commands and what they share. Importing this stays cheap: commands import what they need when they run."""

from typing import Annotated

import typer

from vrekit import __version__
from vrekit.cli.codecs import app as codecs
from vrekit.cli.convert import convert
from vrekit.cli.export import export
from vrekit.cli.extract import extract
from vrekit.cli.gc import gc
from vrekit.cli.graph import graph
from vrekit.cli.info import info
from vrekit.cli.items import items
from vrekit.cli.list import list_command
from vrekit.cli.merge import merge
from vrekit.cli.output import set_debug
from vrekit.cli.query import query
from vrekit.cli.repair import repair
from vrekit.cli.resume import resume
from vrekit.cli.show import show
from vrekit.cli.stats import stats
from vrekit.cli.subset import app as subset
from vrekit.cli.transcode import transcode
from vrekit.cli.validate import validate

app = typer.Typer(
    name="vrekit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"vrekit {__version__}")
        raise typer.Exit


@app.callback()
def _vrekit(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, and log what happens to stderr.")
    ] = False,
) -> None:
    """Turn raw video into sharded multi-modal training data.

    A config names representations (colour, edges, flow, depth, normals, …); `export` computes them for every frame
    and writes WebDataset shards with columnar metadata; `vrekit.readers` feeds them to PyTorch.
    """
    set_debug(debug)


app.command()(export)
app.command()(resume)
app.command()(info)
app.command("list")(list_command)
app.command()(graph)
app.command()(validate)
app.command()(repair)
app.command()(query)
app.add_typer(subset, name="subset")
app.command()(stats)
app.command()(items)
app.command()(show)
app.command()(extract)
app.command()(merge)
app.command()(transcode)
app.add_typer(codecs, name="codecs")
app.command()(convert)
app.command()(gc)
