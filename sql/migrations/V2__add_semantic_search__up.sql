-- V2: room for an embedding of the query (384 little-endian float32, 1,536 bytes).

alter table skill_invocation add column embedding blob;

create index idx_invocation_embedding on skill_invocation(embedding) where embedding is not null;
