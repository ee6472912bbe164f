"""A random forest as flat arrays: checked on loading, scored and explained with numpy alone.

Belongs here: what the arrays mean, the refusal of arrays that are no forest, the probability of a
row and what each feature added to it. Does not: growing trees (`sb_pipelines.training.fit`),
turning scikit-learn's into arrays (`sb_pipelines.training.export`), the meaning of the features and
whatever else the predictor mixes in (`sb_serving.predict`).

All trees lie end to end, each in the order in which it was grown: a node's children come after it,
inside the same tree. The check demands that, so a walk from a root always ends at a leaf, whatever
bytes were read. Pickled models are never loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sb_serving.errors import SbError

__all__ = ["FORMAT", "Forest"]

FORMAT = 1
"""Version of the arrays' meaning; stored beside them as the array `format`."""

DEEPEST = 64
"""Levels that a tree may have: each costs a step in every prediction."""

LEAF = -1
"""`feature`, `left` and `right` of a node without children."""

_KINDS = {
    "format": "iu",
    "feature": "i",
    "threshold": "f",
    "left": "i",
    "right": "i",
    "value": "f",
    "roots": "iu",
}
_AT_ONCE = 1 << 12
"""Rows that walk a tree together, so that their arrays stay in the processor's cache."""
_FIX = "Run `sb refresh --models` to train and publish it again."

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """A checked forest. Make one with `from_arrays`.

    Attributes:
        feature: Feature that a node asks for, `LEAF` at leaves; shape (N,).
        threshold: A row goes right where its feature, as float32, is above; shape (N,).
        left: Child to the left, `LEAF` at leaves; shape (N,).
        right: Child to the right; shape (N,).
        value: Share of completed runs among those that were taught at this node; shape (N,).
        roots: First node of each tree; shape (T,).
        n_features: Features of a row.
        depth: Steps from a root to the deepest leaf.
    """

    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    value: Floats
    roots: Ints
    n_features: int
    depth: int
    _asks: NDArray[np.intp] = field(repr=False)
    _above: Floats = field(repr=False)
    _child: NDArray[np.intp] = field(repr=False)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, ArrayLike], n_features: int) -> Forest:
        """Check arrays and make a forest of them.

        Args:
            arrays: `feature`, `threshold`, `left`, `right`, `value`, `roots` as in the attributes,
                and `format`, shape (1,).
            n_features: How many features rows will have.

        Raises:
            SbError: An array is missing, of another form or version, or does not describe trees;
                names the array and the node.
        """
        given = {name: _array(arrays, name) for name in _KINDS}
        version = given["format"]
        if version.shape != (1,) or version[0] != FORMAT:
            raise _bad(f"format {version.tolist()} instead of [{FORMAT}]")
        size = len(given["feature"])
        for name in ("feature", "threshold", "left", "right", "value"):
            if given[name].shape != (size,):
                raise _bad(f"{name} has shape {given[name].shape}, feature has ({size},)")
        roots = _checked_roots(given["roots"], size)
        inner = _checked_nodes(given, roots, n_features)
        feature, left, right = (
            given[name].astype(np.int32) for name in ("feature", "left", "right")
        )
        threshold, value = (given[name].astype(np.float64) for name in ("threshold", "value"))
        # A leaf is its own child on either side: all trees then take the same number of steps, and
        # a row needs no mask for the trees that are done.
        own = np.arange(size)
        child = np.empty(2 * size, dtype=np.intp)
        child[0::2] = np.where(inner, left, own)
        child[1::2] = np.where(inner, right, own)
        return cls(
            feature=feature,
            threshold=threshold,
            left=left,
            right=right,
            value=value,
            roots=roots.astype(np.int32),
            n_features=n_features,
            depth=_depth(roots, inner, left, right),
            _asks=np.where(inner, feature, 0).astype(np.intp),
            _above=np.where(inner, threshold, np.inf),
            _child=child,
        )

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What `from_arrays` takes."""
        return {
            "format": np.array([FORMAT], dtype=np.int32),
            "feature": self.feature,
            "threshold": self.threshold,
            "left": self.left,
            "right": self.right,
            "value": self.value,
            "roots": self.roots,
        }

    def probability(self, rows: ArrayLike) -> Floats:
        """Probability of completion: the mean over the trees of the leaf that a row falls into.

        Args:
            rows: Features, finite, shape (n, F).

        Returns:
            Fractions, shape (n,); scikit-learn's `predict_proba` to rounding.

        Raises:
            ValueError: Another number of features, or a value that is not finite.
        """
        x = self._rows(rows)
        total = np.zeros(len(x))
        for start in range(0, len(x), _AT_ONCE):
            part = np.ascontiguousarray(x[start : start + _AT_ONCE])
            values, offset = part.ravel(), np.arange(len(part)) * self.n_features
            for root in self.roots.tolist():
                node = np.full(len(part), root, dtype=np.intp)
                for _ in range(self.depth):
                    above = values.take(offset + self._asks.take(node)) > self._above.take(node)
                    node = self._child.take(node + node + above)
                total[start : start + _AT_ONCE] += self.value.take(node)
        return np.asarray(total / len(self.roots))

    def probability_of(self, row: ArrayLike) -> float:
        """The same for one row, shape (F,), without what many rows need."""
        x = self._rows(np.asarray(row)[None])[0]
        node = self.roots
        for _ in range(self.depth):
            above = x.take(self._asks.take(node)) > self._above.take(node)
            node = self._child.take(node + node + above)
        return float(self.value.take(node).mean())

    def contributions(self, row: ArrayLike) -> tuple[float, Floats]:
        """What each feature added to one row's probability.

        A step from a node to its child moves the share of completed runs; the move belongs to the
        feature that the node asked for. Moves are averaged over the trees.

        Args:
            row: Features, shape (F,).

        Returns:
            The mean share at the roots, and what each feature added to it, shape (F,). Together
            they are `probability_of(row)`.

        Source: A. Saabas, "Interpreting random forests" (2014).
        """
        x = self._rows(np.asarray(row)[None])[0]
        node: NDArray[np.intp] = self.roots.astype(np.intp)
        added = np.zeros(self.n_features)
        for _ in range(self.depth):
            asked = self._asks[node]
            following = self._child[2 * node + (x[asked] > self._above[node])]
            moved = self.value[following] - self.value[node]
            added += np.bincount(asked, weights=moved, minlength=self.n_features)
            node = following
        return float(self.value[self.roots].mean()), added / len(self.roots)

    def _rows(self, rows: ArrayLike) -> NDArray[np.float32]:
        # The thresholds were chosen between float32 values; the full float64 would fall on the
        # other side of some.
        x = np.asarray(rows, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != self.n_features:
            raise ValueError(f"rows have shape {x.shape}, not (n, {self.n_features})")
        if not np.isfinite(x).all():
            raise ValueError("rows hold a value that is not finite")
        return x


def _bad(problem: str) -> SbError:
    return SbError(f"the forest is damaged: {problem}", fix=_FIX)


def _array(arrays: Mapping[str, ArrayLike], name: str) -> NDArray[np.generic]:
    if name not in arrays:
        raise _bad(f"it has no array {name!r}")
    array = np.asarray(arrays[name])
    if array.ndim != 1 or array.dtype.kind not in _KINDS[name]:
        raise _bad(f"{name} is {array.ndim}-dimensional of type {array.dtype}")
    return array


def _first(wrong: NDArray[np.bool_]) -> int:
    return int(np.argmax(wrong))


def _checked_roots(roots: NDArray[np.generic], size: int) -> NDArray[np.int64]:
    first = roots.astype(np.int64)
    if len(first) == 0 or size == 0:
        raise _bad("it has no trees")
    if first[0] != 0 or (np.diff(first) <= 0).any() or first[-1] >= size:
        raise _bad(f"roots do not rise from 0 to below {size}")
    return first


def _checked_nodes(
    given: Mapping[str, NDArray[np.generic]], roots: NDArray[np.int64], n_features: int
) -> NDArray[np.bool_]:
    """Check that the nodes are trees; returns which of them have children."""
    feature, left, right = (given[name].astype(np.int64) for name in ("feature", "left", "right"))
    size = len(feature)
    inner: NDArray[np.bool_] = feature != LEAF
    wrong = inner & ((feature < 0) | (feature >= n_features))
    if wrong.any():
        node = _first(wrong)
        raise _bad(f"node {node} asks for feature {feature[node]} of {n_features}")
    own = np.arange(size)
    end = np.repeat(np.append(roots[1:], size), np.diff(np.append(roots, size)))
    for name, child in (("left", left), ("right", right)):
        wrong = np.where(inner, (child <= own) | (child >= end), child != LEAF)
        if wrong.any():
            node = _first(wrong)
            raise _bad(f"{name} of node {node} is {child[node]}, outside of what follows it")
    parents = np.bincount(np.concatenate([left[inner], right[inner]]), minlength=size)
    expected = np.ones(size, dtype=np.int64)
    expected[roots] = 0
    if (parents != expected).any():
        node = _first(parents != expected)
        raise _bad(f"node {node} has {parents[node]} parents instead of {expected[node]}")
    for name, low, high in (("threshold", -np.inf, np.inf), ("value", 0.0, 1.0)):
        numbers = given[name].astype(np.float64)
        wrong = ~np.isfinite(numbers) | (numbers < low) | (numbers > high)
        if wrong.any():
            node = _first(wrong)
            raise _bad(f"{name} of node {node} is {numbers[node]}")
    return inner


def _depth(roots: NDArray[np.int64], inner: NDArray[np.bool_], left: Ints, right: Ints) -> int:
    level: NDArray[np.int64] = roots[inner[roots]]
    depth = 0
    while len(level):
        depth += 1
        if depth > DEEPEST:
            raise _bad(f"a tree is deeper than {DEEPEST} levels")
        below = np.concatenate([left[level], right[level]]).astype(np.int64)
        level = below[inner[below]]
    return depth
