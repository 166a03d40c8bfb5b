/* gradients.c: gradients by themselves: POST /v1/gradients and POST /v1/gradient_check.
 *
 * /v1/gradients runs a worked case (worked.h) forward and backward in training mode, as a step of a job does, and hands
 * out dL/dparameter by the name of the parameter, as safetensors (or ?format=npz, json), without an update.
 *
 * /v1/gradient_check proves them: a spec's analytic gradients against numerical differentiation, in double, on random
 * parameters and rows of its shapes. Its own members: `rows` (4), `max_elements` of each tensor (200; 0 for all). The
 * spec comes with a dataset, with rows, or with "input_shape" and "outputs" (or "classes"); a job will do too.
 *
 * Threads: on a data thread; the arithmetic runs on it alone.
 */
#include "api/api.h"
#include "api/worked.h"
#include "config.h"
#include "export/weights.h"
#include "graph/exec.h"
#include "json_text.h"
#include "train/gradcheck.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- /v1/gradients -------------------------------------------------------------------------------------------------------- */

#define FLOPS_MAX 5e11 /* of the pass: some seconds of one thread */

struct gradients {
    struct bp_model *model;
    struct bp_exec *exec;
    double loss;
};

static void narrow(float *to, const double *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (float)from[i];
}

static void load(const struct bp_worked *w, struct bp_exec *exec)
{
    size_t rows = (size_t)w->rows;
    narrow(bp_exec_input(exec), w->input, rows * (size_t)bp_shape_elements(&w->graph->nodes[0].shape));
    for (int h = 0; h < w->graph->nheads; h++) {
        const struct bp_targets *to = bp_exec_targets(exec, h);
        if (to->label)
            memcpy(to->label, w->target[h].label, rows * sizeof *to->label);
        if (to->value)
            narrow(to->value, w->target[h].value, rows * (size_t)w->graph->heads[h].outputs);
        if (w->target[h].weight)
            memcpy(to->weight, w->target[h].weight, rows * sizeof *to->weight);
        bp_exec_target_scale(exec, h, w->target[h].scale);
    }
}

/* Whether the pass, which nothing can stop, ends soon and finds room: a job's batch may be much smaller than these rows. */
static bp_status within_limits(const struct bp_worked *w, const struct bp_exec_options *options, struct bp_error *err)
{
    double flops = (double)bp_graph_flops(w->graph, true) * w->rows;
    int64_t memory = w->app->config->memory;
    size_t bytes;
    bp_status status = bp_exec_estimate(w->graph, options, &bytes);
    if (flops > FLOPS_MAX)
        return bp_fail(err, BP_LIMIT, "%d rows take %.3g operations, one call at most %g: use fewer rows", w->rows,
                       flops, FLOPS_MAX);
    if (status || bytes > (size_t)memory)
        return bp_fail(err, BP_LIMIT, "%d rows take more than the %lld bytes of --memory: use fewer rows", w->rows,
                       (long long)memory);
    return BP_OK;
}

static bp_status differentiate(const struct bp_worked *w, struct gradients *g, struct bp_error *err)
{
    struct bp_exec_options options = {.capacity = w->rows, .training = true, .threads = 1};
    bp_status status = within_limits(w, &options, err);
    if (!status)
        status = bp_model_new(w->graph, true, 0, &g->model, err);
    if (!status)
        status = bp_exec_new(g->model, &options, &g->exec, err);
    if (status)
        return status;
    narrow(g->model->params, w->params, g->model->nparams);
    narrow(g->model->stats, w->stats, g->model->nstats);
    bp_model_pack(g->model, NULL);
    load(w, g->exec);
    g->loss = bp_exec_pass(g->exec, NULL, w->rows, true, w->config->seed, 1);
    if (!isfinite(g->loss))
        return bp_fail(err, BP_NONFINITE, "the loss on these rows is not a finite number");
    for (size_t i = 0; i < g->model->nparams; i++)
        if (!isfinite(g->model->grads[i]))
            return bp_fail(err, BP_NONFINITE, "a gradient on these rows is not a finite number");
    return BP_OK;
}

/* bp_weights_read over the gradients. x86-64 and aarch64 keep floats as the formats do. */
static bp_status read_gradients(void *ctx, uint64_t offset, uint8_t *buffer, size_t n, struct bp_error *err)
{
    (void)err;
    memcpy(buffer, (const uint8_t *)ctx + offset, n);
    return BP_OK;
}

static json_t *metadata(const struct bp_worked *w, double loss)
{
    char number[BP_NUMBER_TEXT], rows[16];
    snprintf(rows, sizeof rows, "%d", w->rows);
    json_t *out = json_pack("{s:s, s:s, s:s, s:s}", "format", "pt", "what", "gradients of the mean loss", "loss",
                            bp_number_text(loss, number), "rows", rows);
    if (out && w->choice.row.id[0])
        json_object_set_new(out, "job", json_string(w->choice.row.id));
    return out;
}

/* The file of all gradients: frozen tensors and running statistics have none. */
static bp_status make_file(const struct bp_worked *w, const struct gradients *g,
                           const struct bp_export_format *format, struct bp_layout **ret, struct bp_error *err)
{
    struct bp_graph trained = *w->graph; /* the same network, seen without what has no gradient */
    json_t *about = metadata(w, g->loss);
    trained.tensors = calloc((size_t)w->graph->ntensors + 1, sizeof *trained.tensors);
    trained.ntensors = 0;
    bp_status status = BP_NOMEM;
    if (about && trained.tensors) {
        for (int t = 0; t < w->graph->ntensors; t++)
            if (!w->graph->tensors[t].statistic && w->graph->tensors[t].trainable)
                trained.tensors[trained.ntensors++] = w->graph->tensors[t];
        struct bp_weights weights = {&trained, read_gradients, g->model->grads, about};
        status = format->make(&weights, ret, err);
    } else {
        bp_fail(err, BP_NOMEM, "no memory for the gradients");
    }
    free(trained.tensors);
    json_decref(about);
    return status;
}

static void reply_file(struct bp_reply *reply, const struct bp_worked *w, const struct gradients *g,
                       const struct bp_export_format *format)
{
    struct bp_layout *layout = NULL;
    struct bp_error err;
    size_t n = 0;
    bp_status status = make_file(w, g, format, &layout, &err);
    size_t size = status ? 0 : (size_t)bp_layout_size(layout);
    uint8_t *bytes = malloc(size + 1);
    if (!status && !bytes)
        status = bp_fail(&err, BP_NOMEM, "no memory for the gradients");
    for (size_t at = 0; !status && at < size; at += n)
        status = bp_layout_read(layout, (int64_t)at, bytes + at, size - at, &n, &err);
    bp_layout_free(layout);
    if (status) {
        free(bytes);
        bp_problem_error(reply, &err);
        return;
    }
    bp_reply_header(reply, "Content-Disposition", "attachment; filename=\"gradients.%s\"", format->suffix);
    bp_reply_bytes(reply, 200, format->content_type, (char *)bytes, size);
}

void bp_api_gradients(struct bp_request *request, struct bp_reply *reply, void *app)
{
    const char *name = bp_request_query(request, "format");
    const struct bp_export_format *format = bp_export_find(name ? name : "safetensors");
    struct gradients g = {.model = NULL};
    struct bp_error err;
    if (!format) {
        bp_problem(reply, 400, "invalid_query", "there is no format %.40s", name);
        bp_problem_member(reply, "allowed", bp_export_names());
        return;
    }
    json_t *body = bp_worked_body(request, reply);
    if (!body)
        return;
    struct bp_worked worked = {.app = app};
    if (bp_worked_make(reply, app, body, false, &worked)) {
        if (differentiate(&worked, &g, &err))
            bp_problem_error(reply, &err);
        else
            reply_file(reply, &worked, &g, format);
    }
    bp_exec_free(g.exec);
    bp_model_free(g.model);
    bp_worked_done(&worked);
    json_decref(body);
}

/* --- /v1/gradient_check --------------------------------------------------------------------------------------------------- */

#define CHECK_LIMIT 1e-6    /* relative error of a gradient that passes */
#define CHECK_ROWS_MAX 256  /* it is about a formula, not about data */
#define CHECK_ELEMENTS 200  /* of each tensor, by default */
#define CHECK_FLOPS_MAX 2e8 /* of one pass: a difference quotient takes some 10 to 30 of them, in plain double code */

static json_t *tensor_entry(const struct bp_gradcheck_tensor *t, int64_t elements)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:o, s:I, s:o, s:o}", "name", t->name, "elements", (json_int_t)elements,
                     "checked", (json_int_t)t->checked, "kinks", (json_int_t)t->kinks, "worst",
                     bp_json_number(t->worst), "element", (json_int_t)t->element, "analytic",
                     bp_json_number(t->analytic), "numeric", bp_json_number(t->numeric));
}

static int64_t elements_of(const struct bp_graph *graph, const struct bp_gradcheck_tensor *entry, int rows)
{
    for (int t = 0; t < graph->ntensors; t++)
        if (strcmp(graph->tensors[t].name, entry->name) == 0)
            return (int64_t)graph->tensors[t].count;
    return rows * bp_shape_elements(&graph->nodes[0].shape);
}

static void reply_check(struct bp_reply *reply, const struct bp_worked *w, const struct bp_gradcheck_tensor *tensors,
                        int n, int rows, double backward, double numeric)
{
    int64_t checked = 0, kinks = 0, all = 0;
    double worst = 0;
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        int64_t elements = elements_of(w->graph, &tensors[i], rows);
        json_array_append_new(list, tensor_entry(&tensors[i], elements));
        checked += tensors[i].checked;
        kinks += tensors[i].kinks;
        all += elements;
        if (!(tensors[i].worst <= worst)) /* a NaN is the worst */
            worst = tensors[i].worst;
    }
    double times = numeric / backward, share = (double)(checked + kinks) / (double)(all > 0 ? all : 1);
    bp_reply_json(reply, 200,
                  json_pack("{s:s, s:b, s:f, s:o, s:I, s:I, s:I, s:i, s:o, s:o, s:o, s:o, s:o, s:O}", "object",
                            "gradient_check", "pass", worst <= CHECK_LIMIT && checked > 0, "limit", CHECK_LIMIT,
                            "worst", bp_json_number(worst), "elements", (json_int_t)all, "checked",
                            (json_int_t)checked, "kinks", (json_int_t)kinks, "rows", rows, "seconds_backward",
                            bp_json_number(backward), "seconds_numeric", bp_json_number(numeric), "times_as_long",
                            bp_json_number(times), "times_as_long_for_all",
                            bp_json_number(share > 0 ? times / share : 0), "tensors", list, "warnings", w->warnings));
}

static void check(struct bp_reply *reply, const struct bp_worked *w, struct bp_gradcheck_options *options,
                  struct bp_patience *patience)
{
    struct bp_error err;
    double backward, numeric, flops = (double)bp_graph_flops(w->graph, true) * options->rows;
    int capacity = w->graph->ntensors + 1, n = 0;
    if (flops > CHECK_FLOPS_MAX) {
        bp_problem(reply, 422, "limit_exceeded",
                   "one pass of this network on %d rows takes %.3g operations, a check takes at most %g: use fewer "
                   "rows, or smaller layers of the same kinds",
                   options->rows, flops, CHECK_FLOPS_MAX);
        bp_problem_member(reply, "limit", json_real(CHECK_FLOPS_MAX));
        return;
    }
    struct bp_gradcheck_tensor *tensors = calloc((size_t)capacity, sizeof *tensors);
    bp_status status = tensors ? bp_gradcheck(w->graph, options, tensors, capacity, &n, &backward, &numeric, &err)
                               : bp_fail(&err, BP_NOMEM, "no memory for the gradient check");
    if (status == BP_STOPPED)
        bp_patience_problem(reply, patience, "use a smaller max_elements, fewer rows or smaller layers");
    else if (status)
        bp_problem_error(reply, &err);
    else
        reply_check(reply, w, tensors, n, options->rows, backward, numeric);
    free(tensors);
}

void bp_api_gradient_check(struct bp_request *request, struct bp_reply *reply, void *app)
{
    struct bp_patience patience;
    int64_t rows, elements;
    json_t *body = bp_worked_body(request, reply);
    if (!body)
        return;
    struct bp_worked worked = {.app = app};
    bp_patience_start(&patience, request);
    if (bp_worked_int(reply, body, "rows", 4, 1, CHECK_ROWS_MAX, &rows) &&
        bp_worked_int(reply, body, "max_elements", CHECK_ELEMENTS, 0, INT32_MAX, &elements) &&
        bp_worked_make(reply, app, body, true, &worked)) {
        struct bp_gradcheck_options options = {.seed = worked.config->seed,
                                               .rows = (int)rows,
                                               .max_elements = elements,
                                               .cancelled = bp_patience_over,
                                               .ctx = &patience};
        check(reply, &worked, &options, &patience);
    }
    bp_worked_done(&worked);
    json_decref(body);
}
