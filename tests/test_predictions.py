"""Predictions and recommendations as they are served: tool, command, Python API."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from sb_pipelines import cli
from sb_serving import analytics, kept, predict, sql, times
from sb_serving import recommend as similar
from sb_serving.answers import recommendations, success
from sb_serving.errors import SbError
from sb_serving.faces.mcp import Tools
from sb_serving.live import Live, open_live
from sb_serving.models import SuccessPrediction
from sb_serving.snapshot import Snapshot, put_array
from sb_serving.snapshot import publish as publish_snapshot
from sb_serving.stats import success as method
from sb_serving.store import Identity, Store
from tests.builders import invocation
from tests.predictor_builder import NOW, Place, make

SKILL = "lint-and-fix"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    found = make(tmp_path_factory.mktemp("predictions"))
    found.publish()
    return found


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands where the demo ends."""
    monkeypatch.setattr(times, "now", lambda: NOW)


def live_of(place: Place) -> Live:
    return open_live(place.folder / "skills.db")


def tools(place: Place) -> Tools:
    side = live_of(place)
    return Tools(lambda: side)


# --- predictions ----------------------------------------------------------------------------------


def test_a_prediction_says_what_how_sure_and_why(place: Place, now: None) -> None:
    session = place.rows("select session_id from events order by id desc limit 1")[0]["session_id"]
    found = tools(place).predict_success(SKILL, session_id=session, workflow_phase="execution")
    assert found.method == "forest_and_logistic"
    assert found.probability is not None
    assert found.probability_low is not None
    assert found.probability_high is not None
    assert 0 < found.probability_low <= found.probability <= found.probability_high < 1
    assert found.base is not None
    total = found.base + sum(reason.added for reason in found.reasons)
    assert total == pytest.approx(found.probability)
    assert {one.feature for one in found.reasons} == {one.name for one in method.FEATURES}
    assert f"{SKILL} completes with a chance of {found.probability:.0%}" in found.message
    assert (found.model_version, found.refused, found.omitted) == (1, None, 0)
    assert SuccessPrediction.model_validate_json(found.model_dump_json()) == found


def test_a_run_recorded_since_counts_at_once(tmp_path: Path, place: Place, now: None) -> None:
    """Three failures in this session, after the snapshot: the chance falls."""
    shutil.copytree(place.folder, tmp_path / "copy")
    side = open_live(tmp_path / "copy/skills.db")
    held = success.Memory()
    question = predict.Question(SKILL, NOW, session_id="mine")
    before = success.success_prediction(side, held, question)
    with Store.open(tmp_path / "copy/skills.db") as store:
        for number in range(3):
            store.record(
                invocation(
                    number,
                    skill_name=SKILL,
                    session_id="mine",
                    invoked_at=times.to_utc_text(NOW.replace(minute=number)),
                    outcome="failed",
                    error_type="exit_1",
                )
            )
    after = success.success_prediction(side, held, question)
    assert after.probability is not None
    assert before.probability is not None
    assert after.probability < before.probability
    failures = {one.feature: one.value for one in after.reasons}["session_failures"]
    assert failures == 3


def test_the_predecessors_names_answer(place: Place, now: None) -> None:
    predictor = analytics.get_predictor(place.folder / "skills.db")
    context = analytics.SessionContext("s", NOW, ["commit"])
    chance = predictor.predict_success_probability(
        skill_name=SKILL, user_query="fix it", workflow_phase="setup", session_context=context
    )
    assert 0 < chance < 1
    why = predictor.get_feature_explanation(SKILL, workflow_phase="setup", session_context=context)
    assert set(why) == {one.name for one in method.FEATURES}
    assert why["hour"] == {"value": 15.0, "interpretation": why["hour"]["interpretation"]} | {
        "added": why["hour"]["added"]
    }
    assert why["skill_rate"]["interpretation"].startswith("this skill under this version: ")


def test_a_skill_that_never_ran_is_refused_with_its_neighbours(place: Place, now: None) -> None:
    with pytest.raises(SbError, match=r"never invoked here.*Did you mean lint-and-fix"):
        tools(place).predict_success("lint-and-fixx")
    with pytest.raises(SbError, match="session_id has 2,000 characters"):
        tools(place).predict_success(SKILL, session_id="x" * 2_000)


def test_before_a_training_the_answer_says_what_to_run(tmp_path: Path) -> None:
    with Store.open(tmp_path / "skills.db", create=True) as store:
        store.record(invocation())
    side = open_live(tmp_path / "skills.db")
    with pytest.raises(SbError, match=r"nothing was published yet.*sb refresh --models"):
        Tools(lambda: side).predict_success("commit")
    with pytest.raises(SbError, match=r"nothing was published yet.*sb refresh --models"):
        Tools(lambda: side).get_collaborative_recommendations("me")


# --- a damaged model ------------------------------------------------------------------------------


def snapshot_with(folder: Path, arrays: dict[str, Any], table: list[str] | None = None) -> Snapshot:
    """A snapshot of arrays; one that is given as text is stored with such bytes, cut short."""

    def build(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(sql.load("warehouse/schema.sql"))
        connection.execute("drop table arrays")
        for name, array in arrays.items():
            put_array(connection, name, np.arange(8) if isinstance(array, str) else array)
            if isinstance(array, str):
                connection.execute("update arrays set data = data[:2] where name = ?", [name])
        for number, name in enumerate(table or []):
            connection.execute(
                "insert into user_similarity (skill, skill_name) values (?, ?)", [number, name]
            )

    path = publish_snapshot(
        build, folder, watermark_id=0, watermark_at=NOW, published_at=NOW, code_version="test"
    )
    return Snapshot.open(path, int(path.stem))


def hostile_predictor(arrays: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Models that must not be served, and what the refusal says."""
    prefix = predict.PREFIX
    loop = np.array(arrays[prefix + "forest_left"])
    loop[0] = 0  # a walk that never ends
    far = np.array(arrays[prefix + "forest_feature"])
    far[0] = 10**6
    short = np.array(arrays[prefix + "forest_value"])[:-5]
    return [
        (arrays | {prefix + "features": np.array([1])}, "trained on other features"),
        (arrays | {prefix + "forest_format": np.array([99])}, "format"),
        (arrays | {prefix + "forest_left": loop}, "left of node 0"),
        (arrays | {prefix + "forest_feature": far}, "asks for feature 1000000"),
        (arrays | {prefix + "forest_value": short}, "shape"),
        (arrays | {prefix + "choice": "cut short"}, "is damaged"),
        ({}, "has no array 'choice'"),
    ]


def hostile_recommender(arrays: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Likewise for the recommender."""
    prefix = similar.PREFIX
    indices, sizes = (np.array(arrays[prefix + name]) for name in ("indices", "sizes"))
    far, vast = indices.copy(), sizes.astype(np.uint64)
    far[0] = np.iinfo(far.dtype).max
    vast[:4] = 2**62  # their sum is 0 in 64 bits
    return [
        (arrays | {prefix + "format": np.array([1])}, "its format is 1, this program reads 2"),
        (arrays | {prefix + "indices": far}, "outside of 0 to"),
        (arrays | {prefix + "sizes": vast}, "a user has 4611686018427387904 of"),
        (arrays | {prefix + "indices": indices[:-1]}, "indptr does not run"),
        (arrays | {prefix + "users": "cut short"}, "is damaged"),
        (arrays | {prefix + "completion": np.array([0.5])}, "completion is of type"),
        ({}, "there is no array 'user_similarity_format'"),
    ]


@pytest.mark.parametrize("what", ["predictor", "recommender"])
def test_bad_arrays_are_refused_and_the_ones_before_serve_on(
    place: Place, tmp_path: Path, what: str
) -> None:
    loads: dict[str, Any] = {
        "predictor": (place.learned.predictor, success.load_predictor, hostile_predictor),
        "recommender": (place.recommender, recommendations.load_recommender, hostile_recommender),
    }
    model, load, hostile = loads[what]
    arrays, names = dict(model.arrays()), list(place.recommender.skills)
    held = kept.Kept(load)
    good = snapshot_with(tmp_path, arrays, names)
    first = held.of(good)
    assert (first.refused, first.snapshot) == (None, 1)
    for number, (bad, message) in enumerate(hostile(arrays), start=2):
        snapshot = snapshot_with(tmp_path, bad, names)
        found = held.of(snapshot)
        assert found.value is first.value, message
        assert found.snapshot == 1
        assert found.refused is not None
        assert message in found.refused
        assert held.of(snapshot) is found  # looked at once
        snapshot.close()
        assert snapshot.manifest.number == number
    again = snapshot_with(tmp_path, arrays, names)
    assert held.of(again).refused is None
    for snapshot in (good, again):
        snapshot.close()


def test_damaged_totals_are_refused_and_the_ones_before_serve_on(
    place: Place, tmp_path: Path, now: None
) -> None:
    """With the runs since those, so that the counts are right all the same."""
    shutil.copytree(place.folder, tmp_path / "copy")
    folder = tmp_path / "copy/snapshots"
    side = open_live(tmp_path / "copy/skills.db")
    memory = success.Memory()
    question = predict.Question(SKILL, NOW)
    before = success.success_prediction(side, memory, question)

    def spoilt(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(f"attach '{sorted(folder.iterdir())[-1]}' as good (read_only)")
        for (table,) in connection.execute(
            "select table_name from duckdb_tables() where database_name = 'good'"
            " and table_name <> 'manifest'"
        ).fetchall():
            connection.execute(f"create table {table} as from good.{table}")
        connection.execute("update predictor_totals set completed = n + 1")

    good = side.snapshots.current
    assert good is not None
    publish_snapshot(
        spoilt,
        folder,
        watermark_id=good.manifest.watermark_id,
        watermark_at=NOW,
        published_at=NOW,
        code_version="test",
    )
    assert side.snapshots.poll()
    after = success.success_prediction(side, memory, question)
    assert after.refused is not None
    assert "predictor_totals of snapshot" in after.refused
    assert after.refused in after.message
    assert (after.probability, after.reasons) == (before.probability, before.reasons)
    with pytest.raises(SbError, match="predictor_totals of snapshot"):
        success.success_prediction(side, success.Memory(), question)
    side.close()


# --- recommendations ------------------------------------------------------------------------------


def test_recommendations_are_new_to_the_user_and_say_why(place: Place) -> None:
    user = bytes(place.recommender.users[0]).decode()
    used = set(place.recommender.skills_of(user))
    found = tools(place).get_collaborative_recommendations(user, limit=4)
    names = [one.skill_name for one in found.recommendations]
    assert names
    assert not used & set(names)
    assert found.user_id == user
    assert found.skills_used == len(used)
    for one in found.recommendations:
        assert one.completion_rate is not None
        assert 0 < one.completion_rate < 1
        assert f"n={one.n:,}" in one.reason


def test_a_skill_used_since_the_snapshot_is_not_recommended(tmp_path: Path, place: Place) -> None:
    shutil.copytree(place.folder, tmp_path / "copy")
    path = tmp_path / "copy/skills.db"
    Identity.load(path.parent / "identity.key")  # makes one
    engine = analytics.get_collaborative_engine(path)
    side = open_live(path)
    first = [one["skill_name"] for one in engine.recommend_from_similar_users("ada", limit=3)]
    with Store.open(path) as store:
        store.record(invocation(skill_name=first[0], user_id=side.user("ada")))
    assert side.user("ada") != "ada"
    engine.clear_cache()
    again = engine.recommend_from_similar_users("ada", limit=3)
    assert first[0] not in [one["skill_name"] for one in again]
    profile = engine.get_user_skill_profile("ada")
    assert profile["user_id"] == side.user("ada")
    assert (profile["unique_skills"], profile["total_interactions"]) == (1, 1)
    assert profile["top_skills"][0]["skill_name"] == first[0]
    assert (profile["completion_rate"], profile["n"]) == (1.0, 1)


def test_answers_are_copies_for_an_hour_and_few(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller who sorted the cached list in place once changed it for everybody."""
    clock = [100.0]
    monkeypatch.setattr("sb_serving.collaborative.time.monotonic", lambda: clock[0])
    engine = analytics.get_collaborative_engine(place.folder / "skills.db")
    user = bytes(place.recommender.users[0]).decode()
    near = engine.get_similar_users(user, min_common_skills=1, limit=5)
    assert [share for _, share in near] == sorted((share for _, share in near), reverse=True)
    assert user not in dict(near)
    looked = []
    monkeypatch.setattr(recommendations, "skills_used", lambda *a: looked.append(a) or [])
    kept_list = engine.get_similar_users(user, min_common_skills=1, limit=5)
    assert kept_list == near
    kept_list.clear()
    assert engine.get_similar_users(user, min_common_skills=1, limit=5) == near
    assert looked == []
    clock[0] += 3_601
    engine.get_similar_users(user, min_common_skills=1, limit=5)
    assert len(looked) == 1
    monkeypatch.setattr("sb_serving.collaborative.CACHED", 2)
    for limit in (6, 7, 8):
        engine.get_similar_users(user, limit=limit)
    assert len(engine._cache) == 2
    with pytest.raises(SbError, match="min_common_skills = 0"):
        engine.get_similar_users(user, min_common_skills=0)
    with pytest.raises(SbError, match="min_common_skills = 0"):
        engine.recommend_from_similar_users(user, 5, min_common_skills=0)
    far = engine.recommend_from_similar_users(user, limit=3, min_common_skills=1_000)
    assert "similar_users" not in {one["method"] for one in far}
    with pytest.raises(SbError, match="cache_ttl_seconds = 0"):
        analytics.get_collaborative_engine(place.folder / "skills.db", 0)


def test_a_stranger_gets_the_baselines_first(tmp_path: Path, place: Place) -> None:
    shutil.copytree(place.folder, tmp_path / "copy")
    copied = Place(tmp_path / "copy", place.learned, place.recommender)
    with copied.warehouse.writing() as connection:
        connection.execute(
            "insert into skill_community_baselines (skill_name, kind, total_users,"
            " completion_rate_n, global_completion_rate) values"
            " ('a', 'skill', 9, 100, .5), ('b', 'skill', 8, 100, .9), ('Bash', 'tool', 99, 9, 1)"
        )
    copied.publish()
    found = tools(copied).get_collaborative_recommendations("a stranger", limit=3)
    assert [one.skill_name for one in found.recommendations] == ["b", "a"]
    assert found.recommendations[0].reason == "8 users use it, 90% complete, n=100"
    assert {one.source for one in found.recommendations} == {"global_popularity"}


# --- the commands ---------------------------------------------------------------------------------


def sb(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["sb", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return int(done.value.code or 0)


def test_the_commands_print_the_answer_in_words_or_json(
    place: Place, now: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ("--home", place.folder)
    assert sb(monkeypatch, "predict", SKILL, "--phase", "setup", *home) == 0
    assert f"{SKILL} completes with a chance of" in capsys.readouterr().out
    assert sb(monkeypatch, "predict", SKILL, *home, "--json") == 0
    assert json.loads(capsys.readouterr().out)["skill_name"] == SKILL
    user = bytes(place.recommender.users[0]).decode()
    assert sb(monkeypatch, "recommend", user, "--limit", 2, *home) == 0
    assert capsys.readouterr().out.count("\n") == 3
    assert sb(monkeypatch, "recommend", *home, "--json") == 0
    assert json.loads(capsys.readouterr().out)["recommendations"]
    assert sb(monkeypatch, "predict", "never-seen", *home) == 2
    assert "never invoked here" in capsys.readouterr().err
