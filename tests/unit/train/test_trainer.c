/* test_trainer.c: the trainer's contract with its host: commands, metrics, checkpoints, ends, failures, memory. */
#include "fixture.h"

#include <malloc.h>
#include <time.h>

/* Counts what goes past bp_alloc as well; a sanitizer brings its own malloc. */
#if !SANITIZED
static uint64_t mallocs;
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n)
{
    __atomic_fetch_add(&mallocs, 1, __ATOMIC_RELAXED);
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    __atomic_fetch_add(&mallocs, 1, __ATOMIC_RELAXED);
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    __atomic_fetch_add(&mallocs, 1, __ATOMIC_RELAXED);
    return __libc_realloc(p, n);
}
#else
static uint64_t mallocs;
#endif

static struct data data;
static struct bp_graph *graph;

static int setup(void **state)
{
    static const int hidden[] = {50};

    (void)state;
    data_init(&data, 250, 10, 4, 0);
    data_fill(&data, 4);
    data_split(&data, 0.2);
    graph = mlp(10, hidden, 1, BP_RELU, 0.1, 4, BP_LOSS_CROSS_ENTROPY);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bp_graph_free(graph);
    data_done(&data);
    return 0;
}

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

/* A host that gives one command at one step, and notes what it is told. */
struct host {
    struct bp_trainer *trainer;
    enum bp_command command;
    int64_t at;        /* step of the command */
    int until;         /* or finish after so many offers (0: never) */
    double slow;       /* seconds that a checkpoint takes */
    bp_status refuse;  /* what checkpoints answer */
    int musts, offers; /* checkpoints */
    int64_t must_step; /* of the last must */
    double offer_end;  /* of the last checkpoint, or the start */
    double shortest;   /* pause before an offer */
    int batch_losses, epochs, val_losses;
    double val_loss, best_value;
    char names[400]; /* of all series of the first epoch, in order */
    uint64_t state;  /* hash after the last good step */
    int64_t step;
    int64_t count_from;       /* step after which allocations count */
    uint64_t allocs, mallocs; /* when that step was done */
};

static enum bp_command on_command(void *ctx, int *threads)
{
    struct host *h = ctx;

    (void)threads;
    if (h->until > 0 && h->offers >= h->until) {
        return BP_FINISH;
    }
    return h->trainer->at.step == h->at ? h->at = -1, h->command : BP_GO_ON;
}

static void on_progress(void *ctx, const struct bp_progress *p)
{
    struct host *h = ctx;

    h->state = hash_state(h->trainer);
    h->step = p->step;
    assert_true(p->seconds > 0.0 && isfinite(p->batch_loss));
    if (p->step == h->count_from) {
        h->allocs = bp_alloc_count();
        h->mallocs = mallocs;
    }
}

static void on_metric(void *ctx, const char *name, int64_t epoch, int64_t step, double value)
{
    struct host *h = ctx;

    (void)step;
    if (strcmp(name, "batch_loss") == 0) {
        h->batch_losses++;
        return;
    }
    if (epoch == 1 && strlen(h->names) + strlen(name) + 2 < sizeof h->names) {
        strcat(strcat(h->names, name), " ");
    }
    if (strcmp(name, "val_loss") == 0) {
        h->val_losses++;
        h->val_loss = value;
    }
}

static void on_epoch(void *ctx, const struct bp_progress *p, const struct bp_best *best)
{
    struct host *h = ctx;

    h->epochs++;
    assert_int_equal(p->epoch, h->epochs);
    h->best_value = best->value;
}

static bp_status on_checkpoint(void *ctx, struct bp_trainer *trainer, bool must, struct bp_error *err)
{
    struct host *h = ctx;
    struct timespec pause = {0, (long)(h->slow * 1e9)};

    if (must) {
        h->musts++;
        h->must_step = trainer->at.step;
    } else {
        double passed = now() - h->offer_end;
        h->shortest = h->offers == 0 || passed < h->shortest ? passed : h->shortest;
        h->offers++;
        nanosleep(&pause, NULL);
    }
    h->offer_end = now();
    return h->refuse == BP_OK ? BP_OK : bp_fail(err, h->refuse, "refused");
}

static enum bp_outcome run(struct bp_trainer *trainer, struct host *h, struct bp_error *err)
{
    struct bp_train_hooks hooks = {.ctx = h,
                                   .command = on_command,
                                   .progress = on_progress,
                                   .metric = on_metric,
                                   .epoch = on_epoch,
                                   .checkpoint = on_checkpoint};

    h->trainer = trainer;
    h->offer_end = now();
    return bp_trainer_run(trainer, &hooks, err);
}

static void test_metrics_and_end(void **state)
{
    struct bp_train_config c = config_default();
    struct bp_trainer *t;
    struct host h = {.at = -1};
    struct bp_error err;

    (void)state;
    c.epochs = 6;
    c.log_every_steps = 5;
    c.threads = 2;
    t = trainer_new(&c, graph, &data);
    assert_int_equal(run(t, &h, &err), BP_RUN_FINISHED);
    assert_int_equal(bp_trainer_stop_reason(t), BP_STOP_MAX_EPOCHS);
    assert_string_equal(h.names, "loss accuracy val_loss val_accuracy ");
    assert_int_equal(h.step, 6 * 7);
    assert_int_equal(h.epochs, 6);
    assert_int_equal(h.batch_losses, 8);
    assert_int_equal(h.musts, 1);
    assert_int_equal(h.must_step, 42);
    assert_true(h.best_value <= h.val_loss);
    bp_trainer_free(t);
}

static void test_commands(void **state)
{
    static const struct {
        enum bp_command command;
        enum bp_outcome outcome;
        enum bp_stop_reason reason;
        int64_t steps;
        int musts;
    } cases[] = {
        {BP_PAUSE, BP_RUN_PAUSED, BP_STOP_NONE, 9, 1},
        {BP_CANCEL, BP_RUN_CANCELLED, BP_STOP_NONE, 9, 1},
        {BP_FINISH, BP_RUN_FINISHED, BP_STOP_USER, 9, 1},
        {BP_CHECKPOINT_NOW, BP_RUN_FINISHED, BP_STOP_MAX_EPOCHS, 14, 2},
    };
    struct bp_train_config c = config_default();
    struct bp_error err;

    (void)state;
    c.epochs = 2;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bp_trainer *t = trainer_new(&c, graph, &data);
        struct host h = {.command = cases[i].command, .at = 9};

        assert_int_equal(run(t, &h, &err), cases[i].outcome);
        assert_int_equal(bp_trainer_stop_reason(t), cases[i].reason);
        assert_int_equal(t->at.step, cases[i].steps);
        assert_int_equal(h.musts, cases[i].musts);
        assert_int_equal(h.must_step, cases[i].steps);
        bp_trainer_free(t);
    }
}

static void test_refused_checkpoint(void **state)
{
    struct bp_train_config c = config_default();
    struct bp_trainer *t = trainer_new(&c, graph, &data);
    struct host h = {.command = BP_PAUSE, .at = 3, .refuse = BP_FULL};
    struct bp_error err;

    (void)state;
    assert_int_equal(run(t, &h, &err), BP_RUN_FAILED);
    assert_int_equal(err.code, BP_FULL);
    h.refuse = BP_OK;
    h.at = 5;
    assert_int_equal(run(t, &h, &err), BP_RUN_PAUSED); /* it can go on afterwards */
    bp_trainer_free(t);
}

static void test_early_stopping(void **state)
{
    struct bp_train_config c = config_default();
    struct bp_trainer *t;
    struct host h = {.at = -1};
    struct bp_best best;
    struct bp_error err;

    (void)state;
    c.epochs = 1000;
    c.early_stopping = true;
    c.patience = 3;
    c.optimizer.lr = 0.0; /* no improvement after the first epoch */
    t = trainer_new(&c, graph, &data);
    assert_int_equal(run(t, &h, &err), BP_RUN_FINISHED);
    assert_int_equal(bp_trainer_stop_reason(t), BP_STOP_EARLY);
    bp_trainer_best(t, &best);
    assert_int_equal(t->at.epoch, 4);
    assert_int_equal(best.epoch, 1);
    bp_trainer_free(t);

    memset(&h, 0, sizeof h);
    h.at = -1;
    c.min_delta = 10.0; /* improvements are too small for the patience, yet they make a new best */
    c.optimizer.lr = 0.001;
    t = trainer_new(&c, graph, &data);
    assert_int_equal(run(t, &h, &err), BP_RUN_FINISHED);
    bp_trainer_best(t, &best);
    assert_int_equal(t->at.epoch, 4);
    assert_int_equal(best.epoch, 4);
    bp_trainer_free(t);
}

/* A rate that ruins the network later on: the best parameters are kept, and handed out. */
static void test_restore_best(void **state)
{
    struct bp_train_config c = config_default();
    struct bp_trainer *t;
    struct host h = {.at = -1};
    struct bp_accumulator acc;
    struct bp_best best;
    struct bp_error err;
    uint64_t final;

    (void)state;
    c.epochs = 12;
    c.optimizer.lr = 0.3;
    c.monitor = (struct bp_monitor){BP_METRIC_ACCURACY, true, 0};
    t = trainer_new(&c, graph, &data);
    assert_int_equal(run(t, &h, &err), BP_RUN_FINISHED);
    bp_trainer_best(t, &best);
    assert_true(best.any && best.epoch >= 1 && best.epoch < 12);
    final = hash_of(bp_trainer_final_params(t), graph->nparams * sizeof(float));
    assert_ptr_equal(bp_trainer_final_params(t), t->best);
    memcpy(t->model->params, t->best, graph->nparams * sizeof(float));
    bp_model_pack(t->model, NULL);
    bp_evaluate(t->evaluation, t->evaluation_capacity, NULL, graph, &data.source, data.split.rows[BP_VALIDATION],
                data.split.count[BP_VALIDATION], &acc, NULL, NULL);
    assert_true(bp_accumulator_value(&acc, BP_METRIC_ACCURACY) == best.value);
    assert_true(final == hash_of(t->model->params, graph->nparams * sizeof(float)));
    t->config.restore_best = false;
    assert_ptr_equal(bp_trainer_final_params(t), t->model->params);
    bp_trainer_free(t);
}

static void test_no_validation_rows(void **state)
{
    struct bp_train_config c = config_default();
    struct data all = data;
    struct bp_trainer *t;
    struct host h = {.at = -1};
    struct bp_best best;
    struct bp_error err;

    (void)state;
    data_split(&all, 0.0);
    c.epochs = 3;
    t = trainer_new(&c, graph, &all);
    assert_int_equal(run(t, &h, &err), BP_RUN_FINISHED);
    bp_trainer_best(t, &best);
    assert_true(best.any);
    assert_string_equal(h.names, "loss accuracy ");
    bp_trainer_free(t);
    bp_split_done(&all.split);
}

/* Never sooner than a second, never more than 3 % of the time. */
static void test_pacing(void **state)
{
    struct bp_train_config c = config_default();
    struct host h = {.at = -1, .slow = 0.04};
    struct bp_trainer *t;
    struct bp_error err;

    (void)state;
    c.epochs = 1000000000;
    c.checkpoint_epochs = 1;
    c.checkpoint_seconds = 0.001;
    t = trainer_new(&c, graph, &data);
    h.until = 3;
    double began = now();
    assert_int_equal(run(t, &h, &err), BP_RUN_FINISHED);
    assert_int_equal(h.musts, 1);
    assert_true(h.shortest >= 1.0); /* the first; the others come 33 times 0.04 s after the end of the one before */
    assert_true(now() - began >= 1.0 + 2 * 33 * 0.04);
    bp_trainer_free(t);
}

/* Row 58 of the table has an infinite input: the step that meets it fails, the state is the one before it. */
static void test_nonfinite_loss(void **state)
{
    struct bp_train_config c = config_default();
    struct bp_trainer *t;
    struct host h = {.at = -1};
    struct bp_error err = {0};
    float *x = data_x(&data, (int)data.split.rows[BP_TRAIN][58]), old = x[2];

    (void)state;
    x[2] = INFINITY;
    c.shuffle = false;
    c.batch_size = 10;
    t = trainer_new(&c, graph, &data);
    assert_int_equal(run(t, &h, &err), BP_RUN_FAILED);
    assert_int_equal(err.code, BP_NONFINITE);
    assert_non_null(strstr(err.message, "step 6"));
    assert_int_equal(t->at.step, 5);
    assert_true(h.state == hash_state(t));
    x[2] = old;
    assert_int_equal(run(t, &h, &err), BP_RUN_FINISHED); /* and the state is good to go on from */
    bp_trainer_free(t);
}

/* A loss that is still finite, and a gradient whose square is not. */
static void test_huge_gradient(void **state)
{
    struct bp_train_config c = config_default();
    struct bp_graph *line = mlp(2, NULL, 0, BP_LINEAR, 0.0, 1, BP_LOSS_MSE);
    struct bp_trainer *t;
    struct host h = {.at = -1};
    struct bp_error err = {0};
    struct data d;

    (void)state;
    data_init(&d, 4, 2, 0, 1);
    for (int r = 0; r < 4; r++) {
        data_value(&d, r)[0] = 1.5e19f;
    }
    data_split(&d, 0.0);
    t = trainer_new(&c, line, &d);
    h.state = hash_state(t);
    assert_int_equal(run(t, &h, &err), BP_RUN_FAILED);
    assert_int_equal(err.code, BP_NONFINITE);
    assert_string_equal(err.where, "out.bias"); /* the inputs are 0 */
    assert_non_null(strstr(err.message, "step 1"));
    assert_true(h.state == hash_state(t));
    bp_trainer_free(t);
    bp_graph_free(line);
    data_done(&d);
}

static void test_row_without_class(void **state)
{
    struct bp_train_config c = config_default();
    struct bp_trainer *t = trainer_new(&c, graph, &data);
    struct host h = {.at = -1};
    struct bp_error err = {0};
    struct bp_accumulator acc;
    int32_t *label = data_label(&data, (int)data.split.rows[BP_TRAIN][0]), old = *label;

    (void)state;
    *label = -1;
    assert_int_equal(run(t, &h, &err), BP_RUN_FAILED);
    assert_int_equal(err.code, BP_INVALID);
    bp_evaluate(t->evaluation, t->evaluation_capacity, NULL, graph, &data.source, data.split.rows[BP_TRAIN],
                data.split.count[BP_TRAIN], &acc, NULL, NULL);
    assert_true(isnan(bp_accumulator_value(&acc, BP_METRIC_LOSS)));
    *label = old;
    bp_trainer_free(t);
}

static void test_step_allocates_nothing(void **state)
{
    struct bp_train_config c = config_default();
    struct bp_trainer *t;
    struct host h = {.at = -1};
    struct bp_error err;

    (void)state;
    c.epochs = 20;
    c.threads = 3;
    c.clip_grad_norm = 1.0;
    c.log_every_steps = 1;
    t = trainer_new(&c, graph, &data);
    h.command = BP_PAUSE;
    h.at = 3; /* a first run starts OpenMP's threads, each of which allocates for itself, at its own time */
    assert_int_equal(run(t, &h, &err), BP_RUN_PAUSED);
    h.at = 130;
    h.count_from = 4;
    assert_int_equal(run(t, &h, &err), BP_RUN_PAUSED);
    assert_true(h.allocs > 0);
    assert_int_equal(bp_alloc_count(), h.allocs);
    assert_true(mallocs == h.mallocs);
    bp_trainer_free(t);
}

static size_t in_use(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

static void test_estimate(void **state)
{
    static const int hidden[] = {700, 300};
    struct bp_graph *large = mlp(10, hidden, 2, BP_RELU, 0.1, 4, BP_LOSS_CROSS_ENTROPY);
    struct bp_train_config c = config_default();
    struct bp_trainer *t;
    size_t estimate, before = in_use(), taken, expect;
    struct bp_error err;

    (void)state;
    c.threads = 3;
    assert_int_equal(bp_trainer_estimate(&c, large, data.split.count[BP_TRAIN], &estimate), BP_OK);
    t = trainer_new(&c, large, &data);
    taken = in_use() - before;
    expect = estimate - bp_checkpoint_size(t);
    print_message("estimated %zu bytes without the checkpoint, taken %zu\n", expect, taken);
    assert_true(SANITIZED || fabs((double)taken - (double)expect) < 0.01 * (double)expect);
    bp_trainer_free(t);
    c.epochs = 0;
    assert_int_equal(bp_trainer_estimate(&c, large, 100, &estimate), BP_INVALID);
    assert_int_equal(bp_trainer_new(&c, large, &data.source, &data.split, &t, &err), BP_INVALID);
    bp_graph_free(large);
}

static void test_mistakes(void **state)
{
    struct bp_train_config good = config_default(), c;
    struct bp_trainer *t = NULL;
    struct data other = data;
    struct bp_error err;

    (void)state;
    other.source.targets = &other.target;
#define REFUSED(change, status)                                                                                      \
    c = good;                                                                                                        \
    change;                                                                                                          \
    err.message[0] = '\0';                                                                                           \
    assert_int_equal(bp_trainer_new(&c, graph, &other.source, &other.split, &t, &err), status);                      \
    assert_true(err.message[0] != '\0')
    REFUSED(c.batch_size = 0, BP_INVALID);
    REFUSED(c.threads = 0, BP_INVALID);
    REFUSED(c.threads = BP_TEAM_MAX + 1, BP_INVALID);
    REFUSED(c.optimizer.lr = NAN, BP_INVALID);
    REFUSED(c.clip_grad_norm = NAN, BP_INVALID);
    REFUSED(c.epochs = INT64_MAX, BP_LIMIT);
    REFUSED(c.monitor.metric = BP_METRIC_R2, BP_INVALID);
    REFUSED(other.target.classes = 5, BP_INVALID);
    other.target.classes = 4;
    REFUSED(other.target.is_class = false, BP_INVALID);
    other.target.is_class = true;
    REFUSED(other.source.nrows = 200, BP_MISMATCH);
    other.source.nrows = 250;
    REFUSED(other.source.inputs = 9, BP_INVALID);
    other.source.inputs = 10;
    REFUSED(other.split.count[BP_TRAIN] = 0, BP_INVALID);
    assert_null(t);
}

static void test_no_memory(void **state)
{
    struct bp_train_config c = config_default();
    bp_status status = BP_NOMEM;
    int64_t n = 0;

    (void)state;
    for (; status == BP_NOMEM; n++) {
        struct bp_trainer *t = NULL;

        bp_alloc_fail_after(n);
        status = bp_trainer_new(&c, graph, &data.source, &data.split, &t, NULL);
        bp_alloc_fail_after(-1);
        assert_true((status == BP_OK) == (t != NULL));
        bp_trainer_free(t);
    }
    assert_int_equal(status, BP_OK);
    assert_true(n > 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics_and_end),
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_refused_checkpoint),
        cmocka_unit_test(test_early_stopping),
        cmocka_unit_test(test_restore_best),
        cmocka_unit_test(test_no_validation_rows),
        cmocka_unit_test(test_pacing),
        cmocka_unit_test(test_nonfinite_loss),
        cmocka_unit_test(test_huge_gradient),
        cmocka_unit_test(test_row_without_class),
        cmocka_unit_test(test_step_allocates_nothing),
        cmocka_unit_test(test_estimate),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
