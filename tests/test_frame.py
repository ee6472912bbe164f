"""The arithmetic of a frame."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb_serving import times
from sb_serving.frame import (
    NOTHING,
    Row,
    Total,
    percentile,
    summed,
    windows_of_rows,
    windows_of_sums,
)
from sb_serving.live import pieces
from tests.frame_builder import frame, window

AT = "2026-11-22T12:00:00.000000+00:00"


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.floats(0, 1))
def test_percentile_is_the_common_interpolated_one(values: list[float], share: float) -> None:
    found = percentile(sorted(values), share)
    assert found == pytest.approx(np.percentile(values, 100 * share), rel=1e-9, abs=1e-9)


def test_percentile_of_nothing_is_unknown() -> None:
    assert percentile([], 0.5) is None


def test_windows_of_rows_counts_each_skill() -> None:
    rows = [
        Row(AT, 1, "b", "skill", "completed", 1.0, "s1"),
        Row(AT, 2, "a", "tool", "failed", None, "s1"),
        Row(AT, 3, "b", "skill", "rejected", 3.0, "s1"),
    ]
    b, a = windows_of_rows(rows)
    assert (b.skill_name, b.n, b.completed, b.rejected, b.unique_sessions) == ("b", 2, 1, 1, 1)
    assert (b.duration_n, b.duration_sum, b.duration_avg, b.duration_p50) == (2, 4.0, 2.0, 2.0)
    assert (b.completion_rate, b.last_invoked_at) == (1.0, AT)
    assert (a.kind, a.failed, a.completion_rate, a.duration_avg) == ("tool", 1, 0.0, None)
    assert (a.duration_p50, a.duration_p95) == (None, None)


def test_a_rejected_skill_has_no_completion_rate() -> None:
    """The user's no is not the skill's failure."""
    (only,) = windows_of_rows([Row(AT, 1, "a", "skill", "rejected", None, "s")])
    assert only.completion_rate is None


def test_pieces_that_cancel_out_leave_nothing() -> None:
    """Also no rounding error in place of a duration."""
    hour = [
        ("a", "skill", 2, 0, 0, 0, 0, 0, 2, 0.1 + 0.2),
        ("b", "skill", 1, 0, 0, 0, 0, 0, 1, 0.3),
    ]
    part = [
        ("b", "skill", 1, 0, 0, 0, 0, 0, 1, 0.1 + 0.2),
        ("a", "skill", 1, 0, 0, 0, 0, 0, 2, 0.3),
    ]
    (only,) = windows_of_sums(summed([(hour, 1), (part, -1)]), {"a": AT, "b": AT})
    assert (only.skill_name, only.n, only.duration_n, only.duration_sum) == ("a", 1, 0, 0.0)


def test_an_infinite_sum_counts_as_unknown() -> None:
    rows = [("a", "skill", 1, 0, 0, 0, 0, 0, 1, float("inf"))]
    (only,) = windows_of_sums(summed([(rows, 1)]), {})
    assert (only.n, only.duration_n, only.duration_avg) == (1, 0, None)


def test_totals_add() -> None:
    one = Total(2, 1, 0.5, (0, 1, 1, 1, 1, 1, 1, 1, 1))
    assert one + NOTHING == one
    assert (one + one).buckets == (0, 2, 2, 2, 2, 2, 2, 2, 2)


def test_a_frame_cannot_be_changed() -> None:
    shown = frame()
    with pytest.raises(FrozenInstanceError):
        shown.active_sessions = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        shown.totals[("a", "b", "c", "d")] = NOTHING  # type: ignore[index]


def test_a_window_is_plain_json() -> None:
    assert json.loads(json.dumps(asdict(window()), allow_nan=False))["n"] == 4


@given(
    st.datetimes(datetime(2026, 11, 20), datetime(2026, 11, 22)),
    st.timedeltas(timedelta(0), timedelta(hours=30)),
    st.lists(st.timedeltas(-timedelta(hours=2), timedelta(hours=32)), max_size=20),
)
def test_pieces_cover_a_window_exactly_once(
    start: datetime, length: timedelta, offsets: list[timedelta]
) -> None:
    """Every moment of (start, end] is covered once, every other moment not at all."""
    start = start.replace(tzinfo=UTC)
    end = start + length
    cut = pieces(start, end)
    edges = [start, end, start + timedelta(microseconds=1), end + timedelta(microseconds=1)]
    for moment in [*edges, *(start + offset for offset in offsets)]:
        text = times.to_utc_text(moment)
        covered = int(cut.first <= text[:13] <= cut.last)
        covered += sum(sign for after, until, sign in cut.parts if after < text <= until)
        assert covered == int(start < moment <= end)


def test_pieces_read_at_most_half_an_hour_before_the_whole_ones() -> None:
    for minute in range(60):
        start = datetime(2026, 11, 22, 3, minute, tzinfo=UTC)
        after, until, _ = pieces(start, start + timedelta(hours=24)).parts[0]
        first = datetime.fromisoformat(f"{after:0<13}"[:13] + ":00+00:00")
        length = times.from_text(until if len(until) > 13 else f"{until}:00+00:00") - (
            times.from_text(after) if len(after) > 13 else first
        )
        assert length <= timedelta(minutes=30)
