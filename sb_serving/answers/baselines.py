"""How good is a skill usually? The snapshot's `skill_community_baselines`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sb_serving.answers.arguments import Kind, checked_kind, checked_limit
from sb_serving.answers.published import kind_words, published
from sb_serving.models import Baseline, CommunityBaselines

if TYPE_CHECKING:
    from sb_serving.live import Live

COMMAND = "sb refresh"
_DECIDED = ("completed", "failed")


def community_baselines(
    live: Live, limit: int = 20, kind: Kind | None = None
) -> CommunityBaselines:
    """Completion rates of all skills, each brought toward the community's, best first.

    Args:
        live: The live side.
        limit: Most skills to list, 1 to 200.
        kind: One kind, `all`, or None for all but `tool`.

    Raises:
        SbError: A value is out of range, or nothing was computed yet.
    """
    checked_limit(limit)
    checked_kind(kind)
    with published(live, "skill_community_baselines", command=COMMAND) as table:
        found = table.rows("community_baselines", {"kind": kind})
        every = table.rows("community_baselines", {"kind": "all"})
        decided = {
            name
            for (name, _, _, outcome), total in table.snapshot.totals.items()
            if outcome in _DECIDED and total.n
        }
        too_few_users = len(decided - {row["skill_name"] for row in every})
        shown = tuple(Baseline(**row) for row in found[:limit])
        omitted = len(found) - len(shown)
        return CommunityBaselines(
            timestamp=table.computed_at,
            message=_message(found[0] if found else None, len(found), too_few_users, kind)
            + (f" {omitted} more are left out by limit." if omitted else ""),
            baselines=shown,
            kind=kind or "default",
            skills=len(found),
            hidden_skills=len(every) - len(found),
            skills_of_too_few_users=too_few_users,
            truncated=omitted > 0,
            omitted=omitted,
            computed_at=table.computed_at,
            source=table.source(
                ("skill_community_baselines", "skill_totals"),
                "sql/answers/community_baselines.sql",
                "stats.baseline.baselines",
            ),
        )


def _message(
    best: dict[str, object] | None, skills: int, too_few_users: int, kind: str | None
) -> str:
    if best is None:
        text = f"No {kind_words(kind)} with a baseline."
    else:
        text = (
            f"{skills:,} {kind_words(kind)}; best: {best['skill_name']} at"
            f" {best['global_completion_rate']:.3f} ({best['completion_rate_low']:.3f} to"
            f" {best['completion_rate_high']:.3f}, n {best['completion_rate_n']:,})."
        )
    if too_few_users:
        text += f" {too_few_users:,} skills are hidden because too few users share them."
    return text
