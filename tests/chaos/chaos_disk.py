"""Fills a small disk under a running installation: clear words, nothing half, and it heals.

`python -m tests.chaos.chaos_disk` mounts a tmpfs, for which it must be root, and prints what each
part said. The suite does the same by a limit on file sizes (`tests/test_faults_pipeline.py`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sb_pipelines.refresh import refresh
from sb_serving.errors import SbError
from sb_serving.snapshot import SnapshotHolder
from sb_serving.store import Store
from tests.builders import invocation
from tests.chaos import chaos_refresh

MEGABYTES = 64
LEFT = (0, 64, 256, 512, 1024, 4096)
"""Kilobytes that are left on the disk: each part meets its end somewhere else."""


def run() -> dict[int, str]:
    """Refresh with ever more room, from none on, then with enough.

    Returns:
        By kilobytes left, what the refresh said.

    Raises:
        AssertionError: Something was half done, nothing was served, or it did not heal.
    """
    said = {}
    with tempfile.TemporaryDirectory() as name, _small_disk(Path(name)) as disk:
        settings = chaos_refresh.prepared(disk / "home")
        ballast = disk / "ballast"
        for left in LEFT:
            _fill(ballast, left)
            try:
                refresh(settings)
                said[left] = "published"
            except SbError as error:
                said[left] = str(error)
            holder = SnapshotHolder(settings.snapshots)
            with holder.pin() as served:
                assert served is not None
                assert holder.refused == ()
            holder.close()
            ballast.unlink()
        _fill(ballast, 0)
        try:
            with Store.open(settings.skills_db) as store:
                store.bulk_import(
                    invocation(number, event_id=f"{number}x") for number in range(2000)
                )
            raise AssertionError("a full disk took 2,000 events")
        except SbError as error:
            said[-1] = str(error)
        ballast.unlink()
        refresh(settings)
        chaos_refresh.look(settings, chaos_refresh.OLD + chaos_refresh.NEW)
    return said


@contextmanager
def _small_disk(place: Path) -> Iterator[Path]:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(place)], check=True
    )
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _fill(ballast: Path, kilobytes: int) -> None:
    """Leave so much room on the disk."""
    status = os.statvfs(ballast.parent)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - kilobytes * 1024)


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("chaos_disk mounts a tmpfs and must be root; skipped")
    for left, words in run().items():
        print(f"{'recording' if left < 0 else f'{left} kB left':>12}: {words}")
