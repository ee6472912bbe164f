"""The types of the answers: what a caller over MCP, HTTP or Python gets, field by field.

Belongs here: names, units and meaning. Numbers are made in `answers/`. Every model serialises to
plain JSON: no NaN, no infinity; what is not known is null.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """What every answer says about itself.

    Attributes:
        success: Always true; what goes wrong is an error with a reason instead.
        timestamp: The moment that the numbers belong to, UTC.
        message: The answer in a sentence, with what was left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    success: bool = Field(default=True, description="Always true; a problem is an error instead.")
    timestamp: str = Field(description="Moment that the numbers belong to, UTC.")
    message: str = Field(description="The answer in a sentence, with what was left out.")


class Source(BaseModel):
    """Where numbers come from, so that they can be traced and counted again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tables: tuple[str, ...] = Field(description="Tables that were read.")
    snapshot: int | None = Field(description="Number of the snapshot in use; null without one.")
    made_by: tuple[str, ...] = Field(description="SQL files and functions that made the numbers.")


class SkillMetrics(BaseModel):
    """One skill in a window of time."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    skill_name: str
    kind: str = Field(description="What the name stands for: skill, tool, mcp_tool, ...")
    invocation_count: int = Field(description="Invocations of every outcome.")
    completed_count: int
    failed_count: int
    rejected_count: int = Field(description="The user said no: not a failure of the skill.")
    cancelled_count: int
    interrupted_count: int
    no_result_count: int = Field(description="Its result was never seen.")
    completion_rate: float | None = Field(
        description="completed / (completed + failed), 0 to 1; null where both are 0."
    )
    completion_rate_n: int = Field(description="completed + failed.")
    completion_rate_low: float | None = Field(description="Wilson 95 % interval, lower bound.")
    completion_rate_high: float | None = Field(description="Wilson 95 % interval, upper bound.")
    avg_duration: float | None = Field(description="Seconds, over known durations.")
    duration_n: int = Field(description="Invocations whose duration is known.")
    duration_p50: float | None = Field(
        description="Seconds; null beyond 48 hours, where it is not counted."
    )
    duration_p95: float | None = Field(description="Seconds; null beyond 48 hours.")
    unique_sessions: int | None = Field(description="Null beyond 48 hours.")
    last_invocation_at: str | None = Field(description="Latest start in the window, UTC.")


class RealTimeMetrics(Answer):
    """The skills that were used most in the last hours."""

    top_skills: tuple[SkillMetrics, ...] = Field(description="Most used first, then by name.")
    time_window_hours: float
    window_start: str = Field(description="UTC, not included.")
    window_end: str = Field(description="UTC, included.")
    kind: str = Field(description="Kind that was asked for; 'default' is all but tool.")
    skills: int = Field(description="Skills of that kind in the window.")
    invocations: int = Field(description="Their invocations.")
    hidden_skills: int = Field(description="Skills of other kinds in the window.")
    hidden_invocations: int = Field(description="Their invocations.")
    truncated: bool = Field(description="Whether limit cut the list short.")
    omitted: int = Field(description="Skills that limit cut off.")
    active_sessions: int = Field(description="Sessions with an event in the last 15 minutes.")
    last_event_id: int = Field(description="Newest recorded invocation.")
    last_event_at: str | None = Field(description="Its start, UTC.")
    snapshot: int | None = Field(description="Number of the snapshot in use.")
    stale_reason: str | None = Field(
        description="Why the numbers are old; null while they are not."
    )
    source: Source


class Row(BaseModel):
    """One row of a list: no unknown fields, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class SkillTrend(Answer):
    """The line fitted through the last days of a skill."""

    skill_name: str
    kind: str = Field(description="What the name stands for: skill, tool, mcp_tool, ...")
    metric: str = Field(description="completion_rate, avg_duration_seconds or invocation_count.")
    unit: str = Field(description="Unit of the values; the slope is this per day.")
    days: int = Field(description="Length of the window, which ends at timestamp.")
    trend: str = Field(description="improving, declining, stable or insufficient_data.")
    slope: float | None = Field(description="Change per day; null with insufficient data.")
    slope_low: float | None = Field(description="95 % interval, lower bound.")
    slope_high: float | None = Field(description="95 % interval, upper bound.")
    start_value: float | None = Field(description="Of the line, on the first day with data.")
    start_low: float | None = Field(description="95 % interval, lower bound.")
    start_high: float | None = Field(description="95 % interval, upper bound.")
    end_value: float | None = Field(description="Of the line, on the last day with data.")
    end_low: float | None = Field(description="95 % interval, lower bound.")
    end_high: float | None = Field(description="95 % interval, upper bound.")
    change_percent: float | None = Field(
        description="100 * (end_value - start_value) / start_value, from the line."
    )
    p_value: float | None = Field(
        description="Chance of such a slope without a trend, two-sided; small is sure."
    )
    q_value: float | None = Field(description="p_value corrected for the skills compared.")
    skills: int = Field(description="Skills compared in q_value.")
    n: int = Field(description="completed + failed, known durations, or invocations in the window.")
    reason: str | None = Field(description="Why there is not enough data; else null.")
    window_end: str = Field(description="End of the window, UTC.")
    computed_at: str = Field(description="When it was computed, UTC.")
    source: Source


class Baseline(Row):
    """One skill in the community."""

    skill_name: str
    kind: str = Field(description="What the name stands for: skill, tool, mcp_tool, ...")
    total_users: int = Field(description="Distinct users.")
    min_users: int = Field(description="Least users of a skill that is shown.")
    total_invocations: int = Field(description="Invocations of every outcome.")
    completion_rate_n: int = Field(description="completed + failed.")
    raw_completion_rate: float = Field(description="completed / (completed + failed).")
    global_completion_rate: float = Field(
        description="The same, brought toward all skills' rate as far as n leaves room for doubt."
    )
    completion_rate_low: float = Field(description="90 % interval, lower bound.")
    completion_rate_high: float = Field(description="90 % interval, upper bound.")
    duration_n: int = Field(description="Invocations whose duration is known.")
    duration_days: int = Field(description="Days that they lie on.")
    global_avg_duration_seconds: float | None = Field(description="Over known durations.")
    duration_low: float | None = Field(
        description="95 % interval, lower bound; null with fewer than two days."
    )
    duration_high: float | None = Field(description="95 % interval, upper bound.")
    most_common_workflow_phase: str | None
    phased: int = Field(description="Invocations with a known phase.")
    phase_n: int = Field(description="Those in the most common one.")
    phase_low: float | None = Field(description="Wilson 95 % interval of that share, lower bound.")
    phase_high: float | None = Field(description="Upper bound.")
    effectiveness_percentile: float = Field(
        description="Rank of global_completion_rate among all skills shown, 0 to 100."
    )


class CommunityBaselines(Answer):
    """How good skills usually are."""

    baselines: tuple[Baseline, ...] = Field(description="Best first, then by name.")
    kind: str = Field(description="Kind that was asked for; 'default' is all but tool.")
    skills: int = Field(description="Skills of that kind with a baseline.")
    hidden_skills: int = Field(description="Skills of other kinds with one.")
    skills_of_too_few_users: int = Field(
        description="Skills that are not shown because too few users share them."
    )
    truncated: bool = Field(description="Whether limit cut the list short.")
    omitted: int = Field(description="Skills that were cut off.")
    computed_at: str = Field(description="When they were computed, UTC.")
    source: Source


class Dependency(Row):
    """A skill that shares sessions with the one that was asked about (a)."""

    skill_b: str = Field(description="The other skill (b).")
    kind: str = Field(description="Its kind.")
    co_occurrence_count: int = Field(description="Sessions that hold both.")
    n_sessions: int = Field(description="All sessions.")
    n_a: int = Field(description="Sessions that hold a.")
    n_b: int = Field(description="Sessions that hold b.")
    support: float = Field(description="co_occurrence_count / n_sessions.")
    confidence_ab: float = Field(
        description="Share of the sessions with a that also hold b; not a level of certainty."
    )
    confidence_ab_low: float = Field(description="Wilson 95 % interval, lower bound.")
    confidence_ab_high: float = Field(description="Upper bound.")
    confidence_ba: float = Field(description="Share of the sessions with b that also hold a.")
    confidence_ba_low: float = Field(description="Wilson 95 % interval, lower bound.")
    confidence_ba_high: float = Field(description="Upper bound.")
    lift_score: float = Field(description="n_sessions * both / (n_a * n_b); 1 is independent.")
    lift_low: float = Field(description="95 % interval, lower bound.")
    lift_high: float = Field(description="95 % interval, upper bound.")
    relationship_type: str = Field(
        description="Size of the lift: very_strong from 3, strong 2, moderate 1.5, weak_positive,"
        " independent, weak_negative, moderate_negative."
    )
    expected: float = Field(
        description="Sessions with both that session lengths and counts alone lead to expect."
    )
    p_value: float = Field(description="Chance of so many or more, one-sided.")
    q_value: float = Field(description="p_value corrected for all pairs looked at.")
    significant: bool = Field(description="q_value is at most .05.")
    then_skill: str | None = Field(description="The one of the two that more often comes second.")
    order_n: int | None = Field(description="Sessions that can tell; null with fewer than five.")
    order_share: float | None = Field(description="Share of them in which it does.")
    order_low: float | None = Field(description="Wilson 95 % interval, lower bound.")
    order_high: float | None = Field(description="Upper bound.")
    order_p_value: float | None = Field(description="Of one half, two-sided.")
    order_q_value: float | None = Field(description="Corrected for all pairs.")


class ExpectedPair(Row):
    """A skill that somebody expects to go with the one that was asked about, and what was found."""

    skill_b: str = Field(description="The other skill (b).")
    expected_lift: float | None = Field(description="The lift that is expected; null for any.")
    verdict: str = Field(
        description="found: more often together than explained, q_value at most .05; not_found: not"
        " so, and the whole interval lies below expected_lift (1.5 where that is null);"
        " not_enough_data: neither."
    )
    n_sessions: int = Field(description="All sessions.")
    n_a: int = Field(description="Sessions that hold a.")
    n_b: int = Field(description="Sessions that hold b.")
    co_occurrence_count: int = Field(description="Sessions that hold both.")
    lift_score: float | None = Field(description="Measured; null where a or b is in no session.")
    lift_low: float | None = Field(description="95 % interval, lower bound.")
    lift_high: float | None = Field(description="95 % interval, upper bound.")
    q_value: float | None = Field(description="Null with fewer than five sessions with both.")


class SkillDependencies(Answer):
    """What goes with a skill."""

    skill_name: str
    dependencies: tuple[Dependency, ...] = Field(description="Least q_value first, then lift.")
    expected: tuple[ExpectedPair, ...] = Field(
        description="Pairs that somebody expects (`sb expect`), of any kind and lift, by name."
    )
    kind: str = Field(description="Kind that was asked for; 'default' is all but tool.")
    pairs: int = Field(description="Skills of any kind that share five sessions with it.")
    hidden_pairs: int = Field(description="Those of other kinds.")
    below_min_lift: int = Field(description="Those of the kind with a lift below min_lift.")
    truncated: bool = Field(description="Whether limit cut the list short.")
    omitted: int = Field(description="Skills that were cut off.")
    computed_at: str = Field(description="When they were computed, UTC.")
    source: Source


class ClusterMember(Row):
    """One skill in its group."""

    skill_name: str
    kind: str
    membership_score: float = Field(
        description="Share of its similarity to all skills that lies inside the group, 0 to 1."
    )
    n_sessions: int = Field(description="Sessions that hold it.")


class Cluster(Row):
    """One group of skills that are used together."""

    cluster_id: int = Field(description="Lasts from run to run while most of the group does.")
    cluster_name: str = Field(description="Its most typical members.")
    description: str
    skills: int = Field(description="Members.")
    created_at: str = Field(description="When it was first seen, UTC.")
    members: tuple[ClusterMember, ...] = Field(description="Most typical first.")
    omitted_members: int = Field(description="Members that are not listed.")


class SkillClusters(Answer):
    """Groups of skills, and how far to trust them."""

    clusters: tuple[Cluster, ...] = Field(description="Largest first.")
    k: int = Field(description="Number of groups; 1 without structure.")
    structure: bool = Field(
        description="Whether they hold on sessions they were not formed on, beyond shuffled ones."
    )
    largest_share: float | None = Field(description="Share of the skills in the largest group.")
    stability: float | None = Field(
        description="Agreement with the groups of resampled sessions, 1 is always the same; null"
        " with one group."
    )
    score: float | None = Field(description="Fit to unseen sessions; about 0 without structure.")
    shuffled_score: float | None = Field(description="The same for shuffled sessions, mean.")
    n_sessions: int = Field(description="Sessions they were formed on.")
    left_out: int = Field(description="Skills in too few sessions to be grouped.")
    truncated: bool = Field(description="Whether limit cut the list short.")
    omitted: int = Field(description="Groups that were cut off.")
    computed_at: str = Field(description="When they were computed, UTC.")
    source: Source


class Anomaly(Row):
    """One event in which a skill left what is expected of it."""

    anomaly_id: int = Field(description="For explain_anomaly.")
    skill_name: str
    metric: str = Field(description="completion (a rate), volume (calls) or duration (seconds).")
    anomaly_type: str = Field(description="drop, spike or pattern_shift (calls at other hours).")
    open: bool = Field(description="Whether it goes on.")
    n: int = Field(description="Decided runs, runs, or runs with a duration in the window.")
    baseline_value: float = Field(description="What was expected in the window.")
    observed_value: float = Field(description="What was seen.")
    deviation_score: float = Field(
        description="z-score of the expectation's model; below 0 is a drop."
    )
    p_value: float = Field(
        description="Chance of so strong an event per judged hour; small is sure."
    )
    q_value: float = Field(description="p_value corrected for all hours of all skills.")
    window_start: str = Field(description="Of the window that shows it most, UTC.")
    window_end: str = Field(description="Its end, UTC.")
    since: str = Field(description="When it began, UTC: the likeliest hour.")
    since_low: str = Field(description="90 % interval of that, first hour.")
    since_high: str = Field(description="Last hour.")
    detected_at: str = Field(description="When it was found, UTC.")
    resolved_at: str | None = Field(description="When it was over, UTC; null while it goes on.")
    retracted_at: str | None = Field(description="When late events made it untrue; else null.")


class Anomalies(Answer):
    """What left its expectation."""

    anomalies: tuple[Anomaly, ...] = Field(description="Open ones first, then the strongest.")
    threshold: float = Field(description="Least size of deviation_score that is listed.")
    time_window_hours: float
    found: int = Field(description="Open ones, and others with a window in these hours.")
    below_threshold: int = Field(description="Those of them that threshold hides.")
    truncated: bool = Field(description="Whether limit cut the list short.")
    omitted: int = Field(description="Anomalies that were cut off.")
    computed_at: str = Field(description="End of the hours that were searched, UTC.")
    source: Source


class Factor(Row):
    """A value that moved with an anomaly."""

    attribute: str = Field(
        description="agent, agent_version, model, project_id, workflow_phase or error_type."
    )
    value: str
    n_before: int = Field(description="Runs with it in the 28 days before.")
    bad_before: int = Field(
        description="Those that failed, completed against expectation, were slow or quick."
    )
    n_after: int = Field(description="Runs with it since.")
    bad_after: int = Field(description="Those of them that were bad.")
    explained: float = Field(description="Part of the change that lies in it; may exceed 1.")
    p_value: float = Field(
        description="Cause: against other runs of the same time. Symptom, share: after against"
        " before."
    )
    q_value: float | None = Field(description="p_value corrected for the values tried.")
    weight: float | None = Field(
        description="Cause: share of the evidence that it alone sorts good from bad, 0 to 1."
    )
    first_seen: str = Field(description="The skill's first run with it in these days, UTC.")


class AnomalyExplanation(Answer):
    """Since when, and what moved with it."""

    anomaly: Anomaly
    causes: tuple[Factor, ...] = Field(description="Likeliest first.")
    symptoms: tuple[Factor, ...] = Field(description="Errors that became frequent, most first.")
    shares: tuple[Factor, ...] = Field(
        description="Of volume: where calls are missing or too many, most first."
    )
    others: int = Field(description="Other anomalies of the skill that are open.")
    truncated: bool = Field(description="Whether a list was cut short.")
    omitted: int = Field(description="Rows that were cut off.")
    computed_at: str = Field(description="End of the hours that were searched, UTC.")
    source: Source


class PredictionReason(Row):
    """One feature behind a predicted chance."""

    feature: str
    value: float = Field(description="Rates are fractions, the rest counts, minutes or hours.")
    added: float = Field(description="What it added to the probability; 0 without a model.")
    n: int | None = Field(description="Completed plus failed runs behind a rate.")
    interpretation: str = Field(description="The same in words.")


class SuccessPrediction(Answer):
    """How likely a run is to complete, before it starts."""

    skill_name: str
    probability: float | None = Field(
        description="Of completing, given that it completes or fails; null without enough data."
    )
    probability_low: float | None = Field(description="95 % interval, see interval.")
    probability_high: float | None
    n: int = Field(description="Runs behind the interval.")
    interval: str = Field(description="What the interval is of.")
    method: str = Field(
        description="forest_and_logistic, shrunk_rate where the model is no better, or"
        " not_enough_data."
    )
    base: float | None = Field(description="Where the reasons start: base + all added.")
    reasons: tuple[PredictionReason, ...] = Field(description="What moved it most first.")
    model_version: int | None = Field(description="In model_registry; null without a training.")
    model_snapshot: int | None = Field(description="Snapshot that the model came from.")
    refused: str | None = Field(description="Why the newest model is not used; null while it is.")
    truncated: bool = Field(description="Whether reasons were cut off.")
    omitted: int = Field(description="Reasons that were cut off.")
    source: Source


class SkillSuggestion(Row):
    """A skill that a user does not use yet."""

    skill_name: str
    score: float = Field(description="What the list is sorted by; comparable within one list.")
    completion_rate: float | None = Field(
        description="completed / (completed + failed) of all users' runs, shrunk; null where fewer"
        " than five of several users use it."
    )
    n: int = Field(description="completed + failed; 0 where the rate is null.")
    source: str = Field(description="collaborative_filtering or global_popularity.")
    method: str = Field(description="similar_users, skills_used_together or popular.")
    reason: str = Field(description="Why, in words.")


class CollaborativeRecommendations(Answer):
    """Skills that would suit a user."""

    user_id: str = Field(description="As it was given.")
    recommendations: tuple[SkillSuggestion, ...] = Field(description="Best first.")
    skills_used: int = Field(description="Skills of the user, built-in tools left out.")
    users: int = Field(description="Users who were compared.")
    refused: str | None = Field(
        description="Why the newest numbers are not used; null while they are."
    )
    truncated: bool = Field(description="Whether the list was cut short.")
    omitted: int = Field(description="Suggestions that were cut off.")
    computed_at: str = Field(description="When they were computed, UTC.")
    source: Source
