/* Sampling the layers: the figures against sums made here, the same for any number of threads, and nothing of the
 * training changed by looking. */
#include "fixture.h"

#include "train/layer_stats.h"

#define SAMPLES 64
#define LAYERS 8

struct log {
    int n;
    int64_t steps[SAMPLES];
    double loss[SAMPLES];
    struct bp_layer_stat total[SAMPLES], stats[SAMPLES][LAYERS];
    struct bp_layer_info infos[LAYERS];
    int layers;
};

static void take(void *ctx, const struct bp_layer_sample *sample)
{
    struct log *log = ctx;

    assert_true(log->n < SAMPLES && sample->n <= LAYERS);
    log->layers = sample->n;
    log->steps[log->n] = sample->step;
    log->loss[log->n] = sample->loss;
    log->total[log->n] = sample->total;
    memcpy(log->infos, sample->infos, (size_t)sample->n * sizeof *sample->infos);
    memcpy(log->stats[log->n], sample->stats, (size_t)sample->n * sizeof *sample->stats);
    log->n++;
}

static struct log *train(const struct bp_train_config *config, const struct bp_graph *graph, const struct data *d,
                         uint64_t *ret_hash)
{
    struct log *log = calloc(1, sizeof *log);
    struct bp_train_hooks hooks = {.ctx = log, .layers = take};
    struct bp_trainer *t = trainer_new(config, graph, d);
    struct bp_error err = {0};

    assert_non_null(log);
    assert_int_equal(bp_trainer_run(t, &hooks, &err), BP_RUN_FINISHED);
    *ret_hash = hash_state(t);
    bp_trainer_free(t);
    return log;
}

static void test_which_steps(void **state)
{
    struct data d;
    const int hidden[] = {8};
    struct bp_graph *graph = mlp(6, hidden, 1, BP_RELU, 0.0, 3, BP_LOSS_CROSS_ENTROPY);
    struct bp_train_config config = config_default();
    uint64_t hash;

    (void)state;
    data_init(&d, 200, 6, 3, 0);
    data_fill(&d, 3);
    data_split(&d, 0.2);
    config.epochs = 7; /* 5 steps each */
    config.layer_stats = true;
    struct log *log = train(&config, graph, &d, &hash);
    const int64_t expected[] = {1, 2, 4, 8, 16, 32, 35};
    assert_int_equal(log->n, 7);
    assert_memory_equal(log->steps, expected, sizeof expected);
    assert_int_equal(log->layers, 2);
    assert_string_equal(log->infos[0].name, "hidden0");
    assert_int_equal(log->infos[0].activation, BP_RELU);
    assert_true(log->infos[0].hidden && !log->infos[1].hidden);
    assert_true(log->loss[6] < log->loss[0]);
    free(log);
    bp_graph_free(graph);
    data_done(&d);
}

/* One step of plain gradient descent on all rows: every figure follows from the weights before and after it. */
static void test_figures_of_a_step(void **state)
{
    struct data d;
    const int hidden[] = {16};
    struct bp_graph *graph = mlp(6, hidden, 1, BP_TANH, 0.0, 3, BP_LOSS_CROSS_ENTROPY);
    struct bp_train_config config = config_default();
    struct log log = {0};
    struct bp_train_hooks hooks = {.ctx = &log, .layers = take};
    struct bp_error err = {0};
    float before[300];

    (void)state;
    data_init(&d, 100, 6, 3, 0);
    data_fill(&d, 3);
    data_split(&d, 0.0);
    config.epochs = 1;
    config.batch_size = 100;
    config.layer_stats = true;
    config.clip_grad_norm = 0.05;
    config.optimizer = (struct bp_optimizer){.kind = BP_SGD, .lr = 0.5};
    struct bp_trainer *t = trainer_new(&config, graph, &d);
    assert_true(graph->nparams <= 300);
    memcpy(before, t->model->params, graph->nparams * sizeof *before);
    assert_int_equal(bp_trainer_run(t, &hooks, &err), BP_RUN_FINISHED);
    assert_int_equal(log.n, 1);

    const struct bp_tensor *w = &graph->tensors[0];
    const struct bp_layer_stat *first = &log.stats[0][0];
    double weights = 0.0, update = 0.0;
    for (size_t i = 0; i < w->count; i++) {
        double change = (double)t->model->params[i] - (double)before[i];
        weights += (double)before[i] * (double)before[i];
        update += change * change;
    }
    assert_true(fabs(first->weight_norm - sqrt(weights)) < 1e-6);
    assert_true(fabs(first->update_ratio - sqrt(update / weights)) < 1e-5 * first->update_ratio + 1e-9);
    /* all rows are in the batch and in the probe: the norm of the whole clipped gradient is the limit */
    assert_true(log.total[0].gradient_norm > 0.05);
    assert_true(fabs(log.total[0].clipped_norm - 0.05) < 1e-5);
    assert_true(first->spread > 0.0 && fabs(first->mean) < 1.0 && first->delta_norm > 0.0);
    assert_true(isnan(first->dead) && first->saturated >= 0.0 && first->alike == 0.0);
    bp_trainer_free(t);
    bp_graph_free(graph);
    data_done(&d);
}

/* h = relu(x + h / 2 + 100), always on its straight part: each step back halves the error signal, to the bit. */
static void test_error_signals_through_time(void **state)
{
    enum { STEPS = 5 };
    (void)state;
    for (int reverse = 0; reverse < 2; reverse++) {
        struct data d;
        struct bp_graph *graph = graph_new(STEPS);
        struct bp_node steps = {.kind = BP_OP_RESHAPE, .u.reshape = {.rank = 2, .dim = {STEPS, 1}}};
        struct bp_node rnn = {.kind = BP_OP_SIMPLE_RNN};
        struct bp_train_config config = config_default();
        struct bp_error err;
        uint64_t hash;
        rnn.u.recurrent = (struct bp_recurrent_config){.units = 1,
                                                       .reverse = reverse,
                                                       .use_bias = true,
                                                       .activation = BP_RELU,
                                                       .kernel_init = {.kind = BP_INIT_ONES},
                                                       .recurrent_init = {.kind = BP_INIT_CONSTANT, .a = 0.5},
                                                       .bias_init = {.kind = BP_INIT_CONSTANT, .a = 100.0}};
        int node = add_node(graph, rnn, add_node(graph, steps, 0, "steps"), "rnn");
        node = add_dense(graph, node, "out", 1, 0.0);
        assert_int_equal(bp_graph_add_head(graph, node, BP_LOSS_MSE, 1.0, &err), BP_OK);
        data_init(&d, 50, STEPS, 0, 1);
        data_fill(&d, 3);
        data_split(&d, 0.0);
        config.epochs = 1;
        config.batch_size = 50;
        config.layer_stats = true;
        struct log *log = train(&config, graph, &d, &hash);
        const struct bp_layer_stat *s = &log->stats[0][0], *out = &log->stats[0][1];
        assert_true(s->delta_last > 0.0 && fabs(s->delta_last - s->delta_norm) <= 1e-6 * s->delta_norm);
        assert_true(s->delta_first == s->delta_last / 16.0);
        assert_true(isnan(out->delta_first) && isnan(log->total[0].delta_last));
        free(log);
        bp_graph_free(graph);
        data_done(&d);
    }
}

static void test_threads_and_looking_change_nothing(void **state)
{
    struct data d;
    const int hidden[] = {96, 64};
    struct bp_graph *graph = mlp(40, hidden, 2, BP_RELU, 0.25, 5, BP_LOSS_CROSS_ENTROPY);
    struct bp_train_config config = config_default();
    uint64_t plain, looked, hash;

    (void)state;
    data_init(&d, 400, 40, 5, 0);
    data_fill(&d, 5);
    data_split(&d, 0.2);
    config.epochs = 3;
    struct log *none = train(&config, graph, &d, &plain);
    assert_int_equal(none->n, 0);
    free(none);
    config.layer_stats = true;
    struct log *one = train(&config, graph, &d, &looked);
    assert_true(plain == looked && one->n > 0);
    for (int threads = 2; threads <= 5; threads += threads == 3 ? 2 : 1) {
        config.threads = threads;
        struct log *many = train(&config, graph, &d, &hash);
        assert_true(hash == plain);
        assert_memory_equal(many->loss, one->loss, sizeof one->loss);
        assert_memory_equal(many->total, one->total, sizeof one->total);
        assert_memory_equal(many->stats, one->stats, sizeof one->stats);
        free(many);
    }
    free(one);
    bp_graph_free(graph);
    data_done(&d);
}

struct counted {
    struct log log;
    uint64_t first, last;
};

static void count_allocations(void *ctx, const struct bp_progress *progress)
{
    struct counted *c = ctx;

    if (progress->step == 1) {
        c->first = bp_alloc_count();
    }
    c->last = bp_alloc_count();
}

static void test_no_allocation_and_an_honest_estimate(void **state)
{
    struct data d;
    const int hidden[] = {32, 32};
    struct bp_graph *graph = mlp(20, hidden, 2, BP_SIGMOID, 0.0, 4, BP_LOSS_CROSS_ENTROPY);
    struct bp_train_config config = config_default();
    struct counted counted = {0};
    struct bp_train_hooks hooks = {.ctx = &counted, .layers = take, .progress = count_allocations};
    struct bp_error err = {0};
    size_t without = 0, with = 0;

    (void)state;
    data_init(&d, 300, 20, 4, 0);
    data_fill(&d, 4);
    data_split(&d, 0.2);
    config.epochs = 4;
    assert_int_equal(bp_trainer_estimate(&config, graph, d.split.count[BP_TRAIN], &without), BP_OK);
    config.layer_stats = true;
    assert_int_equal(bp_trainer_estimate(&config, graph, d.split.count[BP_TRAIN], &with), BP_OK);
    assert_true(with > without + graph->nparams * sizeof(float));
    struct bp_trainer *t = trainer_new(&config, graph, &d);
    assert_int_equal(bp_trainer_run(t, &hooks, &err), BP_RUN_FINISHED);
    assert_true(counted.log.n > 4);
    assert_true(counted.first == counted.last);
    bp_trainer_free(t);
    for (int64_t n = 0; n < 40; n++) { /* any allocation may fail */
        struct bp_trainer *none = NULL;
        bp_alloc_fail_after(n);
        bp_status status = bp_trainer_new(&config, graph, &d.source, &d.split, &none, &err);
        bp_alloc_fail_after(-1);
        assert_true(status == BP_NOMEM || status == BP_OK);
        bp_trainer_free(none);
    }
    bp_graph_free(graph);
    data_done(&d);
}

/* A failing step is looked at too. */
static void test_blame_of_a_failing_step(void **state)
{
    struct data d;
    const int hidden[] = {8};
    struct bp_graph *graph = mlp(6, hidden, 1, BP_LINEAR, 0.0, 1, BP_LOSS_MSE);
    struct bp_train_config config = config_default();
    struct log log = {0};
    struct bp_train_hooks hooks = {.ctx = &log, .layers = take};
    struct bp_error err = {0};

    (void)state;
    data_init(&d, 100, 6, 0, 1);
    data_fill(&d, 0);
    data_split(&d, 0.0);
    config.layer_stats = true;
    config.epochs = 100;
    config.optimizer = (struct bp_optimizer){.kind = BP_SGD, .lr = 1e6};
    struct bp_trainer *t = trainer_new(&config, graph, &d);
    assert_int_equal(bp_trainer_run(t, &hooks, &err), BP_RUN_FAILED);
    assert_int_equal(err.code, BP_NONFINITE);
    assert_true(log.n > 0 && log.steps[log.n - 1] == t->at.step + 1);
    assert_true(isnan(log.total[log.n - 1].update_ratio));
    bp_trainer_free(t);
    bp_graph_free(graph);
    data_done(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_which_steps),
        cmocka_unit_test(test_figures_of_a_step),
        cmocka_unit_test(test_error_signals_through_time),
        cmocka_unit_test(test_threads_and_looking_change_nothing),
        cmocka_unit_test(test_no_allocation_and_an_honest_estimate),
        cmocka_unit_test(test_blame_of_a_failing_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
