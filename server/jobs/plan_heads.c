/* plan_heads.c: the ends of the network: outputs and losses, from a resolved spec.
 *
 * A single head ends the list of layers. Several heads share it: each gets a dense layer of its own, "output_1" and so
 * on, that reads the last layer.
 *
 * Threads: pure functions of their arguments.
 */
#include "jobs/spec_internal.h"

#include <stdio.h>
#include <string.h>

/* The output layer of one of several heads. */
static bp_status add_output(struct bp_graph *graph, int index, int units, int from, int *ret, struct bp_error *err)
{
    struct bp_node node = {.kind = BP_OP_DENSE,
                           .ninputs = 1,
                           .input = {from},
                           .trainable = true,
                           .u.dense = {.units = units,
                                       .use_bias = true,
                                       .kernel_init = {.kind = BP_INIT_KAIMING_UNIFORM},
                                       .bias_init = {.kind = BP_INIT_KAIMING_UNIFORM}}};
    snprintf(node.name, sizeof node.name, "output_%d", index + 1);
    return bp_graph_add(graph, &node, ret, err);
}

static bp_status add_head(struct bp_graph *graph, const struct spec_heads *heads, int index,
                          const struct bp_transform_target *target, int from, struct bp_error *err)
{
    const struct spec_head *h = &heads->head[index];
    struct bp_head head = {
        .node = from, .loss = spec_head_loss(h->loss, target), .weight = h->weight, .parameter = h->parameter};
    int wanted = spec_head_outputs(h->loss, target);
    bp_status status = heads->several ? add_output(graph, index, wanted, from, &head.node, err) : BP_OK;
    if (status)
        return status;
    snprintf(head.label, sizeof head.label, "%s", h->label);
    status = bp_graph_add_output(graph, &head, err);
    if (!status && graph->heads[index].outputs != wanted)
        status = bp_fail(err, BP_INVALID, "the network ends with %d outputs, but the target needs %d",
                         graph->heads[index].outputs, wanted);
    return status;
}

bp_status spec_add_heads(struct bp_graph *graph, const json_t *resolved, const struct bp_transform *transform,
                         int last, struct bp_error *err)
{
    struct spec_heads heads;
    bp_status status = spec_heads_read(resolved, NULL, &heads, err);
    if (status)
        return status;
    if (heads.n != bp_transform_targets(transform))
        status =
            bp_fail(err, BP_INVALID, "there are %d losses and %d targets", heads.n, bp_transform_targets(transform));
    for (int i = 0; i < heads.n && !status; i++)
        status = add_head(graph, &heads, i, bp_transform_target(transform, i), last, err);
    spec_heads_done(&heads);
    return status;
}

bp_status spec_plan_transform(const json_t *resolved, const struct bp_table *table, struct bp_problems *problems,
                              struct bp_transform **ret, struct bp_error *err)
{
    struct spec_heads heads;
    bp_status status = spec_heads_read(resolved, table, &heads, err);
    if (status)
        return status;
    status = bp_transform_plan_heads(table, json_object_get(resolved, "dataset"), heads.wants, heads.n, problems, ret,
                                     err);
    spec_heads_done(&heads);
    return status;
}

bp_status spec_read_metrics(const json_t *resolved, struct bp_train_config *config, struct bp_error *err)
{
    json_t *value;
    size_t i;
    json_array_foreach(json_object_get(resolved, "metrics"), i, value) {
        const char *name = spec_kind(value, "type");
        enum bp_metric m = spec_metric(name);
        if (strcmp(name, "confusion") == 0)
            continue; /* not a series: evaluations have it */
        if (m == BP_METRIC_COUNT)
            return bp_fail(err, BP_INVALID, "there is no metric \"%.40s\"", name);
        config->metrics |= 1u << m;
        if (m == BP_METRIC_TOP_K)
            config->top_k = (int)json_integer_value(json_object_get(value, "k"));
    }
    const json_t *early = json_object_get(json_object_get(resolved, "training"), "early_stopping");
    const char *monitor = json_string_value(json_object_get(early, "monitor"));
    if (!spec_monitor_read(resolved, monitor ? monitor : "loss", &config->monitor))
        return bp_fail(err, BP_INVALID, "there is no metric \"%.40s\" to monitor", monitor);
    return BP_OK;
}
