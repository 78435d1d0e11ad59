"""Printing: data to stdout, everything for people to stderr, errors as `error: …` and `hint: …`."""

import errno
import functools
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, overload

import typer

from vrekit.cli.interrupts import interruptible
from vrekit.core.errors import UsageError, VrekitError
from vrekit.core.names import NOT_UTF8_HINT, check_local, is_url, is_utf8

P = ParamSpec("P")
R = TypeVar("R")

_state = {"debug": False}
_MEMORY_HINT = "what is done is kept; try fewer --threads, a smaller --batch-size or --memory, or smaller frames"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")  # terminals obey some of them
_UNDECODED = re.compile('[^"\n]*[\ud800-\udfff][^"\n]*')  # a path in an error's text, with bytes that are no UTF-8


def set_debug(debug: bool) -> None:
    """Show tracebacks and log to stderr from now on."""
    _state["debug"] = debug
    if debug:
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("vrekit").setLevel(logging.DEBUG)


@overload
def command(function: Callable[P, R]) -> Callable[P, R]: ...
@overload
def command(*, reads: Sequence[str] = (), writes: Sequence[str] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def command(function: Any = None, *, reads: Sequence[str] = (), writes: Sequence[str] = ()) -> Any:
    """Make a command end in one clear message, never a traceback, for every error that is not a bug.

    Args:
        function: The command; left out where options are given: `@command(reads=["dataset"])`.
        reads: Parameters that may also be URLs of datasets, which the command reads; it gets local folders.
        writes: Parameters that may also be URLs, of which the command opens the datasets itself.
    """
    if function is None:
        return functools.partial(_command, reads=reads, writes=writes)
    return _command(function, reads=reads, writes=writes)


def _command(function: Callable[P, R], *, reads: Sequence[str], writes: Sequence[str]) -> Callable[P, R]:
    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            for parameter, value in kwargs.items():
                if isinstance(value, str | Path) and not is_utf8(value):  # those in lists are named one by one
                    raise UsageError(f"{value} is not UTF-8 text", hint=NOT_UTF8_HINT)
                for path in value if isinstance(value, list) else [value]:
                    if isinstance(path, Path) and parameter not in (*reads, *writes):
                        check_local(path)
            with interruptible():
                for parameter in reads:
                    kwargs[parameter] = _local(kwargs[parameter])
                return function(*args, **kwargs)
        except VrekitError as error:
            if _state["debug"]:
                raise
            print_error(error.message, error.hint)
            raise typer.Exit(error.exit_code) from None
        except MemoryError as error:
            if _state["debug"]:
                raise
            print_error(f"out of memory: {error}" if str(error) else "out of memory", _MEMORY_HINT)
            raise typer.Exit(1) from None
        except UnicodeEncodeError as error:  # of the folder that vrekit runs in, or of a file found in one
            if _state["debug"] or not (name := _UNDECODED.search(error.object)):
                raise
            print_error(f"{name[0]} is not UTF-8 text", NOT_UTF8_HINT)
            raise typer.Exit(1) from None
        except OSError as error:
            # The file system's own complaints (a name too long, a full disk behind stdout) are no bugs either. A
            # reader of stdout that went away (`| head`) is click's business.
            if _state["debug"] or error.errno in (None, errno.EPIPE):
                raise
            where = f"{error.filename}: " if error.filename is not None else ""
            print_error(f"{where}{os.strerror(error.errno).lower()}")
            raise typer.Exit(1) from None

    return wrapped


def _local(value: Any) -> Any:
    """Return the local folders of datasets behind URLs; other values as they are."""
    if isinstance(value, list):
        return [_local(one) for one in value]
    if not isinstance(value, Path):
        return value
    if not is_url(value):
        check_local(value)
        return value
    from vrekit.catalog.remote import dataset_folder

    return dataset_folder(value)


def _with_urls(text: str) -> str:
    """Return text with the URLs of datasets instead of the folders that hold their metadata."""
    remote = sys.modules.get("vrekit.catalog.remote")
    return text if remote is None else remote.shown(text)


def printable(text: str) -> str:
    """Return text with control characters escaped: text of a dataset must not command the terminal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), _with_urls(text))


def print_error(message: str, hint: str | None = None) -> None:
    """Print an error and what to do about it to stderr."""
    for number, line in enumerate(message.splitlines() or [""]):
        typer.echo(f"error: {printable(line)}" if number == 0 else f"       {printable(line)}", err=True)
    if hint:
        typer.echo(f"hint: {printable(hint)}", err=True)


def note(message: str) -> None:
    """Print a line for people to stderr."""
    say(message, err=True)


def say(message: str, *, err: bool = False) -> None:
    """Print text for people, to stdout or stderr; it may have several lines."""
    typer.echo(_printable_lines(message), err=err)


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def print_json(value: Any) -> None:
    """Print a JSON document to stdout."""
    typer.echo(_with_urls(json.dumps(value, indent=2, ensure_ascii=False, default=str)))


def wants_progress(no_progress: bool) -> bool:
    """Return whether a live display makes sense: stderr is a terminal and nobody declined."""
    return not no_progress and sys.stderr.isatty()


def human_bytes(count: float) -> str:
    """Return a byte count for people, decimal units: `human_bytes(2_811_553) == "2.8 MB"`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def human_seconds(seconds: float) -> str:
    """Return a duration for people: `0.84 s`, `12.3 s`, `4 min 05 s`, `2 h 07 min`."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def table(columns: list[str], rows: list[list[str]], *, title: str | None = None, stderr: bool = False) -> None:
    """Print a table; first column left, the others right unless they hold words. Plain text when not a terminal.

    Where the columns do not fit side by side, the table comes in several parts; each begins with the first column.
    Text wraps between words, and inside a word only where that is longer than half a line.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(stderr=stderr)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 160  # a pipe has no width; do not fold what a script reads
    cells = [[_printable_lines(row[number]) for row in rows] for number in range(len(columns))]
    widths = [
        min(_least_width(texts), (console.width - _EDGES - _GAP) // 2)
        for texts in map(list, zip(columns, *rows, strict=True))
    ]
    for number, part in enumerate(_parts(widths, console.width)):
        grid = Table(
            title=None if number or title is None else _with_urls(title),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
        )
        for column in part:
            numeric = bool(rows) and all(cell[:1].isdigit() or cell in ("", "–") for cell in cells[column])
            justify: Literal["left", "right"] = "right" if column and numeric else "left"
            grid.add_column(Text(columns[column]), justify=justify, overflow="fold", min_width=widths[column])
        for row in range(len(rows)):
            grid.add_row(*(Text(cells[column][row]) for column in part))
        console.print(grid)


_MOST_WRAPPED = 24  # a column of sentences is not made narrower than this


def _least_width(texts: list[str]) -> int:
    """Return how narrow a column may be: its longest word, and for sentences enough that they stay readable."""
    from rich.cells import cell_len

    longest_word = max((cell_len(word) for text in texts for word in text.split()), default=0)
    longest_line = max((cell_len(line) for text in texts for line in text.splitlines()), default=0)
    return max(1, longest_word, min(longest_line, _MOST_WRAPPED))


def _parts(widths: list[int], width: int) -> Iterator[list[int]]:
    """Yield the numbers of the columns that fit side by side; each part begins with the first column."""
    part, used = [0], widths[0] + _EDGES
    for column in range(1, len(widths)):
        if used + _GAP + widths[column] > width and len(part) > 1:
            yield part
            part, used = [0], widths[0] + _EDGES
        part.append(column)
        used += _GAP + widths[column]
    yield part


_EDGES, _GAP = 2, 2  # characters beside a table, and between two columns
