"""A DuckDB connection that can read one dataset and nothing else, for SQL that comes from outside.

Four locks, each tested: DuckDB may open files of the dataset's folder only, with external access off (no other file,
no network, no extension) and the configuration locked; every text that runs is exactly one SELECT; nothing of
Python's variables is visible, nor are DuckDB's settings and internals; time and memory are bounded, and a signal ends
a query (`statements.py`). Tables exist in memory only, so there is nothing a query could change.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import duckdb
import pyarrow as pa

from vrekit.catalog.statements import Statements, query_memory
from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.names import did_you_mean

T = TypeVar("T")

_MISSING_COLUMN = re.compile(
    r'(?:Referenced column|column named|does not have a column named) "?([^"\n]+?)"?(?: not found|$|\n)'
)
_WORD = re.compile(r"\w+")
# What tells about the machine, the process or DuckDB instead of the dataset, and what runs text as SQL, which could
# name it in pieces. SHOW gives settings, too.
_INTERNAL = re.compile(
    r"\b(?P<name>(?:duckdb|pragma)_\w+|pg_settings|pg_prepared_statements|current_setting|getvariable|getenv|which_secret"
    r"|json_execute_serialized_sql|read_duckdb|write_log|truncate_duckdb_logs|\w*_external_resource\w*"
    r"|(?:python|python_arrow|arrow|pandas|seq)_scan\w*|python_map_function"
    r"|(?:force_)?checkpoint(?=[\"`]?\s*\()|query(?:_table)?(?=[\"`]?\s*\()|(?<![\"`])show(?=\s+(?!(?:all\s+)?tables\b)[\w\"`(]))",
    re.IGNORECASE,
)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_MISSING_TABLE = re.compile(r'(?:Referenced table|Table with name) "?(.+?)"? (?:not found|does not exist)')


class Sandbox:
    """The connection; not for use from several threads at once.

    Args:
        folder: The dataset.
        files: Table name → Parquet file inside the folder.
        tables: Table name → Arrow table.
        views: Table name → SELECT over these.
        late_views: Table name → returns such a SELECT; asked for when a query first names the table, so that what
            is wrong with it, or takes long, does not concern other queries.
        names: The tables that messages speak of.
        memory_bytes: How much memory a query may use; a quarter of the machine's by default.
    """

    def __init__(
        self,
        folder: Path,
        *,
        files: Mapping[str, Path],
        tables: Mapping[str, pa.Table],
        views: Mapping[str, str],
        late_views: Mapping[str, Callable[[], str]],
        names: Sequence[str],
        memory_bytes: int | None = None,
    ) -> None:
        memory_bytes = query_memory(memory_bytes)
        self._names = list(names)
        self._late_views = dict(late_views)
        # With the slash, so that `data/` does not open `data-private/`, too.
        allowed = _literal(os.path.join(folder.resolve(), ""))
        self._connection = duckdb.connect(config={"python_enable_replacements": "false"})
        self._statements = Statements(self._connection, memory_bytes)
        for setting in (
            f"memory_limit = '{memory_bytes}B'",
            "autoinstall_known_extensions = false",
            "autoload_known_extensions = false",
            "temp_directory = ''",  # else a large query would leave files in the current folder
            "enable_progress_bar = false",
            "parquet_metadata_cache = true",  # a query is several statements; one of 10 M rows saves 10 ms for each
            f"allowed_directories = [{allowed}]",
            "enable_external_access = false",
        ):
            self._connection.execute(f"SET {setting}")
        for name, table in tables.items():
            self._connection.register(name, table)
        for name, path in files.items():
            source = f"read_parquet({_literal(str(path.resolve()))})"
            self._connection.execute(f"CREATE VIEW {name} AS SELECT * FROM {source}")
        for name, sql in views.items():
            self._connection.execute(f"CREATE VIEW {name} AS {sql}")
        self._connection.execute("SET lock_configuration = true")

    @property
    def is_abandoned(self) -> bool:
        """Whether a query could not be stopped; nothing else runs on this connection then."""
        return self._statements.is_abandoned

    def time_limit(self, seconds: float | None) -> AbstractContextManager[None]:
        """Have queries fail with QueryLimitError that still run so many seconds from now; None sets no limit."""
        return self._statements.time_limit(seconds)

    def relation(self, sql: str) -> duckdb.DuckDBPyRelation:
        """Return what a SELECT describes, before anything is computed.

        Raises:
            UsageError: If it is not exactly one SELECT, or does not fit the tables.
            QueryLimitError: If it takes too long, or too much memory.
        """
        return self._run(sql, lambda relation: relation)

    def fetch(self, sql: str, *, first: int | None = None) -> pa.Table:
        """Return the result of a SELECT, or its first rows, as an Arrow table; errors as in `relation`."""
        if first is None:
            return self._run(sql, lambda relation: relation.to_arrow_table())
        return self._run(sql, lambda relation: _first_rows(relation.to_arrow_reader(first), first))

    def count(self, sql: str) -> int:
        """Return how many rows a SELECT gives; errors as in `relation`."""
        return self._run(sql, lambda relation: sum(int(batch.num_rows) for batch in relation.to_arrow_reader()))

    def _run(self, sql: str, use: Callable[[duckdb.DuckDBPyRelation], T]) -> T:
        self.check_one_select(sql)

        def call() -> T:
            self._make_late_views(sql)
            return use(self._connection.sql(sql))

        try:
            return self._statements.run(call)
        except duckdb.Error as error:
            self._raise(error, sql)

    def _make_late_views(self, sql: str) -> None:
        for name in self._late_views.keys() & {word.lower() for word in _WORD.findall(sql)}:
            try:
                self._connection.execute(f"CREATE VIEW {name} AS {self._late_views[name]()}")
            except (duckdb.BinderException, duckdb.CatalogException) as error:  # not the query's mistake
                raise DatasetError(f"the table {name} cannot be read: {error}") from error
            del self._late_views[name]

    def register(self, name: str, table: pa.Table) -> None:
        """Make an Arrow table readable by name; it replaces an earlier one of that name."""
        self._connection.register(name, table)

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns."""
        return list(self.relation(f"SELECT * FROM {table} LIMIT 0").columns)

    def close(self) -> None:
        """Free the connection; one with a query that could not be stopped is left to it."""
        if not self.is_abandoned:
            self._connection.close()

    def check_one_select(self, sql: str) -> None:
        """Raise UsageError unless `sql` is exactly one SELECT statement."""
        try:
            statements = duckdb.extract_statements(sql)
        except duckdb.Error as error:
            self._raise(error, sql)
        kinds = [statement.type for statement in statements]
        if kinds != [duckdb.StatementType.SELECT]:
            got = ", ".join(kind.name for kind in kinds) or "nothing"
            raise UsageError(
                f"a query is exactly one SELECT statement, got: {got}",
                hint="queries only read; write the result with --format or --save",
            )
        if match := _INTERNAL.search(_code(sql)):
            raise UsageError(
                f"a query may read this dataset and nothing else: {match['name']} is not for queries",
                hint=f"its tables are {', '.join(self._names)}",
            )

    def _raise(self, error: duckdb.Error, sql: str) -> NoReturn:
        lines = [line for line in str(error).splitlines() if line.strip()]
        kind, _, message = lines[0].partition(": ")
        text = message or kind
        if isinstance(error, duckdb.PermissionException):
            raise UsageError(
                f"a query may read this dataset and nothing else: {text}",
                hint=f"its tables are {', '.join(self._names)}",
            ) from error
        if isinstance(error, duckdb.OutOfMemoryException):
            raise self._statements.out_of_memory() from error
        if isinstance(error, duckdb.IOException):
            raise DatasetError(f"the query failed: {text}") from error
        if isinstance(error, duckdb.InvalidInputException) and ".parquet'" in text:
            raise DatasetError(
                f"the query failed: {text}",
                hint="if it is a list of items, delete it and run `vrekit items` again: it only repeats payloads",
            ) from error
        if match := _MISSING_COLUMN.search(str(error)):
            used = [name for name in self._names if name in _WORD.findall(sql)] or self._names
            raise UnknownColumnError(match.group(1), {name: self.columns(name) for name in used}) from error
        if match := _MISSING_TABLE.search(lines[0]):
            raise UnknownTableError(
                f"no table {match.group(1)!r}{did_you_mean(match.group(1), self._names)}",
                hint=f"the tables are {', '.join(self._names)}",
            ) from error
        raise UsageError(f"the query is not valid SQL: {text}") from error


def _first_rows(reader: pa.RecordBatchReader, first: int) -> pa.Table:
    batches, missing = [], first
    while missing > 0 and (batch := next(reader, None)) is not None:
        batches.append(batch.slice(0, missing))
        missing -= batches[-1].num_rows
    return pa.Table.from_batches(batches, reader.schema)


def _code(sql: str) -> str:
    """Return a statement without its texts and comments; what separates words for DuckDB is a space."""
    tokens, text = duckdb.tokenize(sql), sql.encode()  # it counts in bytes
    ends = [start for start, _ in tokens[1:]] + [len(text)]
    left_out = (duckdb.token_type.string_const, duckdb.token_type.comment)
    parts = [text[start:end] for (start, kind), end in zip(tokens, ends, strict=True) if kind not in left_out]
    return _NOT_ASCII.sub(" ", b" ".join(parts).decode(errors="replace"))


class UnknownTableError(UsageError):
    """A query names a table that is not there."""


class UnknownColumnError(UsageError):
    """A query names a column that is not there; the hint lists what is."""

    def __init__(self, column: str, tables: Mapping[str, Sequence[str]]) -> None:
        self.column = column
        known = dict.fromkeys(name for names in tables.values() for name in names)
        near = difflib.get_close_matches(column.lower(), known, n=3, cutoff=0.6)
        suggestion = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
        columns = "; ".join(f"{table} has the columns {', '.join(names)}" for table, names in tables.items())
        quotes = "" if near else f"text goes in single quotes: '{column}'; "
        super().__init__(f"no column {column!r}{suggestion}", hint=f"{quotes}{columns}")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def sql_literal(value: Any) -> str:
    """Return a value as SQL: numbers as they are, text in single quotes."""
    return _literal(value) if isinstance(value, str) else str(value)
