"""`success_predictor`: will a run complete? Trained, judged, and published if it is good enough.

Here: when a training is due, the copy that it reads, and what it leaves: arrays, a row of
`model_registry`, and pictures for the UI. The method is in `sb_pipelines.training.fit`, the meaning
of the numbers in `docs/statistics/predict.md`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from sb_pipelines import plots
from sb_pipelines.defs.automation import SLOW_GROUP
from sb_pipelines.resources import (
    OWNERS,
    RETRIES,
    Warehouse,
    one_row,
    set_watermark,
    user_failures,
    watermark,
)
from sb_pipelines.training import features, fit
from sb_serving import __version__, snapshot, sql, times
from sb_serving.predict import PREFIX
from sb_serving.settings import Settings
from sb_serving.stats.success import FEATURES

DUE_SHARE = 0.02
"""A training is due when so many of the runs are new, or ..."""
DUE_AFTER = timedelta(days=1)
"""... when anything is and the last one is as old as this: reading all history for an hour of news
would teach nothing."""
COPY = ".training-"
"""Start of the name of the folder that holds the copy of the events."""
DAY_SECONDS = 86_400.0
KEPT_VERSIONS = 100
"""Rows of `model_registry` that stay."""


def is_due(connection: duckdb.DuckDBPyConnection, now: datetime) -> bool:
    """Whether there is enough new to train again.

    Args:
        connection: The warehouse.
        now: Naive UTC.
    """
    known, _ = watermark(connection, "events")
    last = connection.execute(
        "select watermark_id, trained_at, code_version from model_registry"
        " order by version desc limit 1"
    ).fetchall()
    if not last:
        return True
    ((taught, trained_at, code_version),) = last
    if code_version != __version__ or known < taught:
        return True
    new = known - taught
    return bool(new > 0 and (new >= DUE_SHARE * known or now - trained_at >= DUE_AFTER))


def remove_leftovers(home: Path) -> None:
    """Remove copies that a killed training left; a day old, no training reads them any more."""
    for folder in home.glob(f"{COPY}*"):
        if time.time() - folder.stat().st_mtime > DAY_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def train(warehouse: Warehouse, now: datetime) -> fit.Learned | None:
    """Train on a copy and store what came out; the warehouse is free meanwhile.

    Args:
        warehouse: Has `events`.
        now: Outcomes known by then teach; naive UTC.

    Returns:
        What was learned; None where no training was due.
    """
    # Beside the warehouse: its disk has room for such a copy, and its folder is nobody else's.
    home = Path(warehouse.database).parent
    remove_leftovers(home)
    with tempfile.TemporaryDirectory(prefix=COPY, dir=home) as folder:
        copy = Path(folder) / "events.parquet"
        with warehouse.reading() as connection:
            if not is_due(connection, now):
                return None
            known, _ = watermark(connection, "events")
            quoted = str(copy).replace("'", "''")
            connection.execute(
                f"copy ({sql.load('training/events_copy.sql')}) to '{quoted}' (format parquet)"
            )
        with duckdb.connect() as connection:
            connection.execute("set TimeZone = 'UTC'")
            connection.read_parquet(str(copy)).create_view("events")
            first, last = one_row(connection, "select min(invoked_at), max(invoked_at) from events")
            history = features.from_warehouse(connection)
    cut = (now - datetime(1970, 1, 1)) // timedelta(microseconds=1)  # noqa: DTZ001 (both are UTC)
    learned = fit.learn(history, cut)
    with warehouse.writing() as connection:
        (version,) = one_row(connection, "select coalesce(max(version), 0) + 1 from model_registry")
        choice = learned.predictor.choice
        row = {
            "version": version,
            "trained_at": now,
            "watermark_id": known,
            "span_start": first,
            "span_end": last,
            "chosen": choice,
            "model_chosen": learned.predictor.model is not None,
            "reason": learned.reason,
            "n": learned.n,
            "n_judged": learned.judged,
            "features": ",".join(feature.name for feature in FEATURES),
            "report": json.dumps(learned.report(), allow_nan=False),
            "code_version": __version__,
        }
        names = ", ".join(row)
        connection.execute(
            f"insert into model_registry ({names}) values"  # noqa: S608
            f" ({', '.join(f'${name}' for name in row)})",
            row,
        )
        connection.execute(
            "delete from model_registry where version <= ?", [version - KEPT_VERSIONS]
        )
        put_arrays(connection, PREFIX, replace(learned.predictor, version=version).arrays())
        set_watermark(connection, "model_registry", known, now)
    return learned


def put_arrays(connection: duckdb.DuckDBPyConnection, prefix: str, arrays: dict[str, Any]) -> None:
    """Store arrays in place of all of one prefix, in the caller's transaction."""
    connection.execute("delete from arrays where starts_with(name, ?)", [prefix])
    for name, array in arrays.items():
        snapshot.put_array(connection, name, array)


def pictures(learned: fit.Learned) -> dict[str, Any]:
    """Scores, reliability and importances for the UI."""
    report = learned.report()
    lines = ["| method | AUC | log-loss | Brier | calibration error |", "|---|---|---|---|---|"]
    for method, by_metric in report["scores"].items():
        cells = [
            f"{one['value']:.4f} ({one['low']:.4f} to {one['high']:.4f})"
            for one in (by_metric[name] for name in ("auc", "log_loss", "brier", "ece"))
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    bins = [
        (
            f"up to {one['p_upper']:.3f}",
            one["completed"] / one["n"],
            f"{one['completed'] / one['n']:.1%} of {one['n']:,} completed",
        )
        for one in report["reliability"]
        if one["n"]
    ]
    moved = [(name, max(rise, 0.0), f"{rise:+.5f}") for name, rise in report["importance"].items()]
    most = max((rise for _, rise, _ in moved), default=0.0)
    served = report["scores"].get(
        fit.MODEL if learned.predictor.model is not None else "shrunk_rate", {}
    )
    return {
        "chosen": learned.predictor.choice,
        "reason": learned.reason,
        "runs_taught": learned.n,
        "runs_judged": learned.judged,
        **{name: one["value"] for name, one in served.items()},
        "scores_with_95_percent_intervals": dg.MetadataValue.md("\n".join(lines)),
        "reliability_completed_by_predicted": dg.MetadataValue.md(plots.bars(bins, 1.0)),
        "importance_rise_of_log_loss_when_shuffled": dg.MetadataValue.md(plots.bars(moved, most)),
    }


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            name,
            deps=["events"],
            group_name=SLOW_GROUP,
            owners=OWNERS,
            kinds={"python", "scikitlearn"},
            description=description,
        )
        for name, description in (
            (
                "success_predictor",
                "The model that says whether a run will complete, as arrays; the skill's shrunk"
                " rate where the model is no better.",
            ),
            ("model_registry", "One row per training: span, features, scores, chosen or not, why."),
        )
    ],
    name="training",
    retry_policy=RETRIES,
)
def training(warehouse: Warehouse) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
    """Train if enough is new. Not in the pool: the warehouse is open for copy and result alone."""
    with user_failures():
        learned = train(warehouse, times.now().replace(tzinfo=None))
        with warehouse.reading() as connection:
            versions, latest = one_row(
                connection, "select count(*), coalesce(max(version), 0) from model_registry"
            )
    told = {"trained": False} if learned is None else {"trained": True, **pictures(learned)}
    yield dg.MaterializeResult(asset_key="success_predictor", metadata={"version": latest, **told})
    yield dg.MaterializeResult(asset_key="model_registry", metadata={"dagster/row_count": versions})


def defs(settings: Settings) -> dg.Definitions:
    """Both assets, made by one step."""
    return dg.Definitions(assets=[training])
