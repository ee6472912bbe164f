"""What holds for each analytic of `sb analyze` whatever the events are.

Order of rows, copies of rows, no row, one row, all or none completed, a million rows of one skill.
The statistics' own properties are in their own tests.
"""

from __future__ import annotations

import json
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sb_pipelines import analyze
from sb_pipelines.analyze import Events

START = datetime(2026, 9, 1, tzinfo=UTC)
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("trends", {"days": [7, 30]}),
    ("trends", {"days": [30], "metric": "avg_duration_seconds"}),
    ("trends", {"days": [14], "metric": "invocation_count"}),
    ("baselines", {}),
    ("lift", {"min_count": 1}),
    ("clusters", {}),
]
IDS = [f"{name}-{'-'.join(map(str, given.values()))}" for name, given in ASKED]
COLUMNS = "event_id, skill_name, invoked_at, session_id, user_id, completed, duration_seconds"

ROWS = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.integers(0, 40 * 24),
        st.integers(0, 9),
        st.sampled_from([True, True, False, None]),
        st.sampled_from([None, 0.0, 0.5, 90.0]),
    ),
    max_size=80,
)


def events(rows: list[dict[str, Any]], folder: Path) -> Events:
    path = folder / "events.ndjson"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Events.from_file(path)


def as_rows(drawn: list[tuple[str, int, int, bool | None, float | None]]) -> list[dict[str, Any]]:
    return [
        {
            "event_id": f"e{number}",
            "skill_name": skill,
            "invoked_at": (START + timedelta(hours=hour)).isoformat(),
            "session_id": f"s{session}",
            "user_id": f"u{session % 3}",
            "completed": completed,
            "duration_seconds": duration,
        }
        for number, (skill, hour, session, completed, duration) in enumerate(drawn)
    ]


def close(one: Any, other: Any) -> bool:
    """Equal, numbers up to the last digits of a sum in another order."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
    return bool(one == other)


@pytest.mark.parametrize(("name", "given_"), ASKED, ids=IDS)
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(drawn=ROWS, seed=st.integers(0, 10))
def test_neither_order_nor_copies_of_rows_change_an_answer(
    name: str,
    given_: dict[str, Any],
    drawn: list[tuple[str, int, int, bool | None, float | None]],
    seed: int,
    tmp_path: Path,
) -> None:
    rows = as_rows(drawn)
    if not rows:
        return
    again = rows + random.Random(seed).sample(rows, len(rows) // 2)
    random.Random(seed).shuffle(again)
    first = analyze.analyze(name, events(rows, tmp_path), given_)
    assert close(first, analyze.analyze(name, events(again, tmp_path), given_))
    json.dumps(first, allow_nan=False)


@pytest.mark.parametrize(("name", "given_"), ASKED, ids=IDS)
@pytest.mark.parametrize("n", [0, 1])
def test_no_row_and_one_row_are_answers(
    name: str, given_: dict[str, Any], n: int, tmp_path: Path
) -> None:
    """From a Parquet file, which has columns without rows."""
    path = tmp_path / "few.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            f"copy (select 'e' as event_id, 'a' as skill_name, timestamp '2026-09-01' as"
            f" invoked_at, 's' as session_id, 'u' as user_id, true as completed, 1.5 as"
            f" duration_seconds from range({n})) to '{path}' (format parquet)"
        )
    answer = analyze.analyze(name, Events.from_file(path), given_)
    listed = answer[name] if name in answer else answer["pairs"]
    if name == "trends":
        assert [row["trend"] for row in listed] == ["insufficient_data"] * n * len(given_["days"])
    elif name == "baselines":
        assert [row["n"] for row in listed] == [1] * n
    else:
        assert listed == []
    json.dumps(answer, allow_nan=False)


@pytest.mark.parametrize(("name", "given_"), ASKED, ids=IDS)
@pytest.mark.parametrize("completed", [True, False])
def test_all_or_none_completed(
    name: str, given_: dict[str, Any], completed: bool, tmp_path: Path
) -> None:
    drawn = [("abc"[i % 3], 12 * (i // 3), i // 3, completed, 1.0 + i % 2) for i in range(3 * 60)]
    answer = analyze.analyze(name, events(as_rows(drawn), tmp_path), given_)  # type: ignore[arg-type]
    json.dumps(answer, allow_nan=False)
    if name == "baselines":
        for row in answer["baselines"]:
            assert row["raw_rate"] == completed
            assert 0 <= row["low"] <= row["shrunk_rate"] <= row["high"] <= 1
            assert abs(row["shrunk_rate"] - completed) < 0.05
    if name == "trends" and "metric" not in given_:
        for row in answer["trends"]:
            assert (row["trend"], row["p_value"], row["start_value"]) == (
                ("stable", 1.0, float(completed))
            )


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A million rows of one skill over forty days, 90 % completed, ten a session."""
    path = tmp_path_factory.mktemp("million") / "million.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            "copy (select i as event_id, 'only' as skill_name, timestamp '2026-09-01' +"
            " to_microseconds(i * 3456000) as invoked_at, i // 10 as session_id, i % 5000 as"
            " user_id, hash(i) % 10 > 0 as completed, 1.0 + i % 3 as duration_seconds"
            f" from range(1000000) r(i)) to '{path}' (format parquet)"
        )
    return path


def test_a_million_rows_of_one_skill(million: Path) -> None:
    given_ = Events.from_file(million)
    (row,) = analyze.analyze("baselines", given_, {})["baselines"]
    assert (row["n"], row["users"]) == (1_000_000, 5_000)
    assert row["low"] < row["shrunk_rate"] < row["high"]
    assert row["high"] - row["low"] < 0.002
    assert row["shrunk_rate"] == pytest.approx(row["raw_rate"], abs=1e-5)
    (rate,) = analyze.analyze("trends", given_, {"days": [30]})["trends"]
    assert (rate["trend"], rate["n"]) == ("stable", 750_000)
    assert rate["end_value"] == pytest.approx(0.9, abs=0.01)
    assert analyze.analyze("lift", given_, {}) == {"pairs": []}
    found = analyze.analyze("clusters", given_, {})
    assert (found["structure"], found["largest_share"]) == (False, 1.0)
