"""external/table: alignment against brute force, file formats, and what goes wrong."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vrekit.core.errors import ComputeError, UsageError
from vrekit.core.frames import FrameBatch, Output
from vrekit.core.spec import RepresentationSpec
from vrekit.graph.build import build_graph
from vrekit.representations.external import table as table_module
from vrekit.representations.external.table import Table
from vrekit.representations.parameters import build


def batch_at(times: Sequence[float], indices: Sequence[int] | None = None) -> FrameBatch:
    return FrameBatch(
        frames=np.zeros((len(times), 0, 0, 3), np.uint8),
        indices=np.array(indices if indices is not None else range(len(times)), np.int64),
        pts_seconds=np.array(times, np.float64),
    )


def values(output: Output) -> list[list[float]]:
    rows: list[list[float]] = np.asarray(output.data, np.float64).tolist()
    return rows


def nearest_by_hand(rows: list[tuple[float, float]], time: float, tolerance: float) -> float | None:
    if not rows:
        return None
    when, value = min(rows, key=lambda row: (abs(row[0] - time), row[0]))  # the first in the file of equal ones
    return value if abs(when - time) <= tolerance else None


def linear_by_hand(rows: list[tuple[float, float]], time: float, tolerance: float) -> float | None:
    for when, value in rows:
        if when == time:
            return value
    before = [row for row in rows if time - tolerance <= row[0] < time]
    after = [row for row in rows if time < row[0] <= time + tolerance]
    if not before or not after:
        return nearest_by_hand(rows, time, tolerance)
    (t0, v0), (t1, v1) = max(before, key=lambda row: row[0]), min(after, key=lambda row: row[0])
    return v0 + (time - t0) / (t1 - t0) * (v1 - v0)


# Times on a grid of 1/8 s, so that hits, ties and the tolerance itself occur, and are exact.
grid = st.integers(-40, 40).map(lambda eighths: eighths / 8)


@given(
    rows=st.lists(st.tuples(grid, st.integers(-100, 100).map(float)), max_size=12),
    times=st.lists(grid, min_size=1, max_size=8),
    tolerance=st.integers(0, 12).map(lambda eighths: eighths / 8),
    offset=grid,
    linear=st.booleans(),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_alignment_equals_brute_force(
    rows: list[tuple[float, float]],
    times: list[float],
    tolerance: float,
    offset: float,
    linear: bool,
    tmp_path: Path,
) -> None:
    if linear:  # between rows of equal time there is no line
        rows = list({when: (when, value) for when, value in rows}.values())
    file = tmp_path / "t.parquet"
    pq.write_table(
        pa.table(
            {"t": pa.array([r[0] for r in rows], pa.float64()), "v": pa.array([r[1] for r in rows], pa.float64())}
        ),
        file,
    )
    instance = Table(
        str(file),
        time_column="t",
        time_offset_seconds=offset,
        align="linear" if linear else "nearest",
        tolerance_seconds=tolerance,
    )
    output = instance.compute(batch_at([time + offset for time in times]), {})
    by_hand = linear_by_hand if linear else nearest_by_hand
    for position, time in enumerate(times):
        expected = by_hand(rows, time, tolerance)
        assert output.is_valid(position) == (expected is not None)
        got = float(output.frame(position).astype(np.float64)[0])
        assert np.isnan(got) if expected is None else got == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "ndjson", "parquet"])
def test_formats_give_the_same(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"imu.{suffix}"
    if suffix == "csv":
        file.write_text("t,speed,note,on\n0.0,1,a,true\n0.2,,b,false\n0.1,3,,true\n")
    elif suffix == "parquet":
        pq.write_table(
            pa.table(
                {
                    "t": [0.0, 0.2, 0.1],
                    "speed": pa.array([1, None, 3], pa.int16()),
                    "note": pa.array(["a", "b", None]).dictionary_encode(),
                    "on": [True, False, True],
                }
            ),
            file,
        )
    else:
        file.write_text(
            '{"t": 0.0, "speed": 1, "note": "a", "on": true}\n{"t": 0.2, "speed": null, "note": "b", "on": false}\n'
            '{"t": 0.1, "speed": 3, "note": null, "on": true}\n'
        )
    numbers = Table(str(file), time_column="t", tolerance_seconds=0.01)
    spec = numbers.output_spec(1, 1, {})
    assert (spec.kind, spec.dtype, spec.shape, spec.columns) == ("table", "float64", (2,), ("speed", "on"))
    output = numbers.compute(batch_at([0.0, 0.1, 0.2, 0.3]), {})
    np.testing.assert_array_equal(values(output), [[1, 1], [3, 1], [np.nan, 0], [np.nan, np.nan]])
    assert [output.is_valid(at) for at in range(4)] == [True, True, True, False]
    notes = Table(str(file), columns=("note",), time_column="t", tolerance_seconds=0.01)
    assert (notes.output_spec(1, 1, {}).kind, notes.output_spec(1, 1, {}).shape) == ("text", ())
    texts = notes.compute(batch_at([0.0, 0.2, 0.3]), {})
    assert [str(texts.frame(at)) for at in range(3)] == ["a", "b", ""]
    assert [texts.is_valid(at) for at in range(3)] == [True, True, False]


def test_by_frame_number(tmp_path: Path) -> None:
    file = tmp_path / "gt.csv"
    file.write_text("frame,x,y\n7,70,71\n3,30,31\n\n22,220,221\n")
    instance = Table(str(file), columns=("y", "x"), frame_column="frame")
    output = instance.compute(batch_at([np.nan] * 4, [3, 4, 22, 7]), {})
    np.testing.assert_array_equal(values(output), [[31, 30], [np.nan, np.nan], [221, 220], [71, 70]])
    assert [output.is_valid(at) for at in range(4)] == [True, False, True, True]


def test_timestamps_and_units(tmp_path: Path) -> None:
    start = 1_700_000_000
    pq.write_table(
        pa.table(
            {
                "stamp": pa.array([start * 1000, start * 1000 + 40], pa.timestamp("ms", "UTC")),
                "ns": [start * 10**9, start * 10**9 + 40_000_000],
                "v": [1.0, 2.0],
            }
        ),
        tmp_path / "gps.parquet",
    )
    for params in ({"time_column": "stamp"}, {"time_column": "ns", "time_unit": "ns"}):
        instance = Table(
            str(tmp_path / "gps.parquet"),
            columns=("v",),
            time_offset_seconds=-start,
            tolerance_seconds=0.015,
            **params,  # type: ignore[arg-type] # a literal
        )
        output = instance.compute(batch_at([0.01, 0.03, 0.02]), {})
        np.testing.assert_array_equal(values(output), [[1], [2], [np.nan]])


def test_missing_values_do_not_reach_the_row_beside_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("t,a,b\n0,1,10\n1,,20\n2,3,30\n")
    instance = Table(str(tmp_path / "t.csv"), time_column="t", align="linear", tolerance_seconds=1)
    output = instance.compute(batch_at([0, 0.5, 1, 2]), {})
    np.testing.assert_array_equal(values(output), [[1, 10], [np.nan, 15], [np.nan, 20], [3, 30]])


def test_linear_takes_the_nearest_row_at_the_edges_of_a_gap(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("t,a\n0,0\n0.1,10\n0.59,59\n0.90,90\n1.0,100\n")
    instance = Table(str(tmp_path / "t.csv"), time_column="t", align="linear", tolerance_seconds=0.1)
    output = instance.compute(batch_at([-0.2, -0.05, 0.05, 0.15, 0.3, 0.6, 0.75, 0.85, 0.95, 1.05, 1.2]), {})
    expected = [np.nan, 0, 5, 10, np.nan, 59, np.nan, 90, 95, 100, np.nan]
    np.testing.assert_allclose(np.ravel(values(output)), expected)
    assert [output.is_valid(at) for at in range(11)] == (~np.isnan(expected)).tolist()


@pytest.mark.parametrize(("params", "version"), [({}, 1), ({"align": "linear"}, 2)])
def test_only_linear_gives_other_values_than_before(params: dict[str, Any], version: int, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("t,a\n0,1\n")
    table = {"path": str(tmp_path / "t.csv"), "time_column": "t", **params}
    specs = [RepresentationSpec(name="imu", type="external/table", params=table)]
    node = build_graph(specs, height=2, width=2).nodes["imu"]
    assert node.compute_identity["version"] == version


def test_file_is_read_once_by_many_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv").write_text("t,a\n0,1\n")
    reads: list[Path] = []
    read_table = table_module._read_table

    def counted(path: Path) -> Any:
        reads.append(path)
        return read_table(path)

    monkeypatch.setattr(table_module, "_read_table", counted)
    instance = Table(str(tmp_path / "t.csv"), time_column="t")
    assert reads == []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        assert values(instance.compute(batch_at([0]), {})) == [[1]]

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1


def test_video_without_clock(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("t,a\n0,1\n")
    with pytest.raises(ComputeError, match="no clock"):
        Table(str(tmp_path / "t.csv"), time_column="t").compute(batch_at([np.nan]), {})


@pytest.mark.parametrize(
    ("content", "params", "message"),
    [
        ("t,a\n0,1\n", {"time_column": "time"}, "no column 'time'"),
        ("t,speed\n0,1\n", {"time_column": "t", "columns": ("sped",)}, r"no column 'sped' \(did you mean 'speed'\?\)"),
        ("t,a\nx,1\n", {"time_column": "t"}, "time column 't' is string"),
        ("t,a\n0,x\n", {"time_column": "t"}, "no numeric column beside 't'"),
        ("t,a,b\n0,x,1\n", {"time_column": "t", "columns": ("a", "b")}, "column 'a' is string, not a number"),
        ("t,a\n0,x\n", {"time_column": "t", "columns": ("a",), "align": "linear"}, "needs numbers, not text"),
        ("f,a\n1,1\n1,2\n", {"frame_column": "f"}, "frame 1 has more than one row"),
        ("f,a\n1.5,1\n", {"frame_column": "f"}, "1.5 in the frame column is not a whole number"),
        ("t,a\n0,1,2\n", {"time_column": "t"}, "cannot be read"),
    ],
)
def test_wrong_tables(content: str, params: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(UsageError, match=message):
        Table(str(tmp_path / "t.csv"), **params).output_spec(1, 1, {})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "exactly one of time_column and frame_column"),
        ({"time_column": "t", "frame_column": "f"}, "exactly one of"),
        ({"time_column": "t", "time_unit": "h"}, "time_unit must be one of s, ms, us, ns"),
        ({"time_column": "t", "align": "cubic"}, "'nearest' or 'linear', got 'cubic'"),
        ({"time_column": "t", "columns": ("a", "a")}, "each column once"),
    ],
)
def test_wrong_parameters(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Table("x.csv", **params)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_no_tolerance(seconds: float) -> None:
    with pytest.raises(UsageError, match="'tolerance_seconds' must be float of at least 0, got"):
        build(Table, {"path": "x.csv", "time_column": "t", "tolerance_seconds": seconds}, "gps")


@pytest.mark.parametrize(("name", "message"), [("x.xls", "a table is one of .csv"), ("x.csv", "cannot be read")])
def test_missing_or_unknown_file(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        Table(str(tmp_path / name), time_column="t").output_spec(1, 1, {})
