"""A fitted forest as the plain one that is served.

Belongs here: reading scikit-learn's objects, and nothing else that knows their insides. Does not:
fitting them (`fit`), the form of the arrays and their check (`sb_serving.stats.forest`), storing
them (the publish asset, by `Predictor.arrays`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sb_serving.stats.forest import FORMAT, LEAF, Forest

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

__all__ = ["forest_of"]


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
