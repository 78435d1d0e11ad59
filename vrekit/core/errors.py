"""Every error vrekit raises on purpose.

    VrekitError                     all of ours; carries an optional `hint`
    ├── UsageError (ValueError)     the command or call is wrong             CLI exit code 2
    │   └── ConfigError             the configuration is wrong; lists every mistake at once
    ├── VideoError (OSError)        a video cannot be opened or read
    ├── DatasetError (ValueError)   a dataset cannot be opened, or does not fit what is asked of it
    │   ├── ConflictError           another video or other parameters under the same name
    │   └── LockedError             another process is writing the same shard or manifest
    ├── CodecError (ValueError)     bytes do not decode, or an array does not fit a codec
    │   └── ChecksumError           stored bytes changed since they were written
    ├── ComputeError (RuntimeError) a representation failed
    ├── QueryLimitError (RuntimeError)   a query needs more time or memory than it may use
    ├── StorageError (OSError)      the disk is full, read-only or gone; a store does not do what is asked
    │   ├── MissingObjectError      nothing is stored under that name (FileNotFoundError, too)
    │   ├── ObjectExistsError       something is stored under that name already (FileExistsError, too)
    │   ├── ObjectChangedError      another process changed it since it was read
    │   ├── AccessError             no permission to read or write (PermissionError, too)
    │   └── NetworkError            a server that does not answer, or answers with errors (ConnectionError, too)
    └── MissingDependencyError (ImportError)   an optional package is not installed

The CLI prints them as `error: …` and `hint: …` and never shows a traceback for them (`--debug` does).
"""

from collections.abc import Sequence


class VrekitError(Exception):
    """Base of all expected errors: a message for people, and optionally what to do about it."""

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint is not None:
            self.add_note(f"hint: {hint}")  # a traceback shows it below the message

    def __str__(self) -> str:
        return self.message


class UsageError(VrekitError, ValueError):
    """A command, option or argument that cannot be right."""

    exit_code = 2


class ConfigError(UsageError):
    """One or more mistakes in a configuration; `mistakes` holds one line for each."""

    def __init__(self, mistakes: str | Sequence[str], *, hint: str | None = None) -> None:
        self.mistakes = (mistakes,) if isinstance(mistakes, str) else tuple(mistakes)
        super().__init__("\n".join(self.mistakes), hint=hint)


class VideoError(VrekitError, OSError):
    """A video that cannot be opened, or a frame that cannot be read."""


class DatasetError(VrekitError, ValueError):
    """A directory that is no dataset, or a dataset that does not fit what is asked of it."""


class ConflictError(DatasetError):
    """The dataset already knows this name with another video or other parameters."""


class LockedError(DatasetError):
    """Another process holds the lock of a shard or of the manifest."""


class CodecError(VrekitError, ValueError):
    """Bytes that do not decode, or an array a codec cannot take."""


class ChecksumError(CodecError):
    """Stored bytes that differ from the checksum in the metadata."""


class ComputeError(VrekitError, RuntimeError):
    """A representation that failed to compute."""


class QueryLimitError(VrekitError, RuntimeError):
    """A query that needs more time or memory than it may use."""


class StorageError(VrekitError, OSError):
    """A disk that is full, read-only or gone."""


class MissingObjectError(StorageError, FileNotFoundError):
    """Nothing is stored under that name."""


class ObjectExistsError(StorageError, FileExistsError):
    """Something is stored under that name already."""


class ObjectChangedError(StorageError):
    """Another process changed an object since it was read."""


class AccessError(StorageError, PermissionError):
    """A store that this account may not read, or not write."""


class NetworkError(StorageError, ConnectionError):
    """A server that cannot be reached, takes too long, or answers with errors."""


class MissingDependencyError(VrekitError, ImportError):
    """An optional package that is not installed; the hint names the extra to install."""
