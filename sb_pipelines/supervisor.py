"""Owns the child processes of `sb up`: starts them, watches them, leaves none behind.

Dagster starts processes of its own, and some survive their parent. So every child carries a token
in its environment, which its own children inherit; whoever carries the token belongs to the
family. A guardian process holds the read end of a pipe: when the supervisor dies, however it dies,
the pipe closes and the guardian ends the family. What runs in the children is not known here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

TOKEN = "SB_FAMILY"
GRACE_SECONDS = 10.0
"""How long a process may take to end after SIGINT, and again after SIGTERM."""


class Family:
    """The child processes of one `sb up`; a context manager that ends them all on leaving."""

    def __init__(self) -> None:
        self._token = uuid.uuid4().hex
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        read_end, self._write_end = os.pipe()
        self._guardian = subprocess.Popen(
            [sys.executable, "-m", "sb_pipelines.supervisor", self._token, str(read_end)],
            pass_fds=[read_end],
            start_new_session=True,  # a Ctrl-C in the terminal must not reach it
            stdin=subprocess.DEVNULL,
        )
        os.close(read_end)

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        """Start a child in a session of its own, its output appended to a log file."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._children[name] = subprocess.Popen(
                list(argv),
                env={**env, TOKEN: self._token},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ended(self) -> str | None:
        """The name of a child that is no longer running, if any."""
        for name, child in self._children.items():
            if child.poll() is not None:
                return name
        return None

    def __enter__(self) -> Family:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end_family(self._token, [child.pid for child in self._children.values()])
        for child in self._children.values():
            child.wait()
        os.close(self._write_end)
        self._guardian.wait()


def end_family(token: str, first: Sequence[int] = ()) -> None:
    """End every process that carries the token.

    Args:
        token: The family's mark.
        first: Processes that are asked politely, as by Ctrl-C; they end their own children.
    """
    for pid in first:
        _signal(pid, signal.SIGINT)
    if first and _wait_until_gone(token):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in members(token):
            _signal(pid, number)
        if _wait_until_gone(token):
            return


def members(token: str) -> list[int]:
    """The processes that carry a token, other than this one."""
    found = []
    for process in psutil.process_iter():
        try:
            carries = process.environ().get(TOKEN) == token
            if carries and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # gone meanwhile, or another user's: not of the family
    return [pid for pid in found if pid != os.getpid()]


def _wait_until_gone(token: str) -> bool:
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline:
        if not members(token):
            return True
        time.sleep(0.1)
    return False


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended by itself


def _guard(token: str, read_end: int) -> None:
    """Wait for the supervisor to close the pipe, then end whatever is left of its family."""
    while os.read(read_end, 1):
        pass
    end_family(token)


if __name__ == "__main__":
    _guard(sys.argv[1], int(sys.argv[2]))
