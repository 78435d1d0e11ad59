"""Config files → representation specs. Every mistake in a config is found and reported at once.

YAML text ──document──▶ values + lines ──schema, checks──▶ mistakes? ──settings──▶ RepresentationSpec
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any

from vrekit.config.checks import check_representations
from vrekit.config.document import read_document
from vrekit.config.schema import check_values, describe
from vrekit.config.settings import build_specs, double_settings
from vrekit.config.source import KeyPath, Mistake, SourceMap, render
from vrekit.core.errors import ConfigError
from vrekit.core.names import MAX_REPRESENTATIONS, did_you_mean
from vrekit.core.spec import RepresentationSpec
from vrekit.representations.registry import REPRESENTATIONS

# Enough for a GPU to be busy, and 8 float32 colour frames at 1080p take 200 MB.
DEFAULT_BATCH_SIZE = 8
MAX_BYTES = 1 << 20  # PyYAML takes seconds for it
_HINT = "docs/config.md explains every key, and so does the shipped config `template`"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """What a config asks for.

    Attributes:
        representations: The nodes of the DAG, in the order of the file.
        batch_size: Frames per `compute` call of the representations that do not set their own.
        source: Name of the file, as messages show it.
        folder: Folder that `path/file.py:Class` types start from; None for text and shipped configs.
    """

    representations: tuple[RepresentationSpec, ...]
    batch_size: int = DEFAULT_BATCH_SIZE
    source: str = "<string>"
    folder: Path | None = None
    _source_map: SourceMap = field(default=SourceMap("<string>"), repr=False, compare=False)
    _origins: Mapping[tuple[str, str], KeyPath] = field(default_factory=dict, repr=False, compare=False)

    def position(self, name: str, *keys: str | int) -> str:
        """Return `"file:line"` of a representation or of one of its keys, for messages of later stages.

        Args:
            name: Name of the representation.
            keys: A field of RepresentationSpec and what is inside it: `position("canny", "params", "threshold1")`.
                The line is that of the key the value came from, whatever its spelling, or of the closest key
                around it that stands in the file.
        """
        path: KeyPath = ("representations", name)
        if keys:
            path = (*self._origins.get((name, str(keys[0])), (*path, keys[0])), *keys[1:])
        return self._source_map.position(path)


def load_config(path: str | Path, *, environ: Mapping[str, str] | None = None) -> ExportConfig:
    """Return the config in a file.

    Args:
        path: A YAML file, or the name of a shipped config: `quickstart`, `configs/quickstart.yaml`.
        environ: Environment variables for `${oc.env:…}`; those of the process by default.

    Raises:
        ConfigError: If there is no such file, or with every mistake in it.
    """
    file = Path(path)
    if not file.is_file():
        name = _shipped_name(file)
        shipped = shipped_configs()
        if name not in shipped:
            what = "is a folder, not a config" if file.is_dir() else "there is no such config"
            hint = f"give a YAML file, or one of the shipped configs: {', '.join(shipped)}"
            raise ConfigError(f"{path}: {what}{did_you_mean(name, shipped)}", hint=hint)
        text = files("vrekit.configs").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        return parse_config(text, source=f"configs/{name}.yaml", environ=environ)
    try:
        _check_size(file.stat().st_size, path)
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text (byte 0x{content[error.start]:02x})", hint=_HINT) from error
    return parse_config(text, source=str(path), folder=file.resolve().parent, environ=environ)


def config_from(config: "ExportConfig | str | Path | Mapping[str, Any]") -> ExportConfig:
    """Return the config that is given in any form.

    Args:
        config: A config; a mapping like the one that a YAML file holds; a YAML text; a YAML file; or the name of a
            shipped config. A `str` is YAML text when it has a line break or a colon with a space behind it.

    Raises:
        ConfigError: If it is none, or with every mistake in it.

    Example:
        >>> config_from({"representations": {"rgb": {"type": "color/rgb"}}}).representations[0].name
        'rgb'
    """
    if isinstance(config, ExportConfig):
        return config
    if isinstance(config, Path):
        return load_config(config)
    if isinstance(config, str):
        return parse_config(config, source="config") if "\n" in config or ": " in config else load_config(config)
    if not isinstance(config, Mapping):
        hint = "give a name, a path, YAML text or a dict"
        raise ConfigError(f"config is a {type(config).__name__}, which is no config", hint=hint)
    try:
        text = json.dumps(config, allow_nan=False, ensure_ascii=False, indent=1, default=_plain)  # JSON is YAML
    except (TypeError, ValueError, RecursionError) as error:
        hint = "it may hold dicts, lists, text, finite numbers, True, False and None"
        raise ConfigError(f"the config is not made of plain values: {error}", hint=hint) from error
    return parse_config(text, source="config")


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"a {type(value).__name__}")


def parse_config(
    text: str, *, source: str = "<string>", folder: Path | None = None, environ: Mapping[str, str] | None = None
) -> ExportConfig:
    """Return the config in a YAML text.

    Args:
        text: The YAML.
        source: Name for messages.
        folder: Folder that `path/file.py:Class` types start from.
        environ: Environment variables for `${oc.env:…}`; those of the process by default.

    Raises:
        ConfigError: With every mistake in it; after a syntax error nothing more can be found.

    Example:
        >>> config = parse_config("representations: {rgb: {type: color/rgb}}")
        >>> config.representations[0].type
        'color/rgb'
    """
    _check_size(len(text), source)
    document = read_document(text, source, os.environ if environ is None else environ)
    tree, source_map, mistakes = document.value, document.source_map, document.mistakes
    if tree is None:
        raise ConfigError(f"{source}:1: the config is empty", hint=_HINT)
    if not isinstance(tree, dict):
        mistakes.append(Mistake((), f"expected a mapping with 'representations', got {describe(tree)}"))
        raise ConfigError(render(mistakes, source_map), hint=_HINT)

    entries = tree.get("representations")
    if isinstance(entries, dict) and len(entries) > MAX_REPRESENTATIONS:
        text = f"{len(entries)} representations; a config has at most {MAX_REPRESENTATIONS}"
        raise ConfigError(render([Mistake(("representations",), text)], source_map), hint=_HINT)
    config, found = check_values(tree)
    mistakes += found + double_settings(tree, source_map)
    if isinstance(entries, dict):
        mistakes += check_representations(entries, list(REPRESENTATIONS))
    if mistakes:
        raise ConfigError(render(mistakes, source_map), hint=_HINT)

    specs, batch_size, origins = build_specs(config)
    return ExportConfig(
        representations=tuple(specs),
        batch_size=(batch_size.value if batch_size else None) or DEFAULT_BATCH_SIZE,
        source=source,
        folder=folder,
        _source_map=source_map,
        _origins=origins,
    )


def _check_size(size: int, source: object) -> None:
    if size > MAX_BYTES:
        raise ConfigError(f"{source}: larger than {MAX_BYTES >> 20} MiB; a config has at most that", hint=_HINT)


def shipped_configs() -> dict[str, str]:
    """Return the names of the configs that come with vrekit, each with the one line that describes it."""
    folder = files("vrekit.configs")
    found = sorted((item for item in folder.iterdir() if item.name.endswith(".yaml")), key=lambda item: item.name)
    return {
        item.name.removesuffix(".yaml"): item.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").rstrip()
        for item in found
    }


def _shipped_name(path: Path) -> str:
    name = path.as_posix().removeprefix("./").removeprefix("configs/")
    return name.removesuffix(".yaml").removesuffix(".yml")
