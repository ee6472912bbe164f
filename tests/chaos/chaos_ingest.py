"""Kills the reading of transcripts at random moments: the next run has every call, once.

`python -m tests.chaos.chaos_ingest 10` runs ten rounds and prints how far each had come.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from sb_serving.ingest import ingest_claude_code
from sb_serving.store import Identity, Store
from sb_serving.store.connection import connect_readonly
from tests.builders import new_store
from tests.chaos.killing import Victim, pause, wait_for_begin
from tests.claude_code_builder import LATER, START, Log

FILES, CALLS = 30, 60


def run(rounds: int, seed: int = 1) -> list[int]:
    """Kill an ingest in each round, look at what it left, and run it again.

    Returns:
        Per round, how many of the calls were stored when it was killed.

    Raises:
        AssertionError: A call is missing or there twice, or a table disagrees with the log.
    """
    draw = random.Random(seed)
    found = []
    with tempfile.TemporaryDirectory() as name:
        transcripts = Path(name, "projects")
        transcripts.mkdir()
        for file in range(FILES):
            log = Log(f"s{file}", start=START + timedelta(hours=file))
            for call in range(CALLS):
                log.run(f"call-{file}-{call}")
            log.write(transcripts / f"{file}.jsonl")
        expected, seconds = _ingest(Path(name, "undisturbed"), transcripts)
        for number in range(rounds):
            folder = Path(name, str(number))
            folder.mkdir()
            new_store(folder).close()
            victim = Victim("tests.chaos.chaos_ingest", ["--victim", str(folder), str(transcripts)])
            victim.ready()
            victim.begin()
            pause(draw.uniform(0, 1.1 * seconds))
            victim.kill()
            left = _stored(folder)
            assert left <= expected
            again, _ = _ingest(folder, transcripts)
            assert again == expected, "the next run did not complete it"
            found.append(len(left))
    return found


def _ingest(folder: Path, transcripts: Path) -> tuple[set[str], float]:
    """Read everything that is not read yet; returns what is stored then, and how long it took."""
    folder.mkdir(exist_ok=True)
    begun = time.perf_counter()
    with Store.open(folder / "skills.db", create=True) as store:
        ingest_claude_code(store, transcripts, Identity.load(folder / "key"), "u", LATER)
    return _stored(folder), time.perf_counter() - begun


def _stored(folder: Path) -> set[str]:
    with closing(connect_readonly(folder / "skills.db")) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        ids = [
            row[0]
            for row in connection.execute(
                "select c.event_id from skill_invocation i"
                " left join skill_user_interactions c on c.invocation_id = i.id"
            )
        ]
        assert len(ids) == len(set(ids)), "a call is there twice"
        for query in (
            "select count(*) from skill_user_interactions",
            "select total(total_invocations) from skill_metrics",
            "select total(invocation_count) from session_skills",
            "select total(completed + failed) from skill_hour",
        ):
            assert connection.execute(query).fetchone() == (len(ids),), query
    return set(ids)


def _victim(folder: Path, transcripts: Path) -> None:
    wait_for_begin()
    _ingest(folder, transcripts)


if __name__ == "__main__":
    if sys.argv[1] == "--victim":
        _victim(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        print("calls stored at the kill:", run(int(sys.argv[1])), "of", FILES * CALLS)
