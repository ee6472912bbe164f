"""The success predictor's answer for a run that is about to start.

Belongs here: the question, the counts behind it, read live from `skills.db` and the snapshot, and
the answer with its interval and reasons. Does not: what a feature is and how the model weighs it
(`sb_serving.stats.success`), the same counts for the past (`sb_pipelines.training.features`).
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import md5
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from sb_serving import sql, times
from sb_serving.errors import SbError
from sb_serving.snapshot import Snapshot
from sb_serving.stats.intervals import wilson
from sb_serving.stats.success import (
    COUNTS,
    FEATURES,
    MODEL_ARRAYS,
    Feature,
    Model,
    damaged,
    features,
    numbers,
    rate_of_all,
    shrunk_rate,
)
from sb_serving.store.checks import MAX_DURATION

__all__ = ["Choice", "Prediction", "Predictor", "Question", "Reason", "live_counts"]

Floats = NDArray[np.float64]

DAY = timedelta(hours=24)
RECENT = timedelta(hours=3)
WEEK_HOURS = 168
LAST_RUNS = 3
_SLACK = timedelta(hours=1)
"""How long before a window a run without a recorded end may have started and still be found."""

_BETWEEN = chr(31)
"""Between the parts of a key in `predictor_totals`."""
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = times.from_text("1970-01-01T00:00:00+00:00")

# --- the counts ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """A run that is about to start; empty text means unknown.

    Attributes:
        skill_name: The skill.
        at: Its start, aware.
        session_id: The session.
        user_id: Keyed hash of the user.
        workflow_phase: The phase.
        agent: The assistant.
        agent_version: Its version.
        model: The model.
    """

    skill_name: str
    at: datetime
    session_id: str = ""
    user_id: str = ""
    workflow_phase: str = ""
    agent: str = ""
    agent_version: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked.

        Raises:
            SbError: No skill, or a time without zone.
        """
        if not self.skill_name.strip():
            raise SbError("skill_name is empty", fix="Name the skill that is about to run.")
        if self.at.tzinfo is None:
            raise SbError(f"at = {self.at.isoformat()} has no time zone", fix="Give it in UTC.")


def live_counts(log: sqlite3.Connection, snapshot: Snapshot, question: Question) -> dict[str, int]:
    """What is known now: the columns of one row, equal to those that training computes.

    Totals come from the snapshot plus the runs recorded since; the session and the windows from the
    log. Every run in the log counts as known, except those that end at or after the question.

    Args:
        log: `skills.db`, open for reading.
        snapshot: Has `predictor_totals`; pinned.
        question: The run that is about to start.

    Returns:
        `asked_at`, `COUNTS` and `SESSION` by name.
    """
    asked = _microseconds(question.at)
    counts = dict.fromkeys(COUNTS, (0, 0, 0))
    with _one_moment(log):
        known, previous = _session(log, question, asked)
        keys = {
            "skill": question.skill_name,
            "previous": previous,
            "user": question.user_id,
            "phase": question.workflow_phase,
            "agent": question.agent,
            "version": question.agent_version,
            "model": question.model,
        }
        until, _ = snapshot.watermarks.get("predictor_totals", (0, None))
        after = log.execute(sql.load("training/live_tail.sql"), keys | {"after": until})
        for name, *part in (*_totals(snapshot, keys), *after):
            counts[name] = _sum(counts[name], part)
        counts |= _windows(log, question, asked)
    for name, (n, completed, decided) in counts.items():
        known |= {f"{name}_n": n, f"{name}_completed": completed, f"{name}_decided": decided}
    return {"asked_at": asked} | known


def _totals(
    snapshot: Snapshot, keys: Mapping[str, str | None]
) -> Iterator[tuple[str, int, int, int]]:
    """The counts up to the snapshot's watermark: scope, runs, completed, decided."""
    skill, user = keys["skill"], keys["user"]
    wanted = {
        "all": ("all", ""),
        "skill": ("skill", skill),
        "previous": ("skill", keys["previous"]),
        "user": ("user", user),
        "user_skill": ("user_skill", f"{user}{_BETWEEN}{skill}"),
        "version": (
            "version",
            f"{skill}{_BETWEEN}{keys['agent']}{_BETWEEN}{keys['version']}",
        ),
        "phase": ("phase", keys["phase"]),
        "agent": ("agent", keys["agent"]),
        "model": ("model", keys["model"]),
    }
    codes = {name: _code(*place) for name, place in wanted.items()}
    rows = snapshot.query(sql.load("training/live_totals.sql"), codes)
    found = {(scope, key): counts for scope, key, *counts in rows}
    for name, place in wanted.items():
        if place in found:
            n, completed, decided = found[place]
            yield name, n, completed, decided


def _code(scope: str, key: str | None) -> int:
    """The code of a row of `predictor_totals`."""
    text = f"{scope}{_BETWEEN}{key or ''}".encode()
    return int.from_bytes(md5(text, usedforsecurity=False).digest()[:8], "little")


@contextmanager
def _one_moment(log: sqlite3.Connection) -> Iterator[None]:
    """All reading sees the log as it is now, while others write."""
    if log.in_transaction:
        yield
        return
    log.execute("begin")
    try:
        yield
    finally:
        log.execute("rollback")


def _session(
    log: sqlite3.Connection, question: Question, asked: int
) -> tuple[dict[str, int], str | None]:
    """The session's columns, and the skill that ran before."""
    known: list[tuple[int, int, str, str]] = []
    if question.session_id:
        rows = log.execute(
            sql.load("training/live_session.sql"), {"session": question.session_id}
        ).fetchall()
        for skill, start, end, duration, outcome in rows:
            begun = _start(start)
            ended = _end(begun, end, duration)
            if ended < asked:
                known.append((ended, begun, skill, outcome))
    known.sort(key=lambda run: run[0])  # stable: runs that ended together stay in id order
    outcomes = [outcome for *_, outcome in known]
    return {
        "session_n": len(known),
        "session_completed": outcomes.count("completed"),
        "session_decided": outcomes.count("completed") + outcomes.count("failed"),
        "session_failures": outcomes[-LAST_RUNS:].count("failed"),
        "session_last_failed": int(outcomes[-1:] == ["failed"]),
        "session_begun_at": min((begun for _, begun, *_ in known), default=asked),
    }, known[-1][2] if known else None


def _windows(
    log: sqlite3.Connection, question: Question, asked: int
) -> dict[str, tuple[int, int, int]]:
    at = times.to_utc_text(question.at)
    day, recent = (times.to_utc_text(question.at - span) for span in (DAY, RECENT))
    first = question.at - timedelta(hours=WEEK_HOURS)

    def ask(name: str, **values: str) -> list[int]:
        row = log.execute(sql.load(f"training/{name}.sql"), values).fetchone()
        return [int(number) for number in row]

    of_day = ask("live_day", start=day, at=at, skill=question.skill_name)
    of_recent = ask("live_recent", start=recent, at=at, phase=question.workflow_phase)
    of_week = ask("live_week", first=times.to_utc_text(first)[:13], skill=question.skill_name)
    counts = {
        "skill_24h": _sum((0, 0, 0), of_day),
        "skill_7d": _sum((0, 0, 0), of_week),
        "all_3h": _sum((0, 0, 0), of_recent[:3]),
        "phase_3h": _sum((0, 0, 0), of_recent[3:]),
    }
    around = {
        "day": times.to_utc_text(question.at - DAY - _SLACK),
        "recent": times.to_utc_text(question.at - RECENT - _SLACK),
        "at": at,
        "skill": question.skill_name,
    }
    if ask("live_companions_missing", day=around["day"]) == [0]:
        return counts  # the usual case: every run has its companion
    others = log.execute(sql.load("training/live_without_companion.sql"), around)
    for skill, phase, start, duration, outcome in others:
        age = asked - _end(_start(start), None, duration)
        run = (1, outcome == "completed", outcome in ("completed", "failed"))
        inside = {
            "skill_24h": skill == question.skill_name and age <= DAY // _MICROSECOND,
            "all_3h": age <= RECENT // _MICROSECOND,
            "phase_3h": age <= RECENT // _MICROSECOND and phase == question.workflow_phase,
        }
        for name, counted in inside.items():
            if counted and age > 0:
                counts[name] = _sum(counts[name], run)
    return counts


def _sum(counts: tuple[int, int, int], more: Sequence[float]) -> tuple[int, int, int]:
    n, completed, decided = (a + int(b) for a, b in zip(counts, more, strict=True))
    return n, completed, decided


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _start(text: str) -> int:
    return _microseconds(times.from_text(times.to_utc_text(text)))


def _end(begun: int, end: str | None, duration: float | None) -> int:
    """When an outcome was known, by the rules of `warehouse/incoming.sql`."""
    if end is not None:
        return max(begun, _microseconds(times.from_text(end)))
    known = isinstance(duration, (int, float)) and 0 <= duration <= MAX_DURATION
    return begun + round((duration or 0.0) * 1e6) if known else begun


# --- the answer ----------------------------------------------------------------------------------

Choice = Literal["not_enough_data", "shrunk_rate", "forest_and_logistic"]
_CHOICES: tuple[Choice, ...] = (
    "not_enough_data",
    "shrunk_rate",
    "forest_and_logistic",
)
PREFIX = "success_predictor_"
"""Of the names of its arrays in a snapshot."""
_BINS = 10


@dataclass(frozen=True, slots=True)
class Reason:
    """One feature of an answer.

    Attributes:
        feature: Its name, one of `FEATURES`.
        value: Its value; rates are fractions.
        added: What it added to the probability; 0 where the model is not in use.
        n: Decided runs behind a rate; None for others.
        text: The same in words.
    """

    feature: str
    value: float
    added: float
    n: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to a question.

    Attributes:
        probability: Of completion, given that the run completes or fails; None without enough data.
        low: Lower bound of the 95 % interval described by `interval`.
        high: Upper bound.
        n: Runs behind the interval.
        interval: What the interval is.
        method: What answered.
        base: Where the reasons start from.
        reasons: Every feature, the one that moved the answer most first.
    """

    probability: float | None
    low: float | None
    high: float | None
    n: int
    interval: str
    method: Choice
    base: float | None
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Predictor:
    """What a training decided to serve.

    Attributes:
        choice: The model, the shrunk rate, or neither.
        strength: See `shrunk_rate`.
        model: The model; None where it is not served.
        reliability: Of the predictions in the evaluation, by tenths of predicted probability:
            upper edge, predictions, completed; shape (10, 3).
        version: Of the training, as in `model_registry`; 0 outside of it.
    """

    choice: Choice
    strength: float = 20.0
    model: Model | None = None
    reliability: Floats | None = None
    version: int = 0

    def probability(self, columns: Mapping[str, ArrayLike]) -> Floats:
        """Probabilities of many runs at once, shape (n,).

        Raises:
            ValueError: There is not enough data to answer.
        """
        if self.choice == "not_enough_data":
            raise ValueError("not enough data")
        if self.model is None:
            return shrunk_rate(columns, self.strength)
        return self.model.probability(features(columns, self.strength))

    def predict(self, columns: Mapping[str, int]) -> Prediction:
        """Answer a question whose counts are `columns` (see `live_counts`)."""
        one = {name: np.array([value]) for name, value in columns.items()}
        row = features(one, self.strength)[0]
        if self.choice == "not_enough_data":
            return Prediction(
                None, None, None, columns["all_decided"], "not enough data", self.choice, None, ()
            )
        if self.model is None or self.reliability is None:
            return self._from_rate(columns, one, row)
        found = self.model.explain(row)
        place = int(np.searchsorted(self.reliability[:-1, 0], found.probability, side="left"))
        _, n, completed = self.reliability[place]
        low, high = wilson(completed, n)
        return Prediction(
            probability=found.probability,
            low=min(low, found.probability),
            high=max(high, found.probability),
            n=int(n),
            interval="completion rate of similar predictions in the evaluation",
            method=self.choice,
            base=found.base,
            reasons=_reasons(columns, row, found.added),
        )

    def _from_rate(
        self, columns: Mapping[str, int], one: Mapping[str, ArrayLike], row: Floats
    ) -> Prediction:
        rate = float(shrunk_rate(one, self.strength)[0])
        base = float(rate_of_all(one)[0])
        size = columns["skill_decided"] + self.strength
        low, high = betaincinv(rate * size, (1.0 - rate) * size, np.array([0.025, 0.975]))
        return Prediction(
            probability=rate,
            low=float(low),
            high=float(high),
            n=columns["skill_decided"],
            interval="the skill's completion rate, shrunk toward that of all skills",
            method=self.choice,
            base=base,
            reasons=_reasons(columns, row, np.zeros(len(FEATURES))),
        )

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What a snapshot stores, by array name; `load` reads it back."""
        mine: dict[str, NDArray[np.generic]] = {
            "choice": np.array([_CHOICES.index(self.choice)], dtype=np.int32),
            "strength": np.array([self.strength]),
            "version": np.array([self.version], dtype=np.int32),
        }
        if self.model is not None and self.reliability is not None:
            mine |= self.model.arrays()
            mine["reliability"] = self.reliability.ravel()
        return {PREFIX + name: array for name, array in mine.items()}

    @classmethod
    def load(cls, read: Callable[[str], ArrayLike]) -> Predictor:
        """Read what `arrays` gave.

        Args:
            read: Gives an array by name; `Snapshot.array`.

        Raises:
            SbError: There is none, or it is damaged; names the array.
        """

        def numbers_of(name: str, size: int) -> Floats:
            return numbers({name: read(PREFIX + name)}, name, size)

        number = float(numbers_of("choice", 1)[0])
        if number not in range(len(_CHOICES)):
            raise damaged(f"choice is {number}")
        choice = _CHOICES[int(number)]
        strength = float(numbers_of("strength", 1)[0])
        if not strength > 0.0:
            raise damaged(f"strength is {strength}")
        version = int(numbers_of("version", 1)[0])
        if choice != "forest_and_logistic":
            return cls(choice, strength, version=version)
        arrays = {name: read(PREFIX + name) for name in MODEL_ARRAYS}
        reliability = numbers_of("reliability", 3 * _BINS).reshape(_BINS, 3)
        edge, n, completed = reliability.T
        if (np.diff(edge) < 0).any() or (completed < 0).any() or (completed > n).any():
            raise damaged("reliability is no table of counts")
        return cls(choice, strength, Model.from_arrays(arrays), reliability, version)


def _reasons(columns: Mapping[str, int], row: Floats, added: Floats) -> tuple[Reason, ...]:
    order = np.argsort(-np.abs(added), kind="stable")
    return tuple(
        _reason(FEATURES[i], columns, float(row[i]), float(added[i])) for i in order.tolist()
    )


def _reason(feature: Feature, columns: Mapping[str, int], value: float, added: float) -> Reason:
    n = None if feature.n is None else columns[feature.n]
    if feature.form == "rate":
        shown = f"{value:.0%} (n = {n:,})"
    elif feature.form == "weekday":
        shown = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")[
            int(value)
        ]
    elif feature.name == "session_last_failed":
        shown = "yes" if value else "no"
    else:
        shown = f"{math.floor(value):,}"
    text = f"{feature.words}: {shown}"
    if round(100.0 * added, 1):
        verb = "raises" if added > 0 else "lowers"
        text += f"; {verb} the chance by {abs(100.0 * added):.1f} points"
    return Reason(feature.name, value, added, n, text)
