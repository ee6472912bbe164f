"""MCP: the answers as tools for an assistant, over stdio or mounted under HTTP.

A tool is one method of `Tools` and its name in `TOOLS`: the signature is its schema, the docstring
its description, the return type its output schema, the body one call into `answers`. Whatever
holds for every tool (no unknown arguments, no silent conversions, errors that name a next step,
bounded results) is in `_CheckedTool`. Numbers are made in `answers/`, types in `models.py`.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field, ValidationError

from sb_serving import __version__, times
from sb_serving.answers import (
    anomalies,
    arguments,
    baselines,
    clusters,
    dependencies,
    realtime,
    recommendations,
    success,
    trend,
)
from sb_serving.errors import SbError
from sb_serving.kept import Kept
from sb_serving.live import Live
from sb_serving.models import (
    Anomalies,
    AnomalyExplanation,
    CollaborativeRecommendations,
    CommunityBaselines,
    RealTimeMetrics,
    SkillClusters,
    SkillDependencies,
    SkillTrend,
    SuccessPrediction,
)
from sb_serving.snapshot import SnapshotHolder

if TYPE_CHECKING:
    from sb_serving.settings import Settings

MAX_RESULT_BYTES = 32 * 1024
"""Of a result's JSON: clients cut off or refuse results of more than some 25,000 tokens."""
MAX_BODY_BYTES = 64 * 1024
MAX_AGE_SECONDS = 1.0
"""How old a frame may be before a process of its own (`sb mcp`) makes a new one."""

INSTRUCTIONS = (
    "Numbers about the skills and tools that coding assistants ran here. Rates are fractions"
    " between 0 and 1 and come with their n; times are UTC. Every answer says how far its data"
    " reaches (last event, snapshot) and why it may be stale. Lists cut short say so in truncated"
    " and omitted: ask again with a narrower question."
)
READ_ONLY = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)

SkillName = Annotated[str, Field(description="As the assistant writes it.")]
Limit = Annotated[int, Field(ge=1, le=arguments.MAX_LIMIT, description="Most rows to list.")]
Kind = Annotated[
    arguments.Kind | None,
    Field(description="Only skills of this kind; null leaves out built-in tools, 'all' nothing."),
]


class Tools:
    """The tools: one method each.

    Args:
        live: Gives the live side, with a frame that is fresh enough.
    """

    TOOLS = (
        "get_real_time_metrics",
        "get_skill_trend",
        "detect_anomalies",
        "explain_anomaly",
        "get_community_baselines",
        "get_skill_dependencies",
        "get_skill_clusters",
        "predict_success",
        "get_collaborative_recommendations",
    )

    def __init__(self, live: Callable[[], Live]) -> None:
        self._live = live
        self._predictor = success.Memory()
        self._recommender = Kept(recommendations.load_recommender)

    def get_real_time_metrics(
        self,
        limit: Limit = 10,
        time_window_hours: Annotated[
            float, Field(gt=0, le=arguments.MAX_HOURS, description="Hours back from now.")
        ] = 1.0,
        kind: Kind = None,
    ) -> RealTimeMetrics:
        """The skills used most in the last hours: counts by outcome, completion rate, durations.

        Answers "what is running", "what fails at the moment", "is anything slow".
        """
        return realtime.real_time_metrics(self._live(), limit, time_window_hours, kind)

    def get_skill_trend(
        self,
        skill_name: SkillName,
        days: Annotated[
            trend.Days,
            Field(description="Length of the window: 7, 14, 30 or 90 days, no other."),
        ] = 7,
        metric: Annotated[trend.Metric, Field(description="What to look at.")] = "completion_rate",
    ) -> SkillTrend:
        """Whether a skill gets better or worse: fitted line with interval, p and q.

        Answers "did it help", "is it failing more often", "is it getting slower". stable means that
        chance explains the change, insufficient_data that nobody can tell.
        """
        return trend.skill_trend(self._live(), skill_name, days, metric)

    def detect_anomalies(
        self,
        threshold: Annotated[
            float,
            Field(
                ge=0,
                le=anomalies.MAX_THRESHOLD,
                description="Least size of deviation_score to list.",
            ),
        ] = 2.0,
        time_window_hours: Annotated[
            float,
            Field(gt=0, le=arguments.MAX_HOURS, description="Hours back, for those that are over."),
        ] = 24.0,
        limit: Limit = 20,
    ) -> Anomalies:
        """What is out of the ordinary: completion, volume, duration, since when, with p and q.

        Answers "what broke", "what is slow today", "what fell silent". Found at a false discovery
        rate over all skills and hours; threshold only hides weaker ones.
        """
        return anomalies.detect_anomalies(self._live(), threshold, time_window_hours, limit)

    def explain_anomaly(
        self,
        skill_name: SkillName,
        anomaly_id: Annotated[
            int | None,
            Field(
                ge=1,
                le=anomalies.MAX_ID,
                description="From detect_anomalies; null for the strongest open one.",
            ),
        ] = None,
    ) -> AnomalyExplanation:
        """Since when an anomaly goes on, and which errors, versions, models or projects moved too.

        Answers "what changed when it started". A cause is the value that best sorts good runs from
        bad ones; it was there, which is no proof.
        """
        return anomalies.explain_anomaly(self._live(), skill_name, anomaly_id)

    def get_community_baselines(
        self,
        limit: Limit = 20,
        kind: Kind = None,
    ) -> CommunityBaselines:
        """How good skills usually are among all users: shrunk completion rate, duration, phase.

        Answers "which skills work", "where does mine stand". Skills that too few users share are
        hidden.
        """
        return baselines.community_baselines(self._live(), limit, kind)

    def get_skill_dependencies(
        self,
        skill_name: SkillName,
        limit: Limit = 10,
        min_lift: Annotated[
            float, Field(ge=0, le=dependencies.MAX_LIFT, description="Least lift to list.")
        ] = 1.5,
        kind: Kind = None,
    ) -> SkillDependencies:
        """What is used together with a skill, and what follows it: lift, shares of sessions, order.

        Answers "what usually comes next", "what belongs together". Only pairs with significant true
        are more than session lengths and chance explain.
        """
        return dependencies.skill_dependencies(self._live(), skill_name, limit, min_lift, kind)

    def get_skill_clusters(
        self,
        limit: Limit = 20,
        members: Annotated[
            int, Field(ge=1, le=arguments.MAX_LIMIT, description="Most members to list of each.")
        ] = 10,
        skill_name: Annotated[
            str | None, Field(description="Only the group of this skill; null for all.")
        ] = None,
    ) -> SkillClusters:
        """Groups of skills that are used together, how stable they are, and whether there are any.

        Answers "which skills form a workflow", "what is like this one".
        """
        return clusters.skill_clusters(self._live(), limit, members, skill_name)

    def predict_success(
        self,
        skill_name: Annotated[str, Field(min_length=1, description="Skill that is about to run.")],
        workflow_phase: Annotated[
            str | None, Field(description="Phase of the work; null where unknown.")
        ] = None,
        session_id: Annotated[
            str | None, Field(description="Session that it will run in; null for a new one.")
        ] = None,
        user_id: Annotated[
            str | None, Field(description="User name or its hash; null where unknown.")
        ] = None,
        agent: Annotated[
            str | None, Field(description="Assistant, as recorded; null where unknown.")
        ] = None,
        agent_version: Annotated[str | None, Field(description="Its version.")] = None,
        model: Annotated[str | None, Field(description="Language model, as recorded.")] = None,
    ) -> SuccessPrediction:
        """How likely a run of a skill is to complete if it starts now, with the reasons.

        Answers "will this work", "what speaks against it". What is not given counts as unknown.
        """
        live = self._live()
        question = success.asked(
            skill_name,
            times.now(),
            session_id=session_id,
            user_id=live.user(user_id or ""),
            workflow_phase=workflow_phase,
            agent=agent,
            agent_version=agent_version,
            model=model,
        )
        return success.success_prediction(live, self._predictor, question)

    def get_collaborative_recommendations(
        self,
        user_id: Annotated[str, Field(min_length=1, description="User name or its hash.")],
        limit: Limit = 5,
    ) -> CollaborativeRecommendations:
        """Skills that would suit a user and that the user has not used, each with its reason.

        Answers "what else should I try". An unknown user gets what suits most people.
        """
        live = self._live()
        return recommendations.collaborative_recommendations(
            live, self._recommender, live.user(user_id), limit, shown_as=user_id
        )


def build_server(
    live: Callable[[], Live],
    observe: Callable[[str, float], None] = lambda tool, seconds: None,
) -> MCPServer[Any]:
    """Build the MCP server; it opens nothing.

    Args:
        live: Gives the live side, with a frame that is fresh enough; called in a worker thread.
        observe: Told the tool and the seconds of each call, on the event loop.
    """
    tools = Tools(live)
    return MCPServer(
        "session-buddy-analytics",
        title="Session-Buddy Analytics",
        version=__version__,
        instructions=INSTRUCTIONS,
        tools=[_CheckedTool.wrap(getattr(tools, name), observe) for name in Tools.TOOLS],
        log_level="WARNING",
    )


def run_stdio(settings: Settings) -> None:
    """Serve MCP over stdin and stdout until stdin ends.

    Nothing but protocol is written to stdout. Any number of such processes may run beside each
    other and beside `sb serve`: all of them only read.
    """
    # Before the SDK does it: its handler writes several lines and pulls in rich tracebacks.
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    build_server(OnDemand(settings)).run("stdio")


class OnDemand:
    """The live side of a process in which nothing ticks: a call makes a frame when it needs one.

    The database is opened by the first call, so that an assistant that starts this server before
    anything was recorded gets the reason as an answer, and the numbers once there are some.

    Args:
        settings: Where the files are.
    """

    def __init__(self, settings: Settings) -> None:
        self._live = Live(settings, SnapshotHolder(settings.snapshots))
        self._lock = threading.Lock()
        self._made_at = -math.inf

    def __call__(self) -> Live:
        """The live side, its frame at most `MAX_AGE_SECONDS` old.

        Raises:
            SbError: The database cannot be read and never could.
        """
        with self._lock:
            if time.monotonic() - self._made_at > MAX_AGE_SECONDS:
                self._live.tick()
                self._made_at = time.monotonic()
            return self._live


class _CheckedTool(Tool):
    """A tool that refuses what the SDK lets pass.

    Out of the box the SDK drops unknown arguments, turns "3" into 3, answers with pydantic's own
    text and sends results of any size twice, the text form indented.
    """

    observe: Callable[[str, float], None] = Field(exclude=True)

    @classmethod
    def wrap(
        cls, function: Callable[..., BaseModel], observe: Callable[[str, float], None]
    ) -> _CheckedTool:
        """Make a tool from a method of `Tools`."""
        plain = Tool.from_function(
            function, description=inspect.getdoc(function), annotations=READ_ONLY
        )
        arguments = plain.fn_metadata.arg_model
        arguments.model_config |= {"extra": "forbid", "strict": True}
        arguments.model_rebuild(force=True)
        plain.parameters["additionalProperties"] = False
        fields = {name: getattr(plain, name) for name in Tool.model_fields}
        return cls(**fields, observe=observe)

    async def run(
        self, arguments: dict[str, Any], context: Any, convert_result: bool = False
    ) -> Any:
        """Check the arguments, run the tool, bound the result.

        Raises:
            ToolError: Arguments or values that are refused; the text says what to send instead.
        """
        try:
            self.fn_metadata.arg_model.model_validate(arguments)
        except ValidationError as error:
            raise ToolError(_advice(self, error)) from error
        start = time.perf_counter()
        try:
            result = await super().run(arguments, context)
        except UnexpectedToolError as error:
            if isinstance(error.__cause__, SbError):
                raise ToolError(str(error.__cause__)) from error
            raise
        finally:
            self.observe(self.name, time.perf_counter() - start)
        if not convert_result:
            return result
        data, text = bounded(result)
        return CallToolResult(
            content=[TextContent(type="text", text=text)], structured_content=data
        )


def bounded(answer: BaseModel) -> tuple[dict[str, Any], str]:
    """The answer as JSON of at most `MAX_RESULT_BYTES`, its longest list cut as needed.

    What was cut is said in the answer's own `truncated`, `omitted` and `message`; every answer
    with a list has these fields.

    Returns:
        The answer as plain data and as text.
    """
    text = answer.model_dump_json()
    data = json.loads(text)
    size = len(text.encode())
    if size <= MAX_RESULT_BYTES:
        return data, text
    name = max((n for n in data if isinstance(data[n], list)), key=lambda n: len(data[n]))
    rows, omitted, message = data[name], data["omitted"], data["message"]
    kept = len(rows)
    while size > MAX_RESULT_BYTES and kept:
        kept = min(kept - 1, kept * MAX_RESULT_BYTES // size)
        cut = len(rows) - kept
        data |= {
            name: rows[:kept],
            "truncated": True,
            "omitted": omitted + cut,
            "message": f"{message} The last {cut} of {len(rows)} rows were left out to keep this"
            " answer short; ask more narrowly to see them.",
        }
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    return data, text


def _advice(tool: Tool, error: ValidationError) -> str:
    """One line per wrong argument, then what the tool takes."""
    lines = []
    for fault in error.errors(include_url=False):
        name = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"{name}: {tool.name} has no such argument")
        else:
            lines.append(f"{name} = {ascii(fault['input'])[:80]}: {fault['msg']}")
    known = ", ".join(tool.parameters["properties"])
    return "; ".join(lines) + f". Call it again with valid values; its arguments are: {known}."
