"""The search for anomalies over the warehouse: what is read, and what becomes of the rows.

Belongs here: hours out of the series, which of them are searched anew, and the rows of
`skill_anomalies` and `skill_anomaly_factors`. Does not: the method (`sb_serving.stats.anomaly`),
what a search means for open rows (`anomaly_lifecycle`), since when and what moved with it
(`anomaly_causes`), Dagster (`defs/anomalies`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
from threadpoolctl import threadpool_limits

from sb_pipelines import tables
from sb_pipelines.anomaly_causes import Hours, explain, moment
from sb_pipelines.resources import one_row, set_watermark, watermark
from sb_serving import sql
from sb_serving.stats.anomaly import HISTORY_DAYS, Anomaly, Span, find_anomalies
from sb_serving.stats.anomaly_lifecycle import QUIET, Known, Reconciled, reconcile

__all__ = ["Searched", "search"]

REACH_DAYS = 2
"""A search begins at midnight so many days ago: an event of a day is in view until it is over."""

SEARCH_DAYS = 14
"""Most days that one search judges: those of the first one, or that late events reach back."""

FAR_SEARCH = "skill_anomalies_far"
"""Watermark of the search that last took up events from before `REACH_DAYS`."""

LASTING_DAYS = 28
"""Most days that a lasting fall may have begun before now."""

Q_OPEN = 0.02
"""False discovery rate at which a row is opened. Each hour looks again, so it is lower than the .05
of a single look."""

Q_STAY = 0.1
"""Rate at which an open row stays: it does not come and go with each hour's level."""

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (the warehouse's times are UTC without saying so)

NOTHING = Reconciled((), (), (), ())

_FIELDS = (
    "skill_name", "metric", "anomaly_type", "window_start", "window_end", "n", "baseline_value",
    "observed_value", "deviation_score", "p_value", "q_value",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Searched:
    """What one search did.

    Attributes:
        searched_from: First hour judged, naive UTC; `searched_until` where none had to be.
        searched_until: The end of the last one.
        opened: Rows added; some of them were over already.
        updated: Open rows that changed.
        resolved: Rows that were over.
        retracted: Rows that turned out to be untrue.
        open: Rows that are open now.
        total: Rows in all.
    """

    searched_from: datetime
    searched_until: datetime
    opened: int
    updated: int
    resolved: int
    retracted: int
    open: int
    total: int


def search(connection: duckdb.DuckDBPyConnection, now: datetime) -> Searched:
    """Judge the hours since midnight two days ago, and earlier ones that new events touched.

    In the caller's transaction. Doing it again at the same time changes nothing.

    Args:
        connection: The warehouse, for writing.
        now: The current time, naive UTC; its hour is not over and not judged.
    """
    end = _hour(now)
    known, _ = watermark(connection, "events")
    score_from, fresh_from = _search_from(connection, end)
    _set_watermarks(connection, known, end)
    if fresh_from >= end:
        # No hour has ended and no event came for one that had: the last search still holds.
        return _searched(connection, end, end)
    names, hours = _read_hours(connection, score_from - 24 * HISTORY_DAYS, end)
    # Its matrices are small: a second thread of the linear algebra would only wait.
    with threadpool_limits(limits=1):
        report = find_anomalies(
            names,
            hours.counts,
            score_from=score_from,
            end=end,
            q=Q_STAY,
            lasting_from=end - 24 * LASTING_DAYS,
            refit_days=REACH_DAYS + 1,
        )
    open_rows, settled = _stored(connection, moment(score_from) - QUIET)
    todo = reconcile(
        open_rows,
        report,
        moment(end).replace(tzinfo=UTC),
        searched_from=moment(score_from).replace(tzinfo=UTC),
        fresh_from=moment(fresh_from).replace(tzinfo=UTC),
        settled=settled,
        q=Q_OPEN,
    )
    (last,) = one_row(connection, "select coalesce(max(id), 0) from skill_anomalies")
    opened = [(Known(last + 1 + at, event), over) for at, (event, over) in enumerate(todo.opened)]
    spans = dict(zip(report.anomalies, report.spans, strict=True))
    changed = [*todo.updated, *(row for row in todo.resolved if row.anomaly in spans)]
    _write(
        connection,
        hours,
        [(row, spans[row.anomaly], now if over else None) for row, over in opened]
        + [(row, spans[row.anomaly], None) for row in changed],
        now,
    )
    for row in todo.resolved:
        _close(connection, row, now, "resolved_at = $now")
    for row in todo.retracted:
        _close(connection, row, now, "resolved_at = $now, retracted_at = $now")
    return _searched(connection, score_from, end, todo)


def _set_watermarks(connection: duckdb.DuckDBPyConnection, known: int, end: int) -> None:
    """Note what this search has seen, and whether it looked far back."""
    set_watermark(connection, "skill_anomalies", known, moment(end))
    if _far_after(connection, end) is not None:
        set_watermark(connection, FAR_SEARCH, known, moment(end))


def _far_after(connection: duckdb.DuckDBPyConnection, end: int) -> int | None:
    """The id after which events may lie far back, in a day's first search; None in the others."""
    after, looked = watermark(connection, FAR_SEARCH)
    return after if looked is None or looked.date() < moment(end).date() else None


def _searched(
    connection: duckdb.DuckDBPyConnection,
    score_from: int,
    end: int,
    todo: Reconciled = NOTHING,
) -> Searched:
    return Searched(
        searched_from=moment(score_from),
        searched_until=moment(end),
        opened=len(todo.opened),
        updated=len(todo.updated),
        resolved=len(todo.resolved),
        retracted=len(todo.retracted),
        open=_count(connection, "resolved_at is null"),
        total=_count(connection, "true"),
    )


def _search_from(connection: duckdb.DuckDBPyConnection, end: int) -> tuple[int, int]:
    """First hour to judge, a midnight, and the first that is new or was touched by new events.

    Looking two weeks back costs four times what the usual two days do, so events that came that
    late are taken up once a day, by the first search after midnight.
    """
    earliest = (end - 24 * SEARCH_DAYS) // 24 * 24
    usual = (end // 24 - REACH_DAYS) * 24
    after, until = watermark(connection, "skill_anomalies")
    if until is None:
        return earliest, earliest
    far_after = _far_after(connection, end)
    (first,) = one_row(
        connection,
        sql.load("warehouse/anomaly_first_touched.sql"),
        {"after": after if far_after is None else far_after},
    )
    fresh = _hour(until) if first is None else min(_hour(until), _hour(first))
    if far_after is None:
        fresh = max(fresh, usual)
    return max(min(usual, fresh // 24 * 24), earliest), fresh


def _read_hours(
    connection: duckdb.DuckDBPyConnection, start: int, end: int
) -> tuple[list[str], Hours]:
    found = connection.execute(
        sql.load("warehouse/anomaly_hours.sql"), {"start": moment(start), "end": moment(end)}
    ).fetchnumpy()
    rows = {name: np.ma.getdata(column) for name, column in found.items()}
    listed = rows.pop("skill_name")
    first = np.append(True, listed[1:] != listed[:-1])[: len(listed)]  # they come sorted
    names, skill = listed[first].tolist(), np.cumsum(first) - 1
    return names, Hours.of(names, skill, end, **rows)


def _stored(
    connection: duckdb.DuckDBPyConnection, since: datetime
) -> tuple[list[Known], list[Anomaly]]:
    """Open rows, and resolved ones whose window reaches beyond `since`."""
    rows = connection.execute(
        f"select id, resolved_at is null, {', '.join(_FIELDS)} from skill_anomalies"  # noqa: S608
        " where resolved_at is null or (retracted_at is null and window_end > $since) order by id",
        {"since": since},
    ).fetchall()
    open_rows: list[Known] = []
    settled: list[Anomaly] = []
    for number, is_open, *values in rows:
        fields: dict[str, Any] = dict(zip(_FIELDS, values, strict=True))
        for edge in ("window_start", "window_end"):
            fields[edge] = fields[edge].replace(tzinfo=UTC)
        if is_open:
            open_rows.append(Known(number, Anomaly(**fields)))
        else:
            settled.append(Anomaly(**fields))
    return open_rows, settled


def _write(
    connection: duckdb.DuckDBPyConnection,
    hours: Hours,
    rows: list[tuple[Known, Span, datetime | None]],
    now: datetime,
) -> None:
    """Put rows into the tables, new or in place of those with their ids.

    Args:
        connection: The warehouse.
        hours: What was searched.
        rows: Each with its event's span and when it was resolved.
        now: The current time, naive UTC.
    """
    ids = [row.id for row, _, _ in rows]
    detected = dict(
        connection.execute(
            "delete from skill_anomalies where id in (select unnest($ids))"
            " returning id, detected_at",
            {"ids": ids},
        ).fetchall()
    )
    connection.execute(
        "delete from skill_anomaly_factors where anomaly_id in (select unnest($ids))", {"ids": ids}
    )
    explained = explain(connection, hours, [(row.anomaly, span) for row, span, _ in rows])
    tables.insert(
        connection,
        "skill_anomalies",
        [
            {name: _naive(getattr(row.anomaly, name)) for name in _FIELDS}
            | {
                "id": row.id,
                "since": known.since,
                "since_low": known.low,
                "since_high": known.high,
                "detected_at": detected.get(row.id, now),
                "updated_at": now,
                "resolved_at": resolved_at,
                "retracted_at": None,
            }
            for (row, _, resolved_at), known in zip(rows, explained, strict=True)
        ],
    )
    tables.insert(
        connection,
        "skill_anomaly_factors",
        [
            {"anomaly_id": row.id} | factor._asdict()
            for (row, _, _), known in zip(rows, explained, strict=True)
            for factor in known.factors
        ],
    )


def _close(connection: duckdb.DuckDBPyConnection, row: Known, now: datetime, change: str) -> None:
    connection.execute(
        f"update skill_anomalies set {change}, updated_at = $now where id = $id",  # noqa: S608
        {"now": now, "id": row.id},
    )


def _count(connection: duckdb.DuckDBPyConnection, where: str) -> int:
    (n,) = one_row(connection, f"select count(*) from skill_anomalies where {where}")  # noqa: S608
    return int(n)


def _naive(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def _hour(at: datetime) -> int:
    return int((at - EPOCH) / timedelta(hours=1))
