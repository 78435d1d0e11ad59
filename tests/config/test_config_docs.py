"""docs/config.md: its examples load, and it names every key."""

import re
from pathlib import Path

import pytest

from vrekit.config.loader import parse_config
from vrekit.config.schema import ConfigFile, Globals, RepresentationEntry
from vrekit.core.errors import ConfigError
from vrekit.graph.build import build_graph

PAGE = (Path(__file__).parents[2] / "docs" / "config.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


ROOT = Path(__file__).parents[2]
EXAMPLES = [
    pytest.param(text, id=f"{page.name}-{number}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, text in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL))
    if text.startswith(("representations:", "globals:"))
]


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_of_every_page_make_a_graph(text: str) -> None:
    specs = parse_config(text, environ={}).representations
    # those with files of the reader's own need them
    own = {spec.name for spec in specs if spec.type.startswith("external/") or ".py" in spec.type}
    known = [spec for spec in specs if spec.name not in own and not own & set(spec.dependencies)]
    assert set(build_graph(known, height=64, width=96).nodes) >= {spec.name for spec in known}


@pytest.mark.parametrize("text", [text for language, text in BLOCKS if language == "yaml"])
def test_yaml_examples_load(text: str) -> None:
    assert len(parse_config(text, environ={}).representations) >= 2


def test_the_python_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for language, text in BLOCKS:
        if language == "python":
            exec(compile(text, "docs/config.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == [
        "8 ['rgb', 'hsv', 'canny', 'flow', 'halftone']",
        "configs/quickstart.yaml:17",
    ]


def test_the_mistakes_shown_are_the_ones_reported() -> None:
    example = next(text for language, text in BLOCKS if language == "yaml")
    wrong = (
        example.replace("deps:", "dpes:")
        .replace("edges/canny", "edges/cany")
        .replace("batch_size: 5", "batch_size: five")
    )
    shown = next(text for language, text in BLOCKS if language == "text").splitlines()
    with pytest.raises(ConfigError) as caught:
        parse_config(wrong, source="my.yaml", environ={})
    assert set(shown) <= set(caught.value.mistakes)


@pytest.mark.parametrize(
    "key", sorted({*ConfigFile.model_fields, *RepresentationEntry.model_fields, *Globals.model_fields})
)
def test_every_key_is_on_the_page(key: str) -> None:
    assert re.search(rf"`(\w+\.)?{key}(\.\w+)?`", PAGE), key
