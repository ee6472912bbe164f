"""`sb up` owns its children: however it ends, none of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sb_pipelines import supervisor

PARENT = """
import os, sys, time
from pathlib import Path
from sb_pipelines.supervisor import Family

CHILD = '''
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
time.sleep(600)
'''
with Family() as family:
    family.start("child", [sys.executable, "-c", CHILD], dict(os.environ), Path(sys.argv[1]))
    print(family._token, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_stays_when_the_parent_ends(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child ignores Ctrl-C and has a child in another session, as Dagster's daemons are."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "SB_GRACE": "1"},
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    token = parent.stdout.readline().strip()
    _wait(lambda: len(supervisor.members(token)) == 2)
    os.killpg(parent.pid, number)
    parent.wait(timeout=40)
    parent.stdout.close()
    _wait(lambda: not supervisor.members(token))


def _wait(condition: object) -> None:
    deadline = time.monotonic() + 40
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)
