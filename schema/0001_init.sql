-- The first schema. Children of a job hang on its seq, a small integer that is never used twice.
--
-- What may be large (metric points, events, chunks) is never deleted inside the transaction that a user waits for:
-- a job is marked `deleted`, a blob loses its `live`, and the store's thread sweeps them away in slices. Every query
-- looks at jobs that are not deleted, so that both vanish at once.

-- --- datasets: a name points at a version; a version stays while a name or a job needs it ---------------------------
CREATE TABLE dataset_version (
    hash        TEXT PRIMARY KEY CHECK (length(hash) BETWEEN 1 AND 64),  -- names the parsed table's file
    sha256      TEXT NOT NULL CHECK (length(sha256) BETWEEN 1 AND 64),   -- of the bytes as uploaded
    bytes       INTEGER NOT NULL CHECK (bytes >= 0),
    rows        INTEGER NOT NULL CHECK (rows >= 0),
    created_at  INTEGER NOT NULL,
    description TEXT NOT NULL
) STRICT;
CREATE INDEX dataset_version_by_sha256 ON dataset_version (sha256);

CREATE TABLE dataset (
    name       TEXT PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 64),
    owner      TEXT NOT NULL DEFAULT '',
    version    TEXT NOT NULL REFERENCES dataset_version (hash),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX dataset_by_version ON dataset (version);

-- --- jobs ------------------------------------------------------------------------------------------------------------
-- The states that may follow a state. What is not here cannot be stored (job_transition_is_legal).
CREATE TABLE job_transition (
    old TEXT NOT NULL,
    new TEXT NOT NULL,
    PRIMARY KEY (old, new)
) STRICT, WITHOUT ROWID;
INSERT INTO job_transition (old, new) VALUES
    ('queued', 'running'), ('queued', 'paused'), ('queued', 'cancelled'), ('queued', 'failed'),
    ('running', 'pausing'), ('running', 'cancelling'), ('running', 'paused'), ('running', 'queued'),
    ('running', 'succeeded'), ('running', 'failed'), ('running', 'cancelled'),
    ('pausing', 'paused'), ('pausing', 'running'), ('pausing', 'queued'), ('pausing', 'cancelling'),
    ('pausing', 'succeeded'), ('pausing', 'failed'), ('pausing', 'cancelled'),
    ('paused', 'queued'), ('paused', 'running'), ('paused', 'succeeded'), ('paused', 'failed'),
    ('paused', 'cancelled'),
    ('cancelling', 'cancelled'), ('cancelling', 'succeeded'), ('cancelling', 'failed');

CREATE TABLE job (
    seq               INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of submission
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
-- Covers the filters of a listing, so that one over 10,000 jobs reads this and not the wide rows.
CREATE INDEX job_listing ON job (seq, status, name) WHERE deleted = 0;
CREATE INDEX job_by_status ON job (status, seq) WHERE deleted = 0;
CREATE INDEX job_to_sweep ON job (seq) WHERE deleted = 1;
CREATE INDEX job_by_version ON job (dataset_version) WHERE dataset_version IS NOT NULL;

CREATE TRIGGER job_transition_is_legal BEFORE UPDATE OF status ON job
WHEN NEW.status <> OLD.status
     AND NOT EXISTS (SELECT 1 FROM job_transition WHERE old = OLD.status AND new = NEW.status)
BEGIN
    SELECT RAISE(ABORT, 'this change of a job''s status is not allowed');
END;

-- The tags as rows, for filters.
CREATE TABLE job_tag (
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    job   INTEGER NOT NULL REFERENCES job (seq) ON DELETE CASCADE,
    PRIMARY KEY (job, key)
) STRICT, WITHOUT ROWID;

-- --- idempotency keys: in the transaction of the job that they made -------------------------------------------------
CREATE TABLE idempotency_key (
    key         TEXT PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 255),
    body_sha256 TEXT NOT NULL,
    job         INTEGER NOT NULL REFERENCES job (seq),
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_key_by_job ON idempotency_key (job);

-- --- events ----------------------------------------------------------------------------------------------------------
CREATE TABLE event (
    job  INTEGER NOT NULL REFERENCES job (seq),
    seq  INTEGER NOT NULL CHECK (seq >= 1),  -- within the job
    at   INTEGER NOT NULL,
    type TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (job, seq)
) STRICT, WITHOUT ROWID;

-- --- metrics ---------------------------------------------------------------------------------------------------------
CREATE TABLE series (
    id   INTEGER PRIMARY KEY,
    job  INTEGER NOT NULL REFERENCES job (seq),
    name TEXT NOT NULL,
    UNIQUE (job, name)
) STRICT;

CREATE TABLE point (
    series INTEGER NOT NULL REFERENCES series (id),
    step   INTEGER NOT NULL,
    epoch  INTEGER NOT NULL,
    value  REAL,  -- NULL: not a number, which SQLite cannot store
    PRIMARY KEY (series, step)
) STRICT, WITHOUT ROWID;

-- --- checkpoints -----------------------------------------------------------------------------------------------------
-- The bytes of a checkpoint. Without `live` no manifest names it: it is being written, or waits to be swept away.
CREATE TABLE blob (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    live INTEGER NOT NULL DEFAULT 0 CHECK (live IN (0, 1))
) STRICT;
CREATE INDEX blob_to_sweep ON blob (id) WHERE live = 0;

CREATE TABLE chunk (
    id     INTEGER PRIMARY KEY,
    blob   INTEGER NOT NULL REFERENCES blob (id),
    n      INTEGER NOT NULL CHECK (n >= 0),
    sha256 BLOB NOT NULL CHECK (length(sha256) = 32),
    bytes  BLOB NOT NULL CHECK (length(bytes) <= 1048576),
    UNIQUE (blob, n)
) STRICT;

-- The manifest: a checkpoint without one does not exist.
CREATE TABLE checkpoint (
    seq              INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of writing
    id               TEXT NOT NULL UNIQUE,
    job              INTEGER NOT NULL REFERENCES job (seq),
    blob             INTEGER NOT NULL UNIQUE REFERENCES blob (id),
    created_at       INTEGER NOT NULL,
    epoch            INTEGER NOT NULL,
    step             INTEGER NOT NULL,
    bytes            INTEGER NOT NULL CHECK (bytes >= 0),
    sha256           TEXT NOT NULL CHECK (length(sha256) = 64),
    best             INTEGER NOT NULL CHECK (best IN (0, 1)),
    numerics_version INTEGER NOT NULL,
    metrics          TEXT
) STRICT;
CREATE INDEX checkpoint_by_job ON checkpoint (job, seq);
CREATE TRIGGER checkpoint_deleted AFTER DELETE ON checkpoint
BEGIN
    UPDATE blob SET live = 0 WHERE id = OLD.blob;
END;
