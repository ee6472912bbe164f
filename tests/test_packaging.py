"""A built wheel carries everything that the program reads, and works away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    target = folder / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def test_the_wheel_carries_every_sql_file(unpacked: Path) -> None:
    for source in (ROOT / "sql").rglob("*.sql"):
        packed = unpacked / "sb_serving" / "_sql" / source.relative_to(ROOT / "sql")
        assert packed.read_text() == source.read_text()
    assert (unpacked / "sb_pipelines" / "dagster.yaml").exists()
    assert (unpacked / "sb_serving" / "sources" / "phases.toml").exists()
    assert not list(unpacked.glob("tests*"))


def test_the_wheel_works_outside_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    code = (
        "import sb_serving, sb_serving.sql; from sb_pipelines.cli import main;"
        f"assert sb_serving.__file__.startswith({str(unpacked)!r}), sb_serving.__file__;"
        "assert '_sql' in str(sb_serving.sql.root());"
        "import sys; sys.argv = ['sb', 'demo', '--rows', '50']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "50 demo invocations added" in done.stdout
