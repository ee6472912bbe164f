"""Names are hashed under a key that is made once and shared."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from sb_serving.errors import SbError
from sb_serving.store import Identity


def test_the_same_key_gives_the_same_hash_and_another_key_another(tmp_path: Path) -> None:
    first = Identity.load(tmp_path / "a.key")
    assert first.user("alice") == Identity.load(tmp_path / "a.key").user("alice")
    assert first.user("alice") != Identity.load(tmp_path / "b.key").user("alice")
    assert len(first.user("alice")) == 32


def test_only_the_owner_can_read_the_key(tmp_path: Path) -> None:
    Identity.load(tmp_path / "deep" / "a.key")
    assert (tmp_path / "deep" / "a.key").stat().st_mode & 0o777 == 0o600


def test_folders_of_one_repository_are_one_project(tmp_path: Path) -> None:
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    (tmp_path / "repo" / "src" / "deep").mkdir(parents=True)
    identity = Identity.load(tmp_path / "a.key")
    assert identity.project(str(tmp_path / "repo" / "src" / "deep")) == identity.project(
        str(tmp_path / "repo")
    )
    assert identity.project(str(tmp_path / "elsewhere")) != identity.project(str(tmp_path / "repo"))


@pytest.mark.parametrize("text", ["", "00ff", "not hexadecimal"])
def test_a_damaged_key_is_refused_not_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.key"
    path.write_text(text)
    with pytest.raises(SbError, match=r"a\.key"):
        Identity.load(path)
    assert path.read_text() == text


def _hash(path: Path) -> str:
    return Identity.load(path).user("alice")


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        hashes = pool.map(_hash, [tmp_path / "a.key"] * 8)
    assert len(set(hashes)) == 1
