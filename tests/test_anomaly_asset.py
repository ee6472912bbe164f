"""`skill_anomalies`: what searches leave in the warehouse, from hour to hour."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from sb_pipelines.anomalies import Searched, search
from sb_pipelines.defs.anomalies import anomalies_are_possible, history, plot
from sb_serving import demo, times
from sb_serving.events import Invocation
from sb_serving.store import Store
from tests.warehouse_builder import Place, make_empty_store

NOW = datetime(2026, 11, 22, 15, 30)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_empty_store(tmp_path_factory.mktemp("empty"))


@pytest.fixture
def place(tmp_path: Path, empty_store: Path) -> Place:
    return Place(tmp_path, empty_store)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Place:
    """A demo with the planted failure, searched once."""
    place = Place(tmp_path_factory.mktemp("planted"), empty_store)
    fill(place, demo.invocations(demo.DemoPlan(n=9_000, seed=4, end=at(NOW), days=45)))
    look(place, NOW)
    return place


def at(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


def fill(place: Place, rows: Iterator[Invocation] | list[Invocation]) -> None:
    with Store.open(place.db) as store:
        store.bulk_import(rows)
    place.load()
    place.rebuild()
    place.fold()


def look(place: Place, now: datetime) -> Searched:
    with place.warehouse.writing() as connection:
        return search(connection, now)


def table(place: Place, name: str = "skill_anomalies") -> list[dict[str, Any]]:
    with place.warehouse.reading() as connection:
        found = connection.execute(f"from {name} order by 1, 2, 3")
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def steady(
    begin: datetime, end: datetime, *, per_hour: int = 6, failing: float = 0.0, batch: str = "a"
) -> list[Invocation]:
    """`per_hour` calls in each hour; a share of them fails, one in twelve anyway."""
    rng = np.random.default_rng(len(batch))
    hours = int((end - begin) / timedelta(hours=1))
    rows = []
    for hour in range(hours):
        for call in range(per_hour):
            bad = rng.random() < max(failing, 1 / 12)
            start = begin + timedelta(hours=hour, minutes=10 * call)
            rows.append(
                Invocation(
                    skill_name="steady",
                    invoked_at=times.to_utc_text(start),
                    session_id=f"s{hour // 2}",
                    kind="skill",
                    event_id=f"{batch}-{start:%m%d%H%M}",
                    outcome="failed" if bad else "completed",
                    error_type="timeout" if bad else None,
                    duration_seconds=2.0,
                    source="test",
                )
            )
    return rows


def hours(n: float) -> timedelta:
    return timedelta(hours=n)


# --- the planted failure --------------------------------------------------------------------------


def test_the_planted_failure_is_one_open_row(planted: Place) -> None:
    """3 calls a day: no window of 24 hours is out of the ordinary, nine days of them are."""
    (row,) = [row for row in table(planted) if row["metric"] == "completion"]
    truth = demo.truth(demo.DemoPlan(n=9_000, seed=4, end=at(NOW), days=45))
    assert row["skill_name"] == truth.skill_name
    assert row["anomaly_type"] == "drop"
    assert row["resolved_at"] is None
    assert row["observed_value"] < row["baseline_value"] - 0.2
    assert row["q_value"] <= 0.02


def test_its_day_is_right_and_its_cause_comes_first(planted: Place) -> None:
    truth = demo.truth(demo.DemoPlan(n=9_000, seed=4, end=at(NOW), days=45))
    assert truth.day is not None
    (row,) = [row for row in table(planted) if row["metric"] == "completion"]
    assert abs(row["since"] - datetime.fromisoformat(truth.day)) <= timedelta(days=1)
    assert row["since_low"] <= row["since"] <= row["since_high"]
    factors = [f for f in table(planted, "skill_anomaly_factors") if f["anomaly_id"] == row["id"]]
    first = {role: next(f for f in factors if f["role"] == role) for role in ("cause", "symptom")}
    assert (first["cause"]["attribute"], first["cause"]["value"]) == (
        truth.cause_field,
        truth.cause_value,
    )
    assert first["symptom"]["value"] == truth.error_type
    assert first["cause"]["p_value"] < 0.01
    assert [f["rank"] for f in factors if f["role"] == "cause"] == list(
        range(1, sum(f["role"] == "cause" for f in factors) + 1)
    )


def test_a_second_search_changes_nothing(planted: Place) -> None:
    before = table(planted), table(planted, "skill_anomaly_factors")
    found = look(planted, NOW)
    assert (found.opened, found.resolved, found.retracted) == (0, 0, 0)
    assert (table(planted), table(planted, "skill_anomaly_factors")) == before


# --- from hour to hour ----------------------------------------------------------------------------


def test_an_outage_is_one_row_from_its_first_hours_to_its_end(place: Place) -> None:
    """Twelve bad hours, searched every few hours: opened, updated, resolved, never doubled."""
    start = NOW.replace(minute=0) - hours(48)
    fill(place, steady(start - timedelta(days=20), start))
    assert look(place, start).open == 0
    ids = set()
    for step in range(3, 46, 3):
        bad = 0.9 if step <= 12 else 0.0
        begin = start + hours(step - 3)
        fill(place, steady(begin, begin + hours(3), failing=bad, batch=f"step {step}"))
        look(place, begin + hours(3))
        rows = [row for row in table(place) if row["metric"] == "completion"]
        ids |= {row["id"] for row in rows}
        if 6 <= step <= 30:
            assert [row["resolved_at"] for row in rows] == [None], step
    assert ids == {1}
    (row,) = [row for row in table(place) if row["metric"] == "completion"]
    assert row["resolved_at"] is not None
    assert row["retracted_at"] is None
    assert start <= row["window_start"] <= row["window_end"] <= start + hours(13)
    assert abs(row["since"] - start) <= hours(1)
    (symptom,) = [f for f in table(place, "skill_anomaly_factors") if f["role"] == "symptom"]
    assert symptom["value"] == "timeout"


def test_silence_is_seen_without_any_new_row(place: Place) -> None:
    end = NOW.replace(minute=0) - hours(10)
    fill(place, steady(end - timedelta(days=21), end))
    assert look(place, end).open == 0
    assert look(place, NOW).opened == 1
    (row,) = table(place)
    assert (row["metric"], row["anomaly_type"], row["observed_value"]) == ("volume", "drop", 0.0)
    assert abs(row["since"] - end) <= hours(1)


def test_rows_that_arrive_late_retract_a_silence(place: Place) -> None:
    """It was shown, so it stays on record; it is not open, and not shown as a real one."""
    end = NOW.replace(minute=0) - hours(10)
    fill(place, steady(end - timedelta(days=21), end))
    look(place, NOW)
    fill(place, steady(end, NOW.replace(minute=0), batch="late"))
    found = look(place, NOW + timedelta(minutes=5))
    assert (found.retracted, found.open) == (1, 0)
    (row,) = table(place)
    assert row["retracted_at"] == row["resolved_at"] is not None


def test_rows_that_arrive_days_late_are_taken_up_after_midnight(place: Place) -> None:
    """Looking two weeks back each hour would cost more than all other steps together."""
    now = NOW.replace(minute=0)
    outage = now - timedelta(days=6)
    over = outage + hours(12)
    fill(place, steady(outage - timedelta(days=21), outage))
    fill(place, steady(over, now + hours(12), batch="after"))
    look(place, now)
    late = steady(outage, over, failing=0.9, batch="late")
    fill(place, late)
    assert look(place, now + hours(1)).searched_from == datetime(2026, 11, 20)
    assert [row["metric"] for row in table(place)] == ["volume"]
    assert look(place, now + hours(10)).searched_from == outage.replace(hour=0)
    assert [row["metric"] for row in table(place)] == ["volume", "completion"]
    assert look(place, now + hours(11)).searched_from == datetime(2026, 11, 21)


def test_an_old_outage_is_recorded_as_over(place: Place) -> None:
    """The first search looks two weeks back; what it finds there was resolved long ago."""
    start = NOW.replace(minute=0) - timedelta(days=5)
    rows = steady(start - timedelta(days=20), start)
    rows += steady(start, start + hours(12), failing=0.9, batch="bad")
    fill(place, rows + steady(start + hours(12), NOW.replace(minute=0), batch="after"))
    assert look(place, NOW).open == 0
    (row,) = [row for row in table(place) if row["metric"] == "completion"]
    assert row["resolved_at"] == NOW
    assert look(place, NOW + hours(1)).opened == 0


def test_an_empty_warehouse_has_no_anomalies(place: Place) -> None:
    fill(place, [])
    assert look(place, NOW) == Searched(
        searched_from=(NOW - timedelta(days=14)).replace(hour=0, minute=0),
        searched_until=NOW.replace(minute=0),
        opened=0,
        updated=0,
        resolved=0,
        retracted=0,
        open=0,
        total=0,
    )


# --- what a run says ------------------------------------------------------------------------------


def passes(place: Place) -> bool:
    result = anomalies_are_possible(warehouse=place.warehouse)
    assert isinstance(result, dg.AssetCheckResult)
    return result.passed


@pytest.mark.parametrize(
    "statement",
    [
        "update skill_anomalies set q_value = 1.5",
        "update skill_anomalies set observed_value = 1.5 where metric = 'completion'",
        "update skill_anomalies set window_end = window_start",
        "update skill_anomalies set since_low = since + interval 1 hour",
        "update skill_anomalies set deviation_score = -deviation_score",
        "update skill_anomalies set retracted_at = detected_at",
        "insert into skill_anomalies from skill_anomalies",
        "update skill_anomaly_factors set anomaly_id = 99",
    ],
)
def test_the_check_finds_rows_that_cannot_be(planted: Place, statement: str) -> None:
    assert passes(planted)
    saved = ("skill_anomalies", "skill_anomaly_factors")
    with planted.warehouse.writing() as connection:
        for name in saved:
            connection.execute(f"create table saved_{name} as from {name}")
        connection.execute(statement)
    try:
        assert not passes(planted)
    finally:
        with planted.warehouse.writing() as connection:
            for name in saved:
                connection.execute(f"delete from {name}")
                connection.execute(f"insert into {name} from saved_{name}")
                connection.execute(f"drop table saved_{name}")


def test_the_plots_show_the_open_row_and_its_day(planted: Place) -> None:
    with planted.warehouse.reading() as connection:
        line = history(connection, NOW).splitlines()[1]
    assert len(line.ljust(60)) == 60
    assert line.ljust(60)[-10] != " "
    shown = plot([("a", "completion", "drop", -5.0, NOW, 1e-6, 40)])
    assert "a  " in shown
    assert "z -5.0" in shown
    assert plot([]) == "nothing to show yet"


def test_the_worked_example_of_the_docs_is_what_happens() -> None:
    page = Path(__file__).parents[1] / "docs" / "statistics" / "anomalies.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 10
    assert result.failed == 0
