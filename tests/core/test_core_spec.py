"""Specs survive a trip through JSON, and their digests depend on what they say, not on how."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.spec import Kind, OutputSpec, RepresentationSpec, canonical_json, digest

words = st.text("abcdefgh-_ é", max_size=6)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
names = st.from_regex(r"[a-z][a-z0-9_()+\-]{0,8}", fullmatch=True)


@st.composite
def output_specs(draw: st.DrawFn) -> OutputSpec:
    shape = tuple(draw(st.lists(st.none() | st.integers(0, 5), max_size=4)))
    triple = st.tuples(*[st.integers(0, 255)] * 3)
    floats = st.floats(allow_nan=False)
    return OutputSpec(
        kind=draw(st.sampled_from(list(Kind))),
        dtype=draw(st.sampled_from(["uint8", "float16", "float32", "str"])),
        shape=shape,
        axes="".join(draw(st.sampled_from("HWCKD")) for _ in shape),
        value_range=draw(st.none() | st.tuples(floats, floats)),
        unit=draw(st.none() | st.just("m")),
        classes=draw(st.none() | st.lists(words, max_size=3).map(tuple)),
        color_map=draw(st.none() | st.lists(triple, max_size=3).map(tuple)),
        columns=draw(st.none() | st.lists(words, max_size=3).map(tuple)),
        invalid_value=draw(st.none() | floats | st.just("nan")),
        description=draw(words),
    )


@st.composite
def representation_specs(draw: st.DrawFn) -> RepresentationSpec:
    return RepresentationSpec(
        name=draw(names),
        type=draw(words),
        params=draw(st.dictionaries(words, plain, max_size=3)),
        dependencies=tuple(draw(st.lists(names, max_size=3))),
        batch_size=draw(st.none() | st.integers(1, 64)),
        store=draw(st.booleans()),
        codec=draw(st.none() | st.just("png") | st.dictionaries(words, plain, max_size=2)),
        output_size=draw(st.none() | st.tuples(st.integers(1, 9), st.integers(1, 9))),
        output_dtype=draw(st.none() | st.just("float16")),
        images=draw(st.none() | st.just("jpg")),
    )


@given(output_specs())
def test_output_specs_survive_json(spec: OutputSpec) -> None:
    assert OutputSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@given(representation_specs())
def test_representation_specs_survive_json(spec: RepresentationSpec) -> None:
    again = RepresentationSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert digest(again.identity()) == digest(spec.identity())


def test_keys_of_newer_versions_are_ignored() -> None:
    spec = OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(2, 3), axes="HW")
    assert OutputSpec.from_json(spec.to_json() | {"invented_later": 1}) == spec
    one = RepresentationSpec(name="rgb", type="color/rgb")
    assert RepresentationSpec.from_json(one.to_json() | {"invented_later": 1}) == one


def test_axes_name_the_shape() -> None:
    spec = OutputSpec(kind=Kind.BOXES, dtype="float32", shape=(None, 5), axes="KC")
    assert spec.is_ragged
    assert (spec.size_of("C"), spec.size_of("K"), spec.size_of("H")) == (5, None, None)
    with pytest.raises(ValueError, match="does not name the axes"):
        OutputSpec(kind=Kind.DEPTH, dtype="float32", shape=(2, 3), axes="H")


@pytest.mark.parametrize("name", ["../evil", "a.image.image", ".image", "a.b"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        RepresentationSpec(name=name, type="color/rgb")


def test_pictures_are_the_only_names_with_a_dot() -> None:
    assert RepresentationSpec(name="canny.image", type="image").name == "canny.image"


@given(st.dictionaries(words, plain, max_size=4))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert digest(dict(reversed(value.items()))) == digest(value)
    assert json.loads(canonical_json(value)) == value


def test_digests_tell_values_apart() -> None:
    assert digest({"a": 1}) != digest({"a": "1"})
    assert digest({"a": 1}) == "015abd7f5cc57a2d"  # SHA-256 of {"a":1}: the format's, forever
    assert digest((1, 2)) == digest([1, 2])
    with pytest.raises(TypeError, match="object"):
        digest(object())


def test_how_it_is_run_does_not_count() -> None:
    spec = RepresentationSpec(name="x", type="t", params={"a": 1})
    same = spec.with_options(batch_size=3, device="cuda:1", images="jpg")
    assert spec.identity() == same.identity()
    assert spec.identity() != spec.with_options(params={"a": 2}).identity()


def test_the_number_of_dependencies_is_bounded() -> None:
    names = tuple(f"r{at}" for at in range(257))
    spec = RepresentationSpec(name="x", type="t", dependencies=names[1:])
    assert RepresentationSpec.from_json(spec.to_json()) == spec
    with pytest.raises(UsageError, match="x: 257 dependencies, expected at most 256"):
        RepresentationSpec(name="x", type="t", dependencies=names)
    with pytest.raises(DatasetError, match=r"'dependencies' .*at most 256"):
        RepresentationSpec.from_json(spec.to_json() | {"dependencies": names})
