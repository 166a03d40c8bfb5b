/* fixture.h: small data sets and networks for the tests of training. */
#ifndef TESTS_TRAIN_FIXTURE_H
#define TESTS_TRAIN_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/random.h"
#include "train/checkpoint.h"
#include "train/hash.h"
#include "train/initialize.h"
#include "train/state.h"
#include "train/trainer.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif
/* Seconds mean nothing: under a sanitizer, and where the tests have been told to be patient, as on an emulated CPU. */
#define UNHURRIED (SANITIZED || getenv("BACKPROPD_TEST_PATIENCE") != NULL)

/* A table of rows: `inputs` f32, then an i32 class, then `values` f32. */
struct data {
    int rows, inputs, values;
    uint8_t *bytes;
    struct bp_source source;
    struct bp_feature feature;
    struct bp_target target;
    struct bp_split split;
};

static inline float *data_x(const struct data *d, int row)
{
    return (float *)(void *)(d->bytes + (size_t)row * d->source.stride);
}

static inline int32_t *data_label(const struct data *d, int row)
{
    return (int32_t *)(void *)(data_x(d, row) + d->inputs);
}

static inline float *data_value(const struct data *d, int row)
{
    return data_x(d, row) + d->inputs + 1;
}

/* classes 0: the target is the values. */
static inline void data_init(struct data *d, int rows, int inputs, int classes, int values)
{
    memset(d, 0, sizeof *d);
    d->rows = rows;
    d->inputs = inputs;
    d->values = values;
    d->source.stride = ((size_t)inputs + 1 + (size_t)values) * 4;
    d->bytes = calloc((size_t)rows, d->source.stride);
    assert_non_null(d->bytes);
    d->feature = (struct bp_feature){.type = BP_F32, .count = inputs, .encoding = BP_ENCODE_NUMBER, .scale = 1.0};
    d->target = (struct bp_target){.type = BP_F32, .offset = ((size_t)inputs + 1) * 4, .count = values, .scale = 1.0};
    if (classes > 0) {
        d->target = (struct bp_target){.is_class = true,
                                       .type = BP_I32,
                                       .offset = (size_t)inputs * 4,
                                       .count = 1,
                                       .classes = classes,
                                       .scale = 1};
    }
    d->source.rows = d->bytes;
    d->source.nrows = (uint64_t)rows;
    d->source.nfeatures = d->source.ntargets = 1;
    d->source.features = &d->feature;
    d->source.targets = &d->target;
    d->source.inputs = inputs;
}

static inline void data_split(struct data *d, double validation)
{
    struct bp_split_config config = {.seed = 1, .validation = validation, .nrows = (uint64_t)d->rows};
    struct bp_error err;

    config.test_first = config.nrows;
    assert_int_equal(bp_split_make(&config, &d->split, &err), BP_OK);
}

static inline void data_done(struct data *d)
{
    bp_split_done(&d->split);
    free(d->bytes);
}

static inline float noise(uint64_t seed, uint64_t i)
{
    uint32_t words[4];

    bp_random(seed, 0, 0, i, words);
    return 2.0f * bp_random_unit(words[0]) - 1.0f;
}

/* Random inputs; a class, or values, that follow from them. */
static inline void data_fill(struct data *d, int classes)
{
    for (int r = 0; r < d->rows; r++) {
        float *x = data_x(d, r), best = -1e9f;

        for (int i = 0; i < d->inputs; i++) {
            x[i] = noise(11, (uint64_t)r * (uint64_t)d->inputs + (uint64_t)i);
        }
        for (int c = 0; c < classes || c < d->values; c++) {
            float score = 0.0f;
            for (int i = 0; i < d->inputs; i++) {
                score += x[i] * noise(12, (uint64_t)c * (uint64_t)d->inputs + (uint64_t)i);
            }
            if (c < d->values) {
                data_value(d, r)[c] = score + 0.3f * x[0] * x[1];
            }
            if (c < classes && score > best) {
                best = score;
                *data_label(d, r) = c;
            }
        }
    }
}

static inline int add_node(struct bp_graph *graph, struct bp_node node, int input, const char *name)
{
    struct bp_error err;
    int index = -1;

    node.ninputs = 1;
    node.input[0] = input;
    node.trainable = true;
    strncpy(node.name, name, BP_NAME_MAX);
    assert_int_equal(bp_graph_add(graph, &node, &index, &err), BP_OK);
    return index;
}

static inline int add_dense(struct bp_graph *graph, int input, const char *name, int units, double l2)
{
    struct bp_node node = {.kind = BP_OP_DENSE};

    node.u.dense = (struct bp_dense_config){.units = units,
                                            .use_bias = true,
                                            .kernel_init = {.kind = BP_INIT_KAIMING_UNIFORM},
                                            .bias_init = {.kind = BP_INIT_KAIMING_UNIFORM},
                                            .l2 = l2};
    return add_node(graph, node, input, name);
}

static inline struct bp_graph *graph_new(int inputs)
{
    struct bp_shape shape = {.rank = 1, .dim = {inputs}};
    struct bp_graph *graph = NULL;
    struct bp_error err;

    assert_int_equal(bp_graph_new(&shape, &graph, &err), BP_OK);
    return graph;
}

/* inputs -> (dense, activation, dropout) for each hidden layer -> dense with a loss. */
static inline struct bp_graph *mlp(int inputs, const int *hidden, int nhidden, enum bp_activation kind,
                                   double dropout, int outputs, enum bp_loss loss)
{
    struct bp_graph *graph = graph_new(inputs);
    struct bp_error err;
    char name[32];
    int node = 0;

    for (int i = 0; i < nhidden; i++) {
        struct bp_node activation = {.kind = BP_OP_ACTIVATION}, drop = {.kind = BP_OP_DROPOUT};

        snprintf(name, sizeof name, "hidden%d", i);
        node = add_dense(graph, node, name, hidden[i], 0.0);
        activation.u.activation.kind = kind;
        snprintf(name, sizeof name, "active%d", i);
        node = add_node(graph, activation, node, name);
        if (dropout > 0.0) {
            drop.u.dropout.rate = dropout;
            snprintf(name, sizeof name, "drop%d", i);
            node = add_node(graph, drop, node, name);
        }
    }
    node = add_dense(graph, node, "out", outputs, 0.0);
    assert_int_equal(bp_graph_add_head(graph, node, loss, 1.0, &err), BP_OK);
    return graph;
}

static inline struct bp_train_config config_default(void)
{
    return (struct bp_train_config){
        .seed = 3,
        .epochs = 10,
        .batch_size = 32,
        .shuffle = true,
        .optimizer = {.kind = BP_ADAM, .lr = 0.001, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
        .monitor = {BP_METRIC_LOSS, true, 0},
        .restore_best = true,
        .threads = 1,
        .metrics = (1u << BP_METRIC_TOP_K) - 1,
    };
}

static inline struct bp_trainer *trainer_new(const struct bp_train_config *config, const struct bp_graph *graph,
                                             const struct data *d)
{
    struct bp_trainer *trainer = NULL;
    struct bp_error err = {0};
    bp_status status = bp_trainer_new(config, graph, &d->source, &d->split, &trainer, &err);

    if (status != BP_OK) {
        fail_msg("bp_trainer_new: %s", err.message);
    }
    return trainer;
}

static inline uint64_t hash_of(const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint64_t hash = 14695981039346656037u;

    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ p[i]) * 1099511628211u;
    }
    return hash;
}

/* Of the parameters and the optimizer's slots. */
static inline uint64_t hash_state(const struct bp_trainer *t)
{
    uint64_t hash = hash_of(t->model->params, t->graph->nparams * sizeof(float));

    for (int s = 0; s < t->model->nslots; s++) {
        hash = hash * 31 + hash_of(t->model->slots[s], t->graph->nparams * sizeof(float));
    }
    return hash;
}

/* A checkpoint of the trainer as it is: malloc'd. */
static inline uint8_t *encode(const struct bp_trainer *t, size_t *ret_size)
{
    size_t capacity = bp_checkpoint_size(t);
    uint8_t *bytes = malloc(capacity);
    struct bp_error err;

    assert_non_null(bytes);
    assert_int_equal(bp_checkpoint_encode(t, bytes, capacity, ret_size, &err), BP_OK);
    return bytes;
}

#endif
