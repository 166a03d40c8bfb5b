/* store_sweep.c: what the store's thread does when nobody waits: it deletes in slices what has vanished already, and
 * gives free pages back to the file system.
 *
 * A slice is one transaction of some ten milliseconds, so that whoever comes meanwhile does not wait long. Order: the
 * rows of deleted jobs, blobs that no manifest names, free pages.
 */
#include "store/store_internal.h"

#include <stdio.h>

#define POINTS_A_SLICE 20000
#define EVENTS_A_SLICE 5000
#define CHUNKS_A_SLICE 16
#define PAGES_A_SLICE 1000
#define SLACK_PAGES ((64 << 20) / BP_PAGE_SIZE) /* kept for the next checkpoint while a job is writing */
#define LATER 1.0                               /* second */

static const char sql_job[] = "SELECT seq FROM job INDEXED BY job_to_sweep WHERE deleted = 1 LIMIT 1";
static const char sql_series[] = "SELECT id FROM series WHERE job = ?1 LIMIT 1";
static const char sql_points[] = "DELETE FROM point WHERE series = ?1 AND step IN"
                                 " (SELECT step FROM point WHERE series = ?1 ORDER BY step LIMIT ?2)";
static const char sql_series_delete[] = "DELETE FROM series WHERE id = ?1";
static const char sql_events[] = "DELETE FROM event WHERE job = ?1 AND seq IN"
                                 " (SELECT seq FROM event WHERE job = ?1 ORDER BY seq LIMIT ?2)";
static const char sql_samples[] = "DELETE FROM layer_sample WHERE job = ?1 AND step IN"
                                  " (SELECT step FROM layer_sample WHERE job = ?1 ORDER BY step LIMIT ?2)";
static const char sql_layers[] = "DELETE FROM layer WHERE job = ?1";
static const char sql_job_delete[] = "DELETE FROM job WHERE seq = ?1";
static const char sql_blob[] = "SELECT id FROM blob INDEXED BY blob_to_sweep WHERE live = 0 ORDER BY id";
static const char sql_chunks[] = "DELETE FROM chunk WHERE blob = ?1 AND n IN"
                                 " (SELECT n FROM chunk WHERE blob = ?1 ORDER BY n LIMIT ?2)";
static const char sql_blob_delete[] = "DELETE FROM blob WHERE id = ?1";

/* Runs a deletion with one key and a bound; *ret_rows is how many rows went. */
static bp_status delete_some(struct bp_db *db, const char *sql, int64_t key, int bound, int *ret_rows,
                             struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, key);
    if (bound)
        sqlite3_bind_int(stmt, 2, bound);
    status = bp_db_finish(db, stmt, "sweeping", err);
    if (status == BP_OK)
        *ret_rows = sqlite3_changes(db->handle);
    return status;
}

/* The first integer of a query with at most one key; BP_NOT_FOUND with err untouched. */
static bp_status pick(struct bp_db *db, const char *sql, int64_t key, int64_t *ret, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql, &stmt, err);
    if (status != BP_OK)
        return status;
    if (sqlite3_bind_parameter_count(stmt) > 0)
        sqlite3_bind_int64(stmt, 1, key);
    status = bp_db_step(db, stmt, "sweeping", err);
    if (status == BP_OK)
        *ret = sqlite3_column_int64(stmt, 0);
    sqlite3_reset(stmt);
    return status;
}

static bp_status sweep_job(struct bp_db *db, int64_t job, struct bp_error *err)
{
    int left = POINTS_A_SLICE, rows = 0;
    int64_t series;
    bp_status status;
    while ((status = pick(db, sql_series, job, &series, err)) == BP_OK) {
        status = delete_some(db, sql_points, series, left, &rows, err);
        if (status != BP_OK || (left -= rows) <= 0)
            return status;
        status = delete_some(db, sql_series_delete, series, 0, &rows, err);
        if (status != BP_OK)
            return status;
    }
    if (status != BP_NOT_FOUND)
        return status;
    status = delete_some(db, sql_samples, job, POINTS_A_SLICE, &rows, err);
    if (status != BP_OK || rows >= POINTS_A_SLICE)
        return status;
    status = delete_some(db, sql_layers, job, 0, &rows, err);
    if (status == BP_OK)
        status = delete_some(db, sql_events, job, EVENTS_A_SLICE, &rows, err);
    if (status == BP_OK && rows < EVENTS_A_SLICE)
        status = delete_some(db, sql_job_delete, job, 0, &rows, err);
    return status;
}

/* The first blob that nobody names or writes. */
static bp_status pick_blob(struct bp_db *db, int64_t *ret, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_blob, &stmt, err);
    if (status != BP_OK)
        return status;
    while ((status = bp_db_step(db, stmt, "sweeping", err)) == BP_OK) {
        *ret = sqlite3_column_int64(stmt, 0);
        if (!bp_store_uploading(db->store, *ret))
            break;
    }
    sqlite3_reset(stmt);
    return status;
}

static bp_status sweep_blob(struct bp_db *db, int64_t blob, struct bp_error *err)
{
    int rows = 0;
    bp_status status = delete_some(db, sql_chunks, blob, CHUNKS_A_SLICE, &rows, err);
    if (status == BP_OK && rows < CHUNKS_A_SLICE)
        status = delete_some(db, sql_blob_delete, blob, 0, &rows, err);
    return status;
}

/* BP_NOT_FOUND: nothing to delete. */
static bp_status sweep_rows(struct bp_db *db, struct bp_error *err)
{
    int64_t key;
    bp_status status = pick(db, sql_job, 0, &key, err);
    if (status == BP_OK)
        return sweep_job(db, key, err);
    if (status == BP_NOT_FOUND)
        status = pick_blob(db, &key, err);
    return status == BP_OK ? sweep_blob(db, key, err) : status;
}

static bp_status give_back(struct bp_db *db, bool idle, double *ret_after, struct bp_error *err)
{
    int64_t pages = 0;
    char sql[60];
    bp_status status = bp_db_int(db, "PRAGMA freelist_count", &pages, err);
    if (status != BP_OK)
        return status;
    *ret_after = pages > 0 ? LATER : -1;
    if (pages > (idle ? 0 : SLACK_PAGES)) {
        snprintf(sql, sizeof sql, "PRAGMA incremental_vacuum(%d)", PAGES_A_SLICE);
        status = bp_db_exec(db, sql, "giving free pages back", err);
        if (status == BP_OK)
            *ret_after = pages > PAGES_A_SLICE ? 0 : -1;
    }
    return status;
}

bp_status bp_store_sweep_slice(struct bp_db *db, bool idle, double *ret_after, struct bp_error *err)
{
    bp_status status = bp_db_exec(db, "BEGIN IMMEDIATE", "starting a sweep", err);
    if (status != BP_OK)
        return status;
    *ret_after = 0;
    status = sweep_rows(db, err);
    if (status == BP_NOT_FOUND)
        status = give_back(db, idle, ret_after, err);
    if (status == BP_OK)
        status = bp_db_exec(db, "COMMIT", "ending a sweep", err);
    return status; /* after a failure the caller rolls back */
}
