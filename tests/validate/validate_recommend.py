"""Recommendations on demo and flight data: does the hidden skill come back, and how fast.

Run: `nice python -m tests.validate.validate_recommend [--quick] [--data DIR]`. Prints a markdown
table; exits with 1 when a bar is missed. Each user's last taken up skill is hidden from all
methods; the numbers are the shares of users for whom it is among the first ten.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sb_pipelines.training.recommend import Uses, count_uses
from sb_serving.demo import DemoPlan, chunks
from sb_serving.stats import similarity
from tests.runs import events_of

Row = dict[str, Any]
SEED = 70
END = datetime(2026, 11, 22, 12, tzinfo=UTC)
COLUMNS = ("skill_name", "user_id", "invoked_at", "outcome")


def demo(n: int, seed: int) -> dict[str, Any]:
    """Demo runs as columns."""
    parts = list(chunks(DemoPlan(n=n, seed=seed, end=END)))
    return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}


def flights(file: Path) -> dict[str, Any]:
    """Planes as users, routes as skills."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        return dict(
            connection.execute(
                """
                select skill_name, user_id,
                       cast(cast(invoked_at as TIMESTAMPTZ) as TIMESTAMP) as invoked_at,
                       case when completed then 'completed' else 'failed' end as outcome
                from read_parquet($file)
                """,
                {"file": str(file)},
            ).fetchnumpy()
        )


def uses_of(events: dict[str, Any]) -> Uses:
    """Who uses what, as `sb analyze` counts it."""
    return count_uses(events_of(events).connection)


def replayed(name: str, events: dict[str, Any], *, barred: bool) -> Row:
    """Recall of every method, and of the one that the replay on other users would choose."""
    uses = uses_of(events)
    completion = uses.completion
    found = similarity.replay(uses.matrix, uses.latest, completion, seed=SEED)
    # The choice, on half of the users; what is chosen is judged on the others.
    users = sorted(uses.latest)
    half = {user: uses.latest[user] for user in users[::2]}
    rest = {user: uses.latest[user] for user in users[1::2]}
    chosen = similarity.replay(uses.matrix, half, completion, seed=SEED)
    judged = similarity.replay(uses.matrix, rest, completion, seed=SEED)
    key = "similar_users" if chosen.chosen == "similar_users" else f"ease_{chosen.penalty:g}"
    ease = max(value for method, value in found.recall.items() if method.startswith("ease"))
    ours = judged.recall[key]
    row: Row = {
        "check": f"{name}: recall@10",
        "size": found.users,
        "served, on the other half": ours,
        "neighbours": found.recall["similar_users"],
        "EASE": ease,
        "best single neighbour": found.recall["best_single"],
        "popularity": found.recall["popular"],
        "standard error": found.error["similar_users"],
        "verdict": "",
    }
    if barred:
        neighbours = found.recall["similar_users"]
        good = (
            neighbours > found.recall["popular"]
            and neighbours > found.recall["best_single"]
            and ours > max(judged.recall["popular"], judged.recall["best_single"])
        )
        row["verdict"] = verdict(good, "above popularity and best single neighbour")
    return row


def completion_of_lists(events: dict[str, Any]) -> Row:
    """Mean completion rate of what is recommended, beside that of what is popular."""
    uses = uses_of(events)
    completion = uses.completion
    ours, plain, popular = [], [], []
    for user in range(0, len(uses.users), max(1, len(uses.users) // 200)):
        own = uses.matrix.of(user)
        found = similarity.recommend(uses.matrix, own, completion, leave_out=user)
        ours += [one.completion_rate for one in found]
        same = similarity.recommend(uses.matrix, own, np.ones(len(completion)), leave_out=user)
        plain += [float(completion[one.skill]) for one in same]
        top = similarity.popular(uses.matrix.users, len(uses.users), completion, own, 10)
        popular += [one.completion_rate for one in top]
    return {
        "check": f"completion rate of what is recommended (without weighing it:"
        f" {np.mean(plain):.3f})",
        "size": len(ours),
        "served, on the other half": float(np.mean(ours)),
        "popularity": float(np.mean(popular)),
        "verdict": verdict(float(np.mean(ours)) >= float(np.mean(plain)), "not below unweighted"),
    }


def latency(users: int, bar: float) -> Row:
    """Neighbours of one user among many: 20 of 1,000 skills each, drawn by Zipf's law."""
    rng = np.random.default_rng([SEED, users])
    weight = 1.0 / np.arange(1, 1_001) ** 0.8
    sets = np.argpartition(-(rng.random((20_000, 1_000)) ** (1 / weight)), 20, axis=1)[:, :20]
    indices = np.sort(sets[rng.integers(0, len(sets), users)], axis=1)
    matrix = similarity.UserSkills.from_arrays(
        np.arange(0, 20 * users + 1, 20), indices.ravel(), 1_000
    )
    taken = []
    for user in rng.integers(0, users, 50).tolist():
        own = matrix.of(user)
        begun = time.perf_counter()
        similarity.nearest(matrix, own, leave_out=user)
        taken.append(1e3 * (time.perf_counter() - begun))
    middle = float(np.median(taken))
    return {
        "check": "neighbours of one user, milliseconds, median",
        "size": users,
        "served, on the other half": middle,
        "verdict": verdict(middle <= bar, f"<= {bar:g} ms"),
    }


def verdict(good: bool, bar: str) -> str:
    return ("ok" if good else "MISSED") + f" ({bar})"


def run(quick: bool, data: Path = Path("data")) -> list[Row]:
    """Every row of the table.

    Args:
        quick: Fewer and smaller demos.
        data: Folder with `statistics/flights_jan_jun.parquet`; left out where it is missing.
    """
    sizes = [(40_000, SEED)] if quick else [(40_000, SEED), (40_000, SEED + 1), (100_000, SEED + 2)]
    table = [
        replayed(f"demo, {n} runs, seed {seed}", demo(n, seed), barred=True) for n, seed in sizes
    ]
    file = data / "statistics" / "flights_jan_jun.parquet"
    if file.exists():
        table.append(replayed("flights, planes and routes", flights(file), barred=False))
    table.append(completion_of_lists(demo(40_000, SEED)))
    table.append(latency(10_000, 0.5))
    table.append(latency(1_000_000, 25.0))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("data"))
    options = parser.parse_args()
    rows = run(options.quick, options.data)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    columns.append(columns.pop(columns.index("verdict")))
    print(f"Seed {SEED}.\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        cells = [row.get(column) for column in columns]
        text = ["" if c is None else f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells]
        print(f"| {' | '.join(text)} |")
    return int(any("MISSED" in row["verdict"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
