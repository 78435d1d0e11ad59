"""Type names of the built-in representations, and where their classes live."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vrekit.core.errors import UsageError
from vrekit.core.registry import Registry

if TYPE_CHECKING:
    from vrekit.representations.base import Representation

REPRESENTATIONS = Registry(
    "representation type",
    {
        "color/hsv": "vrekit.representations.color.hsv:HSV",
        "color/rgb": "vrekit.representations.color.rgb:RGB",
        "descriptor/sift": "vrekit.representations.descriptor.sift:SIFT",
        "edges/canny": "vrekit.representations.edges.canny:Canny",
        "edges/sobel": "vrekit.representations.edges.sobel:Sobel",
        "external/files": "vrekit.representations.external.files:Files",
        "external/table": "vrekit.representations.external.table:Table",
        "flow/dis": "vrekit.representations.flow.dis:DIS",
        "normals/svd": "vrekit.representations.normals.svd:NormalsSVD",
        "soft-segmentation/generalized-boundaries": (
            "vrekit.representations.soft_segmentation.generalized_boundaries:GeneralizedBoundaries"
        ),
        "soft-segmentation/halftone": "vrekit.representations.soft_segmentation.halftone:Halftone",
    },
    group="vrekit.representations",
)


def representation_type(name: str, *, relative_to: Sequence[Path] = ()) -> "type[Representation]":
    """Return the class of a representation type; nothing of it is called.

    Importing `module:Class` or `path/file.py:Class` runs code: a type that a dataset names is checked before
    (`vrekit.catalog.trust`).

    Args:
        name: Name in the registry, `module:Class`, or `path/file.py:Class`.
        relative_to: Folders that relative paths start from, tried in turn.

    Raises:
        UsageError: If there is no such type, it is no Representation, or it lacks methods.
        MissingDependencyError: If its module needs a package that is not installed.
    """
    from vrekit.representations.base import Representation

    cls = REPRESENTATIONS.load(name, relative_to=relative_to)
    if not (inspect.isclass(cls) and issubclass(cls, Representation)):
        raise UsageError(f"type {name!r} is no subclass of vrekit.representations.base.Representation")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise UsageError(f"type {name!r} lacks {missing}", hint="see docs/representations.md")
    return cls
