"""Trends on simulated and real days: false alarms, power, change per cent, beside two other rules.

Run: `python -m tests.validate.validate_trends [--quick] [--data DIR]`. Prints a markdown table;
exits with 1 when a bar is missed. The columns of other rules are the predecessor's (least squares
on daily rates, days unweighted) and a quasi-binomial fit with weekdays and AR(1) inflation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, stdtr

from sb_serving.stats import trend
from sb_serving.stats.trend import Daily, Metric, scan

Floats = NDArray[np.float64]
SEED = 20_240
TABLES = ("invocations", "completed", "decided", "timed", "seconds", "log_seconds", "log_squares")


# --- other rules, on tables of completed and decided calls


def least_squares(k: Floats, n: Floats) -> Floats:
    """The predecessor: ordinary least squares on daily rates; days without calls left out."""
    has = n > 0
    rate = np.where(has, k / np.maximum(n, 1), 0.0)
    t = np.where(has, np.arange(n.shape[1])[None], 0.0)
    m = has.sum(axis=1)
    t = np.where(has, t - t.sum(axis=1, keepdims=True) / m[:, None], 0.0)
    centred = np.where(has, rate - rate.sum(axis=1, keepdims=True) / m[:, None], 0.0)
    sxx, sxy, syy = (t * t).sum(axis=1), (t * centred).sum(axis=1), (centred**2).sum(axis=1)
    slope = sxy / sxx
    error = np.sqrt(np.maximum(syy - slope * sxy, 1e-15) / (m - 2) / sxx)
    return np.asarray(2 * stdtr(m - 2, -np.abs(slope) / error))


def quasi_binomial(k: Floats, n: Floats) -> Floats:
    """Quasi-binomial fit, weekdays from 21 days on, AR(1) inflation, t on effective df."""
    days = n.shape[1]
    daily = Daily(tuple(str(s) for s in range(len(n))), 0, n, k, n, *(np.zeros_like(n),) * 4)
    cut = trend._cut(daily, days - 1, days, "completion_rate", 1.0)
    lines = trend._count_lines(cut, rate=True)
    x, weight = lines.x, 1 / lines.variance
    inverse = np.linalg.inv(
        x.transpose(0, 2, 1) @ (x * weight[:, :, None]) + np.diag(lines.penalty)
    )
    beta = np.einsum("spq,stq,st,st->sp", inverse, x, weight, lines.y)
    residual = np.sqrt(weight) * (lines.y - np.einsum("stp,sp->st", x, beta))
    df = (weight > 0).sum(axis=1) - np.einsum("spq,stp,stq,st->s", inverse, x, x, weight)
    square = (residual**2).sum(axis=1)
    rho = (residual[:, 1:] * residual[:, :-1]).sum(axis=1) / np.maximum(square, 1e-12)
    inflation = (1 + np.clip(rho, 0, 0.9)) / (1 - np.clip(rho, 0, 0.9))
    error = np.sqrt(inverse[:, 1, 1] * np.maximum(square / df, 1) * inflation)
    return np.asarray(2 * stdtr(np.maximum(df / inflation, 2), -np.abs(beta[:, 1]) / error))


# --- simulated days


@dataclass(frozen=True)
class Setting:
    """One kind of series.

    Attributes:
        name: Shown in the table.
        days: Window.
        n: Calls on a usual day.
        weekend: Weekend volume over usual volume.
        noise: Sd of the day's level on the link's scale.
        rho: Correlation of neighbouring days' noise.
        dip: Fall in log-odds at weekends.
        history: Days before the window.
        metric: What is tested.
    """

    name: str
    days: int
    n: int = 20
    weekend: float = 1.0
    noise: float = 0.0
    rho: float = 0.0
    dip: float = 0.0
    history: int = 0
    metric: Metric = "completion_rate"

    def simulate(self, rng: np.random.Generator, skills: int, change: float) -> Daily:
        """Series with `change` on the link's scale over the window; weekends start anywhere."""
        total = self.days + self.history
        time = np.zeros(total)
        time[self.history :] = np.linspace(-0.5, 0.5, self.days)
        weekend = (np.arange(total) + rng.integers(0, 7, (skills, 1))) % 7 >= 5
        noise = rng.normal(size=(skills, total))
        for t in range(1, total):
            noise[:, t] = self.rho * noise[:, t - 1] + np.sqrt(1 - self.rho**2) * noise[:, t]
        signal = change * time + self.noise * noise
        volume = self.n * np.where(weekend, self.weekend, 1.0)
        counts = {name: np.zeros((skills, total)) for name in TABLES}
        n = np.maximum(np.round(volume), 1).astype(int)
        if self.metric == "invocation_count":
            counts["invocations"] = rng.poisson(volume * np.exp(signal)).astype(float)
        elif self.metric == "avg_duration_seconds":
            z = rng.normal(size=(skills, total)) / np.sqrt(n)
            mean = 2.0 + signal + z
            counts["timed"] = n.astype(float)
            counts["seconds"] = n * np.exp(mean + 0.5)
            counts["log_seconds"] = n * mean
            scatter = rng.chisquare(np.maximum(n - 1, 1)) * (n > 1)
            counts["log_squares"] = n * mean**2 + scatter
        else:
            done = rng.binomial(n, expit(np.log(9.0) - self.dip * weekend + signal))
            counts["completed"], counts["decided"] = done.astype(float), n.astype(float)
        return Daily(tuple(f"s{s:04d}" for s in range(skills)), 0, **counts)


def p_values(daily: Daily, days: int, metric: Metric, *, together: int) -> Floats:
    """P-values of scans of `together` skills each; 1 where there is not enough data."""
    found: list[float] = []
    for start in range(0, len(daily.skills), together):
        part = slice(start, start + together)
        tables = {name: getattr(daily, name)[part] for name in TABLES}
        some = replace(daily, skills=daily.skills[part], **tables)
        end = daily.invocations.shape[1] - 1
        trends = scan(some, end=end, days=days, metric=metric)
        found += [1.0 if t.p_value is None else t.p_value for t in trends]
    return np.array(found)


VOLUME: Metric = "invocation_count"
DURATION: Metric = "avg_duration_seconds"

SETTINGS: tuple[tuple[Setting, float | None, float | None], ...] = (
    # setting, bar on false alarms, bar on power at a change of 1.2
    (Setting("7 days plain", 7), 0.08, None),
    (Setting("7 days, quiet weekends", 7, weekend=0.15), 0.08, None),
    (Setting("7 days, weekend dip, no history", 7, dip=1.0), None, None),
    (Setting("7 days, weekend dip, 28 before", 7, dip=1.0, history=28), 0.08, None),
    (Setting("30 days plain", 30), 0.08, 0.55),
    (Setting("30 days, quiet weekends", 30, weekend=0.15), 0.08, None),
    (Setting("30 days, noise .4, rho .6", 30, noise=0.4, rho=0.6), 0.10, None),
    (Setting("30 days, n = 200, noise .4, rho .6", 30, n=200, noise=0.4, rho=0.6), None, None),
    (Setting("90 days plain", 90), 0.08, 0.90),
    (Setting("90 days, quiet weekends", 90, weekend=0.15), 0.08, 0.90),
    (Setting("90 days, noise .4, rho .6", 90, noise=0.4, rho=0.6), 0.10, None),
    (Setting("volume, 30 days, quiet weekends", 30, weekend=0.15, metric=VOLUME), 0.08, None),
    (
        Setting("volume, 30 days, noise .4, rho .6", 30, noise=0.4, rho=0.6, metric=VOLUME),
        0.10,
        None,
    ),
    (Setting("duration, 30 days", 30, metric=DURATION), 0.08, None),
    (
        Setting("duration, 30 days, noise .3, rho .6", 30, noise=0.3, rho=0.6, metric=DURATION),
        0.10,
        None,
    ),
)


def judge(value: float, bar: float | None, size: int, quick: bool, *, least: bool) -> str:
    """Compare with a bar; a quick run is allowed two standard errors of its small size."""
    if bar is None:
        return ""
    slack = 2 * np.sqrt(bar * (1 - bar) / size) if quick else 0.0
    good = value >= bar - slack if least else value <= bar + slack
    return ("ok" if good else "MISSED") + f" ({'>=' if least else '<='} {bar:.2f})"


def simulated(quick: bool) -> list[dict[str, Any]]:
    size = 200 if quick else 1000
    rows = []
    for index, (setting, false_bar, power_bar) in enumerate(SETTINGS):
        for change, bar in ((0.0, false_bar), (1.2, power_bar)):
            rng = np.random.default_rng([SEED, index, int(change > 0)])
            daily = setting.simulate(rng, size, change)
            window = slice(setting.history, None)
            k, n = daily.completed[:, window], daily.decided[:, window]
            rate = setting.metric == "completion_rate"
            alone = float((p_values(daily, setting.days, setting.metric, together=1) < 0.05).mean())
            scanned = p_values(daily, setting.days, setting.metric, together=50) < 0.05
            rows.append(
                {
                    "check": f"{setting.name}: " + ("power at 1.2" if change else "false alarms"),
                    "size": size,
                    "ours": alone,
                    "ours, scan of 50": float(scanned.mean()),
                    "predecessor": share(least_squares, k, n) if rate else None,
                    "quasi-binomial": share(quasi_binomial, k, n) if rate else None,
                    "verdict": judge(alone, bar, size, quick, least=bool(change)),
                }
            )
    return rows


def share(rule: Callable[[Floats, Floats], Floats], k: Floats, n: Floats) -> float:
    return float((rule(k, n) < 0.05).mean())


def change_per_cent(quick: bool) -> dict[str, Any]:
    """Spread of the reported change of skills without a trend."""
    size = 200 if quick else 1000
    daily = Setting("", 30).simulate(np.random.default_rng([SEED, 100]), size, 0.0)
    ours = [t.change_percent or 0.0 for t in scan(daily, end=29, days=30)]
    ends = 100 * (daily.completed[:, -1] / daily.completed[:, 0] - 1)
    return {
        "check": "sd of change %, 30 days, no trend",
        "size": size,
        "ours": float(np.std(ours)),
        "predecessor": float(np.std(ends)),
        "verdict": judge_size(float(np.std(ours)), 6.0),
    }


def judge_size(value: float, bar: float) -> str:
    return ("ok" if value <= bar else "MISSED") + f" (<= {bar:g})"


def false_share(quick: bool) -> dict[str, Any]:
    """Scans of 200 skills, 20 of them falling: false trends among those called."""
    scans = 10 if quick else 50
    false = called = hit = least = least_called = 0
    for i in range(scans):
        rng = np.random.default_rng([SEED, 200, i])
        flat = Setting("", 30).simulate(rng, 180, 0.0)
        falling = Setting("", 30).simulate(rng, 20, -2.0)
        both = {
            name: np.concatenate([getattr(flat, name), getattr(falling, name)]) for name in TABLES
        }
        names = (*flat.skills, *(f"f{s}" for s in range(20)))
        trends = scan(Daily(names, 0, **both), end=29, days=30)
        flags = np.array([t.trend != "stable" for t in trends])
        false, called, hit = (
            false + flags[:180].sum(),
            called + flags.sum(),
            hit + flags[180:].sum(),
        )
        low = least_squares(both["completed"], both["decided"]) < 0.05
        least, least_called = least + low[:180].sum(), least_called + low.sum()
    ours = false / max(called, 1)
    return {
        "check": f"false among called, 200 skills, 20 fall (found {hit / scans / 20:.0%})",
        "size": scans,
        "ours": float(ours),
        "predecessor": float(least / max(least_called, 1)),
        "verdict": judge_size(float(ours), 0.08),
    }


def flights(folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Real routes whose days are shuffled in blocks of three: no trend is left."""
    import duckdb

    file = folder / "statistics" / "flights_jan_jun.parquet"
    if not file.exists():
        return []
    rows = duckdb.execute(
        """
        select skill_name, date_diff('day', date '2013-01-01', cast(invoked_at as date)) as day,
               count(*) filter (completed) as completed, count(*) as decided
        from read_parquet($file) group by all
        """,
        {"file": str(file)},
    ).fetchnumpy()
    names, row = np.unique(rows["skill_name"], return_inverse=True)
    k, n = np.zeros((2, len(names), 180))
    held = rows["day"] < 180
    k[row[held], rows["day"][held]] = rows["completed"][held]
    n[row[held], rows["day"][held]] = rows["decided"][held]
    busy = np.argsort(-n.sum(axis=1))[:60]
    k, n = k[busy], n[busy]
    found: list[list[float]] = []
    for repeat in range(1 if quick else 4):
        rng = np.random.default_rng([SEED, 300, repeat])
        for start in range(0, 180, 30):
            order = np.array([rng.permutation(10) for _ in busy])
            days = start + (order[:, :, None] * 3 + np.arange(3)).reshape(len(busy), 30)
            ks, ns = np.take_along_axis(k, days, 1), np.take_along_axis(n, days, 1)
            daily = Daily(tuple(names[busy]), 0, ns, ks, ns, *(np.zeros_like(ns),) * 4)
            alone = p_values(daily, 30, "completion_rate", together=1)
            scanned = p_values(daily, 30, "completion_rate", together=60)
            found.append(
                [
                    float((p < 0.05).mean())
                    for p in (alone, scanned, least_squares(ks, ns), quasi_binomial(ks, ns))
                ]
            )
    alone, scanned, ols, quasi = np.mean(found, axis=0).tolist()
    size = len(found) * len(busy)
    return [
        {
            "check": "flights, 60 routes x 30 days, 3-day blocks shuffled: false alarms",
            "size": size,
            "ours": alone,
            "ours, scan of 50": scanned,
            "predecessor": ols,
            "quasi-binomial": quasi,
            "verdict": judge(alone, 0.08, size, quick, least=False),
        }
    ]


def run(quick: bool, data: Path = Path("data")) -> list[dict[str, Any]]:
    """Every row of the table.

    Args:
        quick: A fifth of the simulations; bars get two standard errors of slack.
        data: Folder with `statistics/flights_jan_jun.parquet`; left out where it is missing.
    """
    return [*simulated(quick), change_per_cent(quick), false_share(quick), *flights(data, quick)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("data"))
    options = parser.parse_args()
    rows = run(options.quick, options.data)
    columns = [
        "check",
        "size",
        "ours",
        "ours, scan of 50",
        "predecessor",
        "quasi-binomial",
        "verdict",
    ]
    print(f"Seed {SEED}.\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        cells = [row.get(column) for column in columns]
        text = ["" if c is None else f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells]
        print(f"| {' | '.join(text)} |")
    return int(any("MISSED" in row["verdict"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
