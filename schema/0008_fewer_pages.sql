-- Two pages less to write and to sync in every submission: the table of jobs does without AUTOINCREMENT, whose page of the
-- last number is written by each (the store counts on from the highest number that it has seen), and the index of jobs by
-- the version of their dataset goes. Who asks for jobs of a version reads the other index, which has it now.
CREATE TABLE job_anew (
    seq               INTEGER PRIMARY KEY,                    -- order of submission
    deleted           INTEGER NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1)),
    status            TEXT NOT NULL CHECK (status IN ('queued', 'running', 'pausing', 'paused', 'cancelling',
                                                      'succeeded', 'failed', 'cancelled')),
    id                TEXT NOT NULL UNIQUE CHECK (length(id) BETWEEN 1 AND 31),
    owner             TEXT NOT NULL DEFAULT '',
    name              TEXT,
    version           INTEGER NOT NULL CHECK (version >= 1),  -- rises with every durable change
    priority          INTEGER NOT NULL,
    created_at        INTEGER NOT NULL,
    started_at        INTEGER NOT NULL,                       -- 0: has not happened
    finished_at       INTEGER NOT NULL,
    numerics_version  INTEGER NOT NULL,
    seed              INTEGER NOT NULL,
    threads           INTEGER NOT NULL,
    stopping          INTEGER NOT NULL CHECK (stopping IN (0, 1)),  -- a stop was asked for and is not carried out yet
    restarts          INTEGER NOT NULL CHECK (restarts >= 0),
    stalls            INTEGER NOT NULL CHECK (stalls >= 0),
    dataset           TEXT NOT NULL,
    sha256            TEXT NOT NULL,
    dataset_version   TEXT REFERENCES dataset_version (hash),  -- NULL: none, or deleted
    parent            TEXT NOT NULL,
    best_epoch        INTEGER NOT NULL,
    best_step         INTEGER NOT NULL,
    has_best          INTEGER NOT NULL CHECK (has_best IN (0, 1)),
    best_value        REAL,                                    -- NULL: none, or not a number
    best_name         TEXT,
    split_fingerprint INTEGER,                                 -- NULL: not split yet
    stop_reason       TEXT,
    error             TEXT,
    progress          TEXT,
    last_metrics      TEXT,
    test_metrics      TEXT,
    tags              TEXT,
    warnings          TEXT,
    model             TEXT,
    transform         TEXT,
    spec              TEXT,
    request           TEXT,
    CHECK (deleted = 0 OR status IN ('succeeded', 'failed', 'cancelled'))
) STRICT;
INSERT INTO job_anew SELECT * FROM job;
DROP TABLE job;
ALTER TABLE job_anew RENAME TO job;
CREATE INDEX job_by_status ON job (status, priority DESC, seq, name, dataset_version) WHERE deleted = 0;
CREATE INDEX job_to_sweep ON job (seq) WHERE deleted = 1;
CREATE TRIGGER job_transition_is_legal BEFORE UPDATE OF status ON job
WHEN NEW.status <> OLD.status
     AND NOT EXISTS (SELECT 1 FROM job_transition WHERE old = OLD.status AND new = NEW.status)
BEGIN
    SELECT RAISE(ABORT, 'this change of a job''s status is not allowed');
END;
