-- Back to V2: phases and steps go, every row stays.

drop index if exists idx_invocation_phase_completion;
drop index if exists idx_invocation_workflow_step;
drop index if exists idx_invocation_workflow_phase;
alter table skill_invocation drop column workflow_step_id;
alter table skill_invocation drop column workflow_phase;
