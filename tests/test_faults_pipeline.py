"""Full disks, locks, damage, wrong clocks, kill -9 in a refresh: a clear word, and it heals."""

from __future__ import annotations

import os
import random
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sb_pipelines.refresh import refresh
from sb_serving import times
from sb_serving.errors import SbError
from sb_serving.settings import Settings
from sb_serving.snapshot import SnapshotHolder
from sb_serving.store import Store, migrate
from sb_serving.store import connection as connections
from tests.builders import invocation
from tests.chaos import chaos_ingest, chaos_refresh
from tests.test_faults_store import damage


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that was refreshed, and has one row more; to be copied."""
    settings = settings_of(tmp_path_factory.mktemp("refreshed"))
    add(settings, 0, 200)
    refresh(settings)
    add(settings, 200, 1)
    return settings.home


@pytest.fixture
def config(refreshed: Path, sb_home: Path) -> Settings:
    """A copy of it."""
    shutil.copytree(refreshed, sb_home, dirs_exist_ok=True)
    return settings_of(sb_home)


def settings_of(home: Path, **more: Any) -> Settings:
    return Settings.load(
        home=home, partitions_start=f"{times.now() - timedelta(days=10):%Y-%m-%d}", **more
    )


def add(settings: Settings, first: int, count: int) -> None:
    now = times.now()
    with Store.open(settings.skills_db, create=True) as store:
        store.import_batch(
            [
                invocation(number, invoked_at=times.to_utc_text(now - timedelta(hours=number % 99)))
                for number in range(first, first + count)
            ]
        )


def served(settings: Settings) -> tuple[int, int]:
    """Number and invocations of the snapshot that is served."""
    holder = SnapshotHolder(settings.snapshots)
    with holder.pin() as snapshot:
        assert snapshot is not None
        assert holder.refused == ()
        ((rows,),) = snapshot.query("select sum(n) from skill_totals")
        number = snapshot.manifest.number
    holder.close()
    return number, rows


@contextmanager
def files_of_at_most(count: int) -> Iterator[None]:
    """A limit on the size of files, which the engines meet as they meet a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("left", "named"), [(12_288, r"warehouse\.duckdb|skills\.db"), (400_000, r"snapshots/\.tmp-")]
)
def test_a_full_disk_leaves_the_last_snapshot(config: Settings, left: int, named: str) -> None:
    """`tests/chaos/chaos_disk.py` does it on a small disk, with ever more room."""
    before = served(config)
    with files_of_at_most(left), pytest.raises(SbError, match=named) as caught:
        refresh(config)
    assert "full" in str(caught.value) or "make room" in str(caught.value)
    assert served(config) == before
    assert refresh(config).new_rows <= 1
    assert served(config) == (2, 201)
    chaos_refresh.look(config, 201)


def test_a_damaged_store_names_its_newest_backup(config: Settings) -> None:
    with closing(connections.connect(config.skills_db)) as connection:
        backup = migrate.backup(connection, config.skills_db)
        connection.execute("pragma wal_checkpoint(truncate)")
    with config.skills_db.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (config.skills_db.stat().st_size - 4096))
    with pytest.raises(SbError, match=f"not a readable SQLite .*restore .*{backup.name}"):
        refresh(config)
    assert served(config) == (1, 200)


def test_damage_that_only_write_back_meets_is_named_after_publishing(config: Settings) -> None:
    with closing(connections.connect(config.skills_db)) as connection:
        migrate.backup(connection, config.skills_db)
        connection.execute("pragma wal_checkpoint(truncate)")
    damage(config.skills_db, "idx_time_series_skill_timestamp")
    with pytest.raises(SbError, match=r"was published, but results were not written back: .*malfo"):
        refresh(config)
    assert served(config) == (2, 201)


def test_a_store_that_stays_locked_is_published_from(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers do not wait for a writer; what could not be written back comes with the next run."""
    monkeypatch.setattr(connections, "BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(config.skills_db, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(
            SbError, match=r"was published, but .*stayed locked.*write_back = false"
        ):
            refresh(config)
        assert served(config) == (2, 201)
        other.execute("rollback")
    refresh(config)
    chaos_refresh.look(config, 201)


def test_a_clock_that_steps_back_publishes_on(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snapshots are told apart by numbers, rows by ids; rows of the future count too."""
    earlier = times.now() - timedelta(hours=30)
    with monkeypatch.context() as patch:
        patch.setattr(times, "now", lambda: earlier)
        result = refresh(config)
    assert (result.snapshot_number, result.watermark_id) == (2, 201)
    assert served(config) == (2, 201)
    refresh(config)
    chaos_refresh.look(config, 201)


def test_a_warehouse_that_cannot_be_made_is_named(config: Settings) -> None:
    (config.home / "file").write_text("")
    wrong = settings_of(config.home, warehouse=config.home / "file" / "warehouse.duckdb")
    with pytest.raises(SbError, match=r"warehouse\.duckdb cannot be made: .* SB_WAREHOUSE"):
        refresh(wrong)


def test_ingest_survives_kill_9() -> None:
    """Two rounds of `tests/chaos/chaos_ingest.py`."""
    assert len(chaos_ingest.run(2, seed=int.from_bytes(os.urandom(4), "big"))) == 2


def test_a_refresh_survives_kill_9() -> None:
    """One round of `tests/chaos/chaos_refresh.py` in one step; another one each time."""
    step = random.choice(
        ["events", "skill_time_series", "skill_totals", "sets", "published_snapshot", "write_back"]
    )
    assert chaos_refresh.run(1, seed=random.randrange(2**32), only=[step]).keys() == {step}
