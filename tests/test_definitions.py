"""What Dagster is told: names, dependencies, owners, pools, schedules, and files around them."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

import sb_pipelines
from sb_pipelines import definitions, launcher
from sb_pipelines.defs import publish
from sb_pipelines.launcher import dagster_command, prepare_home
from sb_serving import times
from sb_serving.errors import SbError
from sb_serving.settings import Settings

BASE = {
    "skills_db": ("sources", {"sqlite"}, None, []),
    "events": ("ingest", {"duckdb"}, "warehouse", ["skills_db"]),
    "skill_time_series": ("series", {"duckdb"}, "warehouse", ["events"]),
    "skill_totals": ("series", {"duckdb"}, "warehouse", ["events"]),
    "session_skill": ("series", {"duckdb"}, "warehouse", ["events"]),
    "user_skill": ("series", {"duckdb"}, "warehouse", ["events"]),
    "skill_session_size": ("series", {"duckdb"}, "warehouse", ["events"]),
    "pair_count": ("series", {"duckdb"}, "warehouse", ["events"]),
    "skill_categories": ("ingest", {"duckdb"}, "warehouse", ["skills_db", "events"]),
    "expected_dependencies": ("ingest", {"duckdb"}, "warehouse", ["skills_db", "events"]),
    "skill_community_baselines": (
        "results",
        {"python", "duckdb"},
        "warehouse",
        ["skill_time_series", "skill_totals", "user_skill"],
    ),
    "skill_dependencies": (
        "models",
        {"python", "duckdb"},
        "warehouse",
        ["skill_session_size", "pair_count", "skill_totals", "expected_dependencies"],
    ),
    "skill_clusters": (
        "models",
        {"python", "duckdb"},
        "warehouse",
        ["session_skill", "skill_session_size", "skill_totals"],
    ),
    "skill_cluster_membership": (
        "models",
        {"python", "duckdb"},
        "warehouse",
        ["session_skill", "skill_session_size", "skill_totals"],
    ),
    "skill_trends": (
        "models",
        {"python", "duckdb"},
        "warehouse",
        ["skill_time_series", "skill_totals"],
    ),
    "predictor_totals": ("series", {"duckdb"}, "warehouse", ["events"]),
    "success_predictor": ("models", {"python", "scikitlearn"}, None, ["events"]),
    "model_registry": ("models", {"python", "scikitlearn"}, None, ["events"]),
    "user_similarity": ("models", {"python", "duckdb"}, "warehouse", ["events"]),
    "skill_anomalies": ("results", {"python", "duckdb"}, "warehouse", ["skill_time_series"]),
    "published_snapshot": ("serving", {"duckdb"}, "warehouse", list(publish.PUBLISHED)),
    "write_back": ("serving", {"sqlite", "duckdb"}, "warehouse", ["published_snapshot"]),
}
"""Asset -> group, kinds, pool, dependencies."""

CHECKS = {
    ("events", "events_complete", True),
    ("skill_time_series", "rows_are_possible", True),
    ("skill_totals", "series_sums_to_totals", True),
    ("skill_trends", "trends_are_possible", True),
    ("skill_community_baselines", "baselines_are_possible", True),
    ("skill_dependencies", "dependencies_are_possible", True),
    ("skill_clusters", "clusters_are_possible", True),
    ("skill_anomalies", "anomalies_are_possible", True),
    ("skill_time_series", "equals_recount", False),
    ("skill_totals", "equals_recount", False),
    ("pair_count", "equals_recount", False),
    ("skill_dependencies", "equals_recount", False),
    ("predictor_totals", "equals_recount", False),
}
"""Asset, check, whether it blocks."""


@pytest.fixture(scope="module")
def built() -> dg.Definitions:
    return definitions.build(Settings.load(home="/nowhere"))


@pytest.fixture(scope="module")
def graph(built: dg.Definitions) -> Any:
    return built.resolve_asset_graph()


def test_definitions_load(built: dg.Definitions) -> None:
    """Nothing of the folder is touched, and no file has to be there."""
    dg.Definitions.validate_loadable(built)
    assert not Path("/nowhere").exists()


@pytest.mark.parametrize("name", BASE)
def test_the_base_assets_are_as_documented(graph: Any, name: str) -> None:
    group, kinds, pool, deps = BASE[name]
    node = graph.get(dg.AssetKey(name))
    assert node.group_name == group
    assert node.kinds == kinds
    assert (node.pools or set()) == ({pool} if pool else set())
    assert sorted(key.to_user_string() for key in node.parent_keys) == sorted(deps)


def test_every_asset_has_an_owner_a_group_and_a_description(graph: Any) -> None:
    for node in graph.asset_nodes:
        name = node.key.to_user_string()
        if node.is_materializable:
            assert node.owners == ["team:analytics"], name
        assert node.group_name != "default", name
        assert node.description, name


def test_every_asset_that_opens_the_warehouse_waits_in_its_pool(graph: Any) -> None:
    for node in graph.asset_nodes:
        if node.is_materializable and "duckdb" in node.kinds:
            assert node.pools == {"warehouse"}, node.key


def test_the_base_checks_are_as_documented(built: dg.Definitions) -> None:
    found = {
        (spec.asset_key.to_user_string(), spec.name, spec.blocking)
        for check in built.asset_checks or []
        for spec in check.check_specs
    }
    assert found >= CHECKS


def test_only_the_series_is_partitioned_by_days_up_to_today(graph: Any) -> None:
    """Each partition's event costs Dagster 40 ms of CPU: one asset, and days."""
    partitioned = [node for node in graph.asset_nodes if node.partitions_def is not None]
    assert [node.key.to_user_string() for node in partitioned] == ["skill_time_series"]
    (series,) = partitioned
    assert series.backfill_policy == dg.BackfillPolicy.single_run()
    assert series.partitions_def.get_first_partition_key() == "2024-01-01"
    assert series.partitions_def.get_last_partition_key() == times.now().date().isoformat()


def test_freshness_is_promised_where_people_look(graph: Any) -> None:
    promised = {
        node.key.to_user_string()
        for node in graph.asset_nodes
        if node.freshness_policy_or_from_metadata is not None
    }
    assert promised >= {"events", "published_snapshot"}


def test_automation_runs_without_being_switched_on(built: dg.Definitions) -> None:
    sensor = built.resolve_sensor_def("new_events")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == Settings.load().refresh_seconds
    assert built.resolve_sensor_def("first_models").default_status == (
        dg.DefaultSensorStatus.RUNNING
    )
    crons = {
        "hourly": "0 * * * *",
        "hourly_models": "30 * * * *",
        "weekly_audit": "20 4 * * 0",
    }
    for name, cron in crons.items():
        schedule = built.resolve_schedule_def(name)
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
        assert schedule.cron_schedule == cron


def test_a_refresh_leaves_the_audit_out(built: dg.Definitions) -> None:
    steps = {node.name for node in built.resolve_job_def("refresh").nodes}
    assert {"events", "skill_time_series", "skill_totals", "published_snapshot"} <= steps
    assert not any("equals_recount" in step or "trends" in step for step in steps)
    assert "write_back" in steps
    audit = {node.name for node in built.resolve_job_def("audit").nodes}
    assert audit == {
        f"{table}_equals_recount"
        for table in (
            *("skill_time_series", "skill_totals", "pair_count", "predictor_totals"),
            "skill_dependencies",
        )
    }
    full = {node.name for node in built.resolve_job_def("full_refresh").nodes}
    assert full >= steps
    assert not any("equals_recount" in step for step in full)


def test_the_models_are_computed_and_then_published(built: dg.Definitions) -> None:
    steps = {node.name for node in built.resolve_job_def("models").nodes}
    assert {"skill_trends", "skill_trends_trends_are_possible", "published_snapshot"} <= steps
    assert not {"events", "skill_time_series", "skill_totals"} & steps


def test_partitions_that_start_in_the_future_are_refused() -> None:
    tomorrow = (times.now() + timedelta(days=1)).date().isoformat()
    with pytest.raises(SbError, match=f"partitions_start = {tomorrow} lies in the future"):
        definitions.build(Settings.load(partitions_start=tomorrow))


def test_importing_the_definitions_reads_no_settings(tmp_path: Path) -> None:
    """A broken sb.toml must not break `import`; it is reported when definitions are loaded."""
    (tmp_path / "sb.toml").write_text("no_such_setting = 1")
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from sb_pipelines import definitions\n"
        "import sys; assert not {'sklearn', 'pandas', 'scipy'} & set(sys.modules), 'heavy'\n"
        "try: definitions.defs()\n"
        "except Exception as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"SB_HOME": str(tmp_path), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "unknown setting 'no_such_setting'" in result.stdout


# --- the files that Dagster is started with -------------------------------------------------------


def test_both_workspace_files_name_the_same_location() -> None:
    """A sensor's state belongs to the location's name."""
    package = Path(sb_pipelines.__file__).parent
    packaged = yaml.safe_load((package / "workspace.yaml").read_text())
    assert packaged["load_from"] == [
        {
            "python_module": {
                "module_name": "sb_pipelines.definitions",
                "location_name": "sb_pipelines",
            }
        }
    ]
    top = package.parent / "workspace.yaml"
    assert yaml.safe_load(top.read_text()) == packaged


def test_the_packaged_instance_file_is_understood(sb_home: Path) -> None:
    settings = Settings.load()
    home = prepare_home(settings)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.telemetry_enabled is False
        pools = instance.get_concurrency_config().pool_config
        assert pools.default_pool_limit == 1
        assert pools.pool_granularity is not None
        assert pools.pool_granularity.value == "run"
        assert instance.managed_python_loggers == ["sb_pipelines"]
        assert instance.run_retries_enabled
        assert (
            not instance.run_retries_retry_on_asset_or_op_failure
            if hasattr(instance, "run_retries_retry_on_asset_or_op_failure")
            else True
        )


def test_an_edited_instance_file_stays(sb_home: Path) -> None:
    settings = Settings.load()
    settings.dagster_home.mkdir()
    (settings.dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    prepare_home(settings)
    assert (settings.dagster_home / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


def test_a_home_that_cannot_be_made_says_so(sb_home: Path) -> None:
    (sb_home / "file").write_text("")
    with pytest.raises(SbError, match=r"dagster_home = .*file/dagster cannot be made"):
        prepare_home(Settings.load(dagster_home=sb_home / "file" / "dagster"))


def test_dagster_is_started_on_loopback_with_the_callers_settings(sb_home: Path) -> None:
    """Flags reach the runs, which read the environment only."""
    settings = Settings.load(dagster_port=4567, write_back=False, keep_snapshots=7)
    argv, environment = dagster_command(settings)
    assert argv[:4] == [sys.executable, "-m", "dagster", "dev"]
    assert argv[argv.index("-h") + 1] == "127.0.0.1"
    assert argv[argv.index("-p") + 1] == "4567"
    assert Path(argv[argv.index("-w") + 1]).is_file()
    assert environment["DAGSTER_HOME"] == str(settings.dagster_home)
    assert environment["SB_KEEP_SNAPSHOTS"] == "7"
    assert environment["SB_WRITE_BACK"] == "False"
    assert "PATH" in environment
    assert (settings.dagster_home / "dagster.yaml").is_file()


def test_dagster_that_ends_by_itself_is_told(
    sb_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = [sys.executable, "-c", "print('port in use')"]
    monkeypatch.setattr(launcher, "dagster_command", lambda settings: (ending, dict(os.environ)))
    with pytest.raises(SbError, match=r"Dagster ended by itself\. See .*dagster\.log"):
        launcher.run(Settings.load())
    assert (sb_home / "logs" / "dagster.log").read_text() == "port in use\n"


def test_a_broken_setting_is_one_line(sb_home: Path) -> None:
    (sb_home / "sb.toml").write_text("dagster_port = 0")
    done = subprocess.run(
        [sys.executable, "-m", "sb_pipelines"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("dagster_port = 0 (from ")
    assert len(done.stderr.splitlines()) == 1


def test_with_arguments_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sb_pipelines", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("sb, version")


def test_the_page_names_what_there_is(built: dg.Definitions) -> None:
    """Every base asset, check, job, sensor and schedule, and the settings that are spoken of."""
    page = (Path(sb_pipelines.__file__).parent.parent / "docs" / "pipelines.md").read_text()
    names = {*BASE, *(check for _, check, _ in CHECKS), "warehouse"}
    names |= {job.name for job in built.jobs or []}
    names |= {sensor.name for sensor in built.sensors or []}
    names |= {schedule.name for schedule in built.schedules or []}
    assert {name for name in names if f"`{name}`" not in page} == set()
