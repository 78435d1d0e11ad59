"""`vrekit query`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrekit.cli.output import command, note
from vrekit.core.counting import counted
from vrekit.core.units import parse_bytes

if TYPE_CHECKING:
    import pyarrow as pa

    from vrekit.catalog.dataset import Dataset
    from vrekit.catalog.query import Selection

TABLE_ROWS = 40
_CELL_CHARACTERS = 1000


class On(StrEnum):
    """What a row of the result is."""

    AUTO = "auto"
    FRAMES = "frames"
    SAMPLES = "samples"


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"
    COUNT = "count"


@command(reads=["dataset"])
def query(
    dataset: Annotated[Path, typer.Argument(help="Folder or URL of the dataset.")],
    where: Annotated[
        str | None,
        typer.Argument(help="DuckDB SQL predicate, e.g. \"codec = 'png' AND byte_size > 10000\". Default: everything."),
    ] = None,
    on: Annotated[
        On, typer.Option(help="Select frames or samples (frame and representation). Default: by the columns used.")
    ] = On.AUTO,
    select: Annotated[
        str | None, typer.Option(help="Columns to show, SQL expressions, e.g. key,byte_size/1e6.")
    ] = None,
    representations: Annotated[
        list[str] | None,
        typer.Option("--representations", "-r", help="Frames that have all of these, or samples of these."),
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second to keep, by timestamps, e.g. 2.")] = None,
    stride: Annotated[int | None, typer.Option(help="Every n-th selected frame of a video, e.g. 10.", min=1)] = None,
    per_video: Annotated[
        int | None, typer.Option(help="At most so many frames of a video, evenly spread, e.g. 100.", min=1)
    ] = None,
    sample: Annotated[str | None, typer.Option(help="Some at random: a number, or a share such as 10%.")] = None,
    seed: Annotated[int, typer.Option(help="Decides the random choice, e.g. 7.")] = 0,
    order_by: Annotated[
        str | None, typer.Option(help='SQL expressions to sort by, e.g. "byte_size DESC". Default: video, frame.')
    ] = None,
    limit: Annotated[int | None, typer.Option(help="The first so many, e.g. 20.", min=0)] = None,
    sql: Annotated[
        str | None,
        typer.Option(help="A whole SELECT over videos, runs, representations, samples, frames; replaces all of these."),
    ] = None,
    output_format: Annotated[Format, typer.Option("--format", help="How to print the rows to stdout.")] = Format.TABLE,
    save: Annotated[
        Path | None, typer.Option(help="Also save the selection as a subset for readers, e.g. dark.parquet.")
    ] = None,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Exit 0 also when nothing is selected.")] = False,
    timeout: Annotated[
        float | None, typer.Option(help="Give up after so many seconds, e.g. 10. Default: never.", metavar="SECONDS")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Memory that the query may use, e.g. 8GB. Default: a quarter of the machine's.")
    ] = None,
) -> None:
    """Select frames or samples of a dataset by an SQL predicate; show, count or save them.

    The steps come in a fixed order, printed to stderr with their counts: where, representations, fps, stride,
    per-video, sample, order-by, limit. Exit code 1 when nothing is left. A query reads this dataset and nothing else.

    Example:
        vrekit query out "representation = 'canny' AND compute_seconds > 0.01" --limit 10
    """
    from vrekit.catalog.dataset import open_dataset
    from vrekit.catalog.query import Query
    from vrekit.catalog.query import select as run_select
    from vrekit.catalog.subset import Subset
    from vrekit.core.errors import UsageError

    request = Query(
        where=where,
        on=on.value,
        representations=tuple(name for part in representations or () for name in part.split(",") if name),
        fps=fps,
        stride=stride,
        per_video=per_video,
        sample=sample,
        seed=seed,
        order_by=order_by,
        limit=limit,
    )
    if output_format is Format.PARQUET:
        _refuse_terminal()
    memory_bytes = parse_bytes(memory, "--memory") if memory else None
    with open_dataset(dataset, memory_bytes=memory_bytes) as opened, opened.sandbox.time_limit(timeout):
        if sql is not None:
            if request != Query(seed=seed) or select is not None:
                raise UsageError(
                    "--sql is the whole query", hint="put the conditions, columns and limit into the SELECT"
                )
            rows, count = _whole_select(opened, sql, output_format, is_saved=save is not None)
            subset = Subset.from_table(opened, rows, sql) if save and rows is not None else None
        else:
            selection = run_select(opened, request, select)
            _print_stages(selection)
            count = selection.count
            first = TABLE_ROWS if output_format is Format.TABLE else None
            rows = None if output_format is Format.COUNT else selection.table(select, first=first)
            subset = Subset.from_selection(selection) if save else None
        if output_format is Format.COUNT:
            typer.echo(count)
        elif rows is not None:
            _PRINTERS[output_format](rows)
            if output_format is Format.TABLE and count > TABLE_ROWS:
                more = "more" if sql else f"{count - TABLE_ROWS} more"
                note(f"… and {more}: --format csv or json prints all, --limit the first")
        if save is not None and subset is not None:
            subset.write(save)
            note(f"saved {counted(len(subset), 'frame')} to {save} (digest {subset.digest[:16]})")
    if not count and not allow_empty:
        note("nothing selected (exit code 1; --allow-empty makes it 0)")
        raise typer.Exit(1)


def _whole_select(dataset: "Dataset", sql: str, shown: Format, *, is_saved: bool) -> "tuple[pa.Table | None, int]":
    """Return the rows of a SELECT that are needed, and how many there are; one more than is shown stands for many."""
    if shown is Format.COUNT and not is_saved:
        return None, dataset.sandbox.count(sql)
    first = TABLE_ROWS + 1 if shown is Format.TABLE and not is_saved else None
    rows = dataset.sandbox.fetch(sql, first=first)
    return rows, rows.num_rows


def _refuse_terminal() -> None:
    import sys

    from vrekit.core.errors import UsageError

    if sys.stdout.isatty():
        raise UsageError("Parquet is not for a terminal", hint="redirect it: … --format parquet > rows.parquet")


def _print_stages(selection: "Selection") -> None:
    first = selection.stages[0]
    steps = [f"{first.n_in} {selection.level}"]
    for stage in selection.stages:
        if stage.op == "where" and not selection.query.where:
            continue
        values = ",".join(str(value) for name, value in stage.params.items() if name not in ("where", "on"))
        steps.append(f"{stage.op}{f' {values}' if values else ''}: {stage.n_out}")
    note(" → ".join(steps))


def _print_table(rows: "pa.Table") -> None:
    from vrekit.cli.output import table

    shown = rows.slice(0, TABLE_ROWS).to_pylist()
    table(rows.column_names, [[_cell(row[name]) for name in rows.column_names] for row in shown])


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = ", ".join(_cell(one) for one in value[:_CELL_CHARACTERS]) if isinstance(value, list) else str(value)
    return text if len(text) <= _CELL_CHARACTERS else text[:_CELL_CHARACTERS] + "…"


def _print_json(rows: "pa.Table") -> None:
    import json

    typer.echo("[", nl=False)
    separator = "\n"
    for batch in rows.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            typer.echo(separator + json.dumps(_plain(row), ensure_ascii=False), nl=False)
            separator = ",\n"
    typer.echo("\n]")


def _plain(value: object) -> object:
    import math
    from datetime import date

    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN
    if isinstance(value, date):
        return value.isoformat()
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


def _print_csv(rows: "pa.Table") -> None:
    import csv
    import json
    import sys

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(rows.column_names)
    for batch in rows.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            cells = (_plain(row[name]) for name in rows.column_names)
            writer.writerow([json.dumps(cell) if isinstance(cell, (list, dict)) else cell for cell in cells])


def _print_parquet(rows: "pa.Table") -> None:
    import sys

    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    sys.stdout.buffer.write(sink.getvalue())


_PRINTERS = {
    Format.TABLE: _print_table,
    Format.JSON: _print_json,
    Format.CSV: _print_csv,
    Format.PARQUET: _print_parquet,
}
