"""What recovery makes of a journal that is damaged, of an earlier version, or made up by somebody."""

import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.writer_cells import CELL, WRITERS, expected_payloads, make_writer, stored_payloads, write_missing
from vrekit.catalog.cells import Cell
from vrekit.core.schema import SAMPLES_SCHEMA
from vrekit.writers import journal, journal_lines
from vrekit.writers.journal import OpenShard
from vrekit.writers.journal_lines import make_line, parse_line

SMALL = Cell("car", "all", 0, 7)


def row(frame: int, **changes: Any) -> dict[str, Any]:
    data = payload(frame)
    whole = {
        "video_id": "car",
        "frame_index": frame,
        "pts_seconds": frame / 29.97,
        "representation": "rgb",
        "kind": "color",
        "run_id": "20260101T000000000-abcdef",
        "config_hash": "0123456789abcdef",
        "status": "ok",
        "error": None,
        "valid": True,
        "compute_seconds": 0.25,
        "encode_seconds": 1e-9,
        "codec": "png",
        "dtype": "uint8",
        "shape": [4, 5, 3],
        "raw_bytes": 60,
        "byte_offset": 40 * frame,
        "byte_size": len(data),
        "payload_index": None,
        "checksum": zlib.crc32(data),
        "shard": "",
    }
    return whole | changes


def payload(frame: int) -> bytes:
    return bytes([frame]) * 40


def old_line(end: int, rows: list[dict[str, Any]]) -> bytes:
    return json.dumps({"end": end, "rows": rows}, separators=(",", ":")).encode() + b"\n"


@contextmanager
def recovered(folder: Path, lines: bytes, *, payloads: int = 4) -> Iterator[OpenShard]:
    (folder / "a.payloads").write_bytes(b"".join(payload(frame) for frame in range(payloads)))
    (folder / "a.journal").write_bytes(lines)
    shard = OpenShard(folder / "a.payloads", folder / "a.journal", SMALL)
    try:
        yield shard
    finally:
        shard.close()


def rows_of(shard: OpenShard) -> list[dict[str, Any]]:
    return [row for table in shard.tables() for row in table.to_pylist()]


def test_a_line_is_json_with_its_checksum_at_the_end() -> None:
    line = make_line(40, [row(0)])
    entry = json.loads(line)
    body = line[: line.index(b',"crc"')]
    assert list(entry) == ["end", "rows", "crc"]
    assert entry["crc"] == zlib.crc32(body)
    assert parse_line(line) == (40, [row(0)])


@pytest.mark.parametrize("make", [make_line, old_line])
def test_lines_with_and_without_checksum_are_read(
    tmp_path: Path, make: Callable[[int, list[dict[str, Any]]], bytes]
) -> None:
    with recovered(tmp_path, b"".join(make(40 * (frame + 1), [row(frame)]) for frame in range(3))) as shard:
        found = rows_of(shard)
        assert [one["frame_index"] for one in found] == [0, 1, 2]
        assert found[1]["pts_seconds"] == 1 / 29.97
        assert shard.size == 120
        shard.append([payload(3)], [row(3)])
        shard.flush()
        assert [one["frame_index"] for one in rows_of(shard)] == [0, 1, 2, 3]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_any_flipped_bit_ends_the_prefix(tmp_path: Path) -> None:
    lines = [make_line(40 * (frame + 1), [row(frame)]) for frame in range(2)]
    whole = b"".join(lines)
    with recovered(tmp_path, whole) as shard:
        expected = rows_of(shard)
    for bit in range(8 * len(lines[0])):
        assert parse_line(flipped(lines[0], bit)) is None
    for bit in range(0, 8 * len(whole), 29):
        good = 0 if bit // 8 < len(lines[0]) else 1
        with recovered(tmp_path, flipped(whole, bit)) as shard:
            assert shard.size == 40 * good
            assert rows_of(shard) == expected[:good]
            assert (tmp_path / "a.journal").read_bytes() == whole[: good * len(lines[0])]


def test_a_flipped_bit_of_a_line_without_checksum_is_no_traceback(tmp_path: Path) -> None:
    whole = old_line(40, [row(0)])
    taken = [line for bit in range(8 * len(whole)) if parse_line(line := flipped(whole, bit)) is not None]
    assert 100 < len(taken) < 4 * len(whole)  # other digits and letters: only a checksum tells
    for line in taken[::5]:
        with recovered(tmp_path, line) as shard:
            assert len(rows_of(shard)) in (0, 1)


BAD_ROWS: dict[str, Any] = {
    "video of another cell": {"video_id": "bus"},
    "number as a name": {"representation": 3},
    "name with a path": {"representation": "../../x"},
    "name of nothing": {"representation": ""},
    "endless name": {"representation": "a" * 10_000},
    "null name": {"representation": None},
    "half a surrogate": {"codec": "\ud800"},
    "frame before the cell": {"frame_index": -1},
    "frame behind the cell": {"frame_index": 8},
    "frame 1e30": {"frame_index": 10**30},
    "frame as text": {"frame_index": "0"},
    "frame true": {"frame_index": True},
    "offset behind the file": {"byte_offset": 10**15},
    "negative offset": {"byte_offset": -40},
    "negative size": {"byte_size": -1},
    "huge size": {"byte_size": 2**63 - 1},
    "no size": {"byte_size": None},
    "no checksum": {"checksum": None},
    "other checksum": {"checksum": 1},
    "large checksum": {"checksum": 2**32},
    "other status": {"status": "maybe"},
    "list as status": {"status": ["ok"]},
    "failed with a place": {"status": "failed"},
    "shape of text": {"shape": ["4"]},
    "negative shape": {"shape": [-4]},
    "deep shape": {"shape": [[4]]},
    "large shape": {"shape": [2**31]},
    "number as error": {"error": 5},
    "number as valid": {"valid": 1},
    "large number": {"pts_seconds": 10**400},
    "text as number": {"pts_seconds": "0"},
    "unknown column": {"more": 1},
}


@pytest.mark.parametrize("make", [make_line, old_line])
@pytest.mark.parametrize("changes", BAD_ROWS.values(), ids=list(BAD_ROWS))
def test_rows_of_another_form_are_not_taken(
    tmp_path: Path, changes: dict[str, Any], make: Callable[[int, list[dict[str, Any]]], bytes]
) -> None:
    with recovered(tmp_path, make(40, [row(0)]) + make(80, [row(1, **changes)]) + make(120, [row(2)])) as shard:
        assert [one["frame_index"] for one in rows_of(shard)] == [0]
        assert (shard.first_frame, shard.last_frame, shard.size) == (0, 0, 40)


def test_a_missing_column(tmp_path: Path) -> None:
    for name in SAMPLES_SCHEMA.names:
        kept = {key: value for key, value in row(0).items() if key != name}
        needed = not SAMPLES_SCHEMA.field(name).nullable or name in ("byte_offset", "byte_size", "checksum")
        with recovered(tmp_path, make_line(40, [kept])) as shard:
            assert len(rows_of(shard)) == (0 if needed else 1)


GOOD = make_line(40, [row(0)])
BAD_LINES = {
    "end behind the file": make_line(10**6, [row(1, byte_offset=40)]),
    "end before the last": make_line(39, [row(1, byte_offset=0)]),
    "payload of the sample before": make_line(80, [row(1, byte_offset=0, checksum=zlib.crc32(payload(0)))]),
    "payload behind its end": make_line(79, [row(1)]),
    "negative end": make_line(-1, [row(1)]),
    "end as text": b'{"end":"80","rows":[]}\n',
    "no rows": make_line(80, []),
    "rows of no kind": b'{"end":80,"rows":{}}\n',
    "the same frame again": make_line(80, [row(0, byte_offset=40, checksum=zlib.crc32(payload(1)))]),
    "frames that fall": make_line(80, [row(2, byte_offset=40, checksum=zlib.crc32(payload(1))), row(1)]),
    "a place with two checksums": make_line(80, [row(1, checksum=0), row(1)]),
    "a key twice": old_line(80, [row(1)]).replace(b'"status":"ok"', b'"status":"failed","status":"ok"'),
    "spaces": json.dumps({"end": 80, "rows": [row(1)]}).encode() + b"\n",
    "an array": b"[]\n",
    "a number of many digits": b'{"end":' + b"9" * 5000 + b',"rows":[]}\n',
    "not UTF-8": make_line(80, [row(1)]).replace(b"png", b"\xff\xfe\xfd"),
    "deep": b'{"end":80,"rows":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "deep in a row": old_line(80, [row(1)]).replace(b"[4,5,3]", b"[" * 100_000 + b"]" * 100_000),
    "nothing": b"\n",
    "zeros": bytes(4096),
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=list(BAD_LINES))
def test_lines_of_another_form_are_not_taken(tmp_path: Path, line: bytes) -> None:
    with recovered(tmp_path, GOOD + line + make_line(80, [row(1)])) as shard:
        assert [one["frame_index"] for one in rows_of(shard)] == [0]
        assert (tmp_path / "a.journal").read_bytes() == GOOD


def test_an_overlong_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (journal, journal_lines):
        monkeypatch.setattr(module, "MAX_LINE_BYTES", 5 << 20)
    for end in (b"", b'"}\n'):
        line = b'{"end":80,"rows":[],"x":"' + b"x" * (12 << 20) + end
        with recovered(tmp_path, GOOD + line) as shard:
            assert [one["frame_index"] for one in rows_of(shard)] == [0]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_journal_of_an_earlier_version_goes_on(tmp_path: Path, writer: str) -> None:
    dataset = make_writer(tmp_path, writer)
    first = dataset.open_cell(CELL)
    write_missing(first, range(7))
    first.suspend()
    (path,) = tmp_path.rglob("*.journal")
    entries = [json.loads(line) for line in path.read_bytes().splitlines()]
    path.write_bytes(b"".join(old_line(entry["end"], entry["rows"]) for entry in entries))
    with dataset.open_cell(CELL) as cell:
        assert sorted(cell.recovered) == list(range(7))
        write_missing(cell)
    assert stored_payloads(tmp_path, writer) == expected_payloads()
