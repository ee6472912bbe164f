"""The workflow phase of a call, by rule, for sources that record none.

The rules are data: `phases.toml` maps a tool, or the first words of a shell command, to one of
`events.PHASES`. A phase that comes from here is always marked as inferred by its source. No parsing
of any source's format here, and nothing of a command is kept: it goes in, a phase comes out.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LOOK_AT = 400
"""Characters of a command that are looked at; what matters stands at its start."""

_NEXT_COMMAND = re.compile(r"&&|\|\||[;|&\n]")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_MOST_WORDS = 3


@dataclass(frozen=True, slots=True)
class _Rules:
    tools: dict[str, str]
    commands: dict[str, str]
    wrappers: frozenset[str]
    neutral: frozenset[str]


def infer(tool: str, command: object = None) -> str | None:
    """The phase of one call.

    Args:
        tool: The tool's name, or `agent:<type>`.
        command: The shell command line, for a tool that runs one; anything but text is ignored.

    Returns:
        One of `events.PHASES`, or None where no rule applies.
    """
    rules = _rules()
    phase = rules.tools.get(tool)
    if phase is None and isinstance(command, str):
        return _of_command(command[:LOOK_AT], rules)
    return phase


@cache
def _rules() -> _Rules:
    text = Path(__file__).with_name("phases.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    return _Rules(
        tools=table["tools"],
        commands=table["commands"],
        wrappers=frozenset(table["wrappers"]),
        neutral=frozenset(table["neutral"]),
    )


def _of_command(line: str, rules: _Rules) -> str | None:
    for part in _NEXT_COMMAND.split(line):
        words = _words(part, rules)
        if not words or words[0] in rules.neutral:
            continue
        for count in range(min(_MOST_WORDS, len(words)), 0, -1):
            phase = rules.commands.get(" ".join(words[:count]))
            if phase is not None:
                return phase
        return None
    return None


def _words(part: str, rules: _Rules) -> list[str]:
    """The words of one command without assignments, wrappers and the program's folder."""
    words = part.split()
    while words:
        if _ASSIGNMENT.match(words[0]):
            del words[0]
        elif " ".join(words[:2]) in rules.wrappers:
            del words[:2]
        elif words[0] in rules.wrappers:
            del words[0]
            # An option or a number belongs to the wrapper: `timeout 60`, `nice -n 5`.
            while words and (words[0].startswith("-") or words[0].isdigit()):
                del words[0]
        else:
            break
    if words:
        program = words[0].replace("\\", "/").rsplit("/", 1)[-1]
        words[0] = program.removesuffix(".exe") or words[0]
    return words
