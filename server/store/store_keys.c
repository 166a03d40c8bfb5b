/* store_keys.c: statements of the idempotency keys. A key is stored in the transaction of the job that it made, so that
 * of two requests with one key exactly one makes a job; it lives as long as its job. */
#include "store/store_internal.h"

static const char sql_put[] = "INSERT INTO idempotency_key (key, body_sha256, job, created_at)"
                              " VALUES (?1, ?2, ?3, ?4)";
static const char sql_get[] = "SELECT k.body_sha256, j.id FROM idempotency_key k JOIN job j ON j.seq = k.job"
                              " WHERE k.key = ?1 AND j.deleted = 0";

bp_status bp_db_key_put(struct bp_db *db, const char *key, const char *body_sha256, const char *job,
                        struct bp_error *err)
{
    int64_t seq;
    sqlite3_stmt *stmt;
    bp_status status = bp_db_job_seq(db, job, &seq, err);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_put, &stmt, err);
    if (status != BP_OK)
        return status;
    bp_bind_text(stmt, 1, key);
    bp_bind_text(stmt, 2, body_sha256);
    sqlite3_bind_int64(stmt, 3, seq);
    sqlite3_bind_int64(stmt, 4, bp_store_now());
    status = bp_db_finish(db, stmt, "storing an idempotency key", err);
    if (status == BP_CONFLICT && sqlite3_extended_errcode(db->handle) == SQLITE_CONSTRAINT_PRIMARYKEY)
        bp_fail(err, status, "this idempotency key has been used");
    return status;
}

bp_status bp_db_key_get(struct bp_db *db, const char *key, char ret_sha256[BP_SHA256_HEX], char ret_job[BP_ID_SIZE],
                        struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_get, &stmt, err);
    if (status != BP_OK)
        return status;
    bp_bind_text(stmt, 1, key);
    status = bp_db_step(db, stmt, "looking for an idempotency key", err);
    if (status == BP_NOT_FOUND)
        bp_fail(err, status, "this idempotency key is not known");
    else if (status == BP_OK &&
             (!bp_column_copy(stmt, 0, ret_sha256, BP_SHA256_HEX) || !bp_column_copy(stmt, 1, ret_job, BP_ID_SIZE)))
        status = bp_fail(err, BP_CORRUPT, "a stored idempotency key has a hash or an id that is too long");
    sqlite3_reset(stmt);
    return status;
}
