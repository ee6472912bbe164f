"""`skill_dependencies`: which skills go together in a session, and which comes first.

Here: counts out of the sets, and the table. The tests are `sb_serving.stats.lift`, their
meaning `docs/statistics/lift.md`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import numpy as np
from numpy.typing import NDArray

from sb_pipelines import plots, tables
from sb_pipelines.defs import sets
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

if TYPE_CHECKING:
    from sb_serving.stats.session_null import PairCounts

MIN_SESSIONS = 5
"""Joint sessions from which a pair is listed."""

PLOTTED = 20

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Counted:
    """What the tests of pairs need to know; skills are numbered by the order of their names.

    Attributes:
        names: Names; one that has a second kind is there twice, and its second kind in no pair.
        kinds: Name -> main kind.
        pairs: Sessions, skills, and the pairs of skills.
        order: First uses: sessions with the pair's first skill first, its second skill first,
            tied; shape (3, pairs).
        watermark_id: Every invocation up to this id is in.
    """

    names: list[str]
    kinds: dict[str, str]
    pairs: PairCounts
    order: Ints
    watermark_id: int


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
    from sb_serving.stats.session_null import PairCounts

    choose_skills(connection)
    found = connection.execute(sql.load("warehouse/skill_sessions.sql")).fetchnumpy()
    sizes = connection.execute(sql.load("warehouse/session_sizes.sql")).fetchnumpy()
    pairs = connection.execute(
        "select p.a, p.b, p.n, o.n_a_first, o.n_b_first, o.n_tied from pair_count p"
        " join pair_order o on o.a = p.a and o.b = p.b"
        " where p.a in (select skill from chosen_skills)"
        " and p.b in (select skill from chosen_skills)"
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
    a, b = np.where(swap, other, one), np.where(swap, one, other)
    by_pair = np.lexsort((b, a))
    size_sessions = np.ma.getdata(sizes["n"]).astype(np.int64)
    known, _ = watermark(connection, "sets")
    return Counted(
        names=[str(name) for name in found["skill_name"]],
        kinds=dict(connection.execute("select skill_name, kind from chosen_skills").fetchall()),
        pairs=PairCounts(
            n_sessions=int(size_sessions.sum()),
            skill_sessions=np.ma.getdata(found["n"]).astype(np.int64),
            skill_log_size=np.ma.getdata(found["log_size"]).astype(np.float64),
            sizes=np.ma.getdata(sizes["size"]).astype(np.int64),
            size_sessions=size_sessions,
            a=a[by_pair],
            b=b[by_pair],
            n_ab=column("n")[by_pair],
        ),
        order=order[:, by_pair],
        watermark_id=known,
    )


def find_dependencies(counted: Counted, now: datetime) -> dict[str, NDArray[Any]]:
    """Test every pair; the table's columns, the surest pair first.

    Args:
        counted: From `read_counts`.
        now: When, naive UTC.
    """
    from threadpoolctl import threadpool_limits

    from sb_serving.stats import lift

    counts = counted.pairs
    # Hundreds of small products: a second BLAS thread only waits.
    with threadpool_limits(limits=1):
        found = lift.lift_columns(counted.names, counts, min_count=MIN_SESSIONS)
    listed = found["pair"].astype(np.int64)
    order = lift.order_columns(
        counted.names, counts.a, counts.b, *counted.order, min_count=MIN_SESSIONS
    )
    told = np.full(len(counts.a), -1)
    told[order["pair"]] = np.arange(len(order["pair"]))
    told = told[listed]

    def of_order(values: NDArray[Any]) -> NDArray[Any]:
        if len(values) == 0:
            return np.full(len(told), None, dtype=object)
        column = np.ma.masked_array(values[told], mask=told < 0)
        return column.filled(None) if values.dtype == object else column

    ab_low, ab_high = lift.wilson_ends(found["n_ab"], found["n_a"])
    ba_low, ba_high = lift.wilson_ends(found["n_ab"], found["n_b"])
    columns = {
        "skill_a": found["a"],
        "skill_b": found["b"],
        "kind_a": _texts(counted.kinds[name] for name in found["a"]),
        "kind_b": _texts(counted.kinds[name] for name in found["b"]),
        "co_occurrence_count": found["n_ab"],
        "n_sessions": found["n_sessions"],
        "n_a": found["n_a"],
        "n_b": found["n_b"],
        "support": found["support"],
        "confidence_ab": found["confidence_ab"],
        "confidence_ab_low": ab_low,
        "confidence_ab_high": ab_high,
        "confidence_ba": found["confidence_ba"],
        "confidence_ba_low": ba_low,
        "confidence_ba_high": ba_high,
        "lift_score": found["lift"],
        "lift_low": found["lift_low"],
        "lift_high": found["lift_high"],
        "expected": found["expected"],
        "p_value": found["p_value"],
        "q_value": found["q_value"],
        "significant": found["significant"],
        "relationship_type": _texts(lift.relationship(one) for one in found["lift"].tolist()),
        "then_skill": of_order(order["then"]),
        "order_n": of_order(order["n_forward"] + order["n_backward"]),
        "order_share": of_order(order["share"]),
        "order_low": of_order(order["share_low"]),
        "order_high": of_order(order["share_high"]),
        "order_p_value": of_order(order["p_value"]),
        "order_q_value": of_order(order["q_value"]),
        "last_updated": np.full(len(listed), np.datetime64(now, "us")),
    }
    surest = np.lexsort((listed, -found["lift"], found["q_value"]))
    return {name: column[surest] for name, column in columns.items()}


def _texts(values: Iterable[str]) -> NDArray[Any]:
    return np.array(list(values), dtype=object)


def update(
    warehouse: Warehouse, now: datetime
) -> tuple[dict[str, NDArray[Any]], list[dict[str, Any]]]:
    """Compute the table anew, and compare it with the pairs that are expected.

    Args:
        warehouse: Closed while the pairs are tested, so that others may write it.
        now: When, naive UTC.

    Returns:
        The table's columns, the surest pair first; and the rows of `expected_found`.
    """
    with warehouse.writing() as connection:
        sets.fold_order(connection)
        counted = read_counts(connection)
        expected = connection.execute(sql.load("warehouse/expected_counts.sql")).fetchall()
    columns = find_dependencies(counted, now)
    compared = compare_expected(expected, counted.pairs.n_sessions, columns, now)
    with warehouse.writing() as connection:
        tables.replace(connection, "expected_found", compared)
        tables.replace_columns(connection, "skill_dependencies", columns)
        set_watermark(connection, "skill_dependencies", counted.watermark_id, now)
    return columns, compared


def compare_expected(
    expected: list[tuple[str, str, float | None, int, int, int]],
    n_sessions: int,
    columns: dict[str, NDArray[Any]],
    now: datetime,
) -> list[dict[str, Any]]:
    """The rows of `expected_found`.

    Args:
        expected: Pairs with their counts, from `expected_counts.sql`.
        n_sessions: All sessions.
        columns: From `find_dependencies`.
        now: When, naive UTC.
    """
    from sb_serving.stats import lift

    listed = zip(columns["skill_a"], columns["skill_b"], strict=True)
    place = {pair: i for i, pair in enumerate(listed)}
    rows = []
    for a, b, expected_lift, n_a, n_b, n_ab in expected:
        at = place.get((a, b))
        found = lift.compare_expected(
            *(n_sessions, n_a, n_b, n_ab),
            expected_lift=expected_lift,
            significant=at is not None and bool(columns["significant"][at]),
        )
        rows.append(
            {
                "skill_a": a,
                "skill_b": b,
                "expected_lift": expected_lift,
                "verdict": found.verdict,
                "n_sessions": n_sessions,
                "n_a": n_a,
                "n_b": n_b,
                "co_occurrence_count": n_ab,
                "lift_score": found.lift,
                "lift_low": found.low,
                "lift_high": found.high,
                "q_value": None if at is None else float(columns["q_value"][at]),
                "last_updated": now,
            }
        )
    return rows


def expected_table(rows: list[dict[str, Any]]) -> str:
    """Expected pairs beside what was measured, as a Markdown table."""
    lines = [
        "| pair | expected lift | lift | sessions with both | verdict |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        named = "any" if row["expected_lift"] is None else f"{row['expected_lift']:g}"
        measured = "no session"
        if row["lift_score"] is not None:
            measured = "{lift_score:.2f} ({lift_low:.2f} to {lift_high:.2f})".format(**row)
        lines.append(
            f"| {row['skill_a']} + {row['skill_b']} | {named} | {measured}"
            f" | {row['co_occurrence_count']:,} of {row['n_a']:,} and {row['n_b']:,}"
            f" | {row['verdict'].replace('_', ' ')} |"
        )
    return "\n".join(lines) if rows else "Nobody expects a pair; `sb expect` writes one."


def plot(columns: dict[str, NDArray[Any]]) -> str:
    """The surest pairs with the interval of their lift, built-in tools left out."""
    usual = (columns["kind_a"] != "tool") & (columns["kind_b"] != "tool")
    shown = {name: column[usual][:PLOTTED] for name, column in columns.items()}
    return plots.ranges(
        [
            (f"{a} + {b}", low, value, high, f"lift {value:.2f}, q {q:.3g}, {n:,} sessions")
            for a, b, low, value, high, q, n in zip(
                *(
                    shown[name].tolist()
                    for name in ("skill_a", "skill_b", "lift_low", "lift_score", "lift_high")
                ),
                *(shown[name].tolist() for name in ("q_value", "co_occurrence_count")),
                strict=True,
            )
        ],
        0.0,
        float(shown["lift_high"].max(initial=0.0)) or 1.0,
    )


@dg.asset(
    deps=["skill_session_size", "pair_count", "skill_totals", "expected_dependencies"],
    group_name=SLOW_GROUP,
    owners=OWNERS,
    kinds={"python", "duckdb"},
    pool=POOL,
    retry_policy=RETRIES,
)
def skill_dependencies(warehouse: Warehouse) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """One row per pair of skills that share five sessions: lift, companions, order, p and q."""
    with user_failures():
        found, expected = update(warehouse, times.now().replace(tzinfo=None))
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(found["skill_a"]),
            "significant": int(found["significant"].sum()),
            "expected_pairs": dg.MetadataValue.md(expected_table(expected)),
            "lift_of_the_surest": dg.MetadataValue.md(plot(found)),
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
