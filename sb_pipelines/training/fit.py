"""Teaches the success predictor and decides whether it is good enough to be served.

Belongs here: which runs may teach (old enough for their outcome to be known), the models, the
evaluation forward in time, the correction of probabilities, and the decision. Does not: counting
(`features`), what a feature is and how the served model computes (`sb_serving.stats.success`),
measures (`evaluate`).

The runs are walked through in time. Each block of the later 60 % is predicted by models that were
taught with what was known when it began, less a gap: a run started too shortly before has an
outcome only if it ended quickly, and quick runs end differently. On all these predictions together
the model must beat the skill's own shrunk rate in log-loss, by more than chance gives both between
sessions and between days, or the shrunk rate is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from sb_pipelines.training import evaluate, export
from sb_pipelines.training.features import History
from sb_serving.predict import Choice, Predictor
from sb_serving.stats import baseline
from sb_serving.stats.success import FEATURES, Model, basis, corrected, features, shrunk_rate

__all__ = ["Learned", "correction", "horizon", "learn", "teach"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

MODEL: Choice = "forest_and_logistic"
"""Name of the served model among the methods that are judged."""
MATURE = 0.99
"""Share of outcomes that are known after the horizon."""
LEAST_RUNS, LEAST_RARE = 500, 25
"""Below so many decided runs, or runs of the rarer outcome, nothing is taught."""
MOST_RUNS = 100_000
"""Runs that are taught from, spread evenly over all; more add time, not accuracy."""
FIRST_BLOCK, BLOCKS = 0.4, 3
LEAST_JUDGED = 10
"""Runs of the rarer outcome among those predicted forward in time."""
MOST_JUDGED = 30_000
"""Runs of a block that are predicted for the evaluation, spread evenly over it."""

SHARES = (0.25, 0.5, 0.75)
"""Weights of the forest beside the logistic regression, of which the best forward in time is taken.
Never 0 or 1: where the better one fails, on rates it has not seen, the other holds it back."""

TREES, LEAF, DEPTH, TREE_RUNS = 100, 20, 10, 20_000
"""Leaves of 20 runs: with smaller ones a forest breaks down when rates drift. Depth and runs per
tree bound the size of the forest and the time of an answer."""
LOOSE = 0.17
"""Beforehand the logistic regression says what the skill's rate says: each weight is normal around
that, per standard deviation of its column, with this standard deviation. Hundreds of runs move it
little, a hundred thousand freely; held more loosely, what holds for a few days is carried on to
days that contradict it."""
USUAL_STRENGTH = 20.0
"""Runs that the rate of all skills is worth before the skills are looked at."""
BLOCK_TREES = 30
"""Enough to judge by: more make a forest a little better, not another one."""
SHUFFLED_RUNS = 1_000
_DAY = 86_400_000_000
SKILL_RATE = next(i for i, feature in enumerate(FEATURES) if feature.name == "skill_rate")


@dataclass(frozen=True, slots=True)
class Learned:
    """What came out of a training.

    Attributes:
        predictor: What is to be served.
        reason: Why, in a sentence.
        scores: Measures of every method on the same predictions forward in time; empty without
            enough data. `forest_and_logistic` is the mean of the two before it is corrected.
        importance: Feature -> rise of the model's log-loss when its values are shuffled among the
            runs of the last block; empty without enough data.
        n: Runs that may teach.
        completed: Completed ones among them.
        judged: Predictions behind the scores.
        horizon_seconds: The gap: by then 99 % of outcomes are known; None if that never happens.
        corrected: Whether the log-odds are corrected.
    """

    predictor: Predictor
    reason: str
    scores: tuple[evaluate.Score, ...] = ()
    importance: Mapping[str, float] | None = None
    n: int = 0
    completed: int = 0
    judged: int = 0
    horizon_seconds: float | None = None
    corrected: bool = False

    def report(self) -> dict[str, Any]:
        """What was found, as JSON."""
        by_method: dict[str, dict[str, Any]] = {}
        for score in self.scores:
            by_method.setdefault(score.method, {})[score.metric] = {
                "value": score.value,
                "low": score.low,
                "high": score.high,
            }
        table = self.predictor.reliability
        return {
            "reason": self.reason,
            "n_train": self.n,
            "n_train_completed": self.completed,
            "n_judged": self.judged,
            "horizon_seconds": self.horizon_seconds,
            "corrected": self.corrected,
            "scores": by_method,
            "intervals": "95 %: DeLong for auc, sessions resampled for the others",
            "reliability": [
                {"p_upper": float(edge), "n": int(n), "completed": int(completed)}
                for edge, n, completed in ([] if table is None else table)
            ],
            "importance": dict(self.importance or {}),
        }


@dataclass(frozen=True, slots=True)
class _Block:
    """One stretch of time, predicted by models that were taught before it."""

    runs: NDArray[np.intp]
    predictions: Mapping[str, Floats]
    model: Model
    rows: Floats


def horizon(asked_at: Ints, known_at: Ints, cut: int) -> int | None:
    """How old a run must be for its outcome to be known almost certainly.

    Runs that are still open at the cut count as open so far, not as absent: otherwise slow outcomes
    would look rarer than they are.

    Args:
        asked_at: Starts of all runs, microseconds, shape (n,).
        known_at: When outcomes are known, shape (n,); of those after the cut only that is used.
        cut: Now.

    Returns:
        Microseconds after which the share `MATURE` of outcomes is known; None if never seen.

    Source: Kaplan and Meier, Journal of the American Statistical Association 53 (1958), 457-481.
    """
    begun = asked_at < cut
    asked, known = asked_at[begun], known_at[begun]
    closed = known < cut
    waited = np.where(closed, known, cut) - asked
    # At equal times outcomes come before runs that are still open, as usual.
    order = np.lexsort((~closed, waited))
    at_risk = np.arange(len(order), 0, -1)
    still_open = np.cumprod(1.0 - closed[order] / at_risk)
    reached = still_open <= 1.0 - MATURE
    return int(waited[order][np.argmax(reached)]) if reached.any() else None


def learn(history: History, cut: int, *, seed: int = 0) -> Learned:
    """Teach, judge and decide with what is known at a moment.

    Args:
        history: Runs; those after the cut are not looked at.
        cut: Now, microseconds since 1970.
        seed: For the forest and the resampling.
    """
    if not (history.asked_at < cut).any():
        return _too_little("no run started before that moment")
    gap = horizon(history.asked_at, history.known_at, cut)
    if gap is None:
        return _too_little("too many outcomes are not known yet")
    taught = _mature(history, cut, gap)
    n, completed = len(taught), int(history.completed[taught].sum())
    if n < LEAST_RUNS or min(completed, n - completed) < LEAST_RARE:
        return _too_little(
            f"{n:,} decided runs are old enough, {min(completed, n - completed):,} of them of the"
            f" rarer outcome; {LEAST_RUNS:,} and {LEAST_RARE} are needed",
            n=n,
            completed=completed,
            horizon_seconds=gap / 1e6,
        )
    blocks = _walk(history, taught, gap, seed)
    strength = _strength(history, taught)
    runs = np.concatenate([block.runs for block in blocks] or [taught[:0]])
    outcome, session = history.completed[runs], history.session[runs]
    if min(outcome.sum(), (~outcome).sum()) < LEAST_JUDGED:
        return Learned(
            Predictor("shrunk_rate", strength),
            "the model cannot be judged yet: too few later runs with old enough ones before them,"
            " or of one outcome only",
            n=n,
            completed=completed,
            horizon_seconds=gap / 1e6,
        )
    p = {
        method: np.concatenate([block.predictions[method] for block in blocks])
        for method in blocks[0].predictions
    }
    share, p[MODEL] = _mixed(outcome, p)
    units = session, history.asked_at[runs] // _DAY
    gain = evaluate.better_by(outcome, p[MODEL], p["shrunk_rate"], *units)
    common: dict[str, Any] = {
        "scores": tuple(evaluate.scores(outcome, p, session, seed=seed)),
        "importance": _importance(history, blocks[-1], share, seed),
        "n": n,
        "completed": completed,
        "judged": len(runs),
        "horizon_seconds": gap / 1e6,
    }
    if gain.low <= 0.0:
        return Learned(
            predictor=Predictor("shrunk_rate", strength),
            reason=_not_better(gain, len(runs)),
            **common,
        )
    some = _spread(taught, MOST_RUNS)
    rows = features(history.rows(some), strength)
    model = teach(rows, history.completed[some], seed, trees=TREES)
    model = replace(model, share=share)
    last = slice(len(runs) - len(blocks[-1].runs), None)
    found = correction(outcome, p[MODEL], last, *units)
    if found:
        model = replace(model, calibration=found)
    table = evaluate.reliability(outcome, corrected(p[MODEL], model.calibration))
    return Learned(
        predictor=Predictor(MODEL, strength, model, table),
        reason=f"better than the skill's shrunk rate: log-loss lower by {gain.mean:.4f},"
        f" at least {gain.low:.4f} with 95 % confidence (n = {len(runs):,})",
        corrected=found is not None,
        **common,
    )


def teach(rows: Floats, completed: Bools, seed: int, *, trees: int) -> Model:
    """Fit the forest and the logistic regression, without correction.

    Args:
        rows: Features, shape (n, len(FEATURES)).
        completed: Outcomes, both present, shape (n,).
        seed: For the forest.
        trees: How many.
    """
    from sklearn.ensemble import RandomForestClassifier

    columns, owner = basis(rows)
    mean, scale = columns.mean(axis=0), columns.std(axis=0)
    scale[scale < 1e-9] = 1.0  # a column that never varied adds nothing
    usual = np.where(owner == SKILL_RATE, scale, 0.0)
    intercept, weight = _logistic((columns - mean) / scale, completed, usual)
    forest = RandomForestClassifier(
        trees,
        min_samples_leaf=LEAF,
        max_depth=DEPTH,
        max_samples=min(len(rows), TREE_RUNS),
        random_state=seed,
        n_jobs=1,
    ).fit(rows.astype(np.float32), completed)
    return Model(export.forest_of(forest), mean, weight / scale, intercept)


def _too_little(reason: str, **known: Any) -> Learned:
    return Learned(Predictor("not_enough_data"), f"not enough data: {reason}", **known)


def _not_better(gain: evaluate.Difference, n: int) -> str:
    found = f"lower by {gain.mean:.4f}, which may be chance"
    if gain.mean <= 0.0:
        found = f"higher by {-gain.mean:.4f}"
    return f"no better than the skill's shrunk rate: log-loss {found} (n = {n:,})"


def _mature(history: History, until: int, gap: int) -> NDArray[np.intp]:
    """Decided runs that may teach at a moment, in the order of their starts."""
    may = (
        history.decided
        & (history.asked_at <= until - gap)
        & (history.asked_at < until)
        & (history.known_at < until)
    )
    found = np.flatnonzero(may)
    return found[np.argsort(history.asked_at[found], kind="stable")]


def _spread(runs: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """At most so many of them, evenly spaced, the last one among them."""
    step = max(1, -(-len(runs) // most))
    return runs[::-1][::step][::-1]


def _strength(history: History, runs: NDArray[np.intp]) -> float:
    """How many runs the rate of all skills is worth beside a skill's own.

    Beforehand as many as for the other rates, log-normal, a factor of e either way: a few dozen
    skills with a few failures each leave it open, and their sessions make skills look more unlike
    than they are.
    """
    skill = history.skill[runs]
    community = baseline.fit(np.bincount(skill, history.completed[runs]), np.bincount(skill))
    strength = np.log(community.strength)
    weight = community.weight * np.exp(-((strength - np.log(USUAL_STRENGTH)) ** 2) / 2.0)
    return float(np.clip(np.exp(weight @ strength / weight.sum()), 1.0, 1_000.0))


def _walk(history: History, taught: NDArray[np.intp], gap: int, seed: int) -> list[_Block]:
    """Predict block after block of the later runs, each from what was known when it began."""
    edges = np.linspace(FIRST_BLOCK, 1.0, BLOCKS + 1) * len(taught)
    blocks: list[_Block] = []
    for low, high in zip(edges[:-1].astype(int), edges[1:].astype(int), strict=True):
        runs = taught[low:high]
        before = _mature(history, int(history.asked_at[runs[0]]), gap)
        outcome = history.completed[before]
        if len(before) == 0 or min(outcome.sum(), (~outcome).sum()) < LEAF:
            continue
        blocks.append(_predict_block(history, before, _spread(runs, MOST_JUDGED), seed))
    return blocks


def _predict_block(
    history: History, before: NDArray[np.intp], runs: NDArray[np.intp], seed: int
) -> _Block:
    strength = _strength(history, before)
    before = _spread(before, MOST_RUNS)
    counts, outcome = history.rows(runs), history.completed[before]
    past, rows = (features(history.rows(some), strength) for some in (before, runs))
    model = teach(past, outcome, seed, trees=BLOCK_TREES)
    forest, logistic = model.parts(rows)
    predictions = {
        "base_rate": np.full(len(runs), outcome.mean()),
        "shrunk_rate": shrunk_rate(counts, strength),
        "logistic": logistic,
        "forest": forest,
        "boosting": _boosting(past, outcome, rows, seed),
    }
    return _Block(runs, predictions, model, rows)


def _boosting(past: Floats, outcome: Bools, rows: Floats, seed: int) -> Floats:
    """Gradient boosting, for comparison only."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # its threads wait for each other in a busy loop
        fitted = HistGradientBoostingClassifier(
            max_iter=50, min_samples_leaf=LEAF, early_stopping=False, random_state=seed
        ).fit(past, outcome)
        return np.asarray(fitted.predict_proba(rows)[:, 1])


def _mixed(outcome: Bools, p: Mapping[str, Floats]) -> tuple[float, Floats]:
    """The best weight of the forest, and the mean with it."""
    mixed = {share: share * p["forest"] + (1.0 - share) * p["logistic"] for share in SHARES}
    return min(mixed.items(), key=lambda one: float(evaluate.losses(outcome, one[1]).mean()))


def correction(outcome: Bools, p: Floats, last: slice, *units: Ints) -> tuple[float, float] | None:
    """Intercept and slope on the log-odds, if they help on a later block than they were taught on.

    Args:
        outcome: Outcomes of all blocks in the order of time, shape (n,).
        p: Predictions, shape (n,).
        last: The last block among them.
        units: Session and day of each run, shape (n,) each; see `evaluate.better_by`.

    Returns:
        Taught on all blocks; None where the last block is no better with what the earlier ones
        teach, or these teach nothing.

    Source: J. Platt, Advances in Large Margin Classifiers (1999), 61-74.
    """
    earlier = slice(None, last.start)
    if len(set(outcome[earlier].tolist())) < 2:
        return None
    tried = corrected(p[last], _platt(p[earlier], outcome[earlier]))
    gain = evaluate.better_by(outcome[last], tried, p[last], *(unit[last] for unit in units))
    return _platt(p, outcome) if gain.low > 0.0 else None


def _platt(p: Floats, completed: Bools) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression

    column = logit(np.clip(p, 1e-6, 1.0 - 1e-6))[:, None]
    fitted = LogisticRegression(C=1e6, max_iter=500).fit(column, completed)
    return float(fitted.intercept_[0]), float(fitted.coef_[0, 0])


def _logistic(columns: Floats, completed: Bools, usual: Floats) -> tuple[float, Floats]:
    """Logistic regression whose weights are held near given ones, not near 0.

    Args:
        columns: Shape (n, B).
        completed: Outcomes, shape (n,).
        usual: The weights that hold unless the runs contradict them, shape (B,).

    Returns:
        Intercept, and weights of shape (B,): the most likely ones where each weight is normal
        around its usual one with standard deviation `LOOSE`, and nothing is said of the intercept.
    """

    def loss(found: Floats) -> tuple[float, Floats]:
        away = found[1:] - usual
        seen = found[0] + columns @ found[1:]
        gap = expit(seen) - completed
        slope = np.append(gap.sum(), gap @ columns + away / LOOSE**2)
        value = np.logaddexp(0.0, seen).sum() - seen[completed].sum()
        return float(value + away @ away / (2.0 * LOOSE**2)), slope

    found = minimize(loss, np.append(0.0, usual), jac=True, method="L-BFGS-B").x
    return float(found[0]), np.asarray(found[1:])


def _importance(history: History, block: _Block, share: float, seed: int) -> dict[str, float]:
    """Rise of the log-loss on the last block when one feature is shuffled, largest first."""
    some = _spread(np.arange(len(block.rows)), SHUFFLED_RUNS)
    rows, outcome = block.rows[some], history.completed[block.runs[some]]
    rng = np.random.default_rng(seed)
    model = replace(block.model, share=share)
    plain = evaluate.losses(outcome, model.probability(rows)).mean()
    rise = {}
    for index, feature in enumerate(FEATURES):
        mixed = rows.copy()
        mixed[:, index] = rng.permutation(mixed[:, index])
        loss = evaluate.losses(outcome, model.probability(mixed)).mean()
        rise[feature.name] = float(loss - plain)
    return dict(sorted(rise.items(), key=lambda one: -one[1]))
