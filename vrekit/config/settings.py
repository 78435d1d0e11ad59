"""Which keys mean the same, and what a representation gets: its own value, else the global one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vrekit.config.source import KeyPath, Mistake, SourceMap, spell
from vrekit.core.spec import RepresentationSpec

# Upstream VRE's type names → ours. Those that vrekit does not have are refused by name.
UPSTREAM_TYPES = {
    "color/hsv": "color/hsv",
    "color/rgb": "color/rgb",
    "depth/dpt": "depth/dpt",
    "depth/marigold": "depth/marigold",
    "descriptor/sift": "descriptor/sift",
    "edges/canny": "edges/canny",
    "edges/dexined": "edges/dexined",
    "normals/depth-svd": "normals/svd",
    "optical-flow/raft": "flow/raft",
    "optical-flow/rife": "flow/rife",
    "semantic-segmentation/mask2former": "segmentation/mask2former",
    "semantic-segmentation/safeuav": "segmentation/safeuav",
    "soft-segmentation/fastsam": "soft-segmentation/fastsam",
    "soft-segmentation/generalized-boundaries": "soft-segmentation/generalized-boundaries",
    "soft-segmentation/python-halftone": "soft-segmentation/halftone",
}

# Field of RepresentationSpec → the keys of an entry that set it.
ENTRY_KEYS: dict[str, tuple[KeyPath, ...]] = {
    "type": (("type",),),
    "dependencies": (("dependencies",), ("deps",)),
    "params": (("params",), ("parameters",)),
    "batch_size": (("batch_size",), ("compute_parameters", "batch_size")),
    "device": (("device",), ("learned_parameters", "device")),
    "compute_dtype": (("dtype",),),
    "store": (("store",),),
    "store_as": (("store_as",),),
    "codec": (("codec",), ("io_parameters", "binary_format")),
    "output_size": (("output_size",), ("io_parameters", "output_size")),
    "output_dtype": (("output_dtype",), ("io_parameters", "output_dtype")),
    "images": (("images",), ("io_parameters", "image_format")),
}
# The same for the keys at the top.
GLOBAL_KEYS: dict[str, tuple[KeyPath, ...]] = {
    "batch_size": (("globals", "batch_size"), ("default_compute_parameters", "batch_size")),
    "device": (("globals", "device"), ("default_learned_parameters", "device")),
    "codec": (("globals", "codec"), ("default_io_parameters", "binary_format")),
    "output_size": (("globals", "output_size"), ("default_io_parameters", "output_size")),
    "output_dtype": (("globals", "output_dtype"), ("default_io_parameters", "output_dtype")),
    "images": (("globals", "images"), ("default_io_parameters", "image_format")),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and the key that gave it."""

    value: Any
    path: KeyPath


def find(tree: object, path: Sequence[str | int]) -> Setting | None:
    """Return what stands at a path of plain values, None if nothing does."""
    for key in path:
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return Setting(tree, tuple(path))


def double_settings(tree: Mapping[str, Any], source_map: SourceMap) -> list[Mistake]:
    """Return a mistake for every pair of keys that mean the same and are both given."""
    mistakes = _double_settings(tree, (), GLOBAL_KEYS, source_map)
    entries = tree.get("representations")
    for name, entry in entries.items() if isinstance(entries, Mapping) else ():
        mistakes += _double_settings(entry, ("representations", name), ENTRY_KEYS, source_map)
    return mistakes


def _double_settings(
    tree: object, prefix: KeyPath, keys: Mapping[str, tuple[KeyPath, ...]], source_map: SourceMap
) -> list[Mistake]:
    mistakes = []
    for spellings in keys.values():
        given = [setting for path in spellings if (setting := find(tree, path))]
        for first, second in pairwise(given):
            line = source_map.locate(prefix + first.path)[0]
            text = f"means the same as {spell(first.path)!r} (line {line}); give one of them"
            mistakes.append(Mistake(prefix + second.path, text))
    return mistakes


def build_specs(
    config: Mapping[str, Any],
) -> tuple[list[RepresentationSpec], Setting | None, dict[tuple[str, str], KeyPath]]:
    """Return the representations of a validated config.

    Args:
        config: What `check_values` returned.

    Returns:
        The specs in config order, the default batch size where one is given, and for each (representation, field)
        the key that its value came from.
    """
    specs: list[RepresentationSpec] = []
    origins: dict[tuple[str, str], KeyPath] = {}
    for name, entry in config["representations"].items():
        fields: dict[str, Any] = {}
        for field in ENTRY_KEYS:
            setting = _setting(config, ("representations", name), entry, field)
            if setting is None:
                continue
            origins[name, field] = setting.path
            if setting.value is not None:
                fields[field] = setting.value
        fields["type"] = our_type(fields["type"])
        fields["dependencies"] = tuple(fields.get("dependencies", ()))
        specs.append(RepresentationSpec(name=name, **fields))
    return specs, _first(config, GLOBAL_KEYS["batch_size"]), origins


def our_type(name: str) -> str:
    """Return our name of a type that may carry upstream's."""
    return UPSTREAM_TYPES.get(name, name)


def _setting(config: Mapping[str, Any], prefix: KeyPath, entry: Mapping[str, Any], field: str) -> Setting | None:
    own = _first(entry, ENTRY_KEYS[field])
    # The default batch size stays one value of the export, so that it can be changed for all at once.
    shared = _first(config, GLOBAL_KEYS[field]) if field in GLOBAL_KEYS and field != "batch_size" else None
    found = Setting(own.value, prefix + own.path) if own else shared
    if found is not None and found.path[-1] == "binary_format":
        return Setting(_codec_of_binary_format(config, entry, found.value), found.path)
    return found


def _codec_of_binary_format(
    config: Mapping[str, Any], entry: Mapping[str, Any], binary_format: str | None
) -> str | None:
    """Return `npy` where upstream would write plain .npy files, None (our default of the kind) otherwise."""
    compress = find(entry, ("io_parameters", "compress")) or find(config, ("default_io_parameters", "compress"))
    return "npy" if binary_format == "npy" and not (compress and compress.value) else None


def _first(tree: object, paths: Sequence[KeyPath]) -> Setting | None:
    return next((setting for path in paths if (setting := find(tree, path))), None)
