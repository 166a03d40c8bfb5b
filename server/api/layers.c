/* layers.c: GET /v1/jobs/{id}/layers: what goes on in each layer, now and over time.
 *
 *   {"layers": [{"name", "type", "activation", "now": {figure: value}, "series": {"step": […], figure: […]}}, …]}
 *
 * The first entry, named "network", is the whole of it. null is a figure that a layer does not have. ?layer= takes one
 * layer by name; ?max_points= thins the series out evenly and keeps their ends.
 *
 * Threads: on the pool; one short read of the store.
 */
#include "api/common.h"
#include "jobs/layer_history.h"
#include "json_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define POINTS_DEFAULT 200
#define POINTS_MAX 2000 /* what a job keeps, about */

struct asked {
    const char *job, *layer;
    size_t max_points;
    struct bp_layer_history history;
};

static bp_status read_history(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct asked *a = arg;
    return bp_layer_history_read(db, a->job, &a->history, err);
}

static json_t *figure_json(double value)
{
    return isnan(value) ? json_null() : bp_json_number(value);
}

/* Whether a layer has a figure at all. */
static bool has_figure(const struct bp_layer_point *const *points, size_t n, int figure)
{
    for (size_t i = 0; i < n; i++)
        if (!isnan(points[i]->value[figure]))
            return true;
    return false;
}

/* point number i of `kept` that stand for n: evenly, both ends included. */
static size_t thinned(size_t i, size_t kept, size_t n)
{
    return kept < 2 ? n - 1 : i * (n - 1) / (kept - 1);
}

static json_t *layer_json(const struct bp_layer_name *name, bool network, const struct bp_layer_point *const *points,
                          size_t n, size_t max)
{
    size_t kept = n < max ? n : max;
    json_t *now = json_object(), *series = json_object(), *step = json_array(), *epoch = json_array();
    for (size_t i = 0; i < kept; i++) {
        const struct bp_layer_point *p = points[thinned(i, kept, n)];
        json_array_append_new(step, json_integer(p->step));
        json_array_append_new(epoch, json_integer(p->epoch));
    }
    json_object_set_new(series, "step", step);
    json_object_set_new(series, "epoch", epoch);
    for (int f = 0; f < BP_FIGURE_COUNT; f++) {
        if (!has_figure(points, n, f))
            continue;
        json_t *values = json_array();
        for (size_t i = 0; i < kept; i++)
            json_array_append_new(values, figure_json(points[thinned(i, kept, n)]->value[f]));
        json_object_set_new(series, bp_figure_name((enum bp_figure)f), values);
        json_object_set_new(now, bp_figure_name((enum bp_figure)f), figure_json(points[n - 1]->value[f]));
    }
    if (network)
        return json_pack("{ss ss so so}", "name", "network", "type", "network", "now", now, "series", series);
    return json_pack("{ss ss ss sb so so}", "name", name->name, "type", name->type, "activation", name->activation,
                     "hidden", (int)name->hidden, "now", now, "series", series);
}

static bool is_asked(const struct asked *a, int layer)
{
    const char *name = layer == 0 ? "network" : a->history.layers[layer].name;
    return !a->layer || !strcmp(a->layer, name);
}

/* Array of the layers asked for; NULL without memory. */
static json_t *layers_json(const struct asked *a)
{
    const struct bp_layer_history *h = &a->history;
    const struct bp_layer_point **points = malloc((h->n + 1) * sizeof(void *));
    json_t *layers = points ? json_array() : NULL;
    for (int l = 0; layers && l < h->nlayers; l++) {
        size_t n = 0;
        for (size_t i = 0; i < h->n; i++)
            if (h->points[i].layer == l)
                points[n++] = &h->points[i];
        if (n && is_asked(a, l))
            json_array_append_new(layers, layer_json(&h->layers[l], l == 0, points, n, a->max_points));
    }
    free(points);
    return layers;
}

static void no_such_layer(struct bp_reply *reply, const struct asked *a)
{
    json_t *allowed = json_array();
    for (int l = 0; l < a->history.nlayers; l++)
        json_array_append_new(allowed, json_string(l ? a->history.layers[l].name : "network"));
    bp_problem(reply, 404, "not_found", "there is no layer \"%.80s\" with figures in this job", a->layer);
    bp_problem_member(reply, "allowed", allowed);
}

void bp_api_layers(struct bp_request *request, struct bp_reply *reply, void *arg)
{
    struct bp_app *app = arg;
    struct bp_job_row row;
    struct bp_error err = {0};
    int64_t max_points;
    if (!bp_request_query_int(request, reply, "max_points", POINTS_DEFAULT, 2, POINTS_MAX, &max_points) ||
        !bp_api_job_row(app, request, reply, &row))
        return;
    struct asked a = {.job = row.id, .layer = bp_request_query(request, "layer"), .max_points = (size_t)max_points};
    bp_status status = bp_store_read(app->store, read_history, &a, &err);
    json_t *layers = status ? NULL : layers_json(&a);
    if (status) {
        bp_problem_error(reply, &err);
    } else if (a.layer && layers && !json_array_size(layers)) {
        no_such_layer(reply, &a);
        json_decref(layers);
    } else {
        const struct bp_layer_point *last = a.history.n ? &a.history.points[a.history.n - 1] : NULL;
        bp_reply_json(reply, 200,
                      json_pack("{ss ss sI sI so}", "object", "layers", "job", row.id, "step",
                                (json_int_t)(last ? last->step : 0), "epoch", (json_int_t)(last ? last->epoch : 0),
                                "layers", layers));
    }
    bp_layer_history_done(&a.history);
    bp_job_row_done(&row);
}
