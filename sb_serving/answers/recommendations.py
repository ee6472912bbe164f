"""Which skills would suit a user? The published recommender, and what the user did since."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from sb_serving import sql
from sb_serving.answers.arguments import checked_limit
from sb_serving.answers.published import published
from sb_serving.errors import SbError
from sb_serving.kept import Held, Kept
from sb_serving.models import CollaborativeRecommendations, SkillSuggestion
from sb_serving.recommend import PREFIX, Recommender

if TYPE_CHECKING:
    from sb_serving.answers.published import Published
    from sb_serving.live import Live
    from sb_serving.snapshot import Snapshot

COMMAND = "sb refresh --models"


def load_recommender(snapshot: Snapshot) -> Recommender:
    """The snapshot's recommender, checked; for `Kept`.

    Raises:
        SbError: It is missing, damaged or of another version.
    """
    skills = [row["skill_name"] for row in snapshot.rows(sql.load("answers/similarity_skills.sql"))]
    return Recommender.load(skills, snapshot.arrays(PREFIX))


def held_recommender(
    kept: Kept[Recommender], table: Published
) -> tuple[Recommender, Held[Recommender]]:
    """The recommender in use.

    Raises:
        SbError: There never was a good one.
    """
    held = kept.of(table.snapshot)
    if held.value is None:
        raise SbError(str(held.refused))
    return held.value, held


def skills_used(live: Live, recommender: Recommender, user_id: str, after: int) -> list[str]:
    """A user's skills: those that were published, and those of runs recorded since.

    Args:
        live: The live side.
        recommender: What was published.
        user_id: As recorded; '' is nobody.
        after: Every run up to this id is in the recommender.
    """
    if not user_id:
        return []
    with live.reading() as reading:
        rows = reading.connection.execute(
            sql.load("live/user_skills_since.sql"), {"user": user_id, "after": after}
        ).fetchall()
    return sorted({*recommender.skills_of(user_id), *(name for (name,) in rows)})


def collaborative_recommendations(
    live: Live,
    kept: Kept[Recommender],
    user_id: str,
    limit: int = 5,
    *,
    shown_as: str,
    min_common_skills: int = 1,
) -> CollaborativeRecommendations:
    """Skills that a user does not use, best first, each with its reason.

    A user of whom nothing is known gets the skills with the best baselines among those that many
    use; where no skill is shared by enough users, what is used most.

    Args:
        live: The live side.
        kept: Loads the recommender with `load_recommender`.
        user_id: As recorded.
        limit: Most skills to list, 1 to 200.
        shown_as: The user as the caller wrote it.
        min_common_skills: Least number of skills that a neighbour shares, at least 1.

    Raises:
        SbError: A value is out of range, or nothing was computed yet.
    """
    checked_limit(limit)
    with published(live, "user_similarity", command=COMMAND) as table:
        recommender, held = held_recommender(kept, table)
        used = skills_used(live, recommender, user_id, table.watermark_id)
        found: tuple[SkillSuggestion, ...] = ()
        if not used:
            found = _from_baselines(table, limit)
        if not found:
            found = tuple(
                SkillSuggestion(**asdict(one))
                for one in recommender.suggest(user_id, used, k=limit, least=min_common_skills)
            )
        return CollaborativeRecommendations(
            timestamp=table.computed_at,
            message=_message(found, used, held),
            user_id=shown_as,
            recommendations=found,
            skills_used=len(used),
            users=len(recommender.users),
            refused=held.refused,
            truncated=False,
            omitted=0,
            computed_at=table.computed_at,
            source=table.source(
                ("user_similarity", "arrays", "skill_community_baselines"),
                "stats.similarity.recommend",
                "sql/answers/cold_start.sql",
            ),
        )


def _from_baselines(table: Published, limit: int) -> tuple[SkillSuggestion, ...]:
    if "skill_community_baselines" not in table.snapshot.manifest.table_counts:
        return ()
    return tuple(
        SkillSuggestion(
            skill_name=row["skill_name"],
            score=row["score"],
            completion_rate=row["global_completion_rate"],
            n=row["completion_rate_n"],
            source="global_popularity",
            method="popular",
            reason=f"{row['total_users']:,} users use it, {row['global_completion_rate']:.0%}"
            f" complete, n={row['completion_rate_n']:,}",
        )
        for row in table.rows("cold_start", {"limit": limit})
    )


def _message(found: tuple[SkillSuggestion, ...], used: list[str], held: Held[Recommender]) -> str:
    if not found:
        text = "No skill to recommend: the user has used every one that is known."
        if not used:
            text = "No skill to recommend: nobody has used one yet."
    elif not used:
        text = f"Nothing is known of this user; {len(found)} skills that suit most people."
    else:
        text = (
            f"{len(found)} skills beside the {len(used)} in use; first: {found[0].skill_name}"
            f" ({found[0].reason})."
        )
    if held.refused:
        text += f" The newest numbers are not used: {held.refused}"
    return text
