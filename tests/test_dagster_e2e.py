"""A real Dagster, started as `python -m sb_pipelines`: sixty days back-filled through its API.

The only test that boots Dagster's services; what they run is tested in `test_pipelines`.
"""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sb_pipelines import supervisor
from sb_pipelines.defs import audit
from sb_pipelines.launcher import dagster_command, prepare_home
from sb_pipelines.refresh import refresh
from sb_pipelines.resources import Warehouse
from sb_pipelines.supervisor import Family
from sb_serving import times
from sb_serving.settings import Settings
from sb_serving.store import Store
from tests.builders import invocation

DAYS = 60
SECONDS = 150.0
"""Patience for each step; on an idle computer all of them together take a fifth of it."""

LOADED = "{workspaceOrError{... on Workspace{locationEntries{name loadStatus}}}}"
LAUNCH = """mutation($p: LaunchBackfillParams!){launchPartitionBackfill(backfillParams:$p){
    __typename ... on LaunchBackfillSuccess{backfillId} ... on PythonError{message}}}"""
BACKFILL = """query($id: String!){partitionBackfillOrError(backfillId:$id){__typename
    ... on PartitionBackfill{status numPartitions runs(limit:10){runId status}}}}"""
SENSOR = """{runsOrError(filter:{pipelineName:"refresh",tags:[{key:"dagster/sensor_name",
    value:"new_events"}]}){... on Runs{results{status}}}}"""
PARTITIONS = """{assetNodeOrError(assetKey:{path:["skill_time_series"]}){
    ... on AssetNode{partitionStats{numMaterialized numFailed}}}}"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, query: str, **variables: Any) -> Any:
    """The data of a GraphQL answer; None while nobody answers."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query, "variables": variables}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
    except (urllib.error.URLError, OSError):
        return None
    assert "errors" not in answer, answer["errors"]
    return answer["data"]


def wait_for(what: str, condition: Callable[[], Any], family: Family) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        assert family.ended() is None, "Dagster ended by itself"
        assert time.monotonic() < deadline, f"{what} took more than {SECONDS} s"
        time.sleep(0.25)
    return value


@pytest.mark.timeout(600)
def test_a_backfill_of_sixty_days_from_the_ui(sb_home: Path) -> None:
    """One run, equal to a recount; the sensor runs by itself; no process is left behind."""
    today = times.now().replace(hour=12, minute=0, second=0, microsecond=0)
    first = (today - timedelta(days=DAYS)).date()
    settings = Settings.load(dagster_port=free_port(), partitions_start=first.isoformat())
    rows = [
        invocation(
            number,
            invoked_at=times.to_utc_text(today - timedelta(hours=number)),
            session_id=f"session-{number // 7}",
            skill_name=f"skill-{number % 5}",
        )
        for number in range(1, (DAYS - 1) * 24)
    ]
    with Store.open(settings.skills_db, create=True) as store:
        store.import_batch(rows)
    prepare_home(settings)
    refresh(settings)
    warehouse = Warehouse(database=str(settings.warehouse))
    with warehouse.writing() as connection:
        # As an older program might have left them; no check of a refresh looks at quantiles.
        connection.execute("update skill_time_series set duration_p95 = 99")

    argv, environment = dagster_command(settings)
    log = sb_home / "dagster.log"
    with Family() as family:
        family.start("dagster", argv, environment, log)
        port = settings.dagster_port
        wait_for("loading the definitions", lambda: is_loaded(port), family)
        keys = [(first + timedelta(days=day)).isoformat() for day in range(1, DAYS + 1)]
        launched = ask(
            port,
            LAUNCH,
            p={"assetSelection": [{"path": ["skill_time_series"]}], "partitionNames": keys},
        )["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        done = wait_for("the backfill", lambda: finished(port, launched["backfillId"]), family)
        assert done["status"] == "COMPLETED_SUCCESS"
        assert done["numPartitions"] == DAYS
        assert [run["status"] for run in done["runs"]] == ["SUCCESS"]
        by_sensor = wait_for("the sensor's run", lambda: succeeded(port), family)
        assert len(by_sensor) == 1
        node = ask(port, PARTITIONS)["assetNodeOrError"]
        assert node["partitionStats"] == {"numMaterialized": DAYS, "numFailed": 0}
        token = family._token
        members = supervisor.members(token)
        assert len(members) >= 4

    assert supervisor.members(token) == []
    with warehouse.reading() as connection:
        assert {*audit.all_differing(connection).values()} == {0}
        (n,) = connection.execute("select sum(n) from skill_time_series").fetchall()[0]
    assert n == len(rows)
    assert "Stack Trace" not in log.read_text()
    assert "Superseded" not in log.read_text()


def is_loaded(port: int) -> bool:
    data = ask(port, LOADED)
    entries = data["workspaceOrError"]["locationEntries"] if data else []
    return [(entry["name"], entry["loadStatus"]) for entry in entries] == [
        ("sb_pipelines", "LOADED")
    ]


def finished(port: int, backfill: str) -> Any:
    found = ask(port, BACKFILL, id=backfill)["partitionBackfillOrError"]
    return found if found["status"].startswith(("COMPLETED", "FAILED", "CANCELED")) else None


def succeeded(port: int) -> list[str]:
    statuses = [run["status"] for run in ask(port, SENSOR)["runsOrError"]["results"]]
    assert "FAILURE" not in statuses
    return statuses if statuses and set(statuses) == {"SUCCESS"} else []
