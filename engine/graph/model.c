/* model.c: the numbers of a network and their packed copies; see model.h.
 *
 * One allocation holds the struct, its lists, the state ranges and the packed weights. The layout is computed by one
 * function, first without memory (the estimate), then with it.
 *
 * Which packed copies: the forward product of each weight, and in a model for training the backward product of the
 * weights whose layer has to send an error signal on. An execution that wants the gradient of the input too packs
 * what is missing by itself.
 *
 * Threads: see model.h. bp_model_pack cuts the work into tasks by shapes.
 */
#include "graph/model.h"

#include "base/memory.h"
#include "graph/plan.h"

#include <stdint.h>
#include <string.h>

#define TASK_ELEMENTS 32768 /* elements that one packing task writes, about */
#define TEAM_ELEMENTS 65536 /* below this, packing is not worth a barrier */

struct layout {
    size_t lists, state, packed; /* bytes of each part */
    size_t packed_elements;
    int npacked, npack_tasks;
};

/* Calls for each packed copy: fills list (when not NULL) and counts. */
static bool list_packed(const struct bp_graph *graph, bool training, const bool *needs, struct bp_packed *list,
                        struct layout *l)
{
    for (int i = 0; i < graph->nnodes; i++) {
        const struct bp_node *node = &graph->nodes[i];
        const struct bp_op *op = bp_op_table[node->kind];
        bool below = bp_runs_backward(graph, needs, i);
        for (int slot = 0; slot < node->ntensors && op->panels != NULL; slot++) {
            for (int backward = 0; backward <= (training && below); backward++) {
                struct bp_panels m;
                if (!op->panels(graph, node, slot, backward ? BP_PHASE_BACKWARD : BP_PHASE_FORWARD, &m))
                    continue;
                int panels = (m.n - 1) / BP_PANEL + 1, each = TASK_ELEMENTS / BP_PANEL / m.k + 1;
                if (list != NULL)
                    list[l->npacked] = (struct bp_packed){.tensor = node->tensor[slot],
                                                          .backward = backward,
                                                          .k = m.k,
                                                          .n = m.n,
                                                          .row = m.row,
                                                          .col = m.col,
                                                          .offset = l->packed_elements,
                                                          .panels = each,
                                                          .first_task = l->npack_tasks};
                l->npacked++;
                l->npack_tasks += (panels - 1) / each + 1;
                if (!bp_size_add(l->packed_elements, bp_panels_size(m.k, m.n), &l->packed_elements))
                    return false;
            }
        }
    }
    return true;
}

/* Bytes of a range of `elements` numbers, aligned, added to *total. */
static bool add_range(size_t elements, size_t *total)
{
    size_t bytes;
    return bp_size_mul(elements, sizeof(bp_real), &bytes) && bytes <= SIZE_MAX - BP_CACHE_LINE &&
           bp_size_add(*total, bp_size_align(bytes), total);
}

static bool lay_out(const struct bp_graph *graph, bool training, int nslots, const bool *needs, struct layout *ret,
                    size_t *ret_total)
{
    struct layout l = {0};
    size_t tensors = (size_t)graph->ntensors * sizeof(size_t);
    if (!list_packed(graph, training, needs, NULL, &l))
        return false;
    l.lists = bp_size_align(sizeof(struct bp_model)) + 2 * bp_size_align(tensors) +
              bp_size_align((size_t)l.npacked * sizeof(struct bp_packed));
    for (int i = 0; i < 1 + training + nslots; i++)
        if (!add_range(graph->nparams, &l.state))
            return false;
    if (!add_range(graph->nstats, &l.state) || !add_range(l.packed_elements, &l.packed))
        return false;
    *ret = l;
    return bp_size_add(l.lists, l.state, ret_total) && bp_size_add(*ret_total, l.packed, ret_total);
}

static void *carve(char **at, size_t bytes)
{
    void *start = *at;
    *at += bp_size_align(bytes);
    return start;
}

static void fill(struct bp_model *model, const struct bp_graph *graph, bool training, int nslots, const bool *needs,
                 const struct layout *l)
{
    size_t tensors = (size_t)graph->ntensors * sizeof(size_t), params = graph->nparams * sizeof(bp_real);
    struct layout again = {0};
    char *at = (char *)model;

    carve(&at, sizeof *model);
    model->block = model;
    model->graph = graph;
    model->nparams = graph->nparams;
    model->nstats = graph->nstats;
    model->nslots = nslots;
    model->packed_forward = carve(&at, tensors);
    model->packed_backward = carve(&at, tensors);
    model->packed_list = carve(&at, (size_t)l->npacked * sizeof *model->packed_list);
    model->params = carve(&at, params);
    model->grads = training ? carve(&at, params) : NULL;
    for (int i = 0; i < nslots; i++)
        model->slots[i] = carve(&at, params);
    model->stats = carve(&at, graph->nstats * sizeof(bp_real));
    model->packed = (bp_real *)at;

    list_packed(graph, training, needs, model->packed_list, &again);
    model->npacked = again.npacked;
    model->npack_tasks = again.npack_tasks;
    for (int i = 0; i < graph->ntensors; i++)
        model->packed_forward[i] = model->packed_backward[i] = SIZE_MAX;
    for (int i = 0; i < model->npacked; i++) {
        const struct bp_packed *p = &model->packed_list[i];
        (p->backward ? model->packed_backward : model->packed_forward)[p->tensor] = p->offset;
    }
}

bp_status bp_model_new(const struct bp_graph *graph, bool training, int nslots, struct bp_model **ret,
                       struct bp_error *err)
{
    bool needs[BP_NODES_MAX];
    struct layout l;
    size_t total;

    if (nslots < 0 || nslots > BP_SLOTS_MAX)
        return bp_fail(err, BP_INVALID, "a model has 0 to %d optimizer slots, got %d", BP_SLOTS_MAX, nslots);
    bp_needs_gradient(graph, false, needs);
    if (!lay_out(graph, training, nslots, needs, &l, &total))
        return bp_fail(err, BP_LIMIT, "the network is too large");
    struct bp_model *model = bp_alloc(total);
    if (model == NULL)
        return bp_fail(err, BP_NOMEM, "out of memory: the model takes %zu bytes", total);
    fill(model, graph, training, nslots, needs, &l);
    *ret = model;
    return BP_OK;
}

void bp_model_free(struct bp_model *model)
{
    if (model != NULL)
        bp_free(model->block);
}

bp_status bp_model_estimate(const struct bp_graph *graph, bool training, int nslots, size_t *ret)
{
    bool needs[BP_NODES_MAX];
    struct layout l;
    size_t total;

    if (nslots < 0 || nslots > BP_SLOTS_MAX)
        return BP_INVALID;
    bp_needs_gradient(graph, false, needs);
    if (!lay_out(graph, training, nslots, needs, &l, &total))
        return BP_LIMIT;
    *ret = total;
    return BP_OK;
}

static void pack_task(void *arg, int task, int thread)
{
    struct bp_model *model = arg;
    int low = 0, high = model->npacked - 1; /* the last entry whose first task is not after this one */
    (void)thread;
    while (low < high) {
        int middle = low + (high - low + 1) / 2;
        if (model->packed_list[middle].first_task <= task)
            low = middle;
        else
            high = middle - 1;
    }
    const struct bp_packed *p = &model->packed_list[low];
    size_t column = (size_t)(task - p->first_task) * (size_t)p->panels * BP_PANEL;
    size_t left = (size_t)p->n - column, columns = (size_t)p->panels * BP_PANEL;
    const bp_real *from = model->params + model->graph->tensors[p->tensor].offset;
    bp_kernels_current()->pack(model->packed + p->offset + column * (size_t)p->k, from + column * p->col, p->k,
                               (int)(left < columns ? left : columns), p->row, p->col);
}

void bp_model_pack(struct bp_model *model, struct bp_team *team)
{
    bool small = model->nparams < TEAM_ELEMENTS;
    bp_team_for(small ? NULL : team, model->npack_tasks, pack_task, model);
}
