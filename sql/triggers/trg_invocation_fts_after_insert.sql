-- since: V1
-- Makes a stored query searchable; most rows have none.

create trigger trg_invocation_fts_after_insert after insert on skill_invocation
when new.user_query is not null
begin
    insert into skill_invocation_fts (rowid, user_query) values (new.id, new.user_query);
end;
