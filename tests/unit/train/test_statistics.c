/* test_statistics.c: running statistics are part of the state: of checkpoints, of the best copy, of what a failing step
 * leaves; and of what a run ends with for any number of threads, instruction set and interruption.
 */
#include "fixture.h"

#include "kernels/kernels.h"

enum { ROWS = 421, INPUTS = 24, CLASSES = 4, BATCH = 60, STEPS = 6 }; /* 337 training rows: 37 in the last batch */

static struct data data;
static struct bp_graph *graph;

static int add_norm(struct bp_graph *g, int from, enum bp_op_kind kind, const char *name)
{
    return add_node(g, (struct bp_node){.kind = kind, .u.norm = {1e-5, 0.1, 4, true}}, from, name);
}

/* A sequence of 6 steps: attention, all norms, dropout between. */
static int setup(void **state)
{
    struct bp_shape shape = {.rank = 2, .dim = {6, 4}};
    struct bp_node look = {.kind = BP_OP_MULTI_HEAD_ATTENTION, .u.attention = {2, 0, true, 0.1}};
    struct bp_error err;
    int at;

    (void)state;
    data_init(&data, ROWS, INPUTS, CLASSES, 0);
    data_fill(&data, CLASSES);
    data_split(&data, 0.2);
    assert_int_equal(bp_graph_new(&shape, &graph, &err), BP_OK);
    at = add_norm(graph, 0, BP_OP_BATCH_NORM, "planes");
    at = add_norm(graph, add_node(graph, look, at, "look"), BP_OP_LAYER_NORM, "steps");
    at = add_node(graph, (struct bp_node){.kind = BP_OP_FLATTEN}, at, "flat");
    at = add_norm(graph, add_dense(graph, at, "wide", 68, 0.0), BP_OP_BATCH_NORM, "columns");
    at = add_node(graph, (struct bp_node){.kind = BP_OP_ACTIVATION, .u.activation = {BP_GELU, 0}}, at, "gelu");
    at = add_node(graph, (struct bp_node){.kind = BP_OP_DROPOUT, .u.dropout = {0.2}}, at, "drop");
    at = add_norm(graph, add_dense(graph, at, "narrow", 12, 0.0), BP_OP_GROUP_NORM, "groups");
    at = add_dense(graph, at, "out", CLASSES, 0.0);
    assert_int_equal(bp_graph_add_head(graph, at, BP_LOSS_CROSS_ENTROPY, 1.0, &err), BP_OK);
    assert_int_equal(graph->nstats, 2 * 6 + 2 * 68);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bp_graph_free(graph);
    data_done(&data);
    return 0;
}

struct host {
    int64_t pause_at, step;
};

static void on_progress(void *ctx, const struct bp_progress *progress)
{
    ((struct host *)ctx)->step = progress->step;
}

static enum bp_command on_command(void *ctx, int *threads)
{
    struct host *host = ctx;

    (void)threads;
    return host->step == host->pause_at ? BP_PAUSE : BP_GO_ON;
}

static struct bp_trainer *make(int threads)
{
    struct bp_train_config config = config_default();

    config.epochs = 4;
    config.batch_size = BATCH;
    config.threads = threads;
    config.optimizer.lr = 0.02;
    return trainer_new(&config, graph, &data);
}

static enum bp_outcome go(struct bp_trainer *t, int64_t pause_at)
{
    struct host host = {.pause_at = pause_at, .step = t->at.step};
    struct bp_train_hooks hooks = {.ctx = &host, .progress = on_progress, .command = on_command};
    struct bp_error err = {0};
    enum bp_outcome outcome = bp_trainer_run(t, &hooks, &err);

    if (outcome == BP_RUN_FAILED)
        fail_msg("%s", err.message);
    return outcome;
}

/* Parameters, statistics and both of the best epoch. */
static uint64_t hash_all(const struct bp_trainer *t)
{
    uint64_t hash = hash_of(t->model->params, graph->nparams * sizeof(float));
    hash = hash * 31 + hash_of(t->model->stats, graph->nstats * sizeof(float));
    return hash * 31 + hash_of(t->best, (graph->nparams + graph->nstats) * sizeof(float));
}

static uint64_t straight(int threads)
{
    struct bp_trainer *t = make(threads);

    assert_int_equal(go(t, -1), BP_RUN_FINISHED);
    assert_int_equal(t->at.step, 4 * STEPS);
    uint64_t hash = hash_all(t);
    bp_trainer_free(t);
    return hash;
}

static void test_threads_and_instruction_sets(void **state)
{
    static const char *const sets[] = {"generic", "avx2", "avx512", "neon"};
    uint64_t expect = straight(1);

    (void)state;
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        if (bp_kernels_select(sets[s], NULL) != BP_OK)
            continue;
        for (int threads = 2; threads <= 5; threads++)
            assert_int_equal(straight(threads), expect);
    }
    assert_int_equal(bp_kernels_select(NULL, NULL), BP_OK);
}

/* Stopped after any step and taken up by another trainer. */
static void test_interrupted(void **state)
{
    uint64_t expect = straight(1);

    (void)state;
    for (int64_t at = 1; at < 4 * STEPS; at += 3) {
        struct bp_trainer *t = make(2), *next = make(1 + (int)(at % 3));
        struct bp_error err = {0};
        bool exact;
        size_t size;

        assert_int_equal(go(t, at), BP_RUN_PAUSED);
        uint8_t *bytes = encode(t, &size);
        bp_trainer_free(t);
        assert_int_equal(bp_checkpoint_restore(next, bytes, size, &exact, &err), BP_OK);
        free(bytes);
        assert_int_equal(go(next, -1), BP_RUN_FINISHED);
        assert_int_equal(hash_all(next), expect);
        bp_trainer_free(next);
    }
}

/* The final statistics are those of the final parameters. */
static void test_best(void **state)
{
    struct bp_trainer *t = make(1);

    (void)state;
    assert_int_equal(go(t, -1), BP_RUN_FINISHED);
    assert_ptr_equal(bp_trainer_final_params(t), t->best);
    assert_ptr_equal(bp_trainer_final_stats(t), t->best + graph->nparams);
    t->config.restore_best = false;
    assert_ptr_equal(bp_trainer_final_stats(t), t->model->stats);
    bp_trainer_free(t);
}

/* A row that is not finite fails its step; the statistics are those before it, as the parameters are. */
static void test_a_failing_step(void **state)
{
    struct bp_train_hooks hooks = {0};
    struct bp_error err = {0};
    struct bp_trainer *t = make(2);
    struct host host = {.pause_at = 3};

    (void)state;
    hooks.ctx = &host;
    hooks.progress = on_progress;
    hooks.command = on_command;
    assert_int_equal(go(t, 3), BP_RUN_PAUSED);
    uint64_t before = hash_of(t->model->stats, graph->nstats * sizeof(float));
    uint32_t row = t->order[3 * BATCH + 7]; /* in the next batch */
    float kept = data_x(&data, (int)row)[5];
    data_x(&data, (int)row)[5] = INFINITY;
    host.pause_at = -1;
    assert_int_equal(bp_trainer_run(t, &hooks, &err), BP_RUN_FAILED);
    data_x(&data, (int)row)[5] = kept;
    assert_int_equal(t->at.step, 3);
    assert_int_equal(hash_of(t->model->stats, graph->nstats * sizeof(float)), before);
    for (size_t i = 0; i < graph->nstats; i++)
        assert_true(isfinite(t->model->stats[i]));
    assert_int_equal(go(t, -1), BP_RUN_FINISHED); /* and it goes on as if nothing had been */
    uint64_t end = hash_all(t);
    bp_trainer_free(t);
    assert_int_equal(end, straight(1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_and_instruction_sets),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_best),
        cmocka_unit_test(test_a_failing_step),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
