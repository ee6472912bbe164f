"""The commands as a shell sees them: output, JSON, exit codes, one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sb_pipelines import cli
from tests.claude_code_builder import Log


def sb(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run `sb` in this process."""
    code = 0
    argv = sys.argv
    sys.argv = ["sb", *arguments]
    try:
        cli.main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.argv = argv
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    code, out, err = sb(capsys, *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_record_then_status(capsys: pytest.CaptureFixture[str]) -> None:
    first = as_json(capsys, "record", "commit", "--session", "s", "--event-id", "e")
    again = as_json(capsys, "record", "commit", "--session", "s", "--event-id", "e")
    assert (first["duplicate"], again["duplicate"]) == (False, True)
    facts = as_json(capsys, "status")
    assert facts["skills_db"]["invocations"] == 1
    assert facts["snapshot"] is None


def test_status_without_a_database_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = sb(capsys, "status")
    assert (code, out) == (2, "")
    assert err.startswith("sb: there is no database at ")
    assert "sb ingest claude-code" in err


def test_a_refused_record_stores_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = sb(capsys, "record", "commit", "--session", "s", "--duration", "-1")
    assert code == 2
    assert "duration_seconds = -1.0" in err
    assert as_json(capsys, "status")["skills_db"]["invocations"] == 0


def test_demo_twice_adds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    end = ("--end", "2026-11-20T00:00:00Z")
    assert as_json(capsys, "demo", "--rows", "300", *end)["inserted"] == 300
    again = as_json(capsys, "demo", "--rows", "300", *end)
    assert (again["inserted"], again["duplicates"]) == (0, 300)


def test_ingest_of_a_missing_folder_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = sb(capsys, "ingest", "claude-code", str(tmp_path / "nowhere"))
    assert code == 2
    assert "nowhere" in err


def test_ingest_reports_its_counts_as_json(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`asdict` turned the counters into counts of pairs, which JSON refused."""
    Log().run("call-1").run("call-2").write(tmp_path / "one.jsonl")
    first = as_json(capsys, "ingest", "claude-code", str(tmp_path))
    assert (first["inserted"], first["by_kind"]) == (2, {"tool": 2})
    assert as_json(capsys, "ingest", "claude-code", str(tmp_path))["inserted"] == 0


def test_try_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, sb_home: Path
) -> None:
    folder = tmp_path / "projects"
    folder.mkdir()
    log = Log()
    for number in range(3):
        log.run(f"call-{number}")
    log.write(folder / "one.jsonl")
    code, out, _ = sb(capsys, "try", str(folder))
    assert code == 0
    assert "Found 1 sessions, 3 tool calls" in out
    assert "not enough data" in out
    assert list(sb_home.iterdir()) == []


def test_try_without_transcripts_points_to_the_demo(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = sb(capsys, "try", str(tmp_path / "nowhere"))
    assert code == 2
    assert "sb try --demo" in err


def test_try_demo_finds_what_fails(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "try", "--demo")
    assert found["invocations"] == 20_000
    assert found["failing"]
    for failing in found["failing"]:
        assert failing["low"] <= failing["failed"] / failing["decided"] <= failing["high"]


def test_doctor_names_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = sb(capsys, "doctor", "--json")
    findings = {finding["part"]: finding for finding in json.loads(out)}
    assert code == 1
    assert not findings["skills.db"]["ok"]
    assert findings["versions"]["ok"]


def test_recording_loads_no_heavy_library() -> None:
    """A hook calls `sb record` after each tool: it must not wait for imports that it never uses."""
    code = (
        "import sys; from sb_pipelines.cli import sb;"
        "sb(['record', 'x', '--session', 's'], standalone_mode=False);"
        "heavy = {'duckdb', 'numpy', 'dagster', 'pandas', 'mcp', 'rich', 'scipy', 'asyncio'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_expected_pairs_are_written_listed_and_removed(capsys: pytest.CaptureFixture[str]) -> None:
    """The order of the two names is no matter; a second time changes the lift."""
    as_json(capsys, "record", "commit", "--session", "s")
    assert as_json(capsys, "expect") == []
    first = as_json(capsys, "expect", "ruff-check", "black-format", "--lift", "3.5")
    assert (first["skill_a"], first["skill_b"]) == ("black-format", "ruff-check")
    as_json(capsys, "expect", "black-format", "ruff-check", "--lift", "2")
    as_json(capsys, "expect", "git-push", "git-commit")
    listed = as_json(capsys, "expect")
    assert [(row["skill_a"], row["skill_b"], row["lift"]) for row in listed] == [
        ("black-format", "ruff-check", 2.0),
        ("git-commit", "git-push", None),
    ]
    assert sb(capsys, "expect")[1] == "black-format + ruff-check, lift 2\ngit-commit + git-push\n"
    assert as_json(capsys, "expect", "git-push", "git-commit", "--remove")["removed"] is True
    assert len(as_json(capsys, "expect")) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a", "a"), "both 'a'"),
        (("a", " "), "not empty"),
        (("a", "b", "--lift", "1"), "lift = 1 is not above 1"),
        (("a", "b", "--lift", "nan"), "lift = nan"),
        (("a", "b", "--remove"), "a + b is not expected"),
        (("a",), "name two skills"),
        (("--lift", "2"), "name two skills"),
        (("a", "b", "--remove", "--lift", "2"), "--remove takes no --lift"),
    ],
)
def test_a_pair_that_cannot_be_expected_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    as_json(capsys, "record", "commit", "--session", "s")
    code, _, err = sb(capsys, "expect", *arguments)
    assert (code, words in err) == (2, True), err
