"""A query ends: by a signal, by its time limit, by its memory limit; and it tells nothing about the machine."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.catalog.query_dataset import make_row, write_dataset
from vrekit.catalog.dataset import Dataset, open_dataset
from vrekit.catalog.query import Query, select
from vrekit.catalog.statements import STATEMENT_THREAD, Statements
from vrekit.cli.app import app
from vrekit.core.errors import QueryLimitError, UsageError
from vrekit.core.memory import machine_memory, resident_memory
from vrekit.readers.dataset import FrameDataset

ENDLESS = "SELECT count(*) FROM range(1000000000000) a, range(1000000000) b"
DISOBEDIENT = "SELECT levenshtein(repeat('ab', 200000), repeat('ba', 200000))"  # DuckDB looks up after minutes
MEBIBYTE = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "out", [make_row("car", frame, "rgb") for frame in range(4)])


@pytest.fixture
def dataset(folder: Path) -> Iterator[Dataset]:
    with open_dataset(folder) as opened:
        yield opened


def _query(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["query", *map(str, arguments)])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("sql", [ENDLESS, DISOBEDIENT])
def test_a_signal_ends_a_query(folder: Path, sql: str, number: signal.Signals) -> None:
    script = (
        "from vrekit.catalog.statements import Statements\n"
        "from vrekit.cli import main\n"
        "run = Statements.run\n"
        "Statements.run = lambda self, call: (print('begins', flush=True), run(self, call))[1]\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, "query", str(folder), "--sql", sql, "--format", "count"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    time.sleep(0.2)
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)  # well under a second on an idle machine
    assert (process.returncode, output, errors) == (128 + number, "", "interrupted\n")


def test_a_time_limit_ends_a_query(dataset: Dataset) -> None:
    with pytest.raises(QueryLimitError, match=r"took longer than 0\.2 seconds"):
        dataset.sql(ENDLESS, timeout_seconds=0.2)
    sandbox = dataset.sandbox
    assert dataset.sql("SELECT 1 AS n", timeout_seconds=60)["n"].to_pylist() == [1]
    assert dataset.sandbox is sandbox
    with sandbox.time_limit(0.2), pytest.raises(QueryLimitError, match="took longer"):
        select(dataset, Query(where=f"({ENDLESS}) > frame_index"))
    assert select(dataset, Query()).count == 4


def test_the_command_has_a_time_limit(folder: Path) -> None:
    result = _query(folder, f"({ENDLESS}) > frame_index", "--timeout", 0.2)
    assert (result.exit_code, result.stderr.splitlines()[0]) == (1, "error: the query took longer than 0.2 seconds")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_time_limits_that_are_none(dataset: Dataset, seconds: float) -> None:
    with pytest.raises(UsageError, match="must be a number above 0"):
        dataset.sql("SELECT 1", timeout_seconds=seconds)


class _Deaf:
    """A connection whose statement does not obey."""

    def __init__(self) -> None:
        self.interruptions = 0

    def interrupt(self) -> None:
        self.interruptions += 1


def test_a_query_that_does_not_obey_is_left_alone() -> None:
    connection, release = _Deaf(), threading.Event()
    statements = Statements(connection, 1 << 40)  # type: ignore[arg-type]  # all it needs
    with statements.time_limit(0.01), pytest.raises(QueryLimitError, match="took longer"):
        statements.run(release.wait)
    assert statements.is_abandoned
    with pytest.raises(QueryLimitError, match="could not be stopped"):
        statements.run(lambda: 1)
    before = connection.interruptions
    deadline = time.monotonic() + 30
    while connection.interruptions == before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert connection.interruptions > before  # it may obey later
    release.set()
    _wait_for_statements()


def _wait_for_statements() -> None:
    deadline = time.monotonic() + 60
    while any(one.name == STATEMENT_THREAD for one in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_dataset_stays_usable_when_a_query_does_not_obey(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    selection = select(dataset, Query(stride=2))
    with monkeypatch.context() as patch:
        patch.setattr("vrekit.catalog.statements._OBEY_SECONDS", -1.0)
        with pytest.raises(QueryLimitError):
            dataset.sql(ENDLESS, timeout_seconds=0.1)
    assert selection.table("key")["key"].to_pylist() == ["car/00000000", "car/00000002"]


def test_what_a_statement_raises_is_raised_to_the_caller() -> None:
    statements = Statements(_Deaf(), 1 << 40)  # type: ignore[arg-type]  # all it needs
    with pytest.raises(ZeroDivisionError):
        statements.run(lambda: 1 // 0)
    assert statements.run(lambda: 7) == 7


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM range(100000000000)",  # the result
        "SELECT count(*) FROM (SELECT DISTINCT range FROM range(100000000000))",  # DuckDB's own buffers
    ],
)
def test_memory_is_bounded(folder: Path, sql: str) -> None:
    before = resident_memory()
    with (
        open_dataset(folder, memory_bytes=128 * MEBIBYTE) as dataset,
        pytest.raises(QueryLimitError, match=r"needs more than the 0\.1 GB of memory"),
    ):
        dataset.sql(sql)
    assert resident_memory() - before < 1024 * MEBIBYTE
    _wait_for_statements()


def test_memory_that_duckdb_does_not_count_is_bounded(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter(range(0, 1 << 60, 1 << 50))
    monkeypatch.setattr("vrekit.catalog.statements.resident_memory", lambda: next(sizes))
    with pytest.raises(QueryLimitError, match="GB of memory that it may use"):
        dataset.sql(ENDLESS)


def test_memory_that_is_none(folder: Path) -> None:
    result = _query(folder, "--memory", "1")
    assert (result.exit_code, "must be 64 MiB to 1 PiB" in result.stderr) == (2, True)


def test_what_the_machine_has() -> None:
    assert machine_memory() > 64 * MEBIBYTE
    assert 0 <= resident_memory() < machine_memory()


def test_a_table_fetches_what_it_shows(folder: Path) -> None:
    result = _query(folder, "--sql", "SELECT range AS number FROM range(1000000000000)", "--timeout", 100)
    assert result.exit_code == 0, result.output
    assert result.stdout.split()[-1] == "39"
    assert "… and more" in result.stderr
    assert _query(folder, "--sql", "FROM range(3)").stderr == ""


def test_the_rows_of_a_whole_select_are_counted(folder: Path) -> None:
    result = _query(folder, "--sql", "SELECT 1 AS a, 2 AS a FROM range(3000000); -- three", "--format", "count")
    assert (result.exit_code, result.stdout) == (0, "3000000\n")


def test_long_cells_are_cut(folder: Path) -> None:
    result = _query(folder, "--sql", "SELECT repeat('x', 1000000), range(1000000)")
    assert result.exit_code == 0
    assert len(result.stdout) < 20_000


INTERNALS: list[str] = [
    "SELECT * FROM duckdb_settings()",
    'SELECT * FROM "duckdb_settings" ()',
    "SELECT * FROM system.main.duckdb_settings()",
    "SELECT * FROM pg_catalog.pg_settings",
    "SELECT current_setting('secret_directory')",
    "SELECT 'secret_directory'.current_setting()",
    "SELECT current_setting/* (x) */\u00a0('secret_directory')",
    "SELECT 'ü', current_setting('secret_directory')",
    "SELECT getenv('HOME')",
    "SHOW secret_directory",
    "SELECT 'x' UNION SHOW secret_directory",
    "FROM (SHOW secret_directory)",
    "FROM query('SELECT * FROM duckdb_' || 'settings()')",
    "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "FROM duckdb_extensions()",
    "FROM duckdb_logs",
    "FROM which_secret('a', 's3')",
    "SELECT write_log('x')",
]


@pytest.mark.parametrize("sql", INTERNALS)
def test_the_machine_is_none_of_a_querys_business(dataset: Dataset, sql: str) -> None:
    with pytest.raises(UsageError, match=r"may read this dataset and nothing else: .* is not for queries"):
        dataset.sql(sql)


def test_words_in_texts_and_comments_are_harmless(dataset: Dataset) -> None:
    for sql in (
        "SELECT 'duckdb_settings() query(1) ü SHOW it' -- getenv('x')",
        "SELECT query.key FROM frames AS query /* current_setting('a') */",
        "SHOW TABLES",
        'SELECT "show" AND true FROM (SELECT true AS show)',
    ):
        assert dataset.sql(sql).num_rows >= 1


@pytest.mark.parametrize(
    "where", ["select 3", "  SELECT key FROM frames", "with x as (select 1) from x", "FROM frames"]
)
def test_a_whole_select_is_no_predicate(folder: Path, where: str) -> None:
    result = _query(folder, where)
    assert result.exit_code == 2
    assert "a predicate is a condition, not a whole SELECT" in result.stderr
    assert "--sql" in result.stderr


def test_a_subset_that_is_a_query_has_the_same_limits(folder: Path) -> None:
    endless = f"frame_index < ({ENDLESS})"
    with pytest.raises(QueryLimitError):
        FrameDataset(folder, subset=endless, timeout_seconds=0.2)
    with pytest.raises(UsageError, match="memory"):
        FrameDataset(folder, subset="frame_index < 2", memory_bytes=1)
    assert len(FrameDataset(folder, ["rgb"], subset="frame_index < 2", timeout_seconds=60.0, memory_bytes=1 << 30)) == 2
