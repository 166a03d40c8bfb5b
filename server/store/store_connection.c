/* store_connection.c: how a connection is set up, and how the schema grows.
 *
 * The settings are not options: each has a reason, given beside it. Migrations are the files schema/NNNN_*.sql, built
 * into the binary, applied in ascending order, each in one transaction together with its number in user_version: a
 * crash between two of them leaves a database that the next start takes further.
 */
#include "store/store_internal.h"

#include "embedded.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAP_BYTES (256ll << 20) /* of SQLite in this process: a statement fails before the machine suffers */
#define PROGRESS_OPS 4096        /* virtual machine steps between two looks at the clock */

/* Bounds on what any statement may be: ours are small, so a larger one is a fault. LENGTH bounds a row; the widest are
 * descriptions of datasets with many thousand columns. EXPR_DEPTH counts the links of an AND chain. */
static const struct {
    int id, value;
} limits[] = {
    {SQLITE_LIMIT_LENGTH, 32 << 20},  {SQLITE_LIMIT_SQL_LENGTH, 100000},      {SQLITE_LIMIT_COLUMN, 100},
    {SQLITE_LIMIT_EXPR_DEPTH, 20},    {SQLITE_LIMIT_COMPOUND_SELECT, 3},      {SQLITE_LIMIT_VDBE_OP, 25000},
    {SQLITE_LIMIT_ATTACHED, 1},       {SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 50}, {SQLITE_LIMIT_VARIABLE_NUMBER, 64},
    {SQLITE_LIMIT_TRIGGER_DEPTH, 10}, {SQLITE_LIMIT_WORKER_THREADS, 0},
};

static const struct {
    int id, value;
} switches[] = {
    {SQLITE_DBCONFIG_DEFENSIVE, 1},             /* no statement can damage the file on purpose */
    {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},        /* a doctored schema gets no dangerous functions */
    {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0}, /* no code from outside */
    {SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1},      /* the writer checkpoints by hand; nobody else ever */
    {SQLITE_DBCONFIG_DQS_DML, 0},               /* "text" is a name, never a string */
    {SQLITE_DBCONFIG_DQS_DDL, 0},
};

static const char common_pragmas[] = "PRAGMA mmap_size=0;" /* mapping widened a known corruption of the log */
                                     "PRAGMA cell_size_check=ON;"
                                     "PRAGMA foreign_keys=ON;"
                                     "PRAGMA temp_store=MEMORY;"; /* no files outside the data directory */

static const char reader_pragmas[] = "PRAGMA query_only=ON;"
                                     "PRAGMA wal_autocheckpoint=0;"
                                     "PRAGMA cache_size=-4096;";

/* synchronous=FULL: a commit is on the disk when it returns; NORMAL may lose the last ones when the power fails.
 * wal_autocheckpoint=0: the store's thread checkpoints itself, after it has told its waiters (store_writer.c).
 * secure_delete=FAST: zeros are written only where that costs no extra page. */
static const char writer_pragmas[] = "PRAGMA synchronous=FULL;"
                                     "PRAGMA wal_autocheckpoint=0;"
                                     "PRAGMA journal_size_limit=67108864;"
                                     "PRAGMA secure_delete=FAST;"
                                     "PRAGMA cache_size=-16384;";

static int on_commit(void *arg, sqlite3 *handle, const char *name, int pages)
{
    (void)handle;
    (void)name;
    ((struct bp_db *)arg)->log_pages = pages;
    return SQLITE_OK;
}

static int on_progress(void *arg)
{
    const struct bp_db *db = arg;
    return db->deadline && bp_clock() > db->deadline;
}

static bp_status create(struct bp_db *db, struct bp_error *err)
{
    char sql[160];
    snprintf(sql, sizeof sql,
             "PRAGMA page_size=%d; PRAGMA auto_vacuum=INCREMENTAL;"
             "BEGIN IMMEDIATE; PRAGMA application_id=%d; COMMIT;",
             BP_PAGE_SIZE, BP_APPLICATION_ID);
    return bp_db_exec(db, sql, "creating the database", err);
}

/* SQLite answers with the mode that it has, which is another where the file system has no shared memory. */
static bp_status switch_to_log(struct bp_db *db, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, "PRAGMA journal_mode=WAL", &stmt, err);
    if (status == BP_OK)
        status = bp_db_step(db, stmt, "switching to a write-ahead log", err);
    if (status != BP_OK)
        return status;
    const char *mode = (const char *)sqlite3_column_text(stmt, 0);
    if (!mode || strcmp(mode, "wal") != 0)
        status = bp_fail(err, BP_UNSUPPORTED, "a write-ahead log is not possible on this file system");
    sqlite3_reset(stmt);
    return status;
}

static bp_status set_up_writer(struct bp_db *db, int64_t max_bytes, struct bp_error *err)
{
    char sql[80];
    int64_t pages, page_size, id;
    bp_status status = bp_db_exec(db, writer_pragmas, "setting up the database", err);
    if (status == BP_OK)
        status = bp_db_int(db, "PRAGMA page_count", &pages, err);
    if (status == BP_OK && pages == 0)
        status = create(db, err);
    if (status == BP_OK)
        status = bp_db_int(db, "PRAGMA application_id", &id, err);
    if (status == BP_OK && id != BP_APPLICATION_ID) /* the header as the log has it */
        return bp_fail(err, BP_MISMATCH, "the database belongs to another application");
    if (status == BP_OK)
        status = switch_to_log(db, err);
    if (status == BP_OK && max_bytes > 0) {
        status = bp_db_int(db, "PRAGMA page_size", &page_size, err);
        if (status != BP_OK)
            return status;
        int64_t max_pages = max_bytes / page_size;
        snprintf(sql, sizeof sql, "PRAGMA max_page_count=%lld", (long long)(max_pages ? max_pages : 1));
        status = bp_db_exec(db, sql, "limiting the database's size", err);
    }
    sqlite3_wal_hook(db->handle, on_commit, db);
    return status;
}

bp_status bp_db_open(const char *path, const char *vfs, enum bp_db_kind kind, int64_t max_bytes, struct bp_db **ret,
                     struct bp_error *err)
{
    bool writer = kind == BP_DB_WRITER;
    int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE |
                (writer ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY);
    struct bp_db *db = calloc(1, sizeof *db);
    if (!db)
        return bp_fail(err, BP_NOMEM, "no memory for a connection to the database");
    db->writer = writer;
    sqlite3_hard_heap_limit64(HEAP_BYTES);
    int rc = sqlite3_open_v2(path, &db->handle, flags, vfs);
    bp_status status = BP_OK;
    if (!db->handle)
        status = bp_fail(err, BP_NOMEM, "no memory for a connection to the database");
    else if (rc != SQLITE_OK)
        status = bp_db_fail(db, rc, "opening the database", err);
    if (status != BP_OK)
        goto out;
    sqlite3_busy_timeout(db->handle, BP_BUSY_MS);
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        sqlite3_limit(db->handle, limits[i].id, limits[i].value);
    for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++)
        sqlite3_db_config(db->handle, switches[i].id, switches[i].value, NULL);
    status = bp_db_exec(db, common_pragmas, "setting up the database", err);
    if (status == BP_OK)
        status = writer ? set_up_writer(db, max_bytes, err)
                        : bp_db_exec(db, reader_pragmas, "setting up the database", err);
    if (status == BP_OK && !writer)
        sqlite3_progress_handler(db->handle, PROGRESS_OPS, on_progress, db);
    if (status == BP_OK)
        *ret = db;
out:
    if (status != BP_OK)
        bp_db_close(db);
    return status;
}

void bp_db_close(struct bp_db *db)
{
    if (!db)
        return;
    for (size_t i = 0; i < BP_STATEMENTS; i++)
        sqlite3_finalize(db->cache[i].stmt);
    sqlite3_close(db->handle);
    free(db);
}

/* --- migrations ------------------------------------------------------------------------------------------------- */
int bp_schema_version(void)
{
    int newest = 0;
    for (const struct bp_embedded *m = bp_migrations; m->name; m++)
        newest = atoi(m->name) > newest ? atoi(m->name) : newest;
    return newest;
}

static bp_status migrate_one(struct bp_db *db, const struct bp_embedded *m, struct bp_error *err)
{
    char sql[60];
    bp_status status = bp_db_exec(db, "BEGIN IMMEDIATE", "starting a migration", err);
    if (status != BP_OK)
        return status;
    snprintf(sql, sizeof sql, "PRAGMA user_version=%d", atoi(m->name));
    status = bp_db_exec(db, (const char *)m->data, m->name, err);
    if (status == BP_OK)
        status = bp_db_exec(db, sql, m->name, err);
    if (status == BP_OK)
        status = bp_db_exec(db, "COMMIT", m->name, err);
    if (status != BP_OK && !sqlite3_get_autocommit(db->handle))
        sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

bp_status bp_db_migrate(struct bp_db *db, struct bp_error *err)
{
    int64_t version;
    bp_status status = bp_db_int(db, "PRAGMA user_version", &version, err);
    if (status == BP_OK && version > bp_schema_version())
        status = bp_fail(err, BP_MISMATCH, "the database was written by a newer backpropd (schema %lld)",
                         (long long)version);
    /* A table that others refer to is made anew beside the old one and takes its name: dropping that must not touch them. */
    if (status == BP_OK)
        status = bp_db_exec(db, "PRAGMA foreign_keys=OFF", "starting a migration", err);
    for (const struct bp_embedded *m = bp_migrations; status == BP_OK && m->name; m++)
        if (atoi(m->name) > version)
            status = migrate_one(db, m, err);
    return status == BP_OK ? bp_db_exec(db, "PRAGMA foreign_keys=ON", "ending a migration", err) : status;
}
