/* graph.c: building a network, node by node; see graph.h.
 *
 * Everything that can be wrong with a network's structure is found here: names, connections, shapes, sizes. What
 * passes has shapes that fit together and sizes that fit into 31 bits, so that the floors above never check again.
 *
 * Threads: a graph is built by one thread, and read by any number.
 */
#include "graph/graph.h"

#include "base/memory.h"
#include "graph/plan.h"
#include "ops/op.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- shapes ------------------------------------------------------------------------------------------------------ */

int64_t bp_shape_elements(const struct bp_shape *shape)
{
    int64_t elements = 1;
    for (int i = 0; i < shape->rank; i++)
        elements *= shape->dim[i];
    return elements;
}

bool bp_shape_equal(const struct bp_shape *a, const struct bp_shape *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

char *bp_shape_print(const struct bp_shape *shape, char *text, size_t size)
{
    size_t used = 0;
    if (size == 0)
        return text;
    for (int i = 0; i <= shape->rank && used < size; i++) {
        int n;
        if (i < shape->rank)
            n = snprintf(text + used, size - used, "%s%lld", i == 0 ? "[" : ", ", (long long)shape->dim[i]);
        else
            n = snprintf(text + used, size - used, "%s", shape->rank == 0 ? "[]" : "]");
        used += n > 0 ? (size_t)n : 0;
    }
    return text;
}

/* Dimensions of at least 1 whose product is below BP_ELEMENTS_MAX. */
static bp_status check_shape(const struct bp_shape *shape, const char *what, struct bp_error *err)
{
    int64_t elements = 1;
    if (shape->rank < 0 || shape->rank > BP_RANK_MAX)
        return bp_fail_at(err, BP_INVALID, what, "'%s': a shape has at most %d dimensions, got %d", what, BP_RANK_MAX,
                          shape->rank);
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dim[i] < 1)
            return bp_fail_at(err, BP_INVALID, what, "'%s': dimension %d must be at least 1, got %lld", what, i,
                              (long long)shape->dim[i]);
        if (shape->dim[i] > (BP_ELEMENTS_MAX - 1) / elements)
            return bp_fail_at(err, BP_LIMIT, what, "'%s' has too many elements: the limit is %lld", what,
                              BP_ELEMENTS_MAX - 1);
        elements *= shape->dim[i];
    }
    return BP_OK;
}

/* --- growing arrays ---------------------------------------------------------------------------------------------- */

/* Makes room for one more element. bp_alloc has no realloc on purpose: this is build time. */
static bp_status grow(void **array, int count, int *capacity, size_t size, struct bp_error *err)
{
    if (count < *capacity)
        return BP_OK;
    int larger = *capacity == 0 ? 16 : *capacity * 2; /* at most BP_NODES_MAX * BP_NODE_TENSORS_MAX doubled */
    void *moved = bp_alloc((size_t)larger * size);
    if (moved == NULL)
        return bp_fail(err, BP_NOMEM, "out of memory while building the network");
    if (count > 0)
        memcpy(moved, *array, (size_t)count * size);
    bp_free(*array);
    *array = moved;
    *capacity = larger;
    return BP_OK;
}

/* --- building ---------------------------------------------------------------------------------------------------- */

bp_status bp_graph_new(const struct bp_shape *input, struct bp_graph **ret, struct bp_error *err)
{
    bp_status status = check_shape(input, "input", err);
    if (status != BP_OK)
        return status;
    struct bp_graph *graph = bp_alloc(sizeof *graph);
    if (graph == NULL)
        return bp_fail(err, BP_NOMEM, "out of memory while building the network");
    struct bp_node node = {.kind = BP_OP_INPUT, .name = "input", .shape = *input};
    status = bp_graph_add(graph, &node, &(int){0}, err);
    if (status != BP_OK) {
        bp_graph_free(graph);
        return status;
    }
    *ret = graph;
    return BP_OK;
}

/* Forgets the tensors from number `first` on. */
static void drop_tensors(struct bp_graph *graph, int first)
{
    for (int i = first; i < graph->ntensors; i++)
        bp_free((void *)(uintptr_t)graph->tensors[i].literal);
    graph->ntensors = first;
}

void bp_graph_free(struct bp_graph *graph)
{
    if (graph == NULL)
        return;
    drop_tensors(graph, 0);
    bp_free(graph->nodes);
    bp_free(graph->tensors);
    bp_free(graph->heads);
    bp_free(graph);
}

static bp_status check_name(const struct bp_graph *graph, const struct bp_node *node, struct bp_error *err)
{
    if (node->name[0] == '\0' || memchr(node->name, '\0', sizeof node->name) == NULL)
        return bp_fail(err, BP_INVALID, "layer %d needs a name of 1 to %d characters", graph->nnodes, BP_NAME_MAX);
    for (int i = 0; i < graph->nnodes; i++)
        if (strcmp(graph->nodes[i].name, node->name) == 0)
            return bp_fail_at(err, BP_INVALID, node->name, "the name '%s' is taken by layer %d: names must be unique",
                              node->name, i);
    return BP_OK;
}

static bp_status check_inputs(const struct bp_graph *graph, const struct bp_node *node, struct bp_error *err)
{
    const struct bp_op *op = bp_op_table[node->kind];
    if (node->ninputs < op->min_inputs || node->ninputs > op->max_inputs)
        return bp_fail_at(err, BP_INVALID, node->name, "layer '%s' (%s) takes %d to %d inputs, got %d", node->name,
                          op->name, op->min_inputs, op->max_inputs, node->ninputs);
    for (int i = 0; i < node->ninputs; i++)
        if (node->input[i] < 0 || node->input[i] >= graph->nnodes)
            return bp_fail_at(err, BP_INVALID, node->name,
                              "layer '%s' (%s): its input number %d is not an earlier layer", node->name, op->name,
                              i);
    return BP_OK;
}

bp_status bp_graph_add(struct bp_graph *graph, const struct bp_node *node, int *ret, struct bp_error *err)
{
    struct bp_node added = *node;
    int ntensors = graph->ntensors;
    size_t nparams = graph->nparams, nstats = graph->nstats;
    bp_status status;

    if ((unsigned)node->kind >= BP_OP_COUNT)
        return bp_fail_at(err, BP_INVALID, "", "layer %d: there is no operation number %d", graph->nnodes,
                          (int)node->kind);
    if (graph->nnodes >= BP_NODES_MAX)
        return bp_fail(err, BP_LIMIT, "a network has at most %d layers", BP_NODES_MAX);
    added.ntensors = 0;
    if ((status = check_name(graph, node, err)) != BP_OK || (status = check_inputs(graph, node, err)) != BP_OK)
        return status;
    status = grow((void **)&graph->nodes, graph->nnodes, &graph->nodes_capacity, sizeof *graph->nodes, err);
    if (status != BP_OK)
        return status;
    status = bp_op_table[node->kind]->infer(graph, &added, err);
    if (status == BP_OK)
        status = check_shape(&added.shape, added.name, err);
    if (status != BP_OK) {
        drop_tensors(graph, ntensors);
        graph->nparams = nparams;
        graph->nstats = nstats;
        return status;
    }
    if (added.kind == BP_OP_DENSE) /* the tensors have copies; the caller's arrays may go */
        added.u.dense.weights = added.u.dense.biases = NULL;
    if (added.kind == BP_OP_CONV)
        added.u.conv.weights = added.u.conv.biases = NULL;
    if (added.kind == BP_OP_EMBEDDING)
        added.u.embedding.weights = NULL;
    graph->nodes[graph->nnodes] = added;
    *ret = graph->nnodes++;
    return BP_OK;
}

bp_status bp_graph_add_tensor(struct bp_graph *graph, struct bp_node *node, const struct bp_tensor *tensor,
                              struct bp_error *err)
{
    struct bp_tensor added = *tensor;
    size_t *range = tensor->statistic ? &graph->nstats : &graph->nparams, total;
    bp_status status;

    if (node->ntensors >= BP_NODE_TENSORS_MAX)
        return bp_fail_at(err, BP_INTERNAL, node->name, "layer '%s' declares too many tensors", node->name);
    if ((status = check_shape(&tensor->shape, tensor->name, err)) != BP_OK)
        return status;
    added.node = graph->nnodes; /* the index that the node is about to get */
    added.count = (size_t)bp_shape_elements(&tensor->shape);
    added.offset = *range;
    if (!bp_size_add(*range, added.count, &total))
        return bp_fail_at(err, BP_LIMIT, node->name, "layer '%s': the network has too many parameters", node->name);
    status = grow((void **)&graph->tensors, graph->ntensors, &graph->tensors_capacity, sizeof *graph->tensors, err);
    if (status != BP_OK)
        return status;
    if (tensor->literal != NULL) {
        float *copy = bp_alloc(added.count * sizeof *copy);
        if (copy == NULL)
            return bp_fail(err, BP_NOMEM, "out of memory while building the network");
        memcpy(copy, tensor->literal, added.count * sizeof *copy);
        added.literal = copy;
    }
    *range = total;
    node->tensor[node->ntensors++] = graph->ntensors;
    graph->tensors[graph->ntensors++] = added;
    return BP_OK;
}

bool bp_loss_takes_labels(enum bp_loss loss)
{
    return loss == BP_LOSS_CROSS_ENTROPY || loss == BP_LOSS_MULTI_MARGIN;
}

/* Whether a loss can have this parameter; those without one have 0. */
static bool parameter_fits(enum bp_loss loss, double a)
{
    switch (loss) {
    case BP_LOSS_CROSS_ENTROPY:
    case BP_LOSS_BCE:
        return a >= 0 && a < 1;
    case BP_LOSS_HUBER:
        return a > 0 && isfinite(a);
    case BP_LOSS_QUANTILE:
        return a > 0 && a < 1;
    default:
        return a == 0;
    }
}

static bp_status check_head(const struct bp_graph *graph, const struct bp_head *head, struct bp_error *err)
{
    enum bp_loss loss = head->loss;
    char text[64];
    if (head->node < 0 || head->node >= graph->nnodes)
        return bp_fail(err, BP_INVALID, "an output must be a layer of the network, got number %d", head->node);
    const struct bp_node *of = &graph->nodes[head->node];
    if ((unsigned)loss >= BP_LOSS_COUNT)
        return bp_fail_at(err, BP_INVALID, of->name, "there is no loss number %d", (int)loss);
    if (of->shape.rank != 1)
        return bp_fail_at(err, BP_INVALID, of->name,
                          "%s needs a vector, but layer '%s' gives %s: put a flatten layer after it",
                          bp_loss_name(loss), of->name, bp_shape_print(&of->shape, text, sizeof text));
    if (bp_loss_takes_labels(loss) && of->shape.dim[0] < 2)
        return bp_fail_at(err, BP_INVALID, of->name,
                          "%s needs one output per class, at least 2, but layer '%s' has 1: use bce for a "
                          "single output, or give the layer more units",
                          bp_loss_name(loss), of->name);
    if (!isfinite(head->weight) || head->weight < 0)
        return bp_fail_at(err, BP_INVALID, of->name, "the weight of a loss must be finite and at least 0, got %g",
                          head->weight);
    if (!parameter_fits(loss, head->parameter))
        return bp_fail_at(err, BP_INVALID, of->name, "%s cannot have the parameter %g", bp_loss_name(loss),
                          head->parameter);
    return BP_OK;
}

bp_status bp_graph_add_output(struct bp_graph *graph, const struct bp_head *head, struct bp_error *err)
{
    bp_status status = check_head(graph, head, err);
    if (status != BP_OK)
        return status;
    if (graph->nheads >= BP_NODES_MAX)
        return bp_fail(err, BP_LIMIT, "a network has at most %d outputs", BP_NODES_MAX);
    status = grow((void **)&graph->heads, graph->nheads, &graph->heads_capacity, sizeof *graph->heads, err);
    if (status != BP_OK)
        return status;
    graph->heads[graph->nheads] = *head;
    graph->heads[graph->nheads++].outputs = (int)graph->nodes[head->node].shape.dim[0];
    return BP_OK;
}

bp_status bp_graph_add_head(struct bp_graph *graph, int node, enum bp_loss loss, double weight, struct bp_error *err)
{
    struct bp_head head = {.node = node,
                           .loss = loss,
                           .weight = weight,
                           .parameter = loss == BP_LOSS_HUBER      ? 1
                                        : loss == BP_LOSS_QUANTILE ? 0.5
                                                                   : 0};
    return bp_graph_add_output(graph, &head, err);
}

/* --- facts ------------------------------------------------------------------------------------------------------- */

int64_t bp_graph_flops(const struct bp_graph *graph, bool training)
{
    bool needs[BP_NODES_MAX];
    int64_t flops = 0;
    bp_needs_gradient(graph, false, needs);
    for (int i = 0; i < graph->nnodes; i++) {
        const struct bp_node *node = &graph->nodes[i];
        const struct bp_op *op = bp_op_table[node->kind];
        bool below = bp_runs_backward(graph, needs, i), own = node->trainable && node->ntensors > 0;
        if (op->flops == NULL)
            continue;
        flops += op->flops(graph, node, BP_PHASE_FORWARD);
        if (training && below)
            flops += op->flops(graph, node, BP_PHASE_BACKWARD);
        if (training && own)
            flops += op->flops(graph, node, BP_PHASE_PARAMETERS);
    }
    return flops;
}

const char *bp_op_name(enum bp_op_kind kind)
{
    return (unsigned)kind < BP_OP_COUNT ? bp_op_table[kind]->name : "unknown";
}

const char *bp_node_type(const struct bp_node *node)
{
    static const char *const pools[] = {
        [BP_POOL_MAX] = "max_pool2d", [BP_POOL_AVG] = "avg_pool2d", [BP_POOL_GLOBAL_AVG] = "global_avg_pool2d"};
    if (node->kind == BP_OP_POOL)
        return pools[node->u.pool.kind];
    if (node->kind == BP_OP_CONV)
        return node->u.conv.multiplier > 0 ? "depthwise_conv2d" : node->u.conv.axes == 1 ? "conv1d" : "conv2d";
    return bp_op_name(node->kind);
}

#define NAME_OF(table, i) ((unsigned)(i) < sizeof(table) / sizeof *(table) ? (table)[i] : "unknown")

const char *bp_activation_name(enum bp_activation kind)
{
    static const char *const names[BP_ACTIVATION_COUNT] = {
        [BP_LINEAR] = "linear",
        [BP_RELU] = "relu",
        [BP_LEAKY_RELU] = "leaky_relu",
        [BP_ELU] = "elu",
        [BP_SELU] = "selu",
        [BP_GELU] = "gelu",
        [BP_SILU] = "silu",
        [BP_MISH] = "mish",
        [BP_SIGMOID] = "sigmoid",
        [BP_TANH] = "tanh",
        [BP_SOFTPLUS] = "softplus",
        [BP_SOFTSIGN] = "softsign",
        [BP_HARD_SIGMOID] = "hard_sigmoid",
        [BP_RELU6] = "relu6",
        [BP_SOFTMAX] = "softmax",
        [BP_LOG_SOFTMAX] = "log_softmax",
    };
    return NAME_OF(names, kind);
}

const char *bp_loss_name(enum bp_loss loss)
{
    static const char *const names[BP_LOSS_COUNT] = {
        [BP_LOSS_CROSS_ENTROPY] = "cross_entropy",
        [BP_LOSS_BCE] = "bce",
        [BP_LOSS_MSE] = "mse",
        [BP_LOSS_MAE] = "mae",
        [BP_LOSS_HUBER] = "huber",
        [BP_LOSS_HINGE] = "hinge",
        [BP_LOSS_MULTI_MARGIN] = "multi_margin",
        [BP_LOSS_POISSON] = "poisson",
        [BP_LOSS_QUANTILE] = "quantile",
        [BP_LOSS_KL_DIV] = "kl_div",
    };
    return NAME_OF(names, loss);
}

const char *bp_init_name(enum bp_init_kind kind)
{
    static const char *const names[BP_INIT_COUNT] = {
        [BP_INIT_ZEROS] = "zeros",
        [BP_INIT_ONES] = "ones",
        [BP_INIT_CONSTANT] = "constant",
        [BP_INIT_UNIFORM] = "uniform",
        [BP_INIT_NORMAL] = "normal",
        [BP_INIT_TRUNCATED_NORMAL] = "truncated_normal",
        [BP_INIT_GLOROT_UNIFORM] = "glorot_uniform",
        [BP_INIT_GLOROT_NORMAL] = "glorot_normal",
        [BP_INIT_HE_UNIFORM] = "he_uniform",
        [BP_INIT_HE_NORMAL] = "he_normal",
        [BP_INIT_LECUN_UNIFORM] = "lecun_uniform",
        [BP_INIT_LECUN_NORMAL] = "lecun_normal",
        [BP_INIT_ORTHOGONAL] = "orthogonal",
        [BP_INIT_KAIMING_UNIFORM] = "kaiming_uniform",
    };
    return NAME_OF(names, kind);
}
