"""Where datasets lie: one interface over local folders, object stores, HTTP and fsspec.

`parse_location` reads a path or a URL, `open_store` gives the store for it.
"""

import os

from vrekit.core.stores.base import ObjectInfo, RangeReader, Store, StoreLimits, Versioned
from vrekit.core.stores.local import LocalStore
from vrekit.core.stores.location import FILESYSTEM_SCHEMES, Location, parse_location

__all__ = [
    "Location",
    "ObjectInfo",
    "RangeReader",
    "Store",
    "StoreLimits",
    "Versioned",
    "open_store",
    "parse_location",
]


def open_store(location: Location | str | os.PathLike[str], limits: StoreLimits | None = None) -> Store:
    """Return the store of a location; nothing is asked of a server yet.

    Args:
        location: A path, a URL, or what `parse_location` gave.
        limits: Time-outs and retries of stores on the network.

    Raises:
        UsageError: If it is no path and no URL that can be used.
        MissingDependencyError: If a package for that URL is not installed.
    """
    if not isinstance(location, Location):
        location = parse_location(location)
    if location.is_local:
        return LocalStore(location)
    if location.scheme in FILESYSTEM_SCHEMES:
        from vrekit.core.stores.filesystem import FilesystemStore

        return FilesystemStore(location, limits)
    from vrekit.core.stores.objects import HttpStore, ObjectStore

    return (HttpStore if location.scheme in ("http", "https") else ObjectStore)(location, limits)
