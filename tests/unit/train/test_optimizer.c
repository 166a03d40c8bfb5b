/* test_optimizer.c: every trainable element is updated once, frozen ones never; penalties are what Keras means. */
#include "fixture.h"

/* A model over several chunks: plain, penalized, frozen, plain, with sizes that are no multiples of anything. */
static struct bp_model *mixed(void)
{
    struct bp_graph *graph = graph_new(101);
    struct bp_model *model = NULL;
    struct bp_node frozen = {.kind = BP_OP_DENSE, .ninputs = 1, .trainable = false, .name = "frozen"};
    struct bp_error err;
    int at;

    at = add_dense(graph, 0, "a", 103, 0.0);
    at = add_dense(graph, at, "b", 97, 0.01);
    frozen.input[0] = at;
    frozen.u.dense =
        (struct bp_dense_config){.units = 89, .use_bias = true, .kernel_init = {BP_INIT_HE_NORMAL, 0, 0}};
    assert_int_equal(bp_graph_add(graph, &frozen, &at, &err), BP_OK);
    add_dense(graph, at, "c", 211, 0.0);
    assert_int_equal(bp_model_new(graph, true, 2, &model, &err), BP_OK);
    assert_int_equal(bp_initialize(model, 5, &err), BP_OK);
    for (size_t i = 0; i < model->nparams; i++) {
        model->grads[i] = noise(3, i);
    }
    return model;
}

static void done(struct bp_model *model)
{
    struct bp_graph *graph = (struct bp_graph *)(uintptr_t)model->graph;

    bp_model_free(model);
    bp_graph_free(graph);
}

static const struct bp_tensor *tensor_of(const struct bp_model *model, size_t i)
{
    for (int t = 0; t < model->graph->ntensors; t++) {
        const struct bp_tensor *tensor = &model->graph->tensors[t];
        if (i >= tensor->offset && i < tensor->offset + tensor->count) {
            return tensor;
        }
    }
    fail();
    return NULL;
}

struct job {
    struct bp_model *model;
    double squares;
};

static void in_team(struct bp_team *team, void *arg)
{
    struct job *job = arg;
    struct bp_optimizer sgd = {.kind = BP_SGD, .lr = 1.0};

    job->squares = bp_optimizer_prepare(job->model, team);
    bp_optimizer_step(&sgd, job->model, team, 0.5, 1.0, 1);
}

static void test_every_element_once(void **state)
{
    struct bp_model *model = mixed(), *before = mixed();
    struct job job = {model, 0.0};
    double squares = 0.0, penalty = 0.0;
    int trained = 0;

    (void)state;
    bp_team_run(3, in_team, &job);
    for (size_t i = 0; i < model->nparams; i++) {
        const struct bp_tensor *tensor = tensor_of(model, i);
        float g = before->grads[i] + (float)(2.0 * tensor->l2) * before->params[i];

        penalty += tensor->l2 * (double)before->params[i] * (double)before->params[i];
        if (!tensor->trainable) {
            assert_true(model->params[i] == before->params[i]);
            continue;
        }
        trained++;
        squares += (double)g * (double)g;
        assert_true(model->grads[i] == g);
        assert_true(fabsf(model->params[i] - (before->params[i] - 0.5f * g)) <= 1e-7f);
    }
    assert_true(trained > 3 * 8192);
    assert_true(fabs(job.squares - squares) < 1e-12 * squares);
    assert_true(penalty > 0.0 && fabs(bp_optimizer_penalty(before) - penalty) < 1e-12 * penalty);
    done(model);
    done(before);
}

static void test_lasso(void **state)
{
    struct bp_graph *graph = graph_new(3);
    struct bp_node node = {.kind = BP_OP_DENSE};
    static const float w[3] = {-2.0f, 0.0f, 0.5f};
    struct bp_model *model;
    struct bp_error err;

    (void)state;
    node.u.dense = (struct bp_dense_config){.units = 1, .weights = w, .l1 = 0.25};
    add_node(graph, node, 0, "d");
    assert_int_equal(bp_model_new(graph, true, 0, &model, &err), BP_OK);
    assert_int_equal(bp_initialize(model, 5, &err), BP_OK);
    assert_true(bp_optimizer_prepare(model, NULL) == 0.125);
    assert_true(model->grads[0] == -0.25f && model->grads[1] == 0.0f && model->grads[2] == 0.25f);
    assert_true(bp_optimizer_penalty(model) == 0.25 * 2.5);
    done(model);
}

static void test_nonfinite(void **state)
{
    struct bp_model *model = mixed();

    (void)state;
    model->grads[model->nparams - 1] = NAN;
    assert_false(isfinite(bp_optimizer_prepare(model, NULL)));
    model->grads[model->nparams - 1] = INFINITY;
    assert_false(isfinite(bp_optimizer_prepare(model, NULL)));
    done(model);
}

static void test_names_and_slots(void **state)
{
    struct bp_optimizer o = {.kind = BP_SGD};

    (void)state;
    assert_string_equal(bp_optimizer_name(BP_SGD), "sgd");
    assert_string_equal(bp_optimizer_name(BP_ADAMW), "adamw");
    assert_int_equal(bp_optimizer_slots(&o), 0);
    o.momentum = 0.9;
    assert_int_equal(bp_optimizer_slots(&o), 1);
    o.kind = BP_ADAM;
    assert_int_equal(bp_optimizer_slots(&o), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_element_once),
        cmocka_unit_test(test_lasso),
        cmocka_unit_test(test_nonfinite),
        cmocka_unit_test(test_names_and_slots),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
