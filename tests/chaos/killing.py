"""Starts a process, waits until it is at work, and kills it in the middle of it."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Victim:
    """A Python module at work in a process of its own.

    Attributes:
        module: Run with `-m`; it prints a line when it is about to begin its work.
        arguments: Of its command line.
    """

    module: str
    arguments: list[str]
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module, *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        """Wait until it has loaded everything."""
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise AssertionError(f"{self.module} ended before its work began")

    def begin(self) -> None:
        """Let it begin."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def kill(self) -> list[str]:
        """Kill it at once, without a chance to clean up; returns what it had printed."""
        self.process.kill()
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        lines = self.process.stdout.read().splitlines()
        self.process.stdout.close()
        self.process.stdin.close()
        self.process.wait()
        return lines


def wait_for_begin() -> None:
    """What a victim calls once it has loaded everything."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()


def pause(seconds: float) -> None:
    """Let the victim work for a while; which moment it is killed at is the point."""
    time.sleep(seconds)
