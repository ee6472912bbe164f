"""Estimates of many skills that steady each other.

Belongs here: the one random-effects rule by which estimates with known precision are moved towards
their common mean. Does not: rates with counts behind them (`baseline` has their exact posterior).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["pooled"]

Floats: TypeAlias = NDArray[np.float64]


def pooled(
    estimate: Floats, precision: Floats, prior: float, prior_precision: float
) -> tuple[Floats, Floats]:
    """Move each estimate towards the mean of all by the share of its spread that is noise.

    Args:
        estimate: One value per skill, shape (s,).
        precision: One over the variance of each, at least 0, shape (s,).
        prior: What is assumed before anything is seen; it joins as one more skill.
        prior_precision: One over the variance of the prior, above 0.

    Returns:
        The pooled estimates and their variances, shape (s,) each.

    Source: the moment estimate of the spread between groups of DerSimonian and Laird (1986),
    Controlled Clinical Trials 7, 177-188, and the empirical Bayes estimate that follows from it.
    """
    values = np.append(estimate, prior)
    weight = np.append(precision, prior_precision)
    total = weight.sum()
    q = (weight * (values - (weight * values).sum() / total) ** 2).sum()
    room = max(float(total - (weight**2).sum() / total), 1e-300)
    between = max(float(q) - (len(values) - 1), 0.0) / room
    shared = weight / (1.0 + weight * between)
    centre = (shared * values).sum() / shared.sum()
    keep = between * precision / (1.0 + between * precision)
    variance = between / (1.0 + between * precision) + (1.0 - keep) ** 2 / shared.sum()
    return centre + keep * (estimate - centre), variance
