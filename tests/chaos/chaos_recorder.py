"""Kills four recorders at a random moment: what was acknowledged is stored, once.

`python -m tests.chaos.chaos_recorder 20` runs twenty rounds on one file and prints the counts.
"""

from __future__ import annotations

import random
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from sb_serving.store import Store
from sb_serving.store.connection import connect_readonly
from sb_serving.store.recorder import SET_BASED_FROM
from tests.builders import invocation, new_store
from tests.chaos.killing import Victim, pause, wait_for_begin

RECORDERS = 4
BATCH = SET_BASED_FROM + 10
LONGEST = 0.5
"""Seconds of work at most before the kill."""


def run(rounds: int, seed: int = 1) -> int:
    """Kill four recorders in each round and count what is stored.

    Three record one event at a time, one imports batches; each says what was acknowledged to it.

    Args:
        rounds: How many, on one file.
        seed: Of the moments.

    Returns:
        How many events were acknowledged.

    Raises:
        AssertionError: An acknowledged event is missing or there twice, or a count is wrong.
    """
    draw = random.Random(seed)
    acknowledged: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "skills.db")
        new_store(Path(name)).close()
        for number in range(rounds):
            victims = [
                Victim("tests.chaos.chaos_recorder", ["--victim", str(path), f"{number}-{one}"])
                for one in range(RECORDERS)
            ]
            for victim in victims:
                victim.ready()
            for victim in victims:
                victim.begin()
            pause(draw.uniform(0.05, LONGEST))
            for victim in victims:
                # The last line may be half written: then it was not acknowledged.
                acknowledged.update(line for line in victim.kill() if line.endswith("."))
            _look(path, acknowledged)
        with Store.open(path) as store:
            assert not store.record(invocation(1, event_id="after")).duplicate
    return len(acknowledged)


def _look(path: Path, acknowledged: set[str]) -> None:
    with closing(connect_readonly(path)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        assert connection.execute("pragma foreign_key_check").fetchall() == []
        stored = [
            row[0]
            for row in connection.execute(
                "select c.event_id from skill_invocation i"
                " left join skill_user_interactions c on c.invocation_id = i.id"
            )
        ]
        assert acknowledged <= set(stored), "an acknowledged event is lost"
        assert len(stored) == len(set(stored)), "an event is there twice"
        for query in (
            "select count(*) from skill_user_interactions",
            "select sum(total_invocations) from skill_metrics",
            "select sum(invocation_count) from session_skills",
            "select sum(completed) from skill_hour",
        ):
            assert connection.execute(query).fetchone() == (len(stored) or None,), query
        triggers = connection.execute("select count(*) from sqlite_master where type = 'trigger'")
        assert triggers.fetchone() == (5,)


def _victim(path: Path, name: str) -> None:
    with Store.open(path) as store:
        wait_for_begin()
        number = 0
        while True:
            size = BATCH if name.endswith("-0") else 1
            ids = [f"{name}-{number + one}." for one in range(size)]
            many = [
                invocation(number + one, event_id=event_id, session_id=name)
                for one, event_id in enumerate(ids)
            ]
            if size == 1:
                store.record(many[0])
            else:
                store.import_batch(many)
            sys.stdout.write("\n".join(ids) + "\n")
            sys.stdout.flush()
            number += size


if __name__ == "__main__":
    if sys.argv[1] == "--victim":
        _victim(Path(sys.argv[2]), sys.argv[3])
    else:
        print(run(int(sys.argv[1])), "events acknowledged, each stored once")
