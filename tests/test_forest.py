"""The flat forest: equal to scikit-learn, honest about its reasons, closed to damaged arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sb_pipelines.training.export import forest_of
from sb_serving.errors import SbError
from sb_serving.stats.forest import DEEPEST, Forest

FEATURES = 6
Arrays = dict[str, Any]


@pytest.fixture(scope="module")
def grown() -> tuple[Any, Forest, Any]:
    """A fitted forest, the same flat, and the rows that taught it."""
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(3)
    rows = rng.normal(size=(1_500, FEATURES)).round(1)  # rounded: many rows lie on thresholds
    outcome = rng.random(1_500) < 1 / (1 + np.exp(-rows[:, 0] - rows[:, 1] * rows[:, 2]))
    fitted = RandomForestClassifier(25, min_samples_leaf=5, random_state=1).fit(rows, outcome)
    return fitted, forest_of(fitted), rows


def test_probabilities_equal_those_of_scikit_learn(grown: tuple[Any, Forest, Any]) -> None:
    fitted, forest, rows = grown
    rng = np.random.default_rng(4)
    unseen = rng.normal(scale=3, size=(5_000, FEATURES))
    for some in (rows, unseen):
        expected = fitted.predict_proba(some)[:, 1]
        assert np.abs(forest.probability(some) - expected).max() < 1e-12
        one_by_one = [forest.probability_of(row) for row in some[:200]]
        assert np.abs(np.array(one_by_one) - expected[:200]).max() < 1e-12


def test_a_value_is_compared_as_float32(grown: tuple[Any, Forest, Any]) -> None:
    """scikit-learn rounds to float32 first; a value a hair above a threshold must not go right."""
    fitted, forest, rows = grown
    inner = forest.feature >= 0
    row = np.tile(rows[0], (50, 1))
    for i, node in enumerate(np.flatnonzero(inner)[:50]):
        row[i, forest.feature[node]] = np.nextafter(forest.threshold[node], np.inf)
    expected = fitted.predict_proba(row)[:, 1]
    assert np.abs(forest.probability(row) - expected).max() < 1e-12


def test_contributions_add_up(grown: tuple[Any, Forest, Any]) -> None:
    _, forest, rows = grown
    for row in rows[:100]:
        base, added = forest.contributions(row)
        assert base + added.sum() == pytest.approx(forest.probability_of(row), abs=1e-12)
    assert base == pytest.approx(forest.value[forest.roots].mean())


def test_a_feature_that_no_tree_asks_for_adds_nothing() -> None:
    forest = Forest.from_arrays(stump(), 3)
    base, added = forest.contributions([5.0, 1.0, 5.0])
    assert base == 0.5
    assert added.tolist() == [0.0, pytest.approx(0.4), 0.0]


def test_arrays_come_back(grown: tuple[Any, Forest, Any]) -> None:
    _, forest, rows = grown
    again = Forest.from_arrays(forest.arrays(), FEATURES)
    assert np.array_equal(again.probability(rows), forest.probability(rows))
    assert again.depth == forest.depth


def test_a_forest_of_bare_roots_answers_their_mean() -> None:
    bare = {
        "format": np.array([1]),
        "feature": np.array([-1, -1]),
        "threshold": np.zeros(2),
        "left": np.array([-1, -1]),
        "right": np.array([-1, -1]),
        "value": np.array([0.2, 0.4]),
        "roots": np.array([0, 1]),
    }
    forest = Forest.from_arrays(bare, 1)
    assert forest.probability([[7.0]]).tolist() == [pytest.approx(0.3)]
    assert forest.probability_of([7.0]) == pytest.approx(0.3)


def stump() -> Arrays:
    """Two trees: a root that asks feature 1, with two leaves; and the same again."""
    return {
        "format": np.array([1], dtype=np.int32),
        "feature": np.array([1, -1, -1, 1, -1, -1], dtype=np.int32),
        "threshold": np.array([0.5, 0.0, 0.0, 0.5, 0.0, 0.0]),
        "left": np.array([1, -1, -1, 4, -1, -1], dtype=np.int32),
        "right": np.array([2, -1, -1, 5, -1, -1], dtype=np.int32),
        "value": np.array([0.5, 0.1, 0.9, 0.5, 0.1, 0.9]),
        "roots": np.array([0, 3], dtype=np.int32),
    }


def at(name: str, node: int, value: float) -> Arrays:
    arrays = stump()
    arrays[name][node] = value
    return arrays


def chain(levels: int) -> Arrays:
    """One tree that is a chain: every right child is a leaf."""
    size = 2 * levels + 1
    inner = np.arange(size) % 2 == 0
    inner[-1] = False
    own = np.arange(size)
    return {
        "format": np.array([1]),
        "feature": np.where(inner, 0, -1),
        "threshold": np.zeros(size),
        "left": np.where(inner, own + 2, -1),
        "right": np.where(inner, own + 1, -1),
        "value": np.full(size, 0.5),
        "roots": np.array([0]),
    }


DAMAGED: list[tuple[str, Arrays, str]] = [
    ("an array is missing", {k: v for k, v in stump().items() if k != "left"}, "no array 'left'"),
    ("another version", stump() | {"format": np.array([2])}, r"format \[2\]"),
    ("no version", stump() | {"format": np.array([], dtype=int)}, "format"),
    ("cut short", stump() | {"value": stump()["value"][:-1]}, r"value has shape \(5,\)"),
    ("two dimensions", stump() | {"value": stump()["value"].reshape(2, 3)}, "value is 2-dim"),
    ("text for numbers", stump() | {"left": np.array(["1"] * 6)}, "left is 1-dimensional of type"),
    ("fractions for nodes", stump() | {"left": stump()["left"] + 0.0}, "left is 1-dimensional"),
    ("no trees", stump() | {"roots": np.array([], dtype=np.int32)}, "no trees"),
    ("roots fall", stump() | {"roots": np.array([3, 0])}, "roots do not rise"),
    ("a root outside", stump() | {"roots": np.array([0, 6])}, "roots do not rise"),
    ("the first tree lost", stump() | {"roots": np.array([3])}, "roots do not rise"),
    ("an unknown feature", at("feature", 3, 3), "node 3 asks for feature 3 of 3"),
    ("a negative feature", at("feature", 0, -2), "node 0 asks for feature -2"),
    ("a child outside", at("right", 3, 6), "right of node 3 is 6"),
    ("a child in another tree", at("right", 0, 4), "right of node 0 is 4"),
    ("a node that is its own child", at("left", 0, 0), "left of node 0 is 0"),
    ("a cycle", at("left", 4, 3) | {"feature": np.array([1, -1, -1, 1, 1, -1])}, "node 4"),
    ("a huge index", at("left", 0, 2**31 - 1), "left of node 0"),
    ("a leaf with a child", at("left", 1, 2), "left of node 1"),
    ("two parents", at("right", 0, 1), "node 1 has 2 parents"),
    ("a threshold that is no number", at("threshold", 0, np.nan), "threshold of node 0 is nan"),
    ("an endless threshold", at("threshold", 3, np.inf), "threshold of node 3 is inf"),
    ("a value that is no number", at("value", 5, np.nan), "value of node 5 is nan"),
    ("a value above 1", at("value", 2, 1.5), "value of node 2 is 1.5"),
    ("too deep", chain(DEEPEST + 1), "deeper than"),
]


@pytest.mark.parametrize(
    ("arrays", "message"), [one[1:] for one in DAMAGED], ids=[one[0] for one in DAMAGED]
)
def test_damaged_arrays_are_refused_by_name(arrays: Arrays, message: str) -> None:
    with pytest.raises(SbError, match=message):
        Forest.from_arrays(arrays, 3)


def test_the_deepest_allowed_chain_is_walked() -> None:
    forest = Forest.from_arrays(chain(DEEPEST), 1)
    assert forest.probability_of([-1.0]) == 0.5


@pytest.mark.parametrize("row", [[1.0, 2.0], [1.0, np.nan, 2.0], [1.0, np.inf, 2.0]])
def test_rows_of_another_form_are_refused(row: list[float]) -> None:
    with pytest.raises(ValueError, match=r"shape|finite"):
        Forest.from_arrays(stump(), 3).probability_of(row)
