"""Registries: a name → `"module:Class"`, imported on first use, open to other packages through entry points."""

import hashlib
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
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
                self._outside[point.name] = f"{point.module}:{point.attr}"
        return self._builtin | self._outside

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries()))

    def __len__(self) -> int:
        return len(self._entries())

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self._entries()  # entry points take a look at all packages

    def location(self, name: str) -> str:
        """Return `"module:Class"` of a registered name."""
        return self._entries()[name]

    def load(self, name: str, *, relative_to: Path | Sequence[Path] = ()) -> Any:
        """Return the class for a registered name, `module:Class`, or `path/file.py:Class`.

        Args:
            name: What the config or a caller asks for.
            relative_to: Folder that relative `path/file.py` names start from (the config's folder), or several to
                try in turn; at last the current folder is tried.

        Raises:
            UsageError: If nothing goes by that name; the closest match is named.
            MissingDependencyError: If its module needs a package that is not installed.
        """
        entries = self._builtin if name in self._builtin else self._entries()
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
            file = code_file(target, relative_to)
            module = importlib.import_module(module_name) if file is None else _import_file(file)
        except UsageError:
            raise
        except ModuleNotFoundError as error:
            extra = self._extras.get(name)
            missing = error.name or str(error)
            if module_name == missing or module_name.startswith(missing + "."):
                raise UsageError(f"{self.what} {name!r}: there is no module {missing!r}") from error
            raise MissingDependencyError(
                f"{self.what} {name!r} needs the package {missing!r}, which is not installed",
                hint=f"pip install 'vrekit[{extra}]'" if extra else f"pip install {missing}",
            ) from error
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"{self.what} {name!r}: {module_name} failed on import: {type(error).__name__}: {error}"
            ) from error
        if not hasattr(module, attribute):
            raise UsageError(
                f"{self.what} {name!r}: {module_name} has no {attribute!r}{did_you_mean(attribute, vars(module))}"
            )
        return getattr(module, attribute)


def code_file(name: str, relative_to: Path | Sequence[Path] = ()) -> Path | None:
    """Return the file that `path/file.py:Class` names, with links resolved; None for `module:Class`.

    Args:
        name: The type.
        relative_to: As for `Registry.load`.

    Raises:
        UsageError: If there is no such file.
    """
    module = name.rpartition(":")[0]
    if not module.endswith(".py"):
        return None
    path = Path(module)
    folders = [relative_to] if isinstance(relative_to, Path) else relative_to
    tried = list(dict.fromkeys(folder / path for folder in [*folders, Path.cwd()]))
    found = next((candidate for candidate in tried if candidate.is_file()), None)
    if found is None:
        raise UsageError(f"no file {path}", hint=f"looked for {' and '.join(map(str, tried))}")
    return found.resolve()


def _import_file(resolved: Path) -> ModuleType:
    source = resolved.read_bytes()
    # Named by its text too: a file edited between two exports of one process is another module, as its hash says.
    name = f"vrekit_user_{resolved.stem}_{hashlib.sha256(bytes(resolved) + source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(resolved)
    sys.modules[name] = module
    try:
        # Not through importlib: its cached bytecode goes by size and whole seconds.
        exec(compile(source, resolved, "exec", dont_inherit=True), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module
