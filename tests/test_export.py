"""`sb export`: what other programs read equals what is served."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pandas
import pytest
from click.testing import CliRunner

from sb_pipelines import cli, export
from sb_pipelines.export import FORMATS
from sb_serving import snapshot, sql
from sb_serving.errors import SbError
from sb_serving.settings import Settings

SCHEMA = sql.load("warehouse/schema.sql")
ROWS = [("Read", 'it\'s, "quoted"\nand long', 2, 0.5), ("commit", None, 1, None)]


@pytest.fixture
def folder(sb_home: Path) -> Path:
    """A snapshot with a small table, and an empty one."""

    def build(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("create table named (skill_name text, note text, n bigint, rate double)")
        connection.executemany("insert into named values (?, ?, ?, ?)", ROWS[::-1])
        connection.execute("create table nothing (moment timestamp)")
        (totals,) = re.findall(r"create table if not exists (skill_totals .*?);", SCHEMA, re.S)
        connection.execute(f"create table {totals}")
        snapshot.put_array(connection, "model", pandas.Series([1.0]).to_numpy())

    path = Settings.load().snapshots
    now = datetime(2026, 11, 20, tzinfo=UTC)
    snapshot.publish(
        build, path, watermark_id=1, watermark_at=now, published_at=now, code_version="test"
    )
    return path


def test_each_format_is_read_back_the_same(folder: Path, tmp_path: Path) -> None:
    paths = {form: tmp_path / f"it's here.{form}" for form in FORMATS}
    for path in paths.values():
        assert export.export(folder, "named", path) == export.Exported(path, 2, 1)
    assert (
        duckdb.sql(f"from '{str(paths['parquet']).replace(chr(39), chr(39) * 2)}'").fetchall()
        == ROWS
    )
    with paths["csv"].open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["skill_name", "note", "n", "rate"]
    assert rows == [["Read", ROWS[0][1], "2", "0.5"], ["commit", "", "1", ""]]
    objects = [dict(zip(header, row, strict=True)) for row in ROWS]
    assert json.loads(paths["json"].read_text()) == objects
    assert [json.loads(line) for line in paths["ndjson"].read_text().splitlines()] == objects
    assert pandas.read_json(paths["json"])["n"].tolist() == [2, 1]


def test_an_empty_table_is_a_file_with_columns(folder: Path, tmp_path: Path) -> None:
    export.export(folder, "nothing", tmp_path / "n.csv")
    assert (tmp_path / "n.csv").read_text() == "moment\n"
    export.export(folder, "nothing", tmp_path / "n.json")
    assert json.loads((tmp_path / "n.json").read_text()) == []


def test_a_file_is_whole_or_as_before(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "old.csv"
    out.write_text("old")
    with pytest.raises(
        SbError, match=r"no table 'nme' in snapshot 1. Tables: named, nothing, skill"
    ):
        export.export(folder, "nme", out)
    with pytest.raises(SbError, match=r"cannot be written"):
        export.export(folder, "named", tmp_path / "absent" / "n.csv")
    assert out.read_text() == "old"
    export.export(folder, "named", out)
    assert out.read_text() != "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "old.csv"]


def test_wrong_uses_say_what_to_do(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SbError, match=r"suffix of .* names no format. Use one of \.parquet, \.csv"):
        export.export(folder, "named", tmp_path / "n.xlsx")
    with pytest.raises(SbError, match="Parquet cannot be written to the standard output"):
        export.export(folder, "named", export.STDOUT, "parquet")
    with pytest.raises(SbError, match=r"no snapshot in .*nowhere. Run `sb refresh`"):
        export.tables(tmp_path / "nowhere")


def test_the_command_lists_and_writes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    listed = CliRunner().invoke(cli.sb, ["export"])
    assert listed.output.split() == [
        *("named", "2", "rows"),
        *("nothing", "0", "rows"),
        *("skill_totals", "0", "rows"),
    ]
    written = CliRunner().invoke(cli.sb, ["export", "named"])
    assert written.exit_code == 0
    assert Path("named.parquet").stat().st_size > 100


def test_the_standard_output_carries_rows_alone(folder: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sb_pipelines.cli",
            "export",
            "named",
            "--out",
            "-",
            "--format",
            "ndjson",
        ],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [json.loads(line)["n"] for line in done.stdout.splitlines()] == [2, 1]
    assert done.stderr == "wrote 2 rows of snapshot 1 to -\n"
