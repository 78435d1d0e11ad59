"""JSON files with a checksum: every flipped bit is found, and untrusted text gives one clear error."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from vrekit.core.documents import MAX_DEPTH, Fields, Rule, document_bytes, parse_document, read_document
from vrekit.core.errors import DatasetError

DATA = {"name": "Fähre 🚢", "list": [1, 2.5, None, True], "inside": {"checksum": "of something else"}}


def test_it_survives_the_file_and_any_tool_can_read_it(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(document_bytes(DATA))
    document = read_document(tmp_path / "a.json")
    assert document.is_protected
    assert document.fields.raw() == DATA
    assert list(json.loads((tmp_path / "a.json").read_text()))[-1] == "checksum"
    assert document_bytes(DATA) == document_bytes(dict(DATA))


def test_every_flipped_bit_is_found_or_changes_nothing() -> None:
    text = document_bytes(DATA)
    for at in range(8 * len(text)):
        flipped = bytearray(text)
        flipped[at // 8] ^= 1 << at % 8
        try:
            document = parse_document(bytes(flipped), "a.json")
        except DatasetError:
            continue
        # a flip in the key itself leaves a file without a checksum, and with a key that nobody knows
        assert document.is_protected or len(list(document.fields)) == len(DATA) + 1
        assert document.fields.raw().items() >= DATA.items()


def test_without_its_checksum_it_may_be_edited() -> None:
    text = document_bytes(DATA).decode()
    edited = text[: text.rindex(",\n")].replace("Fähre", "ferry") + "\n}"
    document = parse_document(edited.encode(), "a.json")
    assert not document.is_protected
    assert document.fields.text("name") == "ferry 🚢"
    with pytest.raises(DatasetError, match="do not give its checksum") as caught:
        parse_document(text.replace("Fähre", "ferry").encode(), "a.json")
    assert 'delete its line "checksum"' in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "Expecting value"),
        (b"[1]", "it holds a list, not an object"),
        (b"null", "it holds null, not an object"),
        (b'{"a": 1', "delimiter"),
        (b'{"a": "\xff"}', "can't decode"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"\\udfff": 1}', "surrogates not allowed"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": 18446744073709551616}', "an integer beyond 64 bits"),
        (b'{"a": -9223372036854775809}', "an integer beyond 64 bits"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested"),
        (b'{"a":' * 66 + b"1" + b"}" * 66, f"nested deeper than {MAX_DEPTH} levels"),
        (b'{"a": [' + b"[]," * (1 << 23) + b"1]}", "more than 8388608 values"),
        (b'{"checksum": 5}', "its checksum cannot be read"),
        (b'{"checksum": "crc32:00000000", "a": 1}', "its checksum cannot be read"),
        (b'{"checksum": "crc32:00000000"}', "do not give its checksum"),
    ],
)
def test_damage_is_named(text: bytes, problem: str) -> None:
    with pytest.raises(DatasetError, match=r"a\.json is damaged") as caught:
        parse_document(text, "a.json")
    assert problem in caught.value.message


def test_what_could_not_be_read_back_is_not_written() -> None:
    nested: object = 1
    for _ in range(MAX_DEPTH + 1):
        nested = [nested]
    for data in ({"a": nested}, {"a": 2**64}):
        with pytest.raises(DatasetError, match=r"a.json cannot be written"):
            document_bytes(data, "a.json")


def test_fields_check_types_and_ranges() -> None:
    fields = Fields({"one": 1, "true": True, "nan": float("nan"), "text": "x", "null": None, "list": [1, True]}, "a")
    assert fields.integer("one", low=1, high=1) == 1
    assert fields.number("one") == 1
    assert fields.integer("absent", 7) == 7
    assert fields.integer("null", None) is None
    assert fields.text("text", max_length=1) == "x"
    assert fields.list_of("absent", []) == []
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: fields.integer("true"), "'true' is True, expected an integer"),
        (lambda: fields.integer("one", low=2), "'one' is 1, expected an integer from 2"),
        (lambda: fields.integer("null", 7), "'null' is null, expected an integer"),
        (lambda: fields.integer("absent"), "'absent' is missing, expected an integer"),
        (lambda: fields.number("nan"), "'nan' is nan, expected a finite number"),
        (lambda: fields.number("true"), "'true' is True"),
        (lambda: fields.text("one"), "'one' is 1, expected text"),
        (lambda: fields.text("text", max_length=0), "expected text of at most 0 characters"),
        (lambda: fields.choice("text", ("a", "b")), "'text' is 'x', expected 'a' or 'b'"),
        (lambda: fields.flag("one"), "'one' is 1, expected true or false"),
        (lambda: fields.items("list", kind=int), "'list' is a list, expected a list of integers"),
        (lambda: fields.fields("list"), "'list' is a list, expected an object"),
    ]
    for access, problem in cases:
        with pytest.raises(DatasetError) as caught:
            access()
        assert caught.value.message.startswith("a is damaged: ")
        assert problem in caught.value.message


@pytest.mark.parametrize(
    "rule",
    [
        Rule.text(),
        Rule.text(None, max_length=3),
        Rule.integer(low=1, high=9),
        Rule.number(None, low=0),
        Rule.number(),
        Rule.number(0.0),
        Rule.flag(None),
    ],
)
def test_values_checked_together_are_those_that_are_right_one_by_one(rule: Rule) -> None:
    odd: list[object] = [
        None,
        True,
        False,
        0,
        1,
        1.0,
        10,
        -1,
        2**53 + 1,
        0.5,
        1e300,
        float("nan"),
        float("inf"),
        "",
        "abc",
        "abcd",
        [],
        {},
    ]
    for first in odd:
        for second in odd:
            data = {"all": {"x": {"key": first}, "y": {"key": second}, "z": {"key": first, "other": 1}, "none": {}}}
            fields = Fields(data, "the file")
            together = _result(partial(fields.records, "all", {"key": rule}))
            assert together == _result(partial(_one_by_one, fields, {"key": rule}))


def _one_by_one(fields: Fields, rules: dict[str, Rule]) -> dict[str, object]:
    return {name: one.record(rules) for name, one in fields.each("all").items()}


def _result(call: Callable[[], object]) -> str:
    try:
        return repr(call())
    except DatasetError as error:
        return error.message
