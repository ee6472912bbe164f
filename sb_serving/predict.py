"""The success predictor's answer for a run that is about to start.

Belongs here: the question, and the answer with its interval and reasons. Does not: the counts
behind it (`sb_serving.known`), what a feature is and how the model weighs it
(`sb_serving.stats.success`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from sb_serving.errors import SbError
from sb_serving.stats.intervals import wilson
from sb_serving.stats.success import (
    FEATURES,
    Feature,
    Model,
    damaged,
    features,
    numbers,
    rate_of_all,
    shrunk_rate,
)

__all__ = ["Choice", "Prediction", "Predictor", "Question", "Reason"]

Floats = NDArray[np.float64]

DAY = timedelta(hours=24)
RECENT = timedelta(hours=3)
WEEK_HOURS = 168

# --- the question --------------------------------------------------------------------------------


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
        """Answer a question whose counts are `columns` (see `known.Known`)."""
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
    def load(cls, given: Mapping[str, ArrayLike]) -> Predictor:
        """Read what `arrays` gave.

        Args:
            given: Arrays by name; `Snapshot.arrays(PREFIX)`.

        Raises:
            SbError: There is none, or it is damaged; names the array.
        """
        arrays = {name.removeprefix(PREFIX): array for name, array in given.items()}

        def numbers_of(name: str, size: int) -> Floats:
            return numbers(arrays, name, size)

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
