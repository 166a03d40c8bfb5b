/* trace.c: POST /v1/trace: one training step laid open, layer by layer.
 *
 *   {"layers": [{"type": "dense", "units": 2, "activation": "sigmoid", "weights": [[…], […]], "biases": […]}, …],
 *    "loss": "mse", "optimizer": {"type": "sgd", "lr": 0.5}, "inputs": [[0.05, 0.10]], "targets": [[0.01, 0.99]]}
 *
 * Beside what makes a worked case (worked.h): `steps` (1): so many steps are made, and the last one is laid open;
 * `update_biases` (true): false leaves the biases alone, as some textbooks do. Computed in double, so the published
 * worked examples come out to their last digit.
 *
 * Threads: on a data thread.
 */
#include "api/api.h"
#include "api/trace_view.h"
#include "json_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBERS_MAX 200000 /* in the reply: some 4 MB of text; what is larger is not read number by number */
#define STEPS_MAX 1000000

/* --- what the reply is made of ------------------------------------------------------------------------------------------ */

struct bp_trace_layer bp_trace_layer_at(const struct bp_graph *graph, int at)
{
    const struct bp_node *node = &graph->nodes[at], *next = at + 1 < graph->nnodes ? node + 1 : NULL;
    struct bp_trace_layer layer = {.node = node, .z = node->ntensors > 0 ? at : -1, .a = -1, .last = at};
    char name[BP_NAME_MAX + 16];
    snprintf(name, sizeof name, "%s.activation", node->name);
    if (next && next->kind == BP_OP_ACTIVATION && next->input[0] == at && strcmp(next->name, name) == 0)
        layer.a = layer.last = at + 1;
    else if (layer.z < 0)
        layer.a = at;
    return layer;
}

void bp_trace_prediction(enum bp_loss loss, const double *x, int n, double *y)
{
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        max = x[i] > max ? x[i] : max;
    for (int i = 0; i < n; i++)
        sum += exp(x[i] - max);
    for (int i = 0; i < n; i++)
        y[i] = loss == BP_LOSS_CROSS_ENTROPY || loss == BP_LOSS_KL_DIV ? exp(x[i] - max) / sum
               : loss == BP_LOSS_BCE                                   ? 1 / (1 + exp(-x[i]))
                                                                       : x[i];
}

/* --- JSON --------------------------------------------------------------------------------------------------------------- */

/* Numbers nested by a shape; null for NULL. *at goes on. */
static json_t *nested(const double **at, const int64_t *dim, int rank)
{
    if (!*at)
        return json_null();
    if (rank == 0)
        return bp_json_number(*(*at)++);
    json_t *list = json_array();
    for (int64_t i = 0; i < dim[0]; i++)
        json_array_append_new(list, nested(at, dim + 1, rank - 1));
    return list;
}

static json_t *tensor_json(const double *values, const struct bp_shape *shape)
{
    return nested(&values, shape->dim, shape->rank);
}

/* Of (rows, shape): one entry a row. */
static json_t *rows_json(const double *values, int rows, const struct bp_shape *shape)
{
    int64_t dim[BP_RANK_MAX + 1] = {rows};
    memcpy(dim + 1, shape->dim, sizeof shape->dim);
    return nested(&values, dim, shape->rank + 1);
}

static json_t *shape_json(const struct bp_shape *shape)
{
    json_t *list = json_array();
    for (int i = 0; i < shape->rank; i++)
        json_array_append_new(list, json_integer(shape->dim[i]));
    return list;
}

static json_t *parameters_json(const struct bp_worked *w, const struct bp_trace *trace, const struct bp_node *node)
{
    json_t *out = json_object();
    for (int k = 0; k < node->ntensors; k++) {
        const struct bp_tensor *t = &w->graph->tensors[node->tensor[k]];
        if (t->statistic)
            continue;
        double *change = malloc((t->count + 1) * sizeof *change);
        for (size_t i = 0; change && i < t->count; i++)
            change[i] = trace->after[t->offset + i] - trace->before[t->offset + i];
        json_object_set_new(out, t->name,
                            json_pack("{s:o, s:o, s:o, s:o, s:o}", "shape", shape_json(&t->shape), "before",
                                      tensor_json(trace->before + t->offset, &t->shape), "gradient",
                                      tensor_json(trace->gradient + t->offset, &t->shape), "change",
                                      tensor_json(change, &t->shape), "after",
                                      tensor_json(trace->after + t->offset, &t->shape)));
        free(change);
    }
    return out;
}

static json_t *layer_json(const struct bp_worked *w, const struct bp_trace *trace, const struct bp_trace_layer *l)
{
    const struct bp_node *nodes = w->graph->nodes, *node = l->node;
    bool function = node->kind == BP_OP_ACTIVATION;
    json_t *inputs = json_array();
    for (int k = 0; k < node->ninputs; k++)
        json_array_append_new(inputs, json_string(nodes[node->input[k]].name));
    json_t *out = json_pack("{s:s, s:s, s:o, s:o}", "name", node->name, "type", bp_node_type(node), "inputs", inputs,
                            "shape", shape_json(&nodes[l->last].shape));
    if (function || l->a > 0)
        if (nodes[l->last].kind == BP_OP_ACTIVATION)
            json_object_set_new(out, "activation", json_string(bp_activation_name(nodes[l->last].u.activation.kind)));
    if (l->z > 0)
        json_object_set_new(out, "z", rows_json(trace->value[l->z], w->rows, &nodes[l->z].shape));
    if (l->a > 0) {
        json_object_set_new(out, "a", rows_json(trace->value[l->a], w->rows, &nodes[l->a].shape));
        json_object_set_new(out, "dL_da", rows_json(trace->delta[l->a], w->rows, &nodes[l->a].shape));
    }
    if (l->z > 0)
        json_object_set_new(out, "dL_dz", rows_json(trace->delta[l->z], w->rows, &nodes[l->z].shape));
    json_object_set_new(out, "parameters", parameters_json(w, trace, node));
    return out;
}

static json_t *layers_json(const struct bp_worked *w, const struct bp_trace *trace)
{
    json_t *list = json_array();
    for (int i = 1; i < w->graph->nnodes; i++) {
        struct bp_trace_layer layer = bp_trace_layer_at(w->graph, i);
        json_array_append_new(list, layer_json(w, trace, &layer));
        i = layer.last;
    }
    return list;
}

/* Predictions of (rows, outputs): new array of rows, or NULL. */
static json_t *predictions_json(const struct bp_worked *w, const struct bp_head *head, const double *x)
{
    json_t *list = json_array();
    double *y = malloc((size_t)head->outputs * sizeof *y);
    struct bp_shape shape = {.rank = 1, .dim = {head->outputs}};
    for (int r = 0; y && r < w->rows; r++, x += head->outputs) {
        bp_trace_prediction(head->loss, x, head->outputs, y);
        json_array_append_new(list, tensor_json(y, &shape));
    }
    free(y);
    return list;
}

static json_t *head_json(const struct bp_worked *w, const struct bp_trace *trace, int h)
{
    const struct bp_head *head = &w->graph->heads[h];
    struct bp_shape outputs = {.rank = 1, .dim = {head->outputs}}, none = {.rank = 0};
    json_t *target = json_array();
    for (int r = 0; w->target[h].label && r < w->rows; r++)
        json_array_append_new(target, json_integer(w->target[h].label[r]));
    if (!w->target[h].label) {
        json_decref(target);
        target = rows_json(w->target[h].value, w->rows, &outputs);
    }
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "loss", bp_loss_name(head->loss), "layer",
                     w->graph->nodes[head->node].name, "target", target, "prediction",
                     predictions_json(w, head, trace->value[head->node]), "row_losses",
                     rows_json(trace->row_loss[h], w->rows, &none), "prediction_after",
                     predictions_json(w, head, trace->output_after[h]));
}

static json_t *trace_json(const struct bp_worked *w, const struct bp_trace *trace,
                          const struct bp_trace_options *options)
{
    json_t *heads = json_array();
    for (int h = 0; h < w->graph->nheads; h++)
        json_array_append_new(heads, head_json(w, trace, h));
    return json_pack("{s:s, s:I, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:O, s:o, s:o, s:o, s:o, s:O}", "object",
                     "trace", "step", (json_int_t)options->steps, "rows", w->rows, "loss",
                     bp_json_number(trace->loss), "loss_after", bp_json_number(trace->loss_after), "penalty",
                     bp_json_number(trace->penalty), "penalty_after", bp_json_number(trace->penalty_after),
                     "gradient_norm", bp_json_number(trace->gradient_norm), "gradient_scale",
                     bp_json_number(trace->gradient_scale), "rate", bp_json_number(trace->rate), "optimizer",
                     json_object_get(w->spec, "optimizer"), "input",
                     rows_json(trace->value[0], w->rows, &w->graph->nodes[0].shape), "dL_dinput",
                     rows_json(trace->delta[0], w->rows, &w->graph->nodes[0].shape), "layers", layers_json(w, trace),
                     "outputs", heads, "warnings", w->warnings);
}

/* --- the handler ---------------------------------------------------------------------------------------------------------- */

/* Whether the network is small enough to be read number by number. */
static bool small_enough(struct bp_reply *reply, const struct bp_worked *w)
{
    int64_t numbers = 4 * (int64_t)w->graph->nparams;
    for (int i = 0; i < w->graph->nnodes; i++)
        numbers += 2 * w->rows * bp_shape_elements(&w->graph->nodes[i].shape);
    if (numbers <= NUMBERS_MAX)
        return true;
    bp_problem(reply, 413, "too_large",
               "the trace would have %lld numbers, at most %d are written out: use a smaller network or fewer rows; "
               "POST /v1/gradients has no such limit",
               (long long)numbers, NUMBERS_MAX);
    bp_problem_member(reply, "limit", json_integer(NUMBERS_MAX));
    return false;
}

static void run(struct bp_reply *reply, const struct bp_worked *w, struct bp_trace_options *options,
                struct bp_patience *patience, enum bp_render render)
{
    struct bp_trace *trace = NULL;
    struct bp_text text = {0};
    struct bp_error err;
    options->optimizer = w->config->optimizer;
    options->schedule = w->config->schedule;
    options->epochs = w->config->epochs;
    options->clip_grad_norm = w->config->clip_grad_norm;
    options->clip_grad_value = w->config->clip_grad_value;
    options->seed = w->config->seed;
    options->rows = w->rows;
    options->cancelled = bp_patience_over;
    options->ctx = patience;
    bp_status status = bp_trace_new(w->graph, options, w->params, w->stats, w->input, w->target, &trace, &err);
    if (status == BP_STOPPED) {
        bp_patience_problem(reply, patience, "ask for fewer steps, or submit a job");
    } else if (status) {
        bp_problem_error(reply, &err);
    } else if (render == BP_RENDER_TEXT) {
        bp_trace_text(&text, w, trace, options);
        bp_text_reply(&text, reply, "text/plain; charset=utf-8");
    } else {
        bp_reply_json(reply, 200, trace_json(w, trace, options));
    }
    bp_trace_free(trace);
}

void bp_api_trace(struct bp_request *request, struct bp_reply *reply, void *app)
{
    enum bp_render render;
    struct bp_trace_options options = {.steps = 1};
    struct bp_patience patience;
    bool biases;
    if (!bp_request_render(request, reply, 1 << BP_RENDER_JSON | 1 << BP_RENDER_TEXT, &render))
        return;
    json_t *body = bp_worked_body(request, reply);
    if (!body)
        return;
    struct bp_worked worked = {.app = app};
    bp_patience_start(&patience, request);
    if (bp_worked_int(reply, body, "steps", 1, 1, STEPS_MAX, &options.steps) &&
        bp_worked_bool(reply, body, "update_biases", true, &biases) &&
        bp_worked_make(reply, app, body, false, &worked) && small_enough(reply, &worked)) {
        options.freeze_biases = !biases;
        run(reply, &worked, &options, &patience, render);
    }
    bp_worked_done(&worked);
    json_decref(body);
}
