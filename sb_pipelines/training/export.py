"""A fitted forest and logistic regression as the plain model that is served.

Belongs here: reading scikit-learn's objects, and nothing else that knows their insides. Does not:
fitting them (`fit`), the form of the arrays and their check (`sb_serving.stats.forest`,
`sb_serving.stats.success`), storing them (the publish asset, by `Predictor.arrays`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sb_serving.stats.forest import FORMAT, LEAF, Forest
from sb_serving.stats.success import Model

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

__all__ = ["forest_of", "model_of"]


def forest_of(fitted: RandomForestClassifier) -> Forest:
    """The trees of a fitted forest of two classes, the second of which is "completed".

    Args:
        fitted: Taught with outcomes False and True, both present.

    Returns:
        The same forest; its probabilities equal those of `predict_proba` to rounding.
    """
    parts: dict[str, list[NDArray[np.generic]]] = {
        name: [] for name in ("feature", "threshold", "left", "right", "value")
    }
    roots = []
    begin = 0
    for estimator in fitted.estimators_:
        tree = estimator.tree_
        leaf = tree.children_left < 0
        shares = tree.value[:, 0, :]
        roots.append(begin)
        parts["feature"].append(np.where(leaf, LEAF, tree.feature))
        parts["threshold"].append(np.where(leaf, 0.0, tree.threshold))
        parts["left"].append(np.where(leaf, LEAF, tree.children_left + begin))
        parts["right"].append(np.where(leaf, LEAF, tree.children_right + begin))
        parts["value"].append(shares[:, 1] / shares.sum(axis=1))
        begin += tree.node_count
    arrays = {name: np.concatenate(part) for name, part in parts.items()}
    arrays |= {"roots": np.array(roots), "format": np.array([FORMAT])}
    return Forest.from_arrays(arrays, fitted.n_features_in_)


def model_of(
    trees: RandomForestClassifier,
    linear: LogisticRegression,
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> Model:
    """The model that is served, without correction.

    Args:
        trees: See `forest_of`.
        linear: Taught with (basis - mean) / scale.
        mean: Mean of each column of the basis, shape (B,).
        scale: What each column was divided by, shape (B,).
    """
    return Model(
        forest=forest_of(trees),
        mean=mean,
        weight=linear.coef_[0] / scale,
        intercept=float(linear.intercept_[0]),
    )
