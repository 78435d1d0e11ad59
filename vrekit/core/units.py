"""Sizes as people type them."""

import re

from vrekit.core.errors import UsageError

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}

_MOST_BYTES = 1 << 60


def parse_bytes(text: str, option: str, *, at_least: int = 1) -> int:
    """Return the bytes of `1GB`, `512MiB`, `250000`.

    Args:
        text: What the user typed.
        option: Name of the option, for the message.
        at_least: The smallest size that makes sense.

    Raises:
        UsageError: If it is no size, or too small or too large.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", text)
    factor = _UNITS.get(match.group(2).upper()) if match else None
    size = float(match.group(1)) * factor if match and factor else 0
    if size < 1:
        raise UsageError(f"{option} {text!r} is not a size", hint="a size looks like 1GB, 512MiB or 250000 (bytes)")
    if not at_least <= size <= _MOST_BYTES:
        raise UsageError(
            f"{option} {text!r} is too {'small' if size < at_least else 'large'}",
            hint=f"it takes {at_least} to {_MOST_BYTES} bytes; a size looks like 1GB, 512MiB or 250000 (bytes)",
        )
    return int(size)


def parse_memory(text: str, option: str = "--memory") -> int:
    """Return the bytes of a memory option; with less than 1 MiB nothing can be computed."""
    return parse_bytes(text, option, at_least=1 << 20)
