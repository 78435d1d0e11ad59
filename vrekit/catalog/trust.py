"""Code that a dataset records: a type that is no name of an installed package runs only when it is allowed to.

Whoever wrote a dataset chose the types it names, and `module:Class` or `path/file.py:Class` is code. It runs with
`trust_code=True`, or when this account exported that very dataset with that very code. The proof of the latter lies
outside of every dataset, one small file for each type of a dataset:

    $XDG_STATE_HOME/vrekit/trusted-code/<SHA-256 of dataset, type, parameters, code file and its text>

A proof that is missing, unreadable, or could have been put there by another account counts for nothing.
"""

import hashlib
import logging
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.registry import code_file
from vrekit.core.spec import RepresentationSpec, canonical_json
from vrekit.representations.registry import REPRESENTATIONS

logger = logging.getLogger(__name__)
_MOST_NAMED = 5  # types in a message


def is_code(type_name: str) -> bool:
    """Return whether a type is `module:Class` or `path/file.py:Class`, not the name of an installed one."""
    return ":" in type_name and type_name not in REPRESENTATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCode:
    """The code types that a dataset records, and whether they may run; plain values, so it pickles.

    Attributes:
        dataset: Folder of the dataset.
        folders: Where relative `path/file.py:Class` types start from.
        trust_code: Whether the caller allows all of them.
    """

    dataset: Path
    folders: tuple[Path, ...] = ()
    trust_code: bool = False

    def refused(self, specs: Iterable[RepresentationSpec]) -> list[RepresentationSpec]:
        """Return the specs whose types may not be loaded; runs and imports nothing."""
        return [spec for spec in specs if is_code(spec.type) and not (self.trust_code or self._is_remembered(spec))]

    def check(self, specs: Iterable[RepresentationSpec], *, otherwise: str = "") -> None:
        """Raise DatasetError if one of the types may not be loaded.

        Args:
            specs: What is about to be loaded.
            otherwise: What else the caller can do, for the hint.
        """
        if refused := self.refused(specs):
            raise untrusted(self.dataset, refused, otherwise=otherwise)

    def remember(self, specs: Iterable[RepresentationSpec]) -> None:
        """Note that this account exports the dataset with these types; without a place for that, do nothing."""
        for spec in specs:
            if is_code(spec.type):
                try:
                    self._remember(spec)
                except OSError as error:  # such as a read-only home: reading will ask for trust_code
                    logger.info("cannot note that %s is trusted: %s", spec.type, error)

    def inherit(self, source: "RecordedCode", specs: Iterable[RepresentationSpec]) -> None:
        """Note the same for a dataset that this account makes of another one: for types that are proven there.

        Args:
            source: The other dataset.
            specs: What the new one records; a type that would be other code here than there is not noted.
        """
        for spec in specs:
            if is_code(spec.type) and source._is_remembered(spec) and self._code(spec) == source._code(spec):
                self.remember([spec])

    def _code(self, spec: RepresentationSpec) -> Mapping[str, Any]:
        return {name: value for name, value in (self._facts(spec) or {}).items() if name != "dataset"}

    def _remember(self, spec: RepresentationSpec) -> None:
        store, facts = self._store(), self._facts(spec)
        if store is None or facts is None:
            return
        store.parent.parent.mkdir(parents=True, exist_ok=True)
        store.parent.mkdir(mode=0o700, exist_ok=True)
        store.mkdir(mode=0o700, exist_ok=True)
        if not _is_own_store(store):
            logger.info("%s is not this account's alone: it does not say what code is trusted", store)
            return
        path = store / _digest(facts)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            return
        with os.fdopen(descriptor, "wb") as file:  # its name is the proof; the content is for people
            file.write(canonical_json(facts).encode(errors="surrogateescape") + b"\n")

    def _is_remembered(self, spec: RepresentationSpec) -> bool:
        try:
            store = self._store()
            if store is None or not _is_own_store(store):
                return False
            facts = self._facts(spec)
            return facts is not None and _is_own(store / _digest(facts), stat.S_ISREG)
        except (OSError, ValueError, TypeError, RecursionError):  # names and parameters that nobody could export
            return False

    def _store(self) -> Path | None:
        """Return the folder of the proofs, None if there is none outside of the dataset."""
        state = Path(os.environ.get("XDG_STATE_HOME") or "")
        if not state.is_absolute():  # the XDG rules ignore such a value, and it could lead into a dataset
            state = Path(os.path.expanduser("~"), ".local", "state")
        inside = Path(os.path.realpath(state)).is_relative_to(os.path.realpath(self.dataset))
        return state / "vrekit" / "trusted-code" if state.is_absolute() and not inside else None

    def _facts(self, spec: RepresentationSpec) -> Mapping[str, Any] | None:
        """Return what a proof is about; None if there is no such code file."""
        try:
            file = code_file(spec.type, self.folders)
        except UsageError:
            return None
        facts = {"dataset": os.path.realpath(self.dataset), "type": spec.type, "params": spec.params}
        if file is None:
            return facts
        with file.open("rb") as text:
            return {**facts, "file": str(file), "sha256": hashlib.file_digest(text, "sha256").hexdigest()}


def untrusted(dataset: Path, specs: Sequence[RepresentationSpec], *, otherwise: str = "") -> DatasetError:
    """Return the error for types that may not be loaded, with how to allow them."""
    named = list(dict.fromkeys(f"{spec.name!r} has the type {spec.type!r}" for spec in specs))
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return DatasetError(
        f"{dataset}: {', '.join(named[:_MOST_NAMED])}{more}: this is code recorded in the dataset, and it was not run",
        hint="it is no type of an installed package, and there is no proof that this account exported a dataset with "
        "this code at this place (was the dataset moved or copied, or the code changed?); if you trust who made the "
        "dataset, allow it with trust_code=True (Python) or --trust-code (command line), or export to it again with "
        "a config of your own"
        f"{f', or {otherwise}' if otherwise else ''}",
    )


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(facts).encode(errors="surrogateescape")).hexdigest()


def _is_own_store(store: Path) -> bool:
    return _is_own(store.parent, stat.S_ISDIR) and _is_own(store, stat.S_ISDIR)


def _is_own(path: Path, is_sort: Callable[[int], bool]) -> bool:
    """Return whether `path` is of this sort, no link, and nobody but this account can have written it."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return is_sort(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
