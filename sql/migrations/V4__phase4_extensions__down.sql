-- Back to V3: every table that V4 made goes; skill_invocation keeps all its rows, also those
-- recorded since.

drop table skill_dependencies;
drop table skill_cluster_membership;
drop table skill_clusters;
drop table skill_community_baselines;
drop table skill_anomalies;
drop table skill_time_series;
drop table skill_metrics_cache;
drop table skill_modalities;
drop table skill_category_mapping;
drop table skill_categories;
drop table ab_test_outcomes;
drop table ab_test_assignments;
drop table ab_test_configs;
drop table ingest_file;
drop table skill_hour;
drop table skill_user_interactions;
