"""Writes a published table to a file that other programs read: Parquet, CSV, JSON.

Here: which tables there are, and how a file comes to be whole or not at all. It reads the newest
snapshot, never the warehouse, so a run in progress neither waits nor shows.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import duckdb

from sb_serving.errors import SbError
from sb_serving.snapshot import SnapshotHolder

FORMATS = {
    "parquet": "format parquet",
    "csv": "format csv, header",
    "json": "format json, array true",
    "ndjson": "format json, array false",
}
"""Format, also the file's suffix -> options of COPY."""

STDOUT = Path("-")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        path: The file; `-` is the standard output.
        rows: Its rows.
        snapshot_number: The snapshot that they come from.
    """

    path: Path
    rows: int
    snapshot_number: int


def tables(folder: Path) -> dict[str, int]:
    """The tables of the newest snapshot and their rows.

    Raises:
        SbError: Nothing was published yet.
    """
    return _newest(folder)[1]


def export(folder: Path, table: str, out: Path | None = None, form: str | None = None) -> Exported:
    """Write one table of the newest snapshot.

    Args:
        folder: Where the snapshots are.
        table: One of `tables`.
        out: The file; replaced if it is there. Default: the table's name in the current folder.
        form: One of `FORMATS`; default: what the file's suffix says, else Parquet.

    Raises:
        SbError: There is no such table or format, nothing was published, or the file cannot be
            written; a file that was there is as before.
    """
    number, known = _newest(folder)
    if table not in known:
        raise SbError(
            f"there is no table {table!r} in snapshot {number}",
            fix=f"Tables: {', '.join(sorted(known))}.",
        )
    form = form or _form_of(out)
    out = Path(f"{table}.{form}") if out is None else out
    if out == STDOUT and form == "parquet":
        raise SbError(
            "Parquet cannot be written to the standard output", fix="Name a file with --out."
        )
    if out == STDOUT:
        sys.stdout.flush()
        _copy(folder, number, table, Path("/dev/stdout"), form)
    else:
        half = out.with_name(f".{out.name}.half")
        try:
            _copy(folder, number, table, half, form)
            half.replace(out)
        except OSError as error:
            raise SbError(f"{out} cannot be written: {error.strerror}") from error
        finally:
            half.unlink(missing_ok=True)
    return Exported(out, known[table], number)


def _newest(folder: Path) -> tuple[int, dict[str, int]]:
    """Number of the newest good snapshot, and its tables; `arrays` holds models, as bytes."""
    holder = SnapshotHolder(folder)
    try:
        with holder.pin() as snapshot:
            if snapshot is None:
                raise SbError(f"there is no snapshot in {folder}", fix="Run `sb refresh`.")
            counts = snapshot.manifest.table_counts
            return snapshot.manifest.number, {
                name: rows for name, rows in counts.items() if name != "arrays"
            }
    finally:
        holder.close()


def _form_of(out: Path | None) -> str:
    if out is None or out == STDOUT:
        return "parquet" if out is None else "csv"
    form = out.suffix.removeprefix(".").lower()
    if form not in FORMATS:
        raise SbError(
            f"the suffix of {out} names no format",
            fix=f"Use one of .{', .'.join(FORMATS)}, or say --format.",
        )
    return form


def _copy(folder: Path, number: int, table: str, path: Path, form: str) -> None:
    source, target = (
        str(name).replace("'", "''") for name in (folder / f"{number:06d}.duckdb", path)
    )
    # The snapshot's own connection may not touch other files.
    with duckdb.connect() as connection:
        try:
            connection.execute("set TimeZone = 'UTC'")
            connection.execute(f"attach '{source}' as snapshot (read_only)")
            connection.execute(
                f"copy (from snapshot.\"{table}\" order by all) to '{target}' ({FORMATS[form]})"
            )
        except duckdb.IOException as error:
            raise SbError(f"{path} cannot be written: {str(error).splitlines()[0]}") from error
