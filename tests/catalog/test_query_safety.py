"""A query reads its dataset and nothing else, changes nothing, and is exactly one SELECT."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.catalog.query_dataset import make_row, write_dataset
from vrekit.catalog.dataset import Dataset, open_dataset
from vrekit.catalog.query import Query, select
from vrekit.core.errors import UsageError

SECRET = "the secret"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a dataset and things beside it that are none of a query's business."""
    write_dataset(tmp_path / "out", [make_row("car", frame, "rgb") for frame in range(4)])
    for folder in ("out-private", "other"):
        (tmp_path / folder).mkdir()
        pq.write_table(pa.table({"secret": [SECRET]}), tmp_path / folder / "secret.parquet")
    (tmp_path / "secret.csv").write_text(f"secret\n{SECRET}\n")
    os.symlink(tmp_path / "secret.csv", tmp_path / "out" / "link.csv")
    os.symlink(tmp_path / "other", tmp_path / "out" / "linked")
    return tmp_path


@pytest.fixture
def dataset(home: Path) -> Iterator[Dataset]:
    with open_dataset(home / "out") as opened:
        yield opened


def _files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


READS_ELSEWHERE = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM read_json('{home}/secret.csv')",
    "SELECT * FROM sniff_csv('{home}/secret.csv')",
    "SELECT * FROM parquet_metadata('{home}/other/secret.parquet')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM glob('{home}/*')",
    "SELECT * FROM glob('{home}/out/../*')",
    "SELECT * FROM read_parquet('{home}/out-private/secret.parquet')",
    "SELECT * FROM '{home}/out-private/secret.parquet'",
    "SELECT * FROM read_parquet('{home}/out*/secret.parquet')",
    "SELECT * FROM read_parquet('{home}/out/../other/secret.parquet')",
    "SELECT * FROM read_parquet('{home}/out/index/../../other/secret.parquet')",
    "SELECT * FROM read_parquet(['{home}/out/index/frames.parquet', '{home}/other/secret.parquet'])",
    "SELECT * FROM read_parquet('file://{home}/other/secret.parquet')",
    "SELECT * FROM read_csv('{home}/out/link.csv')",
    "SELECT * FROM read_parquet('{home}/out/linked/secret.parquet')",
    "SELECT * FROM read_csv('https://example.com/x.csv')",
    "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
    "SELECT getenv('HOME')",
    "WITH x AS (SELECT * FROM read_text('{home}/secret.csv')) SELECT * FROM x",
    "SELECT * FROM query('SELECT * FROM read_text(''{home}/secret.csv'')')",
    "SELECT * FROM query_table('{home}/other/secret.parquet')",
]


@pytest.mark.parametrize("sql", READS_ELSEWHERE)
def test_nothing_outside_can_be_read(dataset: Dataset, home: Path, sql: str) -> None:
    sql = sql.format(home=home)
    with pytest.raises(UsageError) as caught:
        dataset.sql(sql)
    assert SECRET not in caught.value.message
    with pytest.raises(UsageError):
        select(dataset, Query(where=f"EXISTS ({sql})")).table()
    with pytest.raises(UsageError):
        select(dataset, Query()).table(f"({sql})")
    with pytest.raises(UsageError):
        select(dataset, Query(order_by=f"({sql})")).table()


NO_SELECT = [
    "COPY (SELECT 1) TO '{home}/made.csv'",
    "COPY (SELECT 1) TO '{home}/out/made.csv'",
    "EXPORT DATABASE '{home}/made'",
    "ATTACH '{home}/made.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{home}/evil.so'",
    "PRAGMA database_list",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "CREATE TABLE x AS SELECT 1",
    "DROP VIEW samples",
    "CALL pragma_version()",
    "EXPLAIN ANALYZE SELECT 1",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY (SELECT 1) TO '{home}/made.csv'",
    "SELECT 1 /* ; */; DROP VIEW samples",
    "SELECT 1 --\n; DROP VIEW samples",
    "",
    ";",
    "-- nothing",
]


@pytest.mark.parametrize("sql", NO_SELECT)
def test_only_one_select_runs(dataset: Dataset, home: Path, sql: str) -> None:
    dataset.frames.fetchall()
    before = _files(home)
    with pytest.raises(UsageError):
        dataset.sql(sql.format(home=home))
    assert _files(home) == before
    assert dataset.sql("SELECT count(*) AS n FROM samples")["n"].to_pylist() == [4]


PREDICATES_THAT_BREAK_OUT = [
    "true); DROP VIEW samples; --",
    "true; COPY (SELECT 1) TO '{home}/made.csv'",
    "true) UNION (SELECT 1",
    "true) UNION SELECT secret FROM '{home}/other/secret.parquet' --",
    "true /*",
    "true) --",
    "x'; DROP VIEW samples; --",
    "1 = 1) LIMIT 1; SELECT (1 = 1",
]


@pytest.mark.parametrize("where", PREDICATES_THAT_BREAK_OUT)
def test_a_predicate_stays_a_predicate(dataset: Dataset, home: Path, where: str) -> None:
    dataset.frames.fetchall()
    before = _files(home)
    with pytest.raises(UsageError):
        select(dataset, Query(where=where.format(home=home))).table()
    assert _files(home) == before
    assert select(dataset, Query()).count == 4


@pytest.mark.parametrize("where", ["frame_index < 2 -- only two", "frame_index /* ) */ < 2", "frame_index\n<\n2"])
def test_comments_and_lines_are_harmless(dataset: Dataset, where: str) -> None:
    assert select(dataset, Query(where=where)).count == 2
    assert select(dataset, Query(where=where, stride=2)).table("key -- the key").num_rows == 1


def test_what_a_query_may_do(dataset: Dataset, home: Path) -> None:
    for sql in (
        "SELECT 1;",
        "FROM samples SELECT count(*)",
        "WITH x AS (SELECT * FROM frames) SELECT max(frame_index) FROM x",
        f"SELECT * FROM read_parquet('{home}/out/index/frames.parquet')",
        "DESCRIBE samples",
        "SELECT json_extract_string(versions, '$.vrekit') FROM runs WHERE started_at > '2025-01-01'",
    ):
        assert dataset.sql(sql).num_rows >= 1


def test_python_variables_are_invisible(dataset: Dataset) -> None:
    hidden = pa.table({"secret": [SECRET]})
    with pytest.raises(UsageError, match="no table 'hidden'"):
        dataset.sql("SELECT * FROM hidden")
    assert hidden.num_rows == 1


@pytest.mark.parametrize("name", ["with space", "quote'd", 'double"', "[a]*?", "ümlaut", "semi;colon", "%s{}"])
def test_folders_with_any_name_work(tmp_path: Path, name: str) -> None:
    folder = write_dataset(tmp_path / name, [make_row("car", 0, "rgb")])
    write_dataset(tmp_path / "a", [make_row("car", 0, "rgb")])
    with open_dataset(folder) as dataset:
        assert select(dataset, Query(where="video_id = 'car'")).count == 1
        with pytest.raises(UsageError, match="may read this dataset and nothing else"):
            dataset.sql(f"SELECT * FROM read_parquet('{tmp_path}/a/index/frames.parquet')")


def test_a_relative_path_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path / "out", [make_row("car", 0, "rgb")])
    monkeypatch.chdir(tmp_path)
    with open_dataset("out") as dataset:
        monkeypatch.chdir("/")
        assert select(dataset, Query()).count == 1
