"""What goes with a skill in a session, and what follows it? The snapshot's `skill_dependencies`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sb_serving.answers.arguments import (
    Kind,
    checked_kind,
    checked_limit,
    checked_name,
    checked_number,
)
from sb_serving.answers.published import kind_words, published, unknown_skill
from sb_serving.models import Dependency, ExpectedPair, SkillDependencies

if TYPE_CHECKING:
    from sb_serving.live import Live

COMMAND = "sb refresh --models"
MAX_LIFT = 1e6


def skill_dependencies(
    live: Live,
    skill_name: str,
    limit: int = 10,
    min_lift: float = 1.5,
    kind: Kind | None = None,
) -> SkillDependencies:
    """The skills that share sessions with one, the surest first.

    Args:
        live: The live side.
        skill_name: As the assistant writes it.
        limit: Most skills to list, 1 to 200.
        min_lift: Least lift that is listed, 0 to a million; below 1 also lists what avoids it.
        kind: Kind of the others: one, `all`, or None for all but `tool`.

    Raises:
        SbError: A value is out of range, the skill is unknown, or nothing was computed yet.
    """
    checked_name("skill_name", skill_name)
    checked_limit(limit)
    checked_number("min_lift", min_lift, 0.0, MAX_LIFT)
    checked_kind(kind)
    with published(live, "skill_dependencies", command=COMMAND) as table:
        found = table.rows("skill_dependencies", {"skill_name": skill_name})
        known = {name for name, *_ in table.snapshot.totals}
        expected = tuple(
            ExpectedPair(**row) for row in table.rows("expected_found", {"skill_name": skill_name})
        )
        if not found and not expected and skill_name not in known:
            raise unknown_skill(table.snapshot, skill_name, "")
        asked = [row for row in found if _is_of_kind(row["kind"], kind)]
        strong = [row for row in asked if row["lift_score"] >= min_lift]
        shown = tuple(Dependency(**row) for row in strong[:limit])
        omitted = len(strong) - len(shown)
        return SkillDependencies(
            timestamp=table.computed_at,
            message=_message(skill_name, found, asked, strong, min_lift, kind)
            + (f" {omitted} more are left out by limit." if omitted else "")
            + _expected_words(expected),
            skill_name=skill_name,
            dependencies=shown,
            expected=expected,
            kind=kind or "default",
            pairs=len(found),
            hidden_pairs=len(found) - len(asked),
            below_min_lift=len(asked) - len(strong),
            truncated=omitted > 0,
            omitted=omitted,
            computed_at=table.computed_at,
            source=table.source(
                ("skill_dependencies", "expected_found"),
                "sql/answers/skill_dependencies.sql",
                "sql/answers/expected_found.sql",
                "stats.lift.lift",
                "stats.lift.ordered_counts",
            ),
        )


def _expected_words(expected: tuple[ExpectedPair, ...]) -> str:
    if not expected:
        return ""
    parts = []
    for pair in expected:
        text = f"{pair.skill_b} {pair.verdict.replace('_', ' ')}"
        if pair.lift_score is not None:
            text += f" (lift {pair.lift_score:.2f}, {pair.lift_low:.2f} to {pair.lift_high:.2f})"
        parts.append(text)
    return f" Expected with it: {'; '.join(parts)}."


def _is_of_kind(found: str, kind: str | None) -> bool:
    return kind == "all" or (found != "tool" if kind is None else found == kind)


def _message(
    skill_name: str,
    found: list[dict[str, Any]],
    asked: list[dict[str, Any]],
    strong: list[dict[str, Any]],
    min_lift: float,
    kind: str | None,
) -> str:
    if not found:
        return f"Not enough data: {skill_name} shares five sessions with no other skill."
    if strong:
        first, sure = strong[0], sum(row["significant"] for row in strong)
        text = (
            f"{len(strong):,} {kind_words(kind)} share sessions with {skill_name} at a lift of"
            f" {min_lift:g} or more, {sure:,} of them more often than session lengths and chance"
            f" explain (q at most .05); surest: {first['skill_b']}, lift {first['lift_score']:.2f}"
            f" ({first['lift_low']:.2f} to {first['lift_high']:.2f}), in"
            f" {first['co_occurrence_count']:,} of {first['n_a']:,} sessions."
        )
    else:
        text = f"No {kind_words(kind)} with {skill_name} at a lift of {min_lift:g} or more."
    if len(asked) > len(strong):
        text += f" {len(asked) - len(strong):,} more have a lower lift."
    if kind is None and len(found) > len(asked):
        text += f" {len(found) - len(asked):,} of kind tool are left out; kind='all' shows them."
    return text
