-- One index in the place of three, because each is a page more to write and to sync in every submission: the jobs by
-- status, the queue in the order in which it is worked off (and how many come before one), and the filters of a listing
-- without its wide rows.
DROP INDEX job_listing;
DROP INDEX job_by_status;
DROP INDEX job_queue;
CREATE INDEX job_by_status ON job (status, priority DESC, seq, name) WHERE deleted = 0;
