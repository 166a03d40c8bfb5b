/* jobs.c: a job once it is there: list, look, the verbs, delete. */
#include "api/common.h"
#include "api/job_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_SHOWN 20 /* characters of a name in a table */

/* --- GET /v1/jobs --------------------------------------------------------------------------------------------------- */
struct listing {
    struct bp_app *app;
    struct bp_db *db; /* the read that it takes place in */
    struct bp_error *err;
    struct bp_job_filter filter;
    enum bp_render render;
    int limit, n;          /* rows wanted, and shown */
    bool more;             /* there is a row after them */
    char last[BP_ID_SIZE]; /* the last one shown */
    struct bp_text text;
};

static void table_head(struct bp_text *text)
{
    bp_text_add(text, "%-30s  %-*s  %-10s  %9s  %8s  %s\n", "ID", NAME_SHOWN, "NAME", "STATUS", "EPOCH", "DONE",
                "BEST");
}

/* How many bytes the first characters of a UTF-8 text have, at most `most` of them, and how many there are. */
static int first_characters(const char *text, int most, int *ret_characters)
{
    int n = 0, characters = 0;
    for (; text[n] && (characters < most || ((unsigned char)text[n] & 0xc0) == 0x80); n++)
        characters += ((unsigned char)text[n] & 0xc0) != 0x80;
    *ret_characters = characters;
    return n;
}

/* A line of the table; of a job that failed also why. */
static void table_row(struct bp_app *app, const struct bp_job_row *row, struct bp_text *text)
{
    json_t *progress = bp_api_job_progress(app, row);
    const char *name = row->name ? row->name : "-";
    int characters, bytes = first_characters(name, NAME_SHOWN, &characters);
    char best[64] = "";
    if (row->has_best)
        snprintf(best, sizeof best, "%s %.6g", row->best_name ? row->best_name : "", row->best_value);
    bp_text_add(text, "%-30s  %.*s%*s  %-10s  %4lld/%-4lld  %7.1f%%  %s\n", row->id, bytes, name,
                NAME_SHOWN - characters, "", bp_job_status_name(row->status),
                (long long)json_integer_value(json_object_get(progress, "epoch")),
                (long long)json_integer_value(json_object_get(progress, "epochs")),
                100 * json_number_value(json_object_get(progress, "fraction")), best);
    json_t *error = bp_api_parsed(row->error);
    if (json_is_object(error))
        bp_text_add(text, "    %s: %s\n", json_string_value(json_object_get(error, "code")),
                    json_string_value(json_object_get(error, "message")));
    json_decref(error);
    json_decref(progress);
}

static bp_status list_row(void *arg, const struct bp_job_row *row)
{
    struct listing *l = arg;
    bp_status status = BP_OK;
    if (l->n == l->limit) {
        l->more = true;
        return BP_OK;
    }
    if (l->render == BP_RENDER_TEXT) {
        table_row(l->app, row, &l->text);
    } else {
        bp_text_add(&l->text, "%s", l->n ? "," : "");
        status = bp_api_job_text(l->app, l->db, row, &l->text, l->err);
    }
    memcpy(l->last, row->id, sizeof l->last);
    l->n++;
    return status;
}

static bp_status list_work(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct listing *l = arg;
    l->db = db;
    l->err = err;
    return bp_db_job_list(db, &l->filter, list_row, l, err);
}

/* ?status=running,queued as a bit set; -1 with a 400 reply. */
static int parse_statuses(const char *text, struct bp_reply *reply)
{
    int set = 0;
    char word[32];
    while (text && *text) {
        size_t n = strcspn(text, ",");
        enum bp_job_status status;
        snprintf(word, sizeof word, "%.*s", (int)(n < sizeof word ? n : sizeof word - 1), text);
        if (!bp_job_status_parse(word, &status)) {
            bp_problem(reply, 400, "bad_query", "status takes names of states, separated by commas");
            json_t *allowed = json_array();
            for (int s = 0; s < BP_JOB_STATUS_COUNT; s++)
                json_array_append_new(allowed, json_string(bp_job_status_name((enum bp_job_status)s)));
            bp_problem_member(reply, "allowed", allowed);
            return -1;
        }
        set |= 1 << status;
        text += n + (text[n] == ',');
    }
    return set;
}

static bool parse_filter(struct bp_request *request, struct bp_reply *reply, struct bp_job_filter *ret)
{
    int64_t limit;
    if (!bp_request_query_int(request, reply, "limit", 100, 1, 1000, &limit))
        return false;
    int statuses = parse_statuses(bp_request_query(request, "status"), reply);
    if (statuses < 0)
        return false;
    const char *order = bp_request_query(request, "order");
    if (order && strcmp(order, "asc") && strcmp(order, "desc")) {
        bp_problem(reply, 400, "bad_query", "order is asc (oldest first) or desc (newest first, the default)");
        return false;
    }
    *ret = (struct bp_job_filter){.statuses = statuses,
                                  .name = bp_request_query(request, "name"),
                                  .ascending = order && !strcmp(order, "asc"),
                                  .after = bp_request_query(request, "after"),
                                  .limit = (int)limit + 1};
    const char *key, *value;
    for (int i = 0; bp_request_query_at(request, i, &key, &value); i++)
        if (!strncmp(key, "tag.", 4)) {
            if (ret->tag_key) {
                bp_problem(reply, 400, "bad_query",
                           "a list is filtered by one tag at a time, and this names several");
                return false;
            }
            ret->tag_key = key + 4;
            ret->tag_value = value;
        }
    return true;
}

void bp_api_job_list(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct listing l = {.app = arg};
    struct bp_error err = {0};
    if (!parse_filter(request, reply, &l.filter) ||
        !bp_request_render(request, reply, 1 << BP_RENDER_JSON | 1 << BP_RENDER_TEXT, &l.render))
        return;
    l.limit = l.filter.limit - 1;
    if (l.render == BP_RENDER_TEXT)
        table_head(&l.text);
    else
        bp_text_add(&l.text, "{\"object\":\"list\",\"data\":[");
    bp_status status = bp_store_read(l.app->store, list_work, &l, &err);
    if (status) {
        free(l.text.data);
        if (status == BP_INVALID)
            bp_problem(reply, 400, "bad_cursor", "after must be the id of a job of this list");
        else
            bp_problem_error(reply, &err);
    } else if (l.render == BP_RENDER_TEXT) {
        bp_text_reply(&l.text, reply, "text/plain; charset=utf-8");
    } else {
        bp_text_add(&l.text, "],\"has_more\":%s", l.more ? "true" : "false");
        if (l.more)
            bp_text_add(&l.text, ",\"next\":\"%s\"", l.last);
        bp_text_add(&l.text, "}");
        bp_text_json_reply(&l.text, reply, 200);
    }
}

/* --- GET /v1/jobs/{id} ---------------------------------------------------------------------------------------------- */
static void job_reply(struct bp_app *app, struct bp_reply *reply, const struct bp_job_row *row)
{
    char tag[BP_JOB_TAG];
    struct bp_text text = {0};
    struct bp_error err;
    bp_api_job_tag(app, row, tag);
    if (bp_api_job_text(app, NULL, row, &text, &err)) {
        bp_problem_error(reply, &err);
        return;
    }
    bp_reply_header(reply, "ETag", "%s", tag);
    bp_reply_header(reply, "Cache-Control", "no-cache");
    bp_text_json_reply(&text, reply, 200);
}

/* The job object as text, kept for those who ask next. generation: from before the row was read. */
static void job_told(struct bp_app *app, struct bp_request *request, struct bp_reply *reply,
                     const struct bp_job_row *row, uint64_t generation)
{
    char tag[BP_JOB_TAG];
    struct bp_snapshot now;
    bool passing = !bp_job_status_final(row->status) || (app->jobs && bp_jobs_snapshot(app->jobs, row->id, &now));
    bp_api_job_tag(app, row, tag);
    struct bp_text text = {0};
    struct bp_error err;
    if (bp_api_job_text(app, NULL, row, &text, &err)) {
        bp_problem_error(reply, &err);
        return;
    }
    bp_text_add(&text, "\n");
    if (text.failed) {
        free(text.data);
        bp_reply_json(reply, 200, NULL); /* says that there is no memory */
    } else {
        bp_job_cache_keep(app->job_cache, generation, row->id, tag, text.data, text.size, passing);
        bp_job_cache_say(request, reply, tag, text.data, text.size);
    }
}

void bp_api_job_get(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    int64_t wait, since;
    enum bp_render render;
    uint64_t generation = bp_store_generation(app->store);
    if (!bp_request_render(request, reply, 1 << BP_RENDER_JSON | 1 << BP_RENDER_TEXT, &render) ||
        !bp_request_query_int(request, reply, "wait", 0, 0, 3600, &wait) ||
        !bp_request_query_int(request, reply, "since", -1, 0, INT64_MAX, &since))
        return;
    if (wait == 0 && render == BP_RENDER_JSON &&
        bp_job_cache_reply(app->job_cache, generation, bp_request_arg(request, 0), request, reply))
        return;
    struct bp_job_row row;
    if (!bp_api_job_row(app, request, reply, &row))
        return;
    int now = bp_api_wait(request, reply, &row, (double)wait, since < 0, since);
    if (now > 0 && render == BP_RENDER_TEXT) {
        struct bp_text text = {0};
        table_head(&text);
        table_row(app, &row, &text);
        bp_text_reply(&text, reply, "text/plain; charset=utf-8");
    } else if (now > 0) {
        job_told(app, request, reply, &row, generation);
    } else if (now < 0) {
        bp_problem(reply, 503, "overloaded",
                   "too many requests wait already: ask without wait, or again in a moment");
        bp_reply_header(reply, "Retry-After", "2");
    }
    bp_job_row_done(&row);
}

void bp_api_job_spec(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_job_row row;
    if (!bp_api_job_row(arg, request, reply, &row))
        return;
    bp_reply_json(reply, 200, bp_api_parsed(row.spec));
    bp_job_row_done(&row);
}

/* --- verbs ---------------------------------------------------------------------------------------------------------- */
static json_t *words(const char *list)
{
    json_t *array = json_array();
    while (list && *list) {
        size_t n = strcspn(list, ",");
        json_array_append_new(array, json_stringn(list, n));
        list += n + (list[n] == ',');
    }
    return array;
}

static void verb(struct bp_request *request, struct bp_reply *reply, struct bp_app *app, enum bp_verb verb)
{
    struct bp_job_row row = {0};
    enum bp_job_status status;
    const char *allowed = "";
    struct bp_error err = {0};
    switch (bp_jobs_verb(app, bp_request_arg(request, 0), verb, &row, &status, &allowed, &err)) {
    case BP_OK:
        job_reply(app, reply, &row);
        bp_job_row_done(&row);
        break;
    case BP_NOT_FOUND:
        if (bp_api_job_row(app, request, reply, &row))
            bp_job_row_done(&row);
        break;
    case BP_CONFLICT:
        bp_problem(reply, 409, "illegal_transition", "%s", err.message);
        bp_problem_member(reply, "job_status", json_string(bp_job_status_name(status)));
        bp_problem_member(reply, "allowed", words(allowed));
        break;
    default:
        bp_problem_error(reply, &err);
    }
}

void bp_api_job_cancel(struct bp_request *request, struct bp_reply *reply, void *app)
{
    verb(request, reply, app, BP_VERB_CANCEL);
}

void bp_api_job_stop(struct bp_request *request, struct bp_reply *reply, void *app)
{
    verb(request, reply, app, BP_VERB_STOP);
}

void bp_api_job_pause(struct bp_request *request, struct bp_reply *reply, void *app)
{
    verb(request, reply, app, BP_VERB_PAUSE);
}

void bp_api_job_resume(struct bp_request *request, struct bp_reply *reply, void *app)
{
    verb(request, reply, app, BP_VERB_RESUME);
}

/* --- DELETE /v1/jobs/{id} ------------------------------------------------------------------------------------------- */
static bp_status delete_work(struct bp_db *db, void *arg, struct bp_error *err)
{
    return bp_db_job_delete(db, arg, err);
}

void bp_api_job_delete(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    struct bp_job_row row;
    if (!bp_api_job_row(app, request, reply, &row))
        return;
    struct bp_error err = {0};
    bp_status status = bp_store_write(app->store, delete_work, row.id, &err);
    if (status == BP_CONFLICT) {
        bp_problem(reply, 409, "job_active", "a job that is %s cannot be deleted: cancel it first",
                   bp_job_status_name(row.status));
        bp_problem_member(reply, "job_status", json_string(bp_job_status_name(row.status)));
    } else if (status) {
        bp_problem_error(reply, &err);
    } else {
        bp_http_notify(app->http, row.id, INT64_MAX); /* whoever waits for it learns that it is gone */
        bp_api_sweep(app);
        bp_reply_empty(reply, 204);
    }
    bp_job_row_done(&row);
}
