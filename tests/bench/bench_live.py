"""Speed of the live side: a tick, and the answer made of it, against bare SQL of the same numbers.

`python -m tests.bench.bench_live [ROWS]` prints the table for a log of that many rows.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median

from sb_serving import sql, times
from sb_serving.answers.realtime import real_time_metrics
from sb_serving.events import Invocation
from sb_serving.live import Live, pieces
from sb_serving.snapshot import SnapshotHolder, publish
from sb_serving.store import Store
from tests.bench.report import Row, markdown
from tests.live_builder import At, make_totals

END = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
"""The worst minute: half an hour of single rows belongs to the edge of the day."""
DAYS = 90
SKILLS = 200
TICKS = 60
BEHIND = 5_000
"""Rows after the snapshot."""

FILL = """
create temp table n as
with recursive s(i) as (select 1 union all select i + 1 from s where i < :rows)
select i, abs(random()) % 100000 / 100000.0 as a, abs(random()) as b,
       (:rows - i) * :days * 86400.0 / :rows as age
from s;

insert into skill_user_interactions (id, invocation_id, user_id, session_id, skill_name, invoked_at,
    completed, event_id, ended_at, outcome, kind, source, agent)
select i, i, printf('%032x', i % 50), 'session-' || (i / 12),
       printf('skill-%03d', cast(:skills * a * a as integer)),
       strftime('%Y-%m-%dT%H:%M:%f', :end, '-' || age || ' seconds') || '000+00:00',
       b % 10 < 8, 'event-' || i, null,
       case when b % 10 < 8 then 'completed' when i % 3 then 'failed' else 'rejected' end,
       case when a < 0.5 then 'tool' else 'skill' end, 'bench', 'bench'
from n;

insert into skill_invocation (id, skill_name, invoked_at, session_id, completed, duration_seconds,
    workflow_phase)
select i, u.skill_name, u.invoked_at, u.session_id, u.completed,
       case when b % 7 then b % 9000 / 1000.0 end,
       case b % 4 when 0 then null when 1 then 'setup' when 2 then 'execution'
            else 'verification' end
from n join skill_user_interactions u on u.id = n.i;

insert into skill_hour (skill_name, hour, kind, completed, failed, rejected, duration_n,
    duration_sum)
select i.skill_name, substr(i.invoked_at, 1, 13), min(u.kind), sum(u.outcome = 'completed'),
       sum(u.outcome = 'failed'), sum(u.outcome = 'rejected'), count(i.duration_seconds),
       total(i.duration_seconds)
from skill_invocation i join skill_user_interactions u on u.invocation_id = i.id
group by i.skill_name, substr(i.invoked_at, 1, 13);

insert into skill_metrics_cache (skill_name, last_invocation_at, updated_at)
select skill_name, max(invoked_at), max(invoked_at) from skill_invocation group by skill_name;

drop table n;
"""
"""A log of the last days, evenly in time, few skills much used and many little."""


def run(scale: int = 1_000_000) -> list[Row]:
    """Measure ticks and answers.

    Args:
        scale: Rows of the log.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = fill(Path(folder) / "skills.db", scale)
        try:
            return _measure(Path(folder), store, scale)
        finally:
            store.close()


def fill(path: Path, rows: int) -> Store:
    """Make a store of that many rows, without going through the recorder."""
    store = Store.open(path, create=True)
    execute = store.connection.execute
    execute("pragma synchronous = off")
    execute("pragma foreign_keys = off")  # the bench fills only what the live side reads
    execute("pragma journal_mode = delete")
    execute("pragma cache_size = -400000")
    made_again = execute(
        "select type, name, sql from sqlite_master"
        " where type in ('trigger', 'index') and sql is not null"
    ).fetchall()
    values = {"rows": rows, "days": DAYS, "skills": SKILLS, "end": times.to_utc_text(END)[:23]}
    execute("begin")
    for kind, name, _ in made_again:
        execute(f'drop {kind} "{name}"')
    for statement in FILL.split(";\n\n"):
        used = {name: value for name, value in values.items() if f":{name}" in statement}
        execute(statement, used)
    for _, _, text in made_again:
        execute(text)
    execute("commit")
    execute("pragma journal_mode = wal")
    return store


def _measure(folder: Path, store: Store, rows: int) -> list[Row]:
    size = f"{rows:,} rows"
    live = Live(At(store.path), SnapshotHolder(folder / "snapshots"))
    cold = _cpu_ms(lambda: live.tick(END), 1)
    frame = live.frame
    live.close()
    publish(
        lambda connection: make_totals(connection, dict(frame.totals)),
        folder / "snapshots",
        watermark_id=rows - BEHIND,
        watermark_at=END,
        published_at=END,
        code_version="bench",
    )
    live = Live(At(store.path), SnapshotHolder(folder / "snapshots"))
    warm = _cpu_ms(lambda: live.tick(END), 1)
    second = iter(range(1, 10**6))

    def tick() -> None:
        now = END + timedelta(seconds=next(second))
        store.import_batch([_event(now)])
        begun = time.process_time()
        live.tick(now)
        spent.append(1000 * (time.process_time() - begun))

    spent: list[float] = []
    for _ in range(TICKS):
        tick()
    bar = 10.0 if rows <= 1_000_000 else 20.0
    floor = _cpu_ms(lambda: _bare_frame(store, rows), 15)
    found = [
        Row(f"tick, one new row a second, CPU, {size}", median(spent), "ms",
            "bare SQL of the same numbers, nothing carried over", floor,
            f"<= {bar:.0f} ms", median(spent) <= bar),
        Row(f"first tick on a snapshot {BEHIND:,} rows behind, CPU, {size}", warm, "ms"),
        Row(f"first tick without a snapshot, CPU, {size}", cold, "ms"),
    ]  # fmt: skip
    for hours, times_asked in ((1.0, 300), (24.0, 15), (48.0, 9), (168.0, 5), (2160.0, 1)):
        value = _wall_ms(partial(real_time_metrics, live, time_window_hours=hours), times_asked)
        bare = _wall_ms(partial(_bare_window, store, hours), min(times_asked, 15))
        found.append(
            Row(f"real_time_metrics, last {hours:g} h, p50, {size}", value, "ms",
                "bare SQL, counts row by row", bare,
                "<= .5 ms" if hours == 1 else "", value <= 0.5 if hours == 1 else None)
        )  # fmt: skip
    live.close()
    live.snapshots.close()
    return found


def _event(now: datetime) -> Invocation:
    return Invocation(
        skill_name="skill-007",
        invoked_at=times.to_utc_text(now),
        session_id="session-now",
        outcome="completed",
        kind="skill",
        source="bench",
        event_id=f"now-{now.timestamp()}",
        duration_seconds=1.5,
    )


def _bare_frame(store: Store, rows: int) -> None:
    """What a frame is made of, each second anew: last hour, last day by hours, rows since W."""
    _bare_window(store, 1.0)
    execute = store.connection.execute
    cut = pieces(END - timedelta(hours=24), END)
    execute(sql.load("live/hours.sql"), {"first": cut.first, "last": cut.last}).fetchall()
    for after, until, _ in cut.parts:
        execute(sql.load("live/part_hour.sql"), {"after": after, "until": until}).fetchall()
    last = {"after": rows - BEHIND, "hour": times.to_utc_text(END)[:13]}
    execute(sql.load("live/new_totals.sql"), last).fetchall()


def _bare_window(store: Store, hours: float) -> None:
    store.connection.execute(
        "select i.skill_name, count(*), sum(c.outcome = 'completed'), avg(i.duration_seconds),"
        " max(i.invoked_at), count(distinct i.session_id)"
        " from skill_invocation i left join skill_user_interactions c on c.invocation_id = i.id"
        " where i.invoked_at > ? and i.invoked_at <= ? group by i.skill_name"
        " order by 2 desc limit 10",
        (times.to_utc_text(END - timedelta(hours=hours)), times.to_utc_text(END)),
    ).fetchall()


def _cpu_ms(function: Callable[[], object], times_run: int) -> float:
    return _median_ms(function, times_run, time.process_time)


def _wall_ms(function: Callable[[], object], times_run: int) -> float:
    return _median_ms(function, times_run, time.perf_counter)


def _median_ms(function: Callable[[], object], times_run: int, clock: Callable[[], float]) -> float:
    spent = []
    for _ in range(times_run):
        begun = clock()
        function()
        spent.append(1000 * (clock() - begun))
    return median(spent)


if __name__ == "__main__":
    print(markdown(run(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)))
