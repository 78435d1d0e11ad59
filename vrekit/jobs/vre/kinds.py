"""What the arrays of a VRE representation mean: by the type in its config, else by their dtype and shape."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vrekit.config.document import read_document
from vrekit.core.errors import UsageError
from vrekit.core.names import did_you_mean
from vrekit.core.spec import Kind, OutputSpec

# First part of VRE's type names → (kind, values, what to know about them).
_BY_TYPE: Mapping[str, tuple[Kind, tuple[float, float] | None, str]] = {
    "color": (Kind.COLOR, (0, 1), ""),
    "depth": (Kind.DEPTH, None, ""),
    "edges": (Kind.EDGES, (0, 1), ""),
    "normals": (Kind.NORMALS, (0, 1), "VRE stores (n + 1) / 2"),
    "optical-flow": (Kind.FLOW, None, "VRE stores pixels / (height, width) of the model's input"),
    "semantic-segmentation": (Kind.LOGITS, None, ""),
    "soft-segmentation": (Kind.COLOR, None, ""),
    "descriptor": (Kind.EMBEDDING, None, ""),
}
_AXES = {0: "", 1: "D", 2: "HW", 3: "HWC"}


def read_vre_config(path: Path | None) -> dict[str, dict[str, Any]]:
    """Return the entries of a VRE config by representation; types that vrekit does not have are no mistake here.

    Raises:
        UsageError: If there is no such file or it has no representations.
        ConfigError: If it is not YAML.
    """
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    tree = read_document(text, str(path), os.environ).value
    entries = tree.get("representations") if isinstance(tree, dict) else None
    if not isinstance(entries, dict):
        raise UsageError(f"{path} has no 'representations'", hint="pass the config that VRE ran with")
    return {str(name): entry for name, entry in entries.items() if isinstance(entry, dict)}


def check_kinds(kinds: Mapping[str, str], names: list[str]) -> dict[str, Kind]:
    """Return kinds that a user gave by hand.

    Raises:
        UsageError: If a kind or representation does not exist.
    """
    for name, kind in kinds.items():
        if name not in names:
            raise UsageError(f"there is no representation {name!r}{did_you_mean(name, names)}")
        known = [str(one) for one in Kind]
        if kind not in known:
            raise UsageError(f"there is no kind {kind!r}{did_you_mean(kind, known)}", hint=", ".join(known))
    return {name: Kind(kind) for name, kind in kinds.items()}


def output_spec(
    dtype: np.dtype[Any], shape: tuple[int | None, ...], vre_type: str | None, kind: Kind | None
) -> OutputSpec:
    """Return the description of arrays.

    Args:
        dtype: Of all frames.
        shape: Of all frames; None for axes in which they differ.
        vre_type: Type in VRE's config, such as `edges/canny`, if it is known.
        kind: What the user says it is.
    """
    guessed, value_range, description = _BY_TYPE.get((vre_type or "").partition("/")[0], (None, None, ""))
    if guessed is Kind.LOGITS and dtype.kind in "iub":
        guessed = Kind.INDICES  # `disk_data_argmax`
    if guessed is None or kind is not None:
        guessed, value_range, description = kind or _by_layout(dtype, shape), None, ""
    if guessed is Kind.COLOR and dtype == np.uint8:
        value_range = (0, 255)
    axes = _AXES.get(len(shape), "K" * (len(shape) - 3) + "HWC")
    return OutputSpec(
        kind=guessed,
        dtype=dtype.name,
        shape=shape,
        axes=axes,
        value_range=value_range,
        invalid_value="nan" if dtype.kind == "f" else None,
        description=description or "computed by VRE",
    )


def _by_layout(dtype: np.dtype[Any], shape: tuple[int | None, ...]) -> Kind:
    if dtype == np.bool_:
        return Kind.MASK
    if dtype == np.uint8 and len(shape) == 3 and shape[2] == 3:
        return Kind.COLOR
    if dtype.kind in "iu" and (len(shape) == 2 or (len(shape) == 3 and shape[2] == 1)):
        return Kind.INDICES
    return Kind.EMBEDDING  # numbers that only who computed them can name
