/* Random networks: chains, forks, unused and frozen layers, several losses. What the plan does with memory, blocks
 * and threads must never show in the bytes. */
#include "graph/exec.h"
#include "graph/nets.h"

#include "base/random.h"

#include <stdlib.h>

#define GRAPHS 150
#define ROWS 77

static float unit(uint32_t stream, size_t i)
{
    uint32_t w[4];
    bp_random(5, stream, 0, i, w);
    return bp_random_unit(w[0]);
}

static void fill(struct bp_exec *exec, const struct bp_graph *graph)
{
    size_t inputs = ROWS * (size_t)bp_shape_elements(&graph->nodes[0].shape);
    for (size_t i = 0; i < inputs; i++)
        bp_exec_input(exec)[i] = 2 * unit(1, i) - 1;
    for (int h = 0; h < graph->nheads; h++) {
        const struct bp_targets *t = bp_exec_targets(exec, h);
        size_t n = (size_t)graph->heads[h].outputs;
        for (size_t r = 0; r < ROWS; r++)
            t->weight[r] = 0.5f + unit(2, r);
        for (size_t r = 0; t->label != NULL && r < ROWS; r++)
            t->label[r] = (int32_t)(unit(3, r) * (float)n);
        for (size_t i = 0; t->value != NULL && i < ROWS * n; i++)
            t->value[i] = unit(4, i);
    }
}

struct run {
    const struct bp_graph *graph;
    struct bp_model *model;
    struct bp_exec *exec;
    double loss;
};

static void leader(struct bp_team *team, void *arg)
{
    struct run *run = arg;
    memset(run->model->grads, 0x55, run->model->nparams * sizeof *run->model->grads);
    for (int t = 0; t < run->graph->ntensors; t++) { /* a pass never touches frozen gradients */
        const struct bp_tensor *tensor = &run->graph->tensors[t];
        if (!tensor->trainable && !tensor->statistic)
            memset(run->model->grads + tensor->offset, 0, tensor->count * sizeof *run->model->grads);
    }
    run->loss = bp_exec_pass(run->exec, team, ROWS, true, 6, 7);
}

/* Gradients, outputs and losses of one pass, in a row. */
static char *result(struct run *run, struct bp_exec_options options, size_t *ret_bytes)
{
    struct bp_error err = {0};
    size_t params = run->model->nparams * sizeof(float), used = 0, outputs = 0;
    options.capacity = ROWS, options.training = true;
    if (bp_exec_new(run->model, &options, &run->exec, &err) != BP_OK)
        fail_msg("%s", err.message);
    fill(run->exec, run->graph);
    bp_team_run(options.threads, leader, run);
    for (int h = 0; h < run->graph->nheads; h++)
        outputs += ROWS * (size_t)(run->graph->heads[h].outputs + 1) * sizeof(float);
    char *bytes = malloc(params + outputs + sizeof run->loss);
    memcpy(bytes, run->model->grads, params);
    used = params;
    for (int h = 0; h < run->graph->nheads; h++) {
        size_t size = ROWS * (size_t)run->graph->heads[h].outputs * sizeof(float);
        memcpy(bytes + used, bp_exec_output(run->exec, h), size);
        memcpy(bytes + used + size, bp_exec_row_losses(run->exec, h), ROWS * sizeof(float));
        used += size + ROWS * sizeof(float);
    }
    memcpy(bytes + used, &run->loss, sizeof run->loss);
    *ret_bytes = used + sizeof run->loss;
    bp_exec_free(run->exec);
    return bytes;
}

/* Over networks from a generator. */
static void check(struct bp_graph *(*random)(struct net_dice *dice, int units))
{
    static const struct bp_exec_options variants[] = {
        {.threads = 1},
        {.threads = 1, .keep_all = true},
        {.threads = 1, .input_gradient = true},
        {.threads = 3},
        {.threads = 2, .input_gradient = true, .keep_all = true},
    };
    for (uint64_t seed = 0; seed < GRAPHS; seed++) {
        struct net_dice dice = {.seed = seed};
        struct run run = {.graph = random(&dice, 120)};
        char *first = NULL;
        size_t bytes;
        assert_int_equal(bp_model_new(run.graph, true, 0, &run.model, NULL), BP_OK);
        for (size_t i = 0; i < run.model->nparams; i++)
            run.model->params[i] = unit(8, i) - 0.5f;
        bp_model_pack(run.model, NULL);
        for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
            char *now = result(&run, variants[v], &bytes);
            if (first != NULL && memcmp(first, now, bytes) != 0)
                fail_msg("network %d differs in variant %d", (int)seed, (int)v);
            if (first != NULL)
                free(now);
            else
                first = now;
        }
        free(first);
        bp_model_free(run.model);
        bp_graph_free((struct bp_graph *)(uintptr_t)run.graph);
    }
}

static void the_plan_does_not_show(void **state)
{
    (void)state;
    check(net_random);
}

/* With phases that are grids in the middle of the forward and the backward pass, and values with many readers. */
static void nor_where_rows_meet(void **state)
{
    (void)state;
    check(net_random_joined);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_plan_does_not_show),
                                       cmocka_unit_test(nor_where_rows_meet)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
