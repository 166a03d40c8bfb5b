/* store_metrics.c: statements of the metric family: series of points (step, epoch, value) by job and name.
 *
 * Points are keyed by (series, step) without a rowid, so a series lies together on the disk in the order in which it is
 * read. A value that is not a number is stored as NULL, which is how SQLite stores NaN; infinities are numbers to it.
 */
#include "store/store_internal.h"

#include <stdio.h>
#include <string.h>

#define PROBES 8

static const char sql_series_get[] = "SELECT id FROM series WHERE job = ?1 AND name = ?2";
static const char sql_series_add[] = "INSERT INTO series (job, name) VALUES (?1, ?2)";
static const char sql_put[] = "INSERT INTO point (series, step, epoch, value) VALUES (?1, ?2, ?3, ?4)"
                              " ON CONFLICT (series, step) DO UPDATE SET epoch = ?3, value = ?4";
static const char sql_series_list[] = "SELECT id, name FROM series WHERE job = ?1 ORDER BY name";
static const char sql_list[] = "SELECT step, epoch, value FROM point WHERE series = ?1 AND step >= ?2 ORDER BY step";
static const char sql_trim[] = "DELETE FROM point WHERE series IN (SELECT id FROM series WHERE job = ?1)"
                               " AND step > ?2";

static bp_status series_add(struct bp_db *db, int64_t job, const char *name, int64_t *ret, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_series_add, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, job);
    bp_bind_text(stmt, 2, name);
    status = bp_db_finish(db, stmt, "storing a metric's name", err);
    if (status == BP_OK)
        *ret = sqlite3_last_insert_rowid(db->handle);
    return status;
}

static bp_status series_find(struct bp_db *db, int64_t job, const char *name, int64_t *ret, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_series_get, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, job);
    bp_bind_text(stmt, 2, name);
    status = bp_db_step(db, stmt, "looking for a metric", err);
    if (status == BP_OK)
        *ret = sqlite3_column_int64(stmt, 0);
    sqlite3_reset(stmt);
    return status == BP_NOT_FOUND ? series_add(db, job, name, ret, err) : status;
}

/* Where a series is remembered, or may be: its own place, one of the next that is free, or its own after all. Two series
 * that take the place from each other again and again would cost a query a point. */
static struct bp_series *series_place(struct bp_db *db, int64_t job, const char *name)
{
    uint64_t hash = (uint64_t)job;
    for (const char *c = name; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    hash ^= hash >> 32;
    for (uint64_t i = hash; i < hash + PROBES; i++) {
        struct bp_series *place = &db->series[i & (BP_SERIES - 1)];
        if (place->job == 0 || (place->job == job && strcmp(place->name, name) == 0))
            return place;
    }
    return &db->series[hash & (BP_SERIES - 1)];
}

/* The key of a series, made if missing. A job adds to the same few names again and again: remember them. A job's number
 * is never used twice, so what is remembered stays true until something is undone. */
static bp_status series_of(struct bp_db *db, int64_t job, const char *name, int64_t *ret, struct bp_error *err)
{
    struct bp_series *known = series_place(db, job, name);
    if (known->job != job || strcmp(known->name, name) != 0) {
        int64_t id;
        bp_status status = series_find(db, job, name, &id, err);
        if (status != BP_OK)
            return status;
        known->job = job;
        known->id = id;
        snprintf(known->name, sizeof known->name, "%s", name);
    }
    *ret = known->id;
    return BP_OK;
}

bp_status bp_db_metric_add(struct bp_db *db, const char *job, const struct bp_metric_point *points, size_t n,
                           struct bp_error *err)
{
    int64_t key, series;
    sqlite3_stmt *put;
    bp_status status = bp_db_job_seq(db, job, &key, err);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_put, &put, err);
    for (size_t i = 0; status == BP_OK && i < n; i++) {
        status = series_of(db, key, points[i].name, &series, err);
        if (status != BP_OK)
            break;
        sqlite3_bind_int64(put, 1, series);
        sqlite3_bind_int64(put, 2, points[i].step);
        sqlite3_bind_int64(put, 3, points[i].epoch);
        sqlite3_bind_double(put, 4, points[i].value); /* NaN becomes NULL */
        status = bp_db_finish(db, put, "storing metrics", err);
    }
    return status;
}

static bool wanted(const char *name, const char *const *names, size_t n)
{
    bool found = !names;
    for (size_t i = 0; !found && i < n; i++)
        found = strcmp(name, names[i]) == 0;
    return found;
}

static bp_status list_series(struct bp_db *db, int64_t series, int64_t from_step, struct bp_metric_point *point,
                             bp_metric_visit *visit, void *arg, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_list, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, series);
    sqlite3_bind_int64(stmt, 2, from_step > 0 ? from_step : INT64_MIN);
    while ((status = bp_db_step(db, stmt, "reading metrics", err)) == BP_OK) {
        point->step = sqlite3_column_int64(stmt, 0);
        point->epoch = sqlite3_column_int64(stmt, 1);
        point->value = bp_column_real(stmt, 2);
        status = visit(arg, point);
        if (status != BP_OK)
            break;
    }
    sqlite3_reset(stmt);
    return status == BP_NOT_FOUND ? BP_OK : status;
}

bp_status bp_db_metric_list(struct bp_db *db, const char *job, const char *const *names, size_t nnames,
                            int64_t from_step, bp_metric_visit *visit, void *arg, struct bp_error *err)
{
    int64_t key;
    sqlite3_stmt *stmt;
    struct bp_metric_point point;
    bp_status status = bp_db_job_seq(db, job, &key, err);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_series_list, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, key);
    while ((status = bp_db_step(db, stmt, "listing metrics", err)) == BP_OK) {
        if (!bp_column_copy(stmt, 1, point.name, sizeof point.name))
            status = bp_fail(err, BP_CORRUPT, "a stored metric has a name that is too long");
        else if (wanted(point.name, names, nnames))
            status = list_series(db, sqlite3_column_int64(stmt, 0), from_step, &point, visit, arg, err);
        if (status != BP_OK)
            break;
    }
    sqlite3_reset(stmt);
    return status == BP_NOT_FOUND ? BP_OK : status;
}

bp_status bp_db_metric_trim(struct bp_db *db, const char *job, int64_t after_step, struct bp_error *err)
{
    int64_t key;
    sqlite3_stmt *stmt;
    bp_status status = bp_db_job_seq(db, job, &key, err);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_trim, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, key);
    sqlite3_bind_int64(stmt, 2, after_step);
    status = bp_db_finish(db, stmt, "trimming metrics", err);
    return status == BP_OK ? bp_db_layer_trim(db, job, after_step, err) : status;
}
