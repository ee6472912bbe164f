"""Lift on real and simulated sessions: equality, false alarms, power, coverage, speed.

Run: `python -m tests.validate.validate_lift [--quick] [--data DIR]`. Prints a markdown table;
exits with 1 when a bar is missed. The other columns are rules that one might use instead, on the
same pairs (at least five joint sessions): lift above 1.2; chi-squared at .05 uncorrected; Fisher
with Benjamini-Hochberg over the pairs seen, or over all testable pairs; and the maximum-entropy
model with fitted sizes and a Poisson tail (the published form of the size-adjusted test).
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, pdtrc

from sb_pipelines.training.clusters import shuffle_margins
from sb_serving.stats import lift as lift_module
from sb_serving.stats.fdr import benjamini_hochberg
from sb_serving.stats.lift import lift, ordered_pairs, substitutes
from sb_serving.stats.session_null import count_pairs, fit_null, session_matrix

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = tuple[Ints, Ints]
SEED = 20_241
MIN_COUNT = 5
RULES = (
    "ours",
    "lift > 1.2",
    "chi2 .05",
    "Fisher, BH seen",
    "Fisher, BH testable",
    "maxent, Poisson",
)


# --- data


def bakery(data: Path) -> tuple[Rows, list[str], Ints] | None:
    """Rows, skill names and the second half in time (1) of each session of the bakery baskets."""
    import duckdb

    path = data / "statistics" / "bakery_baskets.parquet"
    if not path.exists():
        return None
    table = (
        duckdb.connect()
        .execute(
            "select session_id, skill_name, min(invoked_at) as at from read_parquet($path) "
            "group by all order by all",
            {"path": str(path)},
        )
        .fetchnumpy()
    )
    _, session = np.unique(table["session_id"], return_inverse=True)
    names, skill = np.unique(table["skill_name"].astype(str), return_inverse=True)
    at = np.unique(table["at"], return_inverse=True)[1]
    first = np.full(session.max() + 1, len(at))
    np.minimum.at(first, session, at)
    return (session, skill), [str(name) for name in names], (first > np.median(first)).astype(int)


def transcripts(data: Path) -> tuple[Rows, list[str]] | None:
    """The sessions and skill names that ingest reads from the transcripts."""
    from sb_serving.ingest import parse_tree
    from sb_serving.store.identity import Identity

    root = data / "claude_transcripts"
    if not root.exists():
        return None
    now = datetime(2100, 1, 1, tzinfo=UTC)
    calls = [(c.session_id, c.skill_name) for c in parse_tree(root, Identity(b"0" * 32), "", now)]
    session_names, skill_names = (np.array(column) for column in zip(*calls, strict=True))
    _, session = np.unique(session_names, return_inverse=True)
    names, skill = np.unique(skill_names, return_inverse=True)
    rows = session_matrix(session, skill, len(names)).tocoo()
    return (rows.row.astype(np.int64), rows.col.astype(np.int64)), [str(name) for name in names]


def sessions_of_sizes(rng: np.random.Generator, sizes: Ints, weights: Floats) -> Rows:
    """Draw skills without replacement: popular ones first, nothing else in common."""
    out: list[tuple[Ints, Ints]] = []
    for start in range(0, len(sizes), 20_000):
        part = sizes[start : start + 20_000]
        key = np.log(weights) + rng.gumbel(size=(len(part), len(weights)))
        ranked = np.argsort(-key, axis=1)
        session, place = np.nonzero(np.arange(len(weights)) < part[:, None])
        out.append((session + start, ranked[session, place]))
    return np.concatenate([s for s, _ in out]), np.concatenate([i for _, i in out])


def log_normal_sizes(rng: np.random.Generator, n: int, median: float, sd: float, most: int) -> Ints:
    return np.clip(np.exp(rng.normal(np.log(median), sd, n)).round(), 1, most).astype(np.int64)


def agent_like(rng: np.random.Generator) -> tuple[Rows, int]:
    """Sessions as agents have them: 212, lengths over two orders of magnitude, 197 skills."""
    sizes = log_normal_sizes(rng, 212, 6, 1.0, 98)
    return sessions_of_sizes(rng, sizes, 1 / np.arange(1, 198) ** 1.1), 197


def two_kinds(rng: np.random.Generator) -> tuple[Rows, int]:
    """Nine short sessions for every very long one."""
    short = rng.random(400) < 0.9
    sizes = np.where(short, rng.integers(1, 4, 400), rng.integers(30, 70, 400))
    return sessions_of_sizes(rng, sizes, 1 / np.arange(1, 121)), 120


def random_calls(rng: np.random.Generator, n: int) -> tuple[Rows, int]:
    """Each session makes a random number of calls, each call any skill by its popularity."""
    calls = rng.poisson(np.exp(rng.normal(np.log(9), 1.0, n)))
    weights = 1 / np.arange(1, 201) ** 1.1
    session = np.repeat(np.arange(n), calls)
    return (session, rng.choice(200, len(session), p=weights / weights.sum())), 200


def plain(rng: np.random.Generator, n: int) -> tuple[Rows, int]:
    sizes = log_normal_sizes(rng, n, 4, 0.8, 60)
    return sessions_of_sizes(rng, sizes, 1 / np.arange(1, 101)), 100


def plant(
    rng: np.random.Generator, rows: Rows, n_skills: int, share: float
) -> tuple[Rows, set[tuple[int, int]]]:
    """Ten pairs of middling skills; a session with the first also gets the second, at times."""
    session, skill = rows
    by_count = np.argsort(-np.bincount(skill, minlength=n_skills))
    pairs = rng.permutation(by_count[5:65])[:20].reshape(10, 2)
    for a, b in pairs:
        with_a = np.unique(rows[0][rows[1] == a])
        chosen = with_a[rng.random(len(with_a)) < share]
        session, skill = np.r_[session, chosen], np.r_[skill, np.full(len(chosen), b)]
    return (session, skill), {(int(min(p)), int(max(p))) for p in pairs}


# --- rules


def fitted_sizes(matrix: Any) -> Floats:
    """Expected joint sessions of the maximum-entropy model that fits sizes and counts alike."""
    size, n = (np.asarray(matrix.sum(axis=axis), dtype=float).ravel() for axis in (1, 0))
    used = n > 0
    sizes, of_size = np.unique(size, return_counts=True)
    u = np.log(sizes / (used.sum() - sizes + 0.5))
    v = np.log((n[used] + 0.5) / (len(size) - n[used] + 0.5))
    for _ in range(200):
        u += np.log(sizes / expit(u[:, None] + v).sum(axis=1))
        v += np.log(n[used] / (of_size @ expit(u[:, None] + v)))
    chance = expit(u[:, None] + v)
    full = np.zeros((len(n), len(n)))
    full[np.ix_(used, used)] = (chance.T * of_size) @ chance
    return full


def found(rows: Rows, n_skills: int) -> dict[str, set[tuple[int, int]]]:
    """The pairs that each rule calls associated."""
    matrix = session_matrix(*rows, n_skills)
    counts = count_pairs(matrix)
    names = [f"{i:06d}" for i in range(n_skills)]
    ours = {(int(p.a), int(p.b)) for p in lift(names, counts) if p.significant}

    keep = counts.n_ab >= MIN_COUNT
    a, b, n_ab = counts.a[keep], counts.b[keep], counts.n_ab[keep].astype(float)
    n_a, n_b = counts.skill_sessions[a].astype(float), counts.skill_sessions[b].astype(float)
    n = float(counts.n_sessions)
    independent = n_a * n_b / n
    value = n_ab / independent
    rest = [n_ab, n_a - n_ab, n_b - n_ab, n - n_a - n_b + n_ab]
    means = [independent, n_a - independent, n_b - independent, n - n_a - n_b + independent]
    with np.errstate(divide="ignore", invalid="ignore"):
        chi2 = sum((x - m) ** 2 / m for x, m in zip(rest, means, strict=True))
    tail = getattr(lift_module, "_upper_tail")  # noqa: B009 - private, shared with the rule shown
    fisher = tail(n_ab, n_a, n_b, independent)
    poisson = pdtrc(n_ab - 1, fitted_sizes(matrix)[a, b])
    frequent = int((counts.skill_sessions >= MIN_COUNT).sum())
    testable = frequent * (frequent - 1) // 2
    picked = {
        "lift > 1.2": value > 1.2,
        "chi2 .05": (value > 1) & (chi2 > 3.841459),
        "Fisher, BH seen": benjamini_hochberg(fisher) <= 0.05,
        "Fisher, BH testable": benjamini_hochberg(fisher, m=testable) <= 0.05,
        "maxent, Poisson": benjamini_hochberg(poisson, m=testable) <= 0.05,
    }
    pairs = list(zip(a.tolist(), b.tolist(), strict=True))
    others = {
        rule: {pair for pair, yes in zip(pairs, hit, strict=True) if yes}
        for rule, hit in picked.items()
    }
    return {"ours": ours, **others}


# --- checks


def verdict(ok: bool) -> str:
    return "ok" if ok else "MISSED"


def seldom(times: int, rounds: int) -> bool:
    """Whether at most 15 % of the rounds found anything; one may, however few there were."""
    return times <= max(1.0, 0.15 * rounds)


def equality(name: str, rows: Rows, names: list[str]) -> dict[str, Any]:
    """Largest difference to mlxtend, over support, both confidences and lift."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlxtend.frequent_patterns import (  # type: ignore[import-untyped]
            association_rules,
            fpgrowth,
        )

        matrix = session_matrix(*rows, len(names))
        frame = pd.DataFrame(matrix.toarray().astype(bool), columns=names)
        share = (MIN_COUNT - 0.5) / len(frame)
        frequent = fpgrowth(frame, min_support=share, use_colnames=True, max_len=2)
        rules = association_rules(
            frequent, num_itemsets=len(frame), metric="support", min_threshold=0
        )
    oracle = {
        (min(r.antecedents), min(r.consequents)): np.array([r.support, r.confidence, r.lift])
        for r in rules.itertuples()
    }
    ours = {}
    for p in lift(names, count_pairs(matrix)):
        ours[p.a, p.b] = np.array([p.support, p.confidence_ab, p.lift])
        ours[p.b, p.a] = np.array([p.support, p.confidence_ba, p.lift])
    missing = len(ours.keys() ^ oracle.keys())
    worst = max(float(np.abs(ours[key] - oracle[key]).max()) for key in oracle if key in ours)
    return {
        "check": f"{name}: largest difference to mlxtend; pairs missing or extra",
        "size": f"{len(oracle) // 2} pairs",
        "ours": f"{worst:.1e}; {missing}",
        "bar": "1e-9; 0",
        "verdict": verdict(worst <= 1e-9 and missing == 0),
    }


def shuffled(
    name: str, rows: Rows, n_skills: int, rounds: int, strong: int
) -> list[dict[str, Any]]:
    """Pairs found on the data, and on shuffles that keep every size and count."""
    rng = np.random.default_rng(SEED)
    real = {rule: len(pairs) for rule, pairs in found(rows, n_skills).items()}
    sums, anything = dict.fromkeys(RULES, 0), dict.fromkeys(RULES, 0)
    for _ in range(rounds):
        rows = shuffle_margins(*rows, rng, trades=30)
        for rule, pairs in found(rows, n_skills).items():
            sums[rule] += len(pairs)
            anything[rule] += bool(pairs)
    return [
        {
            "check": f"{name}: pairs found / mean found in shuffles",
            "size": f"{rounds} shuffles",
            **{rule: f"{real[rule]} / {sums[rule] / rounds:.2f}" for rule in RULES},
            "bar": f">= {strong} / -",
            "verdict": verdict(real["ours"] >= strong),
        },
        {
            "check": f"{name}: shuffles with any finding",
            "size": f"{rounds} shuffles",
            **{rule: anything[rule] / rounds for rule in RULES},
            "bar": "<= .15",
            "verdict": verdict(seldom(anything["ours"], rounds)),
        },
    ]


def replaced(
    name: str, rows: Rows | None, make: Callable[[np.random.Generator], tuple[Rows, int]], sets: int
) -> dict[str, Any]:
    """Substitutes found on the data, and in sessions where no pair avoids another."""
    real = ""
    if rows is not None:
        real = f"{_substitutes(rows, int(rows[1].max()) + 1)} / "
    counts = [_substitutes(*make(np.random.default_rng(SEED + i))) for i in range(sets)]
    anything = sum(count > 0 for count in counts)
    return {
        "check": f"{name}: substitutes found / share of sets without any in which some are",
        "size": f"{sets} data sets",
        "ours": f"{real}{anything / sets:.2f}",
        "bar": "<= .15",
        "verdict": verdict(seldom(anything, sets)),
    }


def _substitutes(rows: Rows, n_skills: int) -> int:
    names = [f"{i:06d}" for i in range(n_skills)]
    return len(substitutes(names, count_pairs(session_matrix(*rows, n_skills))))


def no_association(
    name: str, make: Callable[[np.random.Generator], tuple[Rows, int]], rounds: int
) -> dict[str, Any]:
    """Pairs found in sessions that were made without any association, per data set."""
    sums, anything = dict.fromkeys(RULES, 0), 0
    for round_ in range(rounds):
        rows, n_skills = make(np.random.default_rng(SEED + round_))
        for rule, pairs in found(rows, n_skills).items():
            sums[rule] += len(pairs)
            anything += bool(pairs) and rule == "ours"
    return {
        "check": f"no association, {name}: pairs found per data set",
        "size": f"{rounds} data sets",
        **{rule: sums[rule] / rounds for rule in RULES},
        "bar": "any in <= .15",
        "verdict": verdict(seldom(anything, rounds)),
    }


def planted(
    name: str,
    make: Callable[[np.random.Generator], tuple[Rows, int]],
    share: float,
    rounds: int,
) -> dict[str, Any]:
    """Share of ten planted pairs that are found / pairs found that were not planted."""
    hits, false = dict.fromkeys(RULES, 0.0), dict.fromkeys(RULES, 0.0)
    for round_ in range(rounds):
        rng = np.random.default_rng(SEED + round_)
        rows, n_skills = make(rng)
        rows, truth = plant(rng, rows, n_skills, share)
        for rule, pairs in found(rows, n_skills).items():
            hits[rule] += len(pairs & truth) / len(truth) / rounds
            false[rule] += len(pairs - truth) / rounds
    ok = hits["ours"] >= hits["maxent, Poisson"] and false["ours"] <= 1
    return {
        "check": f"ten pairs planted ({share:.0%} follow), {name}: found / others found",
        "size": f"{rounds} data sets",
        **{rule: f"{hits[rule]:.2f} / {false[rule]:.1f}" for rule in RULES},
        "bar": ">= maxent / <= 1",
        "verdict": verdict(ok),
    }


def tails(name: str, rows: Rows, n_skills: int, rounds: int) -> list[dict[str, Any]]:
    """How often p falls below a level on shuffled sessions, over that level; 1 is exact."""
    rng = np.random.default_rng(SEED)
    names = [f"{i:06d}" for i in range(n_skills)]
    levels = np.array([1e-2, 1e-3, 1e-4])
    below, tests = np.zeros(3), 0
    null = fit_null(count_pairs(session_matrix(*rows, n_skills)))
    for _ in range(rounds):
        rows = shuffle_margins(*rows, rng, trades=30)
        counts = count_pairs(session_matrix(*rows, n_skills))
        null = fit_null(counts)
        p = np.array([pair.p_value for pair in lift(names, counts, null=null)])
        frequent = int((counts.skill_sessions >= MIN_COUNT).sum())
        below += (p[:, None] <= levels).sum(axis=0)
        tests += frequent * (frequent - 1) // 2
    ratio = below / tests / levels
    return [
        {
            "check": f"{name}, shuffled: share of p <= {level:g} over {level:g}",
            "size": f"{tests:,} tests",
            "ours": float(r),
            "bar": "<= 1.3",
            # Below 20 expected the ratio says little.
            "verdict": verdict(bool(r <= 1.3) or tests * level < 20),
        }
        for level, r in zip(levels, ratio, strict=True)
    ]


def coverage(draws: int) -> dict[str, Any]:
    """Least coverage of the 95 % interval of lift over settings from rare to always together."""
    interval = getattr(lift_module, "_lift_interval")  # noqa: B009 - the interval on its own
    rng = np.random.default_rng(SEED)
    least, widest = 1.0, 0.0
    settings = [
        (200, 0.2, 0.2, 1.0),
        (200, 0.2, 0.2, 2.0),
        (200, 0.1, 0.1, 9.5),
        (200, 0.9, 0.3, 1.08),
        (1000, 0.05, 0.05, 2.0),
        (1000, 0.02, 0.4, 2.0),
        (1000, 0.01, 0.1, 8.0),
        (10_000, 0.02, 0.02, 2.0),
        (10_000, 0.48, 0.05, 1.1),
        (10_000, 0.001, 0.001, 1000.0),
        (60, 0.3, 0.3, 2.0),
    ]
    for n, p_a, p_b, true in settings:
        p = true * p_a * p_b
        chances = np.maximum([p, p_a - p, p_b - p, 1 - p_a - p_b + p], 0)
        cells = rng.multinomial(n, chances / chances.sum(), size=draws)
        cells = cells[cells[:, 0] > 0]
        n_ab = cells[:, 0].astype(float)
        low, high = interval(n, n_ab + cells[:, 1], n_ab + cells[:, 2], n_ab)
        held = float(np.mean((low <= true + 1e-12) & (true <= high + 1e-12)))
        least, widest = min(least, held), max(widest, held)
    return {
        "check": "coverage of the 95 % interval of lift, least / most of 11 settings",
        "size": f"{draws:,} draws each",
        "ours": f"{least:.3f} / {widest:.3f}",
        "bar": ">= .94",
        "verdict": verdict(least >= 0.94),
    }


def replication(rows: Rows, names: list[str], half: Ints) -> dict[str, Any]:
    """Pairs found in the first half in time that lie above their expectation in the second."""
    session, skill = rows
    parts = []
    for part in (0, 1):
        here = half[session] == part
        counts = count_pairs(session_matrix(session[here], skill[here], len(names)))
        parts.append(lift(names, counts, min_count=1))
    later = {(p.a, p.b): p for p in parts[1]}
    again = {}
    n_first = 0
    for label, pick in (("found", True), ("not found", False)):
        first = [p for p in parts[0] if p.n_ab >= MIN_COUNT and p.significant == pick]
        above = [
            (p.a, p.b) in later and later[p.a, p.b].n_ab > later[p.a, p.b].expected for p in first
        ]
        again[label] = float(np.mean(above))
        n_first = n_first or len(first)
    return {
        "check": "bakery: pairs of the first half above expectation in the second, "
        "found / not found",
        "size": f"{n_first} found",
        "ours": f"{again['found']:.2f} / {again['not found']:.2f}",
        "bar": "found > not found",
        "verdict": verdict(again["found"] > again["not found"]),
    }


def speed(sessions: int) -> list[dict[str, Any]]:
    """CPU seconds with 200 skills and about seven skills a session."""
    rng = np.random.default_rng(SEED)
    (session, skill), n_skills = random_calls(rng, sessions)
    names = [f"{i:06d}" for i in range(n_skills)]
    at = rng.random(len(session))
    rows = []
    for what, run_it in (
        ("count, fit and test", lambda: lift(names, _counted(session, skill, n_skills))),
        ("order of pairs", lambda: ordered_pairs(names, session, skill, at)),
    ):
        start = time.process_time()
        pairs = run_it()
        taken = time.process_time() - start
        rows.append(
            {
                "check": f"CPU seconds: {what}",
                "size": f"{sessions:,} sessions, {len(session):,} calls, {len(pairs):,} pairs",
                "ours": taken,
                "bar": "<= 60",
                "verdict": verdict(taken <= 60),
            }
        )
    return rows


def _counted(session: Ints, skill: Ints, n_skills: int) -> Any:
    return count_pairs(session_matrix(session, skill, n_skills))


def run(quick: bool, data: Path = Path("data")) -> list[dict[str, Any]]:
    """Every row of the table.

    Args:
        quick: A quarter of the rounds.
        data: Folder with `statistics/bakery_baskets.parquet` and `claude_transcripts/`; what is
            missing is left out.
    """
    rounds = 5 if quick else 20
    generated, n_skills = agent_like(np.random.default_rng(SEED))
    rows = [equality("agent-like", generated, [f"{i:06d}" for i in range(n_skills)])]
    baskets = bakery(data)
    if baskets is not None:
        basket_rows, names, half = baskets
        rows.append(equality("bakery", basket_rows, names))
        rows += shuffled("bakery", basket_rows, len(names), rounds, 16)
        rows.append(replication(basket_rows, names, half))
        rows += tails("bakery", basket_rows, len(names), rounds * 10)
        rows.append(
            replaced(
                "bakery, shuffled",
                basket_rows,
                lambda rng: (shuffle_margins(*basket_rows, rng, trades=30), len(names)),
                rounds,
            )
        )
    read = transcripts(data)
    if read is not None:
        rows += shuffled("transcripts", read[0], len(read[1]), rounds, 0)
    rows += shuffled("agent-like", generated, n_skills, rounds, 0)
    rows += tails("agent-like", generated, n_skills, rounds * 10)
    rows += [
        no_association("212 sessions, heavy tail", agent_like, rounds),
        no_association("400 sessions, short and long", two_kinds, rounds),
        no_association("5,000 sessions, random calls", lambda r: random_calls(r, 5000), rounds),
        no_association("50,000 sessions", lambda r: plain(r, 50_000), rounds // 4),
        replaced("212 sessions, heavy tail", None, agent_like, rounds),
        replaced("5,000 sessions, random calls", None, lambda r: random_calls(r, 5000), rounds),
        planted("500 sessions", lambda r: plain(r, 500), 0.3, rounds),
        planted("5,000 sessions", lambda r: plain(r, 5000), 0.1, rounds),
        coverage(4000 if quick else 20_000),
    ]
    if not quick:
        rows.append(
            no_association("1,000,000 sessions, random calls", lambda r: random_calls(r, 10**6), 1)
        )
    return rows + speed(100_000 if quick else 1_000_000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("data"))
    options = parser.parse_args()
    rows = run(options.quick, options.data)
    columns = ["check", "size", *RULES, "bar", "verdict"]
    print(f"Seed {SEED}.\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        cells = [row.get(column) for column in columns]
        text = ["" if c is None else f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells]
        print(f"| {' | '.join(text)} |")
    return int(any("MISSED" in row["verdict"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
