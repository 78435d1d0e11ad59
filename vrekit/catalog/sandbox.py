"""A DuckDB connection that can read one dataset and nothing else, for SQL that comes from outside.

Three locks, each tested: DuckDB may open files of the dataset's folder only, with external access off (no other file,
no network, no extension) and the configuration locked; every text that runs is exactly one SELECT; nothing of
Python's variables is visible. Tables exist in memory only, so there is nothing a query could change.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import duckdb
import pyarrow as pa

from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.names import did_you_mean

_MISSING_COLUMN = re.compile(
    r'(?:Referenced column|column named|does not have a column named) "?([^"\n]+?)"?(?: not found|$|\n)'
)
_WORD = re.compile(r"\w+")
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
    ) -> None:
        self._names = list(names)
        self._late_views = dict(late_views)
        # With the slash, so that `data/` does not open `data-private/`, too.
        allowed = _literal(os.path.join(folder.resolve(), ""))
        self._connection = duckdb.connect(config={"python_enable_replacements": "false"})
        for setting in (
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

    def relation(self, sql: str) -> duckdb.DuckDBPyRelation:
        """Return what a SELECT describes, before anything is computed.

        Raises:
            UsageError: If it is not exactly one SELECT, or does not fit the tables.
        """
        self.check_one_select(sql)
        try:
            self._make_late_views(sql)
            return self._connection.sql(sql)
        except duckdb.Error as error:
            self._raise(error, sql)

    def _make_late_views(self, sql: str) -> None:
        for name in self._late_views.keys() & {word.lower() for word in _WORD.findall(sql)}:
            self._connection.execute(f"CREATE VIEW {name} AS {self._late_views[name]()}")
            del self._late_views[name]

    def fetch(self, sql: str) -> pa.Table:
        """Return the result of a SELECT as an Arrow table; errors as in `relation`."""
        relation = self.relation(sql)
        try:
            return relation.to_arrow_table()
        except duckdb.Error as error:
            self._raise(error, sql)

    def register(self, name: str, table: pa.Table) -> None:
        """Make an Arrow table readable by name; it replaces an earlier one of that name."""
        self._connection.register(name, table)

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns."""
        return list(self.relation(f"SELECT * FROM {table} LIMIT 0").columns)

    def close(self) -> None:
        """Free the connection."""
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

    def _raise(self, error: duckdb.Error, sql: str) -> NoReturn:
        lines = [line for line in str(error).splitlines() if line.strip()]
        kind, _, message = lines[0].partition(": ")
        text = message or kind
        if isinstance(error, duckdb.PermissionException):
            raise UsageError(
                f"a query may read this dataset and nothing else: {text}",
                hint=f"its tables are {', '.join(self._names)}",
            ) from error
        if isinstance(error, (duckdb.OutOfMemoryException, duckdb.IOException)):
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
