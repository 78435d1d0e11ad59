"""Finding codecs: names, options, stages, defaults, other packages."""

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from vrekit.cli.app import app
from vrekit.codecs import registry
from vrekit.codecs.base import Codec
from vrekit.codecs.pipeline import PipelineCodec
from vrekit.codecs.presets import PRESETS
from vrekit.codecs.profiles import PROFILES, TABLE, Choice, row_of
from vrekit.codecs.registry import clip_codec, codec_for, codec_from_config, codec_names, default_codec
from vrekit.codecs.stages.npy import Npy
from vrekit.core.errors import CodecError, UsageError
from vrekit.core.spec import Kind, OutputSpec


def spec(kind: Kind, dtype: str, shape: tuple[int | None, ...], axes: str, **options: Any) -> OutputSpec:
    return OutputSpec(kind=kind, dtype=dtype, shape=shape, axes=axes, **options)


RGB = spec(Kind.COLOR, "uint8", (9, 8, 3), "HWC", natural=True)
DEPTH = spec(Kind.DEPTH, "float32", (9, 8), "HW", value_range=(0.0, 1.0))
METRES = spec(Kind.DEPTH, "float32", (9, 8), "HW", unit="m")
FLOW = spec(Kind.FLOW, "float32", (9, 8, 2), "HWC", unit="px")
LOGITS = spec(Kind.LOGITS, "float32", (5, 9, 8), "CHW")


def test_listing_codecs_loads_none_of_them() -> None:
    code = (
        "import sys; from vrekit.codecs.registry import codec_names; assert 'jxl' in codec_names();"
        "heavy = {'imagecodecs', 'cv2', 'pcodec', 'torch', 'zstandard', 'simplejpeg', 'pyarrow'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_are_sorted_and_each_builds() -> None:
    assert list(codec_names()) == sorted(codec_names())
    assert list(PRESETS) == sorted(PRESETS)
    for name in codec_names():
        options = {"minimum": 0, "maximum": 1} if name.startswith(("u8", "u16")) else {}
        codec = codec_from_config({"id": name, **options})
        assert codec.id == name
        assert not codec.suffix.startswith(".")


@pytest.mark.parametrize("name", codec_names())
def test_is_exact_says_what_the_table_of_presets_says(name: str) -> None:
    options = {"minimum": 0, "maximum": 1} if name.startswith(("u8", "u16")) else {}
    codec = codec_from_config({"id": name, **options})
    assert codec.is_exact == (PRESETS[name].error.startswith("exact") if name in PRESETS else name == "txt")
    assert "exact" not in str(codec.config())


def test_options_and_one_way_stages_decide_whether_a_codec_is_exact() -> None:
    assert not codec_from_config({"id": "json.zst", "decimals": 3}).is_exact
    assert codec_for("npy.zst", LOGITS).is_exact
    assert not codec_for("npy.zst", LOGITS, store_as="indices").is_exact
    assert not codec_for("npy.zst", LOGITS, store_as="top-k").is_exact


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        ("gaplg-jls", "did you mean 'gaplog-jls'", "codecs: "),
        ({"id": "jpg", "qualty": 3}, "did you mean 'quality'", "subsampling"),
        ({"id": "jpg", "quality": "high"}, "jpg.quality is 'high', expected int", None),
        ({"id": "jpg", "quality": True}, "expected int", None),
        ({"id": "jpg", "quality": 0}, "expected 1..100", None),
        ({"id": "jxl", "effort": 3}, r"expected one of \(1, 2, 7\)", None),
        ({"id": "npy.zst", "level": 99}, "expected 1..22", None),
        ({"id": "u16-jxl"}, "needs the option 'minimum'", None),
        ({"id": "u16-jxl", "minimum": 1, "maximum": 0}, "is empty", None),
        ({"stages": ["npy", "dleta"]}, "did you mean 'delta'", "stages: "),
        ({"stages": ["npy", "delta"]}, "wrong order: npy → delta", "array → array"),
        ({"stages": ["zstd", "npy"]}, "wrong order", None),
        ({"stages": ["delta"]}, "exactly one array → bytes", None),
        ({"stages": ["npy", "jxl"]}, "exactly one array → bytes", None),
        ({"stages": ["planes", "indices", "npy"]}, "must come first", None),
        ({"stages": ["npy"], "level": 3}, "no option 'level'", "into its stage"),
        ({"stages": "npy"}, "expected a list", None),
        ({"level": 3}, "needs an 'id'", None),
        ({"id": ["png"]}, r"needs an 'id'.*\['png'\]", None),
        ({"id": 7, "stages": ["npy"]}, "the id of a codec is 7, expected text", None),
        ({"id": "jpg", "subsampling": 420}, "subsampling is 420, expected str", 'write "420"'),
        ({"id": "mm-delta", "step": "1e-3"}, "step is '1e-3', expected float", "write 0.001"),
    ],
)
def test_mistakes_are_named(config: Any, message: str, hint: str | None) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        codec_from_config(config)
    if hint:
        assert hint in (caught.value.hint or "")


def test_a_clip_codec_is_not_what_an_id_that_is_no_text_names() -> None:
    assert clip_codec({"id": ["png"]}) is None


def test_options_reach_their_stage_and_are_all_stored() -> None:
    codec = codec_from_config({"id": "mm-jxl", "step": 0.002, "effort": 7})
    assert codec.config() == {
        "id": "mm-jxl",
        "stages": [{"id": "step", "step": 0.002, "zero": 0}, {"id": "planes"}, {"id": "jxl", "effort": 7}],
    }
    assert repr(codec) == "mm-jxl: step → planes → jxl"


def test_own_pipelines_need_no_name() -> None:
    codec = codec_from_config({"stages": [{"id": "uniform", "minimum": 0, "maximum": 2}, "planes", "jls"]})
    assert codec.id == "uniform+planes+jls"
    assert codec_from_config(codec.config()) == codec


def test_the_spec_fills_in_what_options_leave_open() -> None:
    codec = codec_for("u16-delta", DEPTH)
    assert codec.config()["stages"][0] == {"id": "uniform", "minimum": 0.0, "maximum": 1.0, "bits": 16, "nan": True}
    explicit = codec_for({"id": "u16-delta", "maximum": 3.0}, DEPTH)
    assert explicit.config()["stages"][0]["maximum"] == 3.0
    assert codec_for("flow-delta", FLOW).config()["stages"][0] == {"id": "channels-first", "axis": 2}
    boxes = spec(Kind.BOXES, "float32", (None, 2), "KC", columns=("x", "y"))
    assert codec_for("json", boxes).config()["stages"][0]["columns"] == ["x", "y"]


def test_a_codec_that_cannot_hold_the_data_is_refused_at_once() -> None:
    with pytest.raises(CodecError, match=r"'jpg' takes uint8.*got float32 \(9, 8\)") as caught:
        codec_for("jpg", DEPTH)
    assert "quantiser" in (caught.value.hint or "")
    with pytest.raises(CodecError, match="booleans"):
        codec_for("coco-rle", RGB)
    with pytest.raises(CodecError, match="one str"):
        codec_for("txt", RGB)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("lossy", [None, False, True])
@pytest.mark.parametrize(
    "data",
    [
        RGB, DEPTH, METRES, FLOW, LOGITS,
        spec(Kind.COLOR, "uint8", (9, 8), "HW"),
        spec(Kind.COLOR, "uint8", (9, 8, 2), "HWC"),
        spec(Kind.COLOR, "float32", (9, 8, 3), "HWC"),
        spec(Kind.EDGES, "float32", (9, 8), "HW", value_range=(0.0, 1.0)),
        spec(Kind.EDGES, "float32", (9, 8), "HW"),
        spec(Kind.EDGES, "bool", (9, 8), "HW"),
        spec(Kind.DEPTH, "float32", (9, 8), "HW"),
        spec(Kind.DEPTH, "float16", (9, 8), "HW", unit="m", value_range=(0.0, 20.0)),
        spec(Kind.NORMALS, "float32", (9, 8, 3), "HWC"),
        spec(Kind.NORMALS, "float32", (3, 9, 8), "CHW"),
        spec(Kind.LOGITS, "float32", (9, 8, 5), "HWC"),
        spec(Kind.LOGITS, "float32", (5,), "C"),
        spec(Kind.PROBABILITIES, "float16", (5, 9, 8), "CHW"),
        spec(Kind.INDICES, "uint8", (9, 8), "HW"),
        spec(Kind.INDICES, "int64", (9, 8), "HW"),
        spec(Kind.MASK, "bool", (None, 9, 8), "KHW"),
        spec(Kind.MASK, "bool", (9,), "D"),
        spec(Kind.BOXES, "float32", (None, 4), "KC", unit="px"),
        spec(Kind.POINTS, "float32", (None, 2), "KC"),
        spec(Kind.TABLE, "float64", (3,), "D"),
        spec(Kind.EMBEDDING, "float32", (768,), "D"),
        spec(Kind.TEXT, "str", (), ""),
    ],
    ids=lambda data: f"{data.kind}-{data.dtype}-{data.axes}",
)  # fmt: skip
def test_every_kind_has_a_default_that_round_trips(profile: str, lossy: bool | None, data: OutputSpec) -> None:
    codec = default_codec(data, profile=profile, lossy=lossy)
    array = np.array("text") if data.kind is Kind.TEXT else np.zeros([n or 0 for n in data.shape], data.dtype)
    if data.kind is Kind.PROBABILITIES and data.shape:
        array = array + array.dtype.type(1 / 5)
    decoded = codec_from_config(codec.config()).decode(codec.encode(array), dtype=array.dtype, shape=array.shape)
    assert decoded.shape == array.shape
    if data.kind is Kind.TEXT:
        assert decoded.item() == "text"
    else:  # scores that all tie come back with one winner
        np.testing.assert_allclose(
            decoded, array, atol=0.03 if data.kind in (Kind.LOGITS, Kind.PROBABILITIES) else 2e-3
        )
    if lossy is False and isinstance(codec, PipelineCodec):
        exact = {"channels-first", "npy", "zstd", "pco", "green", "delta", "byteplanes", "jxl", "planes", "packbits"}
        assert {stage.id for stage in codec.stages} <= exact | {"json", "coco-rle", "png"}


def test_defaults_follow_profile_and_data() -> None:
    assert default_codec(RGB).id == "jxl"
    assert default_codec(RGB, profile="training").id == "jpg"
    assert default_codec(RGB, profile="training", lossy=False).id == "rgb-delta"
    assert default_codec(DEPTH).id == "u16-delta"
    assert default_codec(METRES).id == "log-delta"
    near = spec(Kind.DEPTH, "float32", (9, 8), "HW", unit="m", value_range=(0.0, 20.0))
    assert default_codec(near).id == "mm-delta"
    assert default_codec(spec(Kind.DEPTH, "float32", (9, 8), "HW")).id == "pco"
    assert codec_for(None, FLOW).id == "flow-delta"
    assert codec_for("lossless", FLOW).id == "pco"
    assert codec_for("lossy", RGB).id == "jpg"
    assert codec_for(None, LOGITS, store_as="indices").id == "indices-npy.zst"
    with pytest.raises(UsageError, match="did you mean 'training'"):
        default_codec(RGB, profile="trainig")


def test_the_table_has_every_profile_and_known_codecs() -> None:
    for row, choices in TABLE.items():
        assert tuple(sorted(choices)) == PROFILES, row
        for choice in choices.values():
            assert isinstance(choice, Choice)
            for option in (choice.lossless, choice.lossy):
                name = option if isinstance(option, str) or option is None else option["id"]
                assert name is None or name in codec_names()
    assert row_of(RGB) == "color uint8"


@dataclass(frozen=True)
class Reversed(Codec):
    """A codec as another package would write it."""

    times: int = 1

    @property
    def id(self) -> str:
        return "reversed"

    @property
    def suffix(self) -> str:
        return "rev"

    def config(self) -> dict[str, Any]:
        return {"id": "reversed", "times": self.times}

    def encode(self, array: np.ndarray[Any, Any]) -> bytes:
        return array.tobytes()[::-1]

    def decode(self, data: Any, *, dtype: Any, shape: Any, out: Any = None) -> Any:
        result = np.frombuffer(bytes(data)[::-1], dtype).reshape(shape)
        if out is None:
            return result.copy()
        out[...] = result
        return out


class Bare(Npy):
    """A stage as another package would write it."""

    id = "bare"


def test_other_packages_add_codecs_and_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {
        "vrekit.codecs": [EntryPoint("reversed", f"{__name__}:Reversed", "vrekit.codecs")],
        "vrekit.codec_stages": [EntryPoint("bare", f"{__name__}:Bare", "vrekit.codec_stages")],
    }
    monkeypatch.setattr("vrekit.core.registry.entry_points", lambda group: points[group])
    for known in (registry.CODECS, registry.STAGES):
        monkeypatch.setattr(known, "_outside", None)
    assert "reversed" in codec_names()
    codec = codec_from_config({"id": "reversed", "times": 2})
    assert codec.config() == {"id": "reversed", "times": 2}
    array = np.arange(5.0)
    assert np.array_equal(codec.decode(codec.encode(array), dtype=array.dtype, shape=array.shape), array)
    with pytest.raises(UsageError, match="does not go together"):
        codec_for("reversed", LOGITS, store_as="indices")
    assert codec_from_config({"stages": ["bare", "zstd"]}).encode(array)[:4] == b"\x28\xb5\x2f\xfd"
    listed = json.loads(CliRunner().invoke(app, ["list", "codecs", "--json"]).stdout)
    (row,) = [row for row in listed if row["codec"] == "reversed"]
    assert (row["largest error"], row["what"]) == ("not exact", "A codec as another package would write it.")


@pytest.mark.parametrize("config", [["png"], [1, 2], 5, True, {5: 6, "id": "png"}])
def test_what_is_no_config_at_all_is_named(config: Any) -> None:
    with pytest.raises(UsageError, match=r"codec|option"):
        codec_from_config(config)


@pytest.mark.parametrize("config", [["png"], 5, True])
def test_what_is_no_config_at_all_names_no_clip_codec(config: Any) -> None:
    assert clip_codec(config) is None


def test_a_stage_that_another_package_has_is_hinted_at() -> None:
    with pytest.raises(UsageError) as caught:
        codec_from_config({"stages": ["npy", "their-packer"]})
    assert "other packages add more" in str(caught.value.hint)
