"""`sb up` as users start it: everything answers, a recorded row shows, nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from websockets.sync.client import connect

from sb_serving.store import Store
from tests.builders import invocation

SB = str(Path(sys.executable).with_name("sb"))


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"no {what} after {seconds} s"
        time.sleep(0.1)
    return value


def processes_of(home: Path) -> list[str]:
    """Command lines of processes whose environment names this home, other than this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("SB_HOME") == str(home):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
    return body


def test_up_serves_live_numbers_and_leaves_no_process(sb_home: Path, tmp_path: Path) -> None:
    """One boot of the whole house: the three faces agree with a direct count, then Ctrl-C."""
    feed, metrics, http, dagster = free_ports(4)
    log = tmp_path / "up.log"
    argv = [SB, "up", "--feed", f"127.0.0.1:{feed}", "--metrics", f"127.0.0.1:{metrics}"]
    argv += ["--http", f"127.0.0.1:{http}", "--dagster-port", str(dagster)]
    environment = {**os.environ, "SB_HOME": str(sb_home), "SB_CLAUDE_DIR": str(tmp_path)}
    with log.open("wb") as output:
        up = subprocess.Popen(
            argv, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for(
            lambda: "Ctrl-C stops" in log.read_text() or up.poll() is not None, 150, "address list"
        )
        assert up.poll() is None, log.read_text()
        with Store.open(sb_home / "skills.db") as store:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            row = store.record(invocation(skill_name="fresh-skill", invoked_at=now))
        seen = _frame_with(f"ws://127.0.0.1:{feed}/", row.id or 0)
        assert seen["last_event_id"] >= (row.id or 0)

        ready = json.loads(get(f"http://127.0.0.1:{http}/readyz"))
        assert ready["ready"]
        wait_for(
            lambda: b'skill_name="fresh-skill"' in get(f"http://127.0.0.1:{metrics}/metrics"),
            5,
            "fresh-skill in /metrics",
        )
        text = get(f"http://127.0.0.1:{metrics}/metrics").decode()
        counted = sum(
            float(value)
            for value in re.findall(
                r"^session_buddy_skill_invocations_total\{.*\} (\S+)$", text, re.M
            )
        )
        with Store.open(sb_home / "skills.db") as store:
            total = store.connection.execute("select count(*) from skill_invocation").fetchone()[0]
        assert total - 3 <= counted <= total  # the demo goes on while we count
    finally:
        os.killpg(up.pid, signal.SIGINT)
        up.wait(timeout=60)
    assert "no process is left" in log.read_text()
    wait_for(lambda: not processes_of(sb_home), 10, "end of all children")


def _frame_with(url: str, row_id: int) -> dict[str, Any]:
    """The first feed message that holds a row; the feed promises it within two seconds."""
    begun = time.monotonic()
    with connect(url) as client:
        while time.monotonic() - begun < 10:
            message = json.loads(client.recv(timeout=10))
            if message["type"] == "metrics_update" and message["last_event_id"] >= row_id:
                found: dict[str, Any] = message
                return found
    raise AssertionError("the row did not show in the feed")


def test_a_port_in_use_is_one_line_with_the_way_out(sb_home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [SB, "up", "--feed", address], capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert address in done.stderr
    assert "--feed" in done.stderr
