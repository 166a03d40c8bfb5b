-- Where the first weights of a job come from a checkpoint of another one (init_from): the bytes of that checkpoint,
-- kept as long as the job, and which of them go where (a JSON array). The other job may be deleted meanwhile.
CREATE TABLE start (
    job    INTEGER PRIMARY KEY REFERENCES job (seq),
    blob   INTEGER NOT NULL REFERENCES blob (id),
    copies TEXT NOT NULL
) STRICT;
CREATE INDEX start_by_blob ON start (blob);

DROP TRIGGER checkpoint_deleted;
CREATE TRIGGER checkpoint_deleted AFTER DELETE ON checkpoint
WHEN NOT EXISTS (SELECT 1 FROM start WHERE blob = OLD.blob)
BEGIN
    UPDATE blob SET live = 0 WHERE id = OLD.blob;
END;
CREATE TRIGGER start_deleted AFTER DELETE ON start
WHEN NOT EXISTS (SELECT 1 FROM start WHERE blob = OLD.blob)
     AND NOT EXISTS (SELECT 1 FROM checkpoint WHERE blob = OLD.blob)
BEGIN
    UPDATE blob SET live = 0 WHERE id = OLD.blob;
END;
