-- The key first, in its order: where it is not, SQLite 3.40's integrity check takes sound rows of a table without rowids
-- for damaged ones ("NULL value in job_tag.key").
CREATE TABLE job_tag_ordered (
    job   INTEGER NOT NULL REFERENCES job (seq) ON DELETE CASCADE,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (job, key)
) STRICT, WITHOUT ROWID;
INSERT INTO job_tag_ordered (job, key, value) SELECT job, key, value FROM job_tag;
DROP TABLE job_tag;
ALTER TABLE job_tag_ordered RENAME TO job_tag;
