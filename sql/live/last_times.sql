-- The latest start of every skill that was used after :after; may lie in the future.

select skill_name, last_invocation_at from skill_metrics_cache where last_invocation_at > :after
