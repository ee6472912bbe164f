"""What broke, since when, and what moved with it? The snapshot's `skill_anomalies`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sb_serving import times
from sb_serving.answers.arguments import (
    checked_hours,
    checked_limit,
    checked_name,
    checked_number,
)
from sb_serving.answers.published import published, unknown_skill
from sb_serving.errors import SbError
from sb_serving.models import Anomalies, Anomaly, AnomalyExplanation, Factor

if TYPE_CHECKING:
    from sb_serving.live import Live

COMMAND = "sb refresh"
MAX_THRESHOLD = 40.0
MAX_ID = 2**53
_BAD = {"completion": ("failed", "completed"), "duration": ("quick", "slow")}


def detect_anomalies(
    live: Live, threshold: float = 2.0, time_window_hours: float = 24.0, limit: int = 20
) -> Anomalies:
    """Anomalies that are open, and others whose window reaches into the last hours.

    Found at a false discovery rate; `threshold` only hides the weaker ones among them.

    Args:
        live: The live side.
        threshold: Least size of the deviation score, 0 to 40.
        time_window_hours: Hours before the end of the hours searched, above 0, at most ten years.
        limit: Most to list, 1 to 200.

    Raises:
        SbError: A value is out of range, or nothing was computed yet.
    """
    checked_number("threshold", threshold, 0.0, MAX_THRESHOLD)
    hours = checked_hours("time_window_hours", time_window_hours)
    checked_limit(limit)
    with published(live, "skill_anomalies", command=COMMAND) as table:
        since = times.from_text(table.computed_at) - timedelta(hours=hours)
        found = [
            Anomaly(**row)
            for row in table.rows(
                "anomalies",
                {"skill_name": None, "id": None, "since": since.replace(tzinfo=None)},
            )
        ]
        strong = [one for one in found if abs(one.deviation_score) >= threshold]
        shown = tuple(strong[:limit])
        return Anomalies(
            timestamp=table.computed_at,
            message=_list_message(shown, len(strong), len(found), threshold, hours),
            anomalies=shown,
            threshold=threshold,
            time_window_hours=hours,
            found=len(found),
            below_threshold=len(found) - len(strong),
            truncated=len(strong) > len(shown),
            omitted=len(strong) - len(shown),
            computed_at=table.computed_at,
            source=table.source(
                ("skill_anomalies",), "sql/answers/anomalies.sql", "stats.anomaly.find_anomalies"
            ),
        )


def explain_anomaly(
    live: Live, skill_name: str, anomaly_id: int | None = None
) -> AnomalyExplanation:
    """Since when an anomaly goes on, and which errors, versions, models, projects moved with it.

    Args:
        live: The live side.
        skill_name: As the assistant writes it.
        anomaly_id: Which one of the skill's; None for the strongest open one, else the strongest
            of all.

    Raises:
        SbError: The skill or the anomaly is unknown, or nothing was computed yet.
    """
    checked_name("skill_name", skill_name)
    if anomaly_id is not None:
        checked_number("anomaly_id", anomaly_id, 1, MAX_ID)
    with published(live, "skill_anomalies", command=COMMAND) as table:
        start = times.from_text("1970-01-01T00:00:00+00:00").replace(tzinfo=None)
        named = {"skill_name": skill_name, "since": start}
        rows = table.rows("anomalies", named | {"id": anomaly_id})
        every = rows if anomaly_id is None else table.rows("anomalies", named | {"id": None})
        if not rows and anomaly_id is not None and every:
            raise SbError(
                f"anomaly_id = {anomaly_id} is no anomaly of {skill_name}",
                fix=f"Its anomalies are: {', '.join(str(row['anomaly_id']) for row in every)}.",
            )
        if not rows:
            raise unknown_skill(table.snapshot, skill_name, "has no anomaly: nothing to explain")
        anomaly = Anomaly(**rows[0])
        by_role: dict[str, list[Factor]] = {"cause": [], "symptom": [], "share": []}
        for row in table.rows("anomaly_factors", {"id": anomaly.anomaly_id}):
            by_role[row.pop("role")].append(Factor(**row))
        others = sum(row["open"] and row["anomaly_id"] != anomaly.anomaly_id for row in every)
        return AnomalyExplanation(
            timestamp=table.computed_at,
            message=_message(anomaly, by_role),
            anomaly=anomaly,
            causes=tuple(by_role["cause"]),
            symptoms=tuple(by_role["symptom"]),
            shares=tuple(by_role["share"]),
            others=others,
            truncated=False,
            omitted=0,
            computed_at=table.computed_at,
            source=table.source(
                ("skill_anomalies", "skill_anomaly_factors"),
                "sql/answers/anomalies.sql",
                "sql/answers/anomaly_factors.sql",
                "stats.changepoint",
                "stats.coincidence",
            ),
        )


def _list_message(
    shown: tuple[Anomaly, ...], strong: int, found: int, threshold: float, hours: float
) -> str:
    if not found:
        return f"No anomaly is open, and none was in the last {hours:g} hours."
    text = f"{found} anomalies are open or were in the last {hours:g} hours"
    if found > strong:
        text += f"; {found - strong} of them below threshold {threshold:g} are not listed"
    if not shown:
        return f"{text}."
    if strong > len(shown):
        text += f"; {strong - len(shown)} more are left out by limit"
    return f"{text}. First: {_sentence(shown[0])}"


def _sentence(one: Anomaly) -> str:
    unit = {"completion": "", "volume": " calls", "duration": " s"}[one.metric]
    return (
        f"{one.skill_name}, {one.metric} {one.anomaly_type} since {one.since[:16]} UTC:"
        f" {one.observed_value:.3g}{unit} instead of {one.baseline_value:.3g}{unit}"
        f" (n {one.n:,}, z {one.deviation_score:.1f}, q {one.q_value:.2g})."
    )


def _message(one: Anomaly, by_role: dict[str, list[Factor]]) -> str:
    text = _sentence(one)
    if not one.open:
        text += " Later events made it untrue." if one.retracted_at else " It is over."
    causes, symptoms, shares = by_role["cause"], by_role["symptom"], by_role["share"]
    if causes:
        first = causes[0]
        drop, spike = _BAD[one.metric]
        text += (
            f" Likeliest cause: {first.attribute} {first.value},"
            f" {first.bad_after:,} of {first.n_after:,} runs {drop if _down(one) else spike} since"
            f" (before {first.bad_before:,} of {first.n_before:,}), weight {first.weight or 0:.2f}."
        )
    if symptoms:
        text += f" Most of the rise: error_type {symptoms[0].value}."
    if shares:
        text += (
            f" {shares[0].attribute} {shares[0].value} has {shares[0].explained:.0%} of the change."
        )
    if not (causes or symptoms or shares):
        text += " No recorded attribute moved with it."
    return text


def _down(one: Anomaly) -> bool:
    return one.anomaly_type == "drop"
