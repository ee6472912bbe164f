"""Which skills are used together? The snapshot's `skill_clusters` and their members."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sb_serving.answers.arguments import MAX_LIMIT, checked_limit, checked_name, checked_number
from sb_serving.answers.published import published, unknown_skill
from sb_serving.models import Cluster, ClusterMember, SkillClusters

if TYPE_CHECKING:
    from sb_serving.live import Live

COMMAND = "sb refresh --models"


def skill_clusters(
    live: Live, limit: int = 20, members: int = 10, skill_name: str | None = None
) -> SkillClusters:
    """The groups of skills that are used together, the largest first.

    Args:
        live: The live side.
        limit: Most groups to list, 1 to 200.
        members: Most members to list of each, 1 to 200, the most typical first.
        skill_name: Only the group of this skill; None for all groups.

    Raises:
        SbError: A value is out of range, the skill is in no group, or nothing was computed yet.
    """
    checked_limit(limit)
    checked_number("members", members, 1, MAX_LIMIT)
    if skill_name is not None:
        checked_name("skill_name", skill_name)
    with published(live, "skill_clusters", command=COMMAND) as table:
        found = table.rows("skill_clusters", {"skill_name": skill_name})
        run = next(iter(table.rows("clustering")), None)
        if skill_name is not None and not found:
            raise unknown_skill(
                table.snapshot, skill_name, "is in too few sessions to be in a group"
            )
        inside: dict[int, list[ClusterMember]] = {}
        for row in table.rows("cluster_members"):
            inside.setdefault(row.pop("cluster_id"), []).append(ClusterMember(**row))
        shown = tuple(
            Cluster(
                **row,
                members=tuple(inside[row["cluster_id"]][:members]),
                omitted_members=max(row["skills"] - members, 0),
            )
            for row in found[:limit]
        )
        omitted = len(found) - len(shown)
        nothing = dict.fromkeys(("largest_share", "stability", "score", "shuffled_score"))
        return SkillClusters(
            timestamp=table.computed_at,
            message=_message(run)
            + (f" {omitted} groups are left out by limit." if omitted else ""),
            clusters=shown,
            truncated=omitted > 0,
            omitted=omitted,
            computed_at=table.computed_at,
            source=table.source(
                ("skill_clusters", "skill_cluster_membership"),
                "sql/answers/skill_clusters.sql",
                "sql/answers/cluster_members.sql",
                "training.clusters.cluster_skills",
            ),
            **(run or {"k": 0, "structure": False, "n_sessions": 0, "left_out": 0, **nothing}),
        )


def _message(run: dict[str, Any] | None) -> str:
    if run is None:
        return "Not enough data: no skill is in five sessions."
    text = f"{run['k']} groups, formed on {run['n_sessions']:,} sessions"
    if not run["structure"]:
        return (
            f"No structure: the {run['k']} group{'s' * (run['k'] > 1)} formed on"
            f" {run['n_sessions']:,} sessions predict unseen sessions no better than shuffled ones."
        )
    return (
        f"{text}; the largest holds {run['largest_share']:.0%} of the skills; stability"
        f" {run['stability']:.2f} of 1; they predict sessions that they were not formed on"
        f" (score {run['score']:.1f}, shuffled {run['shuffled_score']:.1f})."
    )
