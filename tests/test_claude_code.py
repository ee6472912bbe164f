"""What the records of a Claude Code transcript mean: calls, outcomes, durations, episodes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb_serving.events import KINDS, OUTCOMES, PHASES, Invocation
from sb_serving.sources import claude_code, phases
from sb_serving.sources.claude_code import Transcript
from tests.claude_code_builder import LATER, REJECTION, START, Log


def read(data: bytes | Log, *, now: datetime = LATER, **given_to: Any) -> list[Invocation]:
    """All invocations of a transcript."""
    return parse(data, now=now, **given_to)[0]


def parse(
    data: bytes | Log, *, now: datetime = LATER, **given_to: Any
) -> tuple[list[Invocation], Transcript]:
    """All invocations of a transcript, and the parser with its counts."""
    transcript = Transcript(**given_to)
    found = []
    for line in (data if isinstance(data, bytes) else data.bytes()).splitlines(keepends=True):
        found += transcript.feed(line)
    return found + transcript.finish(now), transcript


def one(data: bytes | Log, **given_to: Any) -> Invocation:
    """The only invocation of a transcript."""
    (invocation,) = read(data, **given_to)
    return invocation


def skills(data: Log, *, now: datetime = LATER) -> dict[str | None, Invocation]:
    """The episodes of a transcript by their id."""
    return {i.event_id: i for i in read(data, now=now) if i.kind == "skill"}


# Calls


def test_listed_skills_are_known_though_they_never_ran() -> None:
    transcript = claude_code.Transcript()
    listing = {
        "parentUuid": None,
        "attachment": {"type": "skill_listing", "content": "...", "names": ["a", "b:c", 5, ""]},
        "type": "attachment",
        "timestamp": "2026-03-25T00:33:23.371Z",
    }
    assert transcript.feed(json.dumps(listing).encode() + b"\n") == []
    assert transcript.listed == {"a", "b:c"}


def test_a_call_carries_what_is_known_about_it() -> None:
    log = Log().call("t1", "Edit").wait(2.5).result("t1")
    assert one(log, user_id="a" * 32, project=lambda folder: f"hash of {folder}") == Invocation(
        skill_name="Edit",
        invoked_at="2026-05-04T12:00:01.000000+00:00",
        session_id="s1",
        outcome="completed",
        kind="tool",
        source="claude_code",
        event_id="t1",
        duration_seconds=2.5,
        duration_source="gap_upper_bound",
        workflow_phase="execution",
        phase_inferred=True,
        user_id="a" * 32,
        project_id="hash of /somewhere/project",
        agent="claude-code",
        agent_version="2.1.219",
        model="model-x",
    )


@pytest.mark.parametrize(
    ("tool", "arguments", "kind", "name"),
    [
        ("Bash", {"command": "ls"}, "tool", "Bash"),
        ("mcp__my_server__do_it", {}, "mcp_tool", "mcp__my_server__do_it"),
        ("Task", {"subagent_type": "Explore"}, "subagent", "agent:Explore"),
        ("Agent", {"subagent_type": "my-agent"}, "subagent", "agent:my-agent"),
        ("Task", {}, "subagent", "agent:general-purpose"),
        ("Agent", {"subagent_type": 7}, "subagent", "agent:general-purpose"),
        ("SlashCommand", {"command": "/x"}, "tool", "SlashCommand"),
    ],
)
def test_kind_and_name_follow_from_the_tool(
    tool: str, arguments: dict[str, Any], kind: str, name: str
) -> None:
    found = one(Log().run("t1", tool, input=arguments))
    assert (found.kind, found.skill_name, found.trigger) == (kind, name, None)


@pytest.mark.parametrize(
    ("skill", "name"),
    [
        ("plugin:skill", "plugin:skill"),
        ("/review", "review"),
        ("Case-Kept", "Case-Kept"),
        ("commit -m SECRET", "commit"),
        ("", "unknown"),
        (None, "unknown"),
        ("  ", "unknown"),
    ],
)
def test_a_skill_is_named_as_the_assistant_writes_it(skill: object, name: str) -> None:
    log = Log().call("t1", "Skill", input={"skill": skill}).result("t1").text()
    found = one(log)
    assert (found.kind, found.skill_name, found.trigger) == ("skill", name, "model")


@pytest.mark.parametrize(
    ("text", "error", "detail", "outcome", "error_type"),
    [
        ("fine", None, {}, "completed", None),
        ("fine", False, {}, "completed", None),
        ("Exit code 1 is what the manual says", None, {}, "completed", None),
        ("Files differ", None, {"returnCodeInterpretation": "Files differ"}, "completed", None),
        (REJECTION, True, "User rejected tool use", "rejected", None),
        (REJECTION, True, f"Error: {REJECTION}", "rejected", None),
        ("no", None, "User rejected tool use", "rejected", None),
        ("The user doesn't want to take this action right now.", True, None, "rejected", None),
        (
            "<tool_use_error>Sibling tool call errored</tool_use_error>",
            True,
            None,
            "cancelled",
            None,
        ),
        ("Exit code 2\nPermission to read was denied", True, None, "failed", "exit_2"),
        ("Error: Exit code 137\n[Request interrupted by user]", True, None, "failed", "exit_137"),
        (
            "<tool_use_error>String to replace not found in file.\nString: x</tool_use_error>",
            True,
            None,
            "failed",
            "string_not_found",
        ),
        ("<tool_use_error>File has not been read yet.", True, None, "failed", "file_not_read"),
        ("<tool_use_error>Found 3 matches of the string", True, None, "failed", "multiple_matches"),
        ("File has been modified since read, either", True, None, "failed", "file_modified"),
        ("<tool_use_error>InputValidationError: Edit", True, None, "failed", "invalid_input"),
        ("Permission to use Bash with it has been denied.", True, None, "rejected", "permission"),
        ("Claude requested permissions to use Bash, but", True, None, "rejected", "permission"),
        ("PreToolUse:Bash hook error: [./check]: no", True, None, "rejected", "hook"),
        ("[Request interrupted by user for tool use]", True, None, "interrupted", None),
        ("", None, {"interrupted": True}, "interrupted", None),
        ("half of it", True, {"interrupted": True}, "interrupted", None),
        ("EACCES: permission denied, open 'x'", True, None, "failed", "error"),
        ("File does not exist.", True, None, "failed", "not_found"),
        ("MCP error -32000: closed", True, None, "failed", "mcp_error"),
        ("something else", True, None, "failed", "error"),
        ([{"type": "text", "text": "Exit code 3"}], True, None, "failed", "exit_3"),
        ([{"type": "image"}], True, None, "failed", "error"),
        (None, True, "Error: Exit code 4", "failed", "exit_4"),
        (None, True, None, "failed", "error"),
    ],
)
def test_outcome_is_decided_by_the_first_rule_that_applies(
    text: object, error: bool | None, detail: object, outcome: str, error_type: str | None
) -> None:
    log = Log().call("t1", "Bash").result("t1", text, error=error, detail=detail)
    found = one(log)
    assert (found.outcome, found.error_type) == (outcome, error_type)


def test_the_denial_field_of_newer_versions_is_understood() -> None:
    log = Log().call("t1", "Bash").call("t2", "Bash")
    log.result("t1", "model-x is unavailable", error=True, toolDenialKind="automode-unavailable")
    log.result("t2", "any words", error=True, toolDenialKind="user-rejected")
    endings = {i.event_id: (i.outcome, i.error_type) for i in read(log)}
    assert endings == {"t1": ("rejected", "permission"), "t2": ("rejected", None)}


def test_an_output_that_quotes_an_error_is_no_error() -> None:
    """Reading a file about rejections must not look like a rejection."""
    log = Log().call("t1").result("t1", f"{REJECTION}\nExit code 9\nSibling tool call errored")
    assert one(log).outcome == "completed"


def test_a_call_without_result_stays_open_for_an_hour_and_then_has_none() -> None:
    log = Log().call("t1")
    early, transcript = parse(log, now=log.now + timedelta(minutes=59))
    assert (early, transcript.held_open, transcript.resume_offset) == ([], 1, 0)
    late, transcript = parse(log, now=log.now + timedelta(minutes=61))
    assert [(i.outcome, i.duration_seconds) for i in late] == [("no_result", None)]
    assert (transcript.held_open, transcript.resume_offset) == (0, len(log.bytes()))


def test_progress_shows_that_a_silent_call_is_alive() -> None:
    """A sub-agent at work for two hours leaves only its echo in the parent's file."""
    log = Log().call("t1", "Task").wait(7200)
    log.add("progress", data={"type": "agent_progress"}, parentToolUseID="t1")
    assert read(log, now=log.now + timedelta(minutes=5)) == []


def test_a_clock_far_ahead_does_not_keep_a_call_open() -> None:
    log = Log(start=LATER + timedelta(days=900)).call("t1")
    assert one(log).outcome == "no_result"


# Each call once


def test_the_live_echo_of_a_sub_agent_is_not_counted() -> None:
    log = Log().call("t1", "Task")
    echo = {"type": "tool_use", "id": "inner", "name": "Read", "input": {}}
    message = {"type": "assistant", "message": {"role": "assistant", "content": [echo]}}
    log.add("progress", data={"type": "agent_progress", "message": message}, parentToolUseID="t1")
    log.result("t1")
    assert [i.event_id for i in read(log)] == ["t1"]


def test_a_call_written_twice_in_one_file_is_one_invocation() -> None:
    log = Log().call("t1").call("t1").result("t1").result("t1").call("t1")
    assert one(log).outcome == "completed"


def test_calls_of_sub_agents_belong_to_their_parents_session() -> None:
    log = Log("parent", isSidechain=True, agentId="a1").say("Find it.").run("t1", "Grep")
    assert one(log).session_id == "parent"


def test_results_may_come_in_any_order_and_time_may_step_back() -> None:
    log = Log().call("t1").call("t2").result("t2").wait(-60).result("t1")
    endings = {i.event_id: (i.outcome, i.duration_seconds) for i in read(log)}
    assert endings == {"t1": ("completed", None), "t2": ("completed", 1.0)}


# Durations


@pytest.mark.parametrize(
    ("detail", "progress", "gap", "seconds", "source"),
    [
        ({"totalDurationMs": 1500, "durationMs": 9}, 7, 20, 1.5, "reported"),
        ({"durationMs": 250}, None, 20, 0.25, "reported"),
        ({"durationMs": True}, None, 20, 20, "gap_upper_bound"),
        ({"durationMs": -5}, None, 20, 20, "gap_upper_bound"),
        ({"durationMs": "5"}, 7, 20, 7, "progress"),
        ({}, 7, 20, 7, "progress"),
        ({}, None, 40_000, 3600, "gap_upper_bound"),
        ({"isAsync": True, "status": "async_launched"}, None, 20, None, None),
    ],
)
def test_duration_comes_from_the_best_source(
    detail: object, progress: float | None, gap: float, seconds: float, source: str
) -> None:
    log = Log().call("t1", "Bash")
    if progress is not None:
        for elapsed in (1, progress):
            data = {"type": "bash_progress", "elapsedTimeSeconds": elapsed}
            log.wait(1).add("progress", data=data, parentToolUseID="t1")
        gap -= 2
    found = one(log.wait(gap).result("t1", detail=detail))
    assert (found.duration_seconds, found.duration_source) == (seconds, source)


# Phases


@pytest.mark.parametrize(
    ("command", "phase"),
    [
        ("pytest -q", "verification"),
        ("cd src && uv run pytest", "verification"),
        ("FOO=1 .venv/bin/python -m pytest tests", "verification"),
        ("timeout 60 npm run lint", "verification"),
        ("git push origin main", "deployment"),
        ("git branch", "setup"),
        ("git branch -D old", "cleanup"),
        ("kubectl rollout status x", "deployment"),
        ("kubectl rollout undo x", "rollback"),
        ("sudo rm -rf build", "cleanup"),
        ("cat notes | grep rm", "setup"),
        ("some-program git push", None),
        ("", None),
        ("cd somewhere", None),
    ],
)
def test_the_first_words_of_a_command_tell_the_phase(command: str, phase: str | None) -> None:
    found = one(Log().run("t1", "Bash", input={"command": command}))
    assert (found.workflow_phase, found.phase_inferred) == (phase, phase is not None)


def test_every_rule_names_a_phase() -> None:
    rules = phases._rules()
    assert {*rules.tools.values(), *rules.commands.values()} == set(PHASES)
    assert all(len(words.split()) <= phases._MOST_WORDS for words in rules.commands)


# Typed commands


@pytest.mark.parametrize("message_first", [False, True])
def test_a_typed_skill_counts_whatever_the_order_of_its_tags(message_first: bool) -> None:
    log = Log().type_command("gsd:quick", message_first=message_first).body()
    log.run("t1", "Read").text()
    found = skills(log)["s1-0"]
    assert (found.skill_name, found.trigger, found.outcome) == ("gsd:quick", "user", "completed")
    assert (found.tool_calls, found.model) == (1, "model-x")


@pytest.mark.parametrize(
    "answer",
    [
        {"text": "<local-command-stdout>Bye!</local-command-stdout>"},
        {"text": "<local-command-stdout></local-command-stdout>"},
        {"text": "<local-command-stderr>no</local-command-stderr>"},
        {"text": "<local-command-caveat>Caveat: ...</local-command-caveat>", "isMeta": True},
    ],
)
def test_a_command_that_the_program_answers_is_a_builtin(answer: dict[str, Any]) -> None:
    log = Log().type_command("clear")
    log.add("file-history-snapshot").say(answer.pop("text"), **answer)
    found, transcript = parse(log)
    assert (found, transcript.builtins) == ([], 1)


def test_a_builtin_may_be_a_system_record() -> None:
    log = Log().add(
        "system", subtype="local_command", content="<command-name>/model</command-name>"
    )
    log.add("system", subtype="local_command", content="<local-command-stdout>x")
    log.type_command("cost").add(
        "system", subtype="local_command", content="<local-command-stdout>"
    )
    found, transcript = parse(log)
    assert (found, transcript.builtins) == ([], 2)


def test_the_first_versions_wrote_the_body_into_the_command() -> None:
    words = "<command-message>init is analyzing</command-message> <command-name>init</command-name>"
    log = Log(version="1.0.17").say(
        [{"type": "text", "text": f"{words} <command-contents>Look around.</command-contents>"}]
    )
    log.run("t1", "LS").text()
    assert skills(log)["s1-0"].skill_name == "init"


def test_a_typed_command_without_a_known_answer_is_a_skill() -> None:
    answered, last = Log().type_command("a").text(), Log().type_command("b")
    assert skills(answered)["s1-0"].outcome == "completed"
    assert skills(last)["s1-0"].outcome == "no_result"


def test_a_typed_command_is_held_until_its_kind_is_known() -> None:
    log = Log().say("hello").type_command("x")
    found, transcript = parse(log, now=log.now)
    assert (found, transcript.held_open) == ([], 1)
    assert transcript.resume_offset == len(Log().say("hello").bytes())


def test_a_prompt_that_talks_about_commands_is_no_command() -> None:
    assert read(Log().say("what does <command-name>/x</command-name> mean?").text()) == []


def test_a_copy_with_new_uuids_keeps_the_original_id() -> None:
    log = Log("copy").type_command("x").body()
    log.records[0]["forkedFrom"] = {"sessionId": "original", "messageUuid": "first"}
    assert list(skills(log)) == ["first"]


# Episodes


def test_an_episode_lasts_to_the_next_skill() -> None:
    log = Log().load("a", "plan").run("t1").run("t2").load("b", "commit").run("t3").text()
    found = skills(log)
    assert (found["a"].outcome, found["b"].outcome) == ("completed", "completed")
    assert (found["a"].tool_calls, found["b"].tool_calls) == (2, 1)
    assert found["a"].ended_at == found["b"].invoked_at
    assert {i.duration_source for i in found.values()} == {"span"}


def test_an_episode_ends_at_the_next_prompt_but_does_not_last_while_nobody_types() -> None:
    log = Log().load("a", "plan").run("t1").text().wait(9000).say("and now?").run("t2").text()
    found = skills(log)["a"]
    assert (found.outcome, found.tool_calls) == ("completed", 1)
    assert found.duration_seconds == 5.0  # load, its result, body, call, result, text


def test_an_episode_ends_where_records_stop_naming_it() -> None:
    log = Log().load("a", "x:plan").run("t1", skill="plan").run("t2", skill="plan")
    log.say("<task-notification>done</task-notification>", origin={"kind": "task-notification"})
    log.run("t3").text()
    found = skills(log)["a"]
    assert (found.outcome, found.tool_calls, found.duration_seconds) == ("completed", 2, 6.0)


def test_another_plugins_skill_of_the_same_name_is_another_skill() -> None:
    log = Log().load("a", "x:plan").text(skill="x:plan").text(skill="y:plan").run("t1").text()
    assert skills(log)["a"].tool_calls == 0


@pytest.mark.parametrize("for_tool", [False, True])
def test_an_interrupt_ends_the_episode(for_tool: bool) -> None:
    log = Log().load("a", "plan").call("t1", "Bash")
    if for_tool:
        log.result("t1", REJECTION, error=True)
    log.wait(3).interrupt(for_tool=for_tool).say("no, like this").text()
    found = skills(log)["a"]
    assert (found.outcome, found.error_type) == ("interrupted", None)
    assert found.duration_seconds == (7.0 if for_tool else 6.0)


def test_a_typed_skill_interrupted_at_once_is_interrupted() -> None:
    log = Log().type_command("plan").body().wait(5).interrupt()
    found = skills(log)["s1-0"]
    assert (found.outcome, found.duration_seconds) == ("interrupted", 6.0)


def test_a_rejected_last_call_rejects_the_episode() -> None:
    log = Log().load("a", "plan").call("t1", "Bash").result("t1", REJECTION, error=True)
    assert skills(log)["a"].outcome == "rejected"
    assert skills(log.say("do it differently"))["a"].outcome == "rejected"


def test_a_rejection_that_the_assistant_works_around_does_not_reject_the_episode() -> None:
    log = Log().load("a", "plan").call("t1", "Bash").result("t1", REJECTION, error=True)
    assert skills(log.text("Then I leave it."))["a"].outcome == "completed"


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (lambda log: log, "no_result"),
        (lambda log: log.call("t1"), "no_result"),
        (lambda log: log.run("t1"), "no_result"),
        (lambda log: log.answer({"type": "thinking", "thinking": ""}), "no_result"),
        (lambda log: log.text("Let me see.", message={"stop_reason": "tool_use"}), "no_result"),
        (lambda log: log.text("API Error", isApiErrorMessage=True), "no_result"),
        (lambda log: log.text("Overloaded", message={"model": "<synthetic>"}), "no_result"),
        (lambda log: log.text("Done."), "completed"),
        (lambda log: log.text("Done.", message={"stop_reason": "end_turn"}), "completed"),
        (lambda log: log.text("Done.").add("system", subtype="turn_duration"), "completed"),
    ],
)
def test_an_episode_in_which_the_log_ends_has_no_result(last: Any, outcome: str) -> None:
    log = last(Log().load("a", "plan"))
    assert skills(log)["a"].outcome == outcome
    assert skills(log, now=log.now) == {}


def test_a_skill_that_could_not_be_loaded_failed_and_is_over() -> None:
    log = Log().call("a", "Skill", input={"skill": "comit"})
    log.result("a", "<tool_use_error>Unknown skill: comit</tool_use_error>", error=True)
    found = skills(log.run("t1").run("t2").text())["a"]
    assert (found.outcome, found.error_type) == ("failed", "unknown_skill")
    assert (found.duration_seconds, found.duration_source, found.tool_calls) == (1.0, "span", 0)


def test_a_skill_that_the_user_refused_or_that_never_loaded() -> None:
    log = Log().call("a", "Skill", input={"skill": "x"}).result("a", REJECTION, error=True)
    log.call("b", "Skill", input={"skill": "y"})
    found = skills(log)
    assert (found["a"].outcome, found["b"].outcome) == ("rejected", "no_result")
    assert (found["b"].duration_seconds, found["b"].tool_calls) == (None, None)


def test_a_failed_load_does_not_end_the_skill_at_work() -> None:
    log = Log().load("a", "plan").call("b", "Skill", input={"skill": "comit"})
    log.result("b", "Unknown skill: comit", error=True).run("t1").text()
    assert skills(log)["a"].tool_calls == 1


def test_failures_inside_do_not_fail_the_skill() -> None:
    log = Log().load("a", "plan").call("t1", "Bash").result("t1", "Exit code 1", error=True)
    log.call("t2", "Bash").result("t2", REJECTION, error=True).run("t3").text()
    found = skills(log)["a"]
    assert (found.outcome, found.tool_calls, found.tool_failures) == ("completed", 3, 1)


def test_what_is_not_a_human_prompt_does_not_end_the_episode() -> None:
    log = Log().load("a", "plan").run("t1")
    log.say("<task-notification>x</task-notification>")
    log.say("Another session says hello", origin={"kind": "peer"})
    log.say("Stop hook feedback", isMeta=True)
    log.say("Summary of the talk so far", isCompactSummary=True)
    log.type_command("cost").say("<local-command-stdout>$1</local-command-stdout>")
    log.add("attachment", attachment={"type": "queued_command", "prompt": "also this"})
    log.say("").run("t2").text()
    found, transcript = parse(log)
    assert next(i.tool_calls for i in found if i.kind == "skill") == 2
    assert transcript.builtins == 1


def test_a_picture_without_words_is_a_prompt() -> None:
    log = Log().load("a", "plan").text().say([{"type": "image", "source": {}}]).run("t1").text()
    assert skills(log)["a"].tool_calls == 0


def test_a_sub_agents_calls_are_not_part_of_its_parents_episode() -> None:
    log = Log().load("a", "plan")
    log.envelope |= {"isSidechain": True, "agentId": "x"}
    log.say("Find it.").load("b", "search").run("t1")
    log.envelope |= {"isSidechain": False, "agentId": None}
    found = skills(log.run("t2").run("t3").text())
    assert (found["a"].tool_calls, found["b"].tool_calls) == (2, 1)


def test_a_skill_that_runs_as_a_sub_agent_is_over_with_its_call() -> None:
    log = Log().call("a", "Skill", input={"skill": "research"}).wait(90)
    log.result("a", "Found it.", detail={"success": True, "status": "forked"}).run("t1").text()
    found = skills(log)["a"]
    assert (found.outcome, found.duration_seconds, found.tool_calls) == ("completed", 90.0, None)


# Privacy


def test_no_prompt_code_argument_output_or_path_leaves_the_parser() -> None:
    secret = "SECRET"
    log = Log(cwd=f"/home/{secret}", gitBranch=secret, slug=secret).say(secret)
    log.call("t1", "Bash", input={"command": f"echo {secret}", "description": secret})
    log.result("t1", f"Exit code 1\n{secret}", error=True, detail=f"Error: {secret}")
    log.call("t2", "Edit", input={"file_path": secret, "old_string": secret})
    log.result("t2", f"String to replace not found {secret}", error=True)
    log.call("t3", "Task", input={"prompt": secret, "description": secret}).result("t3", secret)
    log.type_command("plan").body(secret).text(secret)
    found = read(log, project=lambda folder: "b" * 32)
    assert len(found) == 4
    assert secret not in repr(found)


# Robustness


def test_bad_lines_are_counted_and_the_others_read() -> None:
    good = Log().run("t1").bytes()
    deep = b"[" * 100_000 + b"\n"
    odd = b'// a comment\n{"type":\n\x00\x00\x00\n' + deep + b"1" * 5000 + b"\n"
    found, transcript = parse(odd + good)
    assert [i.event_id for i in found] == ["t1"]
    assert (transcript.lines, transcript.bad_lines) == (7, 5)


def test_line_ends_marks_and_stray_bytes_do_no_harm() -> None:
    log = Log().call("t1").result("t1", "caf\u00e9 \u2028 \x85")
    plain = read(log)
    assert read(b"\xef\xbb\xbf" + log.bytes()) == plain
    assert read(log.bytes(end="\r\n")) == plain
    assert read(b"\n\n" + log.bytes(end="\n\n")) == plain
    assert read(log.bytes().replace("\u00e9".encode(), b"\xe9\xff")) == plain
    assert read(b"") == []


def test_names_that_no_database_can_hold_are_mended() -> None:
    data = Log().run("t1", "Na\u0007me\ud800\ufdd0").bytes
    with pytest.raises(UnicodeEncodeError):
        data()
    line = json.dumps(Log().call("t1", "Na\u0007me\ud800 x" + "y" * 999).records[0]) + "\n"
    name = one(line.encode()).skill_name
    assert name.startswith("Name? xyy")
    assert len(name) < 256


@pytest.mark.parametrize("time", [None, "", "soon", 5, [], "0001-01-01", "9999-12-31T23:59:59Z"])
def test_an_unreadable_time_is_replaced_by_the_one_before(time: object) -> None:
    log = Log().say("hi").call("t1").result("t1")
    log.records[1]["timestamp"] = time
    assert one(log).invoked_at == "2026-05-04T12:00:01.000000+00:00"


def test_the_time_of_the_result_serves_where_the_call_has_none() -> None:
    log = Log().call("t1").result("t1")
    del log.records[0]["timestamp"]
    found = one(log)
    assert (found.invoked_at, found.duration_seconds) == ("2026-05-04T12:00:02.000000+00:00", None)


def test_a_call_without_any_time_is_counted_and_left_out() -> None:
    log = Log().run("t1").load("a", "plan")
    for record in log.records:
        del record["timestamp"]
    found, transcript = parse(log)
    assert (found, transcript.undated) == ([], 2)


def test_lines_skipped_unread_would_have_changed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log().load("a", "plan").call("t1", "Bash")
    log.add("attachment", attachment={"type": "queued_command"})
    log.records.append({"type": "file-history-snapshot", "snapshot": {}})
    data = {"type": "bash_progress", "elapsedTimeSeconds": 4}
    log.add("progress", data={"type": "hook_progress"}).add(
        "progress", data=data, parentToolUseID="t1"
    )
    log.result("t1", "ok", detail={"attachment": {"type": "progress", "data": {}}}).text()
    log.records = [_in_claude_codes_order(record) for record in log.records]
    skipped = sum(claude_code._is_irrelevant(line) for line in log.bytes().splitlines())
    found = read(log)
    monkeypatch.setattr(claude_code, "_is_irrelevant", lambda line: False)
    assert found == read(log)
    assert skipped == 3
    assert found[0].duration_source == "progress"


def _in_claude_codes_order(record: dict[str, Any]) -> dict[str, Any]:
    """Claude Code writes an attachment before the envelope's end, progress data behind the type."""
    ahead = [key for key in ("attachment", "type", "data") if key in record]
    if record["type"] == "user":
        return record
    return {key: record[key] for key in ahead} | record


def test_half_a_line_and_later_its_rest_add_that_one_event() -> None:
    data = Log().run("t1").run("t2").bytes()
    cut = len(data) - 20
    first = Transcript()
    found = []
    for line in data[:cut].splitlines(keepends=True):
        found += first.feed(line)
    found += first.finish(START)
    assert [i.event_id for i in found] == ["t1"]
    assert (first.half_line, first.bad_lines, first.held_open) == (True, 0, 2)
    rest, _ = parse(data[first.resume_offset :], position=first.resume_offset)
    assert [i.event_id for i in rest] == ["t2"]


def test_a_last_line_without_line_end_counts_when_it_is_complete() -> None:
    data = Log().run("t1").bytes().rstrip(b"\n")
    found, transcript = parse(data)
    assert len(found) == 1
    assert (transcript.half_line, transcript.resume_offset) == (False, len(data))


# Properties

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
_STEPS = st.one_of(
    st.tuples(st.just("call"), st.sampled_from(["Read", "Bash", "Task", "mcp__s__t"])),
    st.tuples(
        st.just("result"), st.integers(0, 3), st.sampled_from(["ok", "Exit code 1", REJECTION])
    ),
    st.tuples(st.just("load"), st.sampled_from(["plan", "commit"])),
    st.tuples(st.just("text"), st.sampled_from([None, "plan", "commit"])),
    st.tuples(st.just("say"), st.sampled_from(["go on", "<local-command-stdout>x"])),
    st.tuples(st.just("type_command"), st.sampled_from(["plan", "clear"])),
    st.tuples(st.just("body")),
    st.tuples(st.just("interrupt")),
)


def _session(steps: list[tuple[Any, ...]]) -> Log:
    """A session of generated steps; a result answers one of the last calls, again or at last."""
    log = Log().say("Begin.")
    ids: list[str] = []
    for number, (step, *given_to) in enumerate(steps):
        if step in ("call", "load"):
            ids.append(f"t{number}")
            getattr(log, step)(ids[-1], *given_to)
        elif step == "result":
            back, text = given_to
            log.result(ids[-1 - back] if back < len(ids) else "gone", text, error=text != "ok")
        elif step == "text":
            log.text(skill=given_to[0])
        else:
            getattr(log, step)(*given_to)
    return log


@given(st.lists(_STEPS, max_size=14), st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_reading_in_two_parts_gives_what_reading_at_once_gives(
    steps: list[tuple[Any, ...]], share: float
) -> None:
    """Wherever a first reading stops, going on at its resume offset completes the picture."""
    log = _session(steps)
    data = log.bytes()
    whole = {i.event_id: i for i in read(data)}
    first, transcript = parse(data[: int(len(data) * share)], now=START)
    start = transcript.resume_offset
    second, _ = parse(data[start:], position=start)
    merged: dict[str | None, Invocation] = {}
    for invocation in first + second:
        merged.setdefault(invocation.event_id, invocation)
    assert merged == whole


@given(st.lists(_STEPS, max_size=14))
@settings(max_examples=100, deadline=None)
def test_every_call_and_typed_command_is_accounted_for(steps: list[tuple[Any, ...]]) -> None:
    log = _session(steps)
    found, transcript = parse(log)
    called = {f"t{n}" for n, step in enumerate(steps) if step[0] in ("call", "load")}
    ids = [i.event_id for i in found]
    assert len(ids) == len(set(ids))
    assert {i.event_id for i in found if i.trigger != "user"} == called
    typed = [i for i in found if i.trigger == "user"]
    assert len(typed) + transcript.builtins == sum(step[0] == "type_command" for step in steps)
    assert transcript.held_open == 0
    for invocation in found:
        assert invocation.outcome in OUTCOMES
        assert invocation.kind in KINDS
        assert invocation.outcome == "failed" or invocation.error_type is None
        assert (invocation.tool_failures or 0) <= (invocation.tool_calls or 0)


@given(st.lists(_JSON | st.binary(max_size=20), max_size=5))
@settings(max_examples=80, deadline=None)
def test_any_lines_at_all_are_survived(values: list[object]) -> None:
    parts = (v if isinstance(v, bytes) else json.dumps(v).encode() for v in values)
    data = b"\n".join(parts)
    found, transcript = parse(data, project=str)
    assert found == []
    assert transcript.position == len(data) or transcript.half_line


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_wrong_types_anywhere_in_a_record_are_survived(data: st.DataObject) -> None:
    """Any value of a session may be anything; what comes out can still be stored."""
    log = _session(data.draw(st.lists(_STEPS, min_size=2, max_size=8)))
    log.add("progress", data={"elapsedTimeSeconds": 3}, parentToolUseID="t1")
    log.add("system", subtype="local_command", content="<command-name>/x</command-name>")
    for _ in range(data.draw(st.integers(1, 3))):
        _spoil(data, data.draw(st.sampled_from(log.records)))
    lines = "".join(json.dumps(record) + "\n" for record in log.records)
    for invocation in read(lines.encode(), project=str):
        assert invocation.skill_name.encode()
        assert invocation.session_id
        assert invocation.ended_at >= invocation.invoked_at
        assert replace(invocation).outcome in OUTCOMES


def _spoil(data: st.DataObject, value: Any) -> None:
    """Replace one value somewhere inside a record by another of any type."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            value[key] = data.draw(_JSON)
            return
        value = inner


def test_years_of_odd_clocks_do_not_make_years_of_work() -> None:
    log = Log(start=datetime(1999, 1, 1, tzinfo=UTC)).load("a", "plan")
    log.now = START
    assert skills(log.text())["a"].duration_seconds is None
