/* common.c: lookups, times, lists and waiting, shared by the handlers. */
#include "api/common.h"
#include "api/table_cache.h"

#include "base/clock.h"
#include "config.h"
#include "problems.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WAIT_MAX 60.0       /* seconds a client may be kept waiting */
#define TEXT_MAX (1u << 30) /* of a rendered table: beyond that the client asks for less */
#define NAMES_SHOWN 20      /* of what there is, in a 404 */

json_t *bp_api_time(int64_t ms)
{
    if (ms == 0)
        return json_null();
    time_t seconds = (time_t)(ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    char text[40];
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + n, sizeof text - n, ".%03dZ", (int)(ms % 1000));
    return json_string(text);
}

json_t *bp_api_parsed(const char *text)
{
    if (!text)
        return json_null();
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    return value ? value : json_null();
}

/* --- jobs ----------------------------------------------------------------------------------------------------------- */

static bp_status collect_id(void *arg, const struct bp_job_row *row)
{
    json_array_append_new(arg, json_string(row->id));
    return BP_OK;
}

static bp_status list_ids(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct bp_job_filter filter = {.limit = NAMES_SHOWN};
    return bp_db_job_list(db, &filter, collect_id, arg, err);
}

bool bp_api_job_row(struct bp_app *app, const struct bp_request *request, struct bp_reply *reply,
                    struct bp_job_row *ret)
{
    struct bp_error err = {0};
    memset(ret, 0, sizeof *ret);
    bp_status status = bp_job_read(app->store, bp_request_arg(request, 0), ret, &err);
    if (status == BP_OK)
        return true;
    if (status != BP_NOT_FOUND) {
        bp_problem_error(reply, &err);
        return false;
    }
    json_t *ids = json_array();
    bp_store_read(app->store, list_ids, ids, &err);
    bp_problem(reply, 404, "not_found", "there is no such job; GET /v1/jobs lists what there is%s",
               json_array_size(ids) ? ", the newest are in `jobs`" : " (no job yet)");
    bp_problem_member(reply, "jobs", ids);
    return false;
}

/* --- datasets ------------------------------------------------------------------------------------------------------- */
struct dataset_read {
    const char *name;
    struct bp_dataset_row *row;
};

static bp_status read_dataset(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct dataset_read *r = arg;
    return bp_db_dataset_get(db, r->name, r->row, err);
}

static bp_status collect_name(void *arg, const struct bp_dataset_row *row)
{
    json_array_append_new(arg, json_string(row->name));
    return BP_OK;
}

static bp_status list_names(struct bp_db *db, void *arg, struct bp_error *err)
{
    return bp_db_dataset_list(db, "", 1000, collect_name, arg, err);
}

json_t *bp_api_dataset_names(void *app)
{
    struct bp_error err;
    json_t *names = json_array();
    if (names)
        bp_store_read(((struct bp_app *)app)->store, list_names, names, &err);
    return names;
}

bool bp_api_dataset_row(struct bp_app *app, const char *name, struct bp_reply *reply, struct bp_dataset_row *ret)
{
    struct bp_error err = {0};
    memset(ret, 0, sizeof *ret);
    struct dataset_read r = {name, ret};
    bp_status status = bp_store_read(app->store, read_dataset, &r, &err);
    if (status == BP_OK)
        return true;
    if (status != BP_NOT_FOUND) {
        bp_problem_error(reply, &err);
        return false;
    }
    json_t *names = bp_api_dataset_names(app);
    const char *words[1000];
    size_t n = json_array_size(names);
    for (size_t i = 0; i < n; i++)
        words[i] = json_string_value(json_array_get(names, i));
    const char *near = bp_nearest(name, words, n);
    bp_problem(reply, 404, "not_found", "there is no such dataset%s%s%s; GET /v1/datasets lists what there is",
               near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
    bp_problem_member(reply, "datasets", names);
    return false;
}

static bp_status find_dataset(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct dataset_read *r = arg;
    return bp_db_dataset_find(db, r->name, r->row, err);
}

static bp_status read_version(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct dataset_read *r = arg;
    return bp_db_dataset_version(db, r->name, r->row, err);
}

bp_status bp_api_open_dataset(struct bp_app *app, const char *name, struct bp_table **ret,
                              struct bp_dataset_row *ret_row, struct bp_error *err)
{
    struct bp_dataset_row row = {0}, version = {0};
    struct dataset_read find = {name, &row}, read = {row.table, &version};
    unsigned drops = 0;
    uint64_t generation = bp_store_dataset_generation(app->store);
    *ret = bp_table_cache_named(app->tables, name, generation, &row);
    if (*ret) {
        if (ret_row)
            *ret_row = row;
        return BP_OK;
    }
    bp_status status = bp_store_read(app->store, find_dataset, &find, err);
    if (status)
        return status;
    *ret = bp_table_cache_find(app->tables, row.table, &drops);
    if (!*ret) {
        status = bp_store_read(app->store, read_version, &read, err);
        if (!status)
            status = bp_table_open(app->config->data_dir, row.table, version.description, ret, err);
        if (!status)
            bp_table_cache_keep(app->tables, drops, *ret, strlen(version.description));
        bp_dataset_row_done(&version);
    }
    if (!status)
        bp_table_cache_name(app->tables, &row, generation);
    if (!status && ret_row)
        *ret_row = row;
    return status;
}

bool bp_api_name_ok(const char *name, const char *pointer, struct bp_reply *reply)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    static const char later[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t n = strlen(name);
    if (n >= 1 && n < BP_DATASET_NAME && strchr(first, name[0]) && strspn(name, later) == n)
        return true;
    bp_problem(reply, 422, "invalid_name",
               "a name has 1 to 64 of a-z, 0-9, '.', '_' and '-', and begins with a letter "
               "or a digit");
    if (pointer)
        bp_problem_at(reply, pointer, "invalid_name", NULL, NULL, "is not a name of that form");
    return false;
}

/* --- waiting, lists, text ------------------------------------------------------------------------------------------- */
int bp_api_wait(struct bp_request *request, struct bp_reply *reply, const struct bp_job_row *row, double seconds,
                bool until_final, int64_t since)
{
    bool final = bp_job_status_final(row->status);
    if (final || seconds <= 0 || bp_request_waited(request) == 2 || (!until_final && row->version > since))
        return 1;
    double clock = bp_clock();
    double deadline = bp_request_deadline(request, clock + (seconds < WAIT_MAX ? seconds : WAIT_MAX));
    if (clock >= deadline)
        return 1;
    return bp_reply_wait(request, reply, row->id, row->version, deadline - clock) ? 0 : -1;
}

void bp_api_list(struct bp_reply *reply, json_t *data_steal, bool has_more, const char *next)
{
    json_t *list = json_pack("{ss so sb}", "object", "list", "data", data_steal, "has_more", has_more);
    if (list && next)
        json_object_set_new(list, "next", json_string(next));
    bp_reply_json(reply, 200, list);
}

void bp_text_add(struct bp_text *t, const char *format, ...)
{
    if (t->failed)
        return;
    va_list args;
    for (;;) {
        va_start(args, format);
        size_t room = t->capacity - t->size;
        int n = vsnprintf(t->data ? t->data + t->size : NULL, room, format, args);
        va_end(args);
        if (n < 0 || (size_t)n >= TEXT_MAX - t->size) {
            t->failed = true;
            return;
        }
        if ((size_t)n < room) {
            t->size += (size_t)n;
            return;
        }
        size_t capacity = 2 * (t->size + (size_t)n + 512);
        char *data = realloc(t->data, capacity);
        if (!data) {
            t->failed = true;
            return;
        }
        t->data = data;
        t->capacity = capacity;
    }
}

void bp_text_reply(struct bp_text *t, struct bp_reply *reply, const char *content_type)
{
    if (!t->failed)
        bp_text_add(t, "%s", ""); /* an empty table is an empty body */
    if (t->failed) {
        free(t->data);
        bp_problem(reply, 503, "out_of_memory", "the table is too large to be made at once: ask for less of it");
    } else {
        bp_reply_bytes(reply, 200, content_type, t->data, t->size);
    }
    memset(t, 0, sizeof *t);
}

void bp_text_json_reply(struct bp_text *t, struct bp_reply *reply, int status)
{
    bp_text_add(t, "\n");
    if (t->failed) {
        free(t->data);
        bp_reply_json(reply, status, NULL); /* says that there is no memory */
    } else {
        bp_reply_bytes(reply, status, "application/json", t->data, t->size);
    }
    memset(t, 0, sizeof *t);
}
