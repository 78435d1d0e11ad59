"""The commands query, subset and stats: what they print, where to, and their exit codes."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from tests.catalog.query_dataset import failed_row, make_row, write_dataset
from vrekit.catalog.dataset import TABLES, open_dataset
from vrekit.catalog.subset import read_subset
from vrekit.cli.app import app
from vrekit.engine.export import export
from vrekit.engine.request import ExportRequest

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    runner = CliRunner()

    def invoke(*arguments: object) -> Result:
        result = runner.invoke(app, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return invoke


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        make_row(video, frame, name) for video in ("bus", "car") for frame in range(50) for name in ("canny", "rgb")
    ]
    return write_dataset(tmp_path / "out", [*rows, failed_row("car", 60, "rgb", error="no, [it] failed")])


def test_formats(run: Run, folder: Path, tmp_path: Path) -> None:
    arguments = ("query", folder, "frame_index IN (3, 4) AND video_id = 'car'", "--select", "key, representations")
    keys = ["car/00000003", "car/00000004"]
    as_json = run(*arguments, "--format", "json")
    assert json.loads(as_json.stdout) == [{"key": key, "representations": ["canny", "rgb"]} for key in keys]
    as_csv = run(*arguments, "--format", "csv")
    assert list(csv.reader(io.StringIO(as_csv.stdout))) == [
        ["key", "representations"],
        *([key, '["canny", "rgb"]'] for key in keys),
    ]
    as_parquet = run(*arguments, "--format", "parquet")
    assert pq.ParquetFile(io.BytesIO(as_parquet.stdout_bytes)).read()["key"].to_pylist() == keys
    assert run(*arguments, "--format", "count").stdout == "2\n"
    as_table = run(*arguments)
    assert [line.split()[0] for line in as_table.stdout.splitlines() if "/" in line] == keys
    assert "canny, rgb" in as_table.stdout
    for result in (as_json, as_csv, as_parquet, as_table):
        assert result.exit_code == 0
        assert result.stderr.strip() == "101 frames → where: 2"


def test_stages_go_to_stderr(run: Run, folder: Path) -> None:
    result = run(
        "query", folder, "codec = 'png'", "--stride", 5, "--per-video", 4, "--sample", "50%", "--seed", 3,
        "--order-by", "frame_index DESC", "--limit", 3, "--format", "count",
    )  # fmt: skip
    assert result.stdout == "3\n"
    expected = (
        "201 samples → where: 100 → stride 5: 20 → per-video 4: 8 → sample 50%,3: 4 → order-by frame_index DESC: 4"
    )
    assert result.stderr.strip() == f"{expected} → limit 3: 3"


def test_long_tables_are_cut(run: Run, folder: Path) -> None:
    result = run("query", folder)
    assert sum(line.strip().startswith(("bus", "car")) for line in result.stdout.splitlines()) == 40
    assert "… and 61 more" in result.stderr


def test_cells_with_brackets_are_printed_as_they_are(run: Run, folder: Path) -> None:
    result = run("query", folder, "status = 'failed'", "--select", "key, error")
    assert "no, [it] failed" in result.stdout


def test_nothing_selected_is_exit_1(run: Run, folder: Path) -> None:
    result = run("query", folder, "frame_index > 900", "--format", "json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, [])
    assert "nothing selected" in result.stderr
    assert run("query", folder, "frame_index > 900", "--allow-empty").exit_code == 0
    assert run("query", folder, "--sql", "SELECT 1 WHERE false").exit_code == 1


def test_a_whole_select(run: Run, folder: Path, tmp_path: Path) -> None:
    sql = "SELECT video_id, count(*) AS n, avg(byte_size) AS mean FROM samples GROUP BY 1 ORDER BY 1"
    rows = json.loads(run("query", folder, "--sql", sql, "--format", "json").stdout)
    assert [(row["video_id"], row["n"]) for row in rows] == [("bus", 100), ("car", 101)]
    path = tmp_path / "s.parquet"
    saved = run(
        "query", folder, "--sql", "SELECT * FROM frames WHERE frame_index = 7", "--save", path, "--format", "count"
    )
    assert (saved.exit_code, saved.stdout, len(read_subset(path))) == (0, "2\n", 2)
    odd = (
        "SELECT 'NaN'::DOUBLE AS nan, NULL AS nothing, TIMESTAMPTZ '2026-01-01 00:00:00Z' AS time, {'a': [1]} AS nested"
    )
    assert json.loads(run("query", folder, "--sql", odd, "--format", "json").stdout) == [
        {"nan": None, "nothing": None, "time": "2026-01-01T00:00:00+00:00", "nested": {"a": [1]}}
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kodec = 'png'"], "error: no column 'kodec' (did you mean 'codec'?)"),
        (['codec = "png"'], "error: no column 'png'"),
        (["frame_index ="], "error: the query is not valid SQL: syntax error"),
        (["--sql", "DROP TABLE samples"], "error: a query is exactly one SELECT statement, got: DROP"),
        (["--sql", "SELECT * FROM read_text('/etc/passwd')"], "error: a query may read this dataset and nothing else"),
        (["--sql", "SELECT 1", "--limit", "3"], "error: --sql is the whole query"),
        (["frame_index > 1", "--sql", "SELECT 1"], "error: --sql is the whole query"),
        (["--sample", "lots"], "error: --sample 'lots' is neither a number nor a share"),
        (["--fps", "-1"], "error: fps is -1.0, but must be above 0"),
        (["-r", "rgg"], "error: the dataset stores no representation 'rgg' (did you mean 'rgb'?)"),
        (["--select", "nope"], "error: no column 'nope'"),
    ],
)
def test_mistakes_are_one_message_and_exit_2(run: Run, folder: Path, arguments: list[str], message: str) -> None:
    result = run("query", folder, *arguments)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0].startswith(message)
    assert "Traceback" not in result.output


def test_no_dataset(run: Run, tmp_path: Path) -> None:
    result = run("query", tmp_path / "nowhere")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


def test_subset_commands(run: Run, folder: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a.parquet", tmp_path / "b.parquet"
    saved = run("query", folder, "frame_index < 3", "--save", a, "--format", "count")
    assert (saved.exit_code, saved.stdout) == (0, "6\n")
    assert "saved 6 frames" in saved.stderr
    run("query", folder, "frame_index BETWEEN 1 AND 5", "--save", b, "--format", "count")
    for operation, count in {"union": 12, "intersect": 4, "minus": 2}.items():
        result = run("subset", operation, a, b, "-o", tmp_path / "c.parquet")
        assert (result.exit_code, len(read_subset(tmp_path / "c.parquet"))) == (0, count)
        assert f"→ {count} frames" in result.stderr
    info = json.loads(run("subset", "info", a, "--json").stdout)
    assert (info["frames"], info["videos"]) == (6, {"bus": 3, "car": 3})
    assert info["stages"][0]["params"]["where"] == "frame_index < 3"
    assert "where (on frames, where frame_index < 3): 101 → 6" in run("subset", "info", a).stdout
    assert run("subset", "verify", a, folder).exit_code == 0
    smaller = write_dataset(tmp_path / "smaller", [make_row("car", 0, "rgb")])
    missing = run("subset", "verify", a, smaller)
    assert missing.exit_code == 1
    assert "missing: bus/00000000" in missing.stdout
    report = json.loads(run("subset", "verify", a, smaller, "--json").stdout)
    assert (report["good"], len(report["missing"])) == (False, 5)
    wrong = run("subset", "info", tmp_path / "nowhere.parquet")
    assert (wrong.exit_code, wrong.stderr.startswith("error: no subset file")) == (2, True)


def test_stats_query_and_copy(run: Run, make_request: Callable[..., ExportRequest], tmp_path: Path) -> None:
    request = make_request()
    export(request)
    measured = run("stats", request.dataset, "--json")
    assert measured.exit_code == 0
    report = json.loads(measured.stdout)
    assert (report["measured"], report["sources"], report["failures"]) == (30, {"color": "rgb"}, [])
    again = run("stats", request.dataset)
    assert again.stderr.startswith("0 frames measured")
    assert "30 were measured before" in again.stderr
    selected = run(
        "query",
        request.dataset,
        "luma_mean > (SELECT median(luma_mean) FROM frames)",
        "--save",
        tmp_path / "s.parquet",
        "--format",
        "count",
    )
    assert 0 < int(selected.stdout) < 30
    copied = run("subset", "materialize", tmp_path / "s.parquet", request.dataset, "-o", tmp_path / "copy", "--json")
    assert json.loads(copied.stdout)["frames"] == int(selected.stdout)
    assert run("validate", tmp_path / "copy").exit_code == 0
    assert run("stats", request.dataset, "--color", "canny").exit_code == 2


PAGE = Path(__file__).resolve().parents[2] / "docs" / "queries.md"


def test_every_column_is_documented(folder: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    with open_dataset(folder) as dataset:
        for table in TABLES:
            line = next(line for line in text.splitlines() if line.startswith(f"| `{table}` |"))
            known = set(re.findall(r"`(\w+)`", line if table != "frames" else text))
            assert set(getattr(dataset, table).columns) <= known
