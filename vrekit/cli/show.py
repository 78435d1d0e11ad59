"""`vrekit show`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrekit.cli.output import command, human_bytes, note, print_json, say

if TYPE_CHECKING:
    from vrekit.jobs.show import Inspected
    from vrekit.representations.pictures import Picture

_MOST_ROWS = 10  # of values
_WIDTH = 74  # of a line of values, in characters


@command(reads=["dataset"])
def show(
    dataset: Annotated[Path, typer.Argument(help="Folder or URL of the dataset.")],
    key: Annotated[str, typer.Argument(help="The frame: VIDEO/FRAME, e.g. car/12.")],
    representations: Annotated[
        list[str] | None, typer.Argument(help="Representations, e.g. rgb flow. Default: all stored ones.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Save a picture of the (first) representation, e.g. frame.png or frame.jpg."
        ),
    ] = None,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Let virtual representations run code that the dataset records.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show one frame: values, statistics, codec, bytes and run of each representation, and a picture.

    In a terminal with colours the picture of the first representation is printed. Exit code 1 when a representation
    that is stored cannot be read.

    Example:
        vrekit show out car/12 flow -o flow.png
    """
    from vrekit.api.picture import ShownPicture, check_picture_name
    from vrekit.jobs.show import inspect_frame

    if output is not None:
        check_picture_name(output)
    stored_key, seconds, found = inspect_frame(dataset, key, tuple(representations or ()), trust_code=trust_code)
    pictured = next((one for one in found if one.array is not None), None)
    if as_json:
        described = [one.to_json() for one in found]
        print_json({"key": stored_key, "pts_seconds": seconds, "representations": described})
    else:
        say(stored_key + ("" if seconds is None else f", {seconds:.3f} s"))
        if pictured is not None and output is None and _has_colours():
            typer.echo(half_blocks(pictured.picture(), width=min(_columns(), 80)), color=True)
        for one in found:
            say("")
            for line in _lines(one):
                say(line)
    if output is not None:
        if pictured is None:
            raise typer.Exit(_failed("no representation of this frame has values to draw"))
        ShownPicture(pictured.name, pictured.picture()).save(output)
        note(f"{pictured.name} → {output}")
    if any(one.problem and one.stored.get("codec") for one in found):
        raise typer.Exit(1)


def _failed(message: str) -> int:
    from vrekit.cli.output import print_error

    print_error(message)
    return 1


def _lines(one: "Inspected") -> list[str]:
    """Return what is known of a representation, as text."""
    from vrekit.jobs.show import statistics

    spec, lines = one.spec, []
    if one.array is None:
        lines.append(f"{one.name}  {spec.kind}")
    else:
        is_text = one.array.dtype.kind == "U"
        shape = "x".join(map(str, one.array.shape))
        facts = ["text" if is_text else f"{one.array.dtype.name} {shape}".rstrip()]
        facts += [f"unit {spec.unit}"] if spec.unit else []
        facts += [f"range {spec.value_range[0]:g} to {spec.value_range[1]:g}"] if spec.value_range else []
        facts += [] if one.valid else ["not valid: a placeholder"]
        lines.append(f"{one.name}  {spec.kind}, {', '.join(facts)}")
        lines += [f"  {line}" for line in _statistics(statistics(one.array, spec))]
        lines += [f"  {line}" for line in _values(one)]
    stored = one.stored
    if stored.get("codec") is not None:
        size, raw = stored["byte_size"], stored["raw_bytes"]
        times = f" ({raw / size:.1f} times smaller)" if size and raw else ""
        lines.append(f"  {stored['codec']}, {human_bytes(size or 0)}{times}")
        lines.append(f"  in {stored['shard']}")
    if stored.get("run_id"):
        took = stored["compute_seconds"]
        took = "" if took is None else f", computed in {1000 * took:.1f} ms"
        lines.append(f"  run {stored['run_id']}{took}")
    if one.problem:
        lines.append(f"  problem: {one.problem}")
    return lines


def _statistics(found: dict[str, Any]) -> list[str]:
    if "true_share" in found:
        return [f"true {found['true_share']:.2%}"]
    lines = []
    if "min" in found:
        lines.append(", ".join(f"{name} {_short(found[name])}" for name in ("min", "max", "mean", "std")))
    if found.get("finite_share", 1) < 1:
        lines.append(f"finite {found['finite_share']:.2%}")
    for one in found.get("classes", ()):
        name = f" {one['name']}" if one["name"] else ""
        lines.append(f"class {one['id']}{name}: {one['share']:.2%}")
    return lines


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float)) else str(value)


def _values(one: "Inspected") -> list[str]:
    """Return the values of text, tables, boxes and other small arrays."""
    from vrekit.jobs.show import MAX_VALUES

    array = one.array
    if array is None:
        return []
    if array.dtype.kind == "U":
        return str(array.item()).splitlines() or ['""']
    names = one.spec.columns or ()
    has_names = bool(names) and array.ndim in (1, 2) and array.shape[-1] == len(names)
    if not has_names and not (array.size <= MAX_VALUES and 1 <= array.ndim <= 2):
        return []
    rows = array if array.ndim == 2 else array[None]
    lines = []
    for row in rows[:_MOST_ROWS]:
        cells = [_short(value) for value in row.tolist()]
        told = [f"{name} {cell}" for name, cell in zip(names, cells, strict=True)] if has_names else cells
        shown = ", ".join(told)
        lines.append(shown if len(shown) <= _WIDTH else f"{shown[:_WIDTH].rpartition(', ')[0]}, …")
    if len(rows) > _MOST_ROWS:
        lines.append(f"… and {len(rows) - _MOST_ROWS} more rows")
    return lines


# -- a picture of characters ---------------------------------------------------------------------------------------


def _has_colours() -> bool:
    """Return whether stdout is a terminal that may get colours."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _columns() -> int:
    import shutil

    return max(8, shutil.get_terminal_size().columns)


def half_blocks(picture: "Picture", *, width: int) -> str:
    """Return a picture as text in 24-bit colour: a character is two pixels, a half block over its background."""
    import cv2
    import numpy as np

    height = max(2, 2 * round(picture.shape[0] / picture.shape[1] * width / 2))
    small = np.asarray(cv2.resize(picture, (width, min(height, 4 * width)), interpolation=cv2.INTER_AREA))
    lines = []
    for upper, lower in zip(small[0::2].tolist(), small[1::2].tolist(), strict=True):
        cells = (
            f"\x1b[38;2;{above[0]};{above[1]};{above[2]}m\x1b[48;2;{below[0]};{below[1]};{below[2]}m▀"
            for above, below in zip(upper, lower, strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)
