-- Back to V1: the embeddings go, every row stays.

drop index if exists idx_invocation_embedding;
alter table skill_invocation drop column embedding;
