"""Will a run complete? What is known before it, as features, and the model that weighs them.

Belongs here: what each feature is (one definition, for training and for live calls), the model (a
forest and a logistic regression on the same features, averaged) with its arrays, and what each
feature added to an answer. Does not: counting (`sb_pipelines.training.features` for many past
moments, `sb_serving.predict` for now), fitting and judging (`sb_pipelines.training.fit` and
`.evaluate`), walking the trees (`forest`).

Everything is counted as of the moment of the question: over runs whose outcome was known before it.
Rates are completed / (completed + failed), shrunk toward what they are part of, so that a new skill
begins at the rate of all and earns its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, expit, logit

from sb_serving.errors import SbError
from sb_serving.stats.forest import Forest

__all__ = [
    "COUNTS",
    "FEATURES",
    "SESSION",
    "Explained",
    "Feature",
    "Model",
    "basis",
    "corrected",
    "damaged",
    "features",
    "numbers",
    "rate_of_all",
    "shrunk_rate",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mixed = TypeVar("Mixed", float, Floats)

COUNTS = (
    "all",
    "skill",
    "user",
    "user_skill",
    "version",
    "phase",
    "agent",
    "model",
    "previous",
    "skill_24h",
    "skill_7d",
    "all_3h",
    "phase_3h",
)
"""What is counted before each run, three columns each: `<name>_n`, `_completed`, `_decided`.

`skill` to `model`: all earlier runs with the same one; `version`: of the skill under the same
version of the same agent; `previous`: of the skill that ran before in the session. `24h` and `3h`
go by the moment at which an outcome was known, `7d` by whole hours of starts, as in `skill_hour`.
"""

SESSION = (
    "session_n",
    "session_completed",
    "session_decided",
    "session_failures",
    "session_last_failed",
    "session_begun_at",
)
"""What is known of the session: counts, failures among its last three runs, whether the last one
failed, and its first start in microseconds since 1970 (`asked_at` in a new session)."""

# Strengths of shrinking: how many runs the wider rate is worth. Round numbers, not tuned; the
# skill's own is fitted.
_OF_ALL, _OF_SESSION, _OF_DAY, _OF_PAIR, _OF_RECENT = 20.0, 3.0, 10.0, 10.0, 10.0
_SAME, _CHANGED = 50.0, 0.02
"""A new version changes a skill's rate with probability `_CHANGED`; else its runs scatter around it
as if `_SAME` runs had fixed it."""


class Feature(NamedTuple):
    """One feature: its name, how the logistic part sees it, its words, and the runs behind it."""

    name: str
    form: Literal["rate", "count", "number", "hour", "weekday"]
    words: str
    n: str | None = None


FEATURES = (
    Feature("hour", "hour", "hour of the day (UTC)"),
    Feature("weekday", "weekday", "day of the week"),
    Feature("skill_rate", "rate", "this skill under this version", "version_decided"),
    Feature("skill_7d_rate", "rate", "this skill in the last 7 days", "skill_7d_decided"),
    Feature("skill_7d_n", "count", "runs of this skill in the last 7 days"),
    Feature("skill_24h_rate", "rate", "this skill in the last 24 hours", "skill_24h_decided"),
    Feature("skill_24h_n", "count", "runs of this skill in the last 24 hours"),
    Feature("phase_rate", "rate", "this phase", "phase_decided"),
    Feature("phase_3h_rate", "rate", "this phase in the last 3 hours", "phase_3h_decided"),
    Feature("recent_rate", "rate", "all skills in the last 3 hours", "all_3h_decided"),
    Feature("session_minutes", "count", "minutes since the session began"),
    Feature("session_rate", "rate", "this session so far", "session_decided"),
    Feature("session_failures", "number", "failures among the session's last 3 runs"),
    Feature("session_last_failed", "number", "whether the session's last run failed"),
    Feature("user_rate", "rate", "this user", "user_decided"),
    Feature("user_skill_rate", "rate", "this user with this skill", "user_skill_decided"),
    Feature("familiarity", "count", "the user's earlier runs of this skill"),
    Feature("previous_rate", "rate", "the skill that ran before", "previous_decided"),
    Feature("agent_rate", "rate", "this agent", "agent_decided"),
    Feature("model_rate", "rate", "this model", "model_decided"),
)
"""The features, in the order of a row. Phase, agent, model and previous skill appear as their own
completion rates: that stays right when new ones come, where a number per name would not."""

_FORM = zlib.crc32(repr([feature[:2] for feature in FEATURES]).encode())
"""Goes with a published model: one of other features, or another order, is refused."""


_OWNER = np.repeat(
    np.arange(len(FEATURES)), [1 + (one.form in ("hour", "weekday")) for one in FEATURES]
)
_ARE = {
    form: np.array([place for place, one in enumerate(FEATURES) if one.form == form])
    for form in ("rate", "count", "number", "hour", "weekday")
}
"""Where the features of each form stand in a row."""
_OWNS = {form: np.flatnonzero(np.isin(_OWNER, places)) for form, places in _ARE.items()}
"""And their columns of `basis`."""


# --- features ------------------------------------------------------------------------------------


def shrunk_rate(columns: Mapping[str, ArrayLike], strength: float) -> Floats:
    """Each skill's completion rate, shrunk toward that of all skills: the predictor's yardstick.

    Args:
        columns: `asked_at`, `COUNTS` and `SESSION`, each of shape (n,).
        strength: Runs that the rate of all is worth.

    Returns:
        Fractions, shape (n,).
    """
    return _shrunk(columns, "skill", rate_of_all(columns), strength)


def features(columns: Mapping[str, ArrayLike], strength: float) -> Floats:
    """The features of many runs, from what was known before each.

    Args:
        columns: `asked_at` (microseconds since 1970, UTC), `COUNTS` and `SESSION`, shape (n,) each.
        strength: See `shrunk_rate`.

    Returns:
        Shape (n, len(FEATURES)), all finite. Rates are fractions, counts plain counts.
    """
    asked = np.asarray(columns["asked_at"], dtype=np.int64)
    of_all = rate_of_all(columns)
    skill = _shrunk(columns, "skill", of_all, strength)
    version = _noticing(columns, "version", skill)
    week = _shrunk(columns, "skill_7d", skill, _OF_ALL)
    recent = _shrunk(columns, "all_3h", of_all, _OF_ALL)
    made = {
        "hour": asked // 3_600_000_000 % 24,
        "weekday": (asked // 86_400_000_000 + 3) % 7,  # 1970-01-01 was a Thursday
        "skill_rate": version,
        "skill_7d_rate": week,
        "skill_7d_n": columns["skill_7d_n"],
        "skill_24h_rate": _shrunk(columns, "skill_24h", week, _OF_DAY),
        "skill_24h_n": columns["skill_24h_n"],
        "phase_rate": _shrunk(columns, "phase", of_all, _OF_ALL),
        "phase_3h_rate": _shrunk(columns, "phase_3h", recent, _OF_RECENT),
        "recent_rate": recent,
        "session_minutes": (asked - np.asarray(columns["session_begun_at"])) / 60e6,
        "session_rate": _shrunk(columns, "session", of_all, _OF_SESSION),
        "session_failures": columns["session_failures"],
        "session_last_failed": columns["session_last_failed"],
        "user_rate": _shrunk(columns, "user", of_all, _OF_ALL),
        "user_skill_rate": _shrunk(columns, "user_skill", version, _OF_PAIR),
        "familiarity": columns["user_skill_n"],
        "previous_rate": _shrunk(columns, "previous", of_all, _OF_ALL),
        "agent_rate": _shrunk(columns, "agent", of_all, _OF_ALL),
        "model_rate": _shrunk(columns, "model", of_all, _OF_ALL),
    }
    table = [np.asarray(made[feature.name], dtype=np.float64) for feature in FEATURES]
    return np.stack(table, axis=1)


def basis(rows: Floats) -> tuple[Floats, Ints]:
    """The features as the logistic part adds them up.

    Rates become log-odds, counts logs, hour and weekday points on a circle.

    Args:
        rows: Features, shape (n, len(FEATURES)).

    Returns:
        Columns, shape (n, B), and the feature that each belongs to, shape (B,).
    """
    seen = np.empty((len(rows), len(_OWNER)))
    seen[:, _OWNS["rate"]] = logit(np.clip(rows[:, _ARE["rate"]], 1e-3, 1.0 - 1e-3))
    seen[:, _OWNS["count"]] = np.log1p(np.maximum(rows[:, _ARE["count"]], 0.0))
    seen[:, _OWNS["number"]] = rows[:, _ARE["number"]]
    for form, period in (("hour", 24), ("weekday", 7)):
        angle = rows[:, _ARE[form]] * (2.0 * np.pi / period)
        seen[:, _OWNS[form][0::2]] = np.sin(angle)
        seen[:, _OWNS[form][1::2]] = np.cos(angle)
    return seen, _OWNER


def _counts(columns: Mapping[str, ArrayLike], name: str) -> tuple[Floats, Floats]:
    return (
        np.asarray(columns[f"{name}_completed"], dtype=np.float64),
        np.asarray(columns[f"{name}_decided"], dtype=np.float64),
    )


def rate_of_all(columns: Mapping[str, ArrayLike]) -> Floats:
    """Completion rate of all runs known before each; 1/2 before the first, shape (n,)."""
    completed, decided = _counts(columns, "all")
    return np.asarray((completed + 1.0) / (decided + 2.0))


def _shrunk(columns: Mapping[str, ArrayLike], name: str, wider: Floats, strength: float) -> Floats:
    completed, decided = _counts(columns, name)
    return np.asarray((completed + strength * wider) / (decided + strength))


def _noticing(columns: Mapping[str, ArrayLike], name: str, wider: Floats) -> Floats:
    """A rate that stays with the wider one until the counts contradict it, then follows them.

    Mean of two posteriors, weighted by how well each explains the counts: "as usual" (a beta
    distribution around the wider rate) and "changed" (any rate). A plain shrunk rate is either too
    slow where a version breaks a skill, or too restless where none does.
    """
    completed, decided = _counts(columns, name)
    failed = decided - completed
    alpha, beta = _SAME * wider, _SAME * (1.0 - wider)
    usual = betaln(alpha + completed, beta + failed) - betaln(alpha, beta)
    changed = betaln(1.0 + completed, 1.0 + failed)
    weight = expit(logit(_CHANGED) + changed - usual)
    return np.asarray(
        (1.0 - weight) * (completed + alpha) / (decided + _SAME)
        + weight * (completed + 1.0) / (decided + 2.0)
    )


# --- the model -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Explained:
    """A probability and where it comes from.

    Attributes:
        probability: Of completion.
        base: What the model says of a run of which nothing is known.
        added: What each feature added, shape (len(FEATURES),); base + sum = probability.
    """

    probability: float
    base: float
    added: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A mean of a forest and a logistic regression, then a correction of its log-odds.

    Attributes:
        forest: The trees.
        mean: Mean of each column of `basis` in training, shape (B,).
        weight: Weight of each column's deviation from it, shape (B,).
        intercept: Log-odds at the mean.
        share: The forest's weight in the mean, 0 to 1; the logistic regression has the rest.
        calibration: Intercept and slope on the log-odds of the mean; (0, 1) changes nothing.
    """

    forest: Forest
    mean: Floats
    weight: Floats
    intercept: float
    share: float = 0.5
    calibration: tuple[float, float] = (0.0, 1.0)

    def probability(self, rows: Floats) -> Floats:
        """Probabilities of completion of many rows of `features`, shape (n,)."""
        return corrected(self._mixed(*self.parts(rows)), self.calibration)

    def parts(self, rows: Floats) -> tuple[Floats, Floats]:
        """What the forest and the logistic regression say, before mean and correction."""
        columns, _ = basis(rows)
        logistic = expit(self.intercept + (columns - self.mean) @ self.weight)
        return self.forest.probability(rows), np.asarray(logistic)

    def explain(self, row: Floats) -> Explained:
        """One row of `features`, shape (len(FEATURES),), with what each feature added.

        The forest's part are the steps of its paths, the logistic part's are its terms. Both are
        brought to the scale of the probability that is given out, keeping their proportions.
        """
        base, added = self.forest.contributions(row)
        columns, owner = basis(row[None])
        terms = np.zeros(len(FEATURES))
        np.add.at(terms, owner, (columns[0] - self.mean) * self.weight)
        linear_base, linear = (float(expit(self.intercept + t)) for t in (0.0, terms.sum()))
        terms = terms * _ratio(linear - linear_base, terms.sum(), linear * (1.0 - linear))
        before = self._mixed(base, linear_base)
        after = self._mixed(base + added.sum(), linear)
        shown = corrected(np.array([before, after]), self.calibration)
        scale = _ratio(shown[1] - shown[0], after - before, self.calibration[1])
        return Explained(
            float(shown[1]), float(shown[0]), np.asarray(self._mixed(added, terms) * scale)
        )

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything as plain arrays; `from_arrays` reads them back."""
        return {
            **{f"forest_{name}": array for name, array in self.forest.arrays().items()},
            "features": np.array([_FORM], dtype=np.int64),
            "linear_mean": self.mean,
            "linear_weight": self.weight,
            "linear_intercept": np.array([self.intercept]),
            "share": np.array([self.share]),
            "calibration": np.array(self.calibration),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike]) -> Model:
        """Check arrays and make a model of them.

        Raises:
            SbError: They are damaged, or of a model with other features; names the array.
        """
        prefix = "forest_"
        forest = {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        if numbers(arrays, "features", 1)[0] != _FORM:
            raise damaged("it was trained on other features")
        columns = len(basis(np.zeros((1, len(FEATURES))))[1])
        calibration = numbers(arrays, "calibration", 2)
        share = float(numbers(arrays, "share", 1)[0])
        if not 0.0 <= share <= 1.0:
            raise damaged(f"share is {share}")
        return cls(
            forest=Forest.from_arrays(forest, len(FEATURES)),
            mean=numbers(arrays, "linear_mean", columns),
            weight=numbers(arrays, "linear_weight", columns),
            intercept=float(numbers(arrays, "linear_intercept", 1)[0]),
            share=share,
            calibration=(float(calibration[0]), float(calibration[1])),
        )

    def _mixed(self, forest: Mixed, logistic: Mixed) -> Mixed:
        return self.share * forest + (1.0 - self.share) * logistic


def corrected(p: Floats, calibration: tuple[float, float]) -> Floats:
    """Probabilities with log-odds times slope plus intercept; see `Model.calibration`."""
    if calibration == (0.0, 1.0):
        return p
    intercept, slope = calibration
    return np.asarray(expit(intercept + slope * logit(np.clip(p, 1e-6, 1.0 - 1e-6))))


def _ratio(change: float, of: float, at_zero: float) -> float:
    """Return change / of, and the slope where both vanish."""
    return at_zero if abs(of) < 1e-12 else change / of


def damaged(problem: str) -> SbError:
    """The error for arrays that are no predictor."""
    return SbError(
        f"the success predictor cannot be used: {problem}",
        fix="Run `sb refresh --models` to train and publish it again.",
    )


def numbers(arrays: Mapping[str, ArrayLike], name: str, size: int) -> Floats:
    """Take one array of a known size.

    Raises:
        SbError: It is missing, of another form or not finite.
    """
    if name not in arrays:
        raise damaged(f"it has no array {name!r}")
    array = np.asarray(arrays[name])
    if array.shape != (size,) or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise damaged(f"{name} is no {size} finite numbers")
    return array.astype(np.float64)
