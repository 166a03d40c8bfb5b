/* exec.c: making an execution and looking into it; running it is exec_run.c.
 *
 * All of an execution's memory is one block besides its plan: its lists, the arena, the threads' scratch, the targets
 * and the rows' losses. One function lays it out, first without memory (the estimate), then with it.
 *
 * Threads: see exec.h.
 */
#include "graph/exec_internal.h"

#include "base/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SUMS_SHARE 4 /* the sums of chunks are at most this part of the arena */

/* A bump pointer over a block; with a NULL block it only counts. */
struct layout {
    char *block;
    size_t used;
    bool overflow;
};

static void *carve(struct layout *l, size_t count, size_t size)
{
    size_t bytes, used;
    void *start = l->block != NULL ? l->block + l->used : NULL;
    if (!bp_size_mul(count, size, &bytes) || bytes > SIZE_MAX - BP_CACHE_LINE ||
        !bp_size_add(l->used, bp_size_align(bytes), &used)) {
        l->overflow = true;
        return NULL;
    }
    l->used = used;
    return start;
}

/* Backward panels that the plan uses and a model for training does not keep: those of layers with nothing trainable
 * below, when the gradient of the input is wanted. Fills list when not NULL; returns how many. */
static int list_own(const struct bp_plan *plan, struct bp_packed *list, size_t *ret_elements)
{
    const struct bp_graph *graph = plan->graph;
    bool kept[BP_NODES_MAX];
    int n = 0;
    size_t elements = 0;

    bp_needs_gradient(graph, false, kept);
    for (int i = plan->nforward + graph->nheads; i < plan->ninstrs; i++) {
        const struct bp_node *node = &graph->nodes[plan->instrs[i].node];
        const struct bp_op *op = bp_op_table[node->kind];
        bool has = bp_runs_backward(graph, kept, plan->instrs[i].node);
        if (plan->instrs[i].kind != BP_INSTR_BACKWARD || has)
            continue;
        for (int slot = 0; slot < node->ntensors && op->panels != NULL; slot++) {
            struct bp_panels m;
            if (!op->panels(graph, node, slot, BP_PHASE_BACKWARD, &m))
                continue;
            if (list != NULL)
                list[n] = (struct bp_packed){.tensor = node->tensor[slot],
                                             .backward = true,
                                             .k = m.k,
                                             .n = m.n,
                                             .row = m.row,
                                             .col = m.col,
                                             .offset = elements};
            n++;
            elements += bp_panels_size(m.k, m.n); /* at most twice the parameters: fits */
        }
    }
    *ret_elements = elements;
    return n;
}

/* Whether every parameter gradient comes of x and dy alone (bp_op.bound). */
static bool all_bounded(const struct bp_plan *plan)
{
    for (int i = 0; i < plan->ninstrs; i++)
        if (plan->instrs[i].kind == BP_INSTR_PARAMETERS &&
            bp_op_table[plan->graph->nodes[plan->instrs[i].node].kind]->bound == NULL)
            return false;
    return true;
}

/* How many chunks of rows after the first are to have sums of their own. A thread that goes on from its rows to their part
 * of the gradients finds all of it in its cache; by tiles of the gradients, the threads have to read each other's rows, and
 * wait for them. So that is done where the sums are much less than what goes from the first stage to the second. */
static int count_sums(const struct bp_plan *plan)
{
    size_t chunks = ((size_t)plan->options.capacity - 1) / BP_ROW_CHUNK;
    bool two = plan->nstages == 2 && plan->stages[0].kind == BP_STAGE_ROWS && plan->stages[1].kind == BP_STAGE_GRID;
    bool whole = BP_ROW_CHUNK % plan->block == 0; /* blocks in a chunk */

    if (!plan->options.training || plan->options.threads == 1 || !two || !whole || !all_bounded(plan))
        return 0;
    return plan->graph->nparams <= plan->arena / SUMS_SHARE / (chunks + 1) ? (int)chunks : 0;
}

/* Lays the execution out after its own struct. False on overflow. */
static bool lay_out(struct bp_exec *exec, const struct bp_plan *plan, struct layout *l)
{
    const struct bp_graph *graph = plan->graph;
    size_t rows = (size_t)plan->options.capacity, heads = (size_t)graph->nheads, own;

    carve(l, 1, sizeof *exec);
    exec->nown = list_own(plan, NULL, &own);
    exec->own = carve(l, (size_t)exec->nown, sizeof *exec->own);
    exec->targets = carve(l, heads, sizeof *exec->targets);
    exec->losses = carve(l, heads, sizeof *exec->losses);
    exec->scale = carve(l, heads, sizeof *exec->scale);
    exec->weights = carve(l, heads, sizeof *exec->weights);
    exec->mean_loss = carve(l, heads, sizeof *exec->mean_loss);
    exec->parameter = carve(l, heads, sizeof *exec->parameter);
    exec->forward_panels = carve(l, (size_t)graph->ntensors, sizeof *exec->forward_panels);
    exec->backward_panels = carve(l, (size_t)graph->ntensors, sizeof *exec->backward_panels);
    exec->dead = carve(l, (size_t)graph->ntensors, sizeof *exec->dead);
    exec->squares = carve(l, (size_t)plan->options.threads * (size_t)graph->nnodes, 2 * sizeof *exec->squares);
    exec->own_panels = carve(l, own, sizeof(bp_real));
    exec->nsums = count_sums(plan);
    exec->sums = carve(l, (size_t)exec->nsums * graph->nparams, sizeof(bp_real));
    exec->arena = carve(l, plan->arena, sizeof(bp_real));
    if (!bp_size_add(plan->local, plan->scratch, &exec->scratch_thread))
        return false;
    /* one call a thread, so that each has whole cache lines of its own */
    size_t thread_bytes;
    if (!bp_size_mul(exec->scratch_thread, sizeof(bp_real), &thread_bytes))
        return false;
    exec->scratch = carve(l, thread_bytes, (size_t)plan->options.threads);
    for (int h = 0; h < graph->nheads; h++) {
        const struct bp_head *head = &graph->heads[h];
        struct bp_targets targets = {0};
        size_t values;
        if (!bp_size_mul(rows, (size_t)head->outputs, &values))
            return false;
        if (bp_loss_table[head->loss].labels)
            targets.label = carve(l, rows, sizeof *targets.label);
        else
            targets.value = carve(l, values, sizeof *targets.value);
        targets.weight = carve(l, rows, sizeof *targets.weight);
        bp_real *losses = carve(l, rows, sizeof *losses);
        if (l->block != NULL) {
            exec->targets[h] = targets;
            exec->losses[h] = losses;
        }
    }
    return !l->overflow;
}

static void connect_panels(struct bp_exec *exec)
{
    const struct bp_model *model = exec->model;
    size_t elements;
    for (int t = 0; t < model->graph->ntensors; t++) {
        if (model->packed_forward[t] != SIZE_MAX)
            exec->forward_panels[t] = model->packed + model->packed_forward[t];
        if (model->packed_backward[t] != SIZE_MAX)
            exec->backward_panels[t] = model->packed + model->packed_backward[t];
    }
    list_own(exec->plan, exec->own, &elements);
    for (int i = 0; i < exec->nown; i++)
        exec->backward_panels[exec->own[i].tensor] = exec->own_panels + exec->own[i].offset;
}

bp_status bp_exec_new(struct bp_model *model, const struct bp_exec_options *options, struct bp_exec **ret,
                      struct bp_error *err)
{
    struct bp_plan *plan = NULL;
    struct bp_exec sizes = {0};
    struct layout l = {0};

    if (options->training && model->grads == NULL)
        return bp_fail(err, BP_INVALID, "this model was made without gradients: it cannot be trained");
    bp_status status = bp_plan_new(model->graph, options, &plan, err);
    if (status != BP_OK)
        return status;
    if (!lay_out(&sizes, plan, &l)) {
        status = bp_fail(err, BP_LIMIT, "a batch of %d rows is too large for this network", options->capacity);
        goto fail;
    }
    struct bp_exec *exec = bp_alloc(l.used);
    if (exec == NULL) {
        status = bp_fail(err, BP_NOMEM, "out of memory: the execution takes %zu bytes", l.used);
        goto fail;
    }
    l = (struct layout){.block = (char *)exec};
    lay_out(exec, plan, &l);
    exec->plan = plan;
    exec->model = model;
    exec->flops_forward = bp_graph_flops(model->graph, false);
    exec->flops_training = bp_graph_flops(model->graph, true);
    connect_panels(exec);
    for (int t = 0; t < model->graph->ntensors; t++)
        if (model->graph->tensors[t].trainable && plan->gradient[model->graph->tensors[t].node] < 0)
            exec->dead[exec->ndead++] = t;
    exec->bounded = exec->ndead == 0 && all_bounded(plan);
    for (int h = 0; h < model->graph->nheads; h++)
        for (int r = 0; r < options->capacity; r++)
            exec->targets[h].weight[r] = 1;
    for (int h = 0; h < model->graph->nheads; h++)
        bp_exec_target_scale(exec, h, 1);
    *ret = exec;
    return BP_OK;
fail:
    bp_plan_free(plan);
    return status;
}

void bp_exec_free(struct bp_exec *exec)
{
    if (exec == NULL)
        return;
    bp_plan_free(exec->plan);
    bp_free(exec);
}

bp_status bp_exec_estimate(const struct bp_graph *graph, const struct bp_exec_options *options, size_t *ret)
{
    struct bp_plan *plan = NULL;
    struct bp_exec sizes = {0};
    struct layout l = {0};
    size_t total;
    bp_status status = bp_plan_new(graph, options, &plan, NULL);
    if (status != BP_OK)
        return status;
    if (lay_out(&sizes, plan, &l) && bp_size_add(l.used, plan->bytes, &total))
        *ret = total;
    else
        status = BP_LIMIT;
    bp_plan_free(plan);
    return status;
}

bp_real *bp_exec_input(struct bp_exec *exec)
{
    return exec->arena + exec->plan->storages[exec->plan->value[0]].offset;
}

const struct bp_targets *bp_exec_targets(struct bp_exec *exec, int head)
{
    return &exec->targets[head];
}

void bp_exec_feed(struct bp_exec *exec, bp_exec_load *load, void *arg)
{
    exec->load = load;
    exec->load_arg = arg;
}

void bp_exec_target_scale(struct bp_exec *exec, int head, double scale)
{
    const struct bp_head *of = &exec->plan->graph->heads[head];
    exec->parameter[head] = (bp_real)(of->loss == BP_LOSS_HUBER ? of->parameter * scale : of->parameter);
}

const bp_real *bp_exec_row_losses(struct bp_exec *exec, int head)
{
    return exec->losses[head];
}

double bp_exec_mean_loss(const struct bp_exec *exec, int head)
{
    return exec->mean_loss[head];
}

const bp_real *bp_exec_output(struct bp_exec *exec, int head)
{
    return bp_exec_value(exec, exec->plan->graph->heads[head].node);
}

/* The number of the node in a storage, if it is there after a pass. */
static const bp_real *kept(const struct bp_exec *exec, int index, int node, bool gradient)
{
    if (index < 0)
        return NULL;
    const struct bp_storage *storage = &exec->plan->storages[index];
    while (bp_op_table[exec->plan->graph->nodes[node].kind]->view) /* a view is held under its input's name */
        node = exec->plan->graph->nodes[node].input[0];
    if (!storage->pinned || storage->holder != node || storage->holds_gradient != gradient)
        return NULL;
    return exec->arena + storage->offset;
}

const bp_real *bp_exec_value(struct bp_exec *exec, int node)
{
    return kept(exec, exec->plan->value[node], node, false);
}

const bp_real *bp_exec_gradient(struct bp_exec *exec, int node)
{
    return kept(exec, exec->plan->gradient[node], node, true);
}

const bp_real *bp_exec_input_gradient(struct bp_exec *exec)
{
    return exec->plan->options.input_gradient ? bp_exec_gradient(exec, 0) : NULL;
}

const bp_real *bp_exec_workspace(struct bp_exec *exec, int node)
{
    int index = exec->plan->workspace[node];
    return index >= 0 && exec->plan->options.keep_all ? exec->arena + exec->plan->storages[index].offset : NULL;
}

void bp_exec_profile(struct bp_exec *exec, uint64_t *ticks)
{
    exec->ticks = ticks;
}

#ifndef BP_DOUBLE
char *bp_exec_print(const struct bp_exec *exec)
{
    return bp_plan_print(exec->plan, sizeof(bp_real));
}
#endif
