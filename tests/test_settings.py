"""Settings: precedence, and errors that name where a wrong value came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from sb_serving.errors import SbError
from sb_serving.settings import Settings


def test_flags_over_environment_over_file_over_defaults(
    sb_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings.load().feed == "127.0.0.1:8765"
    (sb_home / "sb.toml").write_text('feed = "127.0.0.1:1"\nkeep_snapshots = 9\n')
    assert Settings.load().feed == "127.0.0.1:1"
    monkeypatch.setenv("SB_FEED", "127.0.0.1:2")
    assert Settings.load().feed == "127.0.0.1:2"
    assert Settings.load(feed="127.0.0.1:3").feed == "127.0.0.1:3"
    assert Settings.load(feed=None).keep_snapshots == 9


def test_everything_lies_in_the_home_folder(tmp_path: Path) -> None:
    settings = Settings.load(home=tmp_path)
    assert settings.skills_db == tmp_path / "skills.db"
    assert settings.identity_key == tmp_path / "identity.key"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("fed = 1", "'fed'"),
        ('feed = "8765"', "feed = '8765'"),
        ("keep_snapshots = 0", "keep_snapshots = 0"),
        ('partitions_start = "2026-13-01"', "partitions_start"),
        ('synchronous = "OFF"', "synchronous = 'OFF'"),
        ("feed = [", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(sb_home: Path, text: str, named: str) -> None:
    (sb_home / "sb.toml").write_text(text)
    with pytest.raises(SbError, match=r"sb\.toml") as caught:
        Settings.load()
    assert named in str(caught.value)


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SB_DAGSTER_PORT", "zero")
    with pytest.raises(SbError, match="SB_DAGSTER_PORT"):
        Settings.load()
