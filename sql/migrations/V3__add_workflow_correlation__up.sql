-- V3: the phase of the workflow in which an invocation ran.

alter table skill_invocation add column workflow_phase text;
alter table skill_invocation add column workflow_step_id text;

create index idx_invocation_workflow_phase on skill_invocation(workflow_phase)
    where workflow_phase is not null;
create index idx_invocation_workflow_step on skill_invocation(workflow_step_id)
    where workflow_step_id is not null;
create index idx_invocation_phase_completion on skill_invocation(workflow_phase, completed)
    where workflow_phase is not null;
