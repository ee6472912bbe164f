-- Back to an empty file. Every recorded row goes; the runner makes a backup first.

drop table skill_invocation_fts;
drop table mv_daily_skills;
drop table session_skills;
drop table skill_metrics;
drop table skill_invocation;
drop table skill_migrations;
