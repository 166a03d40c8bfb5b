-- The queue in the order in which it is worked off, and nothing else: the next job, and how many come before one.
CREATE INDEX job_queue ON job (priority DESC, seq) WHERE status = 'queued' AND deleted = 0;
