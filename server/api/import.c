/* import.c: from the parts of an upload to a dataset, and the sweep of what nobody needs any more.
 *
 * A name points at a version; replacing it leaves the old version to the jobs that were submitted with it. A version's
 * files are placed before its row is committed, and removed after its row is gone, so a row never lacks its files. The
 * mutex below keeps those two apart: without it, sweeping an old version could remove the files of an equal new one.
 *
 * Threads: those of the handlers.
 */
#include "data/import.h"
#include "api/common.h"
#include "api/table_cache.h"
#include "config.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static pthread_mutex_t files_mutex = PTHREAD_MUTEX_INITIALIZER; /* commit of new versions | sweep and removal */

/* --- sweeping ------------------------------------------------------------------------------------------------------- */
struct sweep {
    char (*hashes)[2][BP_SHA256_HEX]; /* table and sha256 of versions that are gone */
    size_t n, capacity;
};

static void swept(void *arg, const char *table, const char *sha256)
{
    struct sweep *s = arg;
    if (s->n == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 8;
        void *grown = realloc(s->hashes, capacity * sizeof *s->hashes);
        if (!grown)
            return; /* the files stay until the next start, which removes what no row knows */
        s->hashes = grown;
        s->capacity = capacity;
    }
    snprintf(s->hashes[s->n][0], BP_SHA256_HEX, "%s", table);
    snprintf(s->hashes[s->n++][1], BP_SHA256_HEX, "%s", sha256);
}

static bp_status sweep_work(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct sweep *s = arg;
    s->n = 0;
    return bp_db_dataset_sweep(db, swept, s, err);
}

void bp_api_sweep(struct bp_app *app)
{
    struct sweep s = {0};
    struct bp_error err;
    pthread_mutex_lock(&files_mutex);
    if (!bp_store_write(app->store, sweep_work, &s, &err))
        for (size_t i = 0; i < s.n; i++) {
            bp_import_remove(app->config->data_dir, s.hashes[i][1], s.hashes[i][0]);
            bp_table_cache_drop(app->tables, s.hashes[i][0]);
        }
    pthread_mutex_unlock(&files_mutex);
    free(s.hashes);
}

/* --- import --------------------------------------------------------------------------------------------------------- */
static bool files_there(struct bp_app *app, const struct bp_dataset_row *row)
{
    char path[1200];
    struct stat st;
    snprintf(path, sizeof path, "%s/tables/%s.table", app->config->data_dir, row->table);
    if (stat(path, &st))
        return false;
    snprintf(path, sizeof path, "%s/raw/%s", app->config->data_dir, row->sha256);
    return stat(path, &st) == 0;
}

static bool one_of(struct bp_reply *reply, const char *key, const char *value, const char *const *words, int n,
                   int *ret)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(value, words[i])) {
            *ret = i;
            return true;
        }
    json_t *allowed = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(allowed, json_string(words[i]));
    bp_problem(reply, 400, "bad_query", "%s cannot be '%.40s'", key, value);
    bp_problem_member(reply, "allowed", allowed);
    return false;
}

/* ?format= ?delimiter= ?header= */
static bool parse_options(struct bp_request *request, struct bp_reply *reply, struct bp_import_options *o)
{
    static const char *const formats[] = {"auto", "csv", "tsv", "idx"};
    static const char *const delimiters[] = {"auto", ",", ";", "\t", "|", "comma", "semicolon", "tab", "pipe"};
    static const char delimiter_chars[] = {0, ',', ';', '\t', '|', ',', ';', '\t', '|'};
    static const char *const headers[] = {"false", "true", "0", "1", "no", "yes", "auto"};
    const char *format = bp_request_query(request, "format");
    const char *delimiter = bp_request_query(request, "delimiter");
    const char *header = bp_request_query(request, "header");
    int i;
    if (format) {
        if (!one_of(reply, "format", format, formats, 4, &i))
            return false;
        o->format = i == 0 ? BP_FORMAT_AUTO : i == 3 ? BP_FORMAT_IDX : BP_FORMAT_CSV;
        o->delimiter = i == 2 ? '\t' : 0;
    }
    if (delimiter) {
        if (!one_of(reply, "delimiter", delimiter, delimiters, 9, &i))
            return false;
        o->delimiter = delimiter_chars[i];
    }
    o->header = -1;
    if (header) {
        if (!one_of(reply, "header", header, headers, 7, &i))
            return false;
        o->header = i == 6 ? -1 : i % 2;
    }
    return true;
}

static bool stopping(void *app)
{
    return ((struct bp_app *)app)->draining;
}

/* What breaks the grammar of CSV cannot be parsed at all; everything else was read, and is unusable. */
static int import_status(const struct bp_error *err)
{
    static const char *const unparsable[] = {"ragged_row", "unclosed_quote", "text_after_quote"};
    for (size_t i = 0; i < sizeof unparsable / sizeof *unparsable; i++)
        if (!strcmp(err->where, unparsable[i]))
            return 400;
    return 422;
}

static void import_problem(struct bp_reply *reply, const struct bp_error *err)
{
    if (err->code == BP_INVALID || err->code == BP_LIMIT || err->code == BP_UNSUPPORTED || err->code == BP_CORRUPT) {
        long long line;
        int column;
        bp_problem(reply, import_status(err), err->where[0] ? err->where : "invalid_dataset", "%s", err->message);
        int found = sscanf(err->message, "line %lld, column %d", &line, &column);
        if (found >= 1)
            bp_problem_member(reply, "line", json_integer(line));
        if (found >= 2)
            bp_problem_member(reply, "column", json_integer(column));
    } else if (err->code == BP_STOPPED) {
        bp_problem(reply, 503, "draining", "the daemon is stopping; nothing was stored");
        bp_reply_header(reply, "Retry-After", "5");
    } else
        bp_problem_error(reply, err);
}

bool bp_api_import(struct bp_app *app, struct bp_request *request, struct bp_reply *reply, const char *name,
                   const struct bp_import_part *parts, int nparts, struct bp_dataset_row *ret)
{
    struct bp_import_options options = {.dir = app->config->data_dir,
                                        .header = -1,
                                        .max_unfolded = app->config->max_upload,
                                        .cancelled = stopping,
                                        .ctx = app};
    if (!parse_options(request, reply, &options))
        return false;
    struct bp_import_result result = {0};
    struct bp_error err = {0};
    bp_status status = bp_import(&options, parts, nparts, &result, &err);
    if (status) {
        import_problem(reply, &err);
        return false;
    }
    struct bp_dataset_row row = {
        .created_at = bp_store_now(), .bytes = result.bytes, .rows = result.rows, .description = result.description};
    snprintf(row.name, sizeof row.name, "%s", name);
    memcpy(row.sha256, result.sha256, sizeof row.sha256);
    memcpy(row.table, result.table, sizeof row.table);
    *ret = row;
    return true;
}

bool bp_api_import_commit(struct bp_app *app, struct bp_reply *reply, const struct bp_dataset_row *row,
                          bp_store_fn *work, void *arg)
{
    struct bp_error err = {0};
    pthread_mutex_lock(&files_mutex);
    bool there = files_there(app, row);
    bp_status status = there ? bp_store_write(app->store, work, arg, &err) : BP_OK;
    pthread_mutex_unlock(&files_mutex);
    if (status)
        bp_problem_error(reply, &err);
    else if (!there) {
        bp_problem(reply, 503, "try_again", "the same data was being deleted meanwhile: send it again");
        bp_reply_header(reply, "Retry-After", "1");
    }
    return there && !status;
}

struct known {
    const char *table;
    bool known;
};

static bp_status known_work(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct known *k = arg;
    return bp_db_dataset_known(db, k->table, &k->known, err);
}

void bp_api_import_done(struct bp_app *app, struct bp_dataset_row *row)
{
    struct known table = {.table = row->table};
    struct bp_error err;
    if (row->table[0]) {
        pthread_mutex_lock(&files_mutex);
        /* In doubt they stay until the next start, which removes what no row knows. */
        if (!bp_store_read(app->store, known_work, &table, &err) && !table.known)
            bp_import_remove(app->config->data_dir, row->sha256, row->table);
        pthread_mutex_unlock(&files_mutex);
    }
    bp_dataset_row_done(row);
}
