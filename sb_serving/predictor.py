"""The success predictor as the predecessor's Python API: `get_predictor`.

A thin cover over `answers.success`. What is new against the predecessor is said in the docstrings:
nothing is trained here, a missing model is an error with its reason, texts are not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sb_serving import times
from sb_serving.answers import success
from sb_serving.errors import SbError
from sb_serving.live import Live, open_live
from sb_serving.models import SuccessPrediction

__all__ = ["SessionContext", "SkillSuccessPredictor", "get_predictor"]


@dataclass(frozen=True, slots=True)
class SessionContext:
    """Where a run will happen.

    The session's runs are read from the event store by its id; the other fields are the
    predecessor's and are not used.

    Attributes:
        session_id: The session.
        session_start_time: Not used.
        skills_used_in_session: Not used.
        project_name: Not used.
    """

    session_id: str
    session_start_time: datetime | str | None = None
    skills_used_in_session: tuple[str, ...] | list[str] = ()
    project_name: str | None = None


class SkillSuccessPredictor:
    """Answers from the newest snapshot and the event store as they are at each call.

    Args:
        db_path: The event store; None for the one of the settings. Snapshots are looked for in
            `snapshots/` beside it.
        user: Whose run it will be; a name is hashed. Empty where unknown.
    """

    def __init__(self, db_path: Path | str | None = None, *, user: str = "") -> None:
        self._live: Live = open_live(db_path)
        self._user = user
        self._memory = success.Memory()

    def predict(
        self,
        skill_name: str,
        user_query: str | None = None,
        workflow_phase: str | None = None,
        session_context: SessionContext | None = None,
        *,
        agent: str | None = None,
        agent_version: str | None = None,
        model: str | None = None,
    ) -> SuccessPrediction:
        """The whole answer: chance, interval, n, method and reasons.

        Args:
            skill_name: The skill that is about to run.
            user_query: Not read: texts are not stored, so nothing could be learned from them.
            workflow_phase: The phase; None where unknown.
            session_context: The session; None for a new one.
            agent: The assistant, as recorded.
            agent_version: Its version.
            model: The language model.

        Raises:
            SbError: The skill was never invoked, or nothing was trained yet.
        """
        self._live.snapshots.poll()
        question = success.asked(
            skill_name,
            times.now(),
            session_id=session_context.session_id if session_context else None,
            user_id=self._live.user(self._user),
            workflow_phase=workflow_phase,
            agent=agent,
            agent_version=agent_version,
            model=model,
        )
        return success.success_prediction(self._live, self._memory, question)

    def predict_success_probability(
        self,
        skill_name: str,
        user_query: str | None = None,
        workflow_phase: str | None = None,
        session_context: SessionContext | None = None,
    ) -> float:
        """The chance alone, 0 to 1; see `predict`.

        Raises:
            SbError: There is not enough data, or as in `predict`.
        """
        found = self.predict(skill_name, user_query, workflow_phase, session_context)
        if found.probability is None:
            raise SbError(found.message, fix="Record more runs, then run `sb refresh --models`.")
        return found.probability

    def get_feature_explanation(
        self,
        skill_name: str,
        user_query: str | None = None,
        workflow_phase: str | None = None,
        session_context: SessionContext | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Feature -> `value`, `interpretation` in words, and what it `added` to the chance.

        Raises:
            SbError: As in `predict`.
        """
        found = self.predict(skill_name, user_query, workflow_phase, session_context)
        return {
            one.feature: {
                "value": one.value,
                "interpretation": one.interpretation,
                "added": one.added,
            }
            for one in found.reasons
        }


def get_predictor(db_path: Path | str | None = None) -> SkillSuccessPredictor:
    """A predictor for one event store; see `SkillSuccessPredictor`."""
    return SkillSuccessPredictor(db_path)
