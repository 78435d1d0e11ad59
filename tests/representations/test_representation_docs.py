"""docs/representations.md says what the code does, and its examples run."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from vrekit.core.frames import FrameBatch, Output
from vrekit.core.spec import Kind, OutputSpec
from vrekit.representations.base import LearnedRepresentation, Representation
from vrekit.representations.parameters import build, describe_parameters
from vrekit.representations.registry import REPRESENTATIONS

PAGE = (Path(__file__).parents[2] / "docs" / "representations.md").read_text(encoding="utf-8")
BLOCKS = dict.fromkeys(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
CONFIGS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
EXAMPLES = {match[1]: block for block in BLOCKS if (match := re.search(r"class (\w+)\(", block))}


def test_table_of_types() -> None:
    section = PAGE.split("## Built-in types")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([\w/-]+)` \|", section, re.MULTILINE) == list(REPRESENTATIONS)


def test_table_of_parameters() -> None:
    section = PAGE.split("## Parameters")[1].split("\n## ")[0]
    rows = [[cell.strip().strip("`") for cell in row.split("|")[1:-1]] for row in section.splitlines() if "| `" in row]
    documented: dict[str, list[tuple[str, str, str]]] = {}
    current = ""
    for name, parameter, value, default in rows:
        current = name or current
        documented.setdefault(current, []).append((parameter, value, default))
    expected = {
        name: [
            (p.name, p.type.replace(" | ", ", "), "required" if p.default is None else p.default)
            for p in describe_parameters(REPRESENTATIONS.load(name))
        ]
        for name in REPRESENTATIONS
    }
    assert documented == {name: parameters for name, parameters in expected.items() if parameters}


@pytest.mark.parametrize("config", CONFIGS)
def test_configs_name_existing_types_and_parameters(config: str, tmp_path: Path) -> None:
    (tmp_path / "invert.py").write_text(EXAMPLES["Invert"])
    for name, entry in yaml.safe_load(config)["representations"].items():
        cls = REPRESENTATIONS.load(entry["type"], relative_to=tmp_path)
        assert isinstance(build(cls, entry["params"], name), Representation)


def _load(name: str, folder: Path) -> type[Representation]:
    (folder / "example.py").write_text(EXAMPLES[name])
    cls: type[Representation] = REPRESENTATIONS.load(f"example.py:{name}", relative_to=folder)
    return cls


def _check(instance: Representation, spec: OutputSpec, output: Output) -> None:
    assert len(output) == 5
    for position in range(5):
        assert (output.frame(position).dtype.name, output.frame(position).shape) == (spec.dtype, spec.shape)
    assert instance.make_images(output, spec).dtype == np.uint8


def test_own_representation(tmp_path: Path, moving_batch: FrameBatch) -> None:
    assert sum(bool(line.strip()) for line in EXAMPLES["Invert"].splitlines()) <= 15
    invert = build(_load("Invert", tmp_path), {"strength": 1}, "inverted")
    output = invert.compute(moving_batch, {})
    np.testing.assert_array_equal(np.asarray(output.data), 255 - moving_batch.frames)
    _check(invert, invert.output_spec(71, 97, {}), output)


def test_derived_representation(tmp_path: Path, moving_batch: FrameBatch) -> None:
    near = build(_load("Near", tmp_path), {"metres": 2}, "near")
    depth = np.array([1, 3, np.nan, 1.5, 2], np.float32).reshape(5, 1, 1) * np.ones((1, 4, 6), np.float32)
    spec = near.output_spec(71, 97, {"d": OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(4, 6), axes="HW")})
    output = near.compute(moving_batch, {"d": Output(data=depth)})
    _check(near, spec, output)
    assert [bool(output.frame(at).all()) for at in range(5)] == [True, False, False, True, False]


def test_temporal_representation(tmp_path: Path, moving_batch: FrameBatch) -> None:
    change = build(_load("Change", tmp_path), {}, "change")
    assert change.context == (1, 0)
    output = change.compute(moving_batch, {})
    _check(change, change.output_spec(71, 97, {}), output)
    assert [output.is_valid(at) for at in range(5)] == [False, True, True, True, True]
    assert 0 < output.frame(1).astype(np.float64).mean() < 0.5


def test_learned_representation(tmp_path: Path, moving_batch: FrameBatch) -> None:
    embedding = build(_load("Embedding", tmp_path), {"size": 8}, "embedding")
    assert isinstance(embedding, LearnedRepresentation)
    embedding.load_weights("cpu")
    _check(embedding, embedding.output_spec(71, 97, {}), embedding.compute(moving_batch, {}))
    embedding.unload_weights()
