/* test_fused.c: an update within the pass gives the bits of one after it, happens only when the gradients have been
 * proved to be finite, and leaves everything as it was when they are not.
 */
#include "fixture.h"
#include "train/optimizer.h"

#include <float.h>

enum { STEPS = 3, INPUTS = 301, OUTPUTS = 5 };

static const struct bp_optimizer rules[] = {
    {.kind = BP_SGD, .lr = 0.05},
    {.kind = BP_SGD, .lr = 0.05, .momentum = 0.9, .weight_decay = 0.01},
    {.kind = BP_SGD, .lr = 0.05, .momentum = 0.9, .nesterov = true},
    {.kind = BP_ADAM, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
    {.kind = BP_ADAM, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .amsgrad = true, .weight_decay = 0.01},
    {.kind = BP_ADAMW, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.1},
    {.kind = BP_RMSPROP, .lr = 0.01, .alpha = 0.99, .eps = 1e-8},
    {.kind = BP_RMSPROP, .lr = 0.01, .alpha = 0.9, .eps = 1e-2, .momentum = 0.5, .centered = true},
    {.kind = BP_ADAGRAD, .lr = 0.1, .eps = 1e-10, .initial_accumulator = 0.1},
    {.kind = BP_ADADELTA, .lr = 1.0, .alpha = 0.9, .eps = 1e-6},
    {.kind = BP_NADAM, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .momentum_decay = 0.004},
    {.kind = BP_ADAMAX, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
    {.kind = BP_LION, .lr = 0.001, .beta1 = 0.9, .beta2 = 0.99, .weight_decay = 0.1},
};

/* Several bands and tiles in a layer, and little of it a multiple of anything; a frozen layer, one without a bias, one of
 * fewer inputs than a panel has columns, whose outputs are whole panels, and one whose inputs are. */
static struct bp_graph *odd_graph(void)
{
    struct bp_graph *graph = graph_new(INPUTS);
    struct bp_node relu = {.kind = BP_OP_ACTIVATION, .u.activation = {.kind = BP_RELU}};
    struct bp_node frozen = {.kind = BP_OP_DENSE, .ninputs = 1, .name = "frozen"};
    struct bp_node bare = {.kind = BP_OP_DENSE, .u.dense = {.units = 37, .kernel_init = {BP_INIT_HE_NORMAL, 0, 0}}};
    struct bp_error err;
    int at = add_node(graph, relu, add_dense(graph, 0, "wide", 539, 0.0), "relu");

    frozen.input[0] = at;
    frozen.u.dense =
        (struct bp_dense_config){.units = 67, .use_bias = true, .kernel_init = {BP_INIT_HE_NORMAL, 0, 0}};
    assert_int_equal(bp_graph_add(graph, &frozen, &at, &err), BP_OK);
    at = add_dense(graph, add_node(graph, bare, at, "bare"), "panels", 64, 0.0);
    at = add_dense(graph, add_dense(graph, at, "few", 9, 0.0), "narrow", 48, 0.0);
    at = add_dense(graph, at, "out", OUTPUTS, 0.0);
    assert_int_equal(bp_graph_add_head(graph, at, BP_LOSS_MSE, 1.0, &err), BP_OK);
    return graph;
}

/* A few steps on the same rows, the update within the passes or after them. */
struct run {
    const struct bp_graph *graph;
    const struct bp_optimizer *rule;
    int rows;
    bool fused, refuse;
    bool past;  /* writes the packed copies past the caches, as a large model does */
    float size; /* of the inputs */
    struct bp_model *model;
    struct bp_optimizer_update update;
    double loss, squares, bound;
    bool any_bound; /* in one of the steps: a float */
    int step, asked;
};

static bool admit(void *arg, double loss, double squares)
{
    struct run *run = arg;

    run->asked++;
    run->loss = loss;
    run->bound = squares;
    run->any_bound = run->any_bound || squares <= (double)FLT_MAX;
    if (!run->refuse) {
        bp_optimizer_begin(run->rule, run->model, run->rule->lr, 1.0, (uint64_t)run->step, &run->update);
    }
    return !run->refuse;
}

static void take(void *arg, const struct bp_piece *piece, float *gradient, size_t gradient_row)
{
    struct run *run = arg;

    bp_optimizer_take(&run->update, piece, gradient, gradient_row);
}

static void steps(struct bp_team *team, void *arg)
{
    struct run *run = arg;
    struct bp_exec_options options = {.capacity = run->rows, .training = true, .threads = bp_team_capacity(team)};
    struct bp_exec_update update = {admit, take, run};
    struct bp_exec *exec = NULL;

    assert_int_equal(bp_model_new(run->graph, true, bp_optimizer_slots(run->rule), &run->model, NULL), BP_OK);
    run->model->past = run->past;
    assert_int_equal(bp_initialize(run->model, 5, NULL), BP_OK);
    bp_model_pack(run->model, team);
    assert_int_equal(bp_exec_new(run->model, &options, &exec, NULL), BP_OK);
    for (size_t i = 0; i < (size_t)run->rows * INPUTS; i++) {
        bp_exec_input(exec)[i] = run->size * noise(1, i);
    }
    for (size_t i = 0; i < (size_t)run->rows * OUTPUTS; i++) {
        bp_exec_targets(exec, 0)->value[i] = noise(2, i);
    }
    for (run->step = 1; run->step <= STEPS; run->step++) {
        double loss;

        if (run->fused) {
            bp_exec_hand_over(exec, &update);
        }
        loss = bp_exec_pass(exec, team, run->rows, true, 1, (uint64_t)run->step);
        if (run->fused) {
            assert_true(run->refuse || run->loss == loss);
        }
        if (!run->fused || run->refuse) {
            run->squares = bp_optimizer_prepare(run->model, team);
            bp_optimizer_step(run->rule, run->model, team, run->rule->lr, 1.0, (uint64_t)run->step);
        }
    }
    bp_exec_free(exec);
}

static void assert_same(const struct run *a, const struct run *b)
{
    size_t bytes = a->graph->nparams * sizeof(float), packed = 0;

    assert_memory_equal(a->model->params, b->model->params, bytes);
    for (int s = 0; s < a->model->nslots; s++) {
        assert_memory_equal(a->model->slots[s], b->model->slots[s], bytes);
    }
    for (int i = 0; i < a->model->npacked; i++) {
        packed += bp_panels_size(a->model->packed_list[i].k, a->model->packed_list[i].n);
    }
    assert_memory_equal(a->model->packed, b->model->packed, packed * sizeof(float));
}

static void test_same_bits(void **state)
{
    static const int threads[] = {1, 2, 3, 5}, rows[] = {61, 300, 1, 128, 129};
    struct bp_graph *graph = odd_graph();

    (void)state;
    for (size_t r = 0; r < sizeof rules / sizeof *rules; r++) {
        struct run apart = {.graph = graph, .rule = &rules[r], .rows = rows[r % 5], .size = 1};

        assert_true(bp_optimizer_by_pieces(&rules[r]));
        bp_team_run(1, steps, &apart);
        for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
            struct run fused = {.graph = graph, .rule = &rules[r], .rows = apart.rows, .fused = true, .size = 1};

            fused.past = t % 2 != 0;
            bp_team_run(threads[t], steps, &fused);
            assert_int_equal(fused.asked, STEPS);
            assert_true(fused.bound >= apart.squares && fused.bound < 1e12);
            assert_same(&fused, &apart);
            bp_model_free(fused.model);
        }
        bp_model_free(apart.model);
    }
    bp_graph_free(graph);
}

/* A refusal leaves the pass as it would be, and holds for that pass alone. */
static void test_refused(void **state)
{
    struct bp_graph *graph = odd_graph();
    struct run apart = {.graph = graph, .rule = &rules[3], .rows = 130, .size = 1}, refused = apart;

    (void)state;
    refused.fused = refused.refuse = true;
    bp_team_run(2, steps, &apart);
    bp_team_run(2, steps, &refused);
    assert_int_equal(refused.asked, STEPS);
    assert_same(&refused, &apart);
    assert_memory_equal(refused.model->grads, apart.model->grads, graph->nparams * sizeof(float));
    bp_model_free(apart.model);
    bp_model_free(refused.model);
    bp_graph_free(graph);
}

/* No proof where a gradient, or the sum of their squares, is no float. */
static void test_no_bound(void **state)
{
    static const float sizes[] = {1e16f, 1e25f, 1e38f, INFINITY, NAN};
    struct bp_graph *graph = odd_graph();

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct run run = {
            .graph = graph, .rule = &rules[0], .rows = 130, .fused = true, .refuse = true, .size = sizes[i]};

        bp_team_run(2, steps, &run);
        assert_true(run.asked > 0 && !run.any_bound);
        bp_model_free(run.model);
    }
    bp_graph_free(graph);
}

/* A layer without a bound: nobody is asked. */
static void test_not_asked(void **state)
{
    struct bp_graph *graph = graph_new(INPUTS);
    struct bp_node norm = {.kind = BP_OP_LAYER_NORM, .u.norm = {.eps = 1e-3, .affine = true}};
    struct run run = {.graph = graph, .rule = &rules[3], .rows = 130, .fused = true, .refuse = true, .size = 1};
    struct bp_error err;
    int at = add_node(graph, norm, add_dense(graph, 0, "a", 40, 0.0), "norm");

    (void)state;
    at = add_dense(graph, at, "out", OUTPUTS, 0.0);
    assert_int_equal(bp_graph_add_head(graph, at, BP_LOSS_MSE, 1.0, &err), BP_OK);
    bp_team_run(1, steps, &run);
    assert_int_equal(run.asked, 0);
    bp_model_free(run.model);
    bp_graph_free(graph);
}

/* --- in a trainer, with a model that is large enough ------------------------------------------------------------- */

enum { ROWS = 90, BATCH = 45, LARGE_IN = 1001, LARGE = 1501 };

static struct bp_train_config large_config(bool fused, int threads)
{
    struct bp_train_config c = config_default();

    c.epochs = 2;
    c.batch_size = BATCH;
    c.threads = threads;
    c.clip_grad_norm = fused ? 0.0 : 1e30; /* clips nothing, but wants to see all gradients first */
    return c;
}

struct ending {
    enum bp_outcome outcome;
    uint64_t hash;
    bool updated;
    double seen;
    struct bp_error err;
};

/* The sum of what the layers' samples say of the gradients. */
static void on_layers(void *ctx, const struct bp_layer_sample *sample)
{
    *(double *)ctx += sample->total.gradient_norm;
}

static struct ending end_of(const struct bp_train_config *c, const struct bp_graph *graph, const struct data *data)
{
    struct bp_trainer *t = trainer_new(c, graph, data);
    struct ending end = {0};

    assert_true(t->fuses == (c->clip_grad_norm == 0.0));
    end.outcome = bp_trainer_run(t, &(struct bp_train_hooks){.ctx = &end.seen, .layers = on_layers}, &end.err);
    end.hash = hash_state(t);
    end.updated = t->updated;
    bp_trainer_free(t);
    return end;
}

static void test_trainer(void **state)
{
    static const int hidden[] = {LARGE};
    struct bp_graph *graph = mlp(LARGE_IN, hidden, 1, BP_RELU, 0.1, 2, BP_LOSS_MSE);
    struct bp_train_config apart = large_config(false, 2), fused = large_config(true, 2),
                           alone = large_config(true, 1);
    struct data data;
    struct ending a, b, c;
    float *value;

    (void)state;
    data_init(&data, ROWS, LARGE_IN, 0, 2);
    data_fill(&data, 0);
    data_split(&data, 0.0);
    a = end_of(&apart, graph, &data);
    b = end_of(&fused, graph, &data);
    c = end_of(&alone, graph, &data);
    assert_true(a.outcome == BP_RUN_FINISHED && b.outcome == BP_RUN_FINISHED && b.updated && !a.updated);
    assert_true(a.hash == b.hash && b.hash == c.hash);

    /* Who looks at the gradients finds them: the last step, the fourth, is sampled. */
    fused.layer_stats = apart.layer_stats = true;
    a = end_of(&apart, graph, &data);
    b = end_of(&fused, graph, &data);
    assert_true(!b.updated && b.seen > 0.0 && a.seen == b.seen);
    assert_true(b.hash == c.hash && a.hash == c.hash);
    fused.layer_stats = apart.layer_stats = false;

    /* Micro-batches are added up first. */
    fused.accumulate = apart.accumulate = 2;
    fused.batch_size = apart.batch_size = 30; /* the last step of an epoch is one batch */
    a = end_of(&apart, graph, &data);
    b = end_of(&fused, graph, &data);
    assert_true(b.updated && a.hash == b.hash);

    /* The gradient is too large to square: the step fails as ever, and nothing has changed since the one before. */
    fused = large_config(true, 2), apart = large_config(false, 2);
    fused.shuffle = apart.shuffle = false;
    value = data_value(&data, BATCH + 5);
    *value = 1.7e19f; /* its square is a float, as is the loss */
    for (int i = 0; i < LARGE_IN; i++) {
        data_x(&data, BATCH + 5)[i] *= 10;
    }
    a = end_of(&apart, graph, &data);
    b = end_of(&fused, graph, &data);
    assert_true(a.outcome == BP_RUN_FAILED && b.outcome == BP_RUN_FAILED && !b.updated);
    assert_true(b.err.code == BP_NONFINITE && a.hash == b.hash);
    assert_string_equal(a.err.message, b.err.message);
    assert_non_null(strstr(b.err.message, "gradient"));
    assert_non_null(strstr(b.err.message, "step 2"));

    /* The loss is none: its gradient may be. */
    *value = 1e30f;
    a = end_of(&apart, graph, &data);
    b = end_of(&fused, graph, &data);
    assert_true(b.outcome == BP_RUN_FAILED && b.err.code == BP_NONFINITE && a.hash == b.hash);
    assert_string_equal(a.err.message, b.err.message);
    data_done(&data);
    bp_graph_free(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_refused), cmocka_unit_test(test_no_bound),
        cmocka_unit_test(test_not_asked), cmocka_unit_test(test_trainer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
