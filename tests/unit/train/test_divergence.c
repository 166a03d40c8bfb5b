/* test_divergence.c: a number that is not finite is traced to its origin; going back leaves nothing behind; and the other
 * ways in which training ends by itself.
 */
#include "fixture.h"

enum { ROWS = 60, INPUTS = 5, BATCH = 10 };

static struct data data;
static struct bp_graph *graph;

static int setup(void **state)
{
    static const int hidden[] = {7};

    (void)state;
    data_init(&data, ROWS, INPUTS, 0, 2);
    data_fill(&data, 0);
    data_split(&data, 0.0);
    graph = mlp(INPUTS, hidden, 1, BP_TANH, 0.0, 2, BP_LOSS_MSE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bp_graph_free(graph);
    data_done(&data);
    return 0;
}

static struct bp_train_config config(double lr)
{
    struct bp_train_config c = config_default();

    c.epochs = 4;
    c.batch_size = BATCH;
    c.shuffle = false;
    c.optimizer = (struct bp_optimizer){.kind = BP_SGD, .lr = lr};
    return c;
}

static struct bp_error fails(const struct bp_train_config *c)
{
    struct bp_trainer *t = trainer_new(c, graph, &data);
    struct bp_train_hooks hooks = {0};
    struct bp_error err = {0};

    assert_int_equal(bp_trainer_run(t, &hooks, &err), BP_RUN_FAILED);
    assert_int_equal(err.code, BP_NONFINITE);
    bp_trainer_free(t);
    return err;
}

static void test_input(void **state)
{
    struct bp_train_config c = config(0.1);
    float *x = data_x(&data, 25), old = x[3];
    struct bp_error err;

    (void)state;
    x[3] = INFINITY;
    err = fails(&c);
    x[3] = old;
    assert_string_equal(err.where, "input");
    assert_non_null(strstr(err.message, "forward pass of step 3"));
}

static void test_forward(void **state)
{
    struct bp_train_config c = config(1e37);
    struct bp_error err;

    (void)state;
    c.clip_grad_norm = 1e3; /* weights of 1e40 are none: the first update makes them infinite */
    err = fails(&c);
    assert_true(strcmp(err.where, "hidden0") == 0 || strcmp(err.where, "out") == 0);
    assert_non_null(strstr(err.message, "step 2"));
}

static void test_loss(void **state)
{
    struct bp_train_config c = config(0.1);
    float *value = data_value(&data, 11), old = value[1];
    struct bp_error err;

    (void)state;
    value[1] = 1e30f; /* its square is no float */
    err = fails(&c);
    value[1] = old;
    assert_string_equal(err.where, "out");
    assert_non_null(strstr(err.message, "the loss mse at the output out"));
    assert_non_null(strstr(err.message, "step 2"));
}

struct rolled {
    int times;
    double factor;
    int64_t step;
    char where[160];
};

static void on_rollback(void *ctx, int64_t epoch, int64_t step, double factor, const struct bp_error *why)
{
    struct rolled *r = ctx;

    (void)epoch;
    r->times++;
    r->factor = factor;
    r->step = step;
    snprintf(r->where, sizeof r->where, "%s", why->where);
}

/* From the third epoch on the rate is absurd, until two rollbacks have made it the old one again. */
static void test_rollback(void **state)
{
    struct bp_train_config c = config(0.125), plain = config(0.125);
    struct rolled rolled = {0};
    struct bp_train_hooks hooks = {.ctx = &rolled, .rollback = on_rollback}, none = {0};
    struct bp_trainer *a, *b;
    struct bp_error err = {0};

    (void)state;
    c.schedule =
        (struct bp_schedule){.kind = BP_SCHEDULE_MULTISTEP, .gamma = 0x1p120, .nmilestones = 1, .milestone = {2}};
    c.rollbacks = 2;
    c.rollback_factor = 0x1p-60;
    a = trainer_new(&c, graph, &data);
    assert_int_equal(bp_trainer_run(a, &hooks, &err), BP_RUN_FINISHED);
    assert_int_equal(rolled.times, 2);
    assert_true(rolled.factor == 0x1p-120 && rolled.step == 12 && rolled.where[0] != '\0');
    b = trainer_new(&plain, graph, &data);
    assert_int_equal(bp_trainer_run(b, &none, &err), BP_RUN_FINISHED);
    assert_true(hash_state(a) == hash_state(b));
    assert_int_equal(a->at.step, b->at.step);
    assert_int_equal(a->at.samples, b->at.samples);
    assert_true(a->at.best.value == b->at.best.value);
    bp_trainer_free(a);
    bp_trainer_free(b);

    c.rollbacks = 1;
    err = fails(&c);
    assert_non_null(strstr(err.message, "given up after 1 rollbacks"));
}

static enum bp_stop_reason reason_of(const struct bp_train_config *c, int64_t *ret_epochs)
{
    struct bp_trainer *t = trainer_new(c, graph, &data);
    struct bp_train_hooks hooks = {0};
    struct bp_error err = {0};
    enum bp_stop_reason reason;

    assert_int_equal(bp_trainer_run(t, &hooks, &err), BP_RUN_FINISHED);
    reason = bp_trainer_stop_reason(t);
    *ret_epochs = t->at.epoch;
    bp_trainer_free(t);
    return reason;
}

static void test_ends(void **state)
{
    struct bp_train_config c = config(0.05);
    int64_t epochs;

    (void)state;
    c.epochs = 1000000;
    c.has_target = true;
    c.target =
        (struct bp_monitor){.metric = BP_METRIC_LOSS, .validation = true}; /* there are no such rows: training */
    c.target_value = 0.3;
    assert_int_equal(reason_of(&c, &epochs), BP_STOP_TARGET);
    assert_true(epochs > 1 && epochs < c.epochs);
    c.has_target = false;
    c.tolerance = 1e-3;
    assert_int_equal(reason_of(&c, &epochs), BP_STOP_CONVERGED);
    assert_true(epochs > 1 && epochs < c.epochs);
    c.tolerance = 0.0;
    c.max_seconds = 0.05;
    assert_int_equal(reason_of(&c, &epochs), BP_STOP_TIME);
}

/* A run that ended because its time was over goes on with more of it. */
static void test_more_time(void **state)
{
    struct bp_train_config c = config(0.05);
    struct bp_train_hooks hooks = {0};
    struct bp_trainer *a, *b;
    struct bp_error err = {0};
    bool exact;
    size_t size;
    uint8_t *bytes;

    (void)state;
    c.epochs = 1000000;
    c.max_seconds = 0.02;
    a = trainer_new(&c, graph, &data);
    assert_int_equal(bp_trainer_run(a, &hooks, &err), BP_RUN_FINISHED);
    bytes = encode(a, &size);
    c.max_seconds = 1e6;
    c.epochs = a->at.epoch + 2;
    b = trainer_new(&c, graph, &data);
    assert_int_equal(bp_checkpoint_restore(b, bytes, size, &exact, &err), BP_OK);
    assert_int_equal(bp_trainer_run(b, &hooks, &err), BP_RUN_FINISHED);
    assert_int_equal(bp_trainer_stop_reason(b), BP_STOP_MAX_EPOCHS);
    assert_true(b->at.epoch == c.epochs);
    bp_trainer_free(a);
    bp_trainer_free(b);
    free(bytes);
}

static void test_put(void **state)
{
    struct bp_train_config c = config(0.05);
    struct bp_trainer *t = trainer_new(&c, graph, &data);
    float values[3] = {1.0f, 2.0f, 3.0f};
    struct bp_error err = {0};

    (void)state;
    assert_int_equal(bp_trainer_put(t, false, graph->nparams - 3, values, 3, &err), BP_OK);
    assert_memory_equal(t->model->params + graph->nparams - 3, values, sizeof values);
    assert_int_equal(bp_trainer_put(t, false, graph->nparams - 2, values, 3, &err), BP_INVALID);
    assert_int_equal(bp_trainer_put(t, false, SIZE_MAX, values, 3, &err), BP_INVALID);
    assert_int_equal(bp_trainer_put(t, true, 0, values, 1, &err), BP_INVALID);
    bp_trainer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_input),    cmocka_unit_test(test_forward), cmocka_unit_test(test_loss),
        cmocka_unit_test(test_rollback), cmocka_unit_test(test_ends),    cmocka_unit_test(test_more_time),
        cmocka_unit_test(test_put),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
