/* plan_report.c: a plan in words: its layers with shapes and parameters, and what training it will take.
 *
 * Time is a rough guess, and says on what it rests.
 *
 * Threads: pure functions of their arguments.
 */
#include "jobs/spec_internal.h"

#include "base/memory.h"
#include "jobs/predictor.h"
#include "train/scores.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the guess of the time rests on: a small network is held up by the overhead of a step, a large one computes. */
#define ASSUMED_FLOPS 2e10 /* per second and thread */
#define ASSUMED_STEP 1e-5  /* seconds of overhead a step */

static json_t *shape_json(const struct bp_shape *shape)
{
    json_t *out = json_array();
    for (int i = 0; i < shape->rank; i++)
        json_array_append_new(out, json_integer(shape->dim[i]));
    return out;
}

static int64_t node_parameters(const struct bp_graph *graph, const struct bp_node *node)
{
    int64_t sum = 0;
    for (int t = 0; t < node->ntensors; t++)
        if (!graph->tensors[node->tensor[t]].statistic)
            sum += (int64_t)graph->tensors[node->tensor[t]].count;
    return sum;
}

/* Whether a node is the activation of the layer before it ("name.activation"): no layer of its own for a user. */
static bool is_part_of(const struct bp_node *node, const struct bp_node *before)
{
    size_t n = strlen(before->name);
    return strncmp(node->name, before->name, n) == 0 && strcmp(node->name + n, ".activation") == 0;
}

static json_t *layer_json(const struct bp_graph *graph, int index)
{
    const struct bp_node *node = &graph->nodes[index];
    const struct bp_node *next = index + 1 < graph->nnodes ? &graph->nodes[index + 1] : NULL;
    const struct bp_node *function = node->kind == BP_OP_ACTIVATION   ? node
                                     : next && is_part_of(next, node) ? next
                                                                      : NULL;
    json_t *out = json_object();
    json_object_set_new(out, "name", json_string(node->name));
    json_object_set_new(out, "type", json_string(bp_node_type(node)));
    if (function || node->kind == BP_OP_DENSE || node->kind == BP_OP_CONV)
        json_object_set_new(out, "activation",
                            json_string(bp_activation_name(function ? function->u.activation.kind : BP_LINEAR)));
    json_object_set_new(out, "output_shape", shape_json(&node->shape));
    json_object_set_new(out, "parameters", json_integer(node_parameters(graph, node)));
    return out;
}

json_t *bp_plan_model_json(const struct bp_plan *plan)
{
    const struct bp_graph *graph = plan->graph;
    json_t *out = json_object(), *layers = json_array();
    json_object_set_new(out, "parameters", json_integer(plan->parameters));
    json_object_set_new(out, "input_shape", shape_json(&graph->nodes[0].shape));
    json_object_set_new(out, "layers", json_incref(layers));
    for (int i = 1; i < graph->nnodes; i++)
        if (!is_part_of(&graph->nodes[i], &graph->nodes[i - 1]))
            json_array_append_new(layers, layer_json(graph, i));
    json_decref(layers);
    return out;
}

bp_status bp_plan_bytes(const struct bp_plan *plan, const struct bp_split *split, size_t *ret)
{
    size_t sum, model = 0, exec = 0;
    bp_status status = bp_trainer_estimate(&plan->config, plan->graph, split->count[BP_TRAIN], &sum);
    if (!status && split->count[BP_TEST]) {
        struct bp_exec_options options = {.capacity = bp_predict_batch(plan->graph), .threads = 1};
        status = bp_model_estimate(plan->graph, false, 0, &model);
        if (!status)
            status = bp_exec_estimate(plan->graph, &options, &exec);
        for (int h = 0; !status && h < plan->graph->nheads; h++)
            exec += bp_scores_estimate(&plan->graph->heads[h], plan->config.metrics, true);
        if (!status && (!bp_size_add(sum, model, &sum) || !bp_size_add(sum, exec, &sum)))
            status = BP_LIMIT;
    }
    if (!status)
        *ret = sum;
    return status;
}

/* Seconds of training, of validation after each epoch, and of the test at the end, which runs on one thread. */
static double guess_seconds(const struct bp_plan *plan, const struct bp_split *split, double steps)
{
    const struct bp_train_config *config = &plan->config;
    double step = (double)bp_graph_flops(plan->graph, true), pass = (double)bp_graph_flops(plan->graph, false);
    double epoch = (double)split->count[BP_TRAIN] * step + (double)split->count[BP_VALIDATION] * pass;
    return epoch * (double)config->epochs / (ASSUMED_FLOPS * config->threads) + steps * ASSUMED_STEP +
           (double)split->count[BP_TEST] * pass / ASSUMED_FLOPS;
}

json_t *bp_plan_estimate_json(const struct bp_plan *plan, const struct bp_split *split)
{
    const struct bp_train_config *config = &plan->config;
    uint64_t train_rows = split->count[BP_TRAIN];
    uint64_t batch = config->batch_size < 1 ? 1 : (uint64_t)config->batch_size;
    batch *= config->accumulate < 1 ? 1 : (uint64_t)config->accumulate;
    double steps_per_epoch = (double)((train_rows + batch - 1) / batch);
    double steps = steps_per_epoch * (double)config->epochs, seconds = guess_seconds(plan, split, steps);
    size_t bytes;
    char basis[160];
    json_t *out = json_object();
    bool known = bp_plan_bytes(plan, split, &bytes) == BP_OK;
    json_object_set_new(out, "bytes", known ? json_integer((json_int_t)bytes) : json_null());
    json_object_set_new(out, "train_rows", json_integer((json_int_t)train_rows));
    json_object_set_new(out, "flops_per_sample", json_integer((json_int_t)bp_graph_flops(plan->graph, true)));
    json_object_set_new(out, "flops_per_prediction", json_integer((json_int_t)bp_graph_flops(plan->graph, false)));
    json_object_set_new(out, "steps_per_epoch", json_integer((json_int_t)steps_per_epoch));
    json_object_set_new(out, "steps", steps < 9e18 ? json_integer((json_int_t)steps) : json_real(steps));
    snprintf(basis, sizeof basis, "%.2g", seconds); /* a guess has no more digits than that */
    json_object_set_new(out, "seconds", json_real(strtod(basis, NULL)));
    snprintf(basis, sizeof basis, "a rough guess: %g GFLOP/s a thread, %d thread%s, %g us a step besides",
             ASSUMED_FLOPS / 1e9, config->threads, config->threads == 1 ? "" : "s", ASSUMED_STEP * 1e6);
    json_object_set_new(out, "seconds_basis", json_string(basis));
    return out;
}
