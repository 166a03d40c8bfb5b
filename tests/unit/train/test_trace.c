/* A training step laid open: a published example to its last digit, chains by hand, clipping, frozen biases, ends. */
#include "train/trace.h"

#include "graph/nets.h"

#include <math.h>

static const struct bp_optimizer sgd = {.kind = BP_SGD, .lr = 0.5};

static struct bp_trace *run(const struct bp_graph *graph, const struct bp_trace_options *options,
                            const double *params, const double *input, const double *values, const int32_t *labels)
{
    struct bp_trace_target target = {.label = labels, .value = values, .scale = 1};
    struct bp_trace *trace = NULL;
    struct bp_error err = {0};
    static const double none;
    if (bp_trace_new(graph, options, params, &none, input, &target, &trace, &err) != BP_OK)
        fail_msg("%s", err.message);
    return trace;
}

static void near(double value, double wanted, double digit)
{
    if (!(fabs(value - wanted) <= 0.5 * digit))
        fail_msg("%.12g is not %.12g", value, wanted);
}

/* Parameters lie in the order of the tensors: weight [out, in], then bias, layer after layer. */
static void the_published_example(void **state)
{
    (void)state;
    struct bp_graph *graph = net_new(1, 2, 0, 0);
    int n = net_act(graph, net_dense(graph, 0, 2), BP_SIGMOID, 0);
    n = net_act(graph, net_dense(graph, n, 2), BP_SIGMOID, 0);
    net_head(graph, n, BP_LOSS_MSE, 1);
    double params[64] = {0};
    static const double weights[2][4] = {{0.15, 0.20, 0.25, 0.30}, {0.40, 0.45, 0.50, 0.55}},
                        biases[2] = {0.35, 0.60};
    assert_true(graph->nparams <= 64);
    for (int t = 0; t < 4; t++)
        for (size_t i = 0; i < graph->tensors[t].count; i++)
            params[graph->tensors[t].offset + i] = t % 2 == 0 ? weights[t / 2][i] : biases[t / 2];
    static const double input[2] = {0.05, 0.10}, target[2] = {0.01, 0.99};
    struct bp_trace_options options = {.optimizer = sgd, .rows = 1, .steps = 1, .freeze_biases = true};
    struct bp_trace *trace = run(graph, &options, params, input, target, NULL);

    near(trace->loss, 0.298371109, 1e-9);
    near(trace->value[2][0], 0.593269992, 1e-9);
    near(trace->value[4][0], 0.75136507, 1e-8);
    near(trace->delta[3][0], 0.138498562, 1e-9);
    near(trace->row_loss[0][0], trace->loss, 1e-15);
    const double *w1 = trace->after + graph->tensors[0].offset, *w2 = trace->after + graph->tensors[2].offset;
    static const double after1[] = {0.149780716, 0.19956143, 0.24975114, 0.29950229};
    static const double after2[] = {0.35891648, 0.408666186, 0.511301270, 0.561370121};
    for (int i = 0; i < 4; i++) {
        near(w1[i], after1[i], i == 0 ? 1e-9 : 1e-8);
        near(w2[i], after2[i], i == 0 ? 1e-8 : 1e-9);
    }
    for (int t = 1; t < 4; t += 2) /* biases have a gradient, and stay */
        for (size_t i = 0; i < 2; i++) {
            size_t at = graph->tensors[t].offset + i;
            assert_true(trace->gradient[at] != 0 && trace->after[at] == trace->before[at]);
        }
    assert_true(trace->loss_after < trace->loss);
    bp_trace_free(trace);

    options.steps = 10000;
    trace = run(graph, &options, params, input, target, NULL);
    near(trace->loss, 0.0000351085, 1e-10);
    bp_trace_free(trace);
    bp_graph_free(graph);
}

/* y = w2 w1 x: 6 where 5 is right. */
static struct bp_graph *chain(void)
{
    struct bp_graph *graph = net_new(1, 1, 0, 0);
    struct bp_node node = {.kind = BP_OP_DENSE, .trainable = true, .u.dense = {.units = 1}};
    int n = net_add(graph, node, net_add(graph, node, 0));
    net_head(graph, n, BP_LOSS_MSE, 1);
    return graph;
}

static void a_chain_by_hand(void **state)
{
    (void)state;
    struct bp_graph *graph = chain();
    double params[64] = {0};
    params[graph->tensors[0].offset] = 2;
    params[graph->tensors[1].offset] = 3;
    const double x = 1, t = 5;
    struct bp_trace_options options = {.optimizer = {.kind = BP_SGD, .lr = 0.01}, .rows = 1, .steps = 1};
    struct bp_trace *trace = run(graph, &options, params, &x, &t, NULL);
    assert_true(trace->loss == 1 && trace->delta[2][0] == 2 && trace->delta[1][0] == 6 && trace->delta[0][0] == 12);
    assert_true(trace->gradient[graph->tensors[0].offset] == 6 && trace->gradient[graph->tensors[1].offset] == 4);
    near(trace->gradient_norm, sqrt(52), 1e-14);
    near(trace->after[graph->tensors[0].offset], 1.94, 1e-15);
    bp_trace_free(trace);

    options.clip_grad_norm = 1;
    trace = run(graph, &options, params, &x, &t, NULL);
    near(trace->gradient_scale, 1 / (sqrt(52) + 1e-6), 1e-15); /* as PyTorch and the trainer clip */
    near(trace->after[graph->tensors[0].offset], 2 - 0.06 / (sqrt(52) + 1e-6), 1e-15);
    bp_trace_free(trace);

    options.clip_grad_norm = 0;
    options.clip_grad_value = 5;
    trace = run(graph, &options, params, &x, &t, NULL);
    near(trace->after[graph->tensors[0].offset], 2 - 0.05, 1e-15); /* 6 becomes 5, 4 stays */
    near(trace->after[graph->tensors[1].offset], 3 - 0.04, 1e-15);
    bp_trace_free(trace);
    options.clip_grad_value = 0;

    options.schedule = (struct bp_schedule){.kind = BP_SCHEDULE_EXPONENTIAL, .gamma = 0.5};
    options.steps = 3;
    trace = run(graph, &options, params, &x, &t, NULL);
    near(trace->rate, 0.0025, 1e-15);
    bp_trace_free(trace);
    options.schedule = (struct bp_schedule){.kind = BP_SCHEDULE_CONSTANT};
    options.steps = 1;

    /* two steps are a step after a step */
    options.clip_grad_norm = 0;
    struct bp_trace *first = run(graph, &options, params, &x, &t, NULL);
    struct bp_trace *second = run(graph, &options, first->after, &x, &t, NULL);
    options.steps = 2;
    struct bp_trace *both = run(graph, &options, params, &x, &t, NULL);
    assert_memory_equal(both->after, second->after, graph->nparams * sizeof(double));
    assert_memory_equal(both->before, first->after, graph->nparams * sizeof(double));
    bp_trace_free(first);
    bp_trace_free(second);
    bp_trace_free(both);
    bp_graph_free(graph);
}

static bool always(void *ctx)
{
    ++*(int *)ctx;
    return true;
}

static void how_it_ends(void **state)
{
    (void)state;
    struct bp_graph *graph = chain();
    struct bp_error err = {0};
    struct bp_trace *trace = NULL;
    int asked = 0;
    static const double params[64] = {0}, t = 5, none;
    static const double x = 1, huge = 1e200;
    struct bp_trace_target target = {.value = &t, .scale = 1};
    struct bp_trace_options options = {
        .optimizer = sgd, .rows = 1, .steps = 1000, .cancelled = always, .ctx = &asked};
    assert_int_equal(bp_trace_new(graph, &options, params, &none, &x, &target, &trace, &err), BP_STOPPED);
    assert_int_equal(asked, 1);
    options.cancelled = NULL;
    options.steps = 0;
    assert_int_equal(bp_trace_new(graph, &options, params, &none, &x, &target, &trace, &err), BP_INVALID);
    options.steps = 1;
    double large[64];
    for (int i = 0; i < 64; i++)
        large[i] = 1e100;
    assert_int_equal(bp_trace_new(graph, &options, large, &none, &huge, &target, &trace, &err), BP_NONFINITE);
    assert_string_equal(err.where, "loss");
    assert_null(trace);
    bp_trace_free(NULL);
    bp_graph_free(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_example),
        cmocka_unit_test(a_chain_by_hand),
        cmocka_unit_test(how_it_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
