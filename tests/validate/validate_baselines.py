"""Baselines on simulated and real skills: error on unseen calls, coverage, ranking.

Run: `python -m tests.validate.validate_baselines [--quick] [--data DIR]`. Prints a markdown table;
exits with 1 when a bar is missed. Beside ours: the raw rate (the predecessor's), the global mean,
and empirical Bayes with the likeliest beta distribution (scipy).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betaincinv, betaln, expit
from scipy.stats import spearmanr

from sb_serving.stats.baseline import fit

Floats = NDArray[np.float64]
SEED = 31
RULES = ("ours", "empirical Bayes", "raw", "global mean")


def empirical_bayes(k: Floats, n: Floats) -> tuple[float, float]:
    """Alpha and beta of the largest beta-binomial likelihood; the strength stops at 10^6."""

    def loss(x: NDArray[np.float64]) -> float:
        strength = np.exp(np.clip(x[1], -5, 14))
        alpha, beta = expit(x[0]) * strength, expit(-x[0]) * strength
        return -float((betaln(k + alpha, n - k + beta) - betaln(alpha, beta)).sum())

    rate = (k.sum() + 0.5) / (n.sum() + 1)
    starts = [np.array([np.log(rate / (1 - rate)), s]) for s in (1.0, 4.0)]
    best = min(
        (minimize(loss, start, method="Nelder-Mead") for start in starts), key=lambda r: r.fun
    )
    strength = float(np.exp(np.clip(best.x[1], -5, 14)))
    return float(expit(best.x[0])) * strength, float(expit(-best.x[0])) * strength


def estimates(k: Floats, n: Floats) -> tuple[dict[str, Floats], tuple[Floats, Floats]]:
    """Every rule's rates, and empirical Bayes' own 90 % interval."""
    alpha, beta = empirical_bayes(k, n)
    rules = {
        "ours": fit(k, n).rate(k, n),
        "empirical Bayes": (k + alpha) / (n + alpha + beta),
        "raw": k / n,
        "global mean": np.full(len(n), k.sum() / n.sum()),
    }
    bounds = (betaincinv(k + alpha, n - k + beta, q) for q in (0.05, 0.95))
    low, high = bounds
    return rules, (low, high)


# --- simulated

# name, number of skills, calls a skill (skewed like 1/rank), how true rates are drawn
CASES: tuple[tuple[str, int, int, str, float, float], ...] = (
    ("beta(.95, strength 10), 20 skills, 40 calls", 20, 40, "beta", 0.95, 10.0),
    ("beta(.95, strength 10), 200 skills, 5 calls", 200, 5, "beta", 0.95, 10.0),
    ("beta(.95, strength 50), 20 skills, 11 calls", 20, 11, "beta", 0.95, 50.0),
    ("beta(.73, strength 50), 60 skills, 40 calls", 60, 40, "beta", 0.73, 50.0),
    ("beta(.73, strength 10), 8 skills, 40 calls", 8, 40, "beta", 0.73, 10.0),
    ("beta(.90, strength 2), 60 skills, 20 calls", 60, 20, "beta", 0.90, 2.0),
    ("all .95, 20 skills, 40 calls", 20, 40, "same", 0.95, 0.0),
    ("all .73, 200 skills, 5 calls", 200, 5, "same", 0.73, 0.0),
    ("logit-normal(.90, sd .5), 60 skills, 40 calls", 60, 40, "logit", 0.90, 0.5),
    ("15 % of skills at .60, others .95, 60 skills, 40 calls", 60, 40, "two", 0.95, 0.60),
)


def draw(rng: np.random.Generator, kind: str, size: int, a: float, b: float) -> Floats:
    if kind == "beta":
        return rng.beta(a * b, (1 - a) * b, size)
    if kind == "logit":
        return np.asarray(expit(np.log(a / (1 - a)) + b * rng.normal(size=size)))
    if kind == "two":
        return np.where(rng.random(size) < 0.15, b, a)
    return np.full(size, a)


def simulated(quick: bool) -> list[dict[str, Any]]:
    repeats = 20 if quick else 200
    rows = []
    for index, (name, skills, calls, kind, a, b) in enumerate(CASES):
        errors: dict[str, float] = dict.fromkeys(RULES, 0.0)
        held = held_by_bayes = 0.0
        for repeat in range(repeats):
            rng = np.random.default_rng([SEED, index, repeat])
            share = 1 / np.arange(1, skills + 1)
            n = 1.0 + rng.multinomial((calls - 1) * skills, share / share.sum())
            true = draw(rng, kind, skills, a, b)
            k = rng.binomial(n.astype(int), true).astype(float)
            rules, (bayes_low, bayes_high) = estimates(k, n)
            for rule, rate in rules.items():
                errors[rule] += float(((rate - true) ** 2).mean()) / repeats
            low, high = fit(k, n).interval(k, n)
            held += float(((low <= true) & (true <= high)).mean()) / repeats
            held_by_bayes += float(((bayes_low <= true) & (true <= bayes_high)).mean()) / repeats
        ratio = errors["ours"] / errors["empirical Bayes"]
        slack = 2 * np.sqrt(0.09 / (repeats * skills) * 4) if quick else 0.0
        rows.append(
            {"check": f"error, {name}", "size": repeats}
            | {rule: 1e4 * error for rule, error in errors.items()}
            | {"verdict": verdict(ratio <= 1.02 + slack and errors["ours"] < errors["raw"])}
        )
        rows.append(
            {
                "check": f"coverage, {name}",
                "size": repeats,
                "ours": held,
                "empirical Bayes": held_by_bayes,
                "verdict": verdict(held >= 0.90 - slack),
            }
        )
    return rows


def verdict(good: bool) -> str:
    return "ok" if good else "MISSED"


# --- real


def flights(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Fit on a random share of the events, judge on the others (skills with 20 or more unseen).

    Coverage is of the rate among the unseen events, by skills with 200 or more of them.
    """
    import duckdb

    file = folder / "statistics" / "flights_jan_jun.parquet"
    if not file.exists():
        return []
    events = duckdb.execute(
        "select skill_name, user_id, carrier, completed from read_parquet($file)",
        {"file": str(file)},
    ).fetchnumpy()
    done = events["completed"].astype(float)
    rows = []
    for column, what in (("skill_name", "routes"), ("user_id", "planes"), ("carrier", "carriers")):
        codes = np.unique(events[column].astype(str), return_inverse=True)[1]
        for share in (0.02, 0.10, 0.50):
            splits = [
                judge(codes, done, np.random.default_rng([SEED, 1000, repeat]), share)
                for repeat in range(2 if quick else 10)
            ]
            mean = {key: float(np.mean([split[key] for split in splits])) for key in splits[0]}
            good = mean["ours"] <= 1.02 * mean["empirical Bayes"]
            # Sixteen carriers with thousands of flights each are no case for shrinkage.
            if mean["skills"] >= 50:
                good &= mean["ours"] < min(mean["raw"], mean["global mean"])
            name = f"flights, {mean['skills']:.0f} {what}, {share:.0%} seen"
            rows += [
                {"check": f"error, {name}", "size": len(splits)}
                | {rule: 1e4 * mean[rule] for rule in RULES}
                | {"verdict": verdict(good)},
                {
                    "check": f"rank correlation with the later rate, {name}",
                    "size": len(splits),
                    "ours": mean["rank, ours"],
                    "raw": mean["rank, raw"],
                    "verdict": "",
                },
            ]
            if "coverage" in mean:
                held = mean["coverage"]
                rows.append(
                    {
                        "check": f"coverage of the later rate, {name}",
                        "size": len(splits),
                        "ours": held,
                        "verdict": verdict(held >= 0.9) if mean["judged"] >= 50 else "",
                    }
                )
    return rows


def judge(
    codes: NDArray[np.int64], done: Floats, rng: np.random.Generator, share: float
) -> dict[str, float]:
    """One random split of the events."""
    seen = rng.random(len(done)) < share
    skills = codes.max() + 1
    n, later_n = (np.bincount(codes[part], minlength=skills) * 1.0 for part in (seen, ~seen))
    k, later_k = (np.bincount(codes[part], done[part], skills) for part in (seen, ~seen))
    fitted = n > 0
    k, n, later_k, later_n = k[fitted], n[fitted], later_k[fitted], later_n[fitted]
    rules, _ = estimates(k, n)
    judged = later_n >= 20
    later = later_k / np.maximum(later_n, 1)
    low, high = fit(k, n).interval(k, n)
    held = ((low <= later) & (later <= high))[later_n >= 200]
    found = {rule: float(((r - later)[judged] ** 2).mean()) for rule, r in rules.items()}
    for rule in ("ours", "raw"):
        found[f"rank, {rule}"] = float(spearmanr(rules[rule][judged], later[judged]).statistic)
    # At one half the later rate is as uncertain as the estimate: no measure of the estimate.
    if share < 0.5:
        found["coverage"] = float(held.mean())
    return found | {"skills": float(len(n)), "judged": float(len(held))}


def run(quick: bool, data: Path = Path("data")) -> list[dict[str, Any]]:
    """Every row of the table; errors are mean squared errors times 10,000.

    Args:
        quick: A tenth of the simulations, with slack on the bars.
        data: Folder with `statistics/flights_jan_jun.parquet`; left out where it is missing.
    """
    return [*simulated(quick), *flights(data, quick)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("data"))
    options = parser.parse_args()
    rows = run(options.quick, options.data)
    columns = ["check", "size", *RULES, "verdict"]
    print(f"Seed {SEED}.\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        cells = [row.get(column) for column in columns]
        text = ["" if c is None else f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells]
        print(f"| {' | '.join(text)} |")
    return int(any("MISSED" in row["verdict"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
