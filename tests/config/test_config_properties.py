"""Random configs: valid ones come through whole, wrong ones end in ConfigError and in nothing else."""

import subprocess
import sys
from importlib.resources import files
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vrekit.config.loader import DEFAULT_BATCH_SIZE, load_config, parse_config, shipped_configs
from vrekit.config.schema import COMPUTE_DTYPES, IMAGES, OUTPUT_DTYPES, STORE_AS
from vrekit.core.errors import ConfigError
from vrekit.core.spec import RepresentationSpec
from vrekit.representations.registry import REPRESENTATIONS

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_()+\-]{0,12}", fullmatch=True)
TEXT = st.text(max_size=8).filter(lambda text: "${" not in text)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
PARAMS = st.dictionaries(
    st.text("abcdefgh_123", min_size=1, max_size=8),
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=5),
    max_size=3,
)
SIZES = st.lists(st.integers(1, 5000), min_size=2, max_size=2)
DEVICES = st.sampled_from(["cpu", "cuda", "cuda:0", "cuda:12", "mps"])
CODECS = st.sampled_from(["npy", "npy.zst", {"id": "png", "level": 1}])
OPTIONAL: dict[str, st.SearchStrategy[Any]] = {
    "params": PARAMS,
    "batch_size": st.integers(1, 10**6),
    "device": DEVICES,
    "dtype": st.sampled_from(COMPUTE_DTYPES),
    "store_as": st.sampled_from(STORE_AS),
    "codec": CODECS,
    "output_size": SIZES,
    "output_dtype": st.sampled_from(OUTPUT_DTYPES),
    "images": st.sampled_from(IMAGES),
}


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Return a valid config in the short form; a representation depends on earlier ones only."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    entries: dict[str, Any] = {}
    for index, name in enumerate(names):
        entry = draw(st.fixed_dictionaries({"type": st.sampled_from(sorted(REPRESENTATIONS))}, optional=OPTIONAL))
        if index and draw(st.booleans()):
            entry["deps"] = draw(st.lists(st.sampled_from(names[:index]), min_size=1, unique=True))
            entry["store"] = draw(st.booleans())
        entries[name] = entry
    shared = draw(st.fixed_dictionaries({}, optional={"batch_size": st.integers(1, 99), "device": DEVICES}))
    order = draw(st.permutations(list(entries)))
    return {"globals": shared, "representations": {name: entries[name] for name in order}}


def expected_spec(name: str, entry: dict[str, Any], shared: dict[str, Any]) -> RepresentationSpec:
    fields = {"device": shared.get("device", "cpu")} | entry
    fields["dependencies"] = tuple(fields.pop("deps", ()))
    if "dtype" in fields:
        fields["compute_dtype"] = fields.pop("dtype")
    if "output_size" in fields:
        fields["output_size"] = tuple(fields["output_size"])
    return RepresentationSpec(name=name, **fields)


class Quoting(yaml.SafeDumper):
    """Quotes all text: PyYAML leaves `1e5` bare, which is a number in YAML 1.2."""


Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@given(config=configs(), flow=st.sampled_from([None, True, False]))
@settings(deadline=None)
def test_valid_configs_come_through_whole(config: dict[str, Any], flow: bool | None) -> None:
    text = yaml.dump(config, Dumper=Quoting, sort_keys=False, default_flow_style=flow)
    parsed = parse_config(text, environ={})
    assert parsed.batch_size == config["globals"].get("batch_size", DEFAULT_BATCH_SIZE)
    assert parsed.representations == tuple(
        expected_spec(name, entry, config["globals"]) for name, entry in config["representations"].items()
    )
    for spec in parsed.representations:
        assert RepresentationSpec.from_json(spec.to_json()) == spec


@given(config=configs(), data=st.data())
@settings(deadline=None)
def test_a_wrong_key_anywhere_is_named_with_its_line(config: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(config["representations"])))
    sections = {
        "": config,
        "globals": config["globals"],
        f"representations.{name}": config["representations"][name],
    }
    where = data.draw(st.sampled_from(list(sections)))
    section = sections[where]
    key = data.draw(st.sampled_from(sorted(section)) if section else st.just("batch_size"))
    at = data.draw(st.integers(0, len(key)))
    typo = key[:at] + data.draw(st.sampled_from("xqz")) + key[at + data.draw(st.integers(0, 1)) :]
    section[typo] = section.pop(key, 1)
    lines = yaml.dump(config, Dumper=Quoting, sort_keys=False, default_flow_style=False).splitlines()
    numbers = [number for number, line in enumerate(lines, start=1) if line.strip().startswith(f'"{typo}":')]
    assume(len(numbers) == 1)  # a name or parameter may be spelled like the typo
    with pytest.raises(ConfigError) as caught:
        parse_config("\n".join(lines), source="c.yaml", environ={})
    path = f"{where}.{typo}" if where else typo
    expected = f"c.yaml:{numbers[0]}: {path}: unknown key"
    assert any(mistake.startswith(expected) for mistake in caught.value.mistakes)


WORDS = [
    "representations",
    "globals",
    "rgb",
    "type",
    "color/rgb",
    "deps",
    "params",
    "batch_size",
    "store",
    "<<",
    "null",
    "1",
    "-1",
    "{}",
    "[]",
    "[rgb]",
    "...",
]
MARKS = [": ", ":", "\n", "\n  ", "\n    ", "\t", "- ", ", ", "{", "}", "[", "]", "&a ", "*a", "!!int ", "'", '"', "# "]
ODD = ["${", "${oc.env:A,b}", "${oc.decode:", "|\n", ">\n", "---\n", "? ", "%YAML 1.1\n", "\ue0000\ue001", "\\", "\\U"]
TOKENS = st.sampled_from([*WORDS, *MARKS, *ODD])


def loads_or_is_refused(text: str) -> bool:
    try:
        config = parse_config(text, source="c.yaml", environ={"A": "[1"})
    except ConfigError as error:
        return bool(error.mistakes) and all(mistake.startswith("c.yaml:") for mistake in error.mistakes)
    return bool(config.representations)


@given(text=st.text(max_size=80) | st.lists(TOKENS, max_size=25).map("".join))
@settings(deadline=None, max_examples=600)
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    assert loads_or_is_refused(text)


@given(content=st.binary(max_size=60))
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):  # 60 random bytes never spell a config
        load_config(path, environ={})


@given(name=st.sampled_from(sorted(shipped_configs())), data=st.data())
@settings(deadline=None, max_examples=300)
def test_a_shipped_config_with_random_damage_is_a_config_or_a_config_error(name: str, data: st.DataObject) -> None:
    text = files("vrekit.configs").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    start = data.draw(st.integers(0, len(text)))
    rest = text[start + data.draw(st.integers(0, 10)) :]
    assert loads_or_is_refused(text[:start] + data.draw(st.text(max_size=5) | TOKENS) + rest)


def test_loading_a_config_imports_nothing_heavy() -> None:
    code = (
        "import sys; from vrekit.config.loader import load_config; load_config('cpu', environ={}); "
        "print({'torch', 'cv2', 'lance', 'torchcodec', 'duckdb', 'numpy'} & set(sys.modules), "
        "[name for name in sys.modules if name.startswith('vrekit.representations.') and 'registry' not in name])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set() []\n"
