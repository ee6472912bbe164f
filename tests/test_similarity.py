"""Neighbours, recommendations and the choice of method, against plain sets and planted groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb_pipelines.analyze import analyze
from sb_pipelines.defs import baselines
from sb_serving.errors import SbError
from sb_serving.recommend import Recommender, Suggestion
from sb_serving.stats import similarity
from sb_serving.stats.similarity import UserSkills, nearest, recommend
from tests.runs import events_of

Sets = list[set[int]]


def matrix(sets: Sets, skills: int = 12) -> UserSkills:
    pairs = [(user, skill) for user, own in enumerate(sets) for skill in own]
    user, skill = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return UserSkills.from_pairs(user, skill, len(sets), skills)


SETS = st.lists(st.sets(st.integers(0, 11)), min_size=1, max_size=40)


@given(
    SETS, st.sets(st.integers(0, 11), min_size=1), st.integers(1, 8), st.integers(1, 3), st.data()
)
def test_neighbours_equal_those_of_plain_sets(
    sets: Sets, own: set[int], k: int, shared: int, data: st.DataObject
) -> None:
    leave_out = data.draw(st.none() | st.integers(0, len(sets) - 1))
    expected = sorted(
        (-len(other & own) / len(other | own), user, len(other & own))
        for user, other in enumerate(sets)
        if len(other & own) >= shared and user != leave_out
    )[:k]
    found = nearest(matrix(sets), list(own), k=k, min_shared=shared, leave_out=leave_out)
    assert found.user.tolist() == [user for _, user, _ in expected]
    assert found.shared.tolist() == [both for *_, both in expected]
    assert found.similarity == pytest.approx([-minus for minus, *_ in expected])


def test_repeats_of_a_skill_count_once() -> None:
    """Rows, not skills, were once counted: ten runs of one shared skill gave a similarity of 10."""
    user, skill = [0] * 10 + [1, 1], [4] * 10 + [4, 5]
    found = nearest(UserSkills.from_pairs(user, skill, 2, 6), [4, 4, 4])
    assert found.similarity.tolist() == [1.0, 0.5]


def test_skills_that_nobody_else_has_make_the_set_larger() -> None:
    assert nearest(matrix([{1, 2}]), [1, 2, -1, -2]).similarity.tolist() == [0.5]


def test_recommendations_are_summed_not_taken_from_the_best_single_neighbour() -> None:
    """Skill 5 is used by the nearest user alone, skill 6 by nine others who are nearly as near."""
    sets = [{0, 1, 2, 5}] + [{0, 1, 6}] * 9
    found = recommend(matrix(sets), [0, 1, 2], np.full(12, 0.9), k=2)
    assert [one.skill for one in found] == [6, 5]
    assert (found[0].users, found[0].of) == (9, 10)
    assert found[0].score == pytest.approx(9 * 0.5 * 0.9)


def test_a_skill_that_fails_moves_down_and_own_skills_are_left_out() -> None:
    completion = np.full(12, 0.9)
    completion[6] = 0.1
    found = recommend(matrix([{0, 1, 5, 6}] * 5), [0, 1], completion, k=10)
    assert [one.skill for one in found] == [5, 6]
    assert {one.source for one in found} == {"collaborative_filtering"}


def test_an_unknown_user_gets_what_is_popular() -> None:
    found = recommend(matrix([{3}, {3, 4}, {3, 4}, {5}]), [], np.full(12, 0.8), k=2)
    assert [(one.skill, one.source, one.users, one.of) for one in found] == [
        (3, "global_popularity", 3, 4),
        (4, "global_popularity", 2, 4),
    ]


def test_popular_skills_fill_a_short_list_below_the_others() -> None:
    found = recommend(matrix([{0, 1}, {0, 2}, {7}, {7, 8}]), [0], np.full(12, 0.9), k=10)
    assert [one.method for one in found] == ["similar_users"] * 2 + ["popular"] * 2
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)


def test_reasons_say_who_how_often_and_how_many() -> None:
    names = [f"skill-{number}" for number in range(12)]
    sets = [{0, 1, 5}] * 8 + [{0, 1}] * 2
    (found,) = recommend(matrix(sets), [0, 1], np.full(12, 0.94), k=1)
    assert found.reason(names, 310) == "8 of your 10 nearest use it, 94% complete, n=310"
    weights = similarity.ease(matrix(sets).together(), 1.0)
    (found,) = recommend(matrix(sets), [0, 1], np.full(12, 0.94), k=1, weights=weights)
    assert found.reason(names, 310).startswith("goes with skill-0 and skill-1, which you use")
    (found,) = recommend(matrix(sets), [], np.full(12, 0.94), k=1)
    assert found.reason(names, 310) == "10 of 10 users use it, 94% complete, n=310"


def test_reasons_tell_nothing_of_single_colleagues() -> None:
    """The record of one person was once told: 1 of your 1 nearest use it, 50% complete, n=2."""
    assert similarity.FEWEST == baselines.MIN_USERS
    names = [f"skill-{number}" for number in range(12)]
    for count, expected in (
        (1, "fewer than 5 of your nearest use it"),
        (5, "5 of your 5 nearest use it"),
    ):
        (found,) = recommend(matrix([{0, 1, 5}] * count), [0, 1], np.full(12, 0.5), k=1)
        assert found.reason(names, None) == expected
    (found,) = recommend(matrix([{5}] * 4), [], np.full(12, 0.5), k=1)
    assert found.reason(names, None) == "fewer than 5 users use it"
    assert found.reason(names, 8, fewest=1) == "4 of 4 users use it, 50% complete, n=8"


def test_rates_of_skills_that_few_use_are_not_told() -> None:
    sets = [{0, 1, 2, 3}, {0, 1, 2}, {0, 1, 2}, {0, 1, 2}, {0, 1, 2}, {0}]

    def suggested(sets: Sets) -> dict[str, Suggestion]:
        users = np.array([f"{number:032x}".encode() for number in range(len(sets))])
        ones = np.ones(4, dtype=np.int64)
        one = Recommender("abcd", users, matrix(sets, 4), ones, 2 * ones, np.full(4, 0.5))
        return {found.skill_name: found for found in one.suggest("a stranger", "a", k=9)}

    found = suggested(sets)
    assert (found["c"].completion_rate, found["c"].n) == (0.5, 2)
    assert found["c"].reason == "5 of your 6 nearest use it, 50% complete, n=2"
    assert (found["d"].completion_rate, found["d"].n) == (None, 0)
    assert found["d"].reason == "fewer than 5 of your nearest use it"
    alone = suggested([{0, 1}])["b"]  # a single user has no colleagues
    assert alone.reason == "1 of your 1 nearest use it, 50% complete, n=2"


def test_neighbours_may_have_to_share_several_skills() -> None:
    sets = [{0, 1, 5}] * 3 + [{0, 6}] * 9
    found = recommend(matrix(sets), [0, 1], np.full(12, 0.9), k=1, min_shared=2)
    assert [one.skill for one in found] == [5]
    found = recommend(matrix(sets), [0, 1], np.full(12, 0.9), k=1, min_shared=3)
    assert [(one.skill, one.method) for one in found] == [(6, "popular")]


def test_ease_is_ridge_regression_without_the_skill_itself() -> None:
    rng = np.random.default_rng(2)
    ones = (rng.random((60, 8)) < 0.4).astype(float)
    weights = similarity.ease(ones.T @ ones, 5.0)
    for skill in range(8):
        others = np.delete(ones, skill, axis=1)
        ridge = np.linalg.solve(others.T @ others + 5.0 * np.eye(7), others.T @ ones[:, skill])
        assert np.delete(weights[:, skill], skill) == pytest.approx(ridge)
        assert weights[skill, skill] == 0.0


def groups(seed: int) -> tuple[UserSkills, dict[int, int]]:
    """Users of four groups, each with its own ten skills and five that everybody may use."""
    rng = np.random.default_rng(seed)
    user, skill = [], []
    hidden = {}
    for person in range(200):
        group = person % 4
        own = rng.choice(10, 6, replace=False) + 10 * group
        own = np.append(own, 40 + rng.choice(5, 3, replace=False))
        user += [person] * len(own)
        skill += own.tolist()
        hidden[person] = int(own[0])
    return UserSkills.from_pairs(user, skill, 200, 45), hidden


def test_the_replay_finds_planted_groups() -> None:
    ones, hidden = groups(1)
    found = similarity.replay(ones, hidden, np.full(45, 0.9), seed=0)
    assert found.users == 200
    assert found.recall["similar_users"] > found.recall["popular"] + 0.3
    assert found.recall["similar_users"] > found.recall["best_single"]


def test_the_replay_hides_the_skill_from_every_method() -> None:
    """Were the hidden skill left in the matrix, a user's own row would give it away."""
    rng = np.random.default_rng(3)
    user = np.repeat(np.arange(300), 5)
    ones = UserSkills.from_pairs(user, rng.integers(0, 100, 1_500), 300, 100)
    hidden = {person: int(ones.of(person)[0]) for person in range(300)}
    found = similarity.replay(ones, hidden, np.full(100, 0.9), seed=0)
    assert max(found.recall.values()) < 0.25  # ten of about 96 at random: .10
    assert found.chosen == "similar_users"


def test_a_replay_without_users_chooses_neighbours() -> None:
    found = similarity.replay(matrix([{1}, set()]), {0: 1}, np.full(12, 0.9), seed=0)
    assert (found.users, found.chosen) == (0, "similar_users")


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([0, 2], [1, 12], "outside of 0 to 11"),
        ([0, 2], [-1, 1], "outside of 0 to 11"),
        ([0, 3], [1, 2], "indptr does not run from 0 to 2"),
        ([1, 2], [1, 2], "indptr does not run"),
        ([], [], "indptr"),
        ([0, 2, 1, 3], [1, 2, 3], "indptr falls at user 1"),
        ([0, 2], [2, 2], "do not rise"),
        ([0, 0, 2, 2], [2, 1], "do not rise"),
        ([0, 2], [0.5, 1.0], "indices is 1-dimensional of type float64"),
        ([[0, 1]], [1], "indptr is 2-dimensional"),
    ],
)
def test_a_damaged_matrix_is_refused(indptr: list[int], indices: list[int], message: str) -> None:
    with pytest.raises(SbError, match=message):
        UserSkills.from_arrays(np.array(indptr), np.array(indices), 12)


def test_users_without_skills_are_no_damage() -> None:
    ones = UserSkills.from_arrays(np.array([0, 0, 2, 2, 3, 3]), np.array([4, 7, 2]), 12)
    assert ones.sizes.tolist() == [0, 2, 0, 1, 0]
    assert nearest(ones, [2, 4]).user.tolist() == [3, 1]


def test_the_operation_answers_by_name() -> None:
    ones, _ = groups(5)
    user = np.repeat(np.arange(200), ones.sizes.astype(int))
    events = {
        "user_id": np.array([f"user-{number}" for number in user], dtype=object),
        "skill_name": np.array([f"skill-{number}" for number in ones.indices], dtype=object),
        "invoked_at": np.datetime64("2026-11-20", "s") + np.arange(len(user)),
        "outcome": np.array(["completed", "completed", "failed"])[np.arange(len(user)) % 3],
    }

    def asked(users: list[object], **given: object) -> Any:
        kept = {name: column for name, column in events.items() if name not in given}
        return analyze("recommend", events_of(kept), {"users": users, "k": 3})["recommendations"]

    found = asked(["user-0", "nobody", 7])
    used = {f"skill-{number}" for number in ones.of(0)}
    rest = {f"skill-{number}" for number in range(10)} - used
    assert {one["skill_name"] for one in found["user-0"]} & rest
    assert not {one["skill_name"] for one in found["user-0"]} & used
    assert [one["source"] for one in found["nobody"]] == ["global_popularity"] * 3
    assert found["7"] == found["nobody"]
    assert all(0 < one["completion_rate"] < 1 for one in found["user-0"])
    without = asked(["user-0"], outcome=None, invoked_at=None)["user-0"]
    assert [one["completion_rate"] for one in without] == [None] * 3
    with pytest.raises(SbError, match="k = 0"):
        analyze("recommend", events_of(events), {"users": ["user-0"], "k": 0})
    with pytest.raises(SbError, match=r"users = \[null\] is no text"):
        analyze("recommend", events_of(events), {"users": [None]})
    with pytest.raises(SbError, match="no column 'user_id'"):
        asked(["user-0"], user_id=None)


def test_runs_of_unknown_users_count_for_completion_alone() -> None:
    events = {
        "user_id": np.array([None, "", "a", "a", "b"], dtype=object),
        "skill_name": np.array(["lost", "lost", "x", "y", "x"], dtype=object),
        "completed": np.array([True, False, True, True, True]),
    }
    found = analyze("recommend", events_of(events), {"users": ["b", ""]})["recommendations"]
    assert [one["skill_name"] for one in found["b"]] == ["y"]
    assert [one["skill_name"] for one in found[""]] == ["x", "y"]
