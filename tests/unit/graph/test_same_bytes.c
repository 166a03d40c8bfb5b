/* The same bytes of loss, outputs and gradients for any number of threads and any instruction set. */
#include "graph/exec.h"
#include "graph/nets.h"

#include "base/random.h"

#include <stdlib.h>

#define ROWS 500

static const char *const sets[] = {"generic", "avx2", "avx512", "neon"};

/* Large enough for a team, with odd sizes, several tiles, several chunks of rows, and fan-out. */
static struct bp_graph *graph_of(void)
{
    struct bp_graph *graph = net_new(2, 10, 13, 0);
    int n = net_act(graph, net_dense(graph, net_flatten(graph, 0), 301), BP_RELU, 0);
    int trunk = net_dropout(graph, n, 0.2);
    int left = net_act(graph, net_dense(graph, trunk, 67), BP_TANH, 0);
    int right = net_act(graph, net_dense(graph, trunk, 33), BP_MISH, 0);
    net_head(graph, net_dense(graph, left, 10), BP_LOSS_CROSS_ENTROPY, 1);
    net_head(graph, net_dense(graph, right, 3), BP_LOSS_BCE, 0.5);
    return graph;
}

/* Few enough weights that a thread makes the gradients of its own chunks; few inputs, many and few units. */
static struct bp_graph *small_graph(void)
{
    struct bp_graph *graph = net_new(1, 9, 0, 0);
    int n = net_dropout(graph, net_act(graph, net_dense(graph, 0, 48), BP_RELU, 0), 0.2);
    int trunk = net_act(graph, net_dense(graph, n, 41), BP_TANH, 0);
    net_head(graph, net_dense(graph, trunk, 10), BP_LOSS_CROSS_ENTROPY, 1);
    net_head(graph, net_dense(graph, trunk, 3), BP_LOSS_BCE, 0.5);
    return graph;
}

struct run {
    const struct bp_graph *graph;
    int capacity, rows, threads, active;
    struct bp_model *model;
    struct bp_exec *exec;
    double loss;
};

static void leader(struct bp_team *team, void *arg)
{
    struct run *run = arg;
    bp_team_set_active(team, run->active);
    bp_model_pack(run->model, team);
    run->loss = bp_exec_pass(run->exec, team, run->rows, true, 3, 4);
    bp_exec_forward(run->exec, team, run->rows);
    run->loss += bp_exec_pass(run->exec, team, run->rows, false, 3, 4);
    run->loss += bp_exec_pass(run->exec, team, run->rows, true, 3, 5);
}

static uint32_t word(uint32_t stream, uint64_t index)
{
    uint32_t w[4];
    bp_random(8, stream, 0, index, w);
    return w[0];
}

/* Runs the passes and puts all bytes that came out one after the other. */
static float *result(struct run run, size_t *ret_bytes)
{
    const struct bp_graph *graph = run.graph;
    struct bp_exec_options options = {
        .capacity = run.capacity, .training = true, .input_gradient = true, .threads = run.threads};
    size_t rows = (size_t)run.rows, inputs = rows * (size_t)bp_shape_elements(&graph->nodes[0].shape);
    assert_int_equal(bp_model_new(graph, true, 0, &run.model, NULL), BP_OK);
    assert_int_equal(bp_exec_new(run.model, &options, &run.exec, NULL), BP_OK);
    for (size_t i = 0; i < run.model->nparams; i++)
        run.model->params[i] = 0.2f * (bp_random_unit(word(1, i)) - 0.5f);
    for (size_t i = 0; i < inputs; i++)
        bp_exec_input(run.exec)[i] = 2 * bp_random_unit(word(2, i)) - 1;
    for (size_t r = 0; r < rows; r++) {
        bp_exec_targets(run.exec, 0)->label[r] = (int32_t)(word(3, r) % 10);
        for (size_t i = 0; i < 3; i++)
            bp_exec_targets(run.exec, 1)->value[3 * r + i] = (float)(word(4, 3 * r + i) % 2);
    }
    bp_team_run(run.threads, leader, &run);

    size_t params = run.model->nparams, outputs = rows * 10;
    float *bytes = malloc((params + outputs + inputs) * sizeof *bytes + sizeof(double));
    memcpy(bytes, run.model->grads, params * sizeof *bytes);
    memcpy(bytes + params, bp_exec_output(run.exec, 0), outputs * sizeof *bytes);
    memcpy(bytes + params + outputs, bp_exec_input_gradient(run.exec), inputs * sizeof *bytes);
    memcpy(bytes + params + outputs + inputs, &run.loss, sizeof run.loss);
    *ret_bytes = (params + outputs + inputs) * sizeof *bytes + sizeof(double);
    bp_exec_free(run.exec);
    bp_model_free(run.model);
    return bytes;
}

/* FNV-1a of the bytes. A change of one of these values is a change of what training computes: it has to be meant, and the
 * numerics version raised with it. */
#define GOLDEN 0xec1cc7e099132c26ULL
#define GOLDEN_SMALL 0x1dfa5a64953e5af1ULL

static uint64_t hash(const void *bytes, size_t size)
{
    uint64_t h = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < size; i++)
        h = (h ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3ULL;
    return h;
}

static void same_everywhere(struct bp_graph *graph, uint64_t golden)
{
    static const int threads[] = {1, 2, 3, 5, 8};
    float *first = NULL;
    size_t bytes;
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        if (bp_kernels_select(sets[s], NULL) != BP_OK)
            continue;
        for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
            float *now = result(
                (struct run){
                    .graph = graph, .capacity = ROWS, .rows = ROWS, .threads = threads[t], .active = threads[t]},
                &bytes);
            if (first == NULL)
                first = now;
            else
                assert_memory_equal(first, now, bytes);
            if (now != first)
                free(now);
        }
    }
    if (hash(first, bytes) != golden)
        fail_msg("the bytes have changed: their hash is 0x%llx", (unsigned long long)hash(first, bytes));
    float *some = result((struct run){.graph = graph, .capacity = ROWS, .rows = ROWS, .threads = 4, .active = 2},
                         &bytes); /* half of a team */
    assert_memory_equal(first, some, bytes);
    free(some);
    free(first);
    bp_graph_free(graph);
    assert_int_equal(bp_kernels_select(NULL, NULL), BP_OK);
}

static void any_threads_and_instruction_set(void **state)
{
    (void)state;
    same_everywhere(graph_of(), GOLDEN);
    same_everywhere(small_graph(), GOLDEN_SMALL);
}

/* Chunks of rows with sums of their own: as many for each thread or one more for some, the last one short; few sums, which
 * one thread adds up, and many; and weights that no loss depends on. */
static void any_chunks(void **state)
{
    enum { CAPACITY = 22 * BP_ROW_CHUNK };
    static const int rows[] = {CAPACITY, 20 * BP_ROW_CHUNK - 3, 12 * BP_ROW_CHUNK + 1, 2 * BP_ROW_CHUNK - 1, 1};
    struct bp_graph *graph = small_graph();
    size_t bytes;
    (void)state;
    net_dense(graph, 0, 7);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float *alone = result(
            (struct run){.graph = graph, .capacity = CAPACITY, .rows = rows[i], .threads = 1, .active = 1}, &bytes);
        for (int threads = 2; threads <= 5; threads++) {
            float *together = result(
                (struct run){
                    .graph = graph, .capacity = CAPACITY, .rows = rows[i], .threads = threads, .active = threads},
                &bytes);
            assert_memory_equal(alone, together, bytes);
            free(together);
        }
        free(alone);
    }
    bp_graph_free(graph);
}

/* --- by columns or by rows ---------------------------------------------------------------------------------------- */

#define FEW 37 /* rows: so few that the layers below have more weights than activations, and are run by columns */

static struct bp_graph *wide_graph(void)
{
    struct bp_graph *graph = net_new(1, 200, 0, 0);
    struct bp_node norm = {.kind = BP_OP_BATCH_NORM, .trainable = true};
    norm.u.norm.eps = 1e-5;
    norm.u.norm.momentum = 0.1;
    norm.u.norm.affine = true;
    int n = net_add(graph, norm, net_dense(graph, 0, 301));
    n = net_dropout(graph, net_act(graph, n, BP_GELU, 0), 0.2);
    n = net_act(graph, net_dense(graph, n, 290), BP_ELU, 0.3); /* its slope reads x and y */
    n = net_act(graph, net_dense(graph, n, 333), BP_RELU, 0);
    n = net_act(graph, net_dense(graph, n, 97), BP_SOFTMAX, 0); /* not by columns */
    net_head(graph, net_dense(graph, n, 3), BP_LOSS_MSE, 1);
    return graph;
}

struct few {
    struct bp_exec *exec;
    struct bp_model *model;
    double loss;
};

static void few_lead(struct bp_team *team, void *arg)
{
    struct few *run = arg;
    bp_model_pack(run->model, team);
    for (uint64_t step = 0; step < 2; step++)
        run->loss += bp_exec_pass(run->exec, team, FEW, true, 3, step);
    bp_exec_forward(run->exec, team, FEW);
}

/* Gradients, statistics, outputs and loss of an execution planned for `capacity` rows. */
static float *few_result(const struct bp_graph *graph, int capacity, int threads, size_t *ret_bytes)
{
    struct few run = {0};
    struct bp_exec_options options = {.capacity = capacity, .training = true, .threads = threads};
    assert_int_equal(bp_model_new(graph, true, 0, &run.model, NULL), BP_OK);
    assert_int_equal(bp_exec_new(run.model, &options, &run.exec, NULL), BP_OK);
    char *plan = bp_exec_print(run.exec);
    assert_true((strstr(plan, "by columns, of 333") != NULL) == (capacity == FEW));
    free(plan);
    for (size_t i = 0; i < run.model->nparams; i++)
        run.model->params[i] = 0.2f * (bp_random_unit(word(1, i)) - 0.5f);
    for (size_t i = 0; i < FEW * 200; i++)
        bp_exec_input(run.exec)[i] = 2 * bp_random_unit(word(2, i)) - 1;
    for (size_t i = 0; i < FEW * 3; i++)
        bp_exec_targets(run.exec, 0)->value[i] = bp_random_unit(word(4, i));
    bp_team_run(threads, few_lead, &run);

    size_t params = run.model->nparams, stats = run.model->nstats, all = params + stats + FEW * 3;
    float *bytes = malloc(all * sizeof *bytes + sizeof run.loss);
    memcpy(bytes, run.model->grads, params * sizeof *bytes);
    memcpy(bytes + params, run.model->stats, stats * sizeof *bytes);
    memcpy(bytes + params + stats, bp_exec_output(run.exec, 0), FEW * 3 * sizeof *bytes);
    memcpy(bytes + all, &run.loss, sizeof run.loss);
    *ret_bytes = all * sizeof *bytes + sizeof run.loss;
    bp_exec_free(run.exec);
    bp_model_free(run.model);
    return bytes;
}

static void by_columns_or_by_rows(void **state)
{
    struct bp_graph *graph = wide_graph();
    size_t bytes;
    float *by_rows = few_result(graph, 2000, 1, &bytes);
    (void)state;
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        if (bp_kernels_select(sets[s], NULL) != BP_OK)
            continue;
        for (int threads = 1; threads <= 5; threads++) {
            float *by_columns = few_result(graph, FEW, threads, &bytes);
            assert_memory_equal(by_rows, by_columns, bytes);
            free(by_columns);
        }
    }
    free(by_rows);
    bp_graph_free(graph);
    assert_int_equal(bp_kernels_select(NULL, NULL), BP_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_threads_and_instruction_set),
                                       cmocka_unit_test(any_chunks), cmocka_unit_test(by_columns_or_by_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
