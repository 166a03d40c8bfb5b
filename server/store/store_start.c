/* store_start.c: the bytes that a job's first weights come from, kept for it from the checkpoint of another job.
 *
 * No byte is copied: the job and the checkpoint name the same blob, which stays as long as one of them does.
 */
#include "store/store_internal.h"

static const char sql_add[] =
    "INSERT INTO start (job, blob, copies) SELECT ?1, blob, ?2 FROM checkpoint WHERE id = ?3";
static const char sql_get[] = "SELECT copies FROM start WHERE job = ?1";
static const char sql_chunk[] = "SELECT k.sha256, k.bytes FROM start s JOIN job j ON j.seq = s.job"
                                " JOIN chunk k ON k.blob = s.blob WHERE j.id = ?1 AND k.n = ?2";

bp_status bp_db_start_add(struct bp_db *db, const char *job, const char *checkpoint, const char *copies,
                          struct bp_error *err)
{
    int64_t seq;
    sqlite3_stmt *stmt;
    bp_status status = bp_db_job_seq(db, job, &seq, err);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_add, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, seq);
    bp_bind_text(stmt, 2, copies);
    bp_bind_text(stmt, 3, checkpoint);
    status = bp_db_finish(db, stmt, "keeping a job's first weights", err);
    if (status == BP_OK && sqlite3_changes(db->handle) == 0)
        status = bp_fail(err, BP_NOT_FOUND, "there is no checkpoint %s any more", checkpoint);
    return status;
}

bp_status bp_db_start_get(struct bp_db *db, const char *job, char **ret_copies, struct bp_error *err)
{
    int64_t seq;
    sqlite3_stmt *stmt;
    bp_status status = bp_db_job_seq(db, job, &seq, err);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_get, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, seq);
    status = bp_db_step(db, stmt, "reading a job's first weights", err);
    if (status == BP_OK && !bp_column_dup(stmt, 0, ret_copies))
        status = bp_fail(err, BP_NOMEM, "no memory to read a job's first weights");
    sqlite3_reset(stmt);
    return status;
}

bp_status bp_db_start_bytes(struct bp_db *db, const char *job, int64_t offset, size_t size, uint8_t *ret,
                            struct bp_error *err)
{
    return bp_db_chunks_read(db, sql_chunk, job, offset, size, ret, err);
}
