/* store_jobs.c: statements of the job family.
 *
 * One table says which column holds which member of struct bp_job_row; binding and reading walk through it, so that the
 * order of columns is written down once. Where a state may go is not decided here but by the schema's transition table:
 * a change that it does not know fails with BP_CONFLICT, whoever asks.
 */
#include "store/store_internal.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind {
    INT,   /* int64_t */
    TEXT,  /* char *, NULL is NULL */
    WORD,  /* char *, NULL is "" */
    ARRAY, /* char [size] */
    KEY    /* char [size], "" is NULL: a reference */
};

#define MEMBER(m) offsetof(struct bp_job_row, m), sizeof((struct bp_job_row *)0)->m
#define FIRST_MUTABLE 9 /* what comes before is written once, at insertion */

/* In the order of COLUMNS below. */
static const struct {
    enum kind kind;
    size_t offset, size;
} members[] = {
    {ARRAY, MEMBER(id)},       {WORD, MEMBER(owner)},        {INT, MEMBER(seed)},          {INT, MEMBER(created_at)},
    {ARRAY, MEMBER(dataset)},  {ARRAY, MEMBER(sha256)},      {KEY, MEMBER(table)},         {TEXT, MEMBER(spec)},
    {TEXT, MEMBER(request)},   {TEXT, MEMBER(name)},         {TEXT, MEMBER(stop_reason)},  {TEXT, MEMBER(model)},
    {TEXT, MEMBER(warnings)},  {TEXT, MEMBER(tags)},         {TEXT, MEMBER(error)},        {TEXT, MEMBER(transform)},
    {TEXT, MEMBER(progress)},  {TEXT, MEMBER(last_metrics)}, {TEXT, MEMBER(test_metrics)}, {ARRAY, MEMBER(parent)},
    {INT, MEMBER(started_at)}, {INT, MEMBER(finished_at)},   {INT, MEMBER(threads)},       {INT, MEMBER(priority)},
    {INT, MEMBER(restarts)},   {INT, MEMBER(stalls)},        {INT, MEMBER(numerics)},      {INT, MEMBER(best_epoch)},
    {INT, MEMBER(best_step)},  {TEXT, MEMBER(best_name)},    {INT, MEMBER(version)},       {INT, MEMBER(stopping)},
};
#define NMEMBERS (int)(sizeof members / sizeof members[0])

/* The members, then what needs a hand: status, best, split. */
#define COLUMNS                                                                                                      \
    "id, owner, seed, created_at, dataset, sha256, dataset_version, spec, request, name, stop_reason, model,"        \
    " warnings, tags, error, transform, progress, last_metrics, test_metrics, parent, started_at, finished_at,"      \
    " threads, priority, restarts, stalls, numerics_version, best_epoch, best_step, best_name, version,"             \
    " stopping, status, has_best, best_value, split_fingerprint"
enum { STATUS = sizeof members / sizeof members[0], HAS_BEST, BEST_VALUE, SPLIT, SEQ };

/* The numbers below count the members: whoever adds one moves them. */
_Static_assert(STATUS == 32, "number the parameters of sql_insert and sql_update anew");
static const char sql_insert[] =
    "INSERT INTO job (" COLUMNS
    ", seq) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,"
    " ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37)";
static const char sql_last[] = "SELECT coalesce(max(seq), 0) FROM job";
static const char sql_update[] =
    "UPDATE job SET name = ?10, stop_reason = ?11, model = ?12, warnings = ?13, tags = ?14, error = ?15,"
    " transform = ?16, progress = ?17, last_metrics = ?18, test_metrics = ?19, parent = ?20, started_at = ?21,"
    " finished_at = ?22, threads = ?23, priority = ?24, restarts = ?25, stalls = ?26, numerics_version = ?27,"
    " best_epoch = ?28, best_step = ?29, best_name = ?30, version = ?31, stopping = ?32, status = ?33,"
    " has_best = ?34, best_value = ?35, split_fingerprint = ?36 WHERE seq = ?37";
static const char sql_get[] = "SELECT " COLUMNS ", seq FROM job WHERE seq = ?1";
static const char sql_seq[] = "SELECT seq FROM job WHERE id = ?1 AND deleted = 0";
static const char sql_state[] = "SELECT seq, version, tags, status FROM job WHERE id = ?1 AND deleted = 0";
static const char sql_tags_delete[] = "DELETE FROM job_tag WHERE job = ?1";
static const char sql_tags_add[] = "INSERT INTO job_tag (job, key, value)"
                                   " SELECT ?1, key, atom FROM json_each(?2) WHERE atom IS NOT NULL"
                                   " ON CONFLICT DO NOTHING";

/* Without a filter the table is read in its order. With one it is the index, which is small, and then put in order. */
#define JOBS " FROM job INDEXED BY job_by_status WHERE deleted = 0"
#define FILTERED                                                                                                     \
    "SELECT seq" JOBS " AND (?1 = '' OR instr(?1, status) > 0) AND (?2 IS NULL OR name = ?2)"                        \
    " AND (?3 IS NULL OR EXISTS (SELECT 1 FROM job_tag t WHERE t.job = seq AND t.key = ?3 AND t.value = ?4))"
#define ALL "SELECT seq FROM job WHERE deleted = 0"
static const char *const sql_list[2][2] = {
    /* [filtered][ascending] */
    {ALL " AND seq < ?5 ORDER BY seq DESC LIMIT ?6", ALL " AND seq > ?5 ORDER BY seq LIMIT ?6"},
    {FILTERED " AND seq < ?5 ORDER BY seq DESC LIMIT ?6", FILTERED " AND seq > ?5 ORDER BY seq LIMIT ?6"},
};
static const char sql_count[] = "SELECT count(*)" JOBS " AND status = ?1";

#define QUEUE JOBS " AND status = 'queued'"
static const char sql_next[] = "SELECT id" QUEUE " ORDER BY priority DESC, seq LIMIT 1";
static const char sql_queued[] = "SELECT count(*)" QUEUE;
static const char sql_behind[] = "SELECT count(*)" QUEUE " AND priority < ?1";
static const char sql_ahead[] = "SELECT (SELECT count(*)" QUEUE " AND priority > ?1)"
                                " + (SELECT count(*)" QUEUE " AND priority = ?1 AND seq < ?2)";

static const char *const sql_delete[] = {
    /* deletes at once what must vanish now and is small; the sweep does the rest */
    "DELETE FROM idempotency_key WHERE job = ?1",
    "DELETE FROM checkpoint WHERE job = ?1",
    "DELETE FROM start WHERE job = ?1",
    "DELETE FROM job_tag WHERE job = ?1",
    "UPDATE job SET deleted = 1, dataset_version = NULL WHERE seq = ?1",
};

/* --- status ----------------------------------------------------------------------------------------------------- */
static const char *const status_names[BP_JOB_STATUS_COUNT] = {
    "queued", "running", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled",
};

const char *bp_job_status_name(enum bp_job_status status)
{
    return (unsigned)status < BP_JOB_STATUS_COUNT ? status_names[status] : "unknown";
}

bool bp_job_status_parse(const char *name, enum bp_job_status *ret)
{
    for (int i = 0; i < BP_JOB_STATUS_COUNT; i++)
        if (strcmp(name, status_names[i]) == 0) {
            *ret = (enum bp_job_status)i;
            return true;
        }
    return false;
}

bool bp_job_status_final(enum bp_job_status status)
{
    return status == BP_JOB_SUCCEEDED || status == BP_JOB_FAILED || status == BP_JOB_CANCELLED;
}

/* --- rows ------------------------------------------------------------------------------------------------------- */
void bp_job_row_done(struct bp_job_row *row)
{
    for (int i = 0; i < NMEMBERS; i++)
        if (members[i].kind == TEXT || members[i].kind == WORD) {
            char **text = (char **)((char *)row + members[i].offset);
            free(*text);
            *text = NULL;
        }
}

static void bind_member(sqlite3_stmt *stmt, int i, const struct bp_job_row *row)
{
    const char *at = (const char *)row + members[i].offset;
    const char *text = members[i].kind == TEXT || members[i].kind == WORD ? *(char *const *)at : at;
    if (members[i].kind == INT)
        sqlite3_bind_int64(stmt, i + 1, *(const int64_t *)at);
    else if (members[i].kind == WORD && !text)
        bp_bind_text(stmt, i + 1, "");
    else
        bp_bind_text(stmt, i + 1, members[i].kind == KEY && !*text ? NULL : text);
}

/* Binds the columns from `first` on. */
static void bind_row(sqlite3_stmt *stmt, int first, const struct bp_job_row *row)
{
    for (int i = first; i < NMEMBERS; i++)
        bind_member(stmt, i, row);
    bp_bind_text(stmt, STATUS + 1, bp_job_status_name(row->status));
    sqlite3_bind_int(stmt, HAS_BEST + 1, row->has_best);
    if (row->has_best)
        sqlite3_bind_double(stmt, BEST_VALUE + 1, row->best_value);
    if (row->has_split)
        sqlite3_bind_int64(stmt, SPLIT + 1, row->split_fingerprint);
}

static bp_status load_member(sqlite3_stmt *stmt, int i, struct bp_job_row *row, struct bp_error *err)
{
    char *at = (char *)row + members[i].offset;
    if (members[i].kind == INT)
        *(int64_t *)at = sqlite3_column_int64(stmt, i);
    else if (members[i].kind == ARRAY || members[i].kind == KEY) {
        if (!bp_column_copy(stmt, i, at, members[i].size))
            return bp_fail(err, BP_CORRUPT, "a stored job has a text that is too long");
    } else if (!bp_column_dup(stmt, i, (char **)at))
        return bp_fail(err, BP_NOMEM, "no memory to read a job");
    return BP_OK;
}

static bp_status load_row(sqlite3_stmt *stmt, struct bp_job_row *ret, struct bp_error *err)
{
    struct bp_job_row row = {.seq = sqlite3_column_int64(stmt, SEQ)};
    bp_status status = BP_OK;
    for (int i = 0; status == BP_OK && i < NMEMBERS; i++)
        status = load_member(stmt, i, &row, err);
    const char *word = (const char *)sqlite3_column_text(stmt, STATUS);
    if (status == BP_OK && (!word || !bp_job_status_parse(word, &row.status)))
        status = bp_fail(err, BP_CORRUPT, "a stored job has an unknown status");
    row.has_best = sqlite3_column_int(stmt, HAS_BEST);
    row.best_value = row.has_best ? bp_column_real(stmt, BEST_VALUE) : 0;
    row.has_split = sqlite3_column_type(stmt, SPLIT) != SQLITE_NULL;
    row.split_fingerprint = sqlite3_column_int64(stmt, SPLIT);
    if (status == BP_OK)
        *ret = row;
    else
        bp_job_row_done(&row);
    return status;
}

/* --- one job ---------------------------------------------------------------------------------------------------- */
static bp_status unknown_job(const char *id, struct bp_error *err)
{
    return bp_fail(err, BP_NOT_FOUND, "there is no job %s", id);
}

bp_status bp_db_job_seq(struct bp_db *db, const char *id, int64_t *ret, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_seq, &stmt, err);
    if (status != BP_OK)
        return status;
    bp_bind_text(stmt, 1, id);
    status = bp_db_step(db, stmt, "looking for a job", err);
    if (status == BP_OK)
        *ret = sqlite3_column_int64(stmt, 0);
    else if (status == BP_NOT_FOUND)
        unknown_job(id, err);
    sqlite3_reset(stmt);
    return status;
}

static bp_status store_tags(struct bp_db *db, int64_t seq, const char *tags, bool fresh, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = BP_OK;
    if (!fresh) {
        status = bp_db_statement(db, sql_tags_delete, &stmt, err);
        if (status != BP_OK)
            return status;
        sqlite3_bind_int64(stmt, 1, seq);
        status = bp_db_finish(db, stmt, "storing a job's tags", err);
    }
    if (status != BP_OK || !tags || strcmp(tags, "{}") == 0)
        return status;
    status = bp_db_statement(db, sql_tags_add, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, seq);
    bp_bind_text(stmt, 2, tags);
    return bp_db_finish(db, stmt, "storing a job's tags", err);
}

bp_status bp_db_job_insert(struct bp_db *db, struct bp_job_row *row, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    /* No number is given twice while the store is open, so that nobody takes another job for one that he remembers. */
    bp_status status = db->last_job ? BP_OK : bp_db_int(db, sql_last, &db->last_job, err);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_insert, &stmt, err);
    if (status != BP_OK)
        return status;
    struct bp_job_row fresh = *row; /* borrows the texts */
    fresh.version = 1;
    fresh.seq = ++db->last_job;
    bind_row(stmt, 0, &fresh);
    sqlite3_bind_int64(stmt, SEQ + 1, fresh.seq);
    status = bp_db_finish(db, stmt, "storing a job", err);
    if (status == BP_CONFLICT && sqlite3_extended_errcode(db->handle) == SQLITE_CONSTRAINT_FOREIGNKEY)
        return bp_fail(err, BP_NOT_FOUND, "the dataset version %s is gone", row->table);
    if (status != BP_OK)
        return status;
    if (db->knows_queued && row->status == BP_JOB_QUEUED)
        db->queued++;
    status = store_tags(db, fresh.seq, row->tags, true, err);
    if (status == BP_OK) {
        row->seq = fresh.seq;
        row->version = 1;
    }
    return status;
}

static bp_status get_by_seq(struct bp_db *db, int64_t seq, struct bp_job_row *ret, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_get, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, seq);
    status = bp_db_step(db, stmt, "reading a job", err);
    if (status == BP_OK)
        status = load_row(stmt, ret, err);
    else if (status == BP_NOT_FOUND)
        status = bp_fail(err, BP_CORRUPT, "an index names a job that is not there");
    sqlite3_reset(stmt);
    return status;
}

bp_status bp_db_job_get(struct bp_db *db, const char *id, struct bp_job_row *ret, struct bp_error *err)
{
    int64_t seq;
    bp_status status = bp_db_job_seq(db, id, &seq, err);
    return status == BP_OK ? get_by_seq(db, seq, ret, err) : status;
}

struct state {
    int64_t seq, version;
    bool same_tags; /* as the ones asked about */
    enum bp_job_status status;
};

static bp_status get_state(struct bp_db *db, const char *id, const char *tags, struct state *ret,
                           struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_state, &stmt, err);
    if (status != BP_OK)
        return status;
    bp_bind_text(stmt, 1, id);
    status = bp_db_step(db, stmt, "looking for a job", err);
    if (status == BP_OK) {
        ret->seq = sqlite3_column_int64(stmt, 0);
        ret->version = sqlite3_column_int64(stmt, 1);
        const char *old = (const char *)sqlite3_column_text(stmt, 2);
        const char *word = (const char *)sqlite3_column_text(stmt, 3);
        ret->same_tags = old == tags || (old && tags && strcmp(old, tags) == 0);
        if (!word || !bp_job_status_parse(word, &ret->status))
            status = bp_fail(err, BP_CORRUPT, "a stored job has an unknown status");
    } else if (status == BP_NOT_FOUND)
        unknown_job(id, err);
    sqlite3_reset(stmt);
    return status;
}

bp_status bp_db_job_update(struct bp_db *db, struct bp_job_row *row, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    struct state old;
    bp_status status = get_state(db, row->id, row->tags, &old, err);
    if (status != BP_OK)
        return status;
    if (old.version != row->version)
        return bp_fail(err, BP_CONFLICT, "job %s has changed meanwhile: it is at version %lld, not %lld", row->id,
                       (long long)old.version, (long long)row->version);
    status = bp_db_statement(db, sql_update, &stmt, err);
    if (status != BP_OK)
        return status;
    if (old.status != row->status)
        db->knows_queued = false;
    struct bp_job_row next = *row; /* borrows the texts */
    next.version++;
    bind_row(stmt, FIRST_MUTABLE, &next);
    sqlite3_bind_int64(stmt, SEQ + 1, old.seq);
    status = bp_db_finish(db, stmt, "storing a job", err);
    if (status == BP_CONFLICT && sqlite3_extended_errcode(db->handle) == SQLITE_CONSTRAINT_TRIGGER)
        return bp_fail(err, BP_CONFLICT, "job %s is %s and cannot become %s", row->id, bp_job_status_name(old.status),
                       bp_job_status_name(row->status));
    if (status == BP_OK && sqlite3_changes(db->handle) != 1)
        return bp_fail(err, BP_INTERNAL, "storing job %s changed no row", row->id);
    if (status == BP_OK && !old.same_tags)
        status = store_tags(db, old.seq, row->tags, false, err);
    if (status == BP_OK)
        row->version = next.version;
    return status;
}

/* --- many jobs -------------------------------------------------------------------------------------------------- */
/* ",queued,running": the statuses of a bit set. No status' name is part of another's. */
static void status_words(int statuses, char *ret, size_t size)
{
    size_t at = 0;
    ret[0] = 0;
    for (int i = 0; i < BP_JOB_STATUS_COUNT; i++)
        if (statuses & (1 << i))
            at += (size_t)snprintf(ret + at, size - at, ",%s", status_names[i]);
}

static bp_status after_seq(struct bp_db *db, const struct bp_job_filter *filter, int64_t *ret, struct bp_error *err)
{
    if (!filter->after || !*filter->after) {
        *ret = filter->ascending ? 0 : INT64_MAX;
        return BP_OK;
    }
    bp_status status = bp_db_job_seq(db, filter->after, ret, err);
    return status == BP_NOT_FOUND ? bp_fail(err, BP_INVALID, "there is no job %s to go on after", filter->after)
                                  : status;
}

bp_status bp_db_job_list(struct bp_db *db, const struct bp_job_filter *filter, bp_job_visit *visit, void *arg,
                         struct bp_error *err)
{
    char words[100];
    int64_t after;
    sqlite3_stmt *stmt;
    bool filtered = filter->statuses || filter->name || filter->tag_key;
    bp_status status = after_seq(db, filter, &after, err);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_list[filtered][filter->ascending], &stmt, err);
    if (status != BP_OK)
        return status;
    status_words(filter->statuses, words, sizeof words);
    if (filtered) {
        bp_bind_text(stmt, 1, words);
        bp_bind_text(stmt, 2, filter->name);
        bp_bind_text(stmt, 3, filter->tag_key);
        bp_bind_text(stmt, 4, filter->tag_value);
    }
    sqlite3_bind_int64(stmt, 5, after);
    sqlite3_bind_int(stmt, 6, filter->limit);
    while ((status = bp_db_step(db, stmt, "listing jobs", err)) == BP_OK) {
        struct bp_job_row row;
        status = get_by_seq(db, sqlite3_column_int64(stmt, 0), &row, err);
        if (status == BP_OK) {
            status = visit(arg, &row);
            bp_job_row_done(&row);
        }
        if (status != BP_OK)
            break;
    }
    sqlite3_reset(stmt);
    return status == BP_NOT_FOUND ? BP_OK : status;
}

bp_status bp_db_job_count(struct bp_db *db, int statuses, int64_t *ret, struct bp_error *err)
{
    int64_t sum = 0;
    for (int i = 0; i < BP_JOB_STATUS_COUNT; i++) {
        if (statuses && !(statuses & (1 << i)))
            continue;
        sqlite3_stmt *stmt;
        bp_status status = bp_db_statement(db, sql_count, &stmt, err);
        if (status != BP_OK)
            return status;
        bp_bind_text(stmt, 1, status_names[i]);
        status = bp_db_step(db, stmt, "counting jobs", err);
        if (status == BP_OK)
            sum += sqlite3_column_int64(stmt, 0);
        sqlite3_reset(stmt);
        if (status != BP_OK)
            return status;
    }
    *ret = sum;
    return BP_OK;
}

bp_status bp_db_job_next(struct bp_db *db, char ret_id[BP_ID_SIZE], struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_next, &stmt, err);
    if (status != BP_OK)
        return status;
    status = bp_db_step(db, stmt, "looking at the queue", err);
    if (status == BP_OK && !bp_column_copy(stmt, 0, ret_id, BP_ID_SIZE))
        status = bp_fail(err, BP_CORRUPT, "a stored job has an id that is too long");
    sqlite3_reset(stmt);
    return status;
}

/* How many jobs are queued: counted once, and from then on known to the writer until a job changes its status. */
static bp_status count_queued(struct bp_db *db, int64_t *ret, struct bp_error *err)
{
    bp_status status = db->knows_queued ? BP_OK : bp_db_int(db, sql_queued, &db->queued, err);
    if (status == BP_OK) {
        db->knows_queued = db->writer;
        *ret = db->queued;
    }
    return status;
}

bp_status bp_db_job_queue(struct bp_db *db, int64_t priority, int64_t *ret_queued, int64_t *ret_ahead,
                          struct bp_error *err)
{
    sqlite3_stmt *stmt;
    int64_t queued;
    bp_status status = count_queued(db, &queued, err);
    if (status == BP_OK)
        status = bp_db_statement(db, sql_behind, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, priority);
    status = bp_db_step(db, stmt, "looking at the queue", err);
    if (status == BP_OK) {
        *ret_queued = queued;
        *ret_ahead = queued - sqlite3_column_int64(stmt, 0);
    }
    sqlite3_reset(stmt);
    return status;
}

bp_status bp_db_job_ahead(struct bp_db *db, const struct bp_job_row *row, int64_t *ret, struct bp_error *err)
{
    sqlite3_stmt *stmt;
    bp_status status = bp_db_statement(db, sql_ahead, &stmt, err);
    if (status != BP_OK)
        return status;
    sqlite3_bind_int64(stmt, 1, row->priority);
    sqlite3_bind_int64(stmt, 2, row->seq);
    status = bp_db_step(db, stmt, "looking at the queue", err);
    if (status == BP_OK)
        *ret = sqlite3_column_int64(stmt, 0);
    sqlite3_reset(stmt);
    return status;
}

bp_status bp_db_job_delete(struct bp_db *db, const char *id, struct bp_error *err)
{
    struct state old;
    bp_status status = get_state(db, id, NULL, &old, err);
    if (status != BP_OK)
        return status;
    if (!bp_job_status_final(old.status))
        return bp_fail(err, BP_CONFLICT, "job %s is %s; cancel it first", id, bp_job_status_name(old.status));
    for (size_t i = 0; status == BP_OK && i < sizeof sql_delete / sizeof sql_delete[0]; i++) {
        sqlite3_stmt *stmt;
        status = bp_db_statement(db, sql_delete[i], &stmt, err);
        if (status != BP_OK)
            return status;
        sqlite3_bind_int64(stmt, 1, old.seq);
        status = bp_db_finish(db, stmt, "deleting a job", err);
    }
    if (status == BP_OK)
        bp_store_want_sweep(db->store);
    return status;
}
