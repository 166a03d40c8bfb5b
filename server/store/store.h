/* store.h: everything that must survive: one SQLite file, one thread that writes.
 *
 * Exactly one connection writes and checkpoints the write-ahead log; it belongs to the store's thread. Other
 * threads hand it work and wait until their work is committed (bp_store_write), or do not wait (bp_store_post); somebody
 * who comes alone may borrow the connection for a moment (bp_store_write_here). The
 * thread takes all work that is waiting into one transaction (group commit), each of several pieces under a savepoint
 * of its own, so that a failing piece undoes itself alone. Nothing is reported as done before COMMIT has returned, with
 * synchronous=FULL.
 *
 * Readers (bp_store_read) get a read-only connection for one short transaction; they never checkpoint and never
 * hold a transaction while a client is slow.
 *
 * One family of statements a file: store_datasets.c, store_jobs.c, store_events.c, store_metrics.c,
 * store_layers.c, store_checkpoints.c, store_keys.c. Their functions take a struct bp_db: the connection of a piece of work. They
 * run inside bp_store_write/post/read callbacks only.
 *
 * Times are milliseconds since 1970 UTC. Strings returned in row structs are malloc'd unless they are arrays; each
 * row struct has a _done function.
 */
#ifndef BP_STORE_STORE_H
#define BP_STORE_STORE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bp_store;
struct bp_db; /* a connection inside a transaction, with its prepared statements */

#define BP_ID_SIZE 32    /* "job_" or "ckpt_" + 26 characters of a lower-case ULID + NUL */
#define BP_SHA256_HEX 65 /* 64 hex digits + NUL */
#define BP_DATASET_NAME 65
#define BP_CHUNK_BYTES (1 << 20) /* of a checkpoint's chunk rows */

struct bp_store_options {
    const char *dir;   /* the data directory; the file is dir/backpropd.db */
    int readers;       /* read-only connections, at least 1 */
    int64_t max_bytes; /* of the database file, 0 for no limit */
};

/* Opens or creates the database: checks header, application id and schema version, migrates (schema/NNNN_*.sql,
 * embedded), starts the thread. The message of an error names the file and the remedy. BP_MISMATCH: another
 * application or a newer schema; BP_CORRUPT; BP_UNSUPPORTED: a network file system, or a file with several hard links;
 * BP_CONFLICT: another daemon uses the directory; BP_IO; BP_FULL; BP_NOMEM. A file that is refused is untouched. */
bp_status bp_store_open(const struct bp_store_options *options, struct bp_store **ret, struct bp_error *err);

/* Finishes what is queued, checkpoints the log, closes. */
void bp_store_close(struct bp_store *store);

/* A piece of work: returns BP_OK to keep its changes; anything else undoes them. */
typedef bp_status bp_store_fn(struct bp_db *db, void *arg, struct bp_error *err);

/* Runs fn on the store's thread and returns after COMMIT (BP_OK) or with the failure. After a failed fsync every
 * call fails with BP_IO: the store is latched (bp_store_failed). BP_FULL: no space; the piece can be tried again (also the
 * fate of the pieces of the same transaction that came before it: SQLite undoes all of it). BP_STOPPED: closing. fn
 * runs at most once. Never from within fn or a done callback: the thread would wait for itself. */
bp_status bp_store_write(struct bp_store *store, bp_store_fn *fn, void *arg, struct bp_error *err);

/* The same, but on the calling thread if nobody else is writing or waits to: that saves two changes of thread. For little
 * work by threads of normal priority, because whoever comes meanwhile waits for it. */
bp_status bp_store_write_here(struct bp_store *store, bp_store_fn *fn, void *arg, struct bp_error *err);

/* The same as bp_store_write without waiting; done (may be NULL) is called on the store's thread after COMMIT or failure.
 * Metric rows posted this way are committed at the latest after 250 ms. BP_NOMEM, or BP_STOPPED after close began: done
 * is then not called. */
typedef void bp_store_done(void *arg, bp_status status, const struct bp_error *err);
bp_status bp_store_post(struct bp_store *store, bp_store_fn *fn, void *arg, bp_store_done *done);

/* Runs fn with a read-only connection on the calling thread. Keep it short (after 10 s it is interrupted: BP_LIMIT), and
 * do not read within a read: with all connections taken it would wait for itself. */
bp_status bp_store_read(struct bp_store *store, bp_store_fn *fn, void *arg, struct bp_error *err);

bool bp_store_failed(const struct bp_store *store); /* latched: reads go on, writes fail */

/* Rises with each transaction, after its COMMIT and before anybody is told of it. What was read after asking is at least
 * as new as the number; while the number stays, nothing has changed that anybody was told. Any thread, no lock. */
uint64_t bp_store_generation(const struct bp_store *store);

/* The same of the transactions that changed which version a dataset's name points at. */
uint64_t bp_store_dataset_generation(const struct bp_store *store);

/* Looks through the whole file for damage, with a connection of its own, read-only: for a background thread after the
 * start (seconds for gigabytes). BP_CORRUPT with what was found. */
bp_status bp_store_check(struct bp_store *store, struct bp_error *err);

/* For the metrics page. Any thread. */
struct bp_store_figures {
    uint64_t commits;              /* transactions since the start */
    size_t queued;                 /* pieces of work that wait for the thread */
    int64_t file_bytes, log_bytes; /* of the database and its write-ahead log */
};
void bp_store_figures(struct bp_store *store, struct bp_store_figures *ret);

/* "job_01j…": prefix + "_" + lower-case monotonic ULID. Thread-safe. */
void bp_store_new_id(const char *prefix, char ret[BP_ID_SIZE]);
int64_t bp_store_now(void); /* ms since 1970 */

/* --- datasets --------------------------------------------------------------------------------------------------
 * A name points at a version; a version (by its hash) stays while a job needs it. */
struct bp_dataset_row {
    char name[BP_DATASET_NAME];
    char sha256[BP_SHA256_HEX]; /* of the uploaded bytes (or of the manifest of a multipart dataset) */
    char table[BP_SHA256_HEX];  /* hash that names the parsed table's file */
    int64_t created_at;
    int64_t bytes, rows; /* uploaded bytes, parsed rows */
    char *description;   /* JSON: all about format and columns; see data/table.h */
};
void bp_dataset_row_done(struct bp_dataset_row *row);

/* Points name at a version, creating both as needed. *ret_existed: the name existed; *ret_same: with these bytes. */
bp_status bp_db_dataset_put(struct bp_db *db, const struct bp_dataset_row *row, bool *ret_existed, bool *ret_same,
                            struct bp_error *err);
bp_status bp_db_dataset_get(struct bp_db *db, const char *name, struct bp_dataset_row *ret, struct bp_error *err);
/* The same without the description, which may be megabytes. */
bp_status bp_db_dataset_find(struct bp_db *db, const char *name, struct bp_dataset_row *ret, struct bp_error *err);
/* A version by its hash, also when no name points at it any more (name is "" then). */
bp_status bp_db_dataset_version(struct bp_db *db, const char *table, struct bp_dataset_row *ret,
                                struct bp_error *err);
/* Ascending by name, after `after` ("" for the start). Rows are given to visit, which takes ownership of nothing. */
typedef bp_status bp_dataset_visit(void *arg, const struct bp_dataset_row *row);
bp_status bp_db_dataset_list(struct bp_db *db, const char *after, int limit, bp_dataset_visit *visit, void *arg,
                             struct bp_error *err);
/* BP_NOT_FOUND; BP_CONFLICT while an active job uses the version (the message names one). */
bp_status bp_db_dataset_delete(struct bp_db *db, const char *name, struct bp_error *err);
/* Table hashes that neither a name nor a job needs: for removing files. Removes the version rows. sha256 is "" where
 * another version has the same uploaded bytes: only the table goes then. Inside a write that fails later the rows come
 * back: remove files only after it has succeeded. */
typedef void bp_hash_visit(void *arg, const char *table, const char *sha256);
bp_status bp_db_dataset_sweep(struct bp_db *db, bp_hash_visit *visit, void *arg, struct bp_error *err);
/* Whether a version has this hash, of its table or of its uploaded bytes: for the files found at start. */
bp_status bp_db_dataset_known(struct bp_db *db, const char *hash, bool *ret, struct bp_error *err);

/* --- jobs ------------------------------------------------------------------------------------------------------ */
enum bp_job_status {
    BP_JOB_QUEUED,
    BP_JOB_RUNNING,
    BP_JOB_PAUSING,
    BP_JOB_PAUSED,
    BP_JOB_CANCELLING,
    BP_JOB_SUCCEEDED,
    BP_JOB_FAILED,
    BP_JOB_CANCELLED,
    BP_JOB_STATUS_COUNT
};
const char *bp_job_status_name(enum bp_job_status status);
bool bp_job_status_parse(const char *name, enum bp_job_status *ret);
bool bp_job_status_final(enum bp_job_status status);

struct bp_job_row {
    int64_t seq; /* order of submission */
    char id[BP_ID_SIZE];
    char *owner; /* "" for now */
    char *name;  /* or NULL */
    enum bp_job_status status;
    char *stop_reason;  /* or NULL */
    char *spec;         /* JSON: resolved, every default filled in */
    char *request;      /* JSON: as it was submitted */
    char *model;        /* JSON: parameters, layers */
    char *warnings;     /* JSON array */
    char *tags;         /* JSON object */
    char *error;        /* JSON object {code, message, …}, or NULL */
    char *transform;    /* JSON of data/transform.h once fitted, or NULL */
    char *progress;     /* JSON: durable progress {epoch, step, samples, seconds}, or NULL */
    char *last_metrics; /* JSON object: last value of each series, or NULL */
    char *test_metrics; /* JSON object, or NULL */
    char dataset[BP_DATASET_NAME];
    char sha256[BP_SHA256_HEX], table[BP_SHA256_HEX];
    char parent[BP_ID_SIZE];                     /* "" for none */
    int64_t created_at, started_at, finished_at; /* 0 where it has not happened */
    int64_t seed, threads, priority;
    int64_t stopping; /* 1: a stop was asked for and is not carried out yet */
    int64_t restarts; /* resumed after a crash */
    int64_t stalls;   /* crashes in a row without progress */
    int64_t version;  /* rises with every durable change */
    int64_t numerics; /* BP_NUMERICS_VERSION of the build that trains it */
    int64_t best_epoch, best_step;
    double best_value;
    bool has_best;
    char *best_name; /* best by the monitor */
    int64_t split_fingerprint;
    bool has_split;
};
void bp_job_row_done(struct bp_job_row *row);

/* Inserts; seq and version are filled in. */
bp_status bp_db_job_insert(struct bp_db *db, struct bp_job_row *row, struct bp_error *err);
bp_status bp_db_job_get(struct bp_db *db, const char *id, struct bp_job_row *ret, struct bp_error *err);
/* Writes every column that can change (all from `name` on but spec, request, dataset, created_at, seed) and raises
 * version by one (also in *row). BP_CONFLICT when the stored version is not row->version. */
bp_status bp_db_job_update(struct bp_db *db, struct bp_job_row *row, struct bp_error *err);

struct bp_job_filter {
    int statuses;     /* bit set of enum bp_job_status; 0 for all */
    const char *name; /* or NULL */
    const char *tag_key, *tag_value;
    bool ascending;    /* by seq; default newest first */
    const char *after; /* id of the last one seen, or NULL; BP_INVALID when unknown */
    int limit;
};
typedef bp_status bp_job_visit(void *arg, const struct bp_job_row *row);
bp_status bp_db_job_list(struct bp_db *db, const struct bp_job_filter *filter, bp_job_visit *visit, void *arg,
                         struct bp_error *err);
/* Deletes a job with its events, metrics and checkpoints. BP_CONFLICT while it is not final. */
bp_status bp_db_job_delete(struct bp_db *db, const char *id, struct bp_error *err);
bp_status bp_db_job_count(struct bp_db *db, int statuses, int64_t *ret, struct bp_error *err);
/* The queue goes by priority, then by age. The id of its first job: BP_NOT_FOUND (err untouched) when it is empty. */
bp_status bp_db_job_next(struct bp_db *db, char ret_id[BP_ID_SIZE], struct bp_error *err);
/* How many jobs are queued, and how many of them come before a new one of this priority. */
bp_status bp_db_job_queue(struct bp_db *db, int64_t priority, int64_t *ret_queued, int64_t *ret_ahead,
                          struct bp_error *err);
/* How many jobs of the queue come before this one. */
bp_status bp_db_job_ahead(struct bp_db *db, const struct bp_job_row *row, int64_t *ret, struct bp_error *err);

/* --- events ---------------------------------------------------------------------------------------------------- */
struct bp_event_row {
    int64_t seq; /* within the job, from 1 */
    int64_t at;
    const char *type; /* "queued", "started", "epoch", … */
    const char *data; /* JSON object */
};
/* Appends; *ret_seq may be NULL. The first event of a job, "queued" at its created_at, is there as soon as the job is. */
bp_status bp_db_event_add(struct bp_db *db, const char *job, const char *type, const char *data, int64_t *ret_seq,
                          struct bp_error *err);
typedef bp_status bp_event_visit(void *arg, const struct bp_event_row *row);
bp_status bp_db_event_list(struct bp_db *db, const char *job, int64_t after, int limit, bp_event_visit *visit,
                           void *arg, struct bp_error *err);

/* --- metrics --------------------------------------------------------------------------------------------------- */
struct bp_metric_point {
    char name[48]; /* "test_precision_macro_" and the label of an output */
    int64_t epoch, step;
    double value; /* may be non-finite */
};
/* Upserts by (job, name, step). */
bp_status bp_db_metric_add(struct bp_db *db, const char *job, const struct bp_metric_point *points, size_t n,
                           struct bp_error *err);
/* Ordered by name, then step. names NULL: all series. from_step 0: all. */
typedef bp_status bp_metric_visit(void *arg, const struct bp_metric_point *point);
bp_status bp_db_metric_list(struct bp_db *db, const char *job, const char *const *names, size_t nnames,
                            int64_t from_step, bp_metric_visit *visit, void *arg, struct bp_error *err);
/* Deletes points after a step: a resumed job writes them again. */
bp_status bp_db_metric_trim(struct bp_db *db, const char *job, int64_t after_step, struct bp_error *err);

/* --- layers ------------------------------------------------------------------------------------------------------
 * What went on in the layers at sampled steps (engine/train/layer_stats.h says what each figure is). */
struct bp_layer_row {
    int64_t epoch, step;
    int layer; /* 0: the whole network; from 1: its layers, from the input to the output */
    char name[72], type[40], activation[40];
    bool hidden;
    double loss; /* of the probe: in the row of the network; NaN in others */
    double gradient_norm, clipped_norm, weight_norm, update_ratio, delta_norm, mean, spread, dead, saturated, alike;
    double delta_first, delta_last; /* of a recurrent layer */
};
/* Upserts by (job, step, layer). */
bp_status bp_db_layer_add(struct bp_db *db, const char *job, const struct bp_layer_row *rows, size_t n,
                          struct bp_error *err);
/* Ordered by step, then layer. */
typedef bp_status bp_layer_visit(void *arg, const struct bp_layer_row *row);
bp_status bp_db_layer_list(struct bp_db *db, const char *job, bp_layer_visit *visit, void *arg, struct bp_error *err);
/* Deletes samples after a step, as bp_db_metric_trim does (which calls it). */
bp_status bp_db_layer_trim(struct bp_db *db, const char *job, int64_t after_step, struct bp_error *err);

/* --- checkpoints -----------------------------------------------------------------------------------------------
 * Chunk rows of at most BP_CHUNK_BYTES, then the manifest row with the hash of everything, last: a checkpoint
 * without its manifest does not exist. Large ones take several transactions. */
struct bp_checkpoint_row {
    char id[BP_ID_SIZE];
    char job[BP_ID_SIZE];
    int64_t seq; /* order of writing */
    int64_t created_at, epoch, step;
    int64_t bytes;
    char sha256[BP_SHA256_HEX]; /* of the checkpoint's bytes */
    bool best;                  /* its parameters are the best so far */
    int64_t numerics;
    char *metrics; /* JSON object: metrics at that point */
    int keep;      /* for storing it: how many of the job stay, 0 for two; never read back */
};
void bp_checkpoint_row_done(struct bp_checkpoint_row *row);

/* Stores a checkpoint from the calling thread: several bp_store_write calls; fills row->id, sha256, bytes and seq.
 * Then applies retention: per job the last `keep` and the newest with `best` stay, pinned ones too. With the manifest,
 * in the same transaction, runs also(db, also_arg) when not NULL (the job's progress, events, metric rows). */
bp_status bp_store_checkpoint(struct bp_store *store, struct bp_checkpoint_row *row, const uint8_t *bytes,
                              bp_store_fn *also, void *also_arg, struct bp_error *err);
/* By id, or the newest ("latest" or NULL), or the newest with best ("best") of a job. BP_NOT_FOUND. */
bp_status bp_db_checkpoint_get(struct bp_db *db, const char *job, const char *which, struct bp_checkpoint_row *ret,
                               struct bp_error *err);
/* What the job object tells of them: the latest, and the newest with best and its step; "" where there is none. job: its
 * seq. */
struct bp_checkpoint_ids {
    char latest[BP_ID_SIZE], best[BP_ID_SIZE];
    int64_t best_step;
};
bp_status bp_db_checkpoint_ids(struct bp_db *db, int64_t job, struct bp_checkpoint_ids *ret, struct bp_error *err);
typedef bp_status bp_checkpoint_visit(void *arg, const struct bp_checkpoint_row *row);
bp_status bp_db_checkpoint_list(struct bp_db *db, const char *job, bp_checkpoint_visit *visit, void *arg,
                                struct bp_error *err); /* newest first */
/* Bytes [offset, offset + size) of a checkpoint; BP_CORRUPT when a chunk's own hash does not match. */
bp_status bp_db_checkpoint_bytes(struct bp_db *db, const char *id, int64_t offset, size_t size, uint8_t *ret,
                                 struct bp_error *err);
/* Reads a whole checkpoint, chunk by chunk in short reads, and verifies its SHA-256. malloc'd. */
bp_status bp_store_checkpoint_load(struct bp_store *store, const char *id, uint8_t **ret, size_t *ret_size,
                                   struct bp_error *err);
/* While pinned (counted, in memory), retention leaves it alone. */
void bp_store_checkpoint_pin(struct bp_store *store, const char *id);
void bp_store_checkpoint_unpin(struct bp_store *store, const char *id);

/* --- first weights -----------------------------------------------------------------------------------------------
 * A job that starts from a checkpoint of another one (init_from) keeps its bytes, whatever becomes of that job. `copies`
 * is the caller's own JSON: which bytes go where. */
bp_status bp_db_start_add(struct bp_db *db, const char *job, const char *checkpoint, const char *copies,
                          struct bp_error *err);
/* BP_NOT_FOUND (err untouched) for a job that has none. *ret_copies is malloc'd. */
bp_status bp_db_start_get(struct bp_db *db, const char *job, char **ret_copies, struct bp_error *err);
/* As bp_db_checkpoint_bytes. */
bp_status bp_db_start_bytes(struct bp_db *db, const char *job, int64_t offset, size_t size, uint8_t *ret,
                            struct bp_error *err);

/* --- idempotency keys ------------------------------------------------------------------------------------------ */
/* Remembers that `key` with a body of this hash made `job`. BP_CONFLICT when the key is there already. */
bp_status bp_db_key_put(struct bp_db *db, const char *key, const char *body_sha256, const char *job,
                        struct bp_error *err);
/* BP_NOT_FOUND; ret_sha256 is the hash of the body it came with. */
bp_status bp_db_key_get(struct bp_db *db, const char *key, char ret_sha256[BP_SHA256_HEX], char ret_job[BP_ID_SIZE],
                        struct bp_error *err);

#endif
