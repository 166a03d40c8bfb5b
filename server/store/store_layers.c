/* store_layers.c: statements of the layer family: what the layers of a job are, and their figures at sampled steps.
 *
 * A sample is one row a layer, keyed by (job, step, layer): a job's samples lie together in the order in which they are
 * read. A figure that is not a number is NULL.
 */
#include "store/store_internal.h"

#include <stddef.h>

static const char sql_layer[] = "INSERT INTO layer (job, n, name, type, activation, hidden)"
                                " VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (job, n) DO NOTHING";
static const char sql_put[] =
    "INSERT OR REPLACE INTO layer_sample (job, step, layer, epoch, loss, gradient_norm, clipped_norm, weight_norm,"
    " update_ratio, delta_norm, mean, spread, dead, saturated, alike, delta_first, delta_last)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";
static const char sql_list[] =
    "SELECT s.step, s.layer, s.epoch, s.loss, s.gradient_norm, s.clipped_norm, s.weight_norm, s.update_ratio,"
    " s.delta_norm, s.mean, s.spread, s.dead, s.saturated, s.alike, s.delta_first, s.delta_last, l.name, l.type, "
    "l.activation, l.hidden"
    " FROM layer_sample AS s JOIN layer AS l ON l.job = s.job AND l.n = s.layer"
    " WHERE s.job = ?1 ORDER BY s.step, s.layer";
static const char sql_trim[] = "DELETE FROM layer_sample WHERE job = ?1 AND step > ?2";

/* Where the figures are in a row, in the order of the columns from `loss` on. */
static const size_t figures[] = {
    offsetof(struct bp_layer_row, loss),         offsetof(struct bp_layer_row, gradient_norm),
    offsetof(struct bp_layer_row, clipped_norm), offsetof(struct bp_layer_row, weight_norm),
    offsetof(struct bp_layer_row, update_ratio), offsetof(struct bp_layer_row, delta_norm),
    offsetof(struct bp_layer_row, mean),         offsetof(struct bp_layer_row, spread),
    offsetof(struct bp_layer_row, dead),         offsetof(struct bp_layer_row, saturated),
    offsetof(struct bp_layer_row, alike),        offsetof(struct bp_layer_row, delta_first),
    offsetof(struct bp_layer_row, delta_last),
};
#define FIGURES (int)(sizeof figures / sizeof figures[0])

static double *figure(struct bp_layer_row *row, int i)
{
    return (double *)(void *)((char *)row + figures[i]);
}

static bp_status put_layer(struct bp_db *db, int64_t job, const struct bp_layer_row *row, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_layer, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, job);
    sqlite3_bind_int(stmt, 2, row->layer);
    bp_bind_text(stmt, 3, row->name);
    bp_bind_text(stmt, 4, row->type);
    bp_bind_text(stmt, 5, row->activation);
    sqlite3_bind_int(stmt, 6, row->hidden);
    return bp_db_finish(db, stmt, "storing a layer", err);
}

static bp_status put_sample(struct bp_db *db, int64_t job, const struct bp_layer_row *row, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_put, &stmt, err);
    if (status != BP_OK)
        return status;
    struct bp_layer_row copy = *row;
    sqlite3_bind_int64(stmt, 1, job);
    sqlite3_bind_int64(stmt, 2, row->step);
    sqlite3_bind_int(stmt, 3, row->layer);
    sqlite3_bind_int64(stmt, 4, row->epoch);
    for (int i = 0; i < FIGURES; i++)
        sqlite3_bind_double(stmt, 5 + i, *figure(&copy, i)); /* NaN becomes NULL */
    return bp_db_finish(db, stmt, "storing figures of a layer", err);
}

bp_status bp_db_layer_add(struct bp_db *db, const char *job, const struct bp_layer_row *rows, size_t n,
                          struct bp_error *err)
{
    int64_t key;
    bp_status status = bp_db_job_seq(db, job, &key, err);
    for (size_t i = 0; status == BP_OK && i < n; i++) {
        status = put_layer(db, key, &rows[i], err);
        if (status == BP_OK)
            status = put_sample(db, key, &rows[i], err);
    }
    return status;
}

bp_status bp_db_layer_list(struct bp_db *db, const char *job, bp_layer_visit *visit, void *arg, struct bp_error *err)
{
    int64_t key;
    sqlite3_stmt *stmt;
    bp_status status = bp_db_job_seq(db, job, &key, err);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_list, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, key);
    while ((status = bp_db_step(db, stmt, "reading figures of layers", err)) == BP_OK) {
        struct bp_layer_row row = {.step = sqlite3_column_int64(stmt, 0),
                                   .layer = sqlite3_column_int(stmt, 1),
                                   .epoch = sqlite3_column_int64(stmt, 2),
                                   .hidden = sqlite3_column_int(stmt, 3 + FIGURES + 3) != 0};
        for (int i = 0; i < FIGURES; i++)
            *figure(&row, i) = bp_column_real(stmt, 3 + i);
        if (!bp_column_copy(stmt, 3 + FIGURES, row.name, sizeof row.name) ||
            !bp_column_copy(stmt, 4 + FIGURES, row.type, sizeof row.type) ||
            !bp_column_copy(stmt, 5 + FIGURES, row.activation, sizeof row.activation))
            status = bp_fail(err, BP_CORRUPT, "a stored layer has a name that is too long");
        else
            status = visit(arg, &row);
        if (status != BP_OK)
            break;
    }
    sqlite3_reset(stmt);
    return status == BP_NOT_FOUND ? BP_OK : status;
}

bp_status bp_db_layer_trim(struct bp_db *db, const char *job, int64_t after_step, struct bp_error *err)
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
    return bp_db_finish(db, stmt, "trimming figures of layers", err);
}
