"""Clusters on planted groups, on shuffled sessions and on sessions without groups.

Run: `python -m tests.validate.validate_clusters [--quick] [--data DIR]`. Prints a markdown table;
exits with 1 when a bar is missed. The other columns group by other similarities, told the right
number of groups: Jaccard and positive normalised pointwise mutual information with the same
spectral clustering, Jaccard with average linkage. Ours chooses the number itself.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.cluster import spectral_clustering
from sklearn.metrics import adjusted_rand_score

from sb_pipelines.training.clusters import Clustering, cluster_skills, shuffle_margins
from sb_serving.stats.session_null import session_matrix
from tests.validate import validate_lift

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rows = tuple[Ints, Ints]
SEED = 20_242
OTHERS = ("Jaccard, spectral", "NPMI, spectral", "Jaccard, average link")
BOOTSTRAPS = 10


@dataclass(frozen=True)
class Design:
    """Planted groups.

    Attributes:
        name: Shown in the table.
        groups: Number of groups.
        per_group: Skills in each.
        sessions: Number of sessions.
        noise: Share of the calls that may go to any skill.
        median: Median session size.
        spread: Standard deviation of its logarithm.
        extra: Skills that belong to no group.
        bars: Whether the bars for ARI and stability apply.
    """

    name: str
    groups: int = 6
    per_group: int = 12
    sessions: int = 1500
    noise: float = 0.5
    median: float = 4.0
    spread: float = 0.8
    extra: int = 0
    bars: bool = True


DESIGNS = (
    Design("6 groups of 12"),
    Design("6 groups of 12, noisier", noise=0.55, bars=False),
    Design("6 groups of 12, 700 sessions", sessions=700, noise=0.45, bars=False),
    Design("3 groups of 20", groups=3, per_group=20),
    Design("10 groups of 10", groups=10, per_group=10, sessions=2500, noise=0.4),
    Design("6 groups of 12 and 24 skills of none", noise=0.4, extra=24, bars=False),
    Design("6 groups of 12, 20,000 sessions", sessions=20_000),
)


def planted(design: Design, seed: int) -> tuple[Rows, Ints]:
    """Sessions with one theme or (three in ten) two; truth is -1 for skills of no group."""
    rng = np.random.default_rng(seed)
    truth = np.r_[np.repeat(np.arange(design.groups), design.per_group), np.full(design.extra, -1)]
    fame = rng.permutation(1 / np.arange(1, len(truth) + 1) ** 0.8)
    popularity = rng.dirichlet(np.full(design.groups, 5))
    of_group = np.array([np.where(truth == g, fame, 0) for g in range(design.groups)])
    of_group /= of_group.sum(axis=1, keepdims=True)
    themes = rng.choice(design.groups, (design.sessions, 2), p=popularity)
    one = rng.random((design.sessions, 1)) >= 0.3
    theme = np.where(one, of_group[themes[:, 0]], of_group[themes].mean(axis=1))
    weight = design.noise * fame / fame.sum() + (1 - design.noise) * theme
    sizes = validate_lift.log_normal_sizes(
        rng, design.sessions, design.median, design.spread, len(truth) // 2
    )
    ranked = np.argsort(-(np.log(weight) + rng.gumbel(size=weight.shape)), axis=1)
    session, place = np.nonzero(np.arange(len(truth)) < sizes[:, None])
    return (session, ranked[session, place]), truth


def labels_of(result: Clustering, n_skills: int) -> Ints:
    """The group of each skill; 0 for those left out."""
    labels = np.zeros(n_skills, dtype=np.int64)
    for member in result.clusters:
        labels[int(member.skill_name)] = member.cluster_id
    return labels


def names_of(n_skills: int) -> list[str]:
    return [f"{i:06d}" for i in range(n_skills)]


def other(rule: str, matrix: Any, k: int) -> Ints:
    """Groups by another similarity."""
    joint = (matrix.T @ matrix).toarray().astype(float)
    n = joint.diagonal()
    if rule == "NPMI, spectral":
        p = n / matrix.shape[0]
        share = np.where(joint > 0, joint, 1) / matrix.shape[0]
        similarity = np.log(share / np.outer(p, p)) / -np.log(share)
        similarity = np.where(joint > 0, np.maximum(similarity, 0), 0)
    else:
        similarity = joint / np.maximum(n[:, None] + n - joint, 1)
    np.fill_diagonal(similarity, 0)
    if rule == "Jaccard, average link":
        far = 1 - similarity
        np.fill_diagonal(far, 0)
        tree = linkage(squareform(far, checks=False), "average")
        return np.asarray(fcluster(tree, k, "maxclust"))
    # A faint tie to everything: the embedding warns of unconnected graphs otherwise.
    return np.asarray(
        spectral_clustering(
            similarity + 1e-6, n_clusters=k, assign_labels="cluster_qr", random_state=0
        )
    )


def other_figures(rule: str, rows: Rows, truth: Ints, k: int, seed: int) -> tuple[float, float]:
    """ARI to the truth and mean ARI to the groups of resampled sessions."""
    rng = np.random.default_rng(seed)
    matrix = session_matrix(*rows, len(truth))
    labels = other(rule, matrix, k)
    again = [
        adjusted_rand_score(
            labels, other(rule, matrix[rng.integers(0, matrix.shape[0], matrix.shape[0])], k)
        )
        for _ in range(BOOTSTRAPS)
    ]
    grouped = truth >= 0
    return float(adjusted_rand_score(truth[grouped], labels[grouped])), float(np.mean(again))


def verdict(ok: bool) -> str:
    return "ok" if ok else "MISSED"


def recovered(design: Design, seeds: int) -> dict[str, Any]:
    """Means over seeds: ARI to the planted groups / stability."""
    ours: list[tuple[float, float]] = []
    others: dict[str, list[tuple[float, float]]] = {rule: [] for rule in OTHERS}
    numbers: list[int] = []
    shares: list[float] = []
    verdicts = 0
    for seed in range(SEED, SEED + seeds):
        rows, truth = planted(design, seed)
        result = cluster_skills(names_of(len(truth)), *rows)
        grouped = truth >= 0
        labels = labels_of(result, len(truth))
        ari = adjusted_rand_score(truth[grouped], labels[grouped])
        ours.append((ari, result.stability or 0.0))
        numbers.append(result.k)
        verdicts += result.structure
        shares.append(result.largest_share or 0.0)
        for rule in OTHERS:
            others[rule].append(other_figures(rule, rows, truth, design.groups, seed))
    ari, stability = np.mean(ours, axis=0)
    met = verdicts == seeds and (not design.bars or (ari >= 0.9 and stability >= 0.75))
    return {
        "check": f"{design.name}: ARI / stability",
        "size": f"{seeds} seeds, {design.sessions:,} sessions",
        "ours": f"{ari:.2f} / {stability:.2f}",
        **{
            rule: "{:.2f} / {:.2f}".format(*np.mean(figures, axis=0))
            for rule, figures in others.items()
        },
        "k": " ".join(map(str, numbers)),
        "structure": f"{verdicts} of {seeds}",
        "largest": f"{max(shares):.2f}",
        "bar": ">= .90 / >= .75, structure" if design.bars else "structure",
        "verdict": verdict(met),
    }


def without(name: str, make: Any, seeds: int) -> dict[str, Any]:
    """How often structure is seen where there is none."""
    seen, scores = 0, []
    for seed in range(SEED, SEED + seeds):
        rows, n_skills = make(np.random.default_rng(seed))
        result = cluster_skills(names_of(n_skills), *rows, seed=seed)
        seen += result.structure
        scores.append(result.score or 0.0)
    return {
        "check": f"{name}: structure seen",
        "size": f"{seeds} sets",
        "ours": f"score {np.mean(scores):.2f}, most {max(scores):.2f}",
        "structure": f"{seen} of {seeds}",
        "bar": "at most 1 in 10",
        "verdict": verdict(seen <= max(1, seeds // 10)),
    }


def real(name: str, rows: Rows, n_skills: int) -> dict[str, Any]:
    """What real sessions give; no bar."""
    result = cluster_skills(names_of(n_skills), *rows)
    score = "not asked" if result.score is None else f"score {result.score:.1f}"
    stability = "" if result.stability is None else f", stability {result.stability:.2f}"
    return {
        "check": name,
        "size": f"{result.n_sessions:,} sessions, {len(result.clusters)} skills",
        "ours": score + stability,
        "k": str(result.k),
        "structure": "yes" if result.structure else "no",
        "largest": f"{result.largest_share or 0:.2f}",
        "verdict": "",
    }


def speed(sessions: int) -> dict[str, Any]:
    """CPU seconds with 200 skills and about seven skills a session."""
    rng = np.random.default_rng(SEED)
    (session, skill), n_skills = validate_lift.random_calls(rng, sessions)
    start = time.process_time()
    cluster_skills(names_of(n_skills), session, skill)
    taken = time.process_time() - start
    return {
        "check": "CPU seconds",
        "size": f"{sessions:,} sessions, {len(session):,} calls",
        "ours": f"{taken:.1f}",
        "bar": "<= 15",
        "verdict": verdict(taken <= 15),
    }


def run(quick: bool, data: Path = Path("data")) -> list[dict[str, Any]]:
    """Every row of the table.

    Args:
        quick: Two seeds instead of five, five shuffles instead of twenty.
        data: Folder with `statistics/bakery_baskets.parquet` and `claude_transcripts/`; what is
            missing is left out.
    """
    seeds, shuffles = (2, 5) if quick else (5, 20)

    def shuffled(rows: Rows, n_skills: int) -> Any:
        return lambda rng: (shuffle_margins(*rows, rng, trades=30), n_skills)

    rows = [recovered(design, seeds) for design in DESIGNS]
    plant, truth = planted(DESIGNS[0], SEED)
    rows.append(without("planted, shuffled", shuffled(plant, len(truth)), shuffles))
    baskets, read = validate_lift.bakery(data), validate_lift.transcripts(data)
    if baskets is not None:
        rows.append(without("bakery, shuffled", shuffled(baskets[0], len(baskets[1])), shuffles))
        rows.append(real("bakery", baskets[0], len(baskets[1])))
    if read is not None:
        rows.append(without("transcripts, shuffled", shuffled(read[0], len(read[1])), shuffles))
        rows.append(real("transcripts", read[0], len(read[1])))
    rows += [
        without("no groups, 212 sessions, heavy tail", validate_lift.agent_like, shuffles),
        without(
            "no groups, 20,000 sessions, random calls",
            lambda rng: validate_lift.random_calls(rng, 20_000),
            seeds,
        ),
        speed(100_000 if quick else 1_000_000),
    ]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("data"))
    options = parser.parse_args()
    rows = run(options.quick, options.data)
    columns = ["check", "size", "ours", *OTHERS, "k", "structure", "largest", "bar", "verdict"]
    print(f"Seed {SEED}.\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(str(row.get(column, '')) for column in columns)} |")
    return int(any("MISSED" in row["verdict"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
