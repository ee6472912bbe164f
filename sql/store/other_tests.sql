-- Names of the tests in the attached database other that another test of ours has already.

select o.test_name from other.ab_test_configs o
where o.test_id not in (select other_id from same_test)
order by o.test_name
