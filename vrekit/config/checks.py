"""What is wrong between the parts of a config: names, types, dependencies, cycles.

These look at the plain values, so that they find their mistakes even where other values are wrong.
"""

import re
from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from typing import Any

from vrekit.config.settings import ENTRY_KEYS, UPSTREAM_TYPES, find, our_type
from vrekit.config.source import KeyPath, Mistake
from vrekit.core.errors import UsageError
from vrekit.core.names import MAX_DEPENDENCIES, MAX_SUGGESTIONS, check_representation_name, did_you_mean

_MOST_CYCLES = 20
_CLASS_ELSEWHERE = re.compile(r"([A-Za-z_][\w.]*|.+\.py):[A-Za-z_]\w*")


def check_representations(entries: Mapping[str, Any], types: Collection[str]) -> list[Mistake]:
    """Return the mistakes in the names, types and dependencies of the representations.

    Args:
        entries: What stands under `representations`, as plain values.
        types: The names of the known types.
    """
    mistakes: list[Mistake] = []
    graph: dict[str, dict[str, KeyPath]] = {}
    for name, entry in entries.items():
        path = ("representations", name)
        try:
            check_representation_name(name)
        except UsageError as error:
            mistakes.append(Mistake(path, f"this name is not allowed; {error.hint}"))
        kind = find(entry, ("type",))
        if kind and isinstance(kind.value, str) and (text := _unknown_type(kind.value, types)):
            mistakes.append(Mistake((*path, "type"), text))
        graph[name], found = _dependencies(name, entry, entries, MAX_SUGGESTIONS - len(mistakes))
        mistakes += found
        store = find(entry, ("store",))
        depends = any(given.value for keys in ENTRY_KEYS["dependencies"] if (given := find(entry, keys)))
        if store and store.value is False and not depends:
            text = "a virtual representation is computed from stored ones when it is read: it needs dependencies"
            mistakes.append(Mistake((*path, "store"), text))
    return mistakes + _cycles(graph)


def _unknown_type(name: str, types: Collection[str]) -> str | None:
    if our_type(name) in types or _CLASS_ELSEWHERE.fullmatch(name):
        return None
    if name in UPSTREAM_TYPES:
        return f"vrekit does not have VRE's {name!r} yet"
    # `hsv` is not close to `color/hsv` letter by letter, but that is what is meant.
    same_end = next((kind for kind in sorted(types) if kind.rpartition("/")[2] == name.rpartition("/")[2]), None)
    near = f" (did you mean {same_end!r}?)" if same_end else did_you_mean(name, types)
    return f"unknown type {name!r}{near or '; `vrekit list representations` names them'}"


def _dependencies(
    name: str, entry: object, names: Collection[str], suggestions: int
) -> tuple[dict[str, KeyPath], list[Mistake]]:
    """Return the known dependencies of one representation with the keys that name them, and the mistakes."""
    known: dict[str, KeyPath] = {}
    mistakes: list[Mistake] = []
    for keys in ENTRY_KEYS["dependencies"]:
        setting = find(entry, keys)
        if setting and isinstance(setting.value, list) and len(setting.value) > MAX_DEPENDENCIES:
            text = f"{len(setting.value)} dependencies; a representation has at most {MAX_DEPENDENCIES}"
            mistakes.append(Mistake(("representations", name, *keys), text))
        for index, dependency in enumerate(setting.value if setting and isinstance(setting.value, list) else ()):
            path: KeyPath = ("representations", name, *keys, index)
            if not isinstance(dependency, str):
                continue
            if dependency == name:
                mistakes.append(Mistake(path, f"{name!r} depends on itself"))
            elif dependency not in names:
                others = (other for other in names if other != name)
                near = did_you_mean(dependency, others) if len(mistakes) < suggestions else ""
                text = f"there is no representation {dependency!r}{near or f'; there are {_few(name, names)}'}"
                mistakes.append(Mistake(path, text))
            elif dependency in known:
                mistakes.append(Mistake(path, f"{dependency!r} is listed twice"))
            else:
                known[dependency] = path
    return known, mistakes


def _few(name: str, names: Collection[str]) -> str:
    others = list(islice((other for other in names if other != name), 9))
    return f"{', '.join(others[:8])}{', ...' if len(others) > 8 else ''}" if others else "no others"


def _cycles(graph: Mapping[str, Mapping[str, KeyPath]]) -> list[Mistake]:
    """Return a mistake for each of the first cycles, `a → b → a` where a depends on b; they share no representation."""
    mistakes: list[Mistake] = []
    positions = {name: position for position, name in enumerate(graph)}
    left = {name: list(dependencies) for name, dependencies in graph.items()}
    while len(mistakes) < _MOST_CYCLES:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            cycle: list[str] = error.args[1][:0:-1]  # graphlib lists what is needed first
            start = min(range(len(cycle)), key=lambda at: positions[cycle[at]])
            cycle = [*cycle[start:], *cycle[:start]]
            text = f"the representations depend on each other in a cycle: {' → '.join([*cycle, cycle[0]])}"
            mistakes.append(Mistake(graph[cycle[0]][cycle[1]], text))
            done = set(cycle)
            left = {
                name: [other for other in dependencies if other not in done]
                for name, dependencies in left.items()
                if name not in done
            }
        else:
            break
    return mistakes
