/* store_datasets.c: statements of the dataset family: names, and the versions that they point at.
 *
 * A version is identified by the hash of its table, which is a function of the uploaded bytes and of how they were
 * read; several versions may share the uploaded bytes.
 */
#include "store/store_internal.h"

#include <stdlib.h>
#include <string.h>

#define VERSION_COLUMNS "v.sha256, v.hash, v.created_at, v.bytes, v.rows, v.description"

static const char sql_version_put[] =
    "INSERT INTO dataset_version (hash, sha256, bytes, rows, created_at, description) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
    " ON CONFLICT (hash) DO NOTHING";
static const char sql_name_get[] = "SELECT version FROM dataset WHERE name = ?1";
static const char sql_name_put[] = "INSERT INTO dataset (name, version, created_at) VALUES (?1, ?2, ?3)"
                                   " ON CONFLICT (name) DO UPDATE SET version = ?2, created_at = ?3";
static const char sql_get[] = "SELECT d.name, " VERSION_COLUMNS
                              " FROM dataset d JOIN dataset_version v ON v.hash = d.version WHERE d.name = ?1";
static const char sql_find[] = "SELECT d.name, v.sha256, v.hash, v.created_at, v.bytes, v.rows, NULL"
                               " FROM dataset d JOIN dataset_version v ON v.hash = d.version WHERE d.name = ?1";
static const char sql_version_get[] =
    "SELECT (SELECT name FROM dataset WHERE version = v.hash ORDER BY name LIMIT 1), " VERSION_COLUMNS
    " FROM dataset_version v WHERE v.hash = ?1";
static const char sql_list[] =
    "SELECT d.name, " VERSION_COLUMNS " FROM dataset d CROSS JOIN dataset_version v ON v.hash = d.version"
    " WHERE d.name > ?1 ORDER BY d.name LIMIT ?2";
/* There is no index of jobs by version, which every submission would have to write: these read all of one that has it. */
#define JOBS_OF " FROM job INDEXED BY job_by_status WHERE deleted = 0 AND dataset_version = "
static const char sql_user[] = "SELECT id" JOBS_OF "(SELECT version FROM dataset WHERE name = ?1)"
                               " AND status IN ('queued', 'running', 'pausing', 'paused', 'cancelling')"
                               " ORDER BY seq LIMIT 1";
static const char sql_delete[] = "DELETE FROM dataset WHERE name = ?1";
/* The uploaded bytes of a version are reported only where no other version has them too. */
static const char sql_unneeded[] =
    "SELECT v.hash, CASE WHEN EXISTS (SELECT 1 FROM dataset_version o WHERE o.sha256 = v.sha256 AND o.hash <> v.hash)"
    " THEN '' ELSE v.sha256 END FROM dataset_version v"
    " WHERE NOT EXISTS (SELECT 1 FROM dataset d WHERE d.version = v.hash)"
    " AND NOT EXISTS (SELECT 1" JOBS_OF "v.hash) LIMIT 1";
static const char sql_known[] = "SELECT EXISTS (SELECT 1 FROM dataset_version WHERE hash = ?1)"
                                " OR EXISTS (SELECT 1 FROM dataset_version WHERE sha256 = ?1)";
static const char sql_version_delete[] = "DELETE FROM dataset_version WHERE hash = ?1";

void bp_dataset_row_done(struct bp_dataset_row *row)
{
    free(row->description);
    row->description = NULL;
}

static bp_status load(sqlite3_stmt *stmt, struct bp_dataset_row *ret, struct bp_error *err)
{
    struct bp_dataset_row row = {.name = ""};
    if (!bp_column_copy(stmt, 0, row.name, sizeof row.name) ||
        !bp_column_copy(stmt, 1, row.sha256, sizeof row.sha256) ||
        !bp_column_copy(stmt, 2, row.table, sizeof row.table))
        return bp_fail(err, BP_CORRUPT, "a stored dataset has a name or hash that is too long");
    row.created_at = sqlite3_column_int64(stmt, 3);
    row.bytes = sqlite3_column_int64(stmt, 4);
    row.rows = sqlite3_column_int64(stmt, 5);
    if (!bp_column_dup(stmt, 6, &row.description))
        return bp_fail(err, BP_NOMEM, "no memory to read a dataset");
    *ret = row;
    return BP_OK;
}

bp_status bp_db_dataset_put(struct bp_db *db, const struct bp_dataset_row *row, bool *ret_existed, bool *ret_same,
                            struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_version_put, &stmt, err);
    if (status != BP_OK)
        return status;
    int64_t at = row->created_at ? row->created_at : bp_store_now();
    bp_bind_text(stmt, 1, row->table);
    bp_bind_text(stmt, 2, row->sha256);
    sqlite3_bind_int64(stmt, 3, row->bytes);
    sqlite3_bind_int64(stmt, 4, row->rows);
    sqlite3_bind_int64(stmt, 5, at);
    bp_bind_text(stmt, 6, row->description ? row->description : "{}");
    status = bp_db_finish(db, stmt, "storing a dataset's version", err);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_name_get, &stmt, err);
    if (status != BP_OK)
        return status;
    bp_bind_text(stmt, 1, row->name);
    status = bp_db_step(db, stmt, "looking for a dataset", err);
    bool existed = status == BP_OK;
    bool same = existed && strcmp((const char *)sqlite3_column_text(stmt, 0), row->table) == 0;
    sqlite3_reset(stmt);
    if (status != BP_OK && status != BP_NOT_FOUND)
        return status;
    if (!same) {
        status = bp_db_statement(db, sql_name_put, &stmt, err);
        if (status != BP_OK)
            return status;
        bp_bind_text(stmt, 1, row->name);
        bp_bind_text(stmt, 2, row->table);
        sqlite3_bind_int64(stmt, 3, at);
        status = bp_db_finish(db, stmt, "storing a dataset", err);
        if (status != BP_OK)
            return status;
        db->new_names = true;
    }
    *ret_existed = existed;
    *ret_same = same;
    return BP_OK;
}

static bp_status get(struct bp_db *db, const char *sql, const char *key, const char *kind, struct bp_dataset_row *ret,
                     struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql, &stmt, err);
    if (status != BP_OK)
        return status;
    bp_bind_text(stmt, 1, key);
    status = bp_db_step(db, stmt, "reading a dataset", err);
    if (status == BP_OK)
        status = load(stmt, ret, err);
    else if (status == BP_NOT_FOUND)
        bp_fail(err, status, "there is no dataset %s %s", kind, key);
    sqlite3_reset(stmt);
    return status;
}

bp_status bp_db_dataset_get(struct bp_db *db, const char *name, struct bp_dataset_row *ret, struct bp_error *err)
{
    return get(db, sql_get, name, "named", ret, err);
}

bp_status bp_db_dataset_find(struct bp_db *db, const char *name, struct bp_dataset_row *ret, struct bp_error *err)
{
    return get(db, sql_find, name, "named", ret, err);
}

bp_status bp_db_dataset_version(struct bp_db *db, const char *table, struct bp_dataset_row *ret, struct bp_error *err)
{
    return get(db, sql_version_get, table, "version", ret, err);
}

bp_status bp_db_dataset_list(struct bp_db *db, const char *after, int limit, bp_dataset_visit *visit, void *arg,
                             struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_list, &stmt, err);
    if (status != BP_OK)
        return status;
    bp_bind_text(stmt, 1, after ? after : "");
    sqlite3_bind_int(stmt, 2, limit);
    while ((status = bp_db_step(db, stmt, "listing datasets", err)) == BP_OK) {
        struct bp_dataset_row row;
        status = load(stmt, &row, err);
        if (status == BP_OK) {
            status = visit(arg, &row);
            bp_dataset_row_done(&row);
        }
        if (status != BP_OK)
            break;
    }
    sqlite3_reset(stmt);
    return status == BP_NOT_FOUND ? BP_OK : status;
}

bp_status bp_db_dataset_delete(struct bp_db *db, const char *name, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_user, &stmt, err);
    if (status != BP_OK)
        return status;
    bp_bind_text(stmt, 1, name);
    status = bp_db_step(db, stmt, "looking for jobs of a dataset", err);
    if (status == BP_OK)
        status = bp_fail(err, BP_CONFLICT, "dataset %s is used by job %s, which has not ended", name,
                         (const char *)sqlite3_column_text(stmt, 0));
    sqlite3_reset(stmt);
    if (status != BP_NOT_FOUND)
        return status;
    status = bp_db_statement(db, sql_delete, &stmt, err);
    if (status != BP_OK)
        return status;
    bp_bind_text(stmt, 1, name);
    db->new_names = true;
    status = bp_db_finish(db, stmt, "deleting a dataset", err);
    if (status == BP_OK && sqlite3_changes(db->handle) == 0)
        status = bp_fail(err, BP_NOT_FOUND, "there is no dataset named %s", name);
    return status;
}

/* Takes one version that nobody needs; BP_NOT_FOUND when there is none. */
static bp_status sweep_one(struct bp_db *db, bp_hash_visit *visit, void *arg, struct bp_error *err)
{
    char table[BP_SHA256_HEX], sha256[BP_SHA256_HEX];
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_unneeded, &stmt, err);
    if (status != BP_OK)
        return status;
    status = bp_db_step(db, stmt, "looking for datasets to remove", err);
    if (status == BP_OK &&
        (!bp_column_copy(stmt, 0, table, sizeof table) || !bp_column_copy(stmt, 1, sha256, sizeof sha256)))
        status = bp_fail(err, BP_CORRUPT, "a stored dataset has a hash that is too long");
    sqlite3_reset(stmt);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_version_delete, &stmt, err);
    if (status != BP_OK)
        return status;
    bp_bind_text(stmt, 1, table);
    status = bp_db_finish(db, stmt, "removing a dataset", err);
    if (status == BP_OK)
        visit(arg, table, sha256);
    return status;
}

bp_status bp_db_dataset_sweep(struct bp_db *db, bp_hash_visit *visit, void *arg, struct bp_error *err)
{
    bp_status status;
    do
        status = sweep_one(db, visit, arg, err);
    while (status == BP_OK);
    return status == BP_NOT_FOUND ? BP_OK : status;
}

bp_status bp_db_dataset_known(struct bp_db *db, const char *hash, bool *ret, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_known, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_text(stmt, 1, hash, -1, SQLITE_STATIC);
    status = bp_db_step(db, stmt, "looking for a dataset's file", err);
    if (status == BP_OK)
        *ret = sqlite3_column_int(stmt, 0) != 0;
    sqlite3_reset(stmt);
    return status;
}
