/* datasets.c: datasets by name: upload, look, delete.
 *
 * Threads: those of the handlers.
 */
#include "api/common.h"
#include "config.h"
#include "data/import.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- upload --------------------------------------------------------------------------------------------------------- */
struct put {
    const struct bp_dataset_row *row;
    bool only_new; /* nothing may be replaced */
    bool existed, same;
    struct bp_dataset_row stored; /* what there is now: the same bytes may have been there for long */
};

static bp_status put_work(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct put *p = arg;
    struct bp_dataset_row there = {0};
    if (p->only_new && bp_db_dataset_get(db, p->row->name, &there, NULL) == BP_OK) {
        p->existed = true;
        bp_dataset_row_done(&there);
        return BP_OK;
    }
    bp_status status = bp_db_dataset_put(db, p->row, &p->existed, &p->same, err);
    return status ? status : bp_db_dataset_get(db, p->row->name, &p->stored, err);
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

static bp_status find_work(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct bp_dataset_row row = {0};
    bp_status status = bp_db_dataset_get(db, arg, &row, err);
    bp_dataset_row_done(&row);
    return status;
}

/* If-None-Match: * asks that nothing be replaced. */
static bool only_new(const struct bp_request *request)
{
    const char *match = bp_request_header(request, "If-None-Match");
    return match && !strcmp(match, "*");
}

static void replacing_forbidden(struct bp_reply *reply, const char *name)
{
    bp_problem(reply, 412, "exists", "dataset '%s' exists, and If-None-Match: * forbids replacing it", name);
}

/* Whether the upload need not be looked at; a 412 is the reply then. The transaction looks again. */
static bool forbidden(struct bp_app *app, struct bp_request *request, struct bp_reply *reply, const char *name)
{
    struct bp_error err;
    if (!only_new(request) || bp_store_read(app->store, find_work, (void *)name, &err))
        return false;
    replacing_forbidden(reply, name);
    return true;
}

/* Parts to a dataset of that name, and the reply. */
static void import_named(struct bp_app *app, struct bp_request *request, struct bp_reply *reply, const char *name,
                         const struct bp_import_part *parts, int nparts)
{
    struct bp_dataset_row row;
    if (!bp_api_import(app, request, reply, name, parts, nparts, &row))
        return;
    struct put put = {.row = &row, .only_new = only_new(request)};
    if (bp_api_import_commit(app, reply, &row, put_work, &put)) {
        if (put.existed && put.only_new) {
            replacing_forbidden(reply, name);
        } else {
            bp_reply_header(reply, "ETag", "\"sha256-%s\"", row.sha256);
            if (!put.existed)
                bp_reply_header(reply, "Location", "/v1/datasets/%s", row.name);
            bp_reply_json(reply, put.existed ? 200 : 201, dataset_json(&put.stored));
            if (put.existed && !put.same)
                bp_api_sweep(app);
        }
    }
    bp_dataset_row_done(&put.stored);
    bp_api_import_done(app, &row);
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
    struct bp_import_part part = {.role = "data", .path = body->path, .filename = "", .bytes = body->bytes};
    import_named(app, request, reply, name, &part, 1);
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
                   "-F inputs=@IMAGES -F targets=@LABELS; a file by itself goes to /v1/datasets/NAME: curl -T FILE");
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
        parts[nparts++] =
            (struct bp_import_part){.role = roles[role], .path = u->path, .filename = u->filename, .bytes = u->bytes};
    }
    if (!nparts)
        bp_problem(reply, 422, "missing_part",
                   "the form has no file: add -F data=@FILE, or -F inputs=@IMAGES -F "
                   "targets=@LABELS");
    else
        import_named(app, request, reply, name->text, parts, nparts);
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
        json_array_foreach(l.data, i, d)
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

static void rows_text(struct bp_reply *reply, json_t *rows_steal, bool csv)
{
    struct bp_text text = {0};
    bp_text_objects(&text, rows_steal);
    json_decref(rows_steal);
    if (!csv)
        bp_text_align(&text);
    bp_text_reply(&text, reply, csv ? "text/csv; charset=utf-8" : "text/plain; charset=utf-8");
}

void bp_api_dataset_rows(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    struct bp_dataset_row row;
    int64_t limit;
    enum bp_render render;
    if (!bp_request_query_int(request, reply, "limit", 10, 1, 1000, &limit) ||
        !bp_request_render(request, reply, 1 << BP_RENDER_JSON | 1 << BP_RENDER_TEXT | 1 << BP_RENDER_CSV, &render) ||
        !bp_api_dataset_row(app, bp_request_arg(request, 0), reply, &row))
        return;
    json_t *rows = NULL;
    struct bp_error err = {0};
    if (bp_import_rows(app->config->data_dir, row.sha256, row.description, (int)limit, &rows, &err))
        bp_problem_error(reply, &err);
    else if (render != BP_RENDER_JSON)
        rows_text(reply, rows, render == BP_RENDER_CSV);
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
