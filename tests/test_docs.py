"""The documents say what the code does: settings, flags, tables, and every snippet that can run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

from sb_pipelines import cli
from sb_serving import sql
from sb_serving.settings import Settings
from tests.builders import new_store

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_every_setting_is_documented_and_every_documented_one_exists() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \| `SB_(\w+)` \|", page, flags=re.M)
    names = {field.name for field in fields(Settings)}
    assert {name for name, _ in documented} == names
    assert all(variable == name.upper() for name, variable in documented)


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands(found, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", found


def test_every_command_and_flag_is_documented_and_every_documented_one_exists() -> None:
    pages = "\n".join((ROOT / "docs" / name).read_text() for name in ("cli.md", "analyze.md"))
    known = set()
    for name, command in commands(cli.sb):
        assert f"`sb {name.split()[0]}`" in pages, name
        for parameter in command.params:
            known |= {flag for flag in parameter.opts if flag.startswith("--")}
    known |= {"--help"}
    documented = set(re.findall(r"--[a-z][a-z-]+", pages))
    assert known - documented == set(), "not documented"
    assert documented - known == set(), "documented but not there"


def test_every_table_and_view_is_documented(tmp_path: Path) -> None:
    page = (ROOT / "docs/store.md").read_text()
    with new_store(tmp_path) as store:
        names = {
            name
            for (name,) in store.connection.execute(
                "select name from sqlite_master where type in ('table', 'view')"
                " and name not like 'sqlite_%' and name not like 'skill_invocation_fts_%'"
            )
        }
    documented = set(re.findall(r"`([a-z]\w+)`", page))
    assert names - documented == set()
    views = {path.stem for path in (sql.root() / "views").glob("*.sql")}
    assert views == {name for name in names if name.startswith("v_")}


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []


def snippets(language: str) -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for number, code in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.M | re.S)
        ):
            found.append((f"{page.relative_to(ROOT)}-{number}", code))
    return found


@pytest.mark.parametrize(("where", "code"), snippets("sh"), ids=lambda value: value[:40])
def test_shell_snippets_run(where: str, code: str, tmp_path: Path) -> None:
    """Fences marked `sh` run as they stand; those that serve until Ctrl-C are marked `console`."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    new_store(Path(os.environ["SB_HOME"])).close()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{where}: {shlex.quote(done.stderr[-2000:])}"


PYTHON_PAGES = sorted({where.rpartition("-")[0] for where, _ in snippets("python")})


@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_python_snippets_run(page: str, tmp_path: Path) -> None:
    """The snippets of a page run one after another, as a reader would type them."""
    code = "\n".join(code for where, code in snippets("python") if where.startswith(f"{page}-"))
    new_store(Path(os.environ["SB_HOME"])).close()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{page}: {done.stderr[-2000:]}"
