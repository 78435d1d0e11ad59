"""Ctrl-C and SIGTERM end a command alike: what is in flight is finished or suspended, one line says how to go on.

Batch systems and container runtimes send SIGTERM some seconds before SIGKILL. Every command survives SIGKILL too; being
asked first, it keeps what would be computed again and leaves no lock behind.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import typer

from vrekit.catalog.statements import STATEMENT_THREAD

AGAIN = "what is done is kept; the same command again goes on from there"

# Terminals and process managers may deliver one wish to stop more than once; what comes later is impatience with a
# clean-up that hangs, and breaks it off.
_ONE_WISH_SECONDS = 2.0
_ANEW_SECONDS = 0.01


class Interrupted(KeyboardInterrupt):
    """A signal asks to stop.

    A type of its own: a plain KeyboardInterrupt that passes through `exec` of a string, as in the making of every
    dataclass, counts for CPython as one that nobody caught (`_Py_UnhandledKeyboardInterrupt`), whatever the exit code.
    """


@contextmanager
def interruptible() -> Iterator[None]:
    """Make both signals raise Interrupted; then print that, and exit with 128 + the signal's number."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and it gets the signals
        return
    stop = _Stop()
    token = _stop.set(stop)
    hook = sys.unraisablehook
    sys.unraisablehook = stop.swallowed
    for number in stop.before:
        signal.signal(number, stop)
    try:
        yield
    except BaseException as error:
        if not stop.is_reason_for(error):
            raise
        stop.is_over = True
        atexit.register(_ignore_signals)
        how = stop.how_to_go_on() if callable(stop.how_to_go_on) else stop.how_to_go_on
        typer.echo(f"interrupted: {how}" if how else "interrupted", err=True)
        raise typer.Exit(128 + stop.number) from None
    finally:
        if not stop.is_over:
            stop.give_back()
        sys.unraisablehook = hook
        _stop.reset(token)


@contextmanager
def goes_on(how: str | Callable[[], str] = AGAIN) -> Iterator[None]:
    """Have the command say how to go on when what happens inside is interrupted."""
    stop = _stop.get()
    if stop is not None:
        stop.how_to_go_on = how
    yield
    if stop is not None:
        stop.how_to_go_on = None


def leave_statements(code: int | str | None) -> None:
    """Exit at once when a query is still running that could not be stopped: the interpreter's own exit would crash.

    Args:
        code: The exit code.
    """
    if any(thread.name == STATEMENT_THREAD for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


class _Stop:
    """The handler of both signals.

    Attributes:
        number: The first signal that came; SIGINT before that.
        how_to_go_on: What to tell when one comes now.
        before: What handled the signals before. In the background of a script SIGINT is ignored, and stays so.
        is_over: The command has ended because of a signal; others that come now mean the same.
    """

    def __init__(self) -> None:
        self.number: int = signal.SIGINT
        self.how_to_go_on: str | Callable[[], str] | None = None
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.before = {number: one for number, one in handlers.items() if one not in (signal.SIG_IGN, None)}
        self.is_over = False
        self._came_at: float | None = None
        self._hook = sys.unraisablehook

    def __call__(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self._came_at is None:
            self.number, self._came_at = number, now
        elif now - self._came_at < _ONE_WISH_SECONDS:
            return
        if self.is_over:
            self.give_back()
            signal.raise_signal(number)
        else:
            raise Interrupted

    def give_back(self) -> None:
        """Let the signals be handled as before."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def is_reason_for(self, error: BaseException) -> bool:
        """Return whether a signal made a command end with this error.

        Libraries that ask for signals in their own code end with an error of theirs; the errors of a clean-up have the
        interruption in their history.
        """
        if isinstance(error, (KeyboardInterrupt, typer.Exit)):
            return isinstance(error, KeyboardInterrupt)
        history = error.__context__
        while history is not None and not isinstance(history, KeyboardInterrupt):
            history = history.__context__
        return self._came_at is not None and history is None and isinstance(error, Exception)

    def swallowed(self, unraisable: Any) -> None:
        """Send the signal anew when what it raised came up where Python drops it: in a destructor or a callback."""
        if not isinstance(unraisable.exc_value, Interrupted):
            self._hook(unraisable)
        elif not self.is_over:
            self._came_at = None
            # not from here, where it would be dropped again
            timer = threading.Timer(_ANEW_SECONDS, os.kill, (os.getpid(), self.number))
            timer.daemon = True
            timer.start()


def _ignore_signals() -> None:
    # what is left to do is to exit, with the code that is settled
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


_stop: ContextVar[_Stop | None] = ContextVar("stop", default=None)
