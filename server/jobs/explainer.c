/* explainer.c: see explainer.h. */
#include "jobs/explainer.h"

#include <string.h>

/* Makes the training pass compute what a prediction computes: before a model is made of the graph. */
static void freeze(struct bp_graph *graph)
{
    for (int i = 0; i < graph->nnodes; i++) {
        struct bp_node *node = &graph->nodes[i];
        if (node->kind == BP_OP_BATCH_NORM)
            node->trainable = false;
        else if (node->kind == BP_OP_DROPOUT)
            node->u.dropout.rate = 0;
        else if (node->kind == BP_OP_MULTI_HEAD_ATTENTION)
            node->u.attention.dropout = 0;
    }
}

bp_status bp_explainer_make(const struct bp_choice *choice, const struct bp_predictor *predictor,
                            struct bp_explainer *ret, struct bp_error *err)
{
    struct bp_explainer e = {.batch = predictor->batch};
    bp_status status = bp_network_make(choice, &e.network, err);
    if (status)
        return status;
    struct bp_graph *graph = e.network.plan.graph;
    struct bp_exec_options one = {
        .capacity = 1, .training = true, .input_gradient = true, .keep_all = true, .threads = 1};
    struct bp_exec_options many = {.capacity = e.batch, .threads = 1};
    freeze(graph);
    status = bp_model_new(graph, true, 0, &e.model, err);
    if (!status)
        status = bp_exec_new(e.model, &one, &e.exec, err);
    if (!status)
        status = bp_exec_new(e.model, &many, &e.nudge, err);
    if (status) {
        bp_explainer_done(&e);
        return status;
    }
    memcpy(e.model->params, predictor->model->params, graph->nparams * sizeof *e.model->params);
    memcpy(e.model->stats, predictor->model->stats, graph->nstats * sizeof *e.model->stats);
    bp_model_pack(e.model, NULL);
    for (int h = 0; h < graph->nheads; h++) {
        const struct bp_transform_target *target = bp_transform_target(e.network.transform, h);
        bp_exec_target_scale(e.exec, h, target->is_class ? 1 : target->scale);
        bp_exec_target_scale(e.nudge, h, target->is_class ? 1 : target->scale);
    }
    *ret = e;
    return BP_OK;
}

void bp_explainer_done(struct bp_explainer *e)
{
    bp_exec_free(e->exec);
    bp_exec_free(e->nudge);
    bp_model_free(e->model);
    bp_network_done(&e->network);
    memset(e, 0, sizeof *e);
}
