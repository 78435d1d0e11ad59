"""Configs in the words of upstream VRE (video-representations-extractor 1.18)."""

import pytest

from vrekit.config.loader import DEFAULT_BATCH_SIZE, ExportConfig, parse_config
from vrekit.core.errors import ConfigError
from vrekit.core.spec import RepresentationSpec

FLIGHT = """
default_compute_parameters:
  batch_size: 6

default_io_parameters:
  binary_format: npz
  image_format: ${oc.env:PICTURES,not-set}
  compress: ${oc.decode:${oc.env:COMPRESS,True}}
  output_size: ${oc.decode:${oc.env:SIZE,"[270,480]"}}

default_learned_parameters:
  device: ${oc.env:VRE_DEVICE,cpu}

representations:
  rgb:
    type: color/rgb
    dependencies: []
    parameters: {}
    compute_parameters:
      batch_size: 2

  hsv:
    type: color/hsv
    dependencies: [rgb]
    parameters: {}

  edges:
    type: edges/canny
    dependencies: []
    parameters:
      threshold1: 80
      threshold2: 160
      aperture_size: 3
      l2_gradient: True
    io_parameters:
      output_dtype: uint8
      image_format: png
      output_size: native

  dots(coarse):
    type: soft-segmentation/python-halftone
    dependencies: []
    parameters:
      sample: 4
      angles: [0, 10, 20, 30]
      antialias: False

  normals(range):
    type: normals/depth-svd
    dependencies: [range]
    parameters:
      sensor_fov: 70
      window_size: 9
    io_parameters:
      output_dtype: float16

  range:
    type: mine.py:Range
    dependencies: []
    parameters: {}
    learned_parameters:
      device: cuda:1
"""


def parse(text: str, **environ: str) -> ExportConfig:
    return parse_config(text, source="vre.yaml", environ=environ)


def test_every_key_has_its_meaning() -> None:
    config = parse(FLIGHT)
    size = (270, 480)
    assert config.batch_size == 6
    assert config.representations == (
        RepresentationSpec(name="rgb", type="color/rgb", batch_size=2, output_size=size),
        RepresentationSpec(name="hsv", type="color/hsv", dependencies=("rgb",), output_size=size),
        RepresentationSpec(
            name="edges",
            type="edges/canny",
            params={"threshold1": 80, "threshold2": 160, "aperture_size": 3, "l2_gradient": True},
            output_dtype="uint8",
            images="png",
        ),
        RepresentationSpec(
            name="dots(coarse)",
            type="soft-segmentation/halftone",
            params={"sample": 4, "angles": [0, 10, 20, 30], "antialias": False},
            output_size=size,
        ),
        RepresentationSpec(
            name="normals(range)",
            type="normals/svd",
            params={"sensor_fov": 70, "window_size": 9},
            dependencies=("range",),
            output_size=size,
            output_dtype="float16",
        ),
        RepresentationSpec(name="range", type="mine.py:Range", device="cuda:1", output_size=size),
    )


def test_the_environment_decides() -> None:
    config = parse(FLIGHT, PICTURES="jpg", COMPRESS="False", SIZE="[54, 96]", VRE_DEVICE="cuda")
    hsv = config.representations[1]
    assert (hsv.images, hsv.codec, hsv.output_size, hsv.device) == ("jpg", None, (54, 96), "cuda")


def test_without_a_batch_size_ours_is_taken() -> None:
    assert parse("representations: {rgb: {type: color/rgb, dependencies: [], parameters: {}}}").batch_size == (
        DEFAULT_BATCH_SIZE
    )


@pytest.mark.parametrize(
    ("defaults", "own", "codec"),
    [
        ("binary_format: npz, compress: True", "", None),
        ("binary_format: npz, compress: False", "", None),
        ("binary_format: npy, compress: False", "", "npy"),
        ("binary_format: npy, compress: True", "", None),
        ("binary_format: npy", "", "npy"),
        ("binary_format: not-set, compress: False", "", None),
        ("binary_format: npy, compress: True", "io_parameters: {compress: False}", "npy"),
        ("compress: False", "io_parameters: {binary_format: npy}", "npy"),
        ("binary_format: npy", "io_parameters: {binary_format: npz}", None),
        ("binary_format: npy", "codec: npy.zst", "npy.zst"),
        ("binary_format: npy", "codec: null", None),
    ],
)
def test_binary_formats_become_codecs_where_they_say_something(defaults: str, own: str, codec: str | None) -> None:
    text = f"default_io_parameters: {{{defaults}}}\nrepresentations:\n  rgb: {{type: color/rgb, {own}}}\n"
    assert parse(text).representations[0].codec == codec


@pytest.mark.parametrize(
    "kind",
    [
        "depth/dpt",
        "depth/marigold",
        "edges/dexined",
        "optical-flow/raft",
        "optical-flow/rife",
        "semantic-segmentation/mask2former",
        "semantic-segmentation/safeuav",
        "soft-segmentation/fastsam",
    ],
)
def test_types_that_are_not_here_yet_are_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrekit.config.loader.REPRESENTATIONS", ["color/rgb"])
    with pytest.raises(ConfigError) as caught:
        parse(f"representations:\n  a:\n    type: {kind}\n    dependencies: []\n    parameters: {{}}\n")
    assert caught.value.mistakes == (f"vre.yaml:3: representations.a.type: vrekit does not have VRE's {kind!r} yet",)


def test_types_get_our_names_once_they_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrekit.config.loader.REPRESENTATIONS", ["flow/raft"])
    config = parse("representations: {flow: {type: optical-flow/raft, dependencies: [], parameters: {}}}")
    assert config.representations[0].type == "flow/raft"


def test_both_words_for_one_thing_are_a_mistake() -> None:
    text = """default_learned_parameters: {device: cpu}
globals: {device: cuda}
representations:
  rgb:
    type: color/rgb
    params: {}
    parameters: {}
    io_parameters: {output_size: [1, 1], image_format: png, binary_format: npy}
    codec: npy
    images: png
    output_size: native
    batch_size: 1
    compute_parameters: {batch_size: 2}
    device: cpu
    learned_parameters: {device: cpu}
"""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    where = "representations.rgb"
    assert list(caught.value.mistakes) == [
        "vre.yaml:1: default_learned_parameters.device: means the same as 'globals.device' (line 2); give one of them",
        f"vre.yaml:7: {where}.parameters: means the same as 'params' (line 6); give one of them",
        f"vre.yaml:8: {where}.io_parameters.output_size: means the same as 'output_size' (line 11); give one of them",
        f"vre.yaml:8: {where}.io_parameters.image_format: means the same as 'images' (line 10); give one of them",
        f"vre.yaml:8: {where}.io_parameters.binary_format: means the same as 'codec' (line 9); give one of them",
        (
            f"vre.yaml:13: {where}.compute_parameters.batch_size: means the same as 'batch_size' (line 12); "
            "give one of them"
        ),
        f"vre.yaml:15: {where}.learned_parameters.device: means the same as 'device' (line 14); give one of them",
    ]
