"""Mistakes that only show once the classes are loaded: all of them in one ConfigError."""

from dataclasses import replace
from pathlib import Path

import pytest

from vrekit.config.loader import parse_config
from vrekit.core.errors import ConfigError
from vrekit.core.spec import RepresentationSpec
from vrekit.graph.build import build_graph, topological_order
from vrekit.graph.draw import as_svg, as_text


def mistakes(config: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        build_graph(parse_config(config).representations, height=32, width=48)
    return caught.value.mistakes


def test_all_at_once() -> None:
    found = mistakes("""
representations:
  rgb: {type: color/rgb}
  hsv: {type: color/hsv}
  canny: {type: edges/canny, params: {threshold3: 1}}
  normals: {type: normals/svd, deps: [rgb], params: {sensor_fov: 75, sensor_size: [16, 9], window_size: 5}}
  flow: {type: flow/dis, codec: pgn}
  later: {type: 'nowhere.at_all:Thing'}
""")
    text = "\n".join(found)
    assert len(found) == 5
    assert "hsv: color/hsv takes 1 dependency (color), got 0" in text
    assert "threshold3" in text
    assert "did you mean 'threshold" in text
    assert "normals: normals/svd needs a dependency of kind depth, but 'rgb' is of kind color" in text
    assert "pgn" in text
    assert "did you mean 'png'" in text
    assert "later: representation type 'nowhere.at_all:Thing': there is no module 'nowhere'" in text


def test_dependents_of_a_broken_one_are_not_blamed() -> None:
    found = mistakes("""
representations:
  depth: {type: color/rgb, params: {nope: 1}}
  hsv: {type: color/hsv, deps: [depth]}
""")
    assert len(found) == 1
    assert found[0].startswith("depth: ")


def test_order_puts_dependencies_first_and_keeps_config_order() -> None:
    specs = parse_config("""
representations:
  hsv: {type: color/hsv, deps: [rgb]}
  canny: {type: edges/canny}
  rgb: {type: color/rgb}
""").representations
    assert [spec.name for spec in topological_order(specs)] == ["rgb", "hsv", "canny"]


def test_long_chains_have_an_order() -> None:
    names = [f"r{at}" for at in range(5000)]
    specs = [
        RepresentationSpec(name=name, type="color/hsv", dependencies=(names[at + 1],) if at < 4999 else ())
        for at, name in enumerate(names)
    ]
    assert [spec.name for spec in topological_order(specs)] == names[::-1]
    circle = [*specs[:-1], replace(specs[-1], dependencies=("r4990",))]
    with pytest.raises(ConfigError, match=r"in a circle: r4990 → r4991 → .* → r4999 → r4990$"):
        topological_order(circle)


def test_drawings_name_everything() -> None:
    specs = topological_order(
        parse_config("""
representations:
  rgb: {type: color/rgb}
  'hsv(rgb)': {type: color/hsv, deps: [rgb], store: false}
""").representations
    )
    assert as_text(specs).splitlines() == [
        "rgb       color/rgb  ← frames",
        "  hsv(rgb)  color/hsv  ← rgb  (virtual: computed on read)",
    ]
    svg = as_svg(specs)
    assert svg.count("<rect") == 3  # the paper and two boxes
    assert svg.count("<path") == 1
    assert ">hsv(rgb)</text>" in svg


@pytest.mark.parametrize(
    ("body", "hint"),
    [("", "inputs = ((Kind.COLOR,),)"), ("    inputs = None\n", "uses_frames = False")],
    ids=["inputs", "uses_frames"],
)
def test_what_a_virtual_type_of_ones_own_lacks_is_in_the_hint(tmp_path: Path, body: str, hint: str) -> None:
    (tmp_path / "mine.py").write_text(f"""
from vrekit.representations.base import Representation

class Mine(Representation):
{body}    def output_spec(self, height, width, dependencies):
        return dependencies["rgb"]
    def compute(self, batch, dependencies):
        return dependencies["rgb"]
""")
    config = "representations: {rgb: {type: color/rgb}, x: {type: 'mine.py:Mine', deps: [rgb], store: false}}"
    with pytest.raises(ConfigError) as caught:
        build_graph(parse_config(config).representations, height=32, width=48, folders=[tmp_path])
    assert hint in (caught.value.hint or "")
