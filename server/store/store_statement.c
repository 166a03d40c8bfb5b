/* store_statement.c: prepared statements by the address of their SQL, binding and reading of columns, and what an
 * SQLite result means to us.
 *
 * Statements are prepared when first used and live as long as their connection. They are handed out reset; whoever
 * takes one gives it back reset (bp_db_finish does it), so that no read transaction stays open behind it.
 */
#include "store/store_internal.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    int rc; /* primary result code of SQLite */
    bp_status status;
} meanings[] = {
    {SQLITE_FULL, BP_FULL},       {SQLITE_NOMEM, BP_NOMEM},  {SQLITE_CORRUPT, BP_CORRUPT},
    {SQLITE_NOTADB, BP_CORRUPT},  {SQLITE_TOOBIG, BP_LIMIT}, {SQLITE_CONSTRAINT, BP_CONFLICT},
    {SQLITE_INTERRUPT, BP_LIMIT}, {SQLITE_IOERR, BP_IO},     {SQLITE_CANTOPEN, BP_IO},
    {SQLITE_READONLY, BP_IO},     {SQLITE_PERM, BP_IO},      {SQLITE_BUSY, BP_IO},
    {SQLITE_LOCKED, BP_IO},       {SQLITE_PROTOCOL, BP_IO},
};

static bp_status meaning(sqlite3 *handle, int rc)
{
    if (rc == SQLITE_IOERR_NOMEM)
        return BP_NOMEM;
    if ((rc & 0xff) == SQLITE_IOERR) {
        /* SQLite reports a full disk as SQLITE_FULL for its files, but not for the index of the log, nor a quota. */
        int number = sqlite3_system_errno(handle);
        if ((number == ENOSPC || number == EDQUOT) && rc != SQLITE_IOERR_FSYNC)
            return BP_FULL;
    }
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (meanings[i].rc == (rc & 0xff))
            return meanings[i].status;
    return BP_INTERNAL;
}

bp_status bp_db_fail(struct bp_db *db, int rc, const char *what, struct bp_error *err)
{
    int extended = sqlite3_extended_errcode(db->handle);
    bool known = (extended & 0xff) == (rc & 0xff); /* else the connection has done something else since */
    if (!known)
        extended = rc;
    bp_status status = meaning(db->handle, extended);
    if (db->writer && (status == BP_CORRUPT || ((extended & 0xff) == SQLITE_IOERR && status == BP_IO)))
        db->fault = extended; /* the disk or the file is bad: nothing more may be written */
    const char *text = known ? sqlite3_errmsg(db->handle) : sqlite3_errstr(rc);
    int number = (extended & 0xff) == SQLITE_IOERR ? sqlite3_system_errno(db->handle) : 0;
    return bp_fail(err, status, "%s: %s (SQLite code %d%s%s)", what, text, extended, number ? ", " : "",
                   number ? strerror(number) : "");
}

static struct bp_statement *slot(struct bp_db *db, const char *sql)
{
    uintptr_t hash = ((uintptr_t)sql >> 3) * 2654435761u;
    for (size_t i = 0; i < BP_STATEMENTS; i++) {
        struct bp_statement *s = &db->cache[(hash + i) & (BP_STATEMENTS - 1)];
        if (!s->sql || s->sql == sql)
            return s;
    }
    return NULL;
}

bp_status bp_db_statement(struct bp_db *db, const char *sql, sqlite3_stmt **ret, struct bp_error *err)
{
    struct bp_statement *s = slot(db, sql);
    assert(s); /* there are far fewer statements in the source than slots */
    if (!s->stmt) {
        int rc = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &s->stmt, NULL);
        if (rc != SQLITE_OK)
            return bp_db_fail(db, rc, "preparing a statement", err);
        s->sql = sql;
    }
    sqlite3_reset(s->stmt);
    sqlite3_clear_bindings(s->stmt);
    *ret = s->stmt;
    return BP_OK;
}

bp_status bp_db_step(struct bp_db *db, sqlite3_stmt *stmt, const char *what, struct bp_error *err)
{
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        return BP_OK;
    if (rc == SQLITE_DONE)
        return BP_NOT_FOUND;
    return bp_db_fail(db, rc, what, err);
}

bp_status bp_db_finish(struct bp_db *db, sqlite3_stmt *stmt, const char *what, struct bp_error *err)
{
    int rc;
    do
        rc = sqlite3_step(stmt);
    while (rc == SQLITE_ROW);
    bp_status status = rc == SQLITE_DONE ? BP_OK : bp_db_fail(db, rc, what, err);
    sqlite3_reset(stmt);
    return status;
}

bp_status bp_db_exec(struct bp_db *db, const char *sql, const char *what, struct bp_error *err)
{
    int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? BP_OK : bp_db_fail(db, rc, what, err);
}

bp_status bp_db_int(struct bp_db *db, const char *sql, int64_t *ret, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql, &stmt, err);
    if (status != BP_OK)
        return status;
    status = bp_db_step(db, stmt, "reading a number", err);
    if (status == BP_OK)
        *ret = sqlite3_column_int64(stmt, 0);
    else if (status == BP_NOT_FOUND)
        bp_fail(err, status, "reading a number: there is none");
    sqlite3_reset(stmt);
    return status;
}

void bp_db_reset(struct bp_db *db)
{
    for (size_t i = 0; i < BP_STATEMENTS; i++)
        if (db->cache[i].stmt)
            sqlite3_reset(db->cache[i].stmt);
    memset(db->series, 0, sizeof db->series);
    db->knows_queued = false;
}

void bp_bind_text(sqlite3_stmt *stmt, int index, const char *text)
{
    sqlite3_bind_text(stmt, index, text, -1, SQLITE_STATIC);
}

bool bp_column_dup(sqlite3_stmt *stmt, int column, char **ret)
{
    *ret = NULL;
    if (sqlite3_column_type(stmt, column) == SQLITE_NULL)
        return true;
    const char *text = (const char *)sqlite3_column_text(stmt, column);
    *ret = text ? strdup(text) : NULL;
    return *ret;
}

bool bp_column_copy(sqlite3_stmt *stmt, int column, char *ret, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(stmt, column);
    size_t length = text ? strlen(text) : 0;
    if (length >= size)
        return false;
    memcpy(ret, text ? text : "", length + 1);
    return true;
}

double bp_column_real(sqlite3_stmt *stmt, int column)
{
    return sqlite3_column_type(stmt, column) == SQLITE_NULL ? NAN : sqlite3_column_double(stmt, column);
}
