"""What one measurement is, and how a list of them is printed.

Measurements are taken by the `bench_*` modules, each with a `run(scale) -> list[Row]`.
"""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement beside its baseline, both from the same run on the same machine.

    Attributes:
        what: What was done, with its size.
        value: What was measured.
        unit: Its unit; seconds and milliseconds are better when small, rates when large.
        baseline: What it is compared with; empty where there is nothing to compare.
        baseline_value: The baseline's value, in the same unit.
        bar: What the project asks for, as text.
        met: Whether the bar is met; None where there is none.
    """

    what: str
    value: float
    unit: str
    baseline: str = ""
    baseline_value: float | None = None
    bar: str = ""
    met: bool | None = None

    @property
    def ratio(self) -> float | None:
        """Value over baseline."""
        return self.value / self.baseline_value if self.baseline_value else None


def markdown(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| what | measured | baseline | ratio | bar |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        baseline = (
            f"{row.baseline}: {_number(row.baseline_value)} {row.unit}" if row.baseline else ""
        )
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
        met = {None: "", True: " met", False: " **missed**"}[row.met]
        lines.append(
            f"| {row.what} | {_number(row.value)} {row.unit} | {baseline} | {ratio} "
            f"| {row.bar}{met} |"
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def peak_rss_mb() -> float:
    """The largest memory this process has held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
