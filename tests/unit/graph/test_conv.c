/* Convolutions, pools and embeddings: values against plain loops; one row alone and among others; and the same bytes
 * whatever the number of threads and whatever the instruction set. */
#include "graph/exec.h"
#include "graph/nets.h"

#include <math.h>
#include <stdlib.h>

static uint32_t word(uint32_t stream, uint64_t index)
{
    uint32_t w[4];
    bp_random(8, stream, 0, index, w);
    return w[0];
}

static float value(uint32_t stream, uint64_t index)
{
    return 2 * bp_random_unit(word(stream, index)) - 1;
}

struct run {
    struct bp_model *model;
    struct bp_exec *exec;
    int rows, active;
    double loss;
};

static void leader(struct bp_team *team, void *arg)
{
    struct run *run = arg;
    bp_team_set_active(team, run->active);
    bp_model_pack(run->model, team);
    run->loss = bp_exec_pass(run->exec, team, run->rows, true, 3, 4);
    bp_exec_forward(run->exec, team, run->rows);
    run->loss += bp_exec_pass(run->exec, team, run->rows, true, 3, 5);
}

/* A run of rows first .. first + rows of an endless random table. */
static struct run run_rows(const struct bp_graph *graph, uint64_t first, int rows, int threads)
{
    struct run run = {.rows = rows, .active = threads};
    struct bp_exec_options options = {.capacity = rows, .training = true, .input_gradient = true, .threads = threads};
    size_t inputs = (size_t)bp_shape_elements(&graph->nodes[0].shape);
    assert_int_equal(bp_model_new(graph, true, 0, &run.model, NULL), BP_OK);
    assert_int_equal(bp_exec_new(run.model, &options, &run.exec, NULL), BP_OK);
    for (int t = 0; t < graph->ntensors; t++)
        for (size_t i = 0; i < graph->tensors[t].count; i++)
            run.model->params[graph->tensors[t].offset + i] =
                value(10 + (uint32_t)t, i) / sqrtf((float)graph->tensors[t].fan_in);
    for (size_t i = 0; i < (size_t)rows * inputs; i++)
        bp_exec_input(run.exec)[i] = value(2, first * inputs + i);
    for (int h = 0; h < graph->nheads; h++) {
        const struct bp_targets *targets = bp_exec_targets(run.exec, h);
        size_t n = (size_t)graph->heads[h].outputs;
        for (size_t r = 0; r < (size_t)rows; r++) {
            if (targets->label != NULL)
                targets->label[r] = (int32_t)(word(3, first + r) % (uint32_t)n);
            for (size_t i = 0; targets->value != NULL && i < n; i++)
                targets->value[r * n + i] = value(4, (first + r) * n + i);
        }
    }
    bp_team_run(threads, leader, &run);
    return run;
}

static void run_done(struct run *run)
{
    bp_exec_free(run->exec);
    bp_model_free(run->model);
}

/* --- values ------------------------------------------------------------------------------------------------------- */

/* y of a convolution by its definition, in double; with dy, what it adds to dx and dw instead. */
static void convolve(const struct bp_conv_config *c, const struct bp_shape *in, const struct bp_shape *out,
                     const int64_t before[2], const float *w, const float *b, const float *x, double *y,
                     const double *dy, double *dx, double *dw)
{
    int64_t channels = in->dim[0] / c->groups, filters = c->filters / c->groups;
    for (int64_t o = 0; o < c->filters; o++)
        for (int64_t oy = 0; oy < out->dim[1]; oy++)
            for (int64_t ox = 0; ox < out->dim[2]; ox++) {
                int64_t at = (o * out->dim[1] + oy) * out->dim[2] + ox;
                double sum = b != NULL ? (double)b[o] : 0;
                for (int64_t ch = 0; ch < channels; ch++)
                    for (int64_t ky = 0; ky < c->kernel[0]; ky++)
                        for (int64_t kx = 0; kx < c->kernel[1]; kx++) {
                            int64_t iy = oy * c->stride[0] - before[0] + ky * c->dilation[0];
                            int64_t ix = ox * c->stride[1] - before[1] + kx * c->dilation[1];
                            if (iy < 0 || iy >= in->dim[1] || ix < 0 || ix >= in->dim[2])
                                continue;
                            int64_t from = ((o / filters * channels + ch) * in->dim[1] + iy) * in->dim[2] + ix;
                            int64_t tap = ((o * channels + ch) * c->kernel[0] + ky) * c->kernel[1] + kx;
                            sum += (double)w[tap] * (double)x[from];
                            if (dy != NULL) {
                                dx[from] += (double)w[tap] * dy[at];
                                dw[tap] += (double)x[from] * dy[at];
                            }
                        }
                if (dy == NULL)
                    y[at] = sum;
            }
}

static const struct {
    int64_t channels, height, width, before[2];
    struct bp_conv_config conv;
} value_cases[] = {
    {3, 9, 11, {0, 0}, {.filters = 5, .kernel = {3, 3}, .use_bias = true}},
    {3, 9, 11, {1, 1}, {.filters = 13, .kernel = {3, 3}, .same = true, .use_bias = true}},
    {3, 9, 11, {0, 1}, {.filters = 13, .kernel = {2, 4}, .same = true, .use_bias = true}},
    {2, 28, 28, {0, 0}, {.filters = 6, .kernel = {3, 3}, .stride = {2, 2}, .same = true, .use_bias = true}},
    {2, 40, 40, {3, 2}, {.filters = 6, .kernel = {5, 3}, .stride = {1, 3}, .padding = {3, 2}}},
    {6, 12, 20, {2, 4}, {.filters = 9, .groups = 3, .kernel = {3, 3}, .dilation = {2, 4}, .same = true}},
    {7, 17, 33, {1, 1}, {.multiplier = 1, .kernel = {3, 3}, .same = true, .use_bias = true}},
    {7, 17, 33, {2, 2}, {.multiplier = 3, .kernel = {5, 5}, .stride = {2, 1}, .padding = {2, 2}, .use_bias = true}},
    {64, 3, 3, {0, 0}, {.filters = 40, .kernel = {1, 1}}},
    {1, 1, 500, {0, 2}, {.filters = 3, .kernel = {1, 5}, .same = true, .use_bias = true}},
    {300, 4, 4, {1, 1}, {.filters = 2, .kernel = {3, 3}, .same = true, .use_bias = true}},
    {5, 3, 3, {1, 1}, {.multiplier = 1, .kernel = {3, 3}, .stride = {2, 2}, .same = true, .use_bias = true}},
    {5, 28, 37, {0, 0}, {.multiplier = 1, .kernel = {3, 3}, .stride = {2, 2}, .use_bias = true}},
    {3, 31, 20, {2, 2}, {.multiplier = 4, .kernel = {5, 5}, .stride = {3, 3}, .padding = {2, 2}}},
    {16, 9, 9, {0, 0}, {.filters = 80, .kernel = {1, 1}, .stride = {2, 2}}},
    {32, 14, 14, {1, 1}, {.filters = 64, .kernel = {3, 3}, .same = true, .use_bias = true}},
    {20, 15, 13, {2, 1}, {.filters = 36, .groups = 2, .kernel = {5, 4}, .stride = {2, 1}, .padding = {2, 1}}},
};

static void compare(const char *what, size_t number, const float *got, const double *want, size_t n, double limit)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - want[i]) < limit))
            fail_msg("case %zu, %s %zu: %.9g, not %.9g", number, what, i, (double)got[i], want[i]);
}

static void values_of_convolutions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof value_cases / sizeof *value_cases; i++) {
        struct bp_graph *graph = net_new(3, value_cases[i].channels, value_cases[i].height, value_cases[i].width);
        int n = net_conv(graph, 0, value_cases[i].conv);
        net_head(graph, net_flatten(graph, n), BP_LOSS_MSE, 1);
        const struct bp_conv_config *conv = &graph->nodes[n].u.conv;
        const struct bp_shape *in = &graph->nodes[0].shape, *out = &graph->nodes[n].shape;
        size_t inputs = (size_t)bp_shape_elements(in), outputs = (size_t)bp_shape_elements(out);
        struct run run = run_rows(graph, 0, 3, 1);
        const float *w = run.model->params + graph->tensors[0].offset;
        const float *b = conv->use_bias ? run.model->params + graph->tensors[1].offset : NULL;
        const int64_t *before = value_cases[i].before;
        size_t weights = graph->tensors[0].count;
        double *y = malloc(outputs * sizeof *y), *dx = malloc(inputs * sizeof *dx);
        double *dw = calloc(weights, sizeof *dw);
        for (size_t r = 0; r < 3; r++) {
            const float *x = bp_exec_input(run.exec) + r * inputs, *got = bp_exec_output(run.exec, 0) + r * outputs;
            convolve(conv, in, out, before, w, b, x, y, NULL, NULL, NULL);
            compare("y", i, got, y, outputs, 2e-6);
            for (size_t e = 0; e < outputs; e++) /* of the mean of squares, over the rows too */
                y[e] = 2 * ((double)got[e] - (double)value(4, r * outputs + e)) / (3 * (double)outputs);
            memset(dx, 0, inputs * sizeof *dx);
            convolve(conv, in, out, before, w, b, x, NULL, y, dx, dw);
            compare("dx", i, bp_exec_input_gradient(run.exec) + r * inputs, dx, inputs, 1e-5 / (double)outputs);
        }
        compare("dw", i, run.model->grads + graph->tensors[0].offset, dw, weights, 1e-4 / (double)outputs);
        free(y);
        free(dx);
        free(dw);
        run_done(&run);
        bp_graph_free(graph);
    }
}

/* The first of equal values gets all of the error signal; NaN is the largest; windows in the border see no zeros. */
static void ties_nan_and_borders(void **state)
{
    static const float x[2][16] = {{1, 1, 5, NAN, 1, 1, 7, 2, -3, -4, -1, -1, -2, -9, -1, -1}, {0}};
    static const float y[] = {1, NAN, -2, -1}, dx_at[] = {0, 12};
    struct bp_graph *graph = net_new(3, 1, 4, 4);
    struct bp_exec_options options = {.capacity = 1, .training = true, .input_gradient = true, .threads = 1};
    struct bp_model *model;
    struct bp_exec *exec;
    (void)state;
    int n = net_pool(graph, 0, (struct bp_pool_config){.size = {2, 2}, .stride = {2, 2}});
    net_head(graph, net_flatten(graph, n), BP_LOSS_MSE, 1);
    assert_int_equal(bp_model_new(graph, true, 0, &model, NULL), BP_OK);
    assert_int_equal(bp_exec_new(model, &options, &exec, NULL), BP_OK);
    memcpy(bp_exec_input(exec), x[0], sizeof x[0]);
    for (int i = 0; i < 4; i++)
        bp_exec_targets(exec, 0)->value[i] = 0;
    bp_exec_pass(exec, NULL, 1, true, 0, 0);
    for (int i = 0; i < 4; i++) {
        float got = bp_exec_output(exec, 0)[i];
        assert_true(got == y[i] || (isnan(got) && isnan(y[i])));
    }
    const float *dx = bp_exec_input_gradient(exec);
    assert_true(dx[(int)dx_at[0]] == 0.5f && dx[1] == 0 && dx[4] == 0 && dx[5] == 0);
    assert_true(dx[(int)dx_at[1]] == -1 && dx[8] == 0 && dx[10] == -0.5f && dx[11] == 0 && isnan(dx[3]));
    bp_exec_free(exec);
    bp_model_free(model);
    bp_graph_free(graph);

    graph = net_new(3, 1, 2, 2);
    n = net_pool(graph, 0, (struct bp_pool_config){.size = {3, 3}, .stride = {1, 1}, .padding = {1, 1}});
    net_head(graph, net_flatten(graph, n), BP_LOSS_MSE, 1);
    n = net_pool(graph, 0, (struct bp_pool_config){BP_POOL_AVG, {3, 3}, {1, 1}, false, {1, 1}});
    net_head(graph, net_flatten(graph, n), BP_LOSS_MSE, 1);
    assert_int_equal(bp_model_new(graph, false, 0, &model, NULL), BP_OK);
    options.training = options.input_gradient = false;
    assert_int_equal(bp_exec_new(model, &options, &exec, NULL), BP_OK);
    memcpy(bp_exec_input(exec), (float[]){-1, -2, -3, -8}, 4 * sizeof(float));
    bp_exec_forward(exec, NULL, 1);
    for (int i = 0; i < 4; i++) {
        assert_true(bp_exec_output(exec, 0)[i] == -1);
        assert_true(bp_exec_output(exec, 1)[i] == -14.0f / 9);
    }
    bp_exec_free(exec);
    bp_model_free(model);
    bp_graph_free(graph);
}

/* Codes that are none give zeros and get no gradient; a code that comes twice gets the sum. */
static void embedding_codes(void **state)
{
    struct bp_graph *graph = net_new(1, 6, 0, 0);
    struct bp_exec_options options = {.capacity = 1, .training = true, .threads = 1};
    struct bp_model *model;
    struct bp_exec *exec;
    (void)state;
    int n = net_embedding(graph, 0, 3, 2);
    net_head(graph, net_flatten(graph, n), BP_LOSS_MSE, 1);
    assert_int_equal(bp_model_new(graph, true, 0, &model, NULL), BP_OK);
    assert_int_equal(bp_exec_new(model, &options, &exec, NULL), BP_OK);
    for (int i = 0; i < 6; i++)
        model->params[i] = (float)(10 + i);
    memcpy(bp_exec_input(exec), (float[]){2, -1, 1.5f, 2, 3, NAN}, 6 * sizeof(float));
    for (int i = 0; i < 12; i++)
        bp_exec_targets(exec, 0)->value[i] = 0;
    bp_exec_pass(exec, NULL, 1, true, 0, 0);
    static const float y[] = {14, 15, 0, 0, 0, 0, 14, 15, 0, 0, 0, 0};
    assert_memory_equal(bp_exec_output(exec, 0), y, sizeof y);
    for (int i = 0; i < 4; i++)
        assert_true(model->grads[i] == 0);
    assert_true(fabsf(model->grads[4] - 2 * 14 * 2 / 12.0f) < 1e-5f);
    assert_true(fabsf(model->grads[5] - 2 * 15 * 2 / 12.0f) < 1e-5f);
    bp_exec_free(exec);
    bp_model_free(model);
    bp_graph_free(graph);
}

/* --- bytes -------------------------------------------------------------------------------------------------------- */

#define ROWS 150

/* Large enough for a team; strides, dilation, groups, depthwise, several tiles of dw, every pool, fan-out. */
static struct bp_graph *graph_of(void)
{
    struct bp_graph *graph = net_new(3, 3, 17, 19);
    int n =
        net_conv(graph, 0, (struct bp_conv_config){.filters = 10, .kernel = {3, 3}, .same = true, .use_bias = true});
    int trunk = net_act(graph, n, BP_RELU, 0);
    n = net_pool(graph, trunk, (struct bp_pool_config){.size = {2, 2}, .stride = {2, 2}, .same = true});
    n = net_conv(graph, n, (struct bp_conv_config){.filters = 24, .groups = 2, .kernel = {3, 3}, .use_bias = true});
    n = net_pool(graph, net_act(graph, n, BP_TANH, 0),
                 (struct bp_pool_config){BP_POOL_AVG, {3, 3}, {2, 2}, false, {1, 1}});
    net_head(graph, net_dense(graph, net_flatten(graph, n), 10), BP_LOSS_CROSS_ENTROPY, 1);
    n = net_conv(graph, trunk,
                 (struct bp_conv_config){.filters = 5, .kernel = {3, 2}, .stride = {2, 3}, .dilation = {2, 1}});
    n = net_pool(graph, n, (struct bp_pool_config){.size = {3, 3}, .stride = {1, 1}});
    net_head(graph, net_dense(graph, net_flatten(graph, n), 3), BP_LOSS_BCE, 0.5);
    n = net_conv(graph, trunk,
                 (struct bp_conv_config){.multiplier = 2, .kernel = {3, 3}, .padding = {1, 2}, .use_bias = true});
    n = net_pool(graph, n, (struct bp_pool_config){.size = {3, 3}, .stride = {3, 3}});
    n = net_pool(graph, n, (struct bp_pool_config){.kind = BP_POOL_GLOBAL_AVG});
    net_head(graph, n, BP_LOSS_MSE, 0.5);
    return graph;
}

/* FNV-1a of the bytes. A change of this value is a change of what training computes: it has to be meant, and the
 * numerics version raised with it. */
#define GOLDEN 0xf1d029693ba7054fULL

static uint64_t hash(const void *bytes, size_t size)
{
    uint64_t h = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < size; i++)
        h = (h ^ ((const uint8_t *)bytes)[i]) * 0x100000001b3ULL;
    return h;
}

static float *bytes_of(const struct bp_graph *graph, struct run *run, size_t *ret)
{
    size_t params = run->model->nparams, outputs = (size_t)run->rows * 10;
    size_t inputs = (size_t)run->rows * (size_t)bp_shape_elements(&graph->nodes[0].shape);
    float *bytes = malloc((params + outputs + inputs) * sizeof *bytes + sizeof(double));
    memcpy(bytes, run->model->grads, params * sizeof *bytes);
    memcpy(bytes + params, bp_exec_output(run->exec, 0), outputs * sizeof *bytes);
    memcpy(bytes + params + outputs, bp_exec_input_gradient(run->exec), inputs * sizeof *bytes);
    memcpy(bytes + params + outputs + inputs, &run->loss, sizeof run->loss);
    *ret = (params + outputs + inputs) * sizeof *bytes + sizeof(double);
    return bytes;
}

static void any_threads_and_instruction_set(void **state)
{
    static const char *const sets[] = {"generic", "avx2", "avx512", "neon"};
    static const int threads[] = {1, 2, 3, 5};
    struct bp_graph *graph = graph_of();
    float *first = NULL;
    size_t bytes = 0;
    (void)state;
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        if (bp_kernels_select(sets[s], NULL) != BP_OK)
            continue;
        for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
            struct run run = run_rows(graph, 0, ROWS, threads[t]);
            float *now = bytes_of(graph, &run, &bytes);
            run_done(&run);
            if (first != NULL && memcmp(first, now, bytes) != 0)
                fail_msg("%s with %d threads gives other bytes", sets[s], threads[t]);
            if (first == NULL)
                first = now;
            else
                free(now);
        }
    }
    if (hash(first, bytes) != GOLDEN)
        fail_msg("the bytes have changed: their hash is 0x%llx", (unsigned long long)hash(first, bytes));
    free(first);
    bp_graph_free(graph);
    assert_int_equal(bp_kernels_select(NULL, NULL), BP_OK);
}

/* What a row gives does not depend on the rows around it. */
static void one_row_alone(void **state)
{
    struct bp_graph *graph = graph_of();
    struct run all = run_rows(graph, 0, 40, 2);
    (void)state;
    for (uint64_t r = 0; r < 40; r += 13) {
        struct run one = run_rows(graph, r, 1, 1);
        for (int h = 0; h < graph->nheads; h++) {
            size_t n = (size_t)graph->heads[h].outputs;
            assert_memory_equal(bp_exec_output(all.exec, h) + r * n, bp_exec_output(one.exec, h), n * sizeof(float));
        }
        run_done(&one);
    }
    run_done(&all);
    bp_graph_free(graph);
}

/* --- what is refused ---------------------------------------------------------------------------------------------- */

static void refused(const char *words, struct bp_node node, int rank, int64_t d0, int64_t d1, int64_t d2)
{
    struct bp_graph *graph = net_new(rank, d0, d1, d2);
    struct bp_error err = {0};
    int index;
    snprintf(node.name, sizeof node.name, "layer");
    node.ninputs = 1;
    bp_status status = bp_graph_add(graph, &node, &index, &err);
    assert_true(status == BP_INVALID || status == BP_LIMIT);
    if (strstr(err.message, words) == NULL)
        fail_msg("'%s' does not say '%s'", err.message, words);
    bp_graph_free(graph);
}

/* What is 0 becomes the default: 4 filters of 3 x 3. */
static struct bp_node conv(struct bp_conv_config c)
{
    c.axes = c.axes ? c.axes : 2;
    c.filters = c.filters ? c.filters : 4;
    c.groups = c.groups ? c.groups : 1;
    for (int i = 0; i < 2; i++) {
        c.kernel[i] = c.kernel[i] ? c.kernel[i] : 3;
        c.stride[i] = c.stride[i] ? c.stride[i] : 1;
        c.dilation[i] = c.dilation[i] ? c.dilation[i] : 1;
    }
    return (struct bp_node){.kind = BP_OP_CONV, .u.conv = c};
}

#define CONV(...) conv((struct bp_conv_config){__VA_ARGS__})
#define POOL(...)                                                                                                    \
    (struct bp_node)                                                                                                 \
    {                                                                                                                \
        .kind = BP_OP_POOL, .u.pool = { __VA_ARGS__ }                                                                \
    }

static void what_does_not_fit(void **state)
{
    (void)state;
    refused("window of 3 is larger than the height of 2", CONV(.same = false), 3, 1, 2, 5);
    refused("window of 5 is larger than the width of 4", CONV(.dilation = {1, 2}), 3, 1, 5, 4);
    refused("window of 3 is larger than the length of 2", CONV(.axes = 1), 2, 1, 2, 0);
    refused("needs [channels, height, width], but [9, 9]", CONV(.same = true), 2, 9, 9, 0);
    refused("groups must divide the 3 channels", CONV(.groups = 2), 3, 3, 9, 9);
    refused("strides", CONV(.stride = {-1, 1}), 3, 3, 9, 9);
    refused("padded image has too many", CONV(.padding = {60000, 60000}), 3, 1, 9, 9);
    refused("too many elements", CONV(.filters = 2000000000), 3, 1, 9, 9);
    refused("window of 2 is larger than the height of 1", POOL(.size = {2, 2}, .stride = {2, 2}), 3, 1, 1, 4);
    refused("half of pool_size", POOL(.size = {2, 2}, .stride = {2, 2}, .padding = {2, 0}), 3, 1, 4, 4);
    refused("between 1 and", POOL(.size = {2, 0}, .stride = {2, 2}), 3, 1, 4, 4);
    refused("needs [channels, height, width]", POOL(.kind = BP_POOL_GLOBAL_AVG), 1, 4, 0, 0);
    refused("must be 12", (struct bp_node){.kind = BP_OP_RESHAPE, .u.reshape = {2, {3, 5}}}, 1, 12, 0, 0);
    refused("vector of codes",
            (struct bp_node){.kind = BP_OP_EMBEDDING, .u.embedding = {.input_dim = 3, .output_dim = 2}}, 2, 3, 4, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_convolutions), cmocka_unit_test(ties_nan_and_borders),
        cmocka_unit_test(embedding_codes),        cmocka_unit_test(any_threads_and_instruction_set),
        cmocka_unit_test(one_row_alone),          cmocka_unit_test(what_does_not_fit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
