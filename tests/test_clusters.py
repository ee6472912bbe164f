"""Clusters: planted groups are found, shuffled sessions have none, ids and names last.

The larger comparisons are `tests/validate/validate_clusters.py`.
"""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.cluster import spectral_clustering
from sklearn.metrics import adjusted_rand_score

from sb_pipelines.training import clusters as clusters_module
from sb_pipelines.training.clusters import (
    Clustering,
    cluster_skills,
    match_ids,
    shuffle_margins,
)

Rows = tuple[NDArray[np.int64], NDArray[np.int64]]
GROUPS, PER_GROUP = 4, 7
NAMES = [f"g{i // PER_GROUP}-{i % PER_GROUP}" for i in range(GROUPS * PER_GROUP)]


def planted(seed: int, sessions: int = 500, noise: float = 0.3) -> Rows:
    """Sessions of mostly one group, of very different lengths, skills of different fame."""
    rng = np.random.default_rng(seed)
    group = np.arange(len(NAMES)) // PER_GROUP
    fame = rng.permutation(1 / np.arange(1, len(NAMES) + 1) ** 0.7)
    theme = rng.integers(GROUPS, size=sessions)
    size = np.clip(np.exp(rng.normal(1.3, 0.7, sessions)).round(), 1, 15)
    weight = fame * np.where(group == theme[:, None], 1 - noise + noise / GROUPS, noise / GROUPS)
    ranked = np.argsort(-(np.log(weight) + rng.gumbel(size=weight.shape)), axis=1)
    session, place = np.nonzero(np.arange(len(NAMES)) < size[:, None])
    return session, ranked[session, place]


def agreement(result: Clustering) -> float:
    found = {member.skill_name: member.cluster_id for member in result.clusters}
    return float(adjusted_rand_score([n[:2] for n in found], list(found.values())))


def test_planted_groups_are_found_without_being_told_how_many() -> None:
    result = cluster_skills(NAMES, *planted(1))
    assert result.k == GROUPS
    assert agreement(result) > 0.9
    assert result.structure
    assert result.stability is not None
    assert result.stability > 0.75
    assert result.largest_share == pytest.approx(0.25, abs=0.05)
    assert result.score is not None
    assert result.score > 10 > max(result.shuffled_scores)
    assert sorted(member.skill_name for member in result.clusters) == sorted(NAMES)
    assert all(0 < member.membership_score <= 1 for member in result.clusters)
    assert result.left_out == ()


def test_shuffled_sessions_have_no_structure() -> None:
    """Sizes and counts are what they were, so a method that feeds on them would still find some."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        result = cluster_skills(NAMES, *shuffle_margins(*planted(seed), rng, trades=30))
        assert not result.structure
        assert result.k == 1
        assert result.largest_share == 1
        assert result.stability is None


def test_a_number_that_was_asked_for_is_kept() -> None:
    result = cluster_skills(NAMES, *planted(2), k=2)
    assert result.k == 2
    assert result.largest_share is not None
    assert result.largest_share >= 0.5
    rng = np.random.default_rng(0)
    shuffled = cluster_skills(NAMES, *shuffle_margins(*planted(2), rng, trades=30), k=3)
    assert (shuffled.k, shuffled.structure) == (3, False)
    assert cluster_skills(NAMES, *planted(2), k=1).largest_share == 1


def test_row_order_and_copies_do_not_change_the_answer() -> None:
    session, skill = planted(3)
    order = np.random.default_rng(0).permutation(len(session))
    again = np.r_[session[order], session[:50]], np.r_[skill[order], skill[:50]]
    one, two = cluster_skills(NAMES, session, skill), cluster_skills(NAMES, *again)
    assert one.clusters == two.clusters
    assert (one.stability, one.score) == (two.stability, two.score)


def test_groups_are_named_after_their_most_typical_members() -> None:
    result = cluster_skills(NAMES, *planted(1))
    titles = {member.cluster_id: member.cluster_name for member in result.clusters}
    assert len(set(titles.values())) == result.k
    for member in result.clusters:
        named = titles[member.cluster_id].split(", ")
        assert len(named) == 3
        assert {name[:2] for name in named} == {member.skill_name[:2]}


def test_skill_names_with_commas_do_not_make_two_groups_share_a_name() -> None:
    """V4 has a unique index on the names of clusters."""
    labels = np.array([0, 0, 1])
    similarity = np.array([[0, 2.0, 0], [2.0, 0, 0], [0, 0, 0]])
    members, _ = clusters_module._describe(["a", "b", "a, b"], labels, similarity, None, 0)
    assert [member.cluster_name for member in members] == ["a, b", "a, b", "a, b (2)"]
    assert members[2].membership_score == 0


def test_centroids_tell_groups_apart() -> None:
    result = cluster_skills(NAMES, *planted(1))
    assert set(result.centroids) == {member.cluster_id for member in result.clusters}
    vectors = np.array(list(result.centroids.values()))
    assert vectors.dtype == np.float32
    assert vectors.shape == (GROUPS, GROUPS)
    cosine = vectors @ vectors.T / np.outer(*[np.linalg.norm(vectors, axis=1)] * 2)
    assert np.abs(cosine - np.eye(GROUPS)).max() < 0.5


def test_ids_last_from_run_to_run() -> None:
    """Next week's sessions give the same groups in another order; their ids must not jump."""
    first = cluster_skills(NAMES, *planted(1))
    ids = {member.skill_name: 10 + member.cluster_id for member in first.clusters}
    second = cluster_skills(NAMES, *planted(7), previous=ids)
    same = [ids[m.skill_name] == m.cluster_id for m in second.clusters]
    assert np.mean(same) > 0.9


def test_a_group_keeps_its_id_while_it_is_mostly_itself() -> None:
    before = {**dict.fromkeys("abcd", 4), **dict.fromkeys("efg", 9)}
    after = {**dict.fromkeys("efgh", "x"), **dict.fromkeys("abc", "y"), **dict.fromkeys("dij", "z")}
    assert match_ids(before, after) == {"x": 9, "y": 4, "z": 10}
    assert match_ids(before, after, last_id=20)["z"] == 21
    # Neither half of a group cut in two may keep the id by shares below a third.
    assert match_ids(dict.fromkeys("abcdef", 1), {"a": "p", "b": "q"}) == {"p": 2, "q": 3}
    assert match_ids({}, {"a": "p", "b": "q"}) == {"p": 1, "q": 2}
    assert match_ids(before, {}) == {}


def test_labels_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    truth = np.repeat(np.arange(5), 8)
    similarity = rng.random((40, 40)) + 1.5 * (truth[:, None] == truth)
    similarity = similarity + similarity.T
    np.fill_diagonal(similarity, 0)
    for k, ours in zip((3, 5), clusters_module._groups(similarity, [3, 5]), strict=True):
        theirs = spectral_clustering(
            similarity, n_clusters=k, assign_labels="cluster_qr", random_state=0
        )
        assert adjusted_rand_score(ours, theirs) == 1


def test_shuffling_keeps_sizes_and_counts() -> None:
    session, skill = planted(4)
    moved, same_skill = shuffle_margins(session, skill, np.random.default_rng(1))
    assert (same_skill == skill).all()
    assert (np.bincount(moved) == np.bincount(session)).all()
    assert len({*zip(moved.tolist(), skill.tolist(), strict=True)}) == len(session)
    assert (moved != session).mean() > 0.5


def test_shuffling_reaches_every_arrangement_equally_often() -> None:
    """Sessions of sizes 2, 1, 1 with skills of counts 2, 1, 1 can be arranged in five ways."""
    rng = np.random.default_rng(2)
    seen: dict[tuple[tuple[int, int], ...], int] = {}
    for _ in range(2000):
        moved, skill = shuffle_margins([0, 0, 1, 2], [0, 1, 0, 2], rng, trades=8)
        table = tuple(sorted(zip(moved.tolist(), skill.tolist(), strict=True)))
        seen[table] = seen.get(table, 0) + 1
    assert len(seen) == 5
    assert max(abs(count / 2000 - 0.2) for count in seen.values()) < 0.04


@pytest.mark.parametrize(
    "rows",
    [([], []), ([0], [0]), ([0, 1, 2], [0, 0, 0]), ([0, 0, 0], [0, 1, 2])],
    ids=["empty", "one row", "one skill", "one session"],
)
def test_too_little_to_group_is_said(rows: tuple[list[int], list[int]]) -> None:
    result = cluster_skills(["a", "b", "c"], *rows)
    assert not result.structure
    assert (result.k, result.clusters, result.largest_share) == (0, (), None)
    assert result.left_out == ("a", "b", "c")
    one = cluster_skills(["a", "b", "c"], *rows, min_count=1)
    assert not one.structure
    assert one.k == (1 if rows[0] else 0)


def test_equal_sessions_have_no_structure() -> None:
    session, skill = np.divmod(np.arange(40 * 6), 6)
    result = cluster_skills(list("abcdef"), session, skill)
    assert not result.structure
    assert {member.membership_score for member in result.clusters} == {0.0}


def test_rare_skills_are_left_out_by_name() -> None:
    session, skill = planted(1)
    names = [*NAMES, "rare"]
    result = cluster_skills(names, np.r_[session, [0, 1]], np.r_[skill, [28, 28]])
    assert result.left_out == ("rare",)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="k = 0"):
        cluster_skills(["a"], [0], [0], k=0)
    with pytest.raises(ValueError, match="min_count = 0"):
        cluster_skills(["a"], [0], [0], min_count=0)
    with pytest.raises(ValueError, match="k = 3 groups of 1 skills in at least 1 sessions"):
        cluster_skills(["a"], [0], [0], k=3, min_count=1)


def test_the_worked_example_of_the_documentation() -> None:
    page = Path(__file__).parents[1] / "docs" / "statistics" / "clusters.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0
