/* events.c: the log of a job: all that happened, as JSON, as NDJSON, and as lines for people:
 *
 *   epoch  12/150  [##..................]  loss 0.3121  val_loss 0.2988  val_accuracy 0.92  1.3 s
 *   10:42:07  succeeded  stop_reason=max_epochs
 */
#include "api/common.h"
#include "json_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 100        /* events of a reply where nothing is said */
#define PAGE_MAX 1000   /* and at most; lines for people come in one go, as far as that goes */
#define BAR 20          /* characters of a bar */
#define FIGURES_SHOWN 6 /* of an epoch, in a line */

struct events {
    const char *job;
    int64_t after, last;
    int limit, n;
    bool more;
    json_t *data;
};

static bp_status take_event(void *arg, const struct bp_event_row *row)
{
    struct events *e = arg;
    if (e->n == e->limit) {
        e->more = true;
        return BP_OK;
    }
    e->n++;
    e->last = row->seq;
    json_array_append_new(e->data,
                          json_pack("{sI ss so ss so}", "id", (json_int_t)row->seq, "object", "event", "at",
                                    bp_api_time(row->at), "type", row->type, "data", bp_api_parsed(row->data)));
    return BP_OK;
}

static bp_status read_events(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct events *e = arg;
    return bp_db_event_list(db, e->job, e->after, e->limit + 1, take_event, e, err);
}

/* The figures of an epoch: the losses, then what validation says of the rest, or else training. */
static void add_figures(struct bp_text *text, json_t *metrics)
{
    const char *name;
    json_t *value;
    char other[72];
    int shown = 0;
    json_object_foreach(metrics, name, value) {
        bool loss = !strcmp(name, "loss");
        snprintf(other, sizeof other, "val_%.60s", name);
        if (!strcmp(name, "lr") || (!loss && json_object_get(metrics, other)) || shown == FIGURES_SHOWN)
            continue;
        shown++;
        if (json_is_number(value))
            bp_text_add(text, "  %s %.4g", name, json_number_value(value));
        else
            bp_text_add(text, "  %s %s", name, json_string_value(value));
    }
}

static void add_epoch(struct bp_text *text, const json_t *data)
{
    static const char done[] = "####################", left[] = "....................";
    long long epoch = json_integer_value(json_object_get(data, "epoch"));
    long long epochs = json_integer_value(json_object_get(data, "epochs"));
    int width = snprintf(NULL, 0, "%lld", epochs);
    int filled = epochs > 0 && epoch <= epochs ? (int)(BAR * epoch / epochs) : BAR;
    bp_text_add(text, "epoch %*lld/%lld  [%.*s%.*s]", width, epoch, epochs, filled, done, BAR - filled, left);
    add_figures(text, json_object_get(data, "metrics"));
    bp_text_add(text, "  %.1f s\n", json_number_value(json_object_get(data, "seconds")));
}

/* What happened besides: the time of day, the word, and what is known of it. */
static void add_happening(struct bp_text *text, const json_t *event)
{
    const char *at = json_string_value(json_object_get(event, "at")), *name;
    json_t *value;
    bp_text_add(text, "%.8s  %s", at && strlen(at) > 19 ? at + 11 : "", /* of 2026-03-01T12:00:00.123Z */
                json_string_value(json_object_get(event, "type")));
    json_object_foreach(json_object_get(event, "data"), name, value) {
        char *other = json_is_string(value) ? NULL : bp_json_text(value);
        bp_text_add(text, "  %s=%s", name, other ? other : json_string_value(value));
        free(other);
    }
    bp_text_add(text, "\n");
}

static void reply_text(const struct events *e, struct bp_reply *reply)
{
    struct bp_text text = {0};
    size_t i;
    json_t *event;
    json_array_foreach(e->data, i, event) {
        const char *type = json_string_value(json_object_get(event, "type"));
        if (!strcmp(type, "epoch"))
            add_epoch(&text, json_object_get(event, "data"));
        else if (strcmp(type,
                        "checkpoint")) /* there is one after nearly every line: the list of checkpoints has them */
            add_happening(&text, event);
    }
    if (e->more)
        bp_text_add(&text, "… there is more: ?render=text&after=%lld\n", (long long)e->last);
    bp_text_reply(&text, reply, "text/plain; charset=utf-8");
}

static void reply_ndjson(const struct events *e, struct bp_reply *reply)
{
    struct bp_text text = {0};
    size_t i;
    json_t *event;
    json_array_foreach(e->data, i, event) {
        char *line = bp_json_text(event);
        bp_text_add(&text, "%s\n", line ? line : "");
        free(line);
    }
    bp_text_reply(&text, reply, "application/x-ndjson");
}

void bp_api_events(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    struct events e = {0};
    int64_t limit;
    enum bp_render render;
    struct bp_job_row row;
    if (!bp_request_render(request, reply, 1 << BP_RENDER_JSON | 1 << BP_RENDER_TEXT | 1 << BP_RENDER_NDJSON,
                           &render) ||
        !bp_request_query_int(request, reply, "limit", render == BP_RENDER_TEXT ? PAGE_MAX : PAGE, 1, PAGE_MAX,
                              &limit) ||
        !bp_request_query_int(request, reply, "after", 0, 0, INT64_MAX, &e.after) ||
        !bp_api_job_row(app, request, reply, &row))
        return;
    struct bp_error err = {0};
    e.job = row.id;
    e.limit = (int)limit;
    e.data = json_array();
    if (!e.data || bp_store_read(app->store, read_events, &e, &err)) {
        bp_problem_error(reply, &err);
        json_decref(e.data);
    } else if (render == BP_RENDER_JSON) {
        char next[24];
        snprintf(next, sizeof next, "%lld", (long long)e.last);
        bp_api_list(reply, e.data, e.more, e.more ? next : NULL);
    } else {
        (render == BP_RENDER_TEXT ? reply_text : reply_ndjson)(&e, reply);
        json_decref(e.data);
    }
    bp_job_row_done(&row);
}
