/* Passes: values that can be computed by hand, fan-out, views, modes, memory. */
#include "graph/exec.h"
#include "graph/nets.h"

#include "base/memory.h"
#include "base/random.h"

#include <malloc.h>
#include <math.h>
#include <stdlib.h>

static struct bp_model *model_of(const struct bp_graph *graph)
{
    struct bp_model *model = NULL;
    assert_int_equal(bp_model_new(graph, true, 0, &model, NULL), BP_OK);
    for (size_t i = 0; i < model->nparams; i++) {
        uint32_t w[4];
        bp_random(1, bp_stream(BP_STREAM_CHECK, 1), 0, i, w);
        model->params[i] = bp_random_unit(w[0]) - 0.5f;
    }
    bp_model_pack(model, NULL);
    return model;
}

static struct bp_exec *exec_of(struct bp_model *model, struct bp_exec_options options)
{
    struct bp_exec *exec = NULL;
    struct bp_error err = {0};
    options.threads = options.threads > 0 ? options.threads : 1;
    if (bp_exec_new(model, &options, &exec, &err) != BP_OK)
        fail_msg("%s", err.message);
    return exec;
}

static void near(double a, double b)
{
    if (!(fabs(a - b) <= 2e-6 * fmax(1, fabs(b))))
        fail_msg("%.9g is not %.9g", a, b);
}

/* The network of XOR, 2-2-1 with sigmoids and mse, against the formulas written out. */
static void xor_by_hand(void **state)
{
    static const double w1[2][2] = {{0.5, -0.4}, {0.3, 0.8}}, b1[2] = {0.1, -0.2}, w2[2] = {0.7, -0.6}, b2 = 0.05;
    static const double x[4][2] = {{0, 0}, {0, 1}, {1, 0}, {1, 1}}, t[4] = {0, 1, 1, 0};
    double loss = 0, dw1[2][2] = {{0}}, db1[2] = {0}, dw2[2] = {0}, db2 = 0;
    struct bp_graph *graph = net_new(1, 2, 0, 0);
    (void)state;

    for (int r = 0; r < 4; r++) {
        double a[2], y, delta;
        for (int j = 0; j < 2; j++)
            a[j] = 1 / (1 + exp(-(w1[j][0] * x[r][0] + w1[j][1] * x[r][1] + b1[j])));
        y = 1 / (1 + exp(-(w2[0] * a[0] + w2[1] * a[1] + b2)));
        loss += (y - t[r]) * (y - t[r]) / 4;
        delta = 2 * (y - t[r]) / 4 * y * (1 - y); /* dL/dz of the output */
        db2 += delta;
        for (int j = 0; j < 2; j++) {
            double hidden = delta * w2[j] * a[j] * (1 - a[j]);
            dw2[j] += delta * a[j];
            db1[j] += hidden;
            for (int i = 0; i < 2; i++)
                dw1[j][i] += hidden * x[r][i];
        }
    }

    int h = net_act(graph, net_dense(graph, 0, 2), BP_SIGMOID, 0);
    net_head(graph, net_act(graph, net_dense(graph, h, 1), BP_SIGMOID, 0), BP_LOSS_MSE, 1);
    struct bp_model *model = model_of(graph);
    float params[9] = {0.5f, -0.4f, 0.3f, 0.8f, 0.1f, -0.2f, 0.7f, -0.6f, 0.05f};
    memcpy(model->params, params, sizeof params);
    bp_model_pack(model, NULL);
    struct bp_exec *exec = exec_of(model, (struct bp_exec_options){.capacity = 4, .training = true});
    for (int r = 0; r < 4; r++) {
        bp_exec_input(exec)[2 * r] = (float)x[r][0];
        bp_exec_input(exec)[2 * r + 1] = (float)x[r][1];
        bp_exec_targets(exec, 0)->value[r] = (float)t[r];
    }
    near(bp_exec_pass(exec, NULL, 4, true, 0, 0), loss);
    for (int k = 0; k < 4; k++)
        near(model->grads[k], dw1[k / 2][k % 2]);
    for (int j = 0; j < 2; j++) {
        near(model->grads[4 + j], db1[j]);
        near(model->grads[6 + j], dw2[j]);
    }
    near(model->grads[8], db2);
    bp_exec_free(exec);
    bp_model_free(model);
    bp_graph_free(graph);
}

/* A graph with everything: views, dropout, fan-out, several heads, two losses of one node. */
static struct bp_graph *busy_graph(void)
{
    struct bp_graph *graph = net_new(3, 3, 5, 2);
    int n = net_flatten(graph, net_dropout(graph, 0, 0.1));
    int trunk = net_act(graph, net_dense(graph, n, 37), BP_GELU, 0);
    int left = net_act(graph, net_dropout(graph, net_dense(graph, trunk, 21), 0.4), BP_RELU, 0);
    int right = net_act(graph, net_dense(graph, trunk, 18), BP_SOFTMAX, 0);
    int logits = net_dense(graph, left, 5);
    net_dense(graph, right, 3); /* no loss depends on it */
    net_head(graph, logits, BP_LOSS_CROSS_ENTROPY, 1);
    net_head(graph, net_dense(graph, right, 4), BP_LOSS_MSE, 0.5);
    net_head(graph, logits, BP_LOSS_BCE, 0.25);
    net_head(graph, trunk, BP_LOSS_MSE, 0.125);
    return graph;
}

/* Rows first .. first + rows of one endless random batch. */
static void fill(struct bp_exec *exec, const struct bp_graph *graph, int first, int rows)
{
    size_t inputs = (size_t)bp_shape_elements(&graph->nodes[0].shape);
    uint32_t w[4];
    for (int r = 0; r < rows; r++) {
        for (size_t i = 0; i < inputs; i++) {
            bp_random(2, 0, (uint64_t)(first + r), i, w);
            bp_exec_input(exec)[(size_t)r * inputs + i] = 2 * bp_random_unit(w[0]) - 1;
        }
        for (int h = 0; h < graph->nheads; h++) {
            const struct bp_targets *t = bp_exec_targets(exec, h);
            int n = graph->heads[h].outputs;
            bp_random(3, (uint32_t)h, (uint64_t)(first + r), 0, w);
            t->weight[r] = 0.5f + bp_random_unit(w[0]);
            if (t->label != NULL)
                t->label[r] = (int32_t)bp_random_below(w[1], w[2], (uint64_t)n);
            for (int i = 0; t->value != NULL && i < n; i++) {
                bp_random(4, (uint32_t)h, (uint64_t)(first + r), (uint64_t)i, w);
                t->value[r * n + i] = bp_random_unit(w[0]);
            }
        }
    }
}

static void running_twice_gives_the_same(void **state)
{
    struct bp_graph *graph = busy_graph();
    struct bp_model *model = model_of(graph);
    struct bp_exec *exec = exec_of(model, (struct bp_exec_options){.capacity = 150, .training = true});
    size_t bytes = model->nparams * sizeof *model->grads;
    float *first = malloc(bytes);
    (void)state;
    fill(exec, graph, 0, 150);
    double loss = bp_exec_pass(exec, NULL, 150, true, 9, 1);
    memcpy(first, model->grads, bytes);
    assert_true(loss == bp_exec_pass(exec, NULL, 150, true, 9, 1));
    assert_memory_equal(first, model->grads, bytes);
    bp_exec_pass(exec, NULL, 150, true, 9, 2); /* another mask */
    assert_memory_not_equal(first, model->grads, bytes);
    bp_exec_pass(exec, NULL, 7, true, 9, 1); /* a short batch in between leaves nothing behind */
    assert_true(loss == bp_exec_pass(exec, NULL, 150, true, 9, 1));
    assert_memory_equal(first, model->grads, bytes);
    free(first);
    bp_exec_free(exec);
    bp_model_free(model);
    bp_graph_free(graph);
}

static void reuse_of_memory_changes_nothing(void **state)
{
    struct bp_graph *graph = busy_graph();
    struct bp_model *model = model_of(graph);
    size_t bytes = model->nparams * sizeof *model->grads, outputs = 70 * 5 * sizeof(float);
    float *first = malloc(bytes), *output = malloc(outputs);
    (void)state;
    for (int input = 0; input < 2; input++) {
        struct bp_exec_options options = {.capacity = 70, .training = true, .input_gradient = input};
        struct bp_exec *exec = exec_of(model, options);
        fill(exec, graph, 0, 70);
        bp_exec_pass(exec, NULL, 70, true, 5, 3);
        memcpy(first, model->grads, bytes);
        memcpy(output, bp_exec_output(exec, 0), outputs);
        assert_true((bp_exec_input_gradient(exec) != NULL) == input);
        bp_exec_free(exec);
        memset(model->grads, 0x7f, bytes);
        options.keep_all = true;
        exec = exec_of(model, options);
        fill(exec, graph, 0, 70);
        bp_exec_pass(exec, NULL, 70, true, 5, 3);
        assert_memory_equal(first, model->grads, bytes); /* the layer without a loss included: zero */
        assert_memory_equal(output, bp_exec_output(exec, 0), outputs);
        for (int i = 0; i < graph->nnodes; i++) { /* all of it is readable, but what was never made */
            assert_true((bp_exec_value(exec, i) == NULL) == (i == 11));
            bool wanted = i >= 3 || input;
            assert_true((bp_exec_gradient(exec, i) != NULL) == (wanted && i != 11));
        }
        assert_ptr_equal(bp_exec_value(exec, 1), bp_exec_value(exec, 2)); /* a view */
        bp_exec_free(exec);
    }
    free(first);
    free(output);
    bp_model_free(model);
    bp_graph_free(graph);
}

/* The result of a row is the same alone, in any batch and in any mode of execution. */
static void rows_do_not_see_each_other(void **state)
{
    struct bp_graph *graph = busy_graph();
    struct bp_model *model = model_of(graph);
    struct bp_exec *all = exec_of(model, (struct bp_exec_options){.capacity = 300});
    struct bp_exec *some = exec_of(model, (struct bp_exec_options){.capacity = 61, .training = true});
    (void)state;
    fill(all, graph, 0, 300);
    bp_exec_forward(all, NULL, 300);
    for (int first = 0; first < 300; first += 37) {
        int rows = 1 + (first * 7) % 61;
        rows = first + rows > 300 ? 300 - first : rows;
        fill(some, graph, first, rows);
        if (first % 2)
            bp_exec_forward(some, NULL, rows);
        else
            bp_exec_pass(some, NULL, rows, false, 1, 1);
        for (int h = 0; h < graph->nheads; h++) {
            size_t n = (size_t)graph->heads[h].outputs;
            assert_memory_equal(bp_exec_output(some, h), bp_exec_output(all, h) + (size_t)first * n,
                                (size_t)rows * n * sizeof(float));
        }
    }
    bp_exec_free(all);
    bp_exec_free(some);
    bp_model_free(model);
    bp_graph_free(graph);
}

static void losses_and_weights(void **state)
{
    struct bp_graph *graph = net_new(1, 2, 0, 0);
    (void)state;
    net_head(graph, 0, BP_LOSS_MSE, 1);
    net_head(graph, 0, BP_LOSS_CROSS_ENTROPY, 2);
    struct bp_model *model = model_of(graph);
    struct bp_exec *exec =
        exec_of(model, (struct bp_exec_options){.capacity = 3, .training = true, .input_gradient = true});
    float x[6] = {1, 2, 3, -1, 0, 5}, weights[3] = {1, 0, 3};
    double mse[3] = {(1 + 4) / 2.0, (9 + 1) / 2.0, 25 / 2.0},
           ce[3] = {log(1 + exp(1)), log(1 + exp(-4)), log(1 + exp(-5))};
    const int32_t labels[3] = {0, 0, 1};

    memcpy(bp_exec_input(exec), x, sizeof x);
    memcpy(bp_exec_targets(exec, 1)->label, labels, sizeof labels);
    assert_null(bp_exec_targets(exec, 0)->label);
    assert_null(bp_exec_targets(exec, 1)->value);
    for (int r = 0; r < 3; r++) {
        assert_true(bp_exec_targets(exec, 0)->weight[r] == 1);
        bp_exec_targets(exec, 0)->weight[r] = weights[r];
    }
    near(bp_exec_pass(exec, NULL, 3, true, 0, 0), (mse[0] + 3 * mse[2]) / 4 + 2 * (ce[0] + ce[1] + ce[2]) / 3);
    for (int r = 0; r < 3; r++) {
        near(bp_exec_row_losses(exec, 0)[r], mse[r]);
        near(bp_exec_row_losses(exec, 1)[r], ce[r]);
        double p = 1 / (1 + exp(x[2 * r + 1] - x[2 * r]));
        near(bp_exec_input_gradient(exec)[2 * r], weights[r] * x[2 * r] / 4 + 2 * (p - (labels[r] == 0)) / 3);
    }
    for (int r = 0; r < 3; r++)
        bp_exec_targets(exec, 0)->weight[r] = 0;
    near(bp_exec_pass(exec, NULL, 3, true, 0, 0), 2 * (ce[0] + ce[1] + ce[2]) / 3); /* no weight, no loss */
    assert_true(bp_exec_pass(exec, NULL, 0, true, 0, 0) == 0);
    bp_exec_free(exec);
    bp_model_free(model);
    bp_graph_free(graph);
}

static void dropout_modes(void **state)
{
    struct bp_graph *graph = net_new(1, 1000, 0, 0);
    int zeros = 0;
    (void)state;
    net_head(graph, net_dropout(graph, 0, 0.25), BP_LOSS_MSE, 1);
    struct bp_model *model = model_of(graph);
    struct bp_exec *exec = exec_of(model, (struct bp_exec_options){.capacity = 2, .training = true});
    for (int i = 0; i < 2000; i++)
        bp_exec_input(exec)[i] = 3;
    bp_exec_forward(exec, NULL, 2);
    for (int i = 0; i < 2000; i++)
        assert_true(bp_exec_output(exec, 0)[i] == 3);
    bp_exec_pass(exec, NULL, 2, true, 1, 1);
    for (int i = 0; i < 2000; i++) {
        float y = bp_exec_output(exec, 0)[i];
        assert_true(y == 0 || y == 4);
        zeros += y == 0;
    }
    assert_in_range(zeros, 420, 580);
    bp_exec_free(exec);
    bp_model_free(model);
    bp_graph_free(graph);
}

/* The mask of an element is a function of (seed, node, step, row and column), wherever blocks and batches are cut. */
static void dropout_masks(void **state)
{
    static const int capacities[] = {100, 300, 700};
    struct bp_graph *graph = net_new(1, 7, 0, 0);
    (void)state;
    int node = net_dropout(graph, 0, 0.5);
    net_head(graph, node, BP_LOSS_MSE, 1);
    struct bp_model *model = model_of(graph);
    for (size_t c = 0; c < sizeof capacities / sizeof *capacities; c++) {
        struct bp_exec_options options = {.capacity = capacities[c], .training = true, .input_gradient = true};
        struct bp_exec *exec = exec_of(model, options);
        for (int i = 0; i < 700; i++)
            bp_exec_input(exec)[i] = 1;
        bp_exec_pass(exec, NULL, 100, true, 11, 12);
        for (uint32_t i = 0; i < 700; i++) {
            uint32_t w[4];
            bp_random(11, bp_stream(BP_STREAM_DROPOUT, (uint32_t)node), 12, i / 4, w);
            bool dropped = bp_random_unit(w[i % 4]) < 0.5f;
            assert_true(bp_exec_output(exec, 0)[i] == (dropped ? 0 : 2));
            assert_true((bp_exec_input_gradient(exec)[i] == 0) == dropped);
        }
        bp_exec_free(exec);
    }
    bp_model_free(model);
    bp_graph_free(graph);
}

static void options_are_checked(void **state)
{
    struct bp_graph *graph = net_new(1, 4, 0, 0);
    struct bp_model *model = NULL;
    struct bp_exec *exec = NULL;
    struct bp_error err = {0};
    size_t size;
    struct bp_exec_options options = {.capacity = 1, .threads = 1};
    (void)state;

    assert_int_equal(bp_model_new(graph, false, BP_SLOTS_MAX + 1, &model, &err), BP_INVALID);
    assert_int_equal(bp_model_new(graph, false, 0, &model, &err), BP_OK);
    assert_int_equal(bp_exec_new(model, &options, &exec, &err), BP_INVALID); /* no head */
    net_head(graph, net_dense(graph, 0, 100), BP_LOSS_MSE, 1);
    bp_model_free(model);
    assert_int_equal(bp_model_new(graph, false, 0, &model, &err), BP_OK);
    options.training = true;
    assert_int_equal(bp_exec_new(model, &options, &exec, &err), BP_INVALID); /* no gradients */
    options.training = false, options.input_gradient = true;
    assert_int_equal(bp_exec_new(model, &options, &exec, &err), BP_INVALID);
    options.input_gradient = false, options.threads = 0;
    assert_int_equal(bp_exec_new(model, &options, &exec, &err), BP_INVALID);
    options.threads = 1, options.capacity = 0;
    assert_int_equal(bp_exec_new(model, &options, &exec, &err), BP_INVALID);
    bp_model_free(model);
    bp_graph_free(graph);

    graph = net_new(1, (1LL << 31) - 1, 0, 0);
    for (int i = 0; i < 5; i++)
        net_head(graph, net_act(graph, 0, BP_RELU, 0), BP_LOSS_MSE, 1);
    options.capacity = INT32_MAX;
    assert_int_equal(bp_exec_estimate(graph, &options, &size), BP_LIMIT);
    bp_graph_free(graph);
    assert_null(exec);
}

/* Bytes of the heap in use. */
static size_t heap(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* Whether heap() works: a sanitizer's allocator does not answer. */
static bool heap_is_known(void)
{
    size_t before = heap();
    void *volatile block = malloc(1000);
    bool known = heap() >= before + 1000;
    free(block);
    return known;
}

static void estimates_are_what_is_taken(void **state)
{
    struct bp_graph *graph = busy_graph();
    const size_t slack = 3 * 4096; /* alignment and the allocator's own words, at most pages for large blocks */
    (void)state;
    for (int variant = 0; variant < 12 && heap_is_known(); variant++) {
        struct bp_exec_options options = {.capacity = 1 + 700 * variant,
                                          .training = variant % 2,
                                          .input_gradient = variant % 4 == 3,
                                          .keep_all = variant % 3 == 0,
                                          .threads = 1 + variant};
        struct bp_model *model = NULL;
        struct bp_exec *exec = NULL;
        size_t estimate, before = heap();
        assert_int_equal(bp_model_estimate(graph, variant % 2, variant % 4, &estimate), BP_OK);
        assert_int_equal(bp_model_new(graph, variant % 2, variant % 4, &model, NULL), BP_OK);
        assert_in_range(heap() - before, estimate, estimate + slack);
        before = heap();
        assert_int_equal(bp_exec_estimate(graph, &options, &estimate), BP_OK);
        assert_int_equal(bp_exec_new(model, &options, &exec, NULL), BP_OK);
        assert_in_range(heap() - before, estimate, estimate + slack);
        bp_exec_free(exec);
        bp_model_free(model);
    }
    bp_graph_free(graph);
}

static void a_pass_allocates_nothing(void **state)
{
    struct bp_graph *graph = busy_graph();
    struct bp_model *model = model_of(graph);
    struct bp_exec *exec = exec_of(
        model, (struct bp_exec_options){.capacity = 90, .training = true, .input_gradient = true, .keep_all = true});
    (void)state;
    fill(exec, graph, 0, 90);
    bp_exec_pass(exec, NULL, 90, true, 0, 0);
    uint64_t count = bp_alloc_count();
    size_t bytes = heap();
    for (int i = 1; i < 90; i++) {
        bp_model_pack(model, NULL);
        bp_exec_pass(exec, NULL, i, true, 0, (uint64_t)i);
        bp_exec_pass(exec, NULL, i, false, 0, 0);
        bp_exec_forward(exec, NULL, i);
    }
    assert_int_equal(count, bp_alloc_count());
    assert_int_equal(bytes, heap());
    bp_exec_free(exec);
    bp_model_free(model);
    bp_graph_free(graph);
}

static void every_allocation_may_fail(void **state)
{
    struct bp_graph *graph = busy_graph();
    struct bp_exec_options options = {.capacity = 9, .training = true, .threads = 2};
    int done = 0, failures = 0;
    (void)state;
    for (int n = 0; !done && n < 100; n++) {
        struct bp_model *model = NULL;
        struct bp_exec *exec = NULL;
        size_t size;
        bp_alloc_fail_after(n);
        bp_status status = bp_model_new(graph, true, 2, &model, NULL);
        if (status == BP_OK)
            status = bp_exec_estimate(graph, &options, &size);
        if (status == BP_OK)
            status = bp_exec_new(model, &options, &exec, NULL);
        bp_alloc_fail_after(-1);
        done = exec != NULL;
        failures += !done;
        assert_int_equal(status, done ? BP_OK : BP_NOMEM);
        bp_exec_free(exec);
        bp_model_free(model);
    }
    assert_true(done && failures >= 7);
    bp_graph_free(graph);
}

static void the_program_in_words(void **state)
{
    struct bp_graph *graph = net_new(1, 4, 0, 0);
    (void)state;
    int h = net_act(graph, net_dense(graph, 0, 8), BP_RELU, 0);
    net_head(graph, net_dense(graph, h, 3), BP_LOSS_CROSS_ENTROPY, 1);
    struct bp_model *model = model_of(graph);
    struct bp_exec *exec = exec_of(model, (struct bp_exec_options){.capacity = 32, .training = true});
    char *text = bp_exec_print(exec);
    static const char *const words[] = {
        "n1 (dense) [8]: n1.weight [8, 4], n1.bias [8]",
        "     0  n1 = dense(input)  -> arena+0\n        n2 = relu(n1)  -> arena+0\n     1  ", /* one instruction, ... */
        "loss 0 = cross_entropy(n3, target)",
        "     3  d n2 = dense'(d n3)  -> arena+256\n        d n1 = relu'(d n2)  -> arena+256\n", /* ... and one */
        "d n1.weight, d n1.bias = sum over rows(d n1, input)",
        "     0  instructions 0 to 3, row by row in blocks of 32", /* forward, loss and backward in one stage */
        "     1  instructions 4 to 5, a grid of 2 tasks",
        "arena ",
    };
    assert_non_null(text);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strstr(text, words[i]) == NULL)
            fail_msg("'%s' is not in\n%s", words[i], text);
    assert_null(strstr(text, "d input")); /* the gradient by the input is not computed unless asked for */
    free(text);
    bp_exec_free(exec);
    bp_model_free(model);
    bp_graph_free(graph);
}

/* Two layers with activations, of which one is read twice; where `apart`, a linear one keeps each from its product. */
static struct bp_graph *activated(enum bp_activation kind, int units, bool apart)
{
    struct bp_graph *graph = net_new(1, 9, 0, 0);
    int n = 0, first = 0;
    for (int layer = 0; layer < 2; layer++) {
        n = net_dense(graph, n, units);
        n = net_act(graph, apart ? net_act(graph, n, BP_LINEAR, 0) : n, kind, 0.2);
        first = layer == 0 ? n : first;
    }
    n = net_dense(graph, apart ? net_act(graph, n, BP_LINEAR, 0) : n, 2);
    net_head(graph, n, BP_LOSS_MSE, 1);
    net_head(graph, first, BP_LOSS_MSE, 0.5);
    return graph;
}

/* An activation gives the same bits in the product before it and on its own, with all values kept or few; by rows, by columns,
 * and of one unit, whose lanes are rows. */
static void activations_in_products(void **state)
{
    static const int units[] = {1, 7, 256};
    (void)state;
    for (enum bp_activation kind = BP_RELU; kind < BP_SOFTMAX; kind++)
        for (int v = 0; v < 2 * (int)(sizeof units / sizeof *units); v++) {
            float *grads[2], *outputs[2];
            size_t bytes = 0;
            for (int apart = 0; apart < 2; apart++) {
                struct bp_graph *graph = activated(kind, units[v / 2], apart);
                struct bp_model *model = model_of(graph);
                struct bp_exec *exec = exec_of(
                    model, (struct bp_exec_options){.capacity = 40, .training = true, .keep_all = v % 2 && !apart});
                bytes = model->nparams * sizeof(float);
                fill(exec, graph, 0, 40);
                bp_exec_pass(exec, NULL, 40, true, 5, 3);
                grads[apart] = malloc(bytes);
                outputs[apart] = malloc(40 * 2 * sizeof(float));
                memcpy(grads[apart], model->grads, bytes);
                memcpy(outputs[apart], bp_exec_output(exec, 0), 40 * 2 * sizeof(float));
                bp_exec_free(exec);
                bp_model_free(model);
                bp_graph_free(graph);
            }
            if (memcmp(grads[0], grads[1], bytes) != 0 || memcmp(outputs[0], outputs[1], 40 * 2 * sizeof(float)) != 0)
                fail_msg("%s, %d units", bp_activation_name(kind), units[v / 2]);
            for (int i = 0; i < 2; i++) {
                free(grads[i]);
                free(outputs[i]);
            }
        }
}

static void no_load(void *arg, int row0, int rows)
{
    (void)row0, (void)rows;
    ++*(int *)arg;
}

/* What was said of the next pass does not wait for the one after it, and is done once in it, whatever its stages. */
static void a_pass_of_no_rows(void **state)
{
    struct bp_graph *graph = net_new(1, 4, 0, 0);
    struct bp_node norm = {.kind = BP_OP_BATCH_NORM, .trainable = true, .u.norm = {.eps = 1e-5, .momentum = 0.1}};
    (void)state;
    net_head(graph, net_dense(graph, net_add(graph, norm, net_dense(graph, 0, 3)), 3), BP_LOSS_MSE, 1);
    struct bp_model *model = model_of(graph);
    struct bp_exec *exec = exec_of(model, (struct bp_exec_options){.capacity = 8, .training = true});
    int loads = 0;
    fill(exec, graph, 0, 8);
    bp_exec_feed(exec, no_load, &loads);
    assert_true(bp_exec_pass(exec, NULL, 0, true, 5, 3) == 0);
    bp_exec_pass(exec, NULL, 8, true, 5, 3);
    bp_exec_feed(exec, no_load, &loads);
    bp_exec_forward(exec, NULL, 0);
    bp_exec_forward(exec, NULL, 8);
    assert_int_equal(loads, 0);
    bp_exec_feed(exec, no_load, &loads);
    bp_exec_forward(exec, NULL, 8);
    assert_int_equal(loads, 1);
    bp_exec_free(exec);
    bp_model_free(model);
    bp_graph_free(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xor_by_hand),
        cmocka_unit_test(running_twice_gives_the_same),
        cmocka_unit_test(reuse_of_memory_changes_nothing),
        cmocka_unit_test(rows_do_not_see_each_other),
        cmocka_unit_test(losses_and_weights),
        cmocka_unit_test(dropout_modes),
        cmocka_unit_test(dropout_masks),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(estimates_are_what_is_taken),
        cmocka_unit_test(a_pass_allocates_nothing),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(the_program_in_words),
        cmocka_unit_test(activations_in_products),
        cmocka_unit_test(a_pass_of_no_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
