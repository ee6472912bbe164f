"""The predictor and the recommendations from the warehouse to what a snapshot gives back."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb_pipelines.defs import events, predictor, similarity
from sb_pipelines.resources import SkillsDb, set_watermark
from sb_pipelines.training import fit
from sb_serving import demo, predict
from sb_serving.errors import SbError
from sb_serving.predict import Predictor
from sb_serving.recommend import PREFIX, Recommender
from sb_serving.stats.success import FEATURES
from sb_serving.store import Store
from tests.predictor_builder import NAIVE, NOW, Place, make, warehouse_in


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make(tmp_path_factory.mktemp("predictor"))


def test_a_training_leaves_a_row_that_says_what_is_served_and_why(place: Place) -> None:
    row = place.rows("from model_registry order by version")[0]
    assert (row["version"], row["trained_at"], row["watermark_id"]) == (1, NAIVE, 3_000)
    assert (row["chosen"], row["model_chosen"]) == ("forest_and_logistic", True)
    assert "better than the skill's shrunk rate" in row["reason"]
    assert row["features"].split(",") == [feature.name for feature in FEATURES]
    assert row["span_start"] < row["span_end"] < NAIVE
    report = json.loads(row["report"])
    scores = report["scores"]
    assert {"base_rate", "shrunk_rate", "boosting", "forest_and_logistic"} <= set(scores)
    served, rate = scores["forest_and_logistic"]["log_loss"], scores["shrunk_rate"]["log_loss"]
    assert served["low"] <= served["value"] <= served["high"]
    assert served["value"] < rate["value"]


def test_the_ui_sees_scores_reliability_and_importances(place: Place) -> None:
    told = predictor.pictures(place.learned)
    assert told["auc"] > 0.6
    table = told["scores_with_95_percent_intervals"].value
    assert "| shrunk_rate | " in table
    assert "completed" in told["reliability_completed_by_predicted"].value
    assert "session_failures" in told["importance_rise_of_log_loss_when_shuffled"].value


def test_a_snapshot_gives_the_trained_predictor_back(place: Place) -> None:
    snapshot = place.snapshot()
    again = Predictor.load(snapshot.arrays(predict.PREFIX))
    assert (again.choice, again.version) == ("forest_and_logistic", 1)
    mine = place.learned.predictor.arrays()
    for name, array in again.arrays().items():
        if not name.endswith("version"):
            assert np.array_equal(array, mine[name]), name
    snapshot.close()


def test_a_training_is_due_when_enough_is_new(place: Place) -> None:
    """Reading all of history for an hour of news would teach nothing."""
    assert predictor.train(place.warehouse, NAIVE + timedelta(days=9)) is None
    later = NAIVE + timedelta(hours=2)
    for taught, now, due in (
        (2_990, later, False),
        (2_990, later + timedelta(days=1), True),
        (2_900, later, True),
        (3_001, later, True),  # another, shorter event store
    ):
        with place.warehouse.writing() as connection:
            connection.execute("update model_registry set watermark_id = ?", [taught])
            found = predictor.is_due(connection, now)
            connection.execute("update model_registry set watermark_id = 3000")
        assert found is due, (taught, now)


def test_copies_of_killed_trainings_do_not_stay(tmp_path: Path) -> None:
    """They stood in the system's temporary folder, the events of all history each time."""
    old, running = tmp_path / ".training-old", tmp_path / ".training-running"
    for folder in (old, running):
        folder.mkdir()
        (folder / "events.parquet").write_bytes(b"x")
    os.utime(old, (0, 0))
    predictor.remove_leftovers(tmp_path)
    assert (old.exists(), running.exists()) == (False, True)


def test_too_few_runs_are_published_as_not_enough_data(tmp_path: Path) -> None:
    plan = demo.DemoPlan(n=100, seed=2, end=NOW, days=5, skills=24)
    with Store.open(tmp_path / "skills.db", create=True) as store:
        store.bulk_import(demo.invocations(plan))
    warehouse = warehouse_in(tmp_path)
    with warehouse.writing(create=True) as connection:
        events.load(connection, SkillsDb(path=str(tmp_path / "skills.db")))
    learned = predictor.train(warehouse, NAIVE)
    assert learned is not None
    with warehouse.reading() as connection:
        rows = connection.execute("select chosen, model_chosen, reason from model_registry")
        ((chosen, model, reason),) = rows.fetchall()
        names = connection.execute("select name from arrays order by 1").fetchall()
    assert (chosen, model) == ("not_enough_data", False)
    assert reason.startswith("not enough data: ")
    assert [name for (name,) in names] == [
        f"success_predictor_{name}" for name in ("choice", "strength", "version")
    ]
    assert predictor.pictures(learned)["chosen"] == "not_enough_data"


# --- recommendations ------------------------------------------------------------------------------


def test_recommendations_leave_built_in_tools_out(place: Place) -> None:
    rows = place.rows("from user_similarity order by skill")
    tools = {row["skill_name"] for row in place.rows("from events where kind = 'tool'")}
    assert tools
    assert not tools & {row["skill_name"] for row in rows}
    assert [row["skill"] for row in rows] == list(range(len(rows)))
    for row in rows:
        assert 0 <= row["completed"] <= row["n"]
        assert 0 < row["completion_rate"] < 1
    (check,) = place.rows(
        "select count(distinct user_id) as users from events where kind <> 'tool'"
        f" and skill_name = '{rows[0]['skill_name']}' and user_id <> ''"
    )
    assert rows[0]["users"] == check["users"]


def test_recommendations_are_computed_anew_when_something_is_new(place: Place) -> None:
    soon = NAIVE + timedelta(hours=1)
    with place.warehouse.writing() as connection:
        assert not similarity.is_due(connection, soon)
        assert similarity.is_due(connection, soon + timedelta(days=1))
        set_watermark(connection, "user_similarity", 2_999, NAIVE)
        assert similarity.is_due(connection, soon)
        set_watermark(connection, "user_similarity", 3_000, NAIVE)
        of_another_format = "update arrays set data = $data where name = 'user_similarity_format'"
        (kept,) = connection.execute(
            "select data from arrays where name = 'user_similarity_format'"
        ).fetchall()[0]
        connection.execute(of_another_format, {"data": b"\1\0\0\0"})
        assert similarity.is_due(connection, soon)
        connection.execute(of_another_format, {"data": kept})
        assert not similarity.is_due(connection, soon)


def test_the_warehouse_is_free_while_a_model_is_trained(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, opened = fit.learn, []

    def learn(*arguments: Any, **options: Any) -> fit.Learned:
        with place.warehouse.writing() as connection:
            opened.append(connection.execute("select count(*) from events").fetchall())
        return real(*arguments, **options)

    monkeypatch.setattr(fit, "learn", learn)
    monkeypatch.setattr(predictor, "is_due", lambda *_: True)
    predictor.train(place.warehouse, NAIVE)
    assert opened == [[(3_000,)]]


def test_a_snapshot_gives_the_recommender_back(place: Place) -> None:
    snapshot = place.snapshot()
    skills = [row["skill_name"] for row in place.rows("from user_similarity order by skill")]
    again = Recommender.load(skills, snapshot.arrays(PREFIX))
    users = [bytes(user).decode() for user in place.recommender.users]
    assert len(users) > 3
    for user in (*users, "a stranger"):
        used = place.recommender.skills_of(user)
        assert again.skills_of(user) == used
        found = again.suggest(user, used, k=5)
        assert found == place.recommender.suggest(user, used, k=5)
        assert not {one.skill_name for one in found} & set(used)
        near = again.similar(user, used, least=1, limit=3)
        assert near == place.recommender.similar(user, used, least=1, limit=3)
        assert user not in {one.user_id for one in near}
    snapshot.close()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("format", lambda a: a - 1, "its format is 1, this program reads 2"),
        ("users", lambda a: a[:, ::-1], "users do not rise"),
        ("users", lambda a: a[:-1], "users is of type"),
        ("users", lambda a: np.repeat(a, 9, axis=1), "width"),
        ("completed", lambda a: a + 10**9, "completed is no part of decided"),
        ("completion", lambda a: a + 1, "completion is no share"),
        ("completion", lambda a: a * np.nan, "not finite"),
        ("weights", lambda a: np.ones((2, 3)), "weights has shape"),
        ("indices", lambda a: a + 100, "the user-skill matrix is damaged"),
        ("indices", lambda a: a[:-3], "the user-skill matrix is damaged"),
        ("indices", lambda a: a.astype(np.float64), "indices is of type float64"),
        ("sizes", lambda a: a[:-1], "the user-skill matrix is damaged"),
        ("sizes", lambda a: a[::-1], "the user-skill matrix is damaged"),
        ("sizes", lambda a: a.astype(np.uint64) + 2**62, "a user has 46116860184273879"),
        ("sizes", lambda a: a.astype(np.int64), "sizes is of type int64"),
    ],
)
def test_damaged_recommendations_are_refused_by_name(
    place: Place, name: str, change: Any, message: str
) -> None:
    arrays = place.recommender.arrays()
    arrays[PREFIX + name] = change(np.array(arrays[PREFIX + name]))
    with pytest.raises(SbError, match=message):
        Recommender.load(place.recommender.skills, arrays)


def test_ids_of_any_length_are_found(place: Place) -> None:
    long = "x" * 5_000
    one = place.recommender
    assert one.user(long) is None
    assert one.user("") is None
    for number, user in enumerate(one.users.tolist()):
        assert one.user(user.decode()) == number
