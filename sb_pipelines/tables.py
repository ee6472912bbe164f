"""Rows computed in Python into a table of the warehouse.

Belongs here: typed columns from rows, and adding them or putting them in place of the old ones.
Does not: what the rows mean (`defs/`, `sql/warehouse/`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

_DTYPES = {
    "BIGINT": "int64",
    "INTEGER": "int32",
    "DOUBLE": "float64",
    "BOOLEAN": "bool",
    "TIMESTAMP": "datetime64[us]",
}
"""Everything else (text, blobs) goes through as Python objects."""


def replace(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Mapping[str, Any]]
) -> int:
    """Put rows in place of all that a table holds, in the caller's transaction.

    Args:
        connection: The warehouse.
        table: Its name.
        rows: As for `insert`.

    Returns:
        The number of rows.
    """
    connection.execute(f"delete from {table}")  # noqa: S608 (names of our own schema)
    return insert(connection, table, rows)


def insert(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Mapping[str, Any]]
) -> int:
    """Add rows to a table, in the caller's transaction.

    As typed columns: row by row, DuckDB takes a millisecond each.

    Args:
        connection: The warehouse.
        table: Its name.
        rows: One value per column of the table, None for NULL.

    Returns:
        The number of rows.

    Raises:
        KeyError: A row lacks a column.
        ValueError: A row has a value that the table has no column for.
    """
    for row in rows:
        if row.keys() != rows[0].keys():
            raise KeyError(f"rows of {table} differ in columns: {row.keys() ^ rows[0].keys()}")
    names = rows[0].keys() if rows else _kinds(connection, table)
    return _insert_columns(connection, table, {name: [row[name] for row in rows] for name in names})


def replace_columns(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    columns: Mapping[str, Sequence[Any] | NDArray[Any]],
) -> int:
    """`replace`, from columns.

    Args:
        connection: The warehouse.
        table: Its name.
        columns: One list or array per column of the table, all of one length; None, or a masked
            value, is NULL.

    Returns:
        The number of rows.

    Raises:
        KeyError: A column is missing.
        ValueError: The table has no such column.
    """
    connection.execute(f"delete from {table}")  # noqa: S608 (names of our own schema)
    return _insert_columns(connection, table, columns)


def _insert_columns(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    columns: Mapping[str, Sequence[Any] | NDArray[Any]],
) -> int:
    kinds = _kinds(connection, table)
    if unknown := columns.keys() - kinds.keys():
        raise ValueError(f"{table} has no column {', '.join(sorted(unknown))}")
    new_rows = {name: _column(columns[name], kind) for name, kind in kinds.items()}
    rows = len(next(iter(new_rows.values())))
    if rows:
        listed = ", ".join(f'"{name}"' for name in kinds)
        connection.execute(
            f"insert into {table} ({listed}) select {listed} from new_rows"  # noqa: S608
        )
    del new_rows  # DuckDB found it by its name
    return rows


def _kinds(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """A table's columns and their types."""
    return dict(
        connection.execute(
            "select column_name, data_type from information_schema.columns"
            " where table_name = ? and table_schema = 'main'"
            " and table_catalog = current_database() order by ordinal_position",
            [table],
        ).fetchall()
    )


def _column(values: Sequence[Any] | NDArray[Any], kind: str) -> Any:
    dtype = _DTYPES.get(kind)
    if dtype is None:
        column = np.empty(len(values), dtype=object)
        column[:] = values
        return column
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values.astype(dtype)
    missing = np.array([value is None for value in values], dtype=bool)
    filled = np.array([0 if value is None else value for value in values], dtype=dtype)
    return np.ma.masked_array(filled, mask=missing)
