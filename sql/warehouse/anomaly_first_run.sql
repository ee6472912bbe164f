-- One row: the start of the first run of any skill, from $start on, that has $value as its $attribute;
-- NULL without one.

select min(invoked_at) as first
from events
where invoked_at >= $start
  and $value = case $attribute
      when 'agent' then agent
      when 'agent_version' then agent_version
      when 'model' then model
      when 'project_id' then project_id
      when 'workflow_phase' then workflow_phase
  end
