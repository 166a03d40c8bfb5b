/* datasets.c: datasets by name: upload, look, delete.
 *
 * A name points at a version; replacing it leaves the old version to the jobs that were submitted with it. A version's
 * files are placed before its row is committed, and removed after its row is gone, so a row never lacks its files. The
 * mutex below keeps those two apart: without it, sweeping an old version could remove the files of an equal new one.
 */
#include "api/common.h"
#include "config.h"
#include "data/import.h"

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
        for (size_t i = 0; i < s.n; i++)
            bp_import_remove(app->config->data_dir, s.hashes[i][1], s.hashes[i][0]);
    pthread_mutex_unlock(&files_mutex);
    free(s.hashes);
}

/* --- upload --------------------------------------------------------------------------------------------------------- */
struct put {
    const struct bp_dataset_row *row;
    bool existed, same;
};

static bp_status put_work(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct put *p = arg;
    return bp_db_dataset_put(db, p->row, &p->existed, &p->same, err);
}

static bool table_there(struct bp_app *app, const char *table)
{
    char path[1200];
    struct stat st;
    snprintf(path, sizeof path, "%s/tables/%s.table", app->config->data_dir, table);
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

static void import_problem(struct bp_reply *reply, const struct bp_error *err)
{
    if (err->code == BP_INVALID || err->code == BP_LIMIT || err->code == BP_UNSUPPORTED || err->code == BP_CORRUPT)
        bp_problem(reply, 422, err->where[0] ? err->where : "invalid_dataset", "%s", err->message);
    else if (err->code == BP_STOPPED) {
        bp_problem(reply, 503, "draining", "the daemon is stopping; nothing was stored");
        bp_reply_header(reply, "Retry-After", "5");
    } else
        bp_problem_error(reply, err);
}

bool bp_api_import(struct bp_app *app, struct bp_request *request, struct bp_reply *reply, const char *name,
                   const struct bp_import_part *parts, int nparts, struct bp_dataset_row *ret, bool *ret_existed)
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
    struct put put = {.row = &row};
    pthread_mutex_lock(&files_mutex);
    bool there = table_there(app, row.table);
    status = there ? bp_store_write(app->store, put_work, &put, &err) : BP_OK;
    pthread_mutex_unlock(&files_mutex);
    if (!there || status) {
        if (status)
            bp_problem_error(reply, &err);
        else
            bp_problem(reply, 503, "try_again", "the same data was being deleted meanwhile: send it again");
        bp_dataset_row_done(&row);
        bp_api_sweep(app);
        return false;
    }
    if (put.existed && !put.same)
        bp_api_sweep(app);
    *ret = row;
    *ret_existed = put.existed;
    return true;
}

static json_t *dataset_json(const struct bp_dataset_row *row)
{
    json_t *json = json_pack("{ss ss so ss sI sI}", "name", row->name, "object", "dataset", "created_at",
                             bp_api_time(row->created_at), "sha256", row->sha256, "bytes", (json_int_t)row->bytes,
                             "rows", (json_int_t)row->rows);
    json_t *profile = bp_table_profile(row->description);
    if (json && profile)
        json_object_update(json, profile);
    json_decref(profile);
    return json;
}

static void created(struct bp_reply *reply, struct bp_dataset_row *row, bool existed)
{
    bp_reply_header(reply, "ETag", "\"sha256-%s\"", row->sha256);
    if (!existed)
        bp_reply_header(reply, "Location", "/v1/datasets/%s", row->name);
    bp_reply_json(reply, existed ? 200 : 201, dataset_json(row));
    bp_dataset_row_done(row);
}

static bp_status find_work(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct bp_dataset_row row = {0};
    bp_status status = bp_db_dataset_get(db, arg, &row, err);
    bp_dataset_row_done(&row);
    return status;
}

/* If-None-Match: * asks that nothing be replaced; true when that forbids this upload (a 412 is the reply). */
static bool forbidden(struct bp_app *app, struct bp_request *request, struct bp_reply *reply, const char *name)
{
    const char *match = bp_request_header(request, "If-None-Match");
    struct bp_error err;
    if (!match || strcmp(match, "*") || bp_store_read(app->store, find_work, (void *)name, &err))
        return false;
    bp_problem(reply, 412, "exists", "dataset '%s' exists, and If-None-Match: * forbids replacing it", name);
    return true;
}

void bp_api_dataset_put(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    const char *name = bp_request_arg(request, 0);
    const struct bp_upload *body = bp_request_upload(request, 0);
    if (!bp_api_name_ok(name, NULL, reply) || forbidden(app, request, reply, name))
        return;
    if (!body || !body->path || body->bytes == 0) {
        bp_problem(reply, 422, "empty_dataset", "the body is empty; send a file: curl -T FILE …/v1/datasets/%s",
                   name);
        return;
    }
    struct bp_import_part part = {
        .role = "data", .path = body->path, .filename = "", .sha256 = body->sha256, .bytes = body->bytes};
    struct bp_dataset_row row;
    bool existed;
    if (bp_api_import(app, request, reply, name, &part, 1, &row, &existed))
        created(reply, &row, existed);
}

void bp_api_dataset_post(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    static const char *const roles[] = {"data", "inputs", "targets", "test_inputs", "test_targets"};
    struct bp_import_part parts[5];
    int nparts = 0;
    const struct bp_upload *name = bp_request_field(request, "name");
    if (!name || !name->text) {
        bp_problem(reply, 422, "missing_part",
                   "a form needs the dataset's name: curl -F name=NAME -F data=@FILE, or "
                   "-F inputs=@IMAGES -F targets=@LABELS");
        return;
    }
    if (!bp_api_name_ok(name->text, "/name", reply) || forbidden(app, request, reply, name->text))
        return;
    for (int i = 0; i < bp_request_uploads(request); i++) {
        const struct bp_upload *u = bp_request_upload(request, i);
        int role = 0;
        if (u == name)
            continue;
        while (role < 5 && strcmp(u->field, roles[role]))
            role++;
        if (role == 5 || !u->path || nparts == 5) {
            json_t *allowed = json_pack("[ssssss]", "name", roles[0], roles[1], roles[2], roles[3], roles[4]);
            bp_problem(reply, 422, "unknown_part", "the form's part '%.60s' is %s", u->field,
                       role == 5  ? "unknown"
                       : !u->path ? "not a file (write -F part=@FILE)"
                                  : "one too many");
            bp_problem_member(reply, "allowed", allowed);
            return;
        }
        parts[nparts++] = (struct bp_import_part){
            .role = roles[role], .path = u->path, .filename = u->filename, .sha256 = u->sha256, .bytes = u->bytes};
    }
    struct bp_dataset_row row;
    bool existed;
    if (!nparts)
        bp_problem(reply, 422, "missing_part",
                   "the form has no file: add -F data=@FILE, or -F inputs=@IMAGES -F "
                   "targets=@LABELS");
    else if (bp_api_import(app, request, reply, name->text, parts, nparts, &row, &existed))
        created(reply, &row, existed);
}

/* --- looking -------------------------------------------------------------------------------------------------------- */
struct listing {
    const char *after;
    int limit, n;
    bool more;
    json_t *data;
    char last[BP_DATASET_NAME];
};

static bp_status take_dataset(void *arg, const struct bp_dataset_row *row)
{
    struct listing *l = arg;
    if (l->n == l->limit) {
        l->more = true;
        return BP_OK;
    }
    l->n++;
    memcpy(l->last, row->name, sizeof l->last);
    json_array_append_new(l->data, json_pack("{ss ss so ss sI sI}", "name", row->name, "object", "dataset",
                                             "created_at", bp_api_time(row->created_at), "sha256", row->sha256,
                                             "bytes", (json_int_t)row->bytes, "rows", (json_int_t)row->rows));
    return BP_OK;
}

static bp_status list_work(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct listing *l = arg;
    return bp_db_dataset_list(db, l->after, l->limit + 1, take_dataset, l, err);
}

void bp_api_dataset_list(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    int64_t limit;
    enum bp_render render;
    if (!bp_request_query_int(request, reply, "limit", 100, 1, 1000, &limit) ||
        !bp_request_render(request, reply, 1 << BP_RENDER_JSON | 1 << BP_RENDER_TEXT, &render))
        return;
    const char *after = bp_request_query(request, "after");
    struct listing l = {.after = after ? after : "", .limit = (int)limit, .data = json_array()};
    struct bp_error err = {0};
    if (!l.data || bp_store_read(app->store, list_work, &l, &err)) {
        bp_problem_error(reply, &err);
        json_decref(l.data);
    } else if (render == BP_RENDER_JSON) {
        bp_api_list(reply, l.data, l.more, l.more ? l.last : NULL);
    } else {
        struct bp_text text = {0};
        size_t i;
        json_t *d;
        bp_text_add(&text, "%-32s  %12s  %14s  %s\n", "NAME", "ROWS", "BYTES", "SHA256");
        json_array_foreach (l.data, i, d)
            bp_text_add(&text, "%-32s  %12lld  %14lld  %.12s\n", json_string_value(json_object_get(d, "name")),
                        (long long)json_integer_value(json_object_get(d, "rows")),
                        (long long)json_integer_value(json_object_get(d, "bytes")),
                        json_string_value(json_object_get(d, "sha256")));
        bp_text_reply(&text, reply, "text/plain; charset=utf-8");
        json_decref(l.data);
    }
}

void bp_api_dataset_get(struct bp_request *request, struct bp_reply *reply, void *app)
{
    struct bp_dataset_row row;
    if (!bp_api_dataset_row(app, bp_request_arg(request, 0), reply, &row))
        return;
    char etag[80];
    snprintf(etag, sizeof etag, "\"sha256-%s\"", row.sha256);
    if (!bp_reply_not_modified(request, reply, etag)) {
        bp_reply_header(reply, "ETag", "%s", etag);
        bp_reply_json(reply, 200, dataset_json(&row));
    }
    bp_dataset_row_done(&row);
}

void bp_api_dataset_rows(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    struct bp_dataset_row row;
    int64_t limit;
    if (!bp_request_query_int(request, reply, "limit", 10, 1, 1000, &limit) ||
        !bp_api_dataset_row(app, bp_request_arg(request, 0), reply, &row))
        return;
    json_t *rows = NULL;
    struct bp_error err = {0};
    if (bp_import_rows(app->config->data_dir, row.sha256, row.description, (int)limit, &rows, &err))
        bp_problem_error(reply, &err);
    else
        bp_api_list(reply, rows, row.rows > (int64_t)json_array_size(rows), NULL);
    bp_dataset_row_done(&row);
}

/* --- delete --------------------------------------------------------------------------------------------------------- */
static bp_status delete_work(struct bp_db *db, void *arg, struct bp_error *err)
{
    return bp_db_dataset_delete(db, arg, err);
}

void bp_api_dataset_delete(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    struct bp_dataset_row row;
    if (!bp_api_dataset_row(app, bp_request_arg(request, 0), reply, &row))
        return;
    struct bp_error err = {0};
    bp_status status = bp_store_write(app->store, delete_work, row.name, &err);
    if (status == BP_CONFLICT)
        bp_problem(reply, 409, "in_use", "%s", err.message);
    else if (status)
        bp_problem_error(reply, &err);
    else {
        bp_api_sweep(app);
        bp_reply_empty(reply, 204);
    }
    bp_dataset_row_done(&row);
}
