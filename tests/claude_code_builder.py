"""Builds synthetic Claude Code transcripts for the tests: a session that is told what happened.

Every method appends one or more records and moves the session's clock by a second, so that a test
reads like the session it is about. Record shapes follow `docs/sources.md`; the texts are invented.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

START = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
LATER = datetime(2026, 6, 1, tzinfo=UTC)
"""A `now` long after every session of the tests."""

Record = dict[str, Any]


class Log:
    """One transcript under construction."""

    def __init__(self, session: str = "s1", *, start: datetime = START, **envelope: Any) -> None:
        self.session = session
        self.now = start
        self.records: list[Record] = []
        self.envelope: Record = {
            "cwd": "/somewhere/project",
            "version": "2.1.219",
            "isSidechain": False,
            **envelope,
        }

    def wait(self, seconds: float) -> Log:
        """Let time pass before the next record."""
        self.now += timedelta(seconds=seconds - 1)
        return self

    def add(self, kind: str, **fields: Any) -> Log:
        """Append a record of any type."""
        self.now += timedelta(seconds=1)
        number = len(self.records)
        self.records.append(
            {
                "parentUuid": None,
                **self.envelope,
                "sessionId": self.session,
                "type": kind,
                "uuid": f"{self.session}-{number}",
                "timestamp": self.now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                **fields,
            }
        )
        return self

    def say(self, content: Any, **fields: Any) -> Log:
        """A user record: a prompt, a command, a skill's body or the program's own words."""
        return self.add("user", message={"role": "user", "content": content}, **fields)

    def answer(self, *blocks: Record, skill: str | None = None, **fields: Any) -> Log:
        """An assistant record; `skill` is the one it names as active."""
        message = {"role": "assistant", "model": "model-x", "content": list(blocks)}
        if skill is not None:
            fields["attributionSkill"] = skill
        return self.add("assistant", message={**message, **fields.pop("message", {})}, **fields)

    def text(self, words: str = "Done.", **fields: Any) -> Log:
        """The assistant says something."""
        return self.answer({"type": "text", "text": words}, **fields)

    def call(self, event_id: str, tool: str = "Read", **fields: Any) -> Log:
        """The assistant calls a tool."""
        block = {"type": "tool_use", "id": event_id, "name": tool, "input": fields.pop("input", {})}
        return self.answer(block, **fields)

    def result(
        self, event_id: str, text: Any = "ok", *, error: bool | None = None, **fields: Any
    ) -> Log:
        """The result of a call; `detail` becomes the record's `toolUseResult`."""
        block: Record = {"type": "tool_result", "tool_use_id": event_id, "content": text}
        if error is not None:
            block["is_error"] = error
        detail = fields.pop("detail", None)
        return self.say([block], toolUseResult=detail, **fields)

    def run(self, event_id: str, tool: str = "Read", **fields: Any) -> Log:
        """A call and its good result."""
        return self.call(event_id, tool, **fields).result(event_id)

    def load(self, event_id: str, skill: str) -> Log:
        """The assistant loads a skill: call, result and body."""
        self.call(event_id, "Skill", input={"skill": skill})
        self.result(
            event_id,
            f"Launching skill: {skill}",
            detail={"success": True, "commandName": skill},
        )
        body = [{"type": "text", "text": "Base directory for this skill: /somewhere"}]
        return self.say(body, isMeta=True, sourceToolUseID=event_id)

    def type_command(self, name: str, *, message_first: bool = False) -> Log:
        """The user types a command; what kind it is, the next record tells."""
        tags = [
            f"<command-name>/{name}</command-name>",
            f"<command-message>{name}</command-message>",
        ]
        if message_first:
            tags.reverse()
        return self.say("\n".join([*tags, "<command-args>SECRET</command-args>"]))

    def body(self, text: str = "Do the thing.") -> Log:
        """The text that a typed skill expands to."""
        return self.say([{"type": "text", "text": text}], isMeta=True)

    def interrupt(self, *, for_tool: bool = False) -> Log:
        """The user presses Esc."""
        text = f"[Request interrupted by user{' for tool use' if for_tool else ''}]"
        return self.say([{"type": "text", "text": text}])

    def bytes(self, *, end: str = "\n") -> bytes:
        """The transcript as Claude Code writes it."""
        lines = (json.dumps(r, separators=(",", ":"), ensure_ascii=False) for r in self.records)
        return "".join(line + end for line in lines).encode()

    def write(self, path: Path) -> Path:
        """Write the transcript to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.bytes())
        return path


REJECTION = "The user doesn't want to proceed with this tool use. The tool use was rejected."
