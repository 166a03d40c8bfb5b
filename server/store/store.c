/* store.c: opening and closing of the store, and the connections that read.
 *
 * A reader is a read-only connection that one thread borrows for one short transaction. Readers never checkpoint and
 * never recover more than SQLite asks of the first opener: the writer is opened before them and closed after them.
 */
#include "store/store_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READERS_MAX 64 /* each has a page cache of its own */

static bp_status open_readers(struct bp_store *store, int n, struct bp_error *err)
{
    bp_status status = BP_OK;
    for (int i = 0; status == BP_OK && i < n; i++) {
        struct bp_db *db;
        status = bp_db_open(store->path, store->vfs, BP_DB_READER, 0, &db, err);
        if (status == BP_OK) {
            db->store = store;
            db->next = store->readers;
            store->readers = db;
        }
    }
    return status;
}

static void init_locks(struct bp_store *store)
{
    pthread_condattr_t monotonic;
    pthread_mutex_init(&store->mutex, NULL);
    pthread_mutex_init(&store->reader_mutex, NULL);
    pthread_mutex_init(&store->pin_mutex, NULL);
    pthread_cond_init(&store->reader_idle, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&store->work, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

static void free_store(struct bp_store *store)
{
    while (store->readers) {
        struct bp_db *db = store->readers;
        store->readers = db->next;
        bp_db_close(db);
    }
    bp_db_close(store->writer);
    while (store->pins) {
        struct bp_pin *pin = store->pins;
        store->pins = pin->next;
        free(pin);
    }
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    pthread_cond_destroy(&store->work);
    pthread_cond_destroy(&store->reader_idle);
    pthread_mutex_destroy(&store->pin_mutex);
    pthread_mutex_destroy(&store->reader_mutex);
    pthread_mutex_destroy(&store->mutex);
    free(store->path);
    free(store->vfs);
    free(store);
}

/* The messages of an opening name the file: it is what the operator has to look at. */
static bp_status name_file(bp_status status, const struct bp_store *store, struct bp_error *err)
{
    if (!err || !store->path || strstr(err->message, store->path))
        return status;
    struct bp_error inner = *err;
    char advice[160] = "";
    if (status == BP_FULL)
        bp_ballast_advice(store, advice, sizeof advice);
    return bp_fail(err, status, "%s: %s%s", store->path, inner.message,
                   status == BP_CORRUPT ? "; move the file away, or restore it from a backup" : advice);
}

bp_status bp_store_open_vfs(const struct bp_store_options *options, const char *vfs, struct bp_store **ret,
                            struct bp_error *err)
{
    if (options->readers < 1 || options->readers > READERS_MAX)
        return bp_fail(err, BP_INVALID, "readers must be 1 to %d, got %d", READERS_MAX, options->readers);
    struct bp_store *store = calloc(1, sizeof *store);
    if (!store)
        return bp_fail(err, BP_NOMEM, "no memory for the store");
    bp_status status = BP_OK;
    store->lock_fd = -1;
    store->tail = &store->head;
    store->sweep_at = 0; /* what the last run left behind */
    init_locks(store);
    if (vfs && !(store->vfs = strdup(vfs)))
        status = bp_fail(err, BP_NOMEM, "no memory for the store");
    if (status == BP_OK)
        status = bp_store_file_claim(options->dir, &store->path, &store->lock_fd, err);
    if (status == BP_OK) {
        bp_ballast_open(store);
        status = bp_db_open(store->path, vfs, BP_DB_WRITER, options->max_bytes, &store->writer, err);
    }
    if (status == BP_OK)
        status = bp_db_migrate(store->writer, err);
    if (status == BP_OK)
        status = open_readers(store, options->readers, err);
    if (status == BP_OK) {
        store->writer->store = store;
        status = bp_store_writer_start(store, err);
    }
    if (status != BP_OK) {
        name_file(status, store, err);
        free_store(store);
        return status;
    }
    *ret = store;
    return BP_OK;
}

bp_status bp_store_open(const struct bp_store_options *options, struct bp_store **ret, struct bp_error *err)
{
    return bp_store_open_vfs(options, NULL, ret, err);
}

void bp_store_close(struct bp_store *store)
{
    if (!store)
        return;
    bp_store_writer_stop(store);
    free_store(store);
}

/* --- reading ---------------------------------------------------------------------------------------------------- */
static bp_status run_read(struct bp_db *db, bp_store_fn *fn, void *arg, struct bp_error *err)
{
    sqlite3_stmt *begin, *end;
    bp_status status = bp_db_statement(db, "BEGIN", &begin, err);
    if (status == BP_OK)
        status = bp_db_statement(db, "COMMIT", &end, err);
    if (status == BP_OK)
        status = bp_db_finish(db, begin, "starting to read", err);
    if (status != BP_OK)
        return status;
    status = fn(db, arg, err);
    if (!sqlite3_get_autocommit(db->handle)) /* else a failure has ended it */
        bp_db_finish(db, end, "ending a read", NULL);
    return status;
}

bp_status bp_store_read(struct bp_store *store, bp_store_fn *fn, void *arg, struct bp_error *err)
{
    pthread_mutex_lock(&store->reader_mutex);
    while (!store->readers)
        pthread_cond_wait(&store->reader_idle, &store->reader_mutex);
    struct bp_db *db = store->readers;
    store->readers = db->next;
    pthread_mutex_unlock(&store->reader_mutex);

    db->deadline = bp_clock() + BP_READ_SECONDS;
    bp_status status = run_read(db, fn, arg, err);
    db->deadline = 0;

    pthread_mutex_lock(&store->reader_mutex);
    db->next = store->readers;
    store->readers = db;
    pthread_cond_signal(&store->reader_idle);
    pthread_mutex_unlock(&store->reader_mutex);
    return status;
}

/* --- checking --------------------------------------------------------------------------------------------------- */
bp_status bp_store_check(struct bp_store *store, struct bp_error *err)
{
    struct bp_db *db;
    sqlite3_stmt *stmt;
    /* A connection of its own: it takes seconds, and must neither hold up readers nor be interrupted. */
    bp_status status = bp_db_open(store->path, store->vfs, BP_DB_READER, 0, &db, err);
    if (status != BP_OK)
        return status;
    status = bp_db_statement(db, "PRAGMA quick_check(1)", &stmt, err);
    if (status == BP_OK)
        status = bp_db_step(db, stmt, "checking the database", err);
    if (status == BP_OK) {
        const char *word = (const char *)sqlite3_column_text(stmt, 0);
        if (!word || strcmp(word, "ok") != 0)
            status = bp_fail(err, BP_CORRUPT, "%s is damaged (%s); restore it from a backup", store->path,
                             word ? word : "no answer");
    }
    bp_db_close(db);
    return status;
}
