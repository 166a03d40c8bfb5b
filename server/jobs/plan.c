/* plan.c: from a resolved spec to the engine's configuration.
 *
 * Every value is taken from the spec as it stands: a resolved spec has no defaults left to add, so what the echo says
 * is what is run. A layer with weights and an activation becomes two nodes, "name" and "name.activation" (no layer of a
 * user's can have a dot in its name).
 *
 * Threads: pure functions of their arguments.
 */
#include "jobs/spec_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double real(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static int64_t integer(const json_t *object, const char *key)
{
    return (int64_t)json_integer_value(json_object_get(object, key));
}

static bool truth(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

/* --- names to the engine's ---------------------------------------------------------------------------------------- */
static bp_status read_activation(const json_t *value, struct bp_activation_config *ret, struct bp_error *err)
{
    const char *name = spec_kind(value, "type");
    int i = 0;
    while (i < BP_ACTIVATION_COUNT && strcmp(bp_activation_name((enum bp_activation)i), name) != 0)
        i++;
    if (i == BP_ACTIVATION_COUNT)
        return bp_fail(err, BP_INVALID, "there is no activation \"%.40s\"", name);
    ret->kind = (enum bp_activation)i;
    ret->alpha = i == BP_LEAKY_RELU ? real(value, "negative_slope") : i == BP_ELU ? real(value, "alpha") : 0.0;
    return BP_OK;
}

static bp_status read_initializer(const json_t *value, struct bp_initializer *ret, struct bp_error *err)
{
    /* The members that are the engine's a and b. */
    static const char *const members[BP_INIT_COUNT][2] = {[BP_INIT_CONSTANT] = {"value"},
                                                          [BP_INIT_UNIFORM] = {"low", "high"},
                                                          [BP_INIT_NORMAL] = {"mean", "std"},
                                                          [BP_INIT_TRUNCATED_NORMAL] = {"mean", "std"},
                                                          [BP_INIT_ORTHOGONAL] = {"gain"}};
    const char *name = spec_kind(value, "type");
    int i = 0;
    while (i < BP_INIT_COUNT && strcmp(bp_init_name((enum bp_init_kind)i), name) != 0)
        i++;
    if (i == BP_INIT_COUNT)
        return bp_fail(err, BP_INVALID, "there is no initializer \"%.40s\"", name);
    ret->kind = (enum bp_init_kind)i;
    ret->a = members[i][0] ? real(value, members[i][0]) : 0.0;
    ret->b = members[i][1] ? real(value, members[i][1]) : 0.0;
    return BP_OK;
}

/* --- the graph ---------------------------------------------------------------------------------------------------- */
typedef bp_status read_layer(const json_t *layer, struct bp_node *node, struct bp_error *err);

static bp_status read_dense(const json_t *layer, struct bp_node *node, struct bp_error *err)
{
    struct bp_dense_config *d = &node->u.dense;
    d->units = integer(layer, "units");
    d->use_bias = truth(layer, "use_bias");
    d->l1 = real(layer, "l1");
    d->l2 = real(layer, "l2");
    bp_status status = read_initializer(json_object_get(layer, "kernel_initializer"), &d->kernel_init, err);
    return status ? status : read_initializer(json_object_get(layer, "bias_initializer"), &d->bias_init, err);
}

static bp_status read_recurrent(const json_t *layer, struct bp_node *node, struct bp_error *err)
{
    struct bp_recurrent_config *r = &node->u.recurrent;
    struct bp_activation_config function = {.kind = BP_TANH};
    const json_t *activation = json_object_get(layer, "activation");
    r->units = integer(layer, "units");
    r->return_sequences = truth(layer, "return_sequences");
    r->reverse = truth(layer, "reverse");
    r->use_bias = truth(layer, "use_bias");
    bp_status status = activation ? read_activation(activation, &function, err) : BP_OK;
    r->activation = function.kind;
    if (!status)
        status = read_initializer(json_object_get(layer, "kernel_initializer"), &r->kernel_init, err);
    if (!status)
        status = read_initializer(json_object_get(layer, "recurrent_initializer"), &r->recurrent_init, err);
    return status ? status : read_initializer(json_object_get(layer, "bias_initializer"), &r->bias_init, err);
}

/* Both axes of an extent: a number for all, or a list; a word or null leaves them alone. */
static void read_extent(const json_t *value, int64_t *ret)
{
    for (size_t i = 0; i < 2; i++)
        if (json_is_array(value))
            ret[i] = json_integer_value(json_array_get(value, i));
        else if (json_is_integer(value))
            ret[i] = json_integer_value(value);
}

/* conv1d, conv2d, depthwise_conv2d */
static bp_status read_conv(const json_t *layer, struct bp_node *node, struct bp_error *err)
{
    struct bp_conv_config *c = &node->u.conv;
    const json_t *padding = json_object_get(layer, "padding");
    c->axes = strcmp(spec_kind(layer, "type"), "conv1d") == 0 ? 1 : 2;
    c->filters = integer(layer, "filters");
    c->multiplier = integer(layer, "depth_multiplier");
    c->groups = integer(layer, "groups");
    read_extent(json_object_get(layer, "kernel_size"), c->kernel);
    read_extent(json_object_get(layer, "strides"), c->stride);
    read_extent(json_object_get(layer, "dilation"), c->dilation);
    read_extent(padding, c->padding);
    c->same = strcmp(spec_kind(padding, ""), "same") == 0;
    c->use_bias = truth(layer, "use_bias");
    c->l1 = real(layer, "l1");
    c->l2 = real(layer, "l2");
    bp_status status = read_initializer(json_object_get(layer, "kernel_initializer"), &c->kernel_init, err);
    return status ? status : read_initializer(json_object_get(layer, "bias_initializer"), &c->bias_init, err);
}

/* max_pool2d, avg_pool2d, global_avg_pool2d */
static bp_status read_pool(const json_t *layer, struct bp_node *node, struct bp_error *err)
{
    struct bp_pool_config *p = &node->u.pool;
    const char *type = spec_kind(layer, "type");
    const json_t *padding = json_object_get(layer, "padding");
    (void)err;
    p->kind = strcmp(type, "max_pool2d") == 0   ? BP_POOL_MAX
              : strcmp(type, "avg_pool2d") == 0 ? BP_POOL_AVG
                                                : BP_POOL_GLOBAL_AVG;
    read_extent(json_object_get(layer, "pool_size"), p->size);
    read_extent(json_object_get(layer, "pool_size"), p->stride); /* the default */
    read_extent(json_object_get(layer, "strides"), p->stride);
    read_extent(padding, p->padding);
    p->same = strcmp(spec_kind(padding, ""), "same") == 0;
    return BP_OK;
}

static bp_status read_reshape(const json_t *layer, struct bp_node *node, struct bp_error *err)
{
    const json_t *shape = json_object_get(layer, "shape");
    (void)err;
    node->u.reshape.rank = (int)json_array_size(shape); /* at most 4, by the field table */
    for (int i = 0; i < node->u.reshape.rank; i++)
        node->u.reshape.dim[i] = json_integer_value(json_array_get(shape, (size_t)i));
    return BP_OK;
}

/* The one extent of a reshape that may be -1: what the others leave of `elements`. */
static bp_status infer_extent(struct bp_shape *shape, int64_t elements, struct bp_error *err)
{
    int64_t rest = elements;
    int open = -1;
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dim[i] == 0 || (shape->dim[i] < 0 && open >= 0))
            return bp_fail(err, BP_INVALID,
                           "an extent of \"shape\" is at least 1, and one of them may be -1: what is left");
        if (shape->dim[i] < 0)
            open = i;
        else
            rest = rest % shape->dim[i] ? 0 : rest / shape->dim[i];
    }
    if (open >= 0 && rest == 0)
        return bp_fail(err, BP_INVALID, "%lld numbers cannot be divided among the other extents of \"shape\"",
                       (long long)elements);
    if (open >= 0)
        shape->dim[open] = rest;
    return BP_OK;
}

static bp_status read_embedding(const json_t *layer, struct bp_node *node, struct bp_error *err)
{
    node->u.embedding.input_dim = integer(layer, "input_dim");
    node->u.embedding.output_dim = integer(layer, "output_dim");
    return read_initializer(json_object_get(layer, "kernel_initializer"), &node->u.embedding.init, err);
}

static bp_status read_function(const json_t *layer, struct bp_node *node, struct bp_error *err)
{
    return read_activation(json_object_get(layer, "activation"), &node->u.activation, err);
}

static bp_status read_dropout(const json_t *layer, struct bp_node *node, struct bp_error *err)
{
    (void)err;
    node->u.dropout.rate = real(layer, "rate");
    return BP_OK;
}

/* batch_norm, layer_norm and group_norm: each has its own members of these. */
static bp_status read_norm(const json_t *layer, struct bp_node *node, struct bp_error *err)
{
    (void)err;
    node->u.norm = (struct bp_norm_config){.eps = real(layer, "eps"),
                                           .momentum = real(layer, "momentum"),
                                           .groups = integer(layer, "groups"),
                                           .affine = truth(layer, "affine")};
    return BP_OK;
}

static bp_status read_concat(const json_t *layer, struct bp_node *node, struct bp_error *err)
{
    const json_t *axis = json_object_get(layer, "axis");
    (void)err;
    node->u.concat.axis = json_is_integer(axis) ? (int)json_integer_value(axis) : BP_AXIS_CHANNELS;
    return BP_OK;
}

static bp_status read_attention(const json_t *layer, struct bp_node *node, struct bp_error *err)
{
    (void)err;
    node->u.attention = (struct bp_attention_config){.heads = integer(layer, "heads"),
                                                     .key_dim = integer(layer, "key_dim"), /* null: 0 */
                                                     .causal = truth(layer, "causal"),
                                                     .dropout = real(layer, "dropout")};
    return BP_OK;
}

static bp_status read_nothing(const json_t *layer, struct bp_node *node, struct bp_error *err)
{
    (void)layer, (void)node, (void)err;
    return BP_OK;
}

static const struct {
    const char *type;
    enum bp_op_kind kind;
    read_layer *read;
} builders[] = {{"dense", BP_OP_DENSE, read_dense},
                {"activation", BP_OP_ACTIVATION, read_function},
                {"dropout", BP_OP_DROPOUT, read_dropout},
                {"batch_norm", BP_OP_BATCH_NORM, read_norm},
                {"layer_norm", BP_OP_LAYER_NORM, read_norm},
                {"group_norm", BP_OP_GROUP_NORM, read_norm},
                {"add", BP_OP_ADD, read_nothing},
                {"multiply", BP_OP_MULTIPLY, read_nothing},
                {"concat", BP_OP_CONCAT, read_concat},
                {"multi_head_attention", BP_OP_MULTI_HEAD_ATTENTION, read_attention},
                {"flatten", BP_OP_FLATTEN, read_nothing},
                {"reshape", BP_OP_RESHAPE, read_reshape},
                {"conv1d", BP_OP_CONV, read_conv},
                {"conv2d", BP_OP_CONV, read_conv},
                {"depthwise_conv2d", BP_OP_CONV, read_conv},
                {"max_pool2d", BP_OP_POOL, read_pool},
                {"avg_pool2d", BP_OP_POOL, read_pool},
                {"global_avg_pool2d", BP_OP_POOL, read_pool},
                {"embedding", BP_OP_EMBEDDING, read_embedding},
                {"simple_rnn", BP_OP_SIMPLE_RNN, read_recurrent},
                {"lstm", BP_OP_LSTM, read_recurrent},
                {"gru", BP_OP_GRU, read_recurrent}};

/* The activation of a dense or convolutional layer, as a node behind it. */
static bp_status add_function(struct bp_graph *graph, const json_t *layer, const char *name, int *at,
                              struct bp_error *err)
{
    struct bp_node node = {.kind = BP_OP_ACTIVATION, .ninputs = 1, .input = {*at}, .trainable = true};
    bp_status status = read_activation(json_object_get(layer, "activation"), &node.u.activation, err);
    if (status || node.u.activation.kind == BP_LINEAR)
        return status;
    snprintf(node.name, sizeof node.name, "%.*s.activation", BP_LAYER_NAME_MAX, name);
    return bp_graph_add(graph, &node, at, err);
}

/* The nodes that a layer reads: those that the layers it names ended in, or the one above. nodes maps names to nodes. */
static bp_status read_inputs(const json_t *layer, const json_t *nodes, int above, struct bp_node *node,
                             struct bp_error *err)
{
    const json_t *inputs = json_object_get(layer, "inputs");
    size_t n = json_array_size(inputs);
    if (n > BP_NODE_INPUTS_MAX)
        return bp_fail(err, BP_INVALID, "a layer has at most %d inputs, got %zu", BP_NODE_INPUTS_MAX, n);
    node->ninputs = n > 0 ? (int)n : 1;
    node->input[0] = above;
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(inputs, i));
        const json_t *end = json_object_get(nodes, name ? name : "");
        if (!end)
            return bp_fail(err, BP_INVALID, "there is no earlier layer \"%.60s\"", name ? name : "");
        node->input[i] = (int)json_integer_value(end);
    }
    return BP_OK;
}

static bp_status add_layer(struct bp_graph *graph, const json_t *layer, const json_t *nodes, int *at,
                           struct bp_error *err)
{
    const char *type = spec_kind(layer, "type"), *name = json_string_value(json_object_get(layer, "name"));
    struct bp_node node = {.trainable = !json_is_false(json_object_get(layer, "trainable"))};
    bp_status known = read_inputs(layer, nodes, *at, &node, err);
    if (known)
        return known;
    for (size_t i = 0; i < sizeof builders / sizeof builders[0]; i++) {
        if (strcmp(builders[i].type, type) != 0)
            continue;
        node.kind = builders[i].kind;
        snprintf(node.name, sizeof node.name, "%s", name ? name : "");
        float *weights = NULL, *biases = NULL;
        bp_status status = builders[i].read(layer, &node, err);
        const struct bp_shape *shape = &graph->nodes[node.input[0]].shape;
        if (!status && node.kind == BP_OP_RESHAPE)
            status = infer_extent(&node.u.reshape, bp_shape_elements(shape), err);
        if (!status && node.kind == BP_OP_DENSE)
            status = spec_read_literals(layer, shape->dim[shape->rank - 1], &node.u.dense, &weights, &biases, err);
        if (!status)
            status = bp_graph_add(graph, &node, at, err);
        free(weights);
        free(biases);
        bool function = node.kind == BP_OP_DENSE || node.kind == BP_OP_CONV; /* the others have none of their own */
        return !status && function ? add_function(graph, layer, node.name, at, err) : status;
    }
    return bp_fail(err, BP_INVALID, "there is no layer type \"%.40s\"", type);
}

/* The shapes on the way to a layer: " (shapes so far: input [1, 28, 28], conv2d_1 [8, 26, 26])", the last few. */
static void trace_shapes(const struct bp_graph *graph, char *text, size_t size)
{
    enum { SHOWN = 8 };
    char shape[64];
    size_t used;
    int shown[SHOWN], n = 0;
    text[0] = 0;
    for (int i = graph ? graph->nnodes - 1 : -1; i >= 0 && n < SHOWN; i--)
        if (!strchr(graph->nodes[i].name, '.')) /* the function of a layer has its layer's shape */
            shown[n++] = i;
    used = (size_t)snprintf(text, size, n ? " (shapes so far: " : "");
    for (int i = n - 1; i >= 0 && used < size; i--) {
        const struct bp_node *node = &graph->nodes[shown[i]];
        used += (size_t)snprintf(text + used, size - used, "%s %s%s", node->name,
                                 bp_shape_print(&node->shape, shape, sizeof shape), i ? ", " : ")");
    }
}

/* A fault of the engine as a problem of the layer. Failures that are not the spec's are not. */
static void tell(struct bp_problems *problems, bp_status status, int layer, const struct bp_graph *graph,
                 const struct bp_error *err)
{
    char pointer[64] = "/model/layers", trace[700];
    if (layer >= 0)
        snprintf(pointer, sizeof pointer, "/model/layers/%d", layer);
    trace_shapes(graph, trace, sizeof trace);
    if (status == BP_INVALID || status == BP_UNSUPPORTED)
        bp_problems_add(problems, pointer, "incompatible", NULL, NULL, "%s%s", err->message, trace);
    else if (status == BP_LIMIT)
        bp_problems_add(problems, pointer, "too_large", NULL, NULL, "%s", err->message);
}

static bp_status build_graph(const json_t *resolved, const struct bp_transform *transform,
                             struct bp_problems *problems, struct bp_graph **ret, struct bp_error *err)
{
    json_t *layers = spec_layers(resolved), *layer;
    struct bp_shape input = bp_transform_shape(transform);
    struct bp_graph *graph = NULL;
    json_t *nodes = json_pack("{s:i}", "input", 0); /* the node that each layer ended in, by name */
    int at = 0;
    size_t i = 0;
    struct bp_error local = {0};

    bp_status status = bp_graph_new(&input, &graph, &local);
    if (status) {
        tell(problems, status, -1, NULL, &local);
        goto out;
    }
    json_array_foreach(layers, i, layer) {
        const char *name = json_string_value(json_object_get(layer, "name"));
        status = add_layer(graph, layer, nodes, &at, &local);
        if (!status && name && json_object_set_new(nodes, name, json_integer(at)))
            status = bp_fail(&local, BP_NOMEM, "no memory to build the network");
        if (status) {
            tell(problems, status, (int)i, graph, &local);
            goto out;
        }
    }
    int last = (int)i - 1;
    status = spec_add_heads(graph, resolved, transform, at, &local);
    if (status)
        tell(problems, status, last, graph, &local);
out:
    json_decref(nodes);
    if (status) {
        bp_graph_free(graph);
        if (err)
            *err = local;
        return status;
    }
    *ret = graph;
    return BP_OK;
}

/* --- the configuration -------------------------------------------------------------------------------------------- */
static bp_status read_config(const json_t *resolved, struct bp_train_config *ret, struct bp_error *err)
{
    const json_t *training = json_object_get(resolved, "training");
    const json_t *early = json_object_get(training, "early_stopping");
    const json_t *checkpoint = json_object_get(training, "checkpoint");
    *ret = (struct bp_train_config){.seed = (uint64_t)integer(resolved, "seed"),
                                    .epochs = integer(training, "epochs"),
                                    .batch_size = (int)integer(training, "batch_size"),
                                    .shuffle = truth(training, "shuffle"),
                                    .clip_grad_norm = real(training, "clip_grad_norm"),
                                    .early_stopping = json_is_integer(json_object_get(early, "patience")),
                                    .patience = integer(early, "patience"),
                                    .min_delta = real(early, "min_delta"),
                                    .restore_best = truth(early, "restore_best"),
                                    .log_every_steps = integer(training, "log_every_steps"),
                                    .layer_stats = truth(training, "layer_stats"),
                                    .checkpoint_epochs = integer(checkpoint, "every_epochs"),
                                    .checkpoint_seconds = real(checkpoint, "every_seconds"),
                                    .threads = (int)integer(resolved, "threads"),
                                    .metrics = 1u << BP_METRIC_LOSS};
    if (ret->threads < 1)
        ret->threads = 1;
    if (ret->log_every_steps < 1)
        ret->log_every_steps = 1; /* as yet unknown: it follows from the number of rows */
    bp_status status = spec_read_metrics(resolved, ret, err);
    return status ? status : spec_read_training(resolved, ret, err);
}

bp_status bp_plan_build(const json_t *resolved, const struct bp_table *table, const struct bp_transform *stored,
                        struct bp_problems *problems, struct bp_plan *ret, struct bp_error *err)
{
    const json_t *dataset = json_object_get(resolved, "dataset");
    const char *scale = json_string_value(json_object_get(dataset, "target_scale"));
    struct bp_plan plan = {.stratify = truth(dataset, "stratify"),
                           .standardize_target = scale && strcmp(scale, "standard") == 0,
                           .split = {.validation = real(dataset, "validation_split"),
                                     .test = real(dataset, "test_split"),
                                     .seed = (uint64_t)integer(resolved, "seed")}};
    bp_status status = read_config(resolved, &plan.config, err);
    if (!status && !stored)
        status = spec_plan_transform(resolved, table, problems, &plan.transform, err);
    if (!status)
        status = build_graph(resolved, stored ? stored : plan.transform, problems, &plan.graph, err);
    if (status) {
        bp_plan_done(&plan);
        return status;
    }
    plan.parameters = (int64_t)plan.graph->nparams;
    *ret = plan;
    return BP_OK;
}

void bp_plan_done(struct bp_plan *plan)
{
    bp_graph_free(plan->graph);
    bp_transform_free(plan->transform);
    plan->graph = NULL;
    plan->transform = NULL;
}

bp_status bp_plan_split(const struct bp_plan *plan, const struct bp_transform *transform,
                        const struct bp_table *table, struct bp_split *ret, struct bp_error *err)
{
    struct bp_split_config config = plan->split;
    struct bp_division division = {NULL, NULL, NULL};
    int32_t *classes = NULL;
    uint8_t *exclude = NULL;
    uint64_t excluded = 0;
    char salt[17];
    bp_status status = BP_OK;

    /* Two tables of one size are not split alike: the first 8 bytes of the hash go in. */
    snprintf(salt, sizeof salt, "%.16s", table->hash);
    config.salt = strtoull(salt, NULL, 16);
    config.nrows = table->nrows;
    config.test_first = table->test_first;
    exclude = calloc(table->nrows ? table->nrows : 1, sizeof *exclude);
    if (plan->stratify)
        classes = malloc((table->nrows ? table->nrows : 1) * sizeof *classes);
    if (!exclude || (plan->stratify && !classes)) {
        status = bp_fail(err, BP_NOMEM, "no memory to split %" PRIu64 " rows", table->nrows);
        goto out;
    }
    status = bp_transform_exclude(transform, table, exclude, &excluded, err);
    if (!status && classes)
        status = bp_transform_classes(transform, table, classes, err);
    if (status)
        goto out;
    status = bp_transform_divide(transform, table, &division, err);
    if (status)
        goto out;
    config.classes = classes;
    config.exclude = excluded ? exclude : NULL;
    config.group = division.group;
    config.first = division.first;
    config.last = division.last;
    status = bp_split_make(&config, ret, err);
out:
    bp_division_done(&division);
    free(classes);
    free(exclude);
    return status;
}
