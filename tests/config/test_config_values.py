from pathlib import Path

import pytest

from vrekit.config.loader import DEFAULT_BATCH_SIZE, ExportConfig, load_config, parse_config, shipped_configs
from vrekit.core.spec import RepresentationSpec


def parse(text: str, **environ: str) -> ExportConfig:
    return parse_config(text, source="c.yaml", environ=environ)


def only(text: str, **environ: str) -> RepresentationSpec:
    (spec,) = parse(text, **environ).representations
    return spec


def test_short_form_with_every_key() -> None:
    config = parse("""
globals: {batch_size: 10, device: cuda, codec: npy, output_size: [480, 640], output_dtype: float32, images: jpg}
representations:
  rgb: {type: color/rgb}
  canny:
    type: edges/canny
    deps: [rgb]
    params: {threshold1: 100, nested: {a: [1, 2.5, null, x]}}
    batch_size: 4
    device: cuda:1
    dtype: bfloat16
    store: true
    store_as: probabilities
    codec: {id: png, level: 3}
    output_size: native
    output_dtype: float16
    images: png
""")
    assert config.batch_size == 10
    assert config.source == "c.yaml"
    assert config.folder is None
    assert config.representations == (
        RepresentationSpec(
            name="rgb",
            type="color/rgb",
            device="cuda",
            codec="npy",
            output_size=(480, 640),
            output_dtype="float32",
            images="jpg",
        ),
        RepresentationSpec(
            name="canny",
            type="edges/canny",
            params={"threshold1": 100, "nested": {"a": [1, 2.5, None, "x"]}},
            dependencies=("rgb",),
            batch_size=4,
            device="cuda:1",
            compute_dtype="bfloat16",
            store_as="probabilities",
            codec={"id": "png", "level": 3},
            output_dtype="float16",
            images="png",
        ),
    )


def test_the_shortest_config_takes_the_defaults() -> None:
    config = parse("representations: {rgb: {type: color/rgb}}")
    assert config.representations == (RepresentationSpec(name="rgb", type="color/rgb"),)
    assert config.batch_size == DEFAULT_BATCH_SIZE


def test_order_is_that_of_the_file_not_of_the_dependencies() -> None:
    config = parse("representations: {hsv: {type: color/hsv, deps: [rgb]}, rgb: {type: color/rgb}}")
    assert [spec.name for spec in config.representations] == ["hsv", "rgb"]


@pytest.mark.parametrize("key", ["deps", "dependencies"])
def test_dependencies_have_two_spellings(key: str) -> None:
    config = parse(f"representations: {{rgb: {{type: color/rgb}}, hsv: {{type: color/hsv, {key}: [rgb]}}}}")
    assert config.representations[1].dependencies == ("rgb",)


@pytest.mark.parametrize("key", ["params", "parameters"])
def test_params_have_two_spellings(key: str) -> None:
    assert only(f"representations: {{canny: {{type: edges/canny, {key}: {{threshold1: 5}}}}}}").params == {
        "threshold1": 5
    }


def test_keys_without_a_value_count_as_not_given() -> None:
    spec = only("representations: {rgb: {type: color/rgb, deps: , params: , batch_size: , device: , store: , codec: }}")
    assert spec == RepresentationSpec(name="rgb", type="color/rgb")


def test_a_representation_can_undo_a_global() -> None:
    spec = only(
        "globals: {images: jpg, codec: npy, output_size: [1, 2], output_dtype: uint8, device: cuda}\n"
        "representations: {rgb: {type: color/rgb, images: not-set, codec: null, output_size: native,"
        " output_dtype: not-set, device: null}}"
    )
    assert spec == RepresentationSpec(name="rgb", type="color/rgb")


@pytest.mark.parametrize("kind", ["package.module:Class", "mine.py:Invert", "../some folder/mine.py:Invert"])
def test_classes_elsewhere_are_accepted_as_they_are(kind: str) -> None:
    assert only(f'representations: {{x: {{type: "{kind}"}}}}').type == kind


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("5", 5),
        ("-07", -7),
        ("0x1f", 31),
        ("0o17", 15),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("True", True),
        ("null", None),
        ("~", None),
        ("yes", "yes"),
        ("no", "no"),
        ("47429163_0", "47429163_0"),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ('"5"', "5"),
        ("!!str 5", "5"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert only(f"representations:\n  x:\n    type: a:B\n    params:\n      v: {text}").params == {"v": value}


def test_names_are_text_whatever_they_look_like() -> None:
    config = parse("representations:\n  5: {type: color/rgb}\n  no: {type: color/hsv, deps: ['5']}\n")
    assert [spec.name for spec in config.representations] == ["5", "no"]


def test_anchors_aliases_and_merge_keys() -> None:
    config = parse("""
x-base: &base {type: edges/canny, batch_size: 3, params: &params {threshold1: 1, threshold2: 2}}
x-other: &other {batch_size: 9, device: cuda}
representations:
  a: {<<: *base}
  b: {<<: [*base, *other], params: {<<: *params, threshold2: 7}}
  c: {batch_size: 1, <<: *base, params: *params}
""")
    a, b, c = config.representations
    assert (a.type, a.batch_size, a.params) == ("edges/canny", 3, {"threshold1": 1, "threshold2": 2})
    assert (b.batch_size, b.device, b.params) == (3, "cuda", {"threshold1": 1, "threshold2": 7})
    assert (c.batch_size, c.params) == (1, {"threshold1": 1, "threshold2": 2})


class TestInterpolation:
    @pytest.mark.parametrize(
        ("expression", "environ", "device"),
        [
            ("${oc.env:D}", {"D": "cuda"}, "cuda"),
            ("${oc.env:D,cpu}", {}, "cpu"),
            ("${oc.env:D, cpu }", {}, "cpu"),
            ("${oc.env:D,cpu}", {"D": "cuda:1"}, "cuda:1"),
            ("${oc.env:D,${oc.env:E,mps}}", {}, "mps"),
            ("${oc.env:D,${oc.env:E,mps}}", {"E": "xpu"}, "xpu"),
            ("cuda:${oc.env:D,0}", {"D": "3"}, "cuda:3"),
            ("'${oc.env:D,cpu}'", {}, "cpu"),
            ("${oc.env:D,}", {}, "cpu"),
        ],
    )
    def test_variables(self, expression: str, environ: dict[str, str], device: str) -> None:
        block = f"representations:\n  rgb:\n    type: color/rgb\n    device: {expression}"
        flow = f"representations: {{rgb: {{device: {expression}, type: color/rgb}}}}"
        assert only(block, **environ).device == only(flow, **environ).device == device

    @pytest.mark.parametrize(
        ("expression", "value", "expected"),
        [
            ("${oc.decode:${oc.env:V}}", "False", False),
            ("${oc.decode:${oc.env:V}}", "[540, 960]", [540, 960]),
            ("${oc.decode:${oc.env:V}}", '"[540,960]"', [540, 960]),
            ("'${oc.decode:${oc.env:V}}'", "{a: 1}", {"a": 1}),
            ("${oc.env:V}", "12", 12),
            ("'${oc.env:V}'", "12", "12"),
            ("${oc.env:V}", "[a, 2]", ["a", 2]),
            ("${oc.env:V}", "a: b", "a: b"),
            ("${oc.env:V}", "${oc.env:V}", "${oc.env:V}"),
            ("${oc.env:W,[a,b]}", "", ["a", "b"]),
            ('${oc.env:W,"[a,b]"}', "", "[a,b]"),
            ("${oc.decode:${oc.env:W,['a','b']}}", "", ["a", "b"]),
            ('${oc.decode:${oc.env:W,"[540,960]"}}', "", [540, 960]),
            ("${oc.decode:${oc.env:W,{a: 1}}}", "", {"a": 1}),
        ],
    )
    def test_types_of_values(self, expression: str, value: str, expected: object) -> None:
        text = f"representations:\n  x:\n    type: a:B\n    params:\n      v: {expression}"
        assert only(text, V=value).params == {"v": expected}

    def test_comments_are_not_looked_at(self) -> None:
        assert (
            only("# ${oc.env:NOT_SET} ${unclosed\nrepresentations: {rgb: {type: color/rgb}} # ${oc.env:NO}").name
            == "rgb"
        )

    def test_keys_and_dependencies_may_hold_variables(self) -> None:
        config = parse(
            "representations: {d_${oc.env:M}: {type: a:B}, n: {type: normals/svd, deps: ['d_${oc.env:M}']}}", M="x"
        )
        assert config.representations[1].dependencies == ("d_x",)

    def test_the_environment_of_the_process_is_the_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VREKIT_TEST_DEVICE", "cuda:2")
        config = parse_config("representations: {rgb: {type: color/rgb, device: ${oc.env:VREKIT_TEST_DEVICE}}}")
        assert config.representations[0].device == "cuda:2"


class TestPosition:
    TEXT = """globals:
  device: cuda
default_io_parameters:
  image_format: png
representations:
  rgb:
    type: color/rgb
  hsv:
    type: color/hsv
    deps:
      - rgb
    parameters:
      a:
        b: 1
"""

    @pytest.mark.parametrize(
        ("name", "keys", "line"),
        [
            ("rgb", (), 6),
            ("rgb", ("type",), 7),
            ("rgb", ("params", "x"), 6),
            ("hsv", ("dependencies",), 10),
            ("hsv", ("dependencies", 0), 11),
            ("hsv", ("params",), 12),
            ("hsv", ("params", "a"), 13),
            ("hsv", ("params", "a", "b"), 14),
            ("hsv", ("params", "other"), 12),
            ("hsv", ("device",), 2),
            ("hsv", ("images",), 4),
            ("nothing", (), 5),
        ],
    )
    def test_names_the_line(self, name: str, keys: tuple[str | int, ...], line: int) -> None:
        assert parse(self.TEXT).position(name, *keys) == f"c.yaml:{line}"


class TestFiles:
    def test_reads_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.yaml"
        path.write_bytes(b"\xef\xbb\xbfrepresentations:\r\n  rgb:\r\n    type: color/rgb\r\n")
        config = load_config(path, environ={})
        assert config.folder == tmp_path.resolve()
        assert config.source == str(path)
        assert config.position("rgb", "type") == f"{path}:3"

    def test_a_file_wins_over_a_shipped_config_of_that_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("configs").mkdir()
        Path("configs/quickstart.yaml").write_text("representations: {mine: {type: color/rgb}}")
        assert [spec.name for spec in load_config("configs/quickstart.yaml").representations] == ["mine"]
        assert len(load_config("quickstart").representations) == 5

    def test_shipped_configs_are_described(self) -> None:
        shipped = shipped_configs()
        assert set(shipped) >= {"cpu", "quickstart", "template", "vre_rgb_hsv"}
        assert all(20 < len(line) < 110 and line.endswith(".") for line in shipped.values())

    @pytest.mark.parametrize("form", ["{}", "{}.yaml", "configs/{}.yaml", "./configs/{}.yaml"])
    @pytest.mark.parametrize("name", sorted(shipped_configs()))
    def test_shipped_configs_load_from_anywhere(
        self, name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        config = load_config(form.format(name), environ={})
        assert config.source == f"configs/{name}.yaml"
        assert config.folder is None
        assert config.representations[0].name == "rgb"

    def test_quickstart_is_what_the_readme_says(self) -> None:
        config = load_config("quickstart", environ={})
        assert [(spec.name, spec.type, spec.store) for spec in config.representations] == [
            ("rgb", "color/rgb", True),
            ("hsv", "color/hsv", False),
            ("canny", "edges/canny", True),
            ("flow", "flow/dis", True),
            ("halftone", "soft-segmentation/halftone", True),
        ]

    def test_the_paper_pair_takes_its_settings_from_the_environment(self) -> None:
        config = load_config("vre_rgb_hsv", environ={"BATCH_SIZE": "5", "IMAGE_FORMAT": "jpg"})
        assert config.batch_size == 5
        assert [spec.images for spec in config.representations] == ["jpg", "jpg"]


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_shipped_configs_fit_their_types_and_codecs(name: str) -> None:
    from vrekit.codecs.registry import codec_from_config
    from vrekit.representations.parameters import build
    from vrekit.representations.registry import REPRESENTATIONS

    for spec in load_config(name, environ={}).representations:
        representation = build(REPRESENTATIONS.load(spec.type), spec.params, spec.name)
        for parameter, value in spec.params.items():
            assert getattr(representation, parameter) == (tuple(value) if isinstance(value, list) else value)
        if spec.codec is not None:
            assert codec_from_config(spec.codec).id == spec.codec
