"""The driver: which files are read, from where on, what the store holds and what is counted."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sb_serving import ingest
from sb_serving.errors import SbError
from sb_serving.events import Invocation
from sb_serving.ingest import Summary, discover, ingest_claude_code, parse_tree
from sb_serving.store import FileOffset, Identity, ImportResult, Store
from tests.builders import new_store
from tests.claude_code_builder import LATER, Log

IDENTITY = Identity(b"k" * 32)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty event store."""
    with new_store(tmp_path / "db") as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder for transcripts."""
    folder = tmp_path / "claude" / "projects"
    folder.mkdir(parents=True)
    return folder


def run(store: Store, root: Path, now: datetime = LATER) -> Summary:
    """Ingest once."""
    return ingest_claude_code(store, root, IDENTITY, "ada", now)


def rows(store: Store, columns: str = "event_id, skill_name, outcome") -> list[tuple[Any, ...]]:
    """What the store holds, in the order of insertion."""
    query = f"select {columns} from skill_user_interactions order by invocation_id"
    return store.connection.execute(query).fetchall()


def ids(store: Store) -> list[str]:
    """The event ids in the store."""
    return [row[0] for row in rows(store)]


def test_a_tree_of_sessions_and_sub_agents_is_read_once(store: Store, root: Path) -> None:
    """Sub-agents' files lie beside the session's (older versions) or below it (newer)."""
    agent = {"isSidechain": True, "agentId": "x"}
    Log("s1").run("main", "Bash").write(root / "p" / "s1.jsonl")
    Log("s1", **agent).run("old", "Read").write(root / "p" / "agent-x.jsonl")
    Log("s1", **agent).run("new", "Grep").write(root / "p" / "s1" / "subagents" / "agent-y.jsonl")
    (root / "p" / "notes.txt").write_text("not a transcript")
    summary = run(store, root)
    assert sorted(ids(store)) == ["main", "new", "old"]
    assert (summary.files, summary.inserted, summary.duplicates) == (3, 3, 0)
    assert summary.by_kind == {"tool": 3}
    assert summary.by_outcome == {"completed": 3}
    assert summary.bytes == sum(file.size for file in discover(root))
    assert set(rows(store, "user_id, session_id")) == {(IDENTITY.user("ada"), "s1")}


def test_a_second_run_reads_and_adds_nothing(store: Store, root: Path) -> None:
    Log().load("a", "plan").run("t1").text().type_command("x").body().write(root / "s1.jsonl")
    first, second = run(store, root), run(store, root)
    assert (first.inserted, second.inserted) == (3, 0)
    assert (second.files, second.unchanged, second.lines, second.bytes) == (1, 1, 0, 0)


def test_a_growing_session_is_read_on_from_where_it_was_left(store: Store, root: Path) -> None:
    log = Log().say("hi").run("t1")
    path = log.write(root / "s1.jsonl")
    run(store, root, log.now)
    size = path.stat().st_size
    log.run("t2").write(path)
    summary = run(store, root, log.now)
    assert ids(store) == ["t1", "t2"]
    assert summary.bytes == path.stat().st_size - size
    assert summary.duplicates == 0


@pytest.mark.parametrize("missing", [1, 30, 300])
def test_half_a_line_and_later_its_rest_add_that_one_event(
    store: Store, root: Path, missing: int
) -> None:
    """A reader that meets a file while it is being written sees half a line.

    The session's times lie in the past here, so only the file's own time says that it is alive.
    """
    data = Log().run("t1").run("t2").bytes()
    path = root / "s1.jsonl"
    path.write_bytes(data[: -1 - missing])
    now = datetime.now(UTC)
    first = run(store, root, now)
    assert (ids(store), first.bad_lines) == (["t1"], 0)
    assert first.held_open >= 1
    path.write_bytes(data)
    second = run(store, root, now)
    assert rows(store) == [("t1", "Read", "completed"), ("t2", "Read", "completed")]
    assert (second.inserted, second.bad_lines, second.held_open) == (1, 0, 0)


def test_a_line_cut_off_for_ever_does_not_hold_the_others(store: Store, root: Path) -> None:
    path = root / "s1.jsonl"
    path.write_bytes(Log().run("t1").run("t2").bytes()[:-30])
    os.utime(path, (1_780_000_000, 1_780_000_000))
    summary = run(store, root, datetime.now(UTC))
    assert rows(store) == [("t1", "Read", "completed"), ("t2", "Read", "no_result")]
    assert (summary.bad_lines, summary.held_open) == (0, 1)


def test_an_open_call_waits_for_its_result(store: Store, root: Path) -> None:
    log = Log().run("t1").call("t2", "Bash")
    path = log.write(root / "s1.jsonl")
    first = run(store, root, log.now)
    assert (ids(store), first.held_open) == (["t1"], 1)
    log.wait(500).result("t2").write(path)
    second = run(store, root, log.now)
    assert rows(store) == [("t1", "Read", "completed"), ("t2", "Bash", "completed")]
    assert (second.inserted, second.held_open) == (1, 0)


def test_an_open_call_of_a_dead_session_has_no_result(store: Store, root: Path) -> None:
    log = Log().call("t1", "Bash")
    log.write(root / "s1.jsonl")
    assert run(store, root, log.now + timedelta(minutes=30)).held_open == 1
    summary = run(store, root, log.now + timedelta(hours=2))
    assert rows(store) == [("t1", "Bash", "no_result")]
    assert (summary.unchanged, summary.held_open) == (0, 0)
    assert run(store, root, log.now + timedelta(hours=3)).unchanged == 1


def test_a_forked_copy_adds_only_what_is_new(store: Store, root: Path) -> None:
    """Resuming with --fork-session copies the history into a file of a new session."""
    log = Log("original").run("t1").load("a", "plan").run("t2").text().type_command("x").body()
    original = log.text().write(root / "original.jsonl")
    os.utime(original, (1_780_000_000, 1_780_000_000))
    log.session = "copy"
    for record in log.records:
        record["sessionId"] = "copy"
    log.say("go on").run("t3").write(root / "a-copy.jsonl")
    summary = run(store, root)
    assert (summary.inserted, summary.duplicates) == (5, 4)
    sessions = dict(rows(store, "event_id, session_id"))
    assert sessions.pop("t3") == "copy"
    assert set(sessions.values()) == {"original"}


def test_a_copy_that_appears_later_adds_only_what_is_new(store: Store, root: Path) -> None:
    log = Log().run("t1")
    log.write(root / "one.jsonl")
    run(store, root)
    log.run("t2").write(root / "two.jsonl")
    summary = run(store, root)
    assert (summary.inserted, summary.duplicates) == (1, 1)


def test_a_replaced_file_is_read_from_its_start(store: Store, root: Path) -> None:
    """Another, longer file under the same path must not be entered in its middle."""
    path = Log("one").run("t1").run("t2").write(root / "s.jsonl")
    run(store, root)
    Log("two").run("t3").run("t4").run("t5").run("t6").write(path)
    run(store, root)
    Log("two").run("t7").write(path)
    run(store, root)
    assert ids(store) == [f"t{n}" for n in range(1, 8)]


class _Crash(Exception):
    """Stands for a process that dies."""


def test_a_crash_between_batches_loses_and_repeats_nothing(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log().load("a", "plan")
    for number in range(30):
        log.run(f"t{number}", "Bash")
    log.text().write(root / "s1.jsonl")
    monkeypatch.setattr(ingest, "BATCH", 7)
    original, calls = Store.import_batch, 0

    def crash(
        self: Store, batch: Sequence[Invocation], *, offset: FileOffset | None = None
    ) -> ImportResult:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise _Crash
        return original(self, batch, offset=offset)

    monkeypatch.setattr(Store, "import_batch", crash)
    with pytest.raises(_Crash):
        run(store, root)
    assert len(ids(store)) == 14
    run(store, root)
    assert sorted(ids(store)) == sorted(["a", *(f"t{n}" for n in range(30))])
    calls_of_episode = "select tool_calls from skill_user_interactions where event_id = 'a'"
    assert store.connection.execute(calls_of_episode).fetchone() == (30,)


def test_an_unreadable_file_is_named_and_the_others_are_read(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Log().run("t1").write(root / "good.jsonl")
    locked = Log().run("t2").write(root / "locked.jsonl")
    (root / "gone.jsonl").symlink_to(root / "nowhere")
    os.mkfifo(root / "pipe.jsonl")
    original = Path.open

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == locked:
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    summary = run(store, root)
    assert ids(store) == ["t1"]
    named = {Path(message.partition(":")[0]).name for message in summary.unreadable}
    assert named == {"gone.jsonl", "locked.jsonl", "pipe.jsonl"}
    assert len(list(parse_tree(root, IDENTITY, "ada", LATER))) == 1


def test_a_folder_that_does_not_exist_is_an_error_with_a_way_out(
    store: Store, tmp_path: Path
) -> None:
    with pytest.raises(SbError, match=r"there is no folder .*nowhere") as caught:
        run(store, tmp_path / "nowhere")
    assert "~/.claude/projects" in caught.value.fix
    with pytest.raises(SbError):
        next(parse_tree(tmp_path / "nowhere", IDENTITY, "ada", LATER))


def test_an_empty_folder_and_empty_files_are_fine(store: Store, root: Path) -> None:
    assert run(store, root) == Summary()
    (root / "empty.jsonl").touch()
    assert run(store, root).files == 1
    assert run(store, root).unchanged == 1


def test_the_root_may_be_claudes_folder_a_project_or_one_file(root: Path) -> None:
    path = Log().run("t1").write(root / "p" / "s1.jsonl")
    (root.parent / "history.jsonl").write_text('{"display": "what I typed"}\n')
    for place in (root.parent, root, root / "p", path):
        assert [file.path for file in discover(place)] == [path]


def test_files_about_to_be_deleted_are_counted(store: Store, root: Path) -> None:
    for days in (1, 26, 28, 31):
        path = Log(f"s{days}").run(f"t{days}").write(root / f"{days}.jsonl")
        then = (LATER - timedelta(days=days)).timestamp()
        os.utime(path, (then, then))
    assert run(store, root).expiring == 2


def test_what_the_files_contain_is_counted(store: Store, root: Path) -> None:
    log = Log().type_command("clear").say("<local-command-stdout></local-command-stdout>")
    log.run("t1").load("a", "plan").call("t2", "Bash").result("t2", "Exit code 1", error=True)
    log.text().add("summary")
    path = log.write(root / "s1.jsonl")
    path.write_bytes(path.read_bytes() + b"no json\n\n")
    Log("s2", start=LATER + timedelta(days=1)).run("t3").write(root / "s2.jsonl")
    summary = run(store, root)
    assert (summary.files, summary.lines, summary.bad_lines) == (2, 14, 1)
    assert (summary.builtins, summary.future, summary.undated) == (1, 1, 0)
    assert summary.by_outcome == {"completed": 3, "failed": 1}
    assert summary.by_kind == {"tool": 3, "skill": 1}


def test_a_tree_parsed_without_a_store_gives_what_the_store_gets(store: Store, root: Path) -> None:
    log = Log().run("t1").load("a", "plan").run("t2").text()
    log.write(root / "one.jsonl")
    log.run("t3").write(root / "two.jsonl")
    summary = Summary()
    found = list(parse_tree(root, IDENTITY, "ada", LATER, summary))
    stored = run(store, root)
    assert sorted(ids(store)) == sorted(str(i.event_id) for i in found)
    assert (summary.by_kind, summary.lines) == (stored.by_kind, stored.lines)
    assert (summary.duplicates, summary.inserted) == (3, 0)


def test_copies_without_an_id_are_dropped_by_session_name_and_time(root: Path) -> None:
    log = Log().type_command("plan").body()
    for record in log.records:
        del record["uuid"]
    log.write(root / "one.jsonl")
    log.write(root / "two.jsonl")
    assert len(list(parse_tree(root, IDENTITY, "ada", LATER))) == 1


def test_progress_is_told_in_bytes_up_to_the_end(store: Store, root: Path) -> None:
    for number in range(3):
        Log(f"s{number}").run(f"t{number}").write(root / f"{number}.jsonl")
    told: list[tuple[int, int]] = []
    ingest_claude_code(store, root, IDENTITY, "ada", LATER, lambda *where: told.append(where))
    total = sum(file.size for file in discover(root))
    assert told[-1] == (total, total)
    assert told == sorted(told)


def test_a_line_too_long_to_hold_is_passed_over(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "MAX_LINE", 5_000)
    monkeypatch.setattr(ingest, "READ_BUFFER", 700)
    log = Log().run("t1").say("x" * 20_000).run("t2").say("y" * 20_000)
    path = log.write(root / "s1.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    first = run(store, root, log.now)
    assert (ids(store), first.bad_lines, first.held_open) == (["t1", "t2"], 1, 1)
    path.write_bytes(whole + Log("s2").run("t3").bytes())
    second = run(store, root, log.now)
    assert (ids(store)[2:], second.bad_lines) == (["t3"], 1)


def test_nothing_private_reaches_the_file(store: Store, root: Path) -> None:
    secret = "SECRET"
    log = Log(cwd=f"/home/{secret}/work", gitBranch=secret).say(f"Fix {secret}")
    log.call("t1", "Bash", input={"command": f"cat {secret}"})
    log.result("t1", f"Exit code 1\n{secret}", error=True, detail={"stdout": secret})
    log.type_command("plan").body(secret).text(secret)
    log.write(root / f"-home-{secret}-work" / "s1.jsonl")
    assert run(store, root).inserted == 2
    store.connection.execute("pragma wal_checkpoint(truncate)")
    folder = store.path.parent
    for path in folder.iterdir():
        assert secret.encode() not in path.read_bytes(), path.name


def test_memory_does_not_grow_with_the_file(root: Path) -> None:
    """16 MB of transcript pass through less than 4 MB of memory."""
    path = root / "big.jsonl"
    with path.open("wb") as file:
        for number in range(400):
            log = Log().call(f"t{number}", "Bash").result(f"t{number}", "x" * 40_000)
            file.write(log.bytes())
    tracemalloc.start()
    try:
        count = sum(1 for _ in parse_tree(root, IDENTITY, "ada", LATER))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 400
    assert path.stat().st_size > 16_000_000
    assert peak < 4_000_000
