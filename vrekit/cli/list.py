"""`vrekit list`."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from vrekit.cli.output import command, print_json, table


class What(StrEnum):
    """What can be listed."""

    REPRESENTATIONS = "representations"
    CODECS = "codecs"
    CONFIGS = "configs"


@command
def list_command(
    what: Annotated[What, typer.Argument(help="What to list.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List the representations, codecs or configs that are there to use.

    Example:
        vrekit list representations
    """
    rows = {What.REPRESENTATIONS: _representations, What.CODECS: _codecs, What.CONFIGS: _configs}[what]()
    if as_json:
        print_json(rows)
        return
    columns = list(rows[0]) if rows else []
    table(columns, [[str(row[column]) for column in columns] for row in rows])


def _representations() -> list[dict[str, Any]]:
    import inspect

    from vrekit.representations.parameters import describe_parameters
    from vrekit.representations.registry import REPRESENTATIONS

    rows = []
    for name in REPRESENTATIONS:
        cls = REPRESENTATIONS.load(name)
        inputs = "any" if cls.inputs is None else ", ".join("|".join(kinds) for kinds in cls.inputs) or "–"
        parameters = ", ".join(f"{one.name}={one.default}" for one in describe_parameters(cls)) or "–"
        summary = (inspect.getdoc(cls) or "").split("\n")[0]
        rows.append({"type": name, "dependencies": inputs, "parameters": parameters, "what": summary})
    return rows


def _codecs() -> list[dict[str, Any]]:
    import inspect

    from vrekit.codecs.presets import PRESETS
    from vrekit.codecs.registry import CLIP_CODECS, codec_names

    rows = []
    for name in codec_names():
        preset = PRESETS.get(name)
        stages = " → ".join(stage["id"] for stage in preset.stages) if preset else "–"
        if preset:
            error, what = preset.error, preset.summary
        else:
            error, what = _codec_of_a_package(name)
        rows.append({"codec": name, "largest error": error, "stages": stages, "what": what})
    for name in CLIP_CODECS:
        what = (inspect.getdoc(CLIP_CODECS.load(name)) or "").split("\n")[0]
        rows.append({"codec": name, "largest error": "exact, unless encoded again", "stages": "–", "what": what})
    return rows


def _codec_of_a_package(name: str) -> tuple[str, str]:
    """Return what it says of its errors and of itself."""
    import inspect

    from vrekit.codecs.registry import CODECS, codec_from_config
    from vrekit.core.errors import UsageError

    what = (inspect.getdoc(CODECS.load(name)) or "").split("\n")[0]
    try:
        error = "exact" if codec_from_config(name).is_exact else "not exact"
    except UsageError:
        error = "depends on its options"
    return error, what


def _configs() -> list[dict[str, Any]]:
    from vrekit.config.loader import shipped_configs

    return [{"config": name, "what": what} for name, what in shipped_configs().items()]
