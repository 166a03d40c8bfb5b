/* Normalization, joins and attention: the same bytes for any number of threads, any instruction set and (where rows do
 * not meet) any batch; the running statistics; masks; what a graph refuses. */
#include "graph/exec.h"
#include "graph/nets.h"

#include "base/random.h"

#include <math.h>
#include <stdlib.h>

#define ROWS 300 /* several chunks of rows, the last one short */

static struct bp_node norm_node(enum bp_op_kind kind, bool trainable)
{
    return (struct bp_node){
        .kind = kind, .trainable = trainable, .u.norm = {.eps = 1e-5, .momentum = 0.1, .groups = 4, .affine = true}};
}

static int join(struct bp_graph *graph, struct bp_node node, int a, int b)
{
    struct bp_error err = {0};
    int index = -1;
    snprintf(node.name, sizeof node.name, "n%d", graph->nnodes);
    node.ninputs = 2;
    node.input[0] = a;
    node.input[1] = b;
    if (bp_graph_add(graph, &node, &index, &err) != BP_OK)
        fail_msg("%s", err.message);
    return index;
}

static struct bp_node attention_node(int heads, bool causal, double dropout)
{
    return (struct bp_node){.kind = BP_OP_MULTI_HEAD_ATTENTION,
                            .trainable = true,
                            .u.attention = {.heads = heads, .causal = causal, .dropout = dropout}};
}

/* A sequence through attention, both kinds of normalization, several joins. */
static struct bp_graph *graph_of(bool over_batch)
{
    struct bp_graph *graph = net_new(2, 28, 24, 0);
    int n = net_add(graph, norm_node(BP_OP_LAYER_NORM, true), 0);
    n = net_add(graph, attention_node(3, true, 0.1), n);
    int trunk = join(graph, (struct bp_node){.kind = BP_OP_ADD}, n, 0);
    n = net_add(graph, norm_node(BP_OP_GROUP_NORM, true), trunk);
    if (over_batch)
        n = net_add(graph, norm_node(BP_OP_BATCH_NORM, true), n); /* 28 planes */
    n = join(graph, (struct bp_node){.kind = BP_OP_MULTIPLY}, n, trunk);
    int left = net_dense(graph, net_flatten(graph, n), 71);
    if (over_batch)
        left = net_add(graph, norm_node(BP_OP_BATCH_NORM, true), left); /* columns: three tasks */
    left = net_act(graph, left, BP_TANH, 0);
    int right = net_dense(graph, net_flatten(graph, trunk), 33);
    right = net_act(graph, net_add(graph, norm_node(BP_OP_LAYER_NORM, true), right), BP_GELU, 0);
    n = join(graph, (struct bp_node){.kind = BP_OP_CONCAT, .u.concat = {BP_AXIS_CHANNELS}}, left, right);
    net_head(graph, net_dense(graph, n, 10), BP_LOSS_CROSS_ENTROPY, 1);
    return graph;
}

struct run {
    struct bp_model *model;
    struct bp_exec *exec;
    int rows;
    double loss;
};

static void leader(struct bp_team *team, void *arg)
{
    struct run *run = arg;
    bp_model_pack(run->model, team);
    run->loss = bp_exec_pass(run->exec, team, run->rows, true, 3, 4);
    bp_exec_forward(run->exec, team, run->rows);
    run->loss += bp_exec_pass(run->exec, team, run->rows, true, 3, 5);
}

static uint32_t word(uint32_t stream, uint64_t index)
{
    uint32_t w[4];
    bp_random(8, stream, 0, index, w);
    return w[0];
}

static void fill(const struct bp_graph *graph, struct run *run, int first, int rows)
{
    size_t inputs = (size_t)bp_shape_elements(&graph->nodes[0].shape);
    for (size_t i = 0; i < run->model->nparams; i++)
        run->model->params[i] = 0.3f * (bp_random_unit(word(1, i)) - 0.4f);
    for (int t = 0; t < graph->ntensors; t++)
        for (size_t i = 0; graph->tensors[t].statistic && i < graph->tensors[t].count; i++)
            run->model->stats[graph->tensors[t].offset + i] = 0.5f + bp_random_unit(word(5, i));
    for (size_t i = 0; i < (size_t)rows * inputs; i++)
        bp_exec_input(run->exec)[i] = 2 * bp_random_unit(word(2, (size_t)first * inputs + i)) - 1;
    for (int r = 0; r < rows; r++)
        bp_exec_targets(run->exec, 0)->label[r] = (int32_t)(word(3, (size_t)(first + r)) % 10);
    run->rows = rows;
}

static void start(const struct bp_graph *graph, struct run *run, int threads, int first, int rows)
{
    struct bp_exec_options options = {.capacity = rows, .training = true, .input_gradient = true, .threads = threads};
    assert_int_equal(bp_model_new(graph, true, 0, &run->model, NULL), BP_OK);
    assert_int_equal(bp_exec_new(run->model, &options, &run->exec, NULL), BP_OK);
    fill(graph, run, first, rows);
}

static void stop(struct run *run)
{
    bp_exec_free(run->exec);
    bp_model_free(run->model);
}

/* All bytes that come out of two passes. */
static float *result(const struct bp_graph *graph, int threads, size_t *ret_bytes)
{
    struct run run;
    start(graph, &run, threads, 0, ROWS);
    bp_team_run(threads, leader, &run);
    size_t params = run.model->nparams, stats = run.model->nstats, outputs = ROWS * 10;
    size_t inputs = ROWS * (size_t)bp_shape_elements(&graph->nodes[0].shape);
    float *bytes = malloc((params + stats + outputs + inputs) * sizeof *bytes + sizeof(double)), *at = bytes;
    memcpy(at, run.model->grads, params * sizeof *at);
    memcpy(at += params, run.model->stats, stats * sizeof *at);
    memcpy(at += stats, bp_exec_output(run.exec, 0), outputs * sizeof *at);
    memcpy(at += outputs, bp_exec_input_gradient(run.exec), inputs * sizeof *at);
    memcpy(at + inputs, &run.loss, sizeof run.loss);
    *ret_bytes = (params + stats + outputs + inputs) * sizeof *bytes + sizeof(double);
    stop(&run);
    return bytes;
}

/* A change of this value is a change of what training computes: it has to be meant, and the numerics version raised
 * with it. */
#define GOLDEN 0x924a7b989be2f81ULL

static uint64_t hash(const void *bytes, size_t size)
{
    uint64_t h = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < size; i++)
        h = (h ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3ULL;
    return h;
}

static void any_threads_and_instruction_set(void **state)
{
    static const char *const sets[] = {"generic", "avx2", "avx512", "neon"};
    static const int threads[] = {1, 2, 3, 5};
    struct bp_graph *graph = graph_of(true);
    float *first = NULL;
    size_t bytes = 0;
    (void)state;
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        if (bp_kernels_select(sets[s], NULL) != BP_OK)
            continue;
        for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
            float *now = result(graph, threads[t], &bytes);
            if (first == NULL)
                first = now;
            else
                assert_memory_equal(first, now, bytes);
            if (now != first)
                free(now);
        }
    }
    for (size_t i = 0; i < bytes / sizeof *first; i++)
        assert_true(isfinite(first[i]));
    if (hash(first, bytes) != GOLDEN)
        fail_msg("the bytes have changed: their hash is 0x%llx", (unsigned long long)hash(first, bytes));
    free(first);
    bp_graph_free(graph);
    assert_int_equal(bp_kernels_select(NULL, NULL), BP_OK);
}

/* Without batch_norm, and in prediction mode with it, a row gives the same whatever rows are beside it. */
static void rows_do_not_meet(void **state)
{
    (void)state;
    for (int over_batch = 0; over_batch < 2; over_batch++) {
        struct bp_graph *graph = graph_of(over_batch);
        struct run all, some;
        start(graph, &all, 2, 0, 37);
        bp_model_pack(all.model, NULL);
        bp_exec_forward(all.exec, NULL, 37);
        for (int first = 0; first < 37; first += 9) {
            int rows = first + 5 <= 37 ? 5 : 37 - first;
            start(graph, &some, 1, first, rows);
            bp_model_pack(some.model, NULL);
            bp_exec_forward(some.exec, NULL, rows);
            assert_memory_equal(bp_exec_output(all.exec, 0) + first * 10, bp_exec_output(some.exec, 0),
                                (size_t)rows * 10 * sizeof(float));
            stop(&some);
        }
        stop(&all);
        bp_graph_free(graph);
    }
}

static const float *statistic(const struct run *run, const char *name)
{
    const struct bp_graph *graph = run->model->graph;
    for (int t = 0; t < graph->ntensors; t++)
        if (strcmp(graph->tensors[t].name, name) == 0) {
            assert_true(graph->tensors[t].statistic);
            return run->model->stats + graph->tensors[t].offset;
        }
    fail_msg("there is no %s", name);
    return NULL;
}

/* Against the definition: 5 rows of 3 channels with 2 positions, once with columns and once with planes. */
static void running_statistics(void **state)
{
    (void)state;
    for (int positions = 1; positions <= 2; positions++) {
        struct bp_graph *graph = positions == 1 ? net_new(1, 3, 0, 0) : net_new(3, 3, 1, 2);
        int n = net_add(graph, norm_node(BP_OP_BATCH_NORM, true), 0);
        net_head(graph, net_dense(graph, net_flatten(graph, n), 10), BP_LOSS_CROSS_ENTROPY, 1);
        struct run run;
        start(graph, &run, 1, 0, 5);
        float before[2][3];
        memcpy(before[0], statistic(&run, "n1.running_mean"), sizeof before[0]);
        memcpy(before[1], statistic(&run, "n1.running_var"), sizeof before[1]);
        bp_model_pack(run.model, NULL);
        bp_exec_forward(run.exec, NULL, 5);
        bp_exec_pass(run.exec, NULL, 5, false, 0, 0);
        assert_memory_equal(before[0], statistic(&run, "n1.running_mean"), sizeof before[0]); /* prediction: no */
        bp_exec_pass(run.exec, NULL, 5, true, 0, 0);
        for (int c = 0; c < 3; c++) {
            double mean = 0, var = 0, count = 5.0 * positions;
            for (int r = 0; r < 5; r++)
                for (int p = 0; p < positions; p++)
                    mean += (double)bp_exec_input(run.exec)[(r * 3 + c) * positions + p] / count;
            for (int r = 0; r < 5; r++)
                for (int p = 0; p < positions; p++)
                    var += pow((double)bp_exec_input(run.exec)[(r * 3 + c) * positions + p] - mean, 2);
            var /= count - 1;
            assert_true(fabs(statistic(&run, "n1.running_mean")[c] - (0.9 * before[0][c] + 0.1 * mean)) < 1e-6);
            assert_true(fabs(statistic(&run, "n1.running_var")[c] - (0.9 * before[1][c] + 0.1 * var)) < 1e-6);
        }
        stop(&run);
        bp_graph_free(graph);
    }
}

/* One row has no variance: nothing but the mean learns, and all stays finite. */
static void a_batch_of_one_row(void **state)
{
    (void)state;
    struct bp_graph *graph = net_new(1, 3, 0, 0);
    int n = net_add(graph, norm_node(BP_OP_BATCH_NORM, true), net_dense(graph, 0, 3));
    net_head(graph, net_dense(graph, n, 10), BP_LOSS_CROSS_ENTROPY, 1);
    struct run run;
    start(graph, &run, 1, 0, 1);
    float mean = *statistic(&run, "n2.running_mean"), variance = *statistic(&run, "n2.running_var");
    bp_model_pack(run.model, NULL);
    assert_true(isfinite(bp_exec_pass(run.exec, NULL, 1, true, 0, 0)));
    assert_true(mean != *statistic(&run, "n2.running_mean"));
    assert_true(variance == *statistic(&run, "n2.running_var"));
    for (size_t i = 0; i < run.model->nparams; i++)
        assert_true(isfinite(run.model->grads[i]));
    for (size_t i = 0; i < 3; i++)
        assert_true(bp_exec_input_gradient(run.exec)[i] == 0); /* no error signal passes */
    stop(&run);
    bp_graph_free(graph);
}

/* A frozen layer predicts in training mode too, and leaves its statistics. */
static void frozen_batch_norm(void **state)
{
    (void)state;
    struct bp_graph *graph = net_new(1, 5, 0, 0);
    int n = net_add(graph, norm_node(BP_OP_BATCH_NORM, false), net_dense(graph, 0, 5));
    net_head(graph, net_dense(graph, n, 10), BP_LOSS_CROSS_ENTROPY, 1);
    struct run run;
    float before[10], output[70];
    start(graph, &run, 1, 0, 7);
    assert_int_equal(run.model->nstats, 10);
    memcpy(before, run.model->stats, sizeof before);
    bp_model_pack(run.model, NULL);
    bp_exec_forward(run.exec, NULL, 7);
    memcpy(output, bp_exec_output(run.exec, 0), sizeof output);
    bp_exec_pass(run.exec, NULL, 7, true, 0, 0);
    assert_memory_equal(output, bp_exec_output(run.exec, 0), sizeof output);
    assert_memory_equal(before, run.model->stats, sizeof before);
    stop(&run);
    bp_graph_free(graph);
}

/* The input holds a sequence of 4 steps with 6 features and, at the end of each step, whether it counts. */
static void padding_is_not_looked_at(void **state)
{
    (void)state;
    struct bp_graph *graph = net_new(2, 4, 6, 0);
    int flat = net_flatten(graph, 0), mask = net_dense(graph, flat, 4);
    int n = join(graph, attention_node(2, false, 0), 0, mask);
    net_head(graph, net_dense(graph, net_flatten(graph, n), 10), BP_LOSS_CROSS_ENTROPY, 1);
    struct run run;
    float kept[10];
    start(graph, &run, 1, 0, 2);
    const struct bp_tensor *weight = &graph->tensors[graph->nodes[mask].tensor[0]];
    memset(run.model->params + weight->offset, 0, (weight->count + 4) * sizeof(float)); /* the bias comes after */
    for (int i = 0; i < 4; i++)
        run.model->params[weight->offset + (size_t)i * 24 + (size_t)i * 6 + 5] = 1; /* feature 5 of step i */
    bp_model_pack(run.model, NULL);
    float *x = bp_exec_input(run.exec);
    for (int i = 0; i < 4; i++)
        x[i * 6 + 5] = i < 2 ? 1 : 0;
    /* What a padded step holds changes its own result only: compare a network that reads the first step's. */
    const struct bp_tensor *last = &graph->tensors[graph->nodes[graph->nnodes - 1].tensor[0]];
    for (int o = 0; o < 10; o++)
        for (int i = 12; i < 24; i++)
            run.model->params[last->offset + (size_t)o * 24 + (size_t)i] = 0;
    bp_model_pack(run.model, NULL);
    bp_exec_forward(run.exec, NULL, 1);
    memcpy(kept, bp_exec_output(run.exec, 0), sizeof kept);
    for (int i = 12; i < 24; i++)
        x[i] = i % 6 == 5 ? 0 : 1000;
    bp_exec_forward(run.exec, NULL, 1);
    assert_memory_equal(kept, bp_exec_output(run.exec, 0), sizeof kept);
    for (int i = 0; i < 4; i++) /* nothing to look at: only biases are left, all is finite */
        x[i * 6 + 5] = 0;
    assert_true(isfinite(bp_exec_pass(run.exec, NULL, 1, true, 0, 0)));
    for (size_t i = 0; i < run.model->nparams; i++)
        assert_true(isfinite(run.model->grads[i]));
    stop(&run);
    bp_graph_free(graph);
}

/* With causal, the results of the first steps do not depend on the later ones. */
static void causal_looks_back_only(void **state)
{
    (void)state;
    struct bp_graph *graph = net_new(2, 9, 4, 0);
    int n = net_add(graph, attention_node(2, true, 0), 0);
    net_head(graph, net_flatten(graph, n), BP_LOSS_CROSS_ENTROPY, 1);
    struct run run;
    float kept[36];
    start(graph, &run, 1, 0, 1);
    bp_model_pack(run.model, NULL);
    bp_exec_forward(run.exec, NULL, 1);
    memcpy(kept, bp_exec_output(run.exec, 0), sizeof kept);
    for (int i = 20; i < 36; i++)
        bp_exec_input(run.exec)[i] = 5;
    bp_exec_forward(run.exec, NULL, 1);
    assert_memory_equal(kept, bp_exec_output(run.exec, 0), 20 * sizeof(float));
    assert_memory_not_equal(kept + 20, bp_exec_output(run.exec, 0) + 20, 16 * sizeof(float));
    stop(&run);
    bp_graph_free(graph);
}

static void what_is_refused(void **state)
{
    (void)state;
    struct bp_graph *graph = net_new(1, 6, 0, 0);
    struct bp_error err;
    int index, vector = net_dense(graph, 0, 4), sequence;
    struct bp_node bad = norm_node(BP_OP_GROUP_NORM, true);
    snprintf(bad.name, sizeof bad.name, "bad");
    bad.ninputs = 1; /* 4 groups of 6 channels */
    assert_int_equal(bp_graph_add(graph, &bad, &index, &err), BP_INVALID);
    assert_non_null(strstr(err.message, "4 groups must divide the 6 channels"));
    bad = norm_node(BP_OP_BATCH_NORM, true);
    snprintf(bad.name, sizeof bad.name, "bad");
    bad.ninputs = 1;
    bad.u.norm.eps = 0;
    assert_int_equal(bp_graph_add(graph, &bad, &index, &err), BP_INVALID);
    bad.u.norm.eps = 1e-60; /* 0 as a float */
    assert_int_equal(bp_graph_add(graph, &bad, &index, &err), BP_INVALID);
    bad.u.norm = (struct bp_norm_config){.eps = 1e-5, .momentum = 1.5};
    assert_int_equal(bp_graph_add(graph, &bad, &index, &err), BP_INVALID);
    bad = (struct bp_node){.kind = BP_OP_ADD, .name = "bad", .ninputs = 2, .input = {0, vector}};
    assert_int_equal(bp_graph_add(graph, &bad, &index, &err), BP_INVALID);
    assert_non_null(strstr(err.message, "'input' gives [6], but 'n1' gives [4]"));
    bad.ninputs = 1;
    assert_int_equal(bp_graph_add(graph, &bad, &index, &err), BP_INVALID);
    bad = (struct bp_node){.kind = BP_OP_CONCAT, .name = "bad", .ninputs = 2, .input = {0, vector}, .u.concat = {1}};
    assert_int_equal(bp_graph_add(graph, &bad, &index, &err), BP_INVALID);
    assert_non_null(strstr(err.message, "there is no axis 1"));
    bad = attention_node(2, false, 0);
    snprintf(bad.name, sizeof bad.name, "bad");
    bad.ninputs = 1;
    assert_int_equal(bp_graph_add(graph, &bad, &index, &err), BP_INVALID);
    assert_non_null(strstr(err.message, "put a reshape layer before it"));
    bp_graph_free(graph);

    graph = net_new(2, 4, 6, 0);
    sequence = net_add(graph, attention_node(3, false, 0), 0);
    bad.input[0] = sequence;
    bad.u.attention.heads = 4;
    assert_int_equal(bp_graph_add(graph, &bad, &index, &err), BP_INVALID);
    assert_non_null(strstr(err.message, "4 heads do not divide the 6 features"));
    bad.u.attention = (struct bp_attention_config){.heads = 2, .dropout = 1};
    assert_int_equal(bp_graph_add(graph, &bad, &index, &err), BP_INVALID);
    bad.u.attention = (struct bp_attention_config){.heads = 1000000, .key_dim = 1000000};
    assert_int_equal(bp_graph_add(graph, &bad, &index, &err), BP_LIMIT);
    bad.u.attention = (struct bp_attention_config){.heads = 2};
    bad.ninputs = 2; /* the sequence as its own mask */
    bad.input[1] = sequence;
    assert_int_equal(bp_graph_add(graph, &bad, &index, &err), BP_INVALID);
    assert_non_null(strstr(err.message, "one number for each of the 4 steps"));
    bp_graph_free(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_threads_and_instruction_set),
        cmocka_unit_test(rows_do_not_meet),
        cmocka_unit_test(running_statistics),
        cmocka_unit_test(a_batch_of_one_row),
        cmocka_unit_test(frozen_batch_norm),
        cmocka_unit_test(padding_is_not_looked_at),
        cmocka_unit_test(causal_looks_back_only),
        cmocka_unit_test(what_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
