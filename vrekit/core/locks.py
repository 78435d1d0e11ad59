"""A file that one process at a time may own: `flock`, released by the kernel when the owner dies."""

import fcntl
import os
from pathlib import Path

from vrekit.core.errors import LockedError
from vrekit.core.files import has_other_names, open_regular, storage_errors


class OwnedFile:
    """Ownership of a lock file; `release` removes it."""

    def __init__(self, path: Path, what: str) -> None:
        """Take the lock.

        Args:
            path: The lock file; it holds the owner's process id, for people.
            what: What is owned, for the message.

        Raises:
            LockedError: If another process owns it.
        """
        self.path = path
        while True:
            with storage_errors(path):
                self._descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
                os.close(self._descriptor)
                raise LockedError(
                    f"another process{f' ({owner})' if owner else ''} is writing {what}",
                    hint="run this again when it has finished, or give this one frames outside of those (--frames)",
                ) from None
            if self._is_current():
                break
            os.close(self._descriptor)  # the former owner removed the file between our open and our lock
        if not has_other_names(self._descriptor):  # else it would be written into another file, too
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"pid {os.getpid()}\n".encode(), 0)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Remove the lock file and give up ownership; again does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self.path.unlink(missing_ok=True)
            os.close(descriptor)
