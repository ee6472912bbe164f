-- Grain: one row per pair of skills that somebody expects to go together, skill_a before skill_b by
-- name. Written by `sb expect`, never by a program: what was measured is in skill_dependencies.
-- lift        the lift that is expected, NULL where none was named.
-- created_at  when the pair was written or changed, UTC.
-- Not part of Session-Buddy's schema, so no version makes or drops it: the first pair does.

create table if not exists expected_dependencies (
    skill_a text not null,
    skill_b text not null,
    lift real check (lift > 1),
    created_at text not null,
    primary key (skill_a, skill_b),
    check (skill_a < skill_b)
);
