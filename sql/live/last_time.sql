-- The latest start of one skill in (:after, :until], for skills whose very latest start lies later.

select invoked_at from skill_invocation
where invoked_at > :after and invoked_at <= :until and +skill_name = :skill_name
  and strftime('%H', invoked_at) is not null
order by invoked_at desc
limit 1
