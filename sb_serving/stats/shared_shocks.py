"""What the other skills and the last days say about a window.

Belongs here: the suggested shift of a window's mean by shocks that skills share and by the skill's
own recent level, and the weights of the suggestions, learned from the past. Does not: judging the
window with or without the shift (`window_model`).

Where a bad network day hits many skills at once, each of them has bad hours often, and a test of
each by itself must call them normal. Seen beside the others, the one that is down stands out. All
others together are one suggestion; those that moved with the skill before (the same server, the
same destination) are a second, found from the past without being told what they have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sb_serving.stats.scan import sliding_sum
from sb_serving.stats.seasonal import COUNT, Family
from sb_serving.stats.window_sums import Past, Sums

__all__ = ["SharedShocks", "learned_weights"]

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

HALF_LIVES = (4.0, 48.0)
"""Half-lives, in hours, of the two memories of a skill's own level."""

KIN_HOURS = 6
"""Windows in which skills are compared: long enough to hold calls of both."""

MAX_KIN = 20
"""Most skills that count as having moved with one."""

CLIP_SD = 4.0
"""Residuals are clipped at so many sd before anything is learned from them."""

MATERIAL = 0.05
"""Least share of past variance that the suggestions must explain to be used."""


@dataclass(frozen=True)
class SharedShocks:
    """What suggestions are made from.

    Attributes:
        kin: Pairs of hours, shape (hours,), and how much each skill (column) says about each (row)
            in them, shape (skills, skills).
        recent: For each half-life the fading sums of residual and information before each hour.
        family: Of the metric.
    """

    kin: tuple[tuple[Flags, csr_array], ...]
    recent: tuple[tuple[Floats, Floats], ...]
    family: Family

    @staticmethod
    def of(hourly: Sums, family: Family) -> SharedShocks:
        """Learn who moves with whom from the hours before the first scored one.

        The weights are learned from the same past, so there each week sees the kin that the weeks
        of the other parity show: kin by chance must not look useful.

        Args:
            hourly: Sums of windows of one hour.
            family: Of the metric.
        """
        scored = np.flatnonzero(hourly.scored.any(axis=0))
        before = int(scored[0]) if len(scored) else 0
        recent = tuple(_fading(hourly, half_life) for half_life in HALF_LIVES)
        hour = np.arange(hourly.weight.shape[1])
        past, even = hour < before, hour // 168 % 2 == 0
        kin = (
            (past & even, _kin(hourly, past & ~even)),
            (past & ~even, _kin(hourly, past & even)),
            (~past, _kin(hourly, past)),
        )
        return SharedShocks(kin, recent, family)

    def suggestions(self, sums: Sums) -> Floats:
        """Shifts on the link scale, shape (4, skills, hours): others, kin, own hours, own days.

        Each is a sum of residuals over the information in it plus one, so that where nothing was
        seen nothing is suggested. The others are seen in the window itself, the skill only
        before it.

        Args:
            sums: Windows of one length.
        """
        residual, information = sums.residual, sums.information
        out = np.zeros((2 + len(self.recent), *residual.shape))
        out[0] = _ratio(residual.sum(axis=0) - residual, information.sum(axis=0) - information)
        for hours, kin in self.kin:
            out[1][:, hours] = _ratio(kin @ residual[:, hours], kin @ information[:, hours])
        lag = sums.length - 1
        for row, (past_residual, past_information) in enumerate(self.recent, start=2):
            columns = residual.shape[1] - lag
            out[row, :, lag:] = _ratio(past_residual, past_information)[:, :columns]
        return np.log1p(np.maximum(out, -0.95)) if self.family is COUNT else out


def learned_weights(past: Past, suggestions: Floats, sd: Floats) -> Floats | None:
    """Weights of the suggestions, by weighted least squares over the windows of all skills.

    Args:
        past: Windows to learn from.
        suggestions: For each of them, shape (4, windows).
        sd: Of the residual of each, shape (windows,).

    Returns:
        Weights, shape (4,); None where they explain too little to matter.
    """
    residual = np.clip(past.sums.residual / sd, -CLIP_SD, CLIP_SD)
    design = suggestions * (past.sums.information / sd)
    weights = np.linalg.solve(design @ design.T + np.eye(len(design)), design @ residual)
    left = residual - weights @ design
    material = float(left @ left) < (1.0 - MATERIAL) * float(residual @ residual)
    return np.asarray(weights) if material else None


def _ratio(residual: Floats, information: Floats) -> Floats:
    # Differences of sums can fall a rounding error below zero.
    return residual / (np.maximum(information, 0.0) + 1.0)


def _fading(hourly: Sums, half_life: float) -> tuple[Floats, Floats]:
    """Residual and information of the hours before each hour, halved in each half-life."""
    keep = 0.5 ** (1.0 / half_life)
    out = []
    for part in (hourly.residual, hourly.information):
        before = np.zeros_like(part)
        for hour in range(1, part.shape[1]):
            before[:, hour] = keep * before[:, hour - 1] + part[:, hour - 1]
        out.append(before)
    return out[0], out[1]


def _kin(hourly: Sums, hours: Flags) -> csr_array:
    """Correlations of skills beyond what all others explain, those clear of chance only."""
    skills = len(hourly.weight)
    whole = sliding_sum(hours[None].astype(np.float64), KIN_HOURS)[0] == KIN_HOURS
    windows = np.flatnonzero(whole & (np.arange(len(hours)) % KIN_HOURS == KIN_HOURS - 1))
    residual = sliding_sum(hourly.residual, KIN_HOURS)[:, windows]
    information = np.maximum(sliding_sum(hourly.information, KIN_HOURS)[:, windows], 0.0)
    if skills < 3 or residual.shape[1] < 2:
        return csr_array((skills, skills))
    others = _ratio(residual.sum(axis=0) - residual, information.sum(axis=0) - information)
    common = others * information
    share = float((residual * common).sum()) / max(float((common**2).sum()), 1e-12)
    own = (residual - share * common) / np.sqrt(information + 0.25)
    own /= np.maximum(np.sqrt((own**2).mean(axis=1, keepdims=True)), 1e-12)
    own = np.clip(own, -CLIP_SD, CLIP_SD)
    size = np.maximum(np.sqrt((own**2).sum(axis=1)), 1e-12)
    correlation = (own @ own.T) / np.outer(size, size)
    chance = 2.0 / np.sqrt(residual.shape[1])
    kin = np.maximum(correlation - chance, 0.0)
    np.fill_diagonal(kin, 0.0)
    if skills > MAX_KIN + 1:
        least = np.partition(kin, -MAX_KIN, axis=1)[:, [-MAX_KIN]]
        kin[kin < least] = 0.0
    return csr_array(kin)
