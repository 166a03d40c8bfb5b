/* store_events.c: statements of the event family: the log of what happened to a job, numbered from 1.
 *
 * The first event, that the job was queued, is not stored but read from the job itself: every submission would have a page
 * more to write and to sync. Databases of before have it stored, and there it is not told twice.
 */
#include "store/store_internal.h"

static const char sql_add[] = "INSERT INTO event (job, seq, at, type, data) VALUES"
                              " (?1, (SELECT coalesce(max(seq), 1) + 1 FROM event WHERE job = ?1), ?2, ?3, ?4)"
                              " RETURNING seq";
static const char sql_list[] = "SELECT 1, created_at, 'queued', '{}' FROM job WHERE seq = ?1 AND ?2 < 1"
                               " AND NOT EXISTS (SELECT 1 FROM event WHERE job = ?1 AND seq = 1)"
                               " UNION ALL SELECT seq, at, type, data FROM event WHERE job = ?1 AND seq > ?2"
                               " ORDER BY 1 LIMIT ?3";

bp_status bp_db_event_add(struct bp_db *db, const char *job, const char *type, const char *data, int64_t *ret_seq,
                          struct bp_error *err)
{
    int64_t key, seq = 0;
    sqlite3_stmt *stmt;
    bp_status status = bp_db_job_seq(db, job, &key, err);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_add, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, key);
    sqlite3_bind_int64(stmt, 2, bp_store_now());
    bp_bind_text(stmt, 3, type);
    bp_bind_text(stmt, 4, data ? data : "{}");
    status = bp_db_step(db, stmt, "storing an event", err);
    if (status == BP_OK) {
        seq = sqlite3_column_int64(stmt, 0);
        status = bp_db_finish(db, stmt, "storing an event", err);
    } else
        sqlite3_reset(stmt);
    if (status == BP_OK && ret_seq)
        *ret_seq = seq;
    return status;
}

bp_status bp_db_event_list(struct bp_db *db, const char *job, int64_t after, int limit, bp_event_visit *visit,
                           void *arg, struct bp_error *err)
{
    int64_t key;
    sqlite3_stmt *stmt;
    bp_status status = bp_db_job_seq(db, job, &key, err);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_list, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, key);
    sqlite3_bind_int64(stmt, 2, after);
    sqlite3_bind_int(stmt, 3, limit);
    while ((status = bp_db_step(db, stmt, "listing events", err)) == BP_OK) {
        struct bp_event_row row = {
            .seq = sqlite3_column_int64(stmt, 0),
            .at = sqlite3_column_int64(stmt, 1),
            .type = (const char *)sqlite3_column_text(stmt, 2),
            .data = (const char *)sqlite3_column_text(stmt, 3),
        };
        status = row.type && row.data ? visit(arg, &row) : bp_fail(err, BP_NOMEM, "no memory to read an event");
        if (status != BP_OK)
            break;
    }
    sqlite3_reset(stmt);
    return status == BP_NOT_FOUND ? BP_OK : status;
}
