"""The two operations of `sb analyze` that learn: `predict` and `recommend`.

Belongs here: from columns of events to the JSON that is printed, by the functions that the assets
call. Does not: reading files, checking parameters' types (`sb_pipelines.analyze`), the methods
(`fit`, `sb_serving.stats.similarity`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sb_pipelines.training import features, fit
from sb_serving.errors import SbError
from sb_serving.stats import baseline, similarity

__all__ = ["predict", "recommend"]

Json = dict[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def predict(
    events: Mapping[str, ArrayLike], *, train_until: datetime, known_delay_seconds: float = 0.0
) -> Json:
    """How likely each event from `train_until` on is to complete.

    Args:
        events: Columns, see `features.from_columns`; `event_id` optional, else the row's number
            from 1.
        train_until: What was known then teaches; naive means UTC.
        known_delay_seconds: How long after its end an outcome becomes known, at least 0.

    Returns:
        `p`: event id -> probability, empty without enough data; `model`: `forest_and_logistic`,
        `shrunk_rate` or `not_enough_data`; `metrics`: why, and the scores of every method on
        predictions forward in time before `train_until`.

    Raises:
        SbError: A column is missing or a parameter out of range.
    """
    if not 0.0 <= known_delay_seconds < 1e9:
        raise SbError(f"known_delay_seconds = {known_delay_seconds} is no number of seconds")
    history = features.from_columns(events, known_delay=timedelta(seconds=known_delay_seconds))
    moment = train_until if train_until.tzinfo else train_until.replace(tzinfo=UTC)
    cut = (moment - _EPOCH) // timedelta(microseconds=1)
    learned = fit.learn(history, cut)
    p: dict[str, float] = {}
    if learned.predictor.choice != "not_enough_data":
        later = np.flatnonzero(history.asked_at >= cut)
        ids = np.asarray(events["event_id"])[later] if "event_id" in events else later + 1
        found = learned.predictor.probability(history.rows(later))
        p = dict(zip(map(str, ids.tolist()), found.tolist(), strict=True))
    return {"p": p, "model": learned.predictor.choice, "metrics": metrics(learned)}


def metrics(learned: fit.Learned) -> Json:
    """What a training found, as JSON.

    Args:
        learned: Its result.
    """
    by_method: dict[str, Json] = {}
    for score in learned.scores:
        values = asdict(score)
        by_method.setdefault(score.method, {})[score.metric] = {
            key: values[key] for key in ("value", "low", "high")
        }
    table = learned.predictor.reliability
    return {
        "reason": learned.reason,
        "n_train": learned.n,
        "n_train_completed": learned.completed,
        "n_judged": learned.judged,
        "horizon_seconds": learned.horizon_seconds,
        "corrected": learned.corrected,
        "scores": by_method,
        "intervals": "95 %: DeLong for auc, sessions resampled for the others",
        "reliability": [
            {"p_upper": float(edge), "n": int(n), "completed": int(completed)}
            for edge, n, completed in ([] if table is None else table)
        ],
        "importance": dict(learned.importance or {}),
    }


def recommend(events: Mapping[str, ArrayLike], *, users: Sequence[str], k: int = 10) -> Json:
    """Skills that users have not used and that would suit them.

    Args:
        events: Columns `skill_name`, `user_id`, `invoked_at` (datetime64, UTC) and `outcome`.
        users: Whom to recommend to; one who is unknown gets what is popular.
        k: How many skills each at most, at least 1.

    Returns:
        `recommendations`: user -> list of skills, best first.

    Raises:
        SbError: A column is missing, or k is below 1.
    """
    if k < 1:
        raise SbError(f"k = {k} is below 1")
    for name in ("skill_name", "user_id", "invoked_at", "outcome"):
        if name not in events:
            raise SbError(f"the events have no column {name!r}")
    uses = _uses(events)
    completion = baseline.fit(uses.completed, uses.decided).rate(uses.completed, uses.decided)
    replayed = similarity.replay(uses.matrix, uses.latest, completion, seed=0)
    weights = None
    if replayed.chosen == "skills_used_together":
        weights = similarity.ease(uses.matrix.together(), replayed.penalty)
    number = {user: index for index, user in enumerate(uses.users)}
    answers: dict[str, list[Json]] = {}
    for user in users:
        own = number.get(user)
        found = similarity.recommend(
            uses.matrix,
            np.empty(0, dtype=np.int64) if own is None else uses.matrix.of(own),
            completion,
            k=k,
            weights=weights,
            leave_out=own,
        )
        answers[user] = [
            {
                "skill_name": uses.skills[one.skill],
                "score": one.score,
                "completion_rate": one.completion_rate,
                "n": int(uses.decided[one.skill]),
                "source": one.source,
                "method": one.method,
                "reason": one.reason(uses.skills, int(uses.decided[one.skill])),
            }
            for one in found
        ]
    return {"recommendations": answers}


class _Uses(NamedTuple):
    """Who uses what, and how it ends."""

    users: list[str]
    skills: list[str]
    matrix: similarity.UserSkills
    completed: NDArray[np.int64]
    decided: NDArray[np.int64]
    latest: dict[int, int]


def _uses(events: Mapping[str, ArrayLike]) -> _Uses:
    names = features.texts(events, "skill_name", len(np.asarray(events["skill_name"])))
    users, skills = features.texts(events, "user_id", len(names)).astype(str), names.astype(str)
    outcome = features.texts(events, "outcome", len(names))
    moment = np.asarray(events["invoked_at"]).astype("datetime64[us]").astype(np.int64)
    skill_names, skill = np.unique(skills, return_inverse=True)
    size = len(skill_names)
    completed = np.bincount(skill[outcome == "completed"], minlength=size)
    failed = np.bincount(skill[outcome == "failed"], minlength=size)
    known = users != ""
    user_names, user = np.unique(users[known], return_inverse=True)
    skill, moment = skill[known], moment[known]
    matrix = similarity.UserSkills.from_pairs(user, skill, len(user_names), size)
    # First use of each pair, in time; the last of them is what the user took up last.
    order = np.lexsort((skill, moment))
    _, first = np.unique(user[order] * size + skill[order], return_index=True)
    taken_up = order[np.sort(first)]
    latest = dict(zip(user[taken_up].tolist(), skill[taken_up].tolist(), strict=True))
    return _Uses(
        user_names.tolist(), skill_names.tolist(), matrix, completed, completed + failed, latest
    )
