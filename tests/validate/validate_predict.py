"""The success predictor on flights, an assistant's calls and demo data: leaks, accuracy, time.

Run: `nice python -m tests.validate.validate_predict [--quick] [--data DIR]`. Prints a markdown
table; exits with 1 when a bar is missed. Columns `base` to `boosting` are the other methods, taught
with the same features and judged on the same runs; `oracle` is the generator's own probability.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sb_pipelines.training import evaluate, features, fit
from sb_pipelines.training.export import forest_of
from sb_serving.demo import DemoPlan, chunks
from sb_serving.stats import success
from tests.runs import Columns, history_of

Row = dict[str, Any]
SEED = 40
END = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = 0.7
"""Share of the runs, in time, that come before the moment of training."""
METHODS = ("base_rate", "shrunk_rate", "logistic", "forest", "boosting")
NAMES = {"auc": "AUC", "log_loss": "log-loss", "brier": "Brier", "ece": "ECE"}
COLUMNS = (
    "skill_name", "invoked_at", "outcome", "duration_seconds", "session_id", "user_id",
    "workflow_phase", "agent", "agent_version", "model", "p_completed",
)  # fmt: skip


def demo(n: int, seed: int, **plan: bool) -> Columns:
    """Demo runs as columns."""
    parts = list(chunks(DemoPlan(n=n, seed=seed, end=END, **plan)))
    for part in parts:
        part["duration_seconds"] = part["duration_seconds"].filled(np.nan)
    return {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}


def flights(file: Path, share: float) -> Columns:
    """The first share of the flights as columns."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        found = connection.execute(
            """
            select skill_name, duration_seconds,
                   cast(cast(invoked_at as TIMESTAMPTZ) as TIMESTAMP) as invoked_at,
                   case when completed then 'completed' else 'failed' end as outcome,
                   session_id, user_id, workflow_phase
            from read_parquet($file) order by invoked_at, event_id
            """,
            {"file": str(file)},
        ).fetchnumpy()
    kept = int(share * len(found["outcome"]))
    return {name: column[:kept] for name, column in found.items()}


def calls(folder: Path) -> Columns:
    """The tool calls that ingest reads from transcripts as columns."""
    from sb_serving import times
    from sb_serving.ingest import parse_tree
    from sb_serving.store.identity import Identity

    runs = list(parse_tree(folder, Identity(b"0" * 32), "", datetime(2100, 1, 1, tzinfo=UTC)))
    names = [
        name for name in COLUMNS if name not in ("invoked_at", "duration_seconds", "p_completed")
    ]
    columns: Columns = {
        name: np.array([getattr(run, name) or "" for run in runs], dtype=object) for name in names
    }
    starts = [times.from_text(run.invoked_at).replace(tzinfo=None) for run in runs]
    columns["invoked_at"] = np.array(starts, dtype="datetime64[us]")
    columns["duration_seconds"] = np.array([run.duration_seconds for run in runs], dtype=np.float64)
    return columns


def start_of(history: features.History) -> int:
    return int(np.sort(history.asked_at)[int(LATER * len(history))])


def judged(name: str, columns: Columns, bars: dict[str, float], *, slack: float = 0.0) -> list[Row]:
    """Train on the earlier runs, judge on the later ones, one row per measure."""
    history = history_of(columns)
    cut = start_of(history)
    learned = fit.learn(history, cut, seed=SEED)
    later = np.flatnonzero((history.asked_at >= cut) & history.decided)
    rows, outcome = history.rows(later), history.completed[later]
    gap = fit.horizon(history.asked_at, history.known_at, cut)
    assert gap is not None
    past = fit._mature(history, cut, gap)
    others = fit._predict_block(history, past, later, SEED).predictions
    predictions = {"ours": learned.predictor.probability(rows), **others}
    if "p_completed" in columns:
        predictions["oracle"] = np.asarray(columns["p_completed"])[later]
    found: dict[str, dict[str, evaluate.Score]] = {}
    for score in evaluate.scores(outcome, predictions, history.session[later], seed=SEED):
        found.setdefault(score.metric, {})[score.method] = score
    table: list[Row] = []
    for metric, by_method in found.items():
        ours = by_method["ours"]
        row: Row = {
            "check": f"{name}: {NAMES[metric]}",
            "size": len(later),
            "ours": ours.value,
            "95 %": f"{ours.low:.3f} to {ours.high:.3f}",
            **{method: score.value for method, score in by_method.items() if method != "ours"},
            "verdict": "",
        }
        if metric in bars:
            good = ours.value >= bars[metric] if metric == "auc" else ours.value <= bars[metric]
            sign = ">=" if metric == "auc" else "<="
            row["verdict"] = verdict(good, f"{sign} {bars[metric]}")
        elif metric == "auc" and "oracle" in by_method:
            short = by_method["oracle"].value - ours.value
            row["verdict"] = verdict(short <= 0.02 + slack, f"oracle - {0.02 + slack:.2f}")
        elif metric == "log_loss":
            good = ours.value < by_method["shrunk_rate"].value
            row["verdict"] = verdict(good, "< shrunk rate")
        table.append(row)
    served = learned.predictor.choice
    table.append(
        {
            "check": f"{name}: served",
            "size": learned.judged,
            "ours": served,
            "verdict": verdict(served == "forest_and_logistic", "the model"),
        }
    )
    return table


def no_worse(name: str, columns: Columns) -> list[Row]:
    """What is served against the skill's shrunk rate on the same later runs, at several moments."""
    history = history_of(columns)
    table: list[Row] = []
    for share in (0.5, 0.6, 0.7, 0.8):
        cut = int(np.sort(history.asked_at)[int(share * len(history))])
        predictor = fit.learn(history, cut, seed=SEED).predictor
        later = np.flatnonzero((history.asked_at >= cut) & history.decided)
        rows, outcome = history.rows(later), history.completed[later]
        ours, rate = (
            float(evaluate.losses(outcome, p).mean())
            for p in (predictor.probability(rows), success.shrunk_rate(rows, predictor.strength))
        )
        table.append(
            {
                "check": f"{name}, trained on {share:.0%}, {predictor.choice}: log-loss",
                "size": len(later),
                "ours": ours,
                "shrunk_rate": rate,
                "verdict": verdict(ours <= rate, "<= shrunk rate"),
            }
        )
    return table


def verdict(good: bool, bar: str) -> str:
    return ("ok" if good else "MISSED") + f" ({bar})"


def leak(name: str, columns: Columns) -> Row:
    """Flip what was not known at a cut inside the later runs; nothing up to the cut may move."""
    history = history_of(columns)
    learned = fit.learn(history, start_of(history), seed=SEED)
    cut = int(np.sort(history.asked_at)[int(0.85 * len(history))])
    unknown = history.known_at >= cut
    other = {"completed": "failed", "failed": "completed"}
    outcome = np.array([other.get(one, one) for one in columns["outcome"]], dtype=object)
    flipped = columns | {"outcome": np.where(unknown, outcome, columns["outcome"])}
    again = history_of(flipped)
    taught = fit.learn(again, start_of(again), seed=SEED)
    before = np.flatnonzero((history.asked_at >= start_of(history)) & (history.asked_at <= cut))
    first = learned.predictor.probability(history.rows(before))
    second = taught.predictor.probability(again.rows(before))
    moved = int((first != second).sum())
    after = np.flatnonzero(history.asked_at > cut)
    followed = learned.predictor.probability(history.rows(after))
    reacted = int((followed != taught.predictor.probability(again.rows(after))).sum())
    return {
        "check": f"{name}: predictions moved by outcomes not yet known"
        f" ({reacted} later ones moved, as they should)",
        "size": len(before),
        "ours": moved,
        "verdict": verdict(moved == 0 and reacted > 0, "0"),
    }


def without_signal(n: int, seeds: int) -> Row:
    """Demos in which no model can beat the rate per skill."""
    served = []
    for seed in range(SEED, SEED + seeds):
        history = history_of(demo(n, seed, signal=False, planted_failure=False))
        served.append(fit.learn(history, start_of(history), seed=seed).predictor.choice)
    refused = served.count("shrunk_rate")
    return {
        "check": f"demo without signal, seeds {SEED} to {SEED + seeds - 1}: refused",
        "size": n,
        "ours": f"{refused} of {seeds}",
        "verdict": verdict(refused == seeds, "all"),
    }


def duration(n: int, bar: float) -> Row:
    """Training with features, as an asset would."""
    columns = demo(n, SEED)
    begun, used = time.perf_counter(), time.process_time()
    history = history_of(columns)
    counted = time.perf_counter() - begun
    fit.learn(history, int(history.known_at.max()) + 1, seed=SEED)
    took = time.perf_counter() - begun
    return {
        "check": f"training, seconds (features {counted:.1f},"
        f" CPU {time.process_time() - used:.1f})",
        "size": n,
        "ours": took,
        "verdict": verdict(took <= bar, f"<= {bar:g} s"),
    }


def scoring(columns: Columns) -> list[Row]:
    """The flat forest against scikit-learn, and the time of one row."""
    from sklearn.ensemble import RandomForestClassifier

    history = history_of(columns)
    rows: NDArray[np.float64] = success.features(history.counts, 20.0)
    fitted = RandomForestClassifier(
        fit.TREES, min_samples_leaf=fit.LEAF, max_depth=fit.DEPTH, random_state=SEED
    ).fit(rows.astype(np.float32), history.completed)
    forest = forest_of(fitted)
    apart = np.abs(forest.probability(rows) - fitted.predict_proba(rows)[:, 1]).max()
    taken = []
    for row in rows[:2_000]:
        begun = time.perf_counter()
        forest.probability_of(row)
        taken.append(1e3 * (time.perf_counter() - begun))
    middle = float(np.median(taken))
    return [
        {
            "check": f"forest of {len(forest.feature)} nodes: largest distance from scikit-learn",
            "size": len(rows),
            "ours": f"{apart:.1e}",
            "verdict": verdict(bool(apart <= 1e-12), "<= 1e-12"),
        },
        {
            "check": "one row, milliseconds, median",
            "size": len(taken),
            "ours": middle,
            "verdict": verdict(middle <= 0.1, "<= 0.1"),
        },
    ]


def run(quick: bool, data: Path = Path("data")) -> list[Row]:
    """Every row of the table.

    Args:
        quick: Smaller data; the AUC on demo data gets .02 of slack for its noise.
        data: Folder with `statistics/flights_jan_jun.parquet` and `claude_transcripts/`; what is
            missing is left out.
    """
    table: list[Row] = []
    file = data / "statistics" / "flights_jan_jun.parquet"
    if file.exists():
        all_flights = flights(file, 1.0)
        table += judged("flights", all_flights, {"auc": 0.74, "log_loss": 0.56, "ece": 0.05})
        table.append(leak("flights", flights(file, 0.2) if quick else all_flights))
    folder = data / "claude_transcripts"
    if folder.exists():
        table += no_worse("transcripts", calls(folder))
        table.append(leak("transcripts", calls(folder)))
    plans = [(20_000, SEED)] if quick else [(60_000, SEED), (60_000, SEED + 1), (200_000, SEED + 2)]
    for n, seed in plans:
        signal = demo(n, seed)
        table += judged(f"demo, seed {seed}", signal, {}, slack=0.02 if quick else 0.0)
    table.append(leak("demo", demo(20_000, SEED)))
    table.append(without_signal(10_000 if quick else 30_000, 2 if quick else 6))
    table += scoring(demo(20_000, SEED))
    table.append(duration(10_000, 5.0))
    if not quick:
        table.append(duration(1_000_000, 90.0))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("data"))
    options = parser.parse_args()
    rows = run(options.quick, options.data)
    columns = ["check", "size", "ours", "95 %", *METHODS, "oracle", "verdict"]
    print(f"Seed {SEED}.\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        cells = [row.get(column) for column in columns]
        text = ["" if c is None else f"{c:.4f}" if isinstance(c, float) else str(c) for c in cells]
        print(f"| {' | '.join(text)} |")
    return int(any("MISSED" in row["verdict"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
