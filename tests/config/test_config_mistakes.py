from pathlib import Path

import pytest

from vrekit.config import document
from vrekit.config.loader import load_config, parse_config
from vrekit.core.errors import ConfigError

# The hint of vrekit.core.names.
LEGAL = "use letters, digits, '_', '-', '+', '(' and ')', starting with a letter or digit, at most 100 characters"


def mistakes(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, source="c.yaml", environ=environ)
    assert str(caught.value) == "\n".join(caught.value.mistakes)
    assert caught.value.exit_code == 2
    return list(caught.value.mistakes)


def entry(keys: str) -> str:
    return f"representations:\n  rgb: {{type: color/rgb}}\n  x: {{{keys}}}\n"


ENTRY_MISTAKES = {
    # keys
    "type: color/rgb, tpye: a": "x.tpye: unknown key (did you mean 'type'?)",
    "type: color/rgb, zzz: a": "x.zzz: unknown key; there are type, dependencies, deps, params, parameters, "
    "batch_size, device, dtype, store, store_as, codec, output_size, output_dtype, images, compute_parameters, "
    "io_parameters, learned_parameters",
    "type: color/rgb, binary_format: npy": "x.binary_format: unknown key; it belongs to 'io_parameters'",
    "type: color/rgb, io_parameters: {imageformat: png}": "x.io_parameters.imageformat: unknown key "
    "(did you mean 'image_format'?)",
    "type: color/rgb, compute_parameters: {device: cpu}": "x.compute_parameters.device: unknown key; "
    "it belongs to a representation or 'globals'",
    "deps: [rgb]": "x: 'type' is missing",
    "type: color/rgb, type: color/hsv": "x.type: given twice, first on line 3",
    "type: color/rgb, deps: [], dependencies: []": "x.deps: means the same as "
    "'dependencies' (line 3); give one of them",
    # types
    "type: color/rgbb": "x.type: unknown type 'color/rgbb' (did you mean 'color/rgb'?)",
    "type: hsv": "x.type: unknown type 'hsv' (did you mean 'color/hsv'?)",
    "type: optical-flow/dis": "x.type: unknown type 'optical-flow/dis' (did you mean 'flow/dis'?)",
    "type: qqq": "x.type: unknown type 'qqq'; `vrekit list representations` names them",
    "type: 'a b:C'": "x.type: unknown type 'a b:C'; `vrekit list representations` names them",
    "type: 'mine.py:'": "x.type: unknown type 'mine.py:'; `vrekit list representations` names them",
    "type: 3": "x.type: expected text, got 3",
    "type: null": "x.type: expected text, got nothing",
    # dependencies
    "type: color/hsv, deps: [rbg]": "x.deps[0]: there is no representation 'rbg' (did you mean 'rgb'?)",
    "type: color/hsv, deps: [depth]": "x.deps[0]: there is no representation 'depth'; there are rgb",
    "type: color/hsv, deps: [x]": "x.deps[0]: 'x' depends on itself",
    "type: color/hsv, deps: [rgb, rgb]": "x.deps[1]: 'rgb' is listed twice",
    "type: color/hsv, deps: rgb": "x.deps: expected a list, such as [rgb], got 'rgb'",
    "type: color/hsv, deps: {rgb: 1}": "x.deps: expected a list, such as [rgb], got a mapping",
    "type: color/hsv, deps: [5]": "x.deps[0]: expected text, got 5",
    # values
    "type: color/rgb, batch_size: -1": "x.batch_size: expected a whole number from 1 to 1000000, got -1",
    "type: color/rgb, batch_size: 9999999": "x.batch_size: expected a whole number from 1 to 1000000, got 9999999",
    "type: color/rgb, batch_size: 0": "x.batch_size: expected a whole number from 1 to 1000000, got 0",
    "type: color/rgb, batch_size: ten": "x.batch_size: expected a whole number from 1 to 1000000, got 'ten'",
    "type: color/rgb, batch_size: '5'": "x.batch_size: expected a whole number from 1 to 1000000, got '5'",
    "type: color/rgb, batch_size: 2.0": "x.batch_size: expected a whole number from 1 to 1000000, got 2.0",
    "type: color/rgb, batch_size: true": "x.batch_size: expected a whole number from 1 to 1000000, got true",
    "type: color/rgb, batch_size: [1]": "x.batch_size: expected a whole number from 1 to 1000000, got [1]",
    "type: color/rgb, params: [1]": "x.params: expected a mapping (key: value), got [1]",
    "type: color/rgb, device: cdua": "x.device: expected a device such as cpu, cuda or cuda:1, got 'cdua' "
    "(did you mean 'cuda'?)",
    "type: color/rgb, device: 'cuda:x'": "x.device: expected a device such as cpu, cuda or cuda:1, got 'cuda:x' "
    "(did you mean 'cuda'?)",
    "type: color/rgb, device: 0": "x.device: expected a device such as cpu, cuda or cuda:1, got 0",
    "type: color/rgb, dtype: bfloat": "x.dtype: expected bfloat16, float16, float32 or float64, got 'bfloat' "
    "(did you mean 'bfloat16'?)",
    "type: color/rgb, store: yes": "x.store: expected true or false, got 'yes'",
    "type: color/rgb, store_as: indexes": "x.store_as: expected logits, probabilities, indices or top-k, "
    "got 'indexes' (did you mean 'indices'?)",
    "type: color/rgb, images: jpeg": "x.images: expected jpg, png or not-set, got 'jpeg' (did you mean 'jpg'?)",
    "type: color/rgb, images: [png]": "x.images: expected jpg, png or not-set, got ['png']",
    "type: color/rgb, codec: 3": "x.codec: expected a codec's id, such as npy.zst, or a mapping with its "
    "configuration, got 3",
    "type: color/rgb, output_size: 540": "x.output_size: expected [height, width] in pixels, or native, got 540",
    "type: color/rgb, output_size: [540]": "x.output_size: expected [height, width] in pixels, or native, got [540]",
    "type: color/rgb, output_size: [0, 9]": "x.output_size: expected [height, width] in pixels, or native, got [0, 9]",
    "type: color/rgb, output_size: [[1], 9]": "x.output_size: expected [height, width] in pixels, or native, "
    "got a list",
    "type: color/rgb, output_dtype: float15": "x.output_dtype: expected bool, float16, float32, float64, int8, int16, "
    "int32, int64, uint8, uint16, uint32, uint64 or not-set, got 'float15' (did you mean 'float16'?)",
    "type: color/rgb, io_parameters: {binary_format: zip}": "x.io_parameters.binary_format: expected npz, npy or "
    "not-set, got 'zip'",
    "type: color/rgb, io_parameters: {compress: 1}": "x.io_parameters.compress: expected true or false, got 1",
    "type: color/rgb, io_parameters: npz": "x.io_parameters: expected a mapping (key: value), got 'npz'",
    # virtual
    "type: color/hsv, store: false": "x.store: a virtual representation is computed from stored ones when it is read: "
    "it needs dependencies",
    "type: color/hsv, store: false, deps: []": "x.store: a virtual representation is computed from stored ones when it "
    "is read: it needs dependencies",
    # variables and tags
    "type: color/rgb, device: ${oc.env:NOPE}": "x.device: the environment variable 'NOPE' is not set; set it, or give "
    "a default: ${oc.env:NOPE,default}",
    "type: color/rgb, output_size: [${oc.env:NOPE}, 3]": "x.output_size[0]: the environment variable 'NOPE' is not "
    "set; set it, or give a default: ${oc.env:NOPE,default}",
    "type: color/rgb, device: ${DEVICE}": "x.device: unknown interpolation ${DEVICE} (did you mean ${oc.env:DEVICE}?); "
    "there are oc.env and oc.decode",
    "type: color/rgb, device: ${globals.device}": "x.device: unknown interpolation ${globals.device}; there are oc.env "
    "and oc.decode",
    "type: color/rgb, batch_size: ${oc.env:LIST}": "x.batch_size: '${oc.env:LIST}' gives '[1, ', which is not YAML",
    "type: !!python/name:os.system x": "x.type: the tag 'tag:yaml.org,2002:python/name:os.system' is not allowed; "
    "a config holds plain values",
    "<<: 3, type: color/rgb": "x.<<: expected a mapping to merge, such as *anchor",
    'type: color/rgb, device: "\\ud800"': "x.device: '\\ud800' is not valid Unicode",
}


@pytest.mark.parametrize("keys", ENTRY_MISTAKES)
def test_mistakes_in_a_representation(keys: str) -> None:
    assert mistakes(entry(keys), LIST="[1, ") == [f"c.yaml:3: representations.{ENTRY_MISTAKES[keys]}"]


def test_a_variable_that_is_not_closed() -> None:
    assert mistakes("representations:\n  x:\n    type: color/rgb\n    device: ${oc.env:D\n") == [
        "c.yaml:4: representations.x.device: '${oc.env:D' has no closing '}' on its line"
    ]


@pytest.mark.parametrize("name", ["../evil", "a/b", "a.b", "", "-a", "ä", "a b", "x" * 101])
def test_illegal_names(name: str) -> None:
    shown = name if name in ("-a", "ä") or len(name) > 100 else repr(name)
    assert mistakes(f'representations:\n  "{name}": {{type: color/rgb}}\n') == [
        f"c.yaml:2: representations.{shown}: this name is not allowed; {LEGAL}"
    ]


def test_a_name_given_twice() -> None:
    text = "representations:\n  a: {type: color/rgb}\n  b: {type: color/rgb}\n  a: {type: color/hsv}\n"
    assert mistakes(text) == ["c.yaml:4: representations.a: given twice, first on line 2"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("globals: {btach_size: 3}", "c.yaml:1: globals.btach_size: unknown key (did you mean 'batch_size'?)"),
        ("globals: {dtype: float16}", "c.yaml:1: globals.dtype: unknown key; it belongs to a representation"),
        ("globals: 3", "c.yaml:1: globals: expected a mapping (key: value), got 3"),
        ("globals: {batch_size: 0}", "c.yaml:1: globals.batch_size: expected a whole number from 1 to 1000000, got 0"),
        ("images: png", "c.yaml:1: images: unknown key; it belongs to a representation or 'globals'"),
        ("representation: {}", "c.yaml:1: representation: unknown key (did you mean 'representations'?)"),
        (
            "default_io_paramters: {}",
            "c.yaml:1: default_io_paramters: unknown key (did you mean 'default_io_parameters'?)",
        ),
        (
            "globals: {batch_size: 1}\ndefault_compute_parameters: {batch_size: 2}",
            (
                "c.yaml:2: default_compute_parameters.batch_size: means the same as 'globals.batch_size' (line 1); "
                "give one of them"
            ),
        ),
        (
            "default_io_parameters: {compress: ${oc.decode:${oc.env:NOPE}}}",
            (
                "c.yaml:1: default_io_parameters.compress: the environment variable 'NOPE' is not set; set it, or give "
                "a default: ${oc.env:NOPE,default}"
            ),
        ),
    ],
)
def test_mistakes_at_the_top(text: str, expected: str) -> None:
    assert mistakes(f"{text}\nrepresentations: {{rgb: {{type: color/rgb}}}}\n") == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: the config is empty"),
        (" \n# only a comment\n", "1: the config is empty"),
        ("---\n...\n", "1: the config is empty"),
        ("- rgb\n", "1: expected a mapping with 'representations', got ['rgb']"),
        ("just text", "1: expected a mapping with 'representations', got 'just text'"),
        (
            "globals: {}",
            "1: there is no 'representations'; it maps a name to its type, such as {rgb: {type: color/rgb}}",
        ),
        (
            "representations: {}",
            "1: representations: there are no representations; add one, such as rgb: {type: color/rgb}",
        ),
        (
            "representations:",
            "1: representations: expected a mapping of names, such as {rgb: {type: color/rgb}}, got nothing",
        ),
        (
            "representations:\n  - type: color/rgb",
            "1: representations: expected a mapping of names, such as {rgb: {type: color/rgb}}, got a list",
        ),
        ("representations: {rgb: }", "1: representations.rgb: expected a mapping (key: value), got nothing"),
        (
            "representations: {rgb: color/rgb}",
            "1: representations.rgb: expected a mapping (key: value), got 'color/rgb'",
        ),
    ],
)
def test_not_the_shape_of_a_config(text: str, expected: str) -> None:
    assert mistakes(text) == [f"c.yaml:{expected}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\n\tb: 1", "2:1: not YAML: a tab where YAML allows only spaces"),
        ("a: b: c", "1:5: not YAML: a ':' where none can stand: is the text unquoted, or the indentation off?"),
        ("a: [1, 2", "1:9: not YAML: expected ',' or ']': is a bracket or brace never closed?"),
        ("a: {b: 1\nc: 2}", "2:2: not YAML: expected ',' or '}': is a bracket or brace never closed?"),
        ("a: [", "1:5: not YAML: expected a value, found the end of the text"),
        ("a: 'b", "1:6: not YAML: a quote or bracket is never closed"),
        ("a: 'b' c", "1:8: not YAML: text after the end of a value: are the quotes or spaces off?"),
        ("a: @b", "1:4: not YAML: text that starts with '@' must be quoted"),
        ("a: 1\n- b", "2:1: not YAML: the indentation does not fit the lines above"),
        (" a: 1\nb: 2", "2:1: not YAML: the indentation does not fit the lines above"),
        ("a: 1\nb", "2:2: not YAML: expected `key: value`, found no ':'"),
        ("a: *b", "1:4: not YAML: there is no anchor '&b' above"),
        ("a: &b 1\nc: &b 2", "2:4: not YAML: this anchor is given twice"),
        ("a: 1\n---\nb: 2", "2:1: not YAML: a second document ('---'); a config is one"),
        ("a: &", "1:5: not YAML: expected alphabetic or numeric character, but found the end of the text"),
        ("a: x\n\ud800", "2: not valid Unicode ('\\ud800')"),
        ("a: x\n\x07", "2:1: the character '\\x07' is not allowed in YAML"),
        ("a: &x [*x]", "1: nested too deeply, or an alias holds itself"),
        ("a: &x {<<: *x}", "1: nested too deeply, or an alias holds itself"),
        ("[" * 3000, "1: nested too deeply, or an alias holds itself"),
        ('a: "\\UFFFFFFFF"', "1: not YAML: Python int too large to convert to C int"),
    ],
)
def test_not_yaml(text: str, expected: str) -> None:
    assert mistakes(text) == [f"c.yaml:{expected}"]


def test_a_number_too_long_to_read() -> None:
    (mistake,) = mistakes(entry(f"type: color/rgb, batch_size: {'9' * 5000}"))
    assert mistake.startswith("c.yaml:1: not YAML: Exceeds the limit")


def test_aliases_that_multiply_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_VALUES", 1000)
    lists = "\n".join(f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
    merges = "\n".join(f"x-{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40))
    assert mistakes(f"x-0: &a0 [1]\n{lists}") == ["c.yaml:1: nested too deeply, or an alias holds itself"]
    assert mistakes(f"x-0: &a0 {{b: 1}}\n{merges}") == ["c.yaml:1: nested too deeply, or an alias holds itself"]


class TestCycles:
    def graph(self, **dependencies: str) -> list[str]:
        lines = [f"  {name}: {{type: color/hsv, deps: [{deps}]}}" for name, deps in dependencies.items()]
        return mistakes("\n".join(["representations:", *lines]))

    def test_of_two(self) -> None:
        assert self.graph(a="b", b="a") == [
            "c.yaml:2: representations.a.deps[0]: the representations depend on each other in a cycle: a → b → a"
        ]

    def test_starts_at_the_first_of_the_file(self) -> None:
        assert self.graph(free="", c="a, free", a="free, b", b="c") == [
            "c.yaml:3: representations.c.deps[0]: the representations depend on each other in a cycle: c → a → b → c"
        ]

    def test_several(self) -> None:
        assert self.graph(a="b", b="a", c="d", d="c", e="e", f="a") == [
            "c.yaml:2: representations.a.deps[0]: the representations depend on each other in a cycle: a → b → a",
            "c.yaml:4: representations.c.deps[0]: the representations depend on each other in a cycle: c → d → c",
            "c.yaml:6: representations.e.deps[0]: 'e' depends on itself",
        ]

    def test_long_ones_do_not_overflow(self) -> None:
        names = [f"r{n}" for n in range(1500)]
        (mistake,) = self.graph(**dict(zip(names, [*names[1:], names[0]], strict=True)))
        assert mistake.endswith(" → ".join([*names, names[0]]))


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    text = """globals:
  batch_size: ten
  device: ${oc.env:NOPE}
representations:
  rgb:
    tpye: color/rgb
  hsv:
    type: color/hvs
    deps: [rgb, depth]
    images: jpeg
  a:
    type: edges/canny
    deps: [b]
  b:
    type: edges/canny
    deps: [a]
  hsv:
    type: color/hsv
"""
    assert mistakes(text) == [
        "c.yaml:2: globals.batch_size: expected a whole number from 1 to 1000000, got 'ten'",
        (
            "c.yaml:3: globals.device: the environment variable 'NOPE' is not set; set it, or give a default: "
            "${oc.env:NOPE,default}"
        ),
        "c.yaml:5: representations.rgb: 'type' is missing",
        "c.yaml:6: representations.rgb.tpye: unknown key (did you mean 'type'?)",
        "c.yaml:8: representations.hsv.type: unknown type 'color/hvs' (did you mean 'color/hsv'?)",
        "c.yaml:9: representations.hsv.deps[1]: there is no representation 'depth'; there are rgb, a, b",
        "c.yaml:10: representations.hsv.images: expected jpg, png or not-set, got 'jpeg' (did you mean 'jpg'?)",
        "c.yaml:13: representations.a.deps[0]: the representations depend on each other in a cycle: a → b → a",
        "c.yaml:17: representations.hsv: given twice, first on line 7",
    ]


def test_a_mistake_behind_an_alias_names_the_line_it_stands_on() -> None:
    text = "x-a: &a\n  type: color/rgb\n  batch_size: 0\nrepresentations:\n  one: *a\n  two: {<<: *a, batch_size: 1}\n"
    assert mistakes(text) == [
        "c.yaml:3: representations.one.batch_size: expected a whole number from 1 to 1000000, got 0",
    ]


def test_control_characters_do_not_reach_the_terminal() -> None:
    (mistake,) = mistakes('representations: {"\\e[31mred": {type: color/rgb}}')
    assert mistake.startswith("c.yaml:1: representations.'\\x1b[31mred': this name is not allowed")


class TestFiles:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(
            ConfigError, match=r"quickstrat: there is no such config \(did you mean 'quickstart'\?\)"
        ) as e:
            load_config("quickstrat")
        assert e.value.hint is not None
        assert "quickstart" in e.value.hint
        with pytest.raises(ConfigError, match=r"(?m)none\.yaml: there is no such config$"):
            load_config(tmp_path / "none.yaml")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="is a folder, not a config"):
            load_config(tmp_path)

    def test_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "a.yaml"
        path.write_bytes(b"a: 1\nb: \xff\xfe\n")
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        assert caught.value.mistakes == (f"{path}:2: not UTF-8 text (byte 0xff)",)

    def test_not_readable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "a.yaml"
        path.write_text("a: 1")

        def refuse(_: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read every file
        with pytest.raises(ConfigError, match=r"a\.yaml: cannot be read: Permission denied"):
            load_config(path)

    def test_mistakes_name_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.yaml"
        path.write_text("representations:\n  rgb: {type: color/rbg}\n")
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        assert caught.value.mistakes == (
            f"{path}:2: representations.rgb.type: unknown type 'color/rbg' (did you mean 'color/rgb'?)",
        )


class TestVeryLargeConfigs:
    def test_there_is_an_end_to_representations(self) -> None:
        text = "representations:\n" + "".join(f"  r{at}: {{type: x}}\n" for at in range(4097))
        assert mistakes(text) == ["c.yaml:1: representations: 4097 representations; a config has at most 4096"]

    def test_there_is_an_end_to_dependencies(self) -> None:
        names = [f"r{at}" for at in range(257)]
        lines = [f"  {name}: {{type: color/rgb}}\n" for name in names]
        text = f"representations:\n{''.join(lines)}  x: {{type: color/hsv, deps: [{', '.join(names)}]}}\n"
        assert mistakes(text) == [
            "c.yaml:259: representations.x.deps: 257 dependencies; a representation has at most 256"
        ]

    def test_there_is_an_end_to_values(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(document, "MAX_VALUES", 1000)
        assert mistakes(f"a: [{'1, ' * 1000}]") == ["c.yaml:1: more than 1000 values; a config has at most that many"]

    def test_there_is_an_end_to_the_text(self, tmp_path: Path) -> None:
        path = tmp_path / "c.yaml"
        path.write_text("# " + "x" * (1 << 20))
        with pytest.raises(ConfigError, match="larger than 1 MiB"):
            load_config(path)

    def test_many_unknown_names_are_all_told(self) -> None:
        text = "representations:\n" + "".join(f"  r{at}: {{type: color/rgb, deps: [s{at}0]}}\n" for at in range(1000))
        found = mistakes(text)  # with a suggestion for each, this takes ten seconds
        assert len(found) == 1000
        assert "(did you mean 'r90'?)" in found[9]
        assert "there is no representation 's9990'; there are r0, r1" in found[-1]

    def test_many_cycles_are_told_in_part(self) -> None:
        pairs = (
            f"  a{at}: {{type: color/hsv, deps: [b{at}]}}\n  b{at}: {{type: color/hsv, deps: [a{at}]}}\n"
            for at in range(500)
        )
        found = mistakes("representations:\n" + "".join(pairs))
        assert len(found) == 20
        assert found[0].endswith("in a cycle: a0 → b0 → a0")
