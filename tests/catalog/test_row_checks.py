"""Rows that cannot be true are found before anything relies on them, whatever else the table holds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.catalog.query_dataset import failed_row, make_row, write_dataset
from tests.storages import read_samples
from vrekit.catalog.row_checks import check_rows, row_mistakes, stored_dtype
from vrekit.core.errors import DatasetError
from vrekit.core.schema import SAMPLES_SCHEMA, rows_to_table
from vrekit.writers.webdataset.sidecars import find_sidecars, read_sidecars, sidecar_bytes

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"video_id": "../x"}, r"video_id is .\.\./x."),
    ({"frame_index": -1}, "frame_index is -1"),
    ({"frame_index": 2**53}, "frame_index is 9007199254740992"),
    ({"representation": ".."}, "representation is '..'"),
    ({"representation": "rgb.image."}, "representation is 'rgb.image.'"),
    ({"kind": "magic"}, "kind is 'magic'"),
    ({"run_id": "../../x"}, "run_id is '../../x'"),
    ({"run_id": "a\nb"}, r"run_id is 'a\\nb'"),
    ({"status": "well"}, "status is 'well'"),
    ({"status": "failed"}, "but it has a payload"),
    ({"codec": None}, "it has no codec"),
    ({"dtype": None}, "it has no dtype"),
    ({"shape": None}, "it has no shape"),
    ({"raw_bytes": None}, "it has no raw_bytes"),
    ({"byte_offset": None}, "it has no byte_offset"),
    ({"byte_size": None}, "it has no byte_size"),
    ({"checksum": None}, "it has no checksum"),
    ({"shard": None}, "it has no shard"),
    ({"shard": "dataset.json"}, "shard is 'dataset.json'"),
    ({"shard": "/etc/passwd"}, "shard is '/etc/passwd'"),
    ({"byte_offset": -512}, "byte_offset is -512"),
    ({"byte_size": -1}, "byte_size is -1"),
    ({"byte_size": 2**63 - 1}, "byte_size is 9223372036854775807"),
    ({"payload_index": -1}, "payload_index is -1"),
    ({"raw_bytes": -96}, "raw_bytes is -96"),
    ({"raw_bytes": 97}, "raw_bytes is 97, but its array has 96 bytes"),
    ({"dtype": "i1,(99999999999)f8"}, r"dtype is 'i1,\(99999999999\)f8'"),
    ({"dtype": "object"}, "dtype is 'object'"),
    ({"dtype": ">f4"}, "dtype is '>f4'"),
    ({"shape": (-2, -12)}, r"an array float32 \[-2, -12\]"),
    ({"shape": (2**31 - 1,) * 4}, "which no frame is"),
    ({"shape": (1,) * 33}, "shape has 33 sides"),
]


@pytest.mark.parametrize("dictionaries", [False, True])
@pytest.mark.parametrize(("changes", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_row_is_named(changes: dict[str, Any], message: str, dictionaries: bool) -> None:
    rows = [failed_row("car", 0, "rgb"), make_row("car", 0, "depth"), replace(make_row("car", 1, "rgb"), **changes)]
    table = rows_to_table(rows)
    if dictionaries:
        for at, field in enumerate(table.schema):
            if pa.types.is_string(field.type):
                table = table.set_column(at, field.name, table[at].dictionary_encode())
    with pytest.raises(DatasetError, match=rf"^row 2: .*{message}"):
        check_rows(table, "row {}".format)
    assert not list(row_mistakes(table.slice(0, 2)))


def test_good_rows_pass_whatever_their_arrays() -> None:
    layouts: list[tuple[str, tuple[int, ...], int]] = [
        ("bool", (2, 3), 6),
        ("str", (), 1000),
        ("float64", (), 8),
        ("uint8", (0, 5), 0),
        ("complex64", (3,), 24),
    ]
    rows = [make_row("car", at, "rgb", dtype=d, shape=s, raw_bytes=n) for at, (d, s, n) in enumerate(layouts)]
    table = rows_to_table([failed_row("car", 9, "rgb"), *rows, failed_row("car", 10, "rgb")])
    assert check_rows(table, str) is table
    assert not list(row_mistakes(pa.concat_tables([table.slice(3), table.slice(0, 2), table.slice(1, 0)])))
    assert not list(row_mistakes(SAMPLES_SCHEMA.empty_table()))
    assert not list(row_mistakes(table.select(["representation"])))


def test_text_that_is_not_utf8_is_found() -> None:
    table = rows_to_table([make_row("car", 0, "rgb", error="boom")])
    for name in ("error", "kind"):
        data = [pa.py_buffer(bytes([0, 0, 0, 0, 2, 0, 0, 0])), pa.py_buffer(b"\xff\xfe")]
        broken = pa.Array.from_buffers(pa.string(), 1, [None, *data])
        at = table.column_names.index(name)
        with pytest.raises(DatasetError, match=f"the column {name} has text that is not UTF-8"):
            check_rows(table.set_column(at, name, broken), str)


@pytest.mark.parametrize(("name", "expected"), [("float32", np.float32), ("f4", np.float32), ("str", np.str_)])
def test_names_of_dtypes(name: str, expected: type) -> None:
    assert stored_dtype(name) == np.dtype(expected)


@pytest.mark.parametrize("name", ["", "O", "datetime64", "M8[s]", "float32\n", "void", "bytes", "f4,f4", "int9"])
def test_what_is_no_dtype_of_an_array(name: str) -> None:
    assert stored_dtype(name) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video_id": "bus"}, "video_id is another one than that of the file"),
        ({"shard": "shards/car/other-00000000-00000099.tar"}, "shard is another one than that of the file"),
        ({"frame_index": 100}, "frame_index is outside of the range in the file's name"),
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_a_sidecar_is_of_its_own_shard(tmp_path: Path, changes: dict[str, Any], message: str, many: bool) -> None:
    videos = [f"a{number:02d}" for number in range(20 if many else 1)]
    folder = write_dataset(tmp_path, [make_row(video, frame, "rgb") for video in [*videos, "car"] for frame in (3, 4)])
    path = folder / "shards/car/all-00000000-00000099.parquet"
    path.write_bytes(
        sidecar_bytes(rows_to_table([make_row("car", 3, "rgb"), replace(make_row("car", 4, "rgb"), **changes)]))
    )
    for dictionaries in (False, True):
        with pytest.raises(DatasetError, match=rf"car/all-00000000-00000099\.parquet: row 1: {message}"):
            read_sidecars(find_sidecars(folder), dictionaries=dictionaries)
    assert len(read_samples(folder, video_ids=videos)) == 2 * len(videos)
