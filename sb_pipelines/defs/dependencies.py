"""`skill_dependencies`: which skills go together in a session, and which comes first.

Here: counts out of the sets, the order of first uses that is folded in as events arrive, and the
table. The tests are `sb_serving.stats.lift`, their meaning `docs/statistics/lift.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg
import duckdb
import numpy as np
from numpy.typing import NDArray

from sb_pipelines import plots, tables
from sb_pipelines.defs.automation import SLOW_GROUP
from sb_pipelines.defs.checks import no_broken_rows
from sb_pipelines.resources import (
    OWNERS,
    POOL,
    RETRIES,
    Warehouse,
    set_watermark,
    user_failures,
    watermark,
)
from sb_serving import sql, times
from sb_serving.settings import Settings

MIN_SESSIONS = 5
"""Joint sessions from which a pair is listed."""

BATCH_IDS = 4_000_000
"""Ids whose order is folded in at once: bounds the memory of a first load."""

PLOTTED = 20

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Counted:
    """What the tests of pairs need to know; skills are numbered by the order of their names.

    Attributes:
        names: Names.
        kinds: Their kinds.
        n_sessions: All sessions that hold any of them.
        skill_sessions: Sessions that hold each skill, shape (skills,).
        skill_log_size: Sum of ln(size) over these, shape (skills,).
        sizes: The distinct session sizes, shape (sizes,).
        size_sessions: Sessions of each size, shape (sizes,).
        a: First skill of each pair, below `b`, shape (pairs,).
        b: Second skill.
        n_ab: Sessions that hold both.
        order: First uses: sessions with `a` first, `b` first, tied; shape (3, pairs).
        watermark_id: Every invocation up to this id is in.
    """

    names: list[str]
    kinds: list[str]
    n_sessions: int
    skill_sessions: Ints
    skill_log_size: NDArray[np.float64]
    sizes: Ints
    size_sessions: Ints
    a: Ints
    b: Ints
    n_ab: Ints
    order: Ints
    watermark_id: int


def fold_order(connection: duckdb.DuckDBPyConnection) -> int:
    """Bring the order of first uses up to the sets' watermark, in the caller's transaction.

    Sessions that the news touch are taken out as they were and put in as they are now, so a late
    event that makes another skill the first one is counted right.

    Returns:
        The watermark afterwards.
    """
    after, _ = watermark(connection, "order")
    known, at = watermark(connection, "sets")
    for start in range(after, known, BATCH_IDS):
        until = min(start + BATCH_IDS, known)
        connection.execute(
            "create or replace temp table news as " + sql.load("warehouse/first_uses.sql"),
            {"after": start, "until": until},
        )
        connection.execute(
            "create or replace temp table uses_before as select * from session_first_use"
            " where session in (select session from news)"
        )
        connection.execute(
            "create or replace temp table uses_after as"
            " select session, skill, min(first_at) as first_at"
            " from (select * from uses_before union all select * from news) uses"
            " group by session, skill"
        )
        connection.execute(
            "create or replace temp table counted as " + sql.load("warehouse/pair_order.sql")
        )
        connection.execute("delete from pair_order")
        connection.execute("insert into pair_order select * from counted")
        connection.execute(
            "delete from session_first_use where session in (select session from uses_before)"
        )
        connection.execute("insert into session_first_use select * from uses_after")
        for table in ("news", "uses_before", "uses_after", "counted"):
            connection.execute(f"drop table {table}")
    set_watermark(connection, "order", known, at)
    return known


def choose_skills(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the temporary table `chosen_skills`: one number per name."""
    connection.execute(
        "create or replace temp table chosen_skills as"  # noqa: S608 (a file of our own)
        " select k.skill, k.skill_name, k.kind from skill_key k"
        f" join ({sql.load('warehouse/skill_kinds.sql')}) m"
        " on m.skill_name = k.skill_name and m.kind = k.kind"
    )


def read_counts(connection: duckdb.DuckDBPyConnection) -> Counted:
    """Read what the sets hold.

    Args:
        connection: The warehouse; one for reading will do.
    """
    choose_skills(connection)
    found = connection.execute(sql.load("warehouse/skill_sessions.sql")).fetchnumpy()
    sizes = connection.execute(sql.load("warehouse/session_sizes.sql")).fetchnumpy()
    pairs = connection.execute(
        "select p.a, p.b, p.n, o.n_a_first, o.n_b_first, o.n_tied from pair_count p"
        " join pair_order o on o.a = p.a and o.b = p.b"
        " where p.a in (select skill from chosen_skills)"
        " and p.b in (select skill from chosen_skills) order by p.a, p.b"
    ).fetchnumpy()
    number = np.ma.getdata(found["skill"]).astype(np.int64)
    place = np.zeros(int(number.max(initial=0)) + 1, dtype=np.int64)
    place[number] = np.arange(len(number))

    def column(name: str) -> Ints:
        return np.ma.getdata(pairs[name]).astype(np.int64)

    one, other = place[column("a")], place[column("b")]
    swap = one > other
    order = np.stack([column("n_a_first"), column("n_b_first"), column("n_tied")])
    order[:2] = np.where(swap, order[1::-1], order[:2])
    size_sessions = np.ma.getdata(sizes["n"]).astype(np.int64)
    known, _ = watermark(connection, "sets")
    return Counted(
        names=[str(name) for name in found["skill_name"]],
        kinds=[str(kind) for kind in found["kind"]],
        n_sessions=int(size_sessions.sum()),
        skill_sessions=np.ma.getdata(found["n"]).astype(np.int64),
        skill_log_size=np.ma.getdata(found["log_size"]).astype(np.float64),
        sizes=np.ma.getdata(sizes["size"]).astype(np.int64),
        size_sessions=size_sessions,
        a=np.where(swap, other, one),
        b=np.where(swap, one, other),
        n_ab=column("n"),
        order=order,
        watermark_id=known,
    )


def find_dependencies(counted: Counted, now: datetime) -> list[dict[str, Any]]:
    """Test every pair; rows as in the table, the surest first.

    Args:
        counted: From `read_counts`.
        now: When, naive UTC.
    """
    from threadpoolctl import threadpool_limits

    from sb_serving.stats import lift

    by_pair = np.lexsort((counted.b, counted.a))
    counts = lift.PairCounts(
        n_sessions=counted.n_sessions,
        skill_sessions=counted.skill_sessions,
        skill_log_size=counted.skill_log_size,
        sizes=counted.sizes,
        size_sessions=counted.size_sessions,
        a=counted.a[by_pair],
        b=counted.b[by_pair],
        n_ab=counted.n_ab[by_pair],
    )
    orders = {
        frozenset((one.first, one.then)): one
        for one in lift.ordered_counts(
            counted.names, counted.a, counted.b, *counted.order, min_count=MIN_SESSIONS
        )
    }
    kinds = dict(zip(counted.names, counted.kinds, strict=True))
    # Hundreds of small products: a second BLAS thread only waits.
    with threadpool_limits(limits=1):
        pairs = lift.lift(counted.names, counts, min_count=MIN_SESSIONS)
    n_ab = np.array([pair.n_ab for pair in pairs])
    shares = np.stack(
        [
            *lift.wilson_ends(n_ab, [pair.n_a for pair in pairs]),
            *lift.wilson_ends(n_ab, [pair.n_b for pair in pairs]),
        ]
    )
    rows = []
    for pair, (ab_low, ab_high, ba_low, ba_high) in zip(pairs, shares.T.tolist(), strict=True):
        rows.append(
            {
                "skill_a": pair.a,
                "skill_b": pair.b,
                "kind_a": kinds[pair.a],
                "kind_b": kinds[pair.b],
                "co_occurrence_count": pair.n_ab,
                "n_sessions": pair.n_sessions,
                "n_a": pair.n_a,
                "n_b": pair.n_b,
                "support": pair.support,
                "confidence_ab": pair.confidence_ab,
                "confidence_ab_low": ab_low,
                "confidence_ab_high": ab_high,
                "confidence_ba": pair.confidence_ba,
                "confidence_ba_low": ba_low,
                "confidence_ba_high": ba_high,
                "lift_score": pair.lift,
                "lift_low": pair.lift_low,
                "lift_high": pair.lift_high,
                "expected": pair.expected,
                "p_value": pair.p_value,
                "q_value": pair.q_value,
                "significant": pair.significant,
                "relationship_type": lift.relationship(pair.lift),
                **_order(orders.get(frozenset((pair.a, pair.b)))),
                "last_updated": now,
            }
        )
    return rows


def _order(found: Any) -> dict[str, Any]:
    """The columns that say which skill comes second."""
    return {
        "then_skill": found and found.then,
        "order_n": found and found.n_forward + found.n_backward,
        "order_share": found and found.share,
        "order_low": found and found.share_low,
        "order_high": found and found.share_high,
        "order_p_value": found and found.p_value,
        "order_q_value": found and found.q_value,
    }


def update(warehouse: Warehouse, now: datetime) -> list[dict[str, Any]]:
    """Compute the table anew.

    Args:
        warehouse: Closed while the pairs are tested, so that others may write it.
        now: When, naive UTC.
    """
    with warehouse.writing() as connection:
        fold_order(connection)
        counted = read_counts(connection)
    rows = find_dependencies(counted, now)
    with warehouse.writing() as connection:
        tables.replace(connection, "skill_dependencies", rows)
        set_watermark(connection, "skill_dependencies", counted.watermark_id, now)
    return rows


def plot(rows: list[dict[str, Any]]) -> str:
    """The surest pairs with the interval of their lift, built-in tools left out."""
    shown = [row for row in rows if "tool" not in (row["kind_a"], row["kind_b"])][:PLOTTED]
    return plots.ranges(
        [
            (
                f"{row['skill_a']} + {row['skill_b']}",
                row["lift_low"],
                row["lift_score"],
                row["lift_high"],
                f"lift {row['lift_score']:.2f}, q {row['q_value']:.3g}, "
                f"{row['co_occurrence_count']:,} sessions",
            )
            for row in shown
        ],
        0.0,
        max((row["lift_high"] for row in shown), default=1.0),
    )


@dg.asset(
    deps=["session_skill", "pair_count", "skill_totals"],
    group_name=SLOW_GROUP,
    owners=OWNERS,
    kinds={"python", "duckdb"},
    pool=POOL,
    retry_policy=RETRIES,
)
def skill_dependencies(warehouse: Warehouse) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """One row per pair of skills that share five sessions: lift, companions, order, p and q."""
    with user_failures():
        rows = update(warehouse, times.now().replace(tzinfo=None))
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(rows),
            "significant": sum(row["significant"] for row in rows),
            "lift_of_the_surest": dg.MetadataValue.md(plot(rows)),
        }
    )


dependencies_are_possible = no_broken_rows(
    "skill_dependencies",
    "dependencies_are_possible",
    "counts fit together, shares, p and q lie in [0, 1], values in their intervals",
    min_count=MIN_SESSIONS,
)


def defs(settings: Settings) -> dg.Definitions:
    """The asset and its check."""
    return dg.Definitions(assets=[skill_dependencies], asset_checks=[dependencies_are_possible])
