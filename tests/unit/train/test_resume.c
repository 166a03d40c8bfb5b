/* test_resume.c: the state after step n depends on the configuration, the data, the seed and n, and on nothing else.
 *
 * One training run is made in many ways: with 1 to 8 threads, with each instruction set, in one go or stopped by a
 * checkpoint in the middle or at the edge of an epoch and taken up by a fresh trainer with other threads. All must
 * end in the same parameters and slots, and report the same metrics. The golden hashes catch what changes the bits in
 * every way at once: another compiler, another machine, another formula. Change them only together with
 * BP_NUMERICS_VERSION.
 */
#include "fixture.h"

#include "kernels/kernels.h"

enum { ROWS = 333, INPUTS = 19, CLASSES = 5, BATCH = 40, EPOCHS = 4 }; /* 7 steps an epoch, the last one short */

static const struct {
    const char *name;
    struct bp_optimizer optimizer;
    double clip;
    uint64_t golden;
    struct bp_schedule schedule;
    double clip_value;
    int accumulate;    /* batches of BATCH / accumulate rows: the steps stay the same */
    int64_t rollbacks; /* by 1e-30 */
} cases[] = {
    {"sgd", {.kind = BP_SGD, .lr = 0.05}, 0.0, .golden = 0x350361b12b4847a7},
    {"momentum", {.kind = BP_SGD, .lr = 0.05, .momentum = 0.9, .dampening = 0.1}, 0.5, .golden = 0x2175c947f62722d1},
    {"nesterov",
     {.kind = BP_SGD, .lr = 0.05, .momentum = 0.9, .nesterov = true, .weight_decay = 0.001},
     0.0,
     .golden = 0xd333ad6663f47933},
    {"adam",
     {.kind = BP_ADAM, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
     0.0,
     .golden = 0xab0a1d0c3f207755},
    {"adamw",
     {.kind = BP_ADAMW, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01},
     1.0,
     .golden = 0x5bba390623a48c7e},
    {"amsgrad",
     {.kind = BP_ADAM, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .amsgrad = true},
     0.0,
     .golden = 0x1f7e0ed1dc50ac27},
    {"rmsprop",
     {.kind = BP_RMSPROP, .lr = 0.003, .alpha = 0.95, .eps = 1e-6, .momentum = 0.5, .centered = true},
     0.0,
     .golden = 0xc789d84597af3215,
     .schedule = {.kind = BP_SCHEDULE_COSINE, .eta_min = 1e-4, .warmup_epochs = 1.5}},
    {"adagrad",
     {.kind = BP_ADAGRAD, .lr = 0.05, .eps = 1e-10, .initial_accumulator = 0.1},
     0.0,
     .golden = 0x37fa3a0f0feb99a,
     .clip_value = 0.01},
    {"adadelta",
     {.kind = BP_ADADELTA, .lr = 1.0, .alpha = 0.9, .eps = 1e-6},
     0.0,
     .golden = 0xa3c0fe103e94420c,
     .schedule = {.kind = BP_SCHEDULE_ONE_CYCLE, .pct_start = 0.3}},
    {"nadam",
     {.kind = BP_NADAM, .lr = 0.005, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .momentum_decay = 0.004},
     0.0,
     .golden = 0x694d1738037a557,
     .schedule = {.kind = BP_SCHEDULE_POLYNOMIAL, .power = 1.7}},
    {"adamax",
     {.kind = BP_ADAMAX, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01},
     0.0,
     .golden = 0xbb0df787e982b3e0,
     .accumulate = 2},
    {"lamb",
     {.kind = BP_LAMB, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-6, .weight_decay = 0.01},
     1.0,
     .golden = 0xef6c43d43f2998e3,
     .schedule = {.kind = BP_SCHEDULE_PLATEAU, .gamma = 0.5, .threshold = 0.5},
     .clip_value = 0.1},
    {"lion",
     {.kind = BP_LION, .lr = 0.001, .beta1 = 0.9, .beta2 = 0.99, .weight_decay = 0.1},
     0.0,
     .golden = 0x93e5b55d512216a5,
     .schedule = {.kind = BP_SCHEDULE_COSINE_RESTARTS, .period = 1, .growth = 2},
     .accumulate = 4},
    {"rollback", /* the rate is absurd from the third epoch on */
     {.kind = BP_SGD, .lr = 0.05, .momentum = 0.9},
     0.0,
     .golden = 0xe3a569906deb5760,
     .schedule = {.kind = BP_SCHEDULE_MULTISTEP, .gamma = 1e30, .nmilestones = 1, .milestone = {2}},
     .accumulate = 2,
     .rollbacks = 2},
};
#define NCASES (sizeof cases / sizeof cases[0])

static struct data data;
static struct bp_graph *graph;

static int setup(void **state)
{
    static const int hidden[] = {67, 130}; /* no multiples of anything; several chunks of parameters */

    (void)state;
    data_init(&data, ROWS, INPUTS, CLASSES, 0);
    data_fill(&data, CLASSES);
    data_split(&data, 0.2);
    graph = mlp(INPUTS, hidden, 2, BP_GELU, 0.2, CLASSES, BP_LOSS_CROSS_ENTROPY);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bp_graph_free(graph);
    data_done(&data);
    return 0;
}

/* What a run did: a hash over the metrics in order, and where it is to stop and with how many threads it works. */
struct host {
    uint64_t metrics;
    int64_t pause_at; /* step, -1 for never */
    int change;       /* change the number of threads at every step */
    int64_t step;
};

static void on_metric(void *ctx, const char *name, int64_t epoch, int64_t step, double value)
{
    struct host *host = ctx;
    uint64_t words[3] = {(uint64_t)epoch, (uint64_t)step, 0x5bba390623a48c7e};

    memcpy(&words[2], &value, sizeof value);
    host->metrics = host->metrics * 31 + hash_of(name, strlen(name));
    host->metrics = host->metrics * 31 + hash_of(words, sizeof words);
}

static void on_progress(void *ctx, const struct bp_progress *progress)
{
    ((struct host *)ctx)->step = progress->step;
}

static enum bp_command on_command(void *ctx, int *threads)
{
    struct host *host = ctx;

    if (host->change > 0) {
        *threads = 1 + (int)(host->step % host->change);
    }
    return host->step == host->pause_at ? BP_PAUSE : BP_GO_ON;
}

static struct bp_trainer *make(size_t c, int threads)
{
    struct bp_train_config config = config_default();

    config.epochs = EPOCHS;
    config.batch_size = BATCH;
    config.optimizer = cases[c].optimizer;
    config.clip_grad_norm = cases[c].clip;
    config.clip_grad_value = cases[c].clip_value;
    config.schedule = cases[c].schedule;
    config.accumulate = cases[c].accumulate;
    config.batch_size = BATCH / (cases[c].accumulate > 0 ? cases[c].accumulate : 1);
    config.rollbacks = cases[c].rollbacks;
    config.rollback_factor = 1e-30;
    config.threads = threads;
    config.log_every_steps = 3;
    return trainer_new(&config, graph, &data);
}

static enum bp_outcome run(struct bp_trainer *trainer, struct host *host)
{
    struct bp_train_hooks hooks = {.ctx = host, .metric = on_metric, .progress = on_progress, .command = on_command};
    struct bp_error err = {0};
    enum bp_outcome outcome;

    bp_trainer_progress(trainer, &(struct bp_progress){0});
    host->step = trainer->at.step;
    outcome = bp_trainer_run(trainer, &hooks, &err);
    if (outcome == BP_RUN_FAILED) {
        fail_msg("%s", err.message);
    }
    return outcome;
}

/* Hash of everything that a finished run leaves behind. */
static uint64_t finish(struct bp_trainer *trainer, struct host *host)
{
    uint64_t hash;

    assert_int_equal(run(trainer, host), BP_RUN_FINISHED);
    assert_int_equal(trainer->at.step, EPOCHS * 7);
    hash = hash_state(trainer) * 31 + hash_of(trainer->best, graph->nparams * sizeof(float));
    hash = hash * 31 + (uint64_t)trainer->at.best.step;
    return hash * 31 + host->metrics;
}

static uint64_t straight(size_t c, int threads, int change)
{
    struct host host = {.pause_at = -1, .change = change};
    struct bp_trainer *trainer = make(c, threads);
    uint64_t hash = finish(trainer, &host);

    bp_trainer_free(trainer);
    return hash;
}

static void test_threads(void **state)
{
    static const int threads[] = {2, 3, 5, 8};

    (void)state;
    for (size_t c = 0; c < NCASES; c++) {
        uint64_t expect = straight(c, 1, 0);

        for (size_t i = 0; i < sizeof threads / sizeof threads[0]; i++) {
            assert_int_equal(straight(c, threads[i], 0), expect);
        }
        assert_int_equal(straight(c, 4, 4), expect); /* another number of threads at every step */
    }
}

static void test_instruction_sets(void **state)
{
    static const char *const names[] = {"generic", "avx2", "avx512", "neon"};

    (void)state;
    for (size_t c = 0; c < NCASES; c++) {
        uint64_t expect = straight(c, 1, 0);

        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            if (bp_kernels_select(names[i], NULL) == BP_OK) {
                assert_int_equal(straight(c, 2, 0), expect);
            }
        }
        assert_int_equal(bp_kernels_select(NULL, NULL), BP_OK);
    }
}

/* Stops after `at` steps, encodes, and goes on in a fresh trainer with other threads. */
static uint64_t interrupted(size_t c, int64_t at, int before, int after)
{
    struct host host = {.pause_at = at};
    struct bp_trainer *trainer = make(c, before);
    struct bp_error err = {0};
    bool exact = false;
    uint8_t *bytes;
    uint64_t hash;
    size_t size;

    assert_int_equal(run(trainer, &host), BP_RUN_PAUSED);
    assert_int_equal(trainer->at.step, at);
    bytes = encode(trainer, &size);
    bp_trainer_free(trainer);
    trainer = make(c, after);
    assert_int_equal(bp_checkpoint_restore(trainer, bytes, size, &exact, &err), BP_OK);
    assert_true(exact);
    free(bytes);
    host.pause_at = -1;
    hash = finish(trainer, &host);
    bp_trainer_free(trainer);
    return hash;
}

static void test_interrupted(void **state)
{
    (void)state;
    for (size_t c = 0; c < NCASES; c++) {
        uint64_t expect = straight(c, 1, 0);

        for (int64_t at = 0; at < EPOCHS * 7; at += at < 14 ? 1 : 3) { /* every place of two epochs, then some */
            int before = 1 + (int)(at % 3), after = 1 + (int)((at + 1) % 3);
            assert_int_equal(interrupted(c, at, before, after), expect);
        }
    }
}

/* Paused and taken up by the same trainer, at every step. */
static void test_paused_at_every_step(void **state)
{
    struct host host = {.pause_at = 0};
    struct bp_trainer *trainer = make(3, 2);

    (void)state;
    for (int64_t at = 0; at < EPOCHS * 7; at++) {
        host.pause_at = at;
        assert_int_equal(run(trainer, &host), BP_RUN_PAUSED);
    }
    host.pause_at = -1;
    assert_int_equal(finish(trainer, &host), straight(3, 1, 0));
    bp_trainer_free(trainer);
}

static void test_golden(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t c = 0; c < NCASES; c++) {
        uint64_t hash = straight(c, 1, 0);

        if (hash != cases[c].golden) {
            print_error("%s has hash %#llx\n", cases[c].name, (unsigned long long)hash);
            wrong++;
        }
    }
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),     cmocka_unit_test(test_instruction_sets),
        cmocka_unit_test(test_interrupted), cmocka_unit_test(test_paused_at_every_step),
        cmocka_unit_test(test_golden),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
