"""`sb analyze`: one answer whatever the file's form, and refusals that name what is wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from sb_pipelines import analyze, cli
from sb_pipelines.analyze import Events
from sb_serving import times
from sb_serving.errors import SbError
from sb_serving.events import OUTCOMES
from tests.builders import SESSION_BUDDY_INSERT, invocation, new_store

Row = dict[str, Any]
START = datetime(2026, 9, 1, tzinfo=UTC)
DAYS = 40


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Forty days of three skills; `falling` falls, `test` and `commit` share their sessions."""
    rng = np.random.default_rng(1)
    out: list[Row] = []
    for day in range(DAYS):
        for call in range(12):
            for skill, rate in (
                ("commit", 0.9),
                ("test", 0.8),
                ("falling", 0.95 - 0.8 * day / DAYS),
            ):
                at = START + timedelta(days=day, hours=2 * call, minutes=int(rng.integers(100)))
                alone = skill == "falling"
                out.append(
                    {
                        "skill_name": skill,
                        "invoked_at": at.isoformat(),
                        "session_id": f"{skill if alone else 'pair'}-{day}-{call}",
                        "user_id": f"user-{call % (3 if alone else 7)}",
                        "completed": bool(rng.random() < rate),
                        "duration_seconds": round(float(rng.lognormal()), 3),
                        "kind": "skill",
                    }
                )
    return out


def test_an_unknown_duration_does_not_count_as_a_millisecond(tmp_path: Path) -> None:
    """It did: greatest(NULL, 0.001) is 0.001."""
    known = [
        {
            "skill_name": "a",
            "invoked_at": (START + timedelta(days=day)).isoformat(),
            "duration_seconds": 2.0,
        }
        for day in range(14)
        for _ in range(3)
    ]
    unknown = [row | {"duration_seconds": None} for row in known[20:]]
    arguments = {"days": [14], "metric": "avg_duration_seconds"}
    one, other = (
        analyze.analyze("trends", Events.from_file(write(tmp_path / name, rows)), arguments)
        for name, rows in (("known.ndjson", known), ("mixed.ndjson", known + unknown))
    )
    assert one == other
    assert one["trends"][0]["end_value"] == pytest.approx(2.0)


def write(path: Path, rows: list[Row]) -> Path:
    """Rows as a file of the kind that its ending says."""
    lines = path.with_suffix(".ndjson")
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if path != lines:
        form = "parquet" if path.suffix == ".parquet" else "csv, header"
        with duckdb.connect() as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.execute(f"copy (from read_json('{lines}')) to '{path}' (format {form})")
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> Path:
    return write(tmp_path_factory.mktemp("events") / "events.parquet", rows)


@pytest.fixture(scope="module")
def outage(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> Path:
    """The same events, but all that started on 8 October failed."""
    failed = [
        row | {"completed": row["completed"] and not row["invoked_at"].startswith("2026-10-08")}
        for row in rows
    ]
    return write(tmp_path_factory.mktemp("outage") / "events.parquet", failed)


def run(path: Path, operation: str, **parameters: Any) -> Any:
    return analyze.analyze(operation, Events.from_file(path), parameters)


# --- answers

FIELDS = {
    "lift": (
        "pairs",
        "a b n_sessions n_a n_b n_ab support confidence_ab confidence_ba lift lift_low lift_high"
        " p_value q_value significant",
        {},
    ),
    "anomalies": (
        "anomalies",
        "skill_name metric anomaly_type window_start window_end n baseline_value observed_value"
        " deviation_score p_value q_value",
        {"score_from": "2026-10-01", "metrics": ["completion"]},
    ),
    "trends": (
        "trends",
        "skill_name days trend slope_per_day slope_low slope_high start_value end_value"
        " change_percent p_value q_value n",
        {"days": [30]},
    ),
    "baselines": ("baselines", "skill_name n users raw_rate shrunk_rate low high percentile", {}),
    "clusters": ("clusters", "skill_name cluster_id cluster_name membership_score", {"k": 2}),
    "predict": ("p", "value low high", {"train_until": "2026-10-01"}),
    "recommend": (
        "recommendations",
        "skill_name score completion_rate n source method reason",
        {"users": ["user-5"]},
    ),
}


BESIDE = {
    "clusters": {"k", "largest_share", "stability", "structure"},
    "predict": {"model", "metrics"},
}
NEEDED: dict[str, dict[str, Any]] = {
    "anomalies": {"score_from": "2026-09-01"},
    "predict": {"train_until": "2026-09-01"},
    "recommend": {"users": ["user-5"]},
}
"""Parameters without default."""


def listed(operation: str, answer: Any) -> list[Row]:
    """The rows of an answer."""
    if operation == "recommend":
        return [row for rows in answer["recommendations"].values() for row in rows]
    if operation == "predict":
        return list(answer["metrics"]["scores"]["forest"].values())
    rows: list[Row] = answer[FIELDS[operation][0]]
    return rows


@pytest.mark.parametrize("operation", FIELDS)
def test_an_answer_has_exactly_its_fields(outage: Path, operation: str) -> None:
    key, fields, parameters = FIELDS[operation]
    answer = json.loads(json.dumps(run(outage, operation, **parameters), allow_nan=False))
    assert set(answer) == {key} | BESIDE.get(operation, set())
    assert answer[key]
    for row in listed(operation, answer):
        assert list(row) == fields.split()


def test_every_operation_is_tested_here() -> None:
    assert set(FIELDS) == set(analyze.OPERATIONS)


def test_a_falling_skill_is_found_and_the_others_are_stable(file: Path) -> None:
    found = {row["skill_name"]: row for row in run(file, "trends", days=[30])["trends"]}
    assert [found[name]["trend"] for name in ("commit", "test", "falling")] == [
        "stable",
        "stable",
        "declining",
    ]
    assert found["falling"]["n"] == 360
    assert found["falling"]["end_value"] < 0.4 < found["falling"]["start_value"]


@pytest.mark.parametrize("metric", ["avg_duration_seconds", "invocation_count"])
def test_other_metrics_count_all_calls(file: Path, metric: str) -> None:
    found = run(file, "trends", days=[14], metric=metric)["trends"]
    assert [(row["n"], row["trend"]) for row in found] == [(168, "stable")] * 3
    expected = 12 if metric == "invocation_count" else np.exp(0.5)
    assert found[0]["start_value"] == pytest.approx(expected, rel=0.3)


def test_a_window_ends_where_it_is_told_to(file: Path) -> None:
    """A date alone is the whole day; a time in the day leaves later events out."""
    whole = run(file, "trends", days=[7], end="2026-09-20")["trends"][0]
    part = run(file, "trends", days=[7], end="2026-09-20T05:59:00+00:00")["trends"][0]
    assert (whole["n"], part["n"]) == (7 * 12, 6 * 12 + 3)


def test_half_a_day_of_events_is_no_fall_in_volume(tmp_path: Path, rows: list[Row]) -> None:
    noon = (START + timedelta(days=DAYS - 1, hours=12)).isoformat()
    path = write(tmp_path / "half.parquet", [row for row in rows if row["invoked_at"] < noon])
    found = run(path, "trends", days=[7], metric="invocation_count")["trends"]
    for row in found:
        assert row["n"] == 6 * 12 + 6
        assert row["end_value"] == pytest.approx(12, rel=0.25)


def test_users_are_users_and_not_sessions(file: Path) -> None:
    found = run(file, "baselines")["baselines"]
    assert {row["skill_name"]: row["users"] for row in found} == {
        "commit": 7,
        "test": 7,
        "falling": 3,
    }
    shown = run(file, "baselines", min_users=5)["baselines"]
    assert {row["skill_name"] for row in shown} == {"commit", "test"}


def test_a_pair_in_every_session_has_its_lift(file: Path) -> None:
    (pair,) = run(file, "lift")["pairs"]
    n = 12 * DAYS
    assert (pair["a"], pair["b"], pair["n_sessions"]) == ("commit", "test", 2 * n)
    assert (pair["n_a"], pair["n_b"], pair["n_ab"], pair["lift"]) == (n, n, n, 2.0)
    assert run(file, "lift", kind="tool")["pairs"] == []


def test_an_outage_is_an_anomaly(outage: Path) -> None:
    options = {"score_from": "2026-10-01", "metrics": ["completion"]}
    found = run(outage, "anomalies", **options)["anomalies"]
    assert {row["skill_name"] for row in found} >= {"commit", "test"}
    assert all(row["window_start"] >= "2026-10-07T20" for row in found)
    assert found[0]["window_start"].endswith("+00:00")


# --- files


@pytest.mark.parametrize("operation", ["anomalies", "clusters", "trends", "baselines", "lift"])
def test_form_and_order_of_the_file_do_not_matter(
    tmp_path: Path, rows: list[Row], file: Path, operation: str
) -> None:
    needed = FIELDS[operation][2]
    expected = run(file, operation, **needed)
    assert run(write(tmp_path / "e.csv", rows), operation, **needed) == expected
    backwards = write(tmp_path / "e.ndjson", rows[::-1])
    assert json.dumps(run(backwards, operation, **needed)) == json.dumps(expected)


def test_skills_db_gives_what_the_file_gives(tmp_path: Path, rows: list[Row], file: Path) -> None:
    """Other tools may write a time that cannot be read (left out) or a duration that cannot be."""
    with new_store(tmp_path) as store:
        store.bulk_import(
            invocation(
                number,
                event_id=None,
                skill_name=row["skill_name"],
                invoked_at=times.to_utc_text(row["invoked_at"]),
                session_id=row["session_id"],
                user_id=row["user_id"].rjust(32, "0").replace("user-", "00000"),
                outcome="completed" if row["completed"] else "failed",
                duration_seconds=row["duration_seconds"],
            )
            for number, row in enumerate(rows)
        )
        store.connection.execute(
            SESSION_BUDDY_INSERT, ("commit", "garbage", "s", 1, None, 1.0, None)
        )
        store.connection.execute("update skill_invocation set duration_seconds = -1 where id < 9")
    events = Events.from_store(tmp_path / "skills.db")
    for operation in ("trends", "baselines"):
        assert analyze.analyze(operation, events, {}) == run(file, operation)
    until = FIELDS["predict"][2]
    stored = analyze.analyze("predict", events, until)["p"]
    assert set(stored) <= set(map(str, range(1, len(rows) + 1)))  # ids of skills.db
    assert sorted(stored.values()) == pytest.approx(
        sorted(run(file, "predict", **until)["p"].values())
    )


def test_every_outcome_counts_as_what_it_is(tmp_path: Path) -> None:
    """Completion is completed over completed and failed; `outcome` goes before `completed`."""
    rows = [
        {"skill_name": "s", "invoked_at": "2026-09-01", "outcome": outcome, "completed": False}
        for outcome in (*OUTCOMES, "completed", "completed")
    ]
    (found,) = run(write(tmp_path / "e.ndjson", rows), "baselines")["baselines"]
    assert (found["n"], found["raw_rate"], found["users"]) == (4, 0.75, 1)


def test_missing_completed_is_no_failure(tmp_path: Path) -> None:
    rows = [{"skill_name": "s", "completed": value} for value in (True, None, False, True)]
    (found,) = run(write(tmp_path / "e.ndjson", rows), "baselines")["baselines"]
    assert (found["n"], found["raw_rate"]) == (3, pytest.approx(2 / 3))


def test_nan_is_an_unknown_duration(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("skill_name,invoked_at,duration_seconds\ns,2026-09-01,nan\ns,2026-09-02,2\n")
    (found,) = run(path, "trends", days=[7], metric="avg_duration_seconds")["trends"]
    assert (found["n"], found["trend"]) == (1, "insufficient_data")


HEADER = "skill_name,invoked_at,session_id,user_id,completed,duration_seconds\n"


@pytest.mark.parametrize(("name", "text"), [("e.csv", HEADER), ("e.ndjson", ""), ("e.jsonl", "\n")])
@pytest.mark.parametrize("operation", FIELDS)
def test_no_events_is_an_empty_answer(tmp_path: Path, operation: str, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    key = FIELDS[operation][0]
    answer = run(path, operation, **NEEDED.get(operation, {}))
    assert not any(answer[key].values() if operation == "recommend" else answer[key])


@pytest.mark.parametrize("operation", FIELDS)
def test_one_event_is_not_enough_and_no_error(tmp_path: Path, operation: str) -> None:
    row = {"skill_name": "s", "invoked_at": "2026-09-01T10:00:00Z", "session_id": "x"}
    row |= {"user_id": "u"}
    path = write(tmp_path / "e.ndjson", [row | {"completed": True, "duration_seconds": 1}])
    json.dumps(run(path, operation, **NEEDED.get(operation, {})), allow_nan=False)


@pytest.mark.parametrize("keep", ["2026-10-06 2026-10-07", "2026-09-01 2026-10-08"])
@pytest.mark.parametrize("operation", FIELDS)
def test_two_days_and_a_gap_of_weeks_are_no_error(
    tmp_path: Path, rows: list[Row], operation: str, keep: str
) -> None:
    some = [row for row in rows if row["invoked_at"][:10] in keep.split()]
    assert some
    answer = run(write(tmp_path / "e.ndjson", some), operation, **NEEDED.get(operation, {}))
    json.dumps(answer, allow_nan=False)
    if operation == "anomalies":
        assert answer["anomalies"] == []


# --- refusals


@pytest.mark.parametrize(
    ("operation", "column"),
    [
        ("trends", "skill_name"),
        ("trends", "invoked_at"),
        ("trends", "completed"),
        ("baselines", "completed"),
        ("lift", "session_id"),
        ("clusters", "session_id"),
        ("anomalies", "duration_seconds"),
        ("predict", "invoked_at"),
        ("recommend", "user_id"),
    ],
)
def test_a_missing_column_is_named(
    tmp_path: Path, rows: list[Row], operation: str, column: str
) -> None:
    some = [{key: value for key, value in row.items() if key != column} for row in rows[:50]]
    with pytest.raises(SbError, match=f"no column '{column}'"):
        run(write(tmp_path / "e.ndjson", some), operation, **NEEDED.get(operation, {}))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("skill_name", ""),
        ("invoked_at", "yesterday"),
        ("invoked_at", 1_700_000_000),
        ("completed", "maybe"),
        ("outcome", "success"),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, column: str, value: object) -> None:
    good = {"skill_name": "s", "invoked_at": "2026-09-01", "completed": "true"}
    path = write(tmp_path / "e.ndjson", [good, good | {column: value}])
    with pytest.raises(SbError, match=rf"{column} = '{value}' is .*\(1 rows\)"):
        run(path, "trends")


def test_a_series_of_other_values_may_stand_for_the_duration(tmp_path: Path) -> None:
    """Bytes written by a disk were refused: more than ten years."""
    written = 5e8 * np.random.default_rng(3).lognormal(0.0, 0.3, 48 * 30)
    written[1_300] = 1e11
    rows = [
        {
            "skill_name": "disk",
            "invoked_at": (START + timedelta(minutes=30 * step)).isoformat(),
            "duration_seconds": value,
        }
        for step, value in enumerate(written.tolist())
    ]
    path = write(tmp_path / "e.csv", rows)
    found = run(path, "anomalies", score_from="2026-09-15", metrics=["duration"])["anomalies"]
    assert [row["anomaly_type"] for row in found] == ["spike"]
    assert found[0]["window_start"].startswith("2026-09-28T02")


@pytest.mark.parametrize("value", ["-1", "inf", "long", "1e13"])
def test_a_bad_duration_is_named(tmp_path: Path, value: str) -> None:
    path = tmp_path / "e.csv"
    path.write_text(f"skill_name,invoked_at,duration_seconds\ns,2026-09-01,{value}\n")
    with pytest.raises(SbError, match=f"duration_seconds = '{value}'"):
        run(path, "trends", metric="avg_duration_seconds")


@pytest.mark.parametrize(
    ("operation", "parameters", "words"),
    [
        ("trends", {"window": 7}, "trends has no parameter 'window'. Its parameters are: end, da"),
        ("trends", {"days": 7}, "days = 7 is no list"),
        ("trends", {"days": []}, "no list with values"),
        ("trends", {"days": ["7"]}, "is no whole number from 1 on"),
        ("trends", {"days": [2]}, "days = 2 is not between"),
        ("trends", {"days": [10**9]}, "days = 1000000000 is not between"),
        ("trends", {"metric": "rating"}, 'metric = "rating" is none of completion_rate'),
        ("trends", {"end": "soon"}, 'end = "soon" is no ISO 8601 time'),
        ("trends", {"end": 5}, "end = 5 is no ISO 8601 time"),
        ("baselines", {"min_users": 0}, "min_users = 0 is no whole number from 1 on"),
        ("baselines", {"min_users": True}, "is no whole number from 1 on"),
        ("baselines", {"min_users": 10**40}, "is no whole number from 1 on"),
        ("lift", {"q": "x"}, 'q = "x" is no number'),
        ("lift", {"q": float("nan")}, "is no number above 0"),
        ("lift", {"kind": "robot"}, 'kind = "robot" is none of skill'),
        ("predict", {"train_until": "soon"}, 'train_until = "soon" is no ISO 8601 time'),
        ("recommend", {"users": "user-5"}, 'users = "user-5" is no list'),
        ("anomalies", {}, "anomalies needs the parameter 'score_from'"),
        ("anomalies", {"score_from": "2026-10-01", "metrics": ["mood"]}, "is none of completion"),
    ],
)
def test_a_bad_parameter_is_named(
    file: Path, operation: str, parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises(SbError) as refused:
        run(file, operation, **parameters)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("none.csv", None, "there is no file"),
        ("e.xlsx", "x", "ends in '.xlsx'"),
        ("e.parquet", "x", "cannot be read"),
        ("e.csv", "", "is empty"),
        ("e.ndjson", '{"skill_name": "s"}\nnonsense\n', "cannot be read"),
    ],
)
def test_an_unreadable_file_is_named(
    tmp_path: Path, name: str, text: str | None, words: str
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(SbError, match=words) as refused:
        run(path, "baselines")
    assert name in str(refused.value)


# --- the command


def sb(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `sb analyze` in this process; its exit code."""
    monkeypatch.setattr("sys.argv", ["sb", "analyze", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return int(done.value.code or 0)


def test_the_command_prints_json_or_writes_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sb(monkeypatch, "baselines", "--events", file) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == run(file, "baselines")
    parameters = tmp_path / "params.json"
    parameters.write_text('{"min_users": 5}')
    out = tmp_path / "out.json"
    assert sb(monkeypatch, "baselines", "--events", file, "--params", parameters, "--out", out) == 0
    assert capsys.readouterr().out == ""
    assert json.loads(out.read_text()) == run(file, "baselines", min_users=5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["baselines"], "either --events FILE or --db FILE"),
        (["baselines", "--db", "none.db"], "none.db"),
        (["baselines", "--events", "none.csv"], "none.csv"),
        (["trends", "--events", "x.csv", "--params", '{"window": 7}'], "no parameter 'window'"),
        (["trends", "--events", "x.csv", "--params", "{days"], "--params is not valid JSON"),
        (["trends", "--events", "x.csv", "--params", "none.json"], "neither a JSON object nor"),
        (["mood", "--events", "x.csv"], "'mood' is not one of"),
    ],
)
def test_refusals_are_one_line_and_exit_code_2(
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sb(monkeypatch, *arguments) == 2
    assert words in capsys.readouterr().err


def test_every_operation_is_documented_with_its_parameters() -> None:
    page = (Path(__file__).parent.parent / "docs/analyze.md").read_text()
    for operation in analyze.OPERATIONS.values():
        signature = analyze.describe(operation).partition(": ")[0]
        assert f"`{signature}`" in page
