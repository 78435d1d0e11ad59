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


def parse_bytes(text: str, option: str) -> int:
    """Return the bytes of `1GB`, `512MiB`, `250000`.

    Args:
        text: What the user typed.
        option: Name of the option, for the message.

    Raises:
        UsageError: If it is no size, or not above zero.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", text)
    factor = _UNITS.get(match.group(2).upper()) if match else None
    size = int(float(match.group(1)) * factor) if match and factor else 0
    if size <= 0:
        raise UsageError(f"{option} {text!r} is not a size", hint="a size looks like 1GB, 512MiB or 250000 (bytes)")
    return size
