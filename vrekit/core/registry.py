"""Registries: a name → `"module:Class"`, imported on first use, open to other packages through entry points."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from vrekit.core.errors import MissingDependencyError, UsageError
from vrekit.core.names import did_you_mean


class Registry:
    """Names of one sort of plug-in and where their classes live.

    Args:
        what: Word for messages, such as `"representation type"`.
        entries: Built-in names → `"module:Class"`; must be sorted, so that a reader finds a name.
        group: Entry-point group other packages register in, such as `"vrekit.representations"`.
        extras: Name → extra to install when its import fails, such as `{"flow/raft": "raft"}`.
    """

    def __init__(
        self, what: str, entries: Mapping[str, str], *, group: str, extras: Mapping[str, str] | None = None
    ) -> None:
        if list(entries) != sorted(entries):
            raise ValueError(f"the {what} registry is not sorted")
        self.what = what
        self._builtin = dict(entries)
        self._group = group
        self._extras = dict(extras or {})
        self._outside: dict[str, str] | None = None

    def _entries(self) -> dict[str, str]:
        if self._outside is None:
            self._outside = {}
            for point in entry_points(group=self._group):
                if point.name in self._builtin or point.name in self._outside:
                    raise UsageError(f"{self.what} {point.name!r} is registered twice (entry point {point.value!r})")
                self._outside[point.name] = point.value
        return self._builtin | self._outside

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries()))

    def __contains__(self, name: object) -> bool:
        return name in self._entries()

    def location(self, name: str) -> str:
        """Return `"module:Class"` of a registered name."""
        return self._entries()[name]

    def load(self, name: str, *, relative_to: Path | None = None) -> Any:
        """Return the class for a registered name, `module:Class`, or `path/file.py:Class`.

        Args:
            name: What the config or a caller asks for.
            relative_to: Folder that relative `path/file.py` names start from (the config's folder); then the
                current folder is tried.

        Raises:
            UsageError: If nothing goes by that name; the closest match is named.
            MissingDependencyError: If its module needs a package that is not installed.
        """
        entries = self._entries()
        target = entries.get(name, name)
        module_name, colon, attribute = target.rpartition(":")
        if not colon:
            raise UsageError(
                f"unknown {self.what} {name!r}{did_you_mean(name, entries)}",
                hint="a type is one of `vrekit list representations`, `module:Class`, or `path/file.py:Class`"
                if "representation" in self.what
                else None,
            )
        try:
            if module_name.endswith(".py"):
                module = _import_file(Path(module_name), relative_to)
            else:
                module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            extra = self._extras.get(name)
            missing = error.name or str(error)
            if module_name == missing or module_name.startswith(missing + "."):
                raise UsageError(f"{self.what} {name!r}: there is no module {missing!r}") from error
            raise MissingDependencyError(
                f"{self.what} {name!r} needs the package {missing!r}, which is not installed",
                hint=f"pip install 'vrekit[{extra}]'" if extra else f"pip install {missing}",
            ) from error
        if not hasattr(module, attribute):
            raise UsageError(
                f"{self.what} {name!r}: {module_name} has no {attribute!r}{did_you_mean(attribute, vars(module))}"
            )
        return getattr(module, attribute)


def _import_file(path: Path, relative_to: Path | None) -> Any:
    tried = [base / path for base in (relative_to, Path.cwd()) if base is not None]
    found = next((candidate for candidate in tried if candidate.is_file()), None)
    if found is None:
        raise UsageError(f"no file {path}", hint=f"looked for {' and '.join(map(str, tried))}")
    resolved = found.resolve()
    name = f"vrekit_user_{resolved.stem}_{abs(hash(str(resolved))):x}"
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, resolved)
    if module_spec is None or module_spec.loader is None:
        raise UsageError(f"{resolved} cannot be imported as Python")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, ModuleNotFoundError):
            raise
        raise UsageError(f"{resolved} failed on import: {type(error).__name__}: {error}") from error
    return module
