/* bench_store.c: what the store costs over bare SQLite with the same durability.
 *
 *   backpropd-bench-store [DIR [RUNS]]        a directory on the disk in question, default /tmp
 *   backpropd-bench-store fill DIR JOBS POINTS
 *       adds copies of the newest job to the data directory DIR, each with its share of the metric points
 *
 * Prints one JSON object a line: the median of several runs, store and bare SQLite taking turns, because a disk's speed
 * drifts.
 */
#include "store/store_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RUNS_MAX 25
#define CLIENTS 32
#define WRITES 200  /* of a client */
#define BATCHES 100 /* of metric points */
#define BATCH 1000  /* points each, as a fast trainer posts them: some series of a hundred steps */
#define SERIES 10   /* of a batch */
#define CHECKPOINT (128 << 20)

struct batch;

struct bench {
    struct bp_store *store;
    sqlite3 *bare;
    char job[BP_ID_SIZE];
    uint8_t *bytes;
    int64_t step;
    double start; /* of the run: what prepares it is not counted */
    struct batch *batches[BATCHES];
};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void check(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "%s failed\n", what);
        exit(1);
    }
}

static void bare_exec(struct bench *b, const char *sql)
{
    check(sqlite3_exec(b->bare, sql, NULL, NULL, NULL) == SQLITE_OK, sql);
}

static sqlite3_stmt *bare_prepare(struct bench *b, const char *sql)
{
    sqlite3_stmt *stmt;
    check(sqlite3_prepare_v2(b->bare, sql, -1, &stmt, NULL) == SQLITE_OK, sql);
    return stmt;
}

static void bare_run(sqlite3_stmt *stmt)
{
    check(sqlite3_step(stmt) == SQLITE_DONE, "a bare step");
    sqlite3_reset(stmt);
}

/* --- durable writes --------------------------------------------------------------------------------------------- */
static bp_status event_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    return bp_db_event_add(db, arg, "epoch", "{\"epoch\":1,\"loss\":0.5}", NULL, err);
}

static void *client(void *arg)
{
    struct bench *b = arg;
    for (int i = 0; i < WRITES; i++)
        check(bp_store_write(b->store, event_fn, b->job, NULL) == BP_OK, "a write");
    return NULL;
}

static double one_client(struct bench *b)
{
    client(b);
    return WRITES;
}

static double one_client_bare(struct bench *b)
{
    sqlite3_stmt *stmt = bare_prepare(b, "INSERT INTO event (at, type, data) VALUES (1, 'epoch', '{\"epoch\":1}')");
    for (int i = 0; i < WRITES; i++) {
        bare_exec(b, "BEGIN IMMEDIATE");
        bare_run(stmt);
        bare_exec(b, "COMMIT");
    }
    sqlite3_finalize(stmt);
    return WRITES;
}

static double many_clients(struct bench *b)
{
    pthread_t threads[CLIENTS];
    for (int i = 0; i < CLIENTS; i++)
        check(pthread_create(&threads[i], NULL, client, b) == 0, "a thread");
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    return WRITES * CLIENTS;
}

/* --- metric rows ------------------------------------------------------------------------------------------------ */
struct batch {
    const char *job;
    struct bp_metric_point points[BATCH];
};

static bp_status batch_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct batch *batch = arg;
    return bp_db_metric_add(db, batch->job, batch->points, BATCH, err);
}

static void batch_done(void *arg, bp_status status, const struct bp_error *err)
{
    (void)err;
    check(status == BP_OK, "a batch of metrics");
    free(arg);
}

static bp_status nothing_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    (void)db;
    (void)arg;
    (void)err;
    return BP_OK;
}

static struct batch *make_batch(const char *job, int64_t *step)
{
    struct batch *batch = calloc(1, sizeof *batch);
    check(batch, "memory");
    batch->job = job;
    for (int i = 0; i < BATCH; i++) {
        *step += i % SERIES == 0;
        batch->points[i] = (struct bp_metric_point){.step = *step, .epoch = 1, .value = 0.5 * i};
        snprintf(batch->points[i].name, sizeof batch->points[i].name, "series_%d", i % SERIES);
    }
    return batch;
}

static void post_metrics(struct bench *b)
{
    for (int i = 0; i < BATCHES; i++)
        check(bp_store_post(b->store, batch_fn, b->batches[i], batch_done) == BP_OK, "a post");
    check(bp_store_write(b->store, nothing_fn, NULL, NULL) == BP_OK, "a write"); /* all of them are on the disk */
}

static double metrics(struct bench *b)
{
    for (int i = 0; i < BATCHES; i++)
        b->batches[i] = make_batch(b->job, &b->step);
    b->start = seconds();
    post_metrics(b);
    return BATCHES * BATCH;
}

static double metrics_bare(struct bench *b)
{
    sqlite3_stmt *stmt = bare_prepare(b, "INSERT INTO point VALUES (?1, ?2, 1, ?3)");
    bare_exec(b, "BEGIN IMMEDIATE");
    for (int i = 0; i < BATCHES * BATCH; i++) {
        b->step += i % SERIES == 0;
        sqlite3_bind_int(stmt, 1, i % SERIES);
        sqlite3_bind_int64(stmt, 2, b->step);
        sqlite3_bind_double(stmt, 3, 0.5 * i);
        bare_run(stmt);
    }
    bare_exec(b, "COMMIT");
    sqlite3_finalize(stmt);
    return BATCHES * BATCH;
}

/* --- checkpoints ------------------------------------------------------------------------------------------------ */
static double checkpoint(struct bench *b)
{
    struct bp_checkpoint_row row = {.bytes = CHECKPOINT};
    strcpy(row.job, b->job);
    check(bp_store_checkpoint(b->store, &row, b->bytes, NULL, NULL, NULL) == BP_OK, "a checkpoint");
    return CHECKPOINT >> 20;
}

static double checkpoint_bare(struct bench *b)
{
    bare_exec(b, "DELETE FROM chunk");
    sqlite3_stmt *stmt = bare_prepare(b, "INSERT INTO chunk (bytes) VALUES (?1)");
    for (int i = 0; i < CHECKPOINT / BP_CHUNK_BYTES; i++) {
        if (i % BP_CHUNKS_A_PIECE == 0)
            bare_exec(b, "BEGIN IMMEDIATE");
        sqlite3_bind_blob(stmt, 1, b->bytes + (size_t)i * BP_CHUNK_BYTES, BP_CHUNK_BYTES, SQLITE_STATIC);
        bare_run(stmt);
        if (i % BP_CHUNKS_A_PIECE == BP_CHUNKS_A_PIECE - 1)
            bare_exec(b, "COMMIT");
    }
    sqlite3_finalize(stmt);
    return CHECKPOINT >> 20;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static const struct {
    const char *measure, *unit;
    double goal;                                              /* share of bare */
    double (*store)(struct bench *), (*bare)(struct bench *); /* return how many units they wrote */
} benches[] = {
    {"durable_writes_1_client", "writes/s", 0.6, one_client, one_client_bare},
    {"durable_writes_32_clients", "writes/s", 1.0, many_clients, one_client_bare},
    {"metric_rows", "rows/s", 0.6, metrics, metrics_bare},
    {"checkpoint_bytes", "MiB/s", 0.7, checkpoint, checkpoint_bare},
};

static double rate(struct bench *b, double (*run)(struct bench *))
{
    b->start = seconds();
    double n = run(b);
    return n / (seconds() - b->start);
}

static void set_up(struct bench *b, char *dir)
{
    struct bp_error err;
    struct bp_store_options options = {.dir = dir, .readers = 1};
    char path[1100];
    if (bp_store_open(&options, &b->store, &err) != BP_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    snprintf(path, sizeof path, "%s/bare.db", dir);
    check(sqlite3_open(path, &b->bare) == SQLITE_OK, "opening a bare database");
    bare_exec(b, "PRAGMA page_size=8192; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL;"
                 "PRAGMA synchronous=FULL; PRAGMA secure_delete=FAST; PRAGMA cache_size=-16384;"
                 "CREATE TABLE event (seq INTEGER PRIMARY KEY, at, type, data);"
                 "CREATE TABLE point (series, step, epoch, value, PRIMARY KEY (series, step)) WITHOUT ROWID;"
                 "CREATE TABLE chunk (id INTEGER PRIMARY KEY, bytes)");
    b->bytes = calloc(1, CHECKPOINT);
    check(b->bytes, "memory");
    for (size_t i = 0; i < CHECKPOINT; i++)
        b->bytes[i] = (uint8_t)(i * 2654435761u >> 11);
}

static bp_status job_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct bench *b = arg;
    struct bp_job_row row = {.status = BP_JOB_RUNNING};
    bp_store_new_id("job", row.id);
    strcpy(b->job, row.id);
    return bp_db_job_insert(db, &row, err);
}

/* --- a large database ----------------------------------------------------------------------------------------------- */
#define JOBS_A_PIECE 50

struct filling {
    struct bp_job_row model; /* the jobs are copies of it */
    int64_t first, end, jobs, points;
    struct batch *batch;
};

static bp_status model_seen(void *arg, const struct bp_job_row *row)
{
    memcpy(((struct filling *)arg)->model.id, row->id, sizeof row->id);
    return BP_OK;
}

/* The newest job there is. */
static bp_status model_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct filling *f = arg;
    struct bp_job_filter filter = {.limit = 1};
    char id[BP_ID_SIZE];
    bp_status status = bp_db_job_list(db, &filter, model_seen, f, err);
    memcpy(id, f->model.id, sizeof id);
    return status == BP_OK ? bp_db_job_get(db, id, &f->model, err) : status;
}

static bp_status fill_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct filling *f = arg;
    bp_status status = BP_OK;
    for (int64_t i = f->first; status == BP_OK && i < f->end; i++) {
        struct bp_job_row row = f->model;
        int64_t n = (i + 1) * f->points / f->jobs / BATCH - i * f->points / f->jobs / BATCH;
        bp_store_new_id("job", row.id);
        status = bp_db_job_insert(db, &row, err);
        if (status == BP_OK)
            status = bp_db_event_add(db, row.id, "succeeded", "{}", NULL, err);
        for (int64_t k = 0; status == BP_OK && k < n; k++) {
            for (int j = 0; j < BATCH; j++)
                f->batch->points[j].step = k * (BATCH / SERIES) + j / SERIES + 1;
            status = bp_db_metric_add(db, row.id, f->batch->points, BATCH, err);
        }
    }
    return status;
}

static int fill(const char *dir, int64_t jobs, int64_t points)
{
    int64_t step = 0;
    struct bp_store *store;
    struct bp_store_options options = {.dir = dir, .readers = 1};
    struct bp_error err;
    struct filling f = {.jobs = jobs, .points = points, .batch = make_batch(NULL, &step)};
    if (bp_store_open(&options, &store, &err) != BP_OK || bp_store_read(store, model_fn, &f, &err) != BP_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    for (f.first = 0; f.first < jobs; f.first = f.end) {
        f.end = f.first + JOBS_A_PIECE < jobs ? f.first + JOBS_A_PIECE : jobs;
        check(bp_store_write(store, fill_fn, &f, NULL) == BP_OK, "writing jobs");
    }
    bp_job_row_done(&f.model);
    free(f.batch);
    bp_store_close(store);
    return 0;
}

int main(int argc, char **argv)
{
    char dir[1000];
    static struct bench b;
    if (argc == 5 && !strcmp(argv[1], "fill"))
        return fill(argv[2], atoll(argv[3]), atoll(argv[4]));
    int runs = argc > 2 ? atoi(argv[2]) : 5;
    check(runs >= 1 && runs <= RUNS_MAX, "the number of runs");
    snprintf(dir, sizeof dir, "%s/bp-bench-XXXXXX", argc > 1 ? argv[1] : "/tmp");
    check(mkdtemp(dir), "making a directory");
    set_up(&b, dir);
    check(bp_store_write(b.store, job_fn, &b, NULL) == BP_OK, "a job");
    for (size_t i = 0; i < sizeof benches / sizeof benches[0]; i++) {
        double store[RUNS_MAX], bare[RUNS_MAX];
        for (int run = 0; run < runs; run++) {
            store[run] = rate(&b, benches[i].store);
            bare[run] = rate(&b, benches[i].bare);
        }
        qsort(store, (size_t)runs, sizeof *store, ascending);
        qsort(bare, (size_t)runs, sizeof *bare, ascending);
        double ratio = store[runs / 2] / bare[runs / 2];
        printf("{\"measure\":\"%s\",\"value\":%.0f,\"unit\":\"%s\",\"bare\":%.0f,\"ratio\":%.3f,\"goal\":%.2f,"
               "\"met\":%s}\n",
               benches[i].measure, store[runs / 2], benches[i].unit, bare[runs / 2], ratio, benches[i].goal,
               ratio >= benches[i].goal ? "true" : "false");
        fflush(stdout);
    }
    bp_store_close(b.store);
    sqlite3_close(b.bare);
    free(b.bytes);
    static const char *const names[] = {"ballast", "backpropd.db", "backpropd.db-wal", "backpropd.db-shm",
                                        "bare.db", "bare.db-wal",  "bare.db-shm"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[1100];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
    return 0;
}
