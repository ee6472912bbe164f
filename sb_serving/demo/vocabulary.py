"""The words and habits that a demo is made of: tables of constants, no code that draws.

Names of skills and themes, what the kinds have in common, agents and their models, the working
week. How a plan picks from these tables is in `world`.
"""

from __future__ import annotations

from typing import NamedTuple

FAILING_SKILL = "lint-and-fix"
FAILING_AGENT = "claude-code"
FAILING_ERROR = "exit_127"
PAIRS = (
    ("writing-plans", "executing-plans"),
    ("code-review", "conventional-commit"),
    ("systematic-debugging", "test-driven-development"),
    ("mcp__github__get_issue", "mcp__github__create_pull_request"),
    ("command:release", "ci:deploy"),
)
TRENDING = {"superpowers:brainstorming": 1.0, "agent:Explore": -1.0}
"""Skills that get better (1) and worse (-1)."""

TOOLS = {  # name: phase, in the order of their fame
    "Bash": "execution",
    "Read": "setup",
    "Edit": "execution",
    "Grep": "setup",
    "Write": "execution",
    "Glob": "setup",
    "TodoWrite": "setup",
    "MultiEdit": "execution",
    "WebFetch": "setup",
    "WebSearch": "setup",
    "BashOutput": "verification",
    "NotebookEdit": "execution",
    "KillShell": "cleanup",
    "LS": "setup",
    "NotebookRead": "setup",
    "ExitPlanMode": "setup",
}
LEAST_TOOLS = 4
WAITING_TOOLS = ("Edit", "Write", "MultiEdit")
"""Tools that wait for the user's permission: a log shows only the whole gap."""

SHARED = (  # used by everybody alike
    FAILING_SKILL,
    *(name for pair in PAIRS for name in pair),
    *TRENDING,
    "command:review",
    "ci:test",
    "check:ruff",
    "superpowers:requesting-code-review",
    "agent:Plan",
    "mcp__context7__get_docs",
    "command:commit",
    "check:mypy",
    "ci:build",
    "git-worktrees",
    "agent:general-purpose",
    "mcp__memory__search_nodes",
    "command:compact",
    "skill-creator",
    "check:coverage",
    "mcp__slack__post_message",
    "ci:rollback",
)
LEAST_SHARED = 1 + 2 * len(PAIRS) + len(TRENDING)  # whatever something is planted in

PHASE_OF_NAME = TOOLS | {
    "command:release": "deployment",
    "ci:deploy": "deployment",
    "ci:rollback": "rollback",
    "conventional-commit": "cleanup",
    "writing-plans": "setup",
    FAILING_SKILL: "verification",
}


class Theme(NamedTuple):
    """What a cluster of skills is about; its name is also that of its plugin."""

    server: str  # MCP server
    nouns: tuple[str, ...]  # twelve; no noun in two themes, so that no name comes twice


THEMES = {
    name: Theme(server, tuple(nouns.split()))
    for name, server, nouns in (
        (
            "frontend",
            "playwright",
            "component layout form theme animation menu routing bundle screenshot icon table "
            "dialog",
        ),
        (
            "backend",
            "postgres",
            "endpoint query schema migration queue cache webhook login page rule worker contract",
        ),
        (
            "data",
            "warehouse",
            "dataset pipeline dashboard metric notebook partition forecast sample report lineage "
            "survey chart",
        ),
        (
            "infra",
            "kubernetes",
            "cluster container terraform secret rollout ingress backup volume node certificate "
            "budget alert",
        ),
        (
            "security",
            "semgrep",
            "dependency permission token policy threat audit sandbox header input licence key "
            "session",
        ),
        (
            "writing",
            "notion",
            "changelog tutorial glossary readme diagram translation faq reference guide note "
            "sitemap example",
        ),
        (
            "mobile",
            "simulator",
            "screen gesture notification build store crash link widget sync camera battery locale",
        ),
        (
            "research",
            "arxiv",
            "paper citation hypothesis experiment summary benchmark figure abstract proof ablation "
            "corpus protocol",
        ),
    )
}
LEAST_THEMES = 3
ACTS = ("design", "review", "repair", "check", "draft")
FORMS = (  # taken in turn, so that every cluster mixes kinds
    "{noun}-{act}",
    "{theme}:{noun}-{act}",
    "mcp__{server}__{act}_{noun}",
    "{noun}-{act}",
    "agent:{noun}-{act}",
    "{theme}:{noun}-{act}",
    "command:{noun}-{act}",
    "{noun}-{act}",
    "mcp__{server}__{act}_{noun}",
    "ci:{noun}-{act}",
    "{theme}:{noun}-{act}",
    "check:{noun}-{act}",
)
KIND_OF_PREFIX = {
    "agent": "subagent",
    "command": "command",
    "ci": "ci_stage",
    "check": "quality_check",
}


class Habits(NamedTuple):
    """What the skills of one kind have in common."""

    seconds: float  # typical median duration
    spread: float  # sigma of the duration's logarithm
    rate: float  # typical completed / (completed + failed)
    others: tuple[float, float, float, float]  # rejected, cancelled, interrupted, no_result
    errors: tuple[str, ...]  # at least three
    phase: str
    duration_source: str


HABITS = {
    "skill": Habits(
        seconds=45.0,
        spread=0.8,
        rate=0.88,
        others=(0.008, 0.004, 0.015, 0.012),
        errors=("tool_error", "exit_1", "unknown_skill", "timeout"),
        phase="execution",
        duration_source="span",
    ),
    "tool": Habits(
        seconds=0.4,
        spread=1.0,
        rate=0.95,
        others=(0.018, 0.010, 0.006, 0.004),
        errors=("exit_1", "not_found", "exit_2", "timeout", "exit_127"),
        phase="execution",
        duration_source="reported",
    ),
    "mcp_tool": Habits(
        seconds=1.5,
        spread=0.9,
        rate=0.91,
        others=(0.020, 0.008, 0.006, 0.006),
        errors=("connection_error", "invalid_arguments", "timeout", "rate_limited"),
        phase="execution",
        duration_source="reported",
    ),
    "subagent": Habits(
        seconds=70.0,
        spread=0.7,
        rate=0.93,
        others=(0.006, 0.008, 0.020, 0.010),
        errors=("max_turns", "tool_error", "timeout"),
        phase="setup",
        duration_source="progress",
    ),
    "command": Habits(
        seconds=8.0,
        spread=0.9,
        rate=0.94,
        others=(0.002, 0.004, 0.010, 0.004),
        errors=("invalid_arguments", "exit_1", "not_found"),
        phase="execution",
        duration_source="span",
    ),
    "ci_stage": Habits(
        seconds=150.0,
        spread=0.5,
        rate=0.86,
        others=(0.0, 0.030, 0.004, 0.006),
        errors=("exit_1", "timeout", "runner_lost"),
        phase="verification",
        duration_source="reported",
    ),
    "quality_check": Habits(
        seconds=12.0,
        spread=0.7,
        rate=0.84,
        others=(0.0, 0.010, 0.004, 0.004),
        errors=("exit_1", "findings", "exit_2"),
        phase="verification",
        duration_source="reported",
    ),
}


class Model(NamedTuple):
    """A model, the share of its agent's sessions that use it, and what it adds to the logit."""

    name: str
    share: float
    logit: float


class Agent(NamedTuple):
    """An assistant."""

    share: float  # of the users
    version: str  # first two parts; the third counts rollouts
    rollout_days: float  # from one rollout to the next
    models: tuple[Model, ...]


AGENTS = {
    FAILING_AGENT: Agent(
        0.78,
        "2.1",
        13.0,
        (
            Model("claude-sonnet-4-5", 0.55, 0.0),
            Model("claude-opus-4-5", 0.30, 0.5),
            Model("claude-haiku-4-5", 0.15, -0.8),
        ),
    ),
    "codex": Agent(
        0.14, "0.48", 17.0, (Model("gpt-5-codex", 0.70, 0.2), Model("gpt-5-mini", 0.30, -0.6))
    ),
    "gemini-cli": Agent(
        0.08,
        "0.16",
        21.0,
        (Model("gemini-2.5-pro", 0.60, 0.1), Model("gemini-2.5-flash", 0.40, -0.5)),
    ),
}

HOURS = (4, 3, 2, 2, 2, 4, 10, 30, 70, 95, 100, 96, 70, 85, 98, 96, 85, 62, 40, 28, 22, 18, 12, 7)
"""Relative volume by hour of day, UTC."""
WEEKDAYS = (0.95, 1.05, 1.08, 1.02, 0.85, 0.22, 0.18)
"""Relative volume by day of week, Monday first."""
