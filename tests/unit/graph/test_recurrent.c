/* Recurrent layers: shapes that fit, messages where they do not, the same bytes for any threads, instruction set and
 * batch, and what `reverse` means. Their gradients and PyTorch's numbers are tested in train/. */
#include "graph/exec.h"
#include "graph/nets.h"

#include "base/memory.h"

#include <stdlib.h>

static int net_recurrent(struct bp_graph *graph, int from, enum bp_op_kind kind, int64_t units, bool sequences,
                         bool reverse)
{
    struct bp_node node = {.kind = kind, .trainable = true};
    node.u.recurrent = (struct bp_recurrent_config){
        .units = units, .use_bias = true, .return_sequences = sequences, .reverse = reverse, .activation = BP_TANH};
    return net_add(graph, node, from);
}

static float unit(uint32_t stream, uint64_t index)
{
    uint32_t w[4];
    bp_random(5, stream, 0, index, w);
    return 2 * bp_random_unit(w[0]) - 1;
}

static struct bp_model *model_of(const struct bp_graph *graph)
{
    struct bp_model *model;
    assert_int_equal(bp_model_new(graph, true, 0, &model, NULL), BP_OK);
    for (size_t i = 0; i < model->nparams; i++)
        model->params[i] = 0.3f * unit(1, i);
    bp_model_pack(model, NULL);
    return model;
}

static struct bp_exec *exec_of(struct bp_model *model, int capacity, int threads, bool training)
{
    struct bp_exec_options options = {
        .capacity = capacity, .training = training, .input_gradient = training, .threads = threads};
    struct bp_exec *exec;
    assert_int_equal(bp_exec_new(model, &options, &exec, NULL), BP_OK);
    return exec;
}

/* --- the same bytes ----------------------------------------------------------------------------------------------- */
enum { ROWS = 150, STEPS = 9, FEATURES = 21, CLASSES = 5, INPUTS = STEPS * FEATURES };

/* All three layers, tails of lanes, several tiles and chunks, fan-out. */
static struct bp_graph *graph_of(void)
{
    struct bp_graph *graph = net_new(2, STEPS, FEATURES, 0);
    int trunk = net_recurrent(graph, 0, BP_OP_LSTM, 70, true, false);
    int left = net_recurrent(graph, trunk, BP_OP_GRU, 67, false, true);
    int right = net_recurrent(graph, trunk, BP_OP_SIMPLE_RNN, 18, true, false);
    net_head(graph, net_dense(graph, left, CLASSES), BP_LOSS_CROSS_ENTROPY, 1);
    net_head(graph, net_dense(graph, net_flatten(graph, right), CLASSES), BP_LOSS_CROSS_ENTROPY, 0.5);
    return graph;
}

struct run {
    struct bp_exec *exec;
    double loss;
};

static void leader(struct bp_team *team, void *arg)
{
    struct run *run = arg;
    bp_exec_pass(run->exec, team, ROWS, true, 3, 4); /* a pass leaves nothing behind */
    run->loss = bp_exec_pass(run->exec, team, ROWS, true, 3, 5);
}

static void fill(struct bp_exec *exec, int rows)
{
    for (size_t i = 0; i < (size_t)rows * INPUTS; i++)
        bp_exec_input(exec)[i] = unit(2, i);
    for (int h = 0; h < 2; h++)
        for (int r = 0; r < rows; r++)
            bp_exec_targets(exec, h)->label[r] = (r * 7 + h) % CLASSES;
}

static uint64_t hash(uint64_t h, const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        h = (h ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3ULL;
    return h;
}

static uint64_t result(const struct bp_graph *graph, int threads)
{
    struct bp_model *model = model_of(graph);
    struct run run = {.exec = exec_of(model, ROWS, threads, true)};
    fill(run.exec, ROWS);
    bp_team_run(threads, leader, &run);
    uint64_t h = hash(0xcbf29ce484222325ULL, model->grads, model->nparams * sizeof(float));
    h = hash(h, bp_exec_output(run.exec, 0), ROWS * CLASSES * sizeof(float));
    h = hash(h, bp_exec_input_gradient(run.exec), ROWS * INPUTS * sizeof(float));
    h = hash(h, &run.loss, sizeof run.loss);
    bp_exec_free(run.exec);
    bp_model_free(model);
    return h;
}

/* A change of this value is a change of what training computes: it has to be meant, and the numerics version raised
 * with it. */
#define GOLDEN 0x810b27991af9be3bULL

static void any_threads_and_instruction_set(void **state)
{
    static const char *const sets[] = {"generic", "avx2", "avx512", "neon"};
    static const int threads[] = {1, 2, 3, 5};
    struct bp_graph *graph = graph_of();
    (void)state;
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        if (bp_kernels_select(sets[s], NULL) != BP_OK)
            continue;
        for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
            uint64_t h = result(graph, threads[t]);
            if (h != GOLDEN)
                fail_msg("%s, %d threads: the bytes have changed: their hash is 0x%llx", sets[s], threads[t],
                         (unsigned long long)h);
        }
    }
    bp_graph_free(graph);
    assert_int_equal(bp_kernels_select(NULL, NULL), BP_OK);
}

/* A row alone gives what it gives in a batch: outputs, and its gradient by the input up to the batch's mean. */
static void any_batch(void **state)
{
    struct bp_graph *graph = graph_of();
    struct bp_model *model = model_of(graph);
    struct bp_exec *many = exec_of(model, ROWS, 1, false), *one = exec_of(model, 1, 1, false);
    (void)state;
    fill(many, ROWS);
    bp_exec_forward(many, NULL, ROWS);
    for (int r = 0; r < ROWS; r += 7) {
        memcpy(bp_exec_input(one), bp_exec_input(many) + r * INPUTS, INPUTS * sizeof(float));
        bp_exec_forward(one, NULL, 1);
        for (int h = 0; h < 2; h++)
            assert_memory_equal(bp_exec_output(one, h), bp_exec_output(many, h) + r * CLASSES,
                                CLASSES * sizeof(float));
    }
    bp_exec_free(many);
    bp_exec_free(one);
    bp_model_free(model);
    bp_graph_free(graph);
}

/* --- reverse ------------------------------------------------------------------------------------------------------ */

/* Reading from the end is reading the flipped sequence, each state staying at its step. */
static void reverse_is_a_flip(void **state)
{
    static const enum bp_op_kind kinds[] = {BP_OP_SIMPLE_RNN, BP_OP_LSTM, BP_OP_GRU};
    enum { T = 4, F = 3, U = 5 };
    (void)state;
    for (int k = 0; k < 3; k++)
        for (int sequences = 0; sequences < 2; sequences++) {
            float out[2][T * U];
            for (int reverse = 0; reverse < 2; reverse++) {
                struct bp_graph *graph = net_new(2, T, F, 0);
                int n = net_recurrent(graph, 0, kinds[k], U, sequences, reverse);
                net_head(graph, net_flatten(graph, n), BP_LOSS_MSE, 1);
                struct bp_model *model = model_of(graph);
                struct bp_exec *exec = exec_of(model, 1, 1, false);
                for (int t = 0; t < T; t++)
                    for (int f = 0; f < F; f++)
                        bp_exec_input(exec)[(reverse ? T - 1 - t : t) * F + f] = unit(3, (uint64_t)(t * F + f));
                bp_exec_forward(exec, NULL, 1);
                memcpy(out[reverse], bp_exec_output(exec, 0), (sequences ? T : 1) * U * sizeof(float));
                bp_exec_free(exec);
                bp_model_free(model);
                bp_graph_free(graph);
            }
            for (int t = 0; t < (sequences ? T : 1); t++)
                assert_memory_equal(out[0] + t * U, out[1] + (sequences ? T - 1 - t : 0) * U, U * sizeof(float));
        }
}

/* --- shapes ------------------------------------------------------------------------------------------------------- */
static void tensors_as_pytorch_has_them(void **state)
{
    static const char *const names[] = {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0"};
    static const struct {
        enum bp_op_kind kind;
        int gates;
    } kinds[] = {{BP_OP_SIMPLE_RNN, 1}, {BP_OP_LSTM, 4}, {BP_OP_GRU, 3}};
    (void)state;
    for (int k = 0; k < 3; k++)
        for (int bias = 0; bias < 2; bias++) {
            struct bp_graph *graph = net_new(2, 6, 5, 0);
            struct bp_node node = {.kind = kinds[k].kind, .name = "rnn", .trainable = true};
            node.u.recurrent = (struct bp_recurrent_config){.units = 7, .use_bias = bias, .activation = BP_TANH};
            int n = net_add(graph, node, 0);
            assert_int_equal(graph->ntensors, bias ? 4 : 2);
            for (int t = 0; t < graph->ntensors; t++) {
                assert_string_equal(graph->tensors[t].name, names[t]);
                assert_int_equal(graph->tensors[t].shape.dim[0], 7 * kinds[k].gates);
                assert_int_equal(graph->tensors[t].shape.rank, t < 2 ? 2 : 1);
            }
            assert_int_equal(graph->tensors[0].shape.dim[1], 5);
            assert_int_equal(graph->tensors[1].shape.dim[1], 7);
            assert_int_equal(graph->nodes[n].shape.rank, 1);
            bp_graph_free(graph);
        }
}

static void refuse(int rank, int64_t d0, int64_t d1, struct bp_recurrent_config config, bp_status status,
                   const char *word)
{
    struct bp_graph *graph = net_new(rank, d0, d1, 3);
    struct bp_node node = {.kind = BP_OP_SIMPLE_RNN, .name = "r", .ninputs = 1, .trainable = true};
    struct bp_error err = {0};
    int index;
    node.u.recurrent = config;
    assert_int_equal(bp_graph_add(graph, &node, &index, &err), status);
    if (strstr(err.message, word) == NULL)
        fail_msg("'%s' does not speak of '%s'", err.message, word);
    assert_int_equal(graph->ntensors, 0);
    bp_graph_free(graph);
}

static void messages_that_teach(void **state)
{
    struct bp_recurrent_config good = {.units = 4, .activation = BP_TANH}, bad = good;
    (void)state;
    refuse(1, 8, 0, good, BP_INVALID, "needs a sequence [steps, features], but [8] arrives: set dataset.window");
    refuse(3, 1, 28, good, BP_INVALID, "dataset.input_shape");
    refuse(2, 70000, 1, good, BP_LIMIT, "65536 steps");
    bad.units = 0;
    refuse(2, 3, 2, bad, BP_INVALID, "units");
    bad.units = 1000000;
    refuse(2, 60000, 2, bad, BP_LIMIT, "too many");
    bad = good;
    bad.activation = BP_GELU;
    refuse(2, 3, 2, bad, BP_INVALID, "tanh or relu");
}

static void a_pass_allocates_nothing(void **state)
{
    struct bp_graph *graph = graph_of();
    struct bp_model *model = model_of(graph);
    struct bp_exec *exec = exec_of(model, ROWS, 1, true);
    (void)state;
    fill(exec, ROWS);
    uint64_t before = bp_alloc_count();
    bp_exec_pass(exec, NULL, ROWS, true, 1, 1);
    assert_int_equal(bp_alloc_count(), before);
    bp_exec_free(exec);
    bp_model_free(model);
    bp_graph_free(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_threads_and_instruction_set),
        cmocka_unit_test(any_batch),
        cmocka_unit_test(reverse_is_a_flip),
        cmocka_unit_test(tensors_as_pytorch_has_them),
        cmocka_unit_test(messages_that_teach),
        cmocka_unit_test(a_pass_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
