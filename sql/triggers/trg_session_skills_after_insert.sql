-- since: V1
-- Keeps session_skills, one row per session and skill.

create trigger trg_session_skills_after_insert after insert on skill_invocation
begin
    insert into session_skills (session_id, skill_name) values (new.session_id, new.skill_name)
    on conflict (session_id, skill_name) do update set invocation_count = invocation_count + 1;
end;
