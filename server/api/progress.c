/* progress.c: what a job has done so far: series of metrics, the list of checkpoints (its log: events.c).
 *
 * Series are columnar, {name: {"step": […], "epoch": […], "value": […]}}. A reduction to few points cuts a series into
 * stretches of equal length and keeps the smallest and the largest value of each, so that no spike gets lost.
 */
#include "api/common.h"
#include "json_text.h"
#include "problems.h"
#include "train/metric.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 64        /* of ?names= */
#define NAMES_SHOWN 128     /* series of a job that a refusal lists */
#define POINTS_MAX 10000000 /* read for one reply: 24 bytes each, and some 100 more where it is shown as JSON */

/* --- metrics -------------------------------------------------------------------------------------------------------- */
struct point {
    int64_t epoch, step;
    double value;
};

struct series {
    char name[48];
    size_t n, capacity;
    struct point *points;
};

struct metrics {
    const char *job;
    char names_text[4096];
    const char *names[NAMES_MAX];
    size_t nnames;
    int64_t from_step, max_points;
    bool reduce;
    size_t nseries, capacity, total;
    struct series *series; /* ascending by name */
};

static bp_status take_point(void *arg, const struct bp_metric_point *point)
{
    struct metrics *m = arg;
    if (!m->nseries || strcmp(m->series[m->nseries - 1].name, point->name)) {
        if (m->nseries == m->capacity) {
            size_t capacity = m->capacity ? 2 * m->capacity : 16;
            struct series *grown = realloc(m->series, capacity * sizeof *grown);
            if (!grown)
                return BP_NOMEM;
            m->series = grown;
            m->capacity = capacity;
        }
        struct series *fresh = &m->series[m->nseries++];
        memset(fresh, 0, sizeof *fresh);
        memcpy(fresh->name, point->name, sizeof fresh->name);
    }
    struct series *s = &m->series[m->nseries - 1];
    if (++m->total > POINTS_MAX)
        return BP_LIMIT;
    if (s->n == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 256;
        struct point *grown = realloc(s->points, capacity * sizeof *grown);
        if (!grown)
            return BP_NOMEM;
        s->points = grown;
        s->capacity = capacity;
    }
    s->points[s->n++] = (struct point){point->epoch, point->step, point->value};
    return BP_OK;
}

static bp_status read_metrics(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct metrics *m = arg;
    bp_status status =
        bp_db_metric_list(db, m->job, m->nnames ? m->names : NULL, m->nnames, m->from_step, take_point, m, err);
    return status == BP_NOMEM ? bp_fail(err, status, "no memory for the series of the job") : status;
}

/* Order for extremes: a value that is not finite counts as larger than all others, so that it is kept. */
static double weight(double value)
{
    return isnan(value) ? INFINITY : value;
}

/* Cuts the points into max / 2 stretches and keeps the extremes of each, in order of steps. */
static void reduce(struct series *s, size_t max)
{
    size_t stretches = max / 2, kept = 0;
    if (s->n <= max)
        return;
    for (size_t i = 0; i < stretches; i++) {
        size_t begin = s->n * i / stretches, end = s->n * (i + 1) / stretches;
        size_t low = begin, high = begin;
        for (size_t j = begin + 1; j < end; j++) {
            if (weight(s->points[j].value) < weight(s->points[low].value))
                low = j;
            if (weight(s->points[j].value) > weight(s->points[high].value))
                high = j;
        }
        size_t first = low < high ? low : high, second = low < high ? high : low;
        s->points[kept++] = s->points[first]; /* kept never overtakes begin */
        if (second != first)
            s->points[kept++] = s->points[second];
    }
    s->n = kept;
}

static json_t *columnar(const struct metrics *m)
{
    json_t *all = json_object();
    for (size_t i = 0; i < m->nseries; i++) {
        const struct series *s = &m->series[i];
        json_t *step = json_array(), *epoch = json_array(), *value = json_array();
        for (size_t j = 0; j < s->n; j++) {
            json_array_append_new(step, json_integer(s->points[j].step));
            json_array_append_new(epoch, json_integer(s->points[j].epoch));
            json_array_append_new(value, bp_json_number(s->points[j].value));
        }
        json_object_set_new(all, s->name, json_pack("{so so so}", "step", step, "epoch", epoch, "value", value));
    }
    return all;
}

static void tabular(const struct metrics *m, bool csv, struct bp_reply *reply)
{
    struct bp_text text = {0};
    char number[BP_NUMBER_TEXT];
    if (csv)
        bp_text_add(&text, "name,epoch,step,value\n");
    for (size_t i = 0; i < m->nseries; i++)
        for (size_t j = 0; j < m->series[i].n; j++) {
            const struct point *p = &m->series[i].points[j];
            bp_number_text(p->value, number);
            const char *quote = !csv && !isfinite(p->value) ? "\"" : "";
            bp_text_add(&text,
                        csv ? "%s,%lld,%lld,%s%s%s\n"
                            : "{\"name\":\"%s\",\"epoch\":%lld,\"step\":%lld,\"value\":%s%s%s}\n",
                        m->series[i].name, (long long)p->epoch, (long long)p->step, quote, number, quote);
        }
    bp_text_reply(&text, reply, csv ? "text/csv; charset=utf-8" : "application/x-ndjson");
}

static int column_width(const struct series *s)
{
    int n = (int)strlen(s->name);
    return n > 12 ? n : 12; /* -1.23457e-05 */
}

/* The next point of an epoch, at or after *at: of a series by step the last one of the epoch. */
static const struct point *point_of(const struct series *s, int64_t epoch, size_t *at)
{
    const struct point *found = NULL;
    for (; *at < s->n && s->points[*at].epoch <= epoch; ++*at)
        found = &s->points[*at];
    return found && found->epoch == epoch ? found : NULL;
}

/* For people: a line an epoch, a column a series. */
static void table_of_epochs(const struct metrics *m, struct bp_reply *reply)
{
    struct bp_text text = {0};
    size_t *at = calloc(m->nseries + 1, sizeof *at);
    int64_t epoch = -1;
    text.failed = !at;
    bp_text_add(&text, "%9s", "EPOCH");
    for (size_t i = 0; i < m->nseries; i++)
        bp_text_add(&text, "  %*s", column_width(&m->series[i]), m->series[i].name);
    bp_text_add(&text, "\n");
    while (!text.failed) {
        int64_t next = INT64_MAX;
        for (size_t i = 0; i < m->nseries; i++)
            if (at[i] < m->series[i].n && m->series[i].points[at[i]].epoch < next)
                next = m->series[i].points[at[i]].epoch;
        if (next == INT64_MAX || next <= epoch)
            break;
        epoch = next;
        bp_text_add(&text, "%9lld", (long long)epoch);
        for (size_t i = 0; i < m->nseries; i++) {
            const struct point *p = point_of(&m->series[i], epoch, &at[i]);
            if (p)
                bp_text_add(&text, "  %*.6g", column_width(&m->series[i]), p->value);
            else
                bp_text_add(&text, "  %*s", column_width(&m->series[i]), "");
        }
        bp_text_add(&text, "\n");
    }
    free(at);
    bp_text_reply(&text, reply, "text/plain; charset=utf-8");
}

static void show_metrics(const struct metrics *m, enum bp_render render, struct bp_reply *reply)
{
    if (render == BP_RENDER_JSON)
        bp_reply_json(reply, 200, columnar(m));
    else if (render == BP_RENDER_TEXT)
        table_of_epochs(m, reply);
    else
        tabular(m, render == BP_RENDER_CSV, reply);
}

static bool parse_metrics_query(struct bp_request *request, struct bp_reply *reply, struct metrics *m)
{
    if (!bp_request_query_int(request, reply, "from_step", 0, 0, INT64_MAX, &m->from_step) ||
        !bp_request_query_int(request, reply, "max_points", 0, 2, POINTS_MAX, &m->max_points))
        return false;
    const char *how = bp_request_query(request, "reduce");
    if (how && strcmp(how, "minmax") && strcmp(how, "none")) {
        bp_problem(reply, 400, "bad_query", "reduce is minmax (keeps the extremes, the default) or none");
        return false;
    }
    if (how && !strcmp(how, "none"))
        m->max_points = 0;
    const char *names = bp_request_query(request, "names");
    snprintf(m->names_text, sizeof m->names_text, "%s", names ? names : "");
    char *save = NULL;
    for (char *name = strtok_r(m->names_text, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        if (m->nnames == NAMES_MAX) {
            bp_problem(reply, 400, "bad_query", "names takes at most %d names", NAMES_MAX);
            return false;
        }
        m->names[m->nnames++] = name;
    }
    return true;
}

/* Whether a job that is not at its end may get a series of this name yet: val_ or test_, a metric, and an output. */
static bool may_come(const char *name)
{
    if (!strcmp(name, "batch_loss") || !strcmp(name, "lr"))
        return true;
    name += !strncmp(name, "val_", 4) ? 4 : !strncmp(name, "test_", 5) ? 5 : 0;
    for (enum bp_metric m = BP_METRIC_LOSS; m < BP_METRIC_COUNT; m++) {
        size_t n = strlen(bp_metric_name(m));
        if (!strncmp(name, bp_metric_name(m), n) && (name[n] == 0 || name[n] == '_'))
            return true;
    }
    return false;
}

static bool was_read(const struct metrics *m, const char *name)
{
    for (size_t i = 0; i < m->nseries; i++)
        if (!strcmp(m->series[i].name, name))
            return true;
    return false;
}

/* Refuses a name that is no series of the job, and will be none. */
static bool check_names(struct bp_app *app, const struct bp_job_row *row, const struct metrics *m,
                        struct bp_reply *reply)
{
    const char *unknown = NULL, *there[NAMES_SHOWN] = {"batch_loss"}, *name;
    json_t *last = NULL, *value;
    size_t n = 1;
    for (size_t i = 0; i < m->nnames && !unknown; i++) {
        if (was_read(m, m->names[i]) || (!bp_job_status_final(row->status) && may_come(m->names[i])))
            continue;
        last = last ? last : bp_api_job_last(app, row);
        if (!json_object_get(last, m->names[i]) && strcmp(m->names[i], "batch_loss"))
            unknown = m->names[i];
    }
    json_object_foreach(last, name, value)
        if (unknown && n < NAMES_SHOWN)
            there[n++] = name;
    if (unknown) {
        const char *near = bp_nearest(unknown, there, n);
        json_t *allowed = json_array();
        for (size_t i = 0; i < n; i++)
            json_array_append_new(allowed, json_string(there[i]));
        bp_problem(reply, 400, "bad_query", "this job has no series \"%.60s\"%s%s%s", unknown,
                   near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
        bp_problem_member(reply, "allowed", allowed);
    }
    json_decref(last);
    return !unknown;
}

void bp_api_metrics(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    struct metrics m = {0};
    enum bp_render render;
    struct bp_job_row row;
    if (!parse_metrics_query(request, reply, &m) ||
        !bp_request_render(request, reply,
                           1 << BP_RENDER_JSON | 1 << BP_RENDER_TEXT | 1 << BP_RENDER_CSV | 1 << BP_RENDER_NDJSON,
                           &render) ||
        !bp_api_job_row(app, request, reply, &row))
        return;
    struct bp_error err = {0};
    m.job = row.id;
    bp_status status = bp_store_read(app->store, read_metrics, &m, &err);
    for (size_t i = 0; m.max_points && i < m.nseries; i++)
        reduce(&m.series[i], (size_t)m.max_points);
    if (m.total > POINTS_MAX)
        bp_problem(reply, 422, "too_many_points",
                   "the series have more than %d points: name some of them with "
                   "?names= or begin later with ?from_step=",
                   POINTS_MAX);
    else if (status)
        bp_problem_error(reply, &err);
    else if (check_names(app, &row, &m, reply))
        show_metrics(&m, render, reply);
    for (size_t i = 0; i < m.nseries; i++)
        free(m.series[i].points);
    free(m.series);
    bp_job_row_done(&row);
}

/* --- checkpoints ---------------------------------------------------------------------------------------------------- */
struct checkpoints {
    const char *job;
    json_t *data;
};

static bp_status take_checkpoint(void *arg, const struct bp_checkpoint_row *row)
{
    struct checkpoints *c = arg;
    bool latest = json_array_size(c->data) == 0; /* newest first */
    json_array_append_new(
        c->data, json_pack("{ss ss ss so sI sI sI ss sb sb so sI}", "id", row->id, "object", "checkpoint", "job",
                           row->job, "created_at", bp_api_time(row->created_at), "epoch", (json_int_t)row->epoch,
                           "step", (json_int_t)row->step, "bytes", (json_int_t)row->bytes, "sha256", row->sha256,
                           "best", (int)row->best, "latest", (int)latest, "metrics", bp_api_parsed(row->metrics),
                           "numerics_version", (json_int_t)row->numerics));
    return BP_OK;
}

static void checkpoints_text(struct bp_reply *reply, json_t *list)
{
    struct bp_text text = {0};
    size_t i;
    json_t *entry, *value;
    const char *name;
    json_array_foreach(list, i, entry) { /* the metrics are columns of their own, and what is the same in all goes */
        json_t *metrics = json_incref(json_object_get(entry, "metrics"));
        static const char *const left_out[] = {"object", "job", "sha256", "metrics", "numerics_version"};
        for (size_t k = 0; k < sizeof left_out / sizeof left_out[0]; k++)
            json_object_del(entry, left_out[k]);
        json_object_foreach(metrics, name, value)
            json_object_set(entry, name, value);
        json_decref(metrics);
    }
    bp_text_objects(&text, list);
    bp_text_align(&text);
    bp_text_reply(&text, reply, "text/plain; charset=utf-8");
}

static bp_status read_checkpoints(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct checkpoints *c = arg;
    return bp_db_checkpoint_list(db, c->job, take_checkpoint, c, err);
}

void bp_api_checkpoints(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    struct bp_job_row row;
    enum bp_render render;
    if (!bp_request_render(request, reply, 1 << BP_RENDER_JSON | 1 << BP_RENDER_TEXT, &render) ||
        !bp_api_job_row(app, request, reply, &row))
        return;
    struct checkpoints c = {.job = row.id, .data = json_array()};
    struct bp_error err = {0};
    if (!c.data || bp_store_read(app->store, read_checkpoints, &c, &err)) {
        bp_problem_error(reply, &err);
        json_decref(c.data);
    } else if (render == BP_RENDER_TEXT) {
        checkpoints_text(reply, c.data);
        json_decref(c.data);
    } else {
        bp_api_list(reply, c.data, false, NULL);
    }
    bp_job_row_done(&row);
}
