"""What every test shares: an `SB_HOME` of its own, and skips that name the missing program."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def sb_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, so that no test reads or writes the user's own data."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("SB_HOME", str(home))
    return home


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose outside program is missing, and say which."""
    for marker in item.iter_markers("needs_program"):
        name = marker.args[0]
        if shutil.which(name) is None:
            pytest.skip(f"needs the program {name!r}, which pip cannot install")
