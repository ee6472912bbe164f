"""What every test shares: an `SB_HOME` of its own, signals, skips that name the missing program."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def sb_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, so that no test reads or writes the user's own data."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("SB_HOME", str(home))
    return home


def pytest_configure() -> None:
    """Undo what a shell does to programs in the background: they ignore Ctrl-C.

    The programs that tests start would inherit it, and Dagster, which puts the handler of Ctrl-C
    back on SIGTERM too, would make them deaf to both.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose outside program is missing, and say which."""
    for marker in item.iter_markers("needs_program"):
        name = marker.args[0]
        if shutil.which(name) is None:
            pytest.skip(f"needs the program {name!r}, which pip cannot install")
