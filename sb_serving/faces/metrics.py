"""Prometheus text over a `Frame`: names, labels, and one rendering per frame.

Whole-history counts are counters (they come from `Frame.totals` and only rise); window values are
gauges. Labels are skills, kinds, phases and outcomes, never users or sessions, and skills beyond
the `MAX_SKILLS` busiest are folded into `other`. `docs/metrics.md` lists every metric; a test
keeps the two equal. The listener is opened in `app.py`, the numbers are made in `live.py`.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from sb_serving import times
from sb_serving.events import DURATION_BUCKETS

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

    from sb_serving.frame import Frame, SkillWindow

MAX_SKILLS = 200
"""Skills with a label value of their own; Prometheus keeps every series in memory."""
OTHER = "other"
ANOMALY_TYPES = ("drop", "spike", "pattern_shift")
PREFIX = "session_buddy_"

TOOL_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5)
"""Upper bounds in seconds for the duration of an MCP tool's call."""

_Histogram = tuple[int, float, tuple[int, ...]]


@dataclass(slots=True)
class ToolCalls:
    """How long the calls of one MCP tool took: per bucket, not cumulative, and in total."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(TOOL_BUCKETS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one call."""
        self.buckets[bisect_left(TOOL_BUCKETS, seconds)] += 1
        self.seconds += seconds


class FrameCollector(Collector):
    """Turns one frame into metric families.

    Args:
        frame: The picture to export.
        feed: Name -> value of the feed's own counters; names without prefix, those that end in
            `_total` are counters.
        tools: MCP tool -> its calls.
        now: The time, for the age of the frame.
    """

    def __init__(
        self,
        frame: Frame,
        feed: Mapping[str, float],
        tools: Mapping[str, ToolCalls],
        now: datetime,
    ) -> None:
        self._frame = frame
        self._feed = feed
        self._tools = tools
        self._now = now
        volume: dict[str, int] = defaultdict(int)
        for (skill, *_), total in frame.totals.items():
            volume[skill] += total.n
        ranked = sorted(volume, key=lambda skill: (-volume[skill], skill))
        self._shown = frozenset(ranked[:MAX_SKILLS])
        self._folded = len(ranked) - len(self._shown)

    def collect(self) -> Iterator[Metric]:
        """Yield every family of this frame."""
        yield self._invocations()
        yield self._durations()
        yield self._completion_ratio()
        yield self._window_invocations()
        yield self._anomalies()
        yield from self._single_gauges()
        yield from self._feed_metrics()
        yield self._tool_durations()

    def _label(self, skill: str) -> str:
        return skill if skill in self._shown else OTHER

    def _invocations(self) -> Metric:
        family = CounterMetricFamily(
            PREFIX + "skill_invocations",
            "Invocations since the beginning of the records.",
            labels=("skill_name", "kind", "workflow_phase", "outcome"),
        )
        counts: dict[tuple[str, ...], int] = defaultdict(int)
        for (skill, kind, phase, outcome), total in self._frame.totals.items():
            counts[self._label(skill), kind, phase, outcome] += total.n
        for labels, n in sorted(counts.items()):
            family.add_metric(labels, n)
        return family

    def _durations(self) -> Metric:
        family = HistogramMetricFamily(
            PREFIX + "skill_duration_seconds",
            "Duration of the invocations whose duration is known, since the beginning.",
            labels=("skill_name",),
        )
        sums: dict[str, _Histogram] = {}
        for (skill, *_), total in self._frame.totals.items():
            if total.duration_n:
                name = self._label(skill)
                n, seconds, buckets = sums.get(name, (0, 0.0, (0,) * len(DURATION_BUCKETS)))
                merged = tuple(a + b for a, b in zip(buckets, total.buckets, strict=True))
                sums[name] = (n + total.duration_n, seconds + total.duration_sum, merged)
        for name, (n, seconds, buckets) in sorted(sums.items()):
            bounds = [(str(le), float(c)) for le, c in zip(DURATION_BUCKETS, buckets, strict=True)]
            family.add_metric((name,), [*bounds, ("+Inf", float(n))], seconds)
        return family

    def _completion_ratio(self) -> Metric:
        family = GaugeMetricFamily(
            PREFIX + "skill_completion_ratio",
            "Completed by completed plus failed in the last 24 hours; absent where both are 0.",
            labels=("skill_name",),
        )
        decided: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for window in self._frame.day:
            counts = decided[self._label(window.skill_name)]
            counts[0] += window.completed
            counts[1] += window.completed + window.failed
        for name, (completed, n) in sorted(decided.items()):
            if n:
                family.add_metric((name,), completed / n)
        return family

    def _window_invocations(self) -> Metric:
        family = GaugeMetricFamily(
            PREFIX + "skill_window_invocations",
            "Invocations in the last hour and in the last 24 hours.",
            labels=("skill_name", "window"),
        )
        for name, windows in (("1h", self._frame.hour), ("24h", self._frame.day)):
            for skill, n in sorted(self._counts(windows).items()):
                family.add_metric((skill, name), n)
        return family

    def _counts(self, windows: tuple[SkillWindow, ...]) -> dict[str, int]:
        counts: dict[str, int] = defaultdict(int)
        for window in windows:
            counts[self._label(window.skill_name)] += window.n
        return counts

    def _anomalies(self) -> Metric:
        family = GaugeMetricFamily(
            PREFIX + "anomalies",
            "Open anomalies of the snapshot.",
            labels=("anomaly_type",),
        )
        counts = dict.fromkeys(ANOMALY_TYPES, 0)
        for anomaly in self._frame.anomalies:
            counts[anomaly.anomaly_type] = counts.get(anomaly.anomaly_type, 0) + 1
        for anomaly_type, n in counts.items():
            family.add_metric((anomaly_type,), n)
        return family

    def _single_gauges(self) -> Iterator[Metric]:
        frame = self._frame
        lag = (self._now - times.from_text(frame.at)).total_seconds()
        values: tuple[tuple[str, str, float | None], ...] = (
            ("active_sessions", "Sessions with an event in the last 15 minutes.",
             frame.active_sessions),
            ("last_event_id", "Id of the newest recorded event.", frame.last_event_id),
            ("last_event_timestamp_seconds", "Start of the newest recorded event, unix time.",
             _unix(frame.last_event_at)),
            ("watermark_id", "Newest event that the snapshot contains.", frame.watermark_id),
            ("snapshot_number", "Number of the snapshot served.", frame.snapshot_number),
            ("snapshot_timestamp_seconds", "When that snapshot was published, unix time.",
             _unix(frame.snapshot_published_at)),
            ("tail_lag_seconds", "Age of the last successful reading of the event store.",
             max(lag, 0.0)),
            ("stale", "1 while what is served is known to be out of date.",
             float(frame.stale_reason is not None)),
            ("folded_skills", f"Skills counted as {OTHER}: not among the {MAX_SKILLS} busiest.",
             self._folded),
        )  # fmt: skip
        for name, text, value in values:
            family = GaugeMetricFamily(PREFIX + name, text)
            if value is not None:
                family.add_metric((), value)
            yield family

    def _feed_metrics(self) -> Iterator[Metric]:
        for name, text in FEED_METRICS.items():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = kind(PREFIX + name.removesuffix("_total"), text)
            if name in self._feed:
                family.add_metric((), self._feed[name])
            yield family

    def _tool_durations(self) -> Metric:
        family = HistogramMetricFamily(
            PREFIX + "query_duration_seconds",
            "Duration of the calls of MCP tools over HTTP.",
            labels=("tool",),
        )
        for tool, calls in sorted(self._tools.items(), key=itemgetter(0)):
            bounds = [*map(str, TOOL_BUCKETS), "+Inf"]
            counts = map(float, accumulate(calls.buckets))
            family.add_metric((tool,), list(zip(bounds, counts, strict=True)), calls.seconds)
        return family


FEED_METRICS = {
    "feed_clients": "Clients connected to the feed.",
    "feed_connections_total": "Connections that the feed accepted.",
    "feed_ticks_total": "Frames that the feed has sent out.",
    "feed_skipped_total": "Updates not sent because the client had not read earlier ones.",
    "feed_aborted_total": "Clients cut off because they did not read for too long.",
    "feed_fanout_seconds": "Time that the last frame took to reach every client's socket.",
}


class MetricsText:
    """The exposition of the newest frame, rendered at its first scrape and kept until the next.

    Rendering holds the interpreter for some 20 ms at 200 skills, so it happens once per frame that
    somebody asks for, in the thread of the request, never on the event loop.

    Args:
        frame: Gives the newest frame.
        feed: Gives the feed's own counters.
        now: The clock.
    """

    def __init__(
        self,
        frame: Callable[[], Frame],
        feed: Callable[[], Mapping[str, float]] = dict,
        now: Callable[[], datetime] = times.now,
    ) -> None:
        self._frame = frame
        self._feed = feed
        self._now = now
        self._lock = threading.Lock()
        self._tools: dict[str, ToolCalls] = {}
        self._rendered: tuple[Frame, bytes] | None = None

    def observe_tool(self, tool: str, seconds: float) -> None:
        """Count one call of an MCP tool; called on the event loop only, so it takes no lock."""
        self._tools.setdefault(tool, ToolCalls()).add(seconds)

    def render(self) -> bytes:
        """The text in exposition format 0.0.4."""
        frame = self._frame()
        with self._lock:
            if self._rendered is None or self._rendered[0] is not frame:
                registry = CollectorRegistry()
                registry.register(FrameCollector(frame, self._feed(), self._tools, self._now()))
                self._rendered = (frame, generate_latest(registry))
            return self._rendered[1]


def metrics_app(text: MetricsText) -> Starlette:
    """An ASGI application with the one path `/metrics`."""
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    def metrics(_: Request) -> Response:
        return Response(text.render(), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    return Starlette(routes=[Route("/metrics", metrics)])


def _unix(text: str | None) -> float | None:
    return None if text is None else times.from_text(text).timestamp()
