"""`sb analyze`: any analytic on any event file, without server or state.

Belongs here: reading a file of events (or a `skills.db`) into one typed view, turning parameters
into arguments by the operations' own signatures, and one short function per operation that counts
with a file of `sql/analyze/` and calls the function that the assets call. Does not: the statistics
(`sb_serving.stats`, `sb_pipelines.training`).

An operation is a function whose keyword arguments are its parameters: names, types and defaults in
the help, the checks and the documentation all come from there.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NewType, get_args, get_origin, get_type_hints

import click
import duckdb
import numpy as np
from numpy.typing import NDArray

from sb_serving import sql, times
from sb_serving.errors import SbError
from sb_serving.events import KINDS, OUTCOMES
from sb_serving.stats import anomaly, trend
from sb_serving.store.checks import MAX_DURATION

Json = dict[str, Any]
Kind = NewType("Kind", str)
"""One of `KINDS`."""
From = NewType("From", datetime)
"""A time, UTC without offset; a date alone means its first moment."""
Count = NewType("Count", int)
"""A whole number from 1 on."""
Share = NewType("Share", float)
"""A number above 0 and below 1."""
Seconds = NewType("Seconds", float)
"""A length of time, 0 to ten years."""
Text = NewType("Text", str)
"""A text; a whole number is taken for its digits, as in the columns of a file."""
Until = NewType("Until", datetime)
"""A time, UTC without offset; a date alone means its last moment."""


# --- events


class Events:
    """The events of one file or database, counted by the files of `sql/analyze/`.

    Args:
        connection: A DuckDB connection that has the rows as `file`; the typed events are its view
            `events`.
        name: The file's name, for messages.
        strict: Whether `require` refuses values that mean nothing. Files are made for us and can
            be mended; in a `skills.db` such a value is unknown, as everywhere.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, name: str, *, strict: bool) -> None:
        self.connection = connection
        self._name = name
        self._strict = strict
        self._columns = set(connection.table("file").columns)
        connection.execute(f"create temp view given as {sql.load('analyze/given.sql')}")
        every, once = sql.load("analyze/events.sql"), sql.load("analyze/first_copies.sql")
        if strict and self._repeats_ids():
            connection.execute(f"create temp view all_events as {every}")
            connection.execute(f"create temp view events as {once}")
        else:
            connection.execute(f"create temp view events as {every}")

    def _repeats_ids(self) -> bool:
        """Whether ids are given and not unique; looking for copies costs more than this."""
        if "event_id" not in self._columns:
            return False
        try:
            row = self.connection.execute(
                "select count(event_id) > count(distinct event_id) from given"
            ).fetchone()
        except duckdb.Error as error:  # a later part of the file cannot be parsed
            raise SbError(f"{self._name} cannot be read: {str(error).splitlines()[0]}") from error
        return bool(row and row[0])

    @classmethod
    def from_file(cls, path: Path) -> Events:
        """Read Parquet, CSV or NDJSON, by the file's ending.

        Raises:
            SbError: The file is missing, damaged, or of another kind.
        """
        connection = _connect()
        readers: dict[str, Callable[[], duckdb.DuckDBPyRelation]] = {
            ".parquet": lambda: connection.read_parquet(str(path)),
            ".csv": lambda: connection.read_csv(str(path), header=True, all_varchar=True),
            ".ndjson": lambda: _read_json(connection, path),
            ".jsonl": lambda: _read_json(connection, path),
        }
        if not path.is_file():
            raise SbError(f"there is no file {path}")
        if path.suffix not in readers:
            raise SbError(
                f"{path} ends in {path.suffix or 'nothing'!r}",
                fix=f"Give a file that ends in {', '.join(readers)}.",
            )
        if path.suffix == ".csv" and path.stat().st_size == 0:
            raise SbError(f"{path} is empty", fix="Its first line names the columns.")
        try:
            readers[path.suffix]().create_view("file")
        except duckdb.Error as error:
            raise SbError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
        return cls(connection, path.name, strict=True)

    @classmethod
    def from_store(cls, path: Path) -> Events:
        """Read a `skills.db`; rows whose time cannot be read are left out, as everywhere.

        Raises:
            SbError: The file is missing or no event store.
        """
        from sb_serving.store import pruning, reader

        store = reader.connect_readonly(path)
        try:
            top = reader.max_id(store)
            through = pruning.pruned_through(store)
        finally:
            store.close()
        if through is not None:
            click.echo(
                f"{path}: events up to {through} were pruned; only later ones count", err=True
            )
        connection = _connect()
        with reader.arrow_events(path, 0, top) as arriving:  # noqa: F841 (DuckDB finds it by name)
            connection.execute(f"create temp table file as {sql.load('analyze/readable.sql')}")
        return cls(connection, path.name, strict=False)

    def has(self, column: str) -> bool:
        """Whether the file has a column."""
        return column in self._columns

    def require(self, *columns: str) -> None:
        """Check that columns are there and that their values mean something.

        Args:
            *columns: Names; `outcome` may also come from `completed`.

        Raises:
            SbError: A column is missing, or a value in it is refused; names both.
        """
        for column in columns:
            if column not in self._columns and not (
                column == "outcome" and "completed" in self._columns
            ):
                raise SbError(
                    f"{self._name} has no column {column!r}"
                    + (" and no column 'completed'" if column == "outcome" else ""),
                    fix=f"Its columns are: {', '.join(sorted(self._columns))}.",
                )
        if self._strict:
            self._refuse(*columns, *(("completed",) if "outcome" in columns else ()))

    def _refuse(self, *columns: str) -> None:
        try:
            found = self.connection.execute(
                sql.load("analyze/refused.sql"), {"outcomes": OUTCOMES, "kinds": KINDS}
            )
            names = [column for column, *_ in found.description or []]
            refused = dict(zip(names, found.fetchone() or (), strict=True))
        except duckdb.Error as error:  # a later part of the file cannot be parsed
            raise SbError(f"{self._name} cannot be read: {str(error).splitlines()[0]}") from error
        for column in columns:
            bad = refused.get(column, {"n": 0})
            if bad["n"]:
                raise SbError(
                    f"{column} = {bad['example']!r} is {EXPECTED[column]} ({bad['n']} rows)"
                )

    def count(self, query: str, **parameters: object) -> dict[str, NDArray[Any]]:
        """Run `sql/analyze/<query>.sql` and return its columns."""
        found = self.connection.execute(sql.load(f"analyze/{query}.sql"), parameters)
        return {name: np.ma.getdata(column) for name, column in found.fetchnumpy().items()}

    def span(self) -> tuple[datetime, datetime] | None:
        """First and last start, UTC without offset; None without events."""
        row = self.connection.execute(sql.load("analyze/span.sql")).fetchone()
        return None if row is None or row[0] is None else (row[0], row[1])


EXPECTED = {
    "skill_name": "no name of a skill",
    "invoked_at": "no ISO 8601 time",
    "outcome": f"none of {', '.join(OUTCOMES)}",
    "completed": "neither true nor false",
    "kind": f"none of {', '.join(KINDS)}",
    "duration_seconds": "no number of seconds from 0 to 1e12",
}


def _connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("set TimeZone = 'UTC'")
    return connection


def _read_json(connection: duckdb.DuckDBPyConnection, path: Path) -> duckdb.DuckDBPyRelation:
    # A column may first appear far down the file, so all of it is looked at; then its values are
    # read as text, like those of a CSV file, whatever they look like there.
    found = connection.read_json(str(path), format="newline_delimited", sample_size=-1)
    names = found.columns
    if names == ["json"] and not found.limit(1).fetchall():
        names = [*EXPECTED, "session_id", "user_id"]  # no line, no event: nothing is missing
    text: dict[str, Any] = dict.fromkeys(names, "VARCHAR")
    return connection.read_json(str(path), format="newline_delimited", columns=text)


# --- operations


def trends(
    events: Events,
    *,
    end: Until | None = None,
    days: Sequence[Count] = (Count(7), Count(30), Count(90)),
    metric: trend.Metric = "completion_rate",
) -> Json:
    """Which skills get better or worse, over windows that end with the day of `end`."""
    needs = {"completion_rate": ["outcome"], "avg_duration_seconds": ["duration_seconds"]}
    events.require("skill_name", "invoked_at", *needs.get(metric, []))
    span = events.span()
    if span is None:
        return {"trends": []}
    until = end or span[1]
    rows = events.count("daily", until=until)
    daily = trend.Daily.from_rows(rows.pop("skill_name").tolist(), rows.pop("day"), **rows)
    midnight = until.replace(hour=0, minute=0, second=0, microsecond=0)
    passed = {name: float(n[0]) for name, n in events.count("time_of_day", until=until).items()}
    share = trend.share_of_day(**passed, elapsed=(until - midnight) / timedelta(days=1))
    found = [
        one
        for window in days
        for one in trend.scan(
            daily,
            end=(midnight - datetime(1970, 1, 1)).days,  # noqa: DTZ001 (both are UTC)
            days=window,
            metric=metric,
            end_share=share,
        )
    ]
    fields = (
        "skill_name", "days", "trend", "slope_per_day", "slope_low", "slope_high", "start_value",
        "end_value", "change_percent", "p_value", "q_value", "n",
    )  # fmt: skip
    return {"trends": [{field: getattr(one, field) for field in fields} for one in found]}


def baselines(events: Events, *, min_users: Count = Count(1)) -> Json:
    """Completion rates shrunk toward the community's, for skills of at least `min_users` users."""
    from sb_serving.stats import baseline

    events.require("skill_name", "outcome")
    rows = events.count("baselines")
    found = baseline.baselines(
        rows["skill_name"].tolist(),
        rows["completed"],
        rows["decided"],
        rows["users"],
        min_users=min_users,
    )
    return {"baselines": [asdict(one) for one in found]}


def lift(
    events: Events, *, min_count: Count = Count(5), q: Share = Share(0.05), kind: Kind | None = None
) -> Json:
    """Which skills share sessions more often than chance and session sizes explain."""
    from sb_serving.stats import lift as method

    events.require("skill_name", "session_id", *(["kind"] if kind else []))
    names, session, skill = _sessions(events, kind)
    counts = method.count_pairs(method.session_matrix(session, skill, len(names)))
    pairs = method.lift(names, counts, min_count=min_count, q=q)
    return {"pairs": [_without(asdict(pair), "expected") for pair in pairs]}


def anomalies(
    events: Events,
    *,
    score_from: From,
    q: Share = Share(0.05),
    metrics: Sequence[anomaly.Metric] = anomaly.METRICS,
) -> Json:
    """Windows in which skills leave what is expected; history before `score_from` teaches it."""
    needs = {"completion": ["outcome"], "duration": ["duration_seconds"]}
    needed = [column for metric in metrics for column in needs.get(metric, [])]
    events.require("skill_name", "invoked_at", *needed)
    span = events.span()
    if span is None:
        return {"anomalies": []}
    rows = events.count("hourly")
    names, skill = np.unique(rows.pop("skill_name").astype(str), return_inverse=True)
    # The last hour counts as over once the events reach its last five minutes.
    end = _hour(span[1] + timedelta(minutes=5))
    report = anomaly.find_anomalies(
        names.tolist(),
        anomaly.HourlyCounts(skill=skill.astype(np.int64), **rows),
        score_from=_hour(score_from),
        end=end,
        q=q,
        metrics=metrics,
    )
    found = [asdict(one) for one in report.anomalies]
    for one in found:
        for edge in ("window_start", "window_end"):
            one[edge] = times.to_utc_text(one[edge])
    return {"anomalies": found}


def clusters(events: Events, *, k: Count | None = None) -> Json:
    """Groups of skills that are used together, and whether there are any."""
    from sb_pipelines.training import clusters as method

    events.require("skill_name", "session_id")
    found = method.cluster_skills(*_sessions(events, None), k=k)
    return {
        "clusters": [asdict(member) for member in found.clusters],
        "k": found.k,
        "largest_share": found.largest_share,
        "stability": found.stability,
        "structure": found.structure,
    }


def predict(
    events: Events, *, train_until: From, known_delay_seconds: Seconds = Seconds(0)
) -> Json:
    """How likely each event from `train_until` on is to complete, from what was known before it."""
    from sb_pipelines.training import features, fit

    known = ("duration_seconds",) if events.has("duration_seconds") else ()
    events.require("skill_name", "invoked_at", "outcome", *known)
    history = features.from_file(events.connection, timedelta(seconds=known_delay_seconds))
    moment: datetime = train_until
    cut = (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)  # noqa: DTZ001 (both are UTC)
    learned = fit.learn(history, cut)
    p: dict[str, float] = {}
    if learned.predictor.choice != "not_enough_data":
        later = np.flatnonzero(history.asked_at >= cut)
        ids = events.count("predicted")["event_id"][later].tolist()
        p = dict(zip(ids, learned.predictor.probability(history.rows(later)).tolist(), strict=True))
        if len(p) < len(ids):
            raise SbError(
                f"event_id is not unique: {len(ids)} events have {len(p)} ids",
                fix="Give every event an id of its own, or leave the column out.",
            )
    return {"p": p, "model": learned.predictor.choice, "metrics": learned.report()}


def recommend(events: Events, *, users: Sequence[Text], k: Count = Count(10)) -> Json:
    """Skills that users have not used and that would suit them, best first."""
    from sb_pipelines.training import recommend as method

    events.require("skill_name", "user_id", *(["outcome"] if events.has("outcome") else []))
    recommender, _ = method.learn(method.count_uses(events.connection))
    return {
        "recommendations": {
            user: [
                asdict(one) for one in recommender.suggest(user, recommender.skills_of(user), k=k)
            ]
            for user in users
        }
    }


OPERATIONS: dict[str, Callable[..., Json]] = {
    operation.__name__: operation
    for operation in (lift, anomalies, trends, baselines, clusters, predict, recommend)
}


def _sessions(
    events: Events, kind: str | None
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Names of the skills, and rows of (session, skill), all numbered from 0."""
    rows = events.count("session_skill", kind=kind)
    _, first = np.unique(rows["skill"], return_index=True)
    return rows["skill_name"][first].tolist(), rows["session"], rows["skill"]


def _hour(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1)) / timedelta(hours=1))  # noqa: DTZ001 (both are UTC)


def _without(row: Json, name: str) -> Json:
    return {key: value for key, value in row.items() if key != name}


# --- parameters


def read_parameters(operation: Callable[..., Json], given: Json) -> Json:
    """Turn JSON values into an operation's keyword arguments.

    Args:
        operation: One of `OPERATIONS`.
        given: Parameters by name.

    Raises:
        SbError: An unknown or missing parameter, or a value of the wrong form; names it.
    """
    hints = get_type_hints(operation)
    known = {
        name: parameter
        for name, parameter in inspect.signature(operation).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    fix = f"Its parameters are: {', '.join(known)}."
    for name in given:
        if name not in known:
            raise SbError(f"{operation.__name__} has no parameter {name!r}", fix=fix)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in given:
            raise SbError(f"{operation.__name__} needs the parameter {name!r}", fix=fix)
    arguments = {}
    for name, value in given.items():
        try:
            arguments[name] = _convert(hints[name], value)
        except ValueError as error:
            raise SbError(f"{name} = {json.dumps(value)} is {error}") from None
    return arguments


_VALUES: dict[Any, tuple[Any, Callable[[Any], bool], str]] = {
    Count: (int, lambda n: 1 <= n < 2**31, "no whole number from 1 on"),
    Share: (float, lambda x: 0.0 < x < 1.0, "no number above 0 and below 1"),
    Seconds: (
        int | float,
        lambda x: 0 <= x <= MAX_DURATION,
        "no number of seconds up to ten years",
    ),
    Kind: (str, lambda name: name in KINDS, f"none of {', '.join(KINDS)}"),
    Text: (str | int, lambda _: True, "no text"),
}
"""Type -> what JSON gives for it, which values are allowed, and what any other is."""


def _convert(hint: Any, value: Any) -> Any:
    """A JSON value as a type of a signature; ValueError says what it is not."""
    choices = get_args(hint)
    if NoneType in choices:
        (inner,) = (choice for choice in choices if choice is not NoneType)
        return None if value is None else _convert(inner, value)
    if get_origin(hint) is Literal:
        if value not in choices:
            raise ValueError(f"none of {', '.join(choices)}")
        return value
    if get_origin(hint) is Sequence:
        if not isinstance(value, list) or not value:
            raise ValueError("no list with values")
        return [_convert(choices[0], item) for item in value]
    if hint in _VALUES:
        types, allowed, words = _VALUES[hint]
        if not isinstance(value, types) or isinstance(value, bool) or not allowed(value):
            raise ValueError(words)
        return str(value) if hint is Text else value
    if hint in (From, Until):
        return _moment(value, end_of_day=hint is Until)
    raise TypeError(f"no JSON value becomes {hint}")


def _moment(value: Any, *, end_of_day: bool) -> datetime:
    if not isinstance(value, str):
        raise ValueError("no ISO 8601 time")
    try:
        moment = times.from_text(times.to_utc_text(value)).astimezone(UTC).replace(tzinfo=None)
    except ValueError:
        raise ValueError("no ISO 8601 time") from None
    if end_of_day and len(value) == len("2024-01-31"):
        moment += timedelta(days=1, microseconds=-1)
    return moment


def describe(operation: Callable[..., Json]) -> str:
    """One line: name, parameters with their defaults, and what it answers."""
    parameters = [
        name if p.default is p.empty else f"{name}={json.dumps(p.default)}"
        for name, p in inspect.signature(operation).parameters.items()
        if p.kind is p.KEYWORD_ONLY
    ]
    return f"{operation.__name__}({', '.join(parameters)}): {inspect.getdoc(operation)}"


def _load_parameters(text: str) -> Json:
    """JSON, or the name of a file that holds it."""
    if not text.lstrip().startswith("{"):
        path = Path(text)
        if not path.is_file():
            raise SbError(f"--params {text!r} is neither a JSON object nor a file")
        text = path.read_text(encoding="utf-8")
    try:
        loaded = json.loads(text)
    except json.JSONDecodeError as error:
        raise SbError(f"--params is not valid JSON: {error}") from None
    if not isinstance(loaded, dict):
        raise SbError("--params is not a JSON object", fix='Write {"name": value}.')
    return loaded


# --- the command


def analyze(name: str, events: Events, given: Json) -> Json:
    """Run one operation.

    Args:
        name: A key of `OPERATIONS`.
        events: What to analyze.
        given: Parameters, JSON values by name.

    Returns:
        The answer, ready for JSON.

    Raises:
        SbError: A parameter or the data is refused; names what and why.
    """
    operation = OPERATIONS[name]
    arguments = read_parameters(operation, given)
    try:
        return operation(events, **arguments)
    except ValueError as error:
        # What depends on the data is checked by the statistics, which name the parameter. Any other
        # ValueError is a mistake of ours.
        if not any(re.search(rf"\b{parameter}\b", str(error)) for parameter in arguments):
            raise
        raise SbError(str(error)) from error


@click.command(epilog="\n\n".join(["Operations:", *(describe(one) for one in OPERATIONS.values())]))
@click.argument("op", type=click.Choice(list(OPERATIONS)), metavar="OP")
@click.option(
    "--events",
    "events_file",
    type=click.Path(path_type=Path),
    help="Parquet, CSV or NDJSON file of events.",
)
@click.option("--db", "skills_db", type=click.Path(path_type=Path), help="A skills.db.")
@click.option("--params", default="{}", help="Parameters: a JSON object, or a file that holds it.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write here, not to stdout."
)
def command(
    op: str, events_file: Path | None, skills_db: Path | None, params: str, out: Path | None
) -> None:
    """Run one analytic on a file of events and print its answer as JSON."""
    given = _load_parameters(params)
    read_parameters(OPERATIONS[op], given)  # before a large file is read
    if events_file and not skills_db:
        events = Events.from_file(events_file)
    elif skills_db and not events_file:
        events = Events.from_store(skills_db)
    else:
        raise SbError("give either --events FILE or --db FILE")
    text = json.dumps(analyze(op, events, given), indent=2, allow_nan=False)
    if out:
        out.write_text(text + "\n", encoding="utf-8")
    else:
        click.echo(text)
