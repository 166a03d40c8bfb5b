/* workload.c: from JSON to a graph and a table of random rows. */
#include "workload.h"

#include "base/memory.h"
#include "base/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct bp_initializer as_torch = {.kind = BP_INIT_KAIMING_UNIFORM};

void die(const char *what, const struct bp_error *err)
{
    fprintf(stderr, "backpropd-bench: %s%s%s\n", what, err ? ": " : "", err ? err->message : "");
    exit(1);
}

static const json_t *member(const json_t *json, const char *name, json_type type)
{
    const json_t *value = json_object_get(json, name);
    if (value == NULL || json_typeof(value) != type) {
        struct bp_error err;
        bp_fail(&err, BP_INVALID, "\"%s\" is missing or of the wrong type", name);
        die("a workload cannot be read", &err);
    }
    return value;
}

static const char *text(const json_t *json, const char *name)
{
    return json_string_value(member(json, name, JSON_STRING));
}

static int64_t number(const json_t *json, const char *name)
{
    return json_integer_value(member(json, name, JSON_INTEGER));
}

static int64_t size_at(const json_t *layer, size_t i)
{
    return json_integer_value(json_array_get(layer, i));
}

/* --- the network ------------------------------------------------------------------------------------------------ */

/* A network that grows: the layer being read goes on top. */
struct build {
    struct bp_graph *graph;
    int top;
    size_t layer; /* its number in the list */
};

static void add(struct build *b, struct bp_node node)
{
    struct bp_error err;
    snprintf(node.name, sizeof node.name, "%s_%zu", bp_op_name(node.kind), b->layer);
    node.ninputs = 1;
    node.input[0] = b->top;
    node.trainable = true;
    if (bp_graph_add(b->graph, &node, &b->top, &err))
        die("a layer is refused", &err);
}

/* NULL: none. */
static bool add_activation(struct build *b, const char *name)
{
    for (int k = 0; name != NULL && k < BP_ACTIVATION_COUNT; k++)
        if (!strcmp(name, bp_activation_name((enum bp_activation)k))) {
            add(b, (struct bp_node){.kind = BP_OP_ACTIVATION, .u.activation = {.kind = (enum bp_activation)k}});
            return true;
        }
    return name == NULL;
}

static bool add_dense(struct build *b, const json_t *layer)
{
    if (b->graph->nodes[b->top].shape.rank > 1)
        add(b, (struct bp_node){.kind = BP_OP_FLATTEN});
    add(b, (struct bp_node){
               .kind = BP_OP_DENSE,
               .u.dense = {
                   .units = size_at(layer, 1), .use_bias = true, .kernel_init = as_torch, .bias_init = as_torch}});
    return add_activation(b, json_string_value(json_array_get(layer, 2)));
}

static bool add_conv(struct build *b, const json_t *layer)
{
    add(b, (struct bp_node){.kind = BP_OP_CONV,
                            .u.conv = {.axes = 2,
                                       .filters = size_at(layer, 1),
                                       .groups = 1,
                                       .kernel = {size_at(layer, 2), size_at(layer, 2)},
                                       .stride = {1, 1},
                                       .dilation = {1, 1},
                                       .same = true,
                                       .use_bias = true,
                                       .kernel_init = as_torch,
                                       .bias_init = as_torch}});
    return add_activation(b, json_string_value(json_array_get(layer, 3)));
}

static bool add_pool(struct build *b, const json_t *layer)
{
    int64_t size = size_at(layer, 1);
    add(b, (struct bp_node){.kind = BP_OP_POOL, .u.pool = {.size = {size, size}, .stride = {size, size}}});
    return true;
}

static bool add_norm(struct build *b, const json_t *layer)
{
    (void)layer;
    add(b, (struct bp_node){.kind = BP_OP_BATCH_NORM, .u.norm = {.eps = 1e-5, .momentum = 0.1, .affine = true}});
    return true;
}

static const struct {
    const char *name;
    bool (*add)(struct build *b, const json_t *layer);
} kinds[] = {{"dense", add_dense}, {"conv2d", add_conv}, {"maxpool2d", add_pool}, {"batchnorm", add_norm}};

static bool add_layer(struct build *b, const json_t *layer)
{
    const char *name = json_string_value(json_array_get(layer, 0));
    if (name == NULL)
        die("a layer is not [\"name\", …]", NULL);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        if (!strcmp(name, kinds[k].name))
            return kinds[k].add(b, layer);
    return add_activation(b, name);
}

static bool make_graph(struct workload *w, const json_t *json)
{
    struct bp_error err;
    const json_t *input = member(json, "input", JSON_ARRAY);
    struct bp_shape shape = {.rank = (int)json_array_size(input)};
    if (shape.rank > BP_RANK_MAX)
        die("an input has too many dimensions", NULL);
    for (int i = 0; i < shape.rank; i++)
        shape.dim[i] = size_at(input, (size_t)i);
    if (bp_graph_new(&shape, &w->graph, &err))
        die("no graph", &err);
    struct build b = {.graph = w->graph};
    json_t *layer;
    json_array_foreach(member(json, "layers", JSON_ARRAY), b.layer, layer)
        if (!add_layer(&b, layer)) {
            fprintf(stderr, "%s: skipped, this build has no %s\n", w->name,
                    json_string_value(json_array_get(layer, 0)));
            return false;
        }
    bool mse = !strcmp(text(json, "loss"), "mse");
    if (bp_graph_add_head(w->graph, b.top, mse ? BP_LOSS_MSE : BP_LOSS_CROSS_ENTROPY, 1, &err))
        die("no head", &err);
    return true;
}

/* --- random rows ------------------------------------------------------------------------------------------------ */

/* Inputs in [-1, 1); a class, or another such number. */
static void fill_row(float *row, int inputs, uint64_t r, bool is_class, int classes)
{
    uint32_t word[4];
    for (int i = 0; i <= inputs; i++) {
        bp_random(1, bp_stream(BP_STREAM_CHECK, 0), r, (uint64_t)i, word);
        row[i] = 2 * bp_random_unit(word[0]) - 1;
    }
    if (is_class) {
        int32_t label = (int32_t)bp_random_below(word[1], word[2], (uint64_t)classes);
        memcpy(&row[inputs], &label, sizeof label);
    }
}

static void make_rows(struct workload *w, uint64_t nrows)
{
    int inputs = (int)bp_shape_elements(&w->graph->nodes[0].shape);
    const struct bp_head *head = &w->graph->heads[0];
    bool is_class = head->loss == BP_LOSS_CROSS_ENTROPY;
    size_t stride = (size_t)inputs + 1;
    w->rows = bp_alloc(nrows * stride * sizeof(float));
    w->split.rows[BP_TRAIN] = bp_alloc(nrows * sizeof(uint32_t));
    if (!w->rows || !w->split.rows[BP_TRAIN])
        die("no memory for the rows", NULL);
    for (uint64_t r = 0; r < nrows; r++) {
        w->split.rows[BP_TRAIN][r] = (uint32_t)r;
        fill_row(&w->rows[r * stride], inputs, r, is_class, head->outputs);
    }
    w->split.count[BP_TRAIN] = nrows;
    w->feature = (struct bp_feature){.type = BP_F32, .count = inputs, .encoding = BP_ENCODE_NUMBER, .scale = 1};
    w->target = (struct bp_target){.is_class = is_class,
                                   .type = is_class ? BP_I32 : BP_F32,
                                   .offset = (size_t)inputs * sizeof(float),
                                   .count = 1,
                                   .classes = is_class ? head->outputs : 0,
                                   .scale = 1};
    w->source = (struct bp_source){.rows = (const uint8_t *)w->rows,
                                   .stride = stride * sizeof(float),
                                   .nrows = nrows,
                                   .nfeatures = 1,
                                   .features = &w->feature,
                                   .inputs = inputs,
                                   .ntargets = 1,
                                   .targets = &w->target};
}

bool workload_init(struct workload *w, const json_t *json)
{
    *w = (struct workload){.name = text(json, "name")};
    if (!make_graph(w, json))
        return false;
    bool adam = !strcmp(text(json, "optimizer"), "adam");
    make_rows(w, (uint64_t)number(json, "rows"));
    w->config = (struct bp_train_config){
        .seed = 1,
        .epochs = 100000000, /* never reached */
        .batch_size = (int)number(json, "batch"),
        .shuffle = true,
        .optimizer =
            adam ? (struct bp_optimizer){.kind = BP_ADAM, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8}
                 : (struct bp_optimizer){.kind = BP_SGD, .lr = 1e-2, .momentum = 0.9},
        .log_every_steps = 1000,
        .threads = 1};
    return true;
}

void workload_done(struct workload *w)
{
    bp_graph_free(w->graph);
    bp_free(w->rows);
    bp_free(w->split.rows[BP_TRAIN]);
}
