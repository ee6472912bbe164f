"""Will this run complete? The published model on what is known at this moment."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sb_serving import times
from sb_serving.answers.published import published, unknown_skill
from sb_serving.errors import SbError
from sb_serving.kept import Kept
from sb_serving.known import Known, Totals
from sb_serving.models import PredictionReason, SuccessPrediction
from sb_serving.predict import PREFIX, Prediction, Predictor, Question

if TYPE_CHECKING:
    from sb_serving.live import Live
    from sb_serving.snapshot import Snapshot

COMMAND = "sb refresh --models"
LONGEST_TEXT = 1_000


def load_predictor(snapshot: Snapshot) -> Predictor:
    """The snapshot's predictor, checked; for `Kept`.

    Raises:
        SbError: It is missing, damaged or of another version.
    """
    return Predictor.load(snapshot.arrays(PREFIX))


class Memory:
    """What is held from one answer to the next: the model, the totals, the runs of the last day."""

    def __init__(self) -> None:
        self.model = Kept(load_predictor)
        self.totals = Kept(Totals.load)
        self.known = Known()


def success_prediction(
    live: Live, memory: Memory, question: Question, *, reasons: int | None = None
) -> SuccessPrediction:
    """The chance that a run completes, with its interval and its reasons.

    Args:
        live: The live side.
        memory: The caller's, for one live side.
        question: The run; its user as recorded.
        reasons: Most reasons to give; None gives all.

    Raises:
        SbError: The skill was never invoked, nothing was trained yet, or the database cannot be
            read.
    """
    with published(live, "model_registry", command=COMMAND) as table:
        held, totals = memory.model.of(table.snapshot), memory.totals.of(table.snapshot)
        if held.value is None or totals.value is None:
            raise SbError(str(held.refused or totals.refused))
        with live.reading() as reading:
            counts = memory.known.counts(reading.connection, totals.value, question, reading.file)
        if not counts["skill_n"]:
            raise unknown_skill(
                table.snapshot, question.skill_name, "has no run whose outcome is known yet"
            )
        found = held.value.predict(counts)
        refused = held.refused or totals.refused
        shown = found.reasons[:reasons]
        return SuccessPrediction(
            timestamp=times.to_utc_text(question.at),
            message=_message(question.skill_name, found, refused),
            skill_name=question.skill_name,
            probability=found.probability,
            probability_low=found.low,
            probability_high=found.high,
            n=found.n,
            interval=found.interval,
            method=found.method,
            base=found.base,
            reasons=tuple(
                PredictionReason(
                    feature=one.feature,
                    value=one.value,
                    added=one.added,
                    n=one.n,
                    interpretation=one.text,
                )
                for one in shown
            ),
            model_version=held.value.version,
            model_snapshot=held.snapshot,
            refused=refused,
            truncated=len(shown) < len(found.reasons),
            omitted=len(found.reasons) - len(shown),
            source=table.source(
                ("predictor_totals", "arrays", "skill_invocation", "skill_user_interactions"),
                "sql/training/live_totals.sql",
                "known.Known",
                "stats.success.features",
            ),
        )


def asked(
    skill_name: str,
    at: datetime,
    *,
    session_id: str | None,
    user_id: str,
    workflow_phase: str | None,
    agent: str | None,
    agent_version: str | None,
    model: str | None,
) -> Question:
    """The question, its texts checked.

    Raises:
        SbError: A text is too long; names it.
    """
    texts = {
        "skill_name": skill_name,
        "session_id": session_id or "",
        "user_id": user_id,
        "workflow_phase": workflow_phase or "",
        "agent": agent or "",
        "agent_version": agent_version or "",
        "model": model or "",
    }
    for name, text in texts.items():
        if len(text) > LONGEST_TEXT:
            raise SbError(
                f"{name} has {len(text):,} characters", fix=f"At most {LONGEST_TEXT:,} are read."
            )
    return Question(at=at, **texts)


def _message(skill_name: str, found: Prediction, refused: str | None) -> str:
    if found.probability is None:
        text = (
            f"Not enough data to say how likely {skill_name} is to complete: {found.n:,} runs with"
            " an outcome so far."
        )
    else:
        text = (
            f"{skill_name} completes with a chance of {found.probability:.0%}"
            f" (95 % interval {found.low:.0%} to {found.high:.0%}, n = {found.n:,}:"
            f" {found.interval})."
        )
        if found.method == "shrunk_rate":
            text += " This is the skill's own rate: the trained model was no better."
        else:
            text += f" Most telling: {found.reasons[0].text}."
    if refused:
        text += f" The newest model is not used: {refused}"
    return text
