"""What Lance raises, turned into our errors. It has no types of its own: a lost file may be any builtin, or a panic."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vrekit.core.errors import DatasetError, VrekitError
from vrekit.core.files import storage_errors

REPAIR_HINT = "`vrekit validate DATASET --repair` sets aside what is damaged, `vrekit resume` computes it again"
_SOURCE_FILE = re.compile(r",? /(home/runner|rustc)/\S+.*", re.DOTALL)  # of Lance; it says nothing to a user

_NEWER = re.compile(r"not supported|upgrade", re.IGNORECASE)


@contextmanager
def reading_lance(about: str | Path, what: str = "cannot be read") -> Iterator[None]:
    """Turn every error of Lance into a DatasetError, `<about> <what>: …`; put nothing but calls of Lance inside."""
    try:
        yield
    except (VrekitError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not _is_panic(error):
            raise
        raise DatasetError(f"{about} {what}: {reason_of(error)}", hint=REPAIR_HINT) from error


@contextmanager
def writing_lance(path: Path) -> Iterator[None]:
    """Turn an error of the disk into a StorageError, and any other one of Lance into a DatasetError."""
    with storage_errors(path):
        try:
            yield
        except VrekitError:
            raise
        except BaseException as error:
            number = os_error_number(error)
            if number and isinstance(error, Exception):
                raise OSError(number, str(error)) from error
            if _is_from_lance(error):
                raise DatasetError(f"{path} is damaged: {reason_of(error)}", hint=REPAIR_HINT) from error
            raise


def is_damage(error: DatasetError) -> bool:
    """Return whether Lance cannot make sense of what it reads: not a full file table, nor a table of a newer Lance."""
    cause = error.__cause__
    return cause is None or (os_error_number(cause) is None and not _NEWER.search(str(cause)))


def os_error_number(error: BaseException) -> int | None:
    """Return the number of the operating system's error; Lance has it in the text only, `(os error 28)`."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def reason_of(error: BaseException) -> str:
    """Return the text of an error of Lance without the places in Lance's source."""
    number = os_error_number(error)
    return os.strerror(number).lower() if number else _SOURCE_FILE.sub("", str(error)) or type(error).__name__


def _is_panic(error: BaseException) -> bool:
    return type(error).__module__ == "pyo3_runtime"  # PanicException, no Exception; there is nothing to import it from


def _is_from_lance(error: BaseException) -> bool:
    """Return whether Lance raised an error, and not code of ours that runs while a table is open."""
    if _is_panic(error) or isinstance(error, RuntimeError):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return isinstance(error, Exception) and module.split(".")[0] in ("lance", "pyarrow")
