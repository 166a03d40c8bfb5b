/* trace.c: one training step laid open; see trace.h. Compiled with BP_DOUBLE.
 *
 * Two executions share one model: `exec` keeps everything of a whole pass, `look` computes the loss alone after the
 * update, in training mode too, so that dropout's mask is the same before and after.
 *
 * Threads: see trace.h.
 */
#include "train/trace.h"

#include "graph/exec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ASK_STEPS 64  /* steps between two questions whether to go on */
#define CLIP_EPS 1e-6 /* as the trainer has it: keeps the factor finite at norm 0 */

struct run {
    const struct bp_graph *graph;
    const struct bp_trace_options *options;
    struct bp_model *model;
    struct bp_exec *exec, *look;
    struct bp_trace *trace;
};

/* --- the result's memory -------------------------------------------------------------------------------------------- */

/* Takes n doubles from *at, or only counts them while the block is not there yet. */
static double *take(double *block, size_t *at, size_t n)
{
    double *result = block != NULL ? block + *at : NULL;
    *at += n;
    return result;
}

/* Gives every array its place in the block; returns how many doubles that takes. */
static size_t lay_out(const struct run *run, double *block)
{
    struct bp_trace *trace = run->trace;
    size_t at = 0, rows = (size_t)run->options->rows;
    for (int i = 0; i < run->graph->nnodes; i++) {
        size_t n = rows * (size_t)bp_shape_elements(&run->graph->nodes[i].shape);
        trace->value[i] = take(block, &at, n);
        trace->delta[i] = bp_exec_gradient(run->exec, i) != NULL ? take(block, &at, n) : NULL;
    }
    for (int h = 0; h < run->graph->nheads; h++) {
        trace->row_loss[h] = take(block, &at, rows);
        trace->output_after[h] = take(block, &at, rows * (size_t)run->graph->heads[h].outputs);
    }
    trace->before = take(block, &at, run->model->nparams);
    trace->gradient = take(block, &at, run->model->nparams);
    trace->after = take(block, &at, run->model->nparams);
    return at;
}

static bp_status make_result(struct run *run, struct bp_error *err)
{
    size_t nodes = (size_t)run->graph->nnodes, heads = (size_t)run->graph->nheads;
    struct bp_trace *trace = calloc(1, sizeof *trace + (2 * nodes + 2 * heads) * sizeof(double *));
    if (trace == NULL)
        return bp_fail(err, BP_NOMEM, "no memory for the trace");
    trace->nnodes = run->graph->nnodes;
    trace->nheads = run->graph->nheads;
    trace->value = (double **)(trace + 1);
    trace->delta = trace->value + nodes;
    trace->row_loss = trace->delta + nodes;
    trace->output_after = trace->row_loss + heads;
    run->trace = trace;
    /* The execution holds as much already, so the sum cannot overflow. */
    trace->block = calloc(lay_out(run, NULL) + 1, sizeof(double));
    if (trace->block == NULL)
        return bp_fail(err, BP_NOMEM, "no memory for the trace");
    lay_out(run, trace->block);
    return BP_OK;
}

void bp_trace_free(struct bp_trace *trace)
{
    if (trace == NULL)
        return;
    free(trace->block);
    free(trace);
}

/* --- the steps ------------------------------------------------------------------------------------------------------- */

static void load(const struct run *run, struct bp_exec *exec, const double *input,
                 const struct bp_trace_target *target)
{
    size_t rows = (size_t)run->options->rows;
    size_t elements = (size_t)bp_shape_elements(&run->graph->nodes[0].shape);
    memcpy(bp_exec_input(exec), input, rows * elements * sizeof *input);
    for (int h = 0; h < run->graph->nheads; h++) {
        const struct bp_targets *to = bp_exec_targets(exec, h);
        if (to->label != NULL)
            memcpy(to->label, target[h].label, rows * sizeof *to->label);
        if (to->value != NULL)
            memcpy(to->value, target[h].value, rows * (size_t)run->graph->heads[h].outputs * sizeof *to->value);
        if (target[h].weight != NULL)
            memcpy(to->weight, target[h].weight, rows * sizeof *to->weight);
        bp_exec_target_scale(exec, h, target[h].scale);
    }
}

/* Forward, loss and backward of step `step`: the first three of the four steps. */
static bp_status differentiate(struct run *run, uint64_t step, double *ret_loss, double *ret_norm,
                               struct bp_error *err)
{
    double loss = bp_exec_pass(run->exec, NULL, run->options->rows, true, run->options->seed, step);
    if (!isfinite(loss))
        return bp_fail_at(err, BP_NONFINITE, "loss", "the loss of step %llu is not a finite number",
                          (unsigned long long)step);
    double norm = sqrt(bp_optimizer_prepare(run->model, NULL));
    if (!isfinite(norm))
        return bp_fail_at(err, BP_NONFINITE, "gradient", "a gradient of step %llu is not a finite number",
                          (unsigned long long)step);
    *ret_loss = loss;
    *ret_norm = norm;
    return BP_OK;
}

/* The factor of clipping by the norm. */
static double clip(const struct run *run, double norm)
{
    double factor = run->options->clip_grad_norm > 0 ? run->options->clip_grad_norm / (norm + CLIP_EPS) : 1;
    return factor < 1 ? factor : 1;
}

static double rate(const struct run *run, uint64_t step)
{
    const struct bp_trace_options *o = run->options;
    struct bp_schedule_at at = {.epoch = (int64_t)step - 1,
                                .epochs = o->epochs > o->steps ? o->epochs : o->steps,
                                .step = (int64_t)step - 1,
                                .steps_per_epoch = 1};
    return bp_schedule_rate(&o->schedule, o->optimizer.lr, &at);
}

/* Whether a tensor is a bias: by its name, as all ops call theirs. */
static bool is_bias(const struct bp_tensor *tensor)
{
    const char *dot = strrchr(tensor->name, '.');
    return dot != NULL && strncmp(dot, ".bias", 5) == 0;
}

/* The fourth step. `before` are the parameters as they are: frozen biases go back to it. */
static void update(struct run *run, double scale, uint64_t step, const double *before)
{
    double limit = run->options->clip_grad_value;
    for (size_t i = 0; limit > 0 && i < run->model->nparams; i++)
        run->model->grads[i] = fmin(fmax(scale * run->model->grads[i], -limit), limit);
    bp_optimizer_step(&run->options->optimizer, run->model, NULL, rate(run, step), limit > 0 ? 1 : scale, step);
    for (int t = 0; run->options->freeze_biases && t < run->graph->ntensors; t++) {
        const struct bp_tensor *tensor = &run->graph->tensors[t];
        if (!tensor->statistic && is_bias(tensor))
            memcpy(run->model->params + tensor->offset, before + tensor->offset, tensor->count * sizeof *before);
    }
    bp_model_pack(run->model, NULL);
}

/* Steps 1 to steps - 1, of which nothing is kept but the parameters. */
static bp_status catch_up(struct run *run, struct bp_error *err)
{
    const struct bp_trace_options *o = run->options;
    for (int64_t step = 1; step < o->steps; step++) {
        double loss, norm;
        if (o->cancelled != NULL && step % ASK_STEPS == 0 && o->cancelled(o->ctx))
            return bp_fail(err, BP_STOPPED, "stopped at step %lld of %lld", (long long)step, (long long)o->steps);
        bp_status status = differentiate(run, (uint64_t)step, &loss, &norm, err);
        if (status != BP_OK)
            return status;
        memcpy(run->trace->before, run->model->params, run->model->nparams * sizeof *run->trace->before);
        update(run, clip(run, norm), (uint64_t)step, run->trace->before);
    }
    return BP_OK;
}

static void keep(struct run *run)
{
    struct bp_trace *trace = run->trace;
    size_t rows = (size_t)run->options->rows;
    for (int i = 0; i < run->graph->nnodes; i++) {
        size_t n = rows * (size_t)bp_shape_elements(&run->graph->nodes[i].shape) * sizeof(double);
        memcpy(trace->value[i], bp_exec_value(run->exec, i), n);
        if (trace->delta[i] != NULL)
            memcpy(trace->delta[i], bp_exec_gradient(run->exec, i), n);
    }
    for (int h = 0; h < run->graph->nheads; h++)
        memcpy(trace->row_loss[h], bp_exec_row_losses(run->exec, h), rows * sizeof(double));
}

static bp_status last_step(struct run *run, struct bp_error *err)
{
    struct bp_trace *trace = run->trace;
    const struct bp_trace_options *o = run->options;
    size_t bytes = run->model->nparams * sizeof(double);
    uint64_t step = (uint64_t)o->steps;

    memcpy(trace->before, run->model->params, bytes);
    trace->penalty = bp_optimizer_penalty(run->model);
    bp_status status = differentiate(run, step, &trace->loss, &trace->gradient_norm, err);
    if (status != BP_OK)
        return status;
    keep(run);
    memcpy(trace->gradient, run->model->grads, bytes);
    trace->gradient_scale = clip(run, trace->gradient_norm);
    trace->rate = rate(run, step);
    update(run, trace->gradient_scale, step, trace->before);
    memcpy(trace->after, run->model->params, bytes);
    trace->penalty_after = bp_optimizer_penalty(run->model);
    trace->loss_after = bp_exec_pass(run->look, NULL, o->rows, true, o->seed, step);
    for (int h = 0; h < run->graph->nheads; h++)
        memcpy(trace->output_after[h], bp_exec_output(run->look, h),
               (size_t)o->rows * (size_t)run->graph->heads[h].outputs * sizeof(double));
    return isfinite(trace->loss_after)
               ? BP_OK
               : bp_fail_at(err, BP_NONFINITE, "loss", "the loss after the update is not a finite number");
}

static bp_status prepare(struct run *run, const double *params, const double *stats, struct bp_error *err)
{
    struct bp_exec_options options = {.capacity = run->options->rows, .keep_all = true, .threads = 1};
    int slots = bp_optimizer_slots(&run->options->optimizer);
    bp_status status = bp_model_new(run->graph, true, slots, &run->model, err);
    if (status == BP_OK)
        status = bp_exec_new(run->model, &options, &run->look, err);
    options.training = options.input_gradient = true;
    if (status == BP_OK)
        status = bp_exec_new(run->model, &options, &run->exec, err);
    if (status == BP_OK)
        status = make_result(run, err);
    if (status != BP_OK)
        return status;
    memcpy(run->model->params, params, run->model->nparams * sizeof *params);
    memcpy(run->model->stats, stats, run->model->nstats * sizeof *stats);
    bp_model_pack(run->model, NULL);
    return BP_OK;
}

bp_status bp_trace_new(const struct bp_graph *graph, const struct bp_trace_options *options, const double *params,
                       const double *stats, const double *input, const struct bp_trace_target *target,
                       struct bp_trace **ret, struct bp_error *err)
{
    struct run run = {.graph = graph, .options = options};
    if (options->rows < 1 || options->steps < 1)
        return bp_fail(err, BP_INVALID, "a trace takes at least one row and one step");
    if (options->schedule.kind == BP_SCHEDULE_PLATEAU)
        return bp_fail(err, BP_INVALID, "the schedule plateau follows results of epochs, which a trace has not");
    bp_status status = prepare(&run, params, stats, err);
    if (status == BP_OK) {
        load(&run, run.exec, input, target);
        load(&run, run.look, input, target);
        status = catch_up(&run, err);
    }
    if (status == BP_OK)
        status = last_step(&run, err);
    bp_exec_free(run.exec);
    bp_exec_free(run.look);
    bp_model_free(run.model);
    if (status != BP_OK) {
        bp_trace_free(run.trace);
        return status;
    }
    *ret = run.trace;
    return BP_OK;
}
