/* test_initialize.c: the first parameters have the distributions that their names promise. */
#include "fixture.h"

enum { IN = 300, OUT = 200, COUNT = IN * OUT };

/* One dense layer of the given shape and initializers, initialized. */
static struct bp_model *model_of(int in, int out, struct bp_initializer init, uint64_t seed)
{
    struct bp_graph *graph = graph_new(in);
    struct bp_node node = {.kind = BP_OP_DENSE};
    struct bp_model *model = NULL;
    struct bp_error err;

    node.u.dense = (struct bp_dense_config){
        .units = out, .use_bias = true, .kernel_init = init, .bias_init = {.kind = BP_INIT_CONSTANT, .a = 0.5}};
    add_node(graph, node, 0, "d");
    assert_int_equal(bp_model_new(graph, true, 1, &model, &err), BP_OK);
    assert_int_equal(bp_initialize(model, seed, &err), BP_OK);
    return model;
}

static void done(struct bp_model *model)
{
    struct bp_graph *graph = (struct bp_graph *)(uintptr_t)model->graph;

    bp_model_free(model);
    bp_graph_free(graph);
}

/* Mean and deviation within five standard errors, and nothing beyond the bounds. */
static void test_distributions(void **state)
{
    const struct {
        struct bp_initializer init;
        double mean, deviation, low, high;
    } cases[] = {
        {{BP_INIT_ZEROS, 0, 0}, 0, 0, 0, 0},
        {{BP_INIT_ONES, 0, 0}, 1, 0, 1, 1},
        {{BP_INIT_CONSTANT, 0.25, 0}, 0.25, 0, 0.25, 0.25},
        {{BP_INIT_UNIFORM, -1, 3}, 1, 4 / sqrt(12.0), -1, 3},
        {{BP_INIT_NORMAL, 2, 0.5}, 2, 0.5, -INFINITY, INFINITY},
        /* a normal cut at two deviations has the deviation 0.8796 */
        {{BP_INIT_TRUNCATED_NORMAL, 2, 0.5}, 2, 0.5 * 0.87962566103423978, 1, 3},
        {{BP_INIT_GLOROT_UNIFORM, 0, 0}, 0, sqrt(2.0 / (IN + OUT)), -sqrt(6.0 / (IN + OUT)), sqrt(6.0 / (IN + OUT))},
        {{BP_INIT_GLOROT_NORMAL, 0, 0}, 0, sqrt(2.0 / (IN + OUT)), -INFINITY, INFINITY},
        {{BP_INIT_HE_UNIFORM, 0, 0}, 0, sqrt(2.0 / IN), -sqrt(6.0 / IN), sqrt(6.0 / IN)},
        {{BP_INIT_HE_NORMAL, 0, 0}, 0, sqrt(2.0 / IN), -INFINITY, INFINITY},
        {{BP_INIT_LECUN_UNIFORM, 0, 0}, 0, sqrt(1.0 / IN), -sqrt(3.0 / IN), sqrt(3.0 / IN)},
        {{BP_INIT_LECUN_NORMAL, 0, 0}, 0, sqrt(1.0 / IN), -INFINITY, INFINITY},
        {{BP_INIT_KAIMING_UNIFORM, 0, 0}, 0, sqrt(1.0 / (3.0 * IN)), -sqrt(1.0 / IN), sqrt(1.0 / IN)},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bp_model *model = model_of(IN, OUT, cases[i].init, 7);
        const float *w = model->params + model->graph->tensors[0].offset;
        double sum = 0.0, squares = 0.0, mean, deviation;

        for (int e = 0; e < COUNT; e++) {
            assert_true(w[e] >= (float)cases[i].low && w[e] <= (float)cases[i].high);
            sum += (double)w[e];
        }
        mean = sum / COUNT;
        for (int e = 0; e < COUNT; e++) {
            squares += ((double)w[e] - mean) * ((double)w[e] - mean);
        }
        deviation = sqrt(squares / COUNT);
        assert_true(fabs(mean - cases[i].mean) <= 5.0 * cases[i].deviation / sqrt(COUNT));
        assert_true(fabs(deviation - cases[i].deviation) <= 5.0 * cases[i].deviation / sqrt(COUNT));
        assert_true(model->params[model->graph->tensors[1].offset] == 0.5f);
        done(model);
    }
}

static void check_orthogonal(int in, int out, double gain)
{
    struct bp_model *model = model_of(in, out, (struct bp_initializer){BP_INIT_ORTHOGONAL, gain, 0}, 7);
    const float *w = model->params;
    bool tall = out > in;
    int k = tall ? in : out, n = tall ? out : in;

    for (int a = 0; a < k; a++) {
        for (int b = 0; b <= a; b++) {
            double dot = 0.0;
            for (int e = 0; e < n; e++) {
                dot += (double)(tall ? w[e * in + a] * w[e * in + b] : w[a * in + e] * w[b * in + e]);
            }
            assert_true(fabs(dot - (a == b ? gain * gain : 0.0)) < 1e-5);
        }
    }
    done(model);
}

static void test_orthogonal(void **state)
{
    (void)state;
    check_orthogonal(64, 64, 1.0);
    check_orthogonal(100, 33, 1.5);
    check_orthogonal(33, 100, 1.5);
    check_orthogonal(1, 1, 2.0);
}

/* Another seed, another tensor: other numbers. The same: the same. Neighbours are not alike. */
static void test_independence(void **state)
{
    struct bp_initializer normal = {BP_INIT_NORMAL, 0, 1};
    struct bp_model *a = model_of(IN, OUT, normal, 7), *b = model_of(IN, OUT, normal, 8),
                    *c = model_of(IN, OUT, normal, 7);
    double with_b = 0.0, with_next = 0.0;

    (void)state;
    assert_memory_equal(a->params, c->params, COUNT * sizeof(float));
    for (int e = 0; e + 1 < COUNT; e++) {
        with_b += (double)(a->params[e] * b->params[e]);
        with_next += (double)(a->params[e] * a->params[e + 1]);
    }
    assert_true(fabs(with_b) / COUNT < 5.0 / sqrt(COUNT));
    assert_true(fabs(with_next) / COUNT < 5.0 / sqrt(COUNT));
    done(a);
    done(b);
    done(c);
}

static void test_literals(void **state)
{
    static const float w[6] = {1, 2, 3, 4, 5, 6}, bias[2] = {-1, -2};
    struct bp_graph *graph = graph_new(3);
    struct bp_node node = {.kind = BP_OP_DENSE};
    struct bp_model *model;
    struct bp_error err;

    (void)state;
    node.u.dense = (struct bp_dense_config){.units = 2, .use_bias = true, .weights = w, .biases = bias};
    add_node(graph, node, 0, "d");
    assert_int_equal(bp_model_new(graph, true, 1, &model, &err), BP_OK);
    assert_int_equal(bp_initialize(model, 1, &err), BP_OK);
    assert_memory_equal(model->params + graph->tensors[0].offset, w, sizeof w);
    assert_memory_equal(model->params + graph->tensors[1].offset, bias, sizeof bias);
    done(model);
}

static void test_no_memory(void **state)
{
    struct bp_model *model = model_of(8, 8, (struct bp_initializer){BP_INIT_ORTHOGONAL, 1, 0}, 7);
    struct bp_error err;

    (void)state;
    bp_alloc_fail_after(0);
    assert_int_equal(bp_initialize(model, 1, &err), BP_NOMEM);
    bp_alloc_fail_after(-1);
    done(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distributions), cmocka_unit_test(test_orthogonal), cmocka_unit_test(test_independence),
        cmocka_unit_test(test_literals),      cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
