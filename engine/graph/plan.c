/* plan.c: epilogues, stages and memory of an execution; see plan.h.
 *
 * Epilogues. An activation goes into the instruction before it where that makes what it reads (FORWARD), or makes the error
 * signal that it changes in place (BACKWARD).
 *
 * Stages. Consecutive row-local instructions are one stage: a task is a block of rows, which goes through all of them
 * while it is in the cache. For a chain of small dense layers the whole forward pass, the losses and the error signals
 * are one stage, and all parameter gradients are the next: one barrier between them. A dense layer with more weights
 * than activations is a stage by columns, with what follows on the same columns.
 *
 * Memory. The unit of time in the arena is the stage, for within a stage blocks of rows are at different instructions
 * at the same time; within a block's own scratch it is the instruction. Storages are placed from the largest to the
 * smallest, each into the smallest gap that is free during its life.
 *
 * Threads: pure functions.
 */
#include "graph/plan.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* Storages of a node: value, gradient, workspace. Also the ints of work for each: the makers have one array at a time
 * with an entry for each storage, or two with an entry for each node. */
#define STORAGES_PER_NODE 3

#define LONE_ROWS                                                                                                    \
    64 /* of a block where one thread does all: with the few units of such a network it fits the L1 cache */

#define BLOCK_ROWS_MIN 8
#define BLOCK_ELEMENTS 262144 /* of a layer in a block, if that many rows are left: the second-level cache */

/* --- in place ---------------------------------------------------------------------------------------------------- */

int bp_plan_operands(const struct bp_plan *plan, const struct bp_instr *instr, int *ret)
{
    const struct bp_node *node = &plan->graph->nodes[instr->node];
    const struct bp_op *op = bp_op_table[node->kind];
    bool forward = instr->kind == BP_INSTR_FORWARD;
    unsigned needs = 0;
    int n = 0;

    if (instr->kind == BP_INSTR_LOSS) {
        ret[n++] = plan->value[instr->node];
        if (instr->want != 0)
            ret[n++] = plan->gradient[instr->node];
        return n;
    }
    if (!forward && op->needs != NULL)
        needs = op->needs(node, instr->kind == BP_INSTR_BACKWARD ? BP_PHASE_BACKWARD : BP_PHASE_PARAMETERS);
    if (instr->epilogue >= 0) {
        const struct bp_node *end = &plan->graph->nodes[instr->epilogue];
        unsigned reads = forward ? BP_NEEDS_Y : bp_op_table[end->kind]->needs(end, BP_PHASE_BACKWARD);
        if (reads & BP_NEEDS_X)
            ret[n++] = plan->value[end->input[0]];
        if (reads & BP_NEEDS_Y)
            ret[n++] = plan->value[instr->epilogue];
    }
    for (int k = 0; k < node->ninputs; k++) {
        if (forward || (needs & BP_NEEDS_X))
            ret[n++] = plan->value[node->input[k]];
        if (instr->want & 1u << k)
            ret[n++] = plan->gradient[node->input[k]];
    }
    if (forward || (needs & BP_NEEDS_Y))
        ret[n++] = plan->value[instr->node];
    if (!forward)
        ret[n++] = plan->gradient[instr->node];
    if (plan->workspace[instr->node] >= 0)
        ret[n++] = plan->workspace[instr->node];
    return n;
}

static void find_lives(struct bp_plan *plan)
{
    int operands[BP_OPERANDS_MAX];
    for (int s = 0; s < plan->nstorages; s++)
        plan->storages[s].first = plan->storages[s].last = -1;
    for (int i = 0; i < plan->ninstrs; i++) {
        int n = bp_plan_operands(plan, &plan->instrs[i], operands);
        for (int k = 0; k < n; k++) {
            struct bp_storage *storage = &plan->storages[operands[k]];
            storage->first = storage->first < 0 ? i : storage->first;
            storage->last = i;
        }
    }
}

static int merged(const int *into, int storage)
{
    while (storage >= 0 && into[storage] != storage)
        storage = into[storage];
    return storage;
}

/* Lets storage `from`, first written by instruction i, live in `to`, which i reads last, if that is so. */
static void merge(struct bp_plan *plan, int *into, int i, int from, int to)
{
    struct bp_storage *a = &plan->storages[from], *b = &plan->storages[to];
    if (from == to || b->pinned || b->last != i || a->first != i || a->row != b->row || a->fixed != b->fixed)
        return;
    into[from] = to;
    b->last = a->last;
    b->pinned = a->pinned;
    b->holder = a->holder;
    b->holds_gradient = a->holds_gradient;
    a->pinned = false; /* nothing is left in it */
}

/* Ops that run in place get their input's storage where nothing reads that afterwards. */
static void share_in_place(struct bp_plan *plan)
{
    int *into = plan->work;
    for (int s = 0; s < plan->nstorages; s++)
        into[s] = s;
    for (int i = 0; i < plan->ninstrs; i++) {
        const struct bp_instr *instr = &plan->instrs[i];
        const struct bp_node *node = &plan->graph->nodes[instr->node];
        const struct bp_op *op = bp_op_table[node->kind];
        if (op->in_place == NULL || node->ninputs != 1)
            continue;
        if (instr->kind == BP_INSTR_FORWARD && op->in_place(node, BP_PHASE_FORWARD))
            merge(plan, into, i, plan->value[instr->node], merged(into, plan->value[node->input[0]]));
        if (instr->kind == BP_INSTR_BACKWARD && instr->add == 0 && op->in_place(node, BP_PHASE_BACKWARD))
            merge(plan, into, i, plan->gradient[node->input[0]], merged(into, plan->gradient[instr->node]));
    }
    for (int n = 0; n < plan->graph->nnodes; n++) {
        plan->value[n] = merged(into, plan->value[n]);
        plan->gradient[n] = merged(into, plan->gradient[n]);
    }
}

/* --- epilogues --------------------------------------------------------------------------------------------------- */

static bool is_epilogue(const struct bp_plan *plan, const struct bp_instr *before, const struct bp_instr *instr)
{
    const struct bp_node *nodes = plan->graph->nodes, *node = &nodes[instr->node];
    const struct bp_op *op = bp_op_table[node->kind];
    struct bp_epilogue unused;

    if (instr->kind != before->kind || instr->kind == BP_INSTR_LOSS ||
        !bp_op_table[nodes[before->node].kind]->epilogues || before->epilogue >= 0 || op->epilogue == NULL ||
        !op->epilogue(node, &unused))
        return false;
    if (instr->kind == BP_INSTR_FORWARD)
        return node->input[0] == before->node;
    int signal = plan->gradient[instr->node];
    return plan->gradient[nodes[before->node].input[0]] == signal && plan->gradient[node->input[0]] == signal;
}

static void find_epilogues(struct bp_plan *plan)
{
    int n = 0, nforward = plan->nforward;
    for (int i = 0; i < plan->ninstrs; i++) {
        struct bp_instr *before = n > 0 ? &plan->instrs[n - 1] : NULL;
        if (before != NULL && is_epilogue(plan, before, &plan->instrs[i])) {
            before->epilogue = plan->instrs[i].node;
            nforward -= plan->instrs[i].kind == BP_INSTR_FORWARD;
        } else {
            plan->instrs[n++] = plan->instrs[i];
        }
    }
    plan->ninstrs = n;
    plan->nforward = nforward;
}

/* --- stages ------------------------------------------------------------------------------------------------------ */

/* How an instruction is run if that is its own choice alone, and the columns of what it writes. */
static enum bp_by_columns by_columns(const struct bp_plan *plan, const struct bp_instr *instr, int *ret_columns)
{
    const struct bp_node *node = &plan->graph->nodes[instr->node];
    const struct bp_op *op = bp_op_table[node->kind];
    bool forward = instr->kind == BP_INSTR_FORWARD;

    if (op->by_columns == NULL || (!forward && instr->kind != BP_INSTR_BACKWARD))
        return BP_COLUMNS_NEVER;
    *ret_columns = (int)bp_shape_elements(forward ? &node->shape : bp_input_shape(plan->graph, node, 0));
    return op->by_columns(plan->graph, node, forward ? BP_PHASE_FORWARD : BP_PHASE_BACKWARD, plan->options.capacity);
}

/* Whether an instruction can do its part in a stage without a barrier before it. */
static bool joins(const struct bp_plan *plan, const struct bp_stage *stage, const struct bp_instr *instr,
                  enum bp_by_columns how, int columns)
{
    switch (stage->kind) {
    case BP_STAGE_ROWS:
        return instr->tasks == 0 && (how == BP_COLUMNS_NEVER || how == BP_COLUMNS_JOIN);
    case BP_STAGE_COLUMNS:
        return (how == BP_COLUMNS_JOIN || how == BP_COLUMNS_ALWAYS) && columns == stage->columns;
    default: /* among grids only parameter gradients cannot depend on each other */
        return instr->kind == BP_INSTR_PARAMETERS && plan->instrs[stage->first].kind == BP_INSTR_PARAMETERS;
    }
}

static bool find_stages(struct bp_plan *plan)
{
    for (int i = 0; i < plan->ninstrs; i++) {
        struct bp_instr *instr = &plan->instrs[i];
        struct bp_stage *stage = plan->nstages > 0 ? &plan->stages[plan->nstages - 1] : NULL;
        int columns = 0;
        enum bp_by_columns how = by_columns(plan, instr, &columns);
        if (stage == NULL || !joins(plan, stage, instr, how, columns)) {
            stage = &plan->stages[plan->nstages++];
            *stage = (struct bp_stage){.first = i, .kind = instr->tasks > 0 ? BP_STAGE_GRID : BP_STAGE_ROWS};
            if (how == BP_COLUMNS_BEGIN || how == BP_COLUMNS_ALWAYS) {
                stage->kind = BP_STAGE_COLUMNS;
                stage->columns = columns;
            }
        }
        instr->first_task = stage->tasks;
        if (instr->tasks > INT32_MAX - stage->tasks)
            return false;
        stage->tasks += instr->tasks;
        stage->end = i + 1;
    }
    return true;
}

/* Rows of a block: few enough that a small batch has a task for each thread, and that what a layer makes of them fits
 * the cache from which the next one reads it; not so few that weights are packed again all the time. Products of 16 rows
 * are within a few percent of larger ones. Where one thread does it all, more of them save calls. Results do not depend
 * on it. */
static int block_rows(const struct bp_graph *graph, const struct bp_exec_options *options)
{
    int capacity = options->capacity, rows = capacity <= 128 ? 16 : capacity <= 512 ? 32 : 64;
    int64_t largest = 0; /* of a row, in any layer */
    if (bp_graph_flops(graph, options->training) < BP_TEAM_FLOPS / capacity)
        return capacity < LONE_ROWS ? capacity : LONE_ROWS;
    for (int n = 0; n < graph->nnodes; n++) {
        int64_t elements = bp_shape_elements(&graph->nodes[n].shape);
        largest = elements > largest ? elements : largest;
    }
    while (rows > BLOCK_ROWS_MIN && largest > BLOCK_ELEMENTS / rows)
        rows /= 2;
    return rows;
}

/* --- placing ----------------------------------------------------------------------------------------------------- */

struct life {
    int storage, begin, end; /* both included */
    size_t size, offset;
};

static int larger_first(const void *a, const void *b)
{
    const struct life *x = a, *y = b;
    if (x->size != y->size)
        return x->size < y->size ? 1 : -1;
    return x->storage < y->storage ? -1 : 1;
}

/* Finds offsets for n lives such that no two that overlap in time overlap in space; *ret_end is the end of the last.
 * placed has room for n indices. */
static bool place(struct life *lives, int n, int *placed, size_t *ret_end)
{
    size_t total = 0;
    qsort(lives, (size_t)n, sizeof *lives, larger_first);
    for (int i = 0; i < n; i++) {
        struct life *life = &lives[i];
        size_t cursor = 0, best = SIZE_MAX, best_gap = SIZE_MAX, end;
        int at;
        for (int k = 0; k < i; k++) { /* in the order of their offsets */
            const struct life *other = &lives[placed[k]];
            if (other->end < life->begin || life->end < other->begin)
                continue;
            if (other->offset > cursor && other->offset - cursor >= life->size && other->offset - cursor < best_gap) {
                best_gap = other->offset - cursor;
                best = cursor;
            }
            if (other->offset + other->size > cursor)
                cursor = other->offset + other->size;
        }
        life->offset = best_gap != SIZE_MAX ? best : cursor;
        if (!bp_size_add(life->offset, life->size, &end))
            return false;
        total = end > total ? end : total;
        for (at = i; at > 0 && lives[placed[at - 1]].offset > life->offset; at--)
            placed[at] = placed[at - 1];
        placed[at] = i;
    }
    *ret_end = total;
    return true;
}

static bool rounded(size_t elements, size_t *ret)
{
    size_t sum;
    if (!bp_size_add(elements, BP_PLAN_ALIGN - 1, &sum))
        return false;
    *ret = sum / BP_PLAN_ALIGN * BP_PLAN_ALIGN;
    return true;
}

/* Elements of a storage for a number of rows. */
static bool storage_size(const struct bp_storage *storage, int rows, size_t *ret)
{
    size_t size;
    return bp_size_mul(storage->row, (size_t)rows, &size) && bp_size_add(size, storage->fixed, &size) &&
           rounded(size, ret);
}

/* Places the local storages (in a thread's scratch) or the others (in the arena). */
static bool place_storages(struct bp_plan *plan, const int *stage_of, struct life *lives, bool local, size_t *ret)
{
    int n = 0;
    int *placed = plan->work;
    for (int s = 0; s < plan->nstorages; s++) {
        const struct bp_storage *storage = &plan->storages[s];
        struct life life = {.storage = s, .begin = storage->first, .end = storage->last};
        bool unused = storage->first < 0 && !storage->pinned;
        if (unused || storage->local != local)
            continue;
        if (storage->pinned)
            life.begin = 0, life.end = plan->ninstrs;
        else if (!local)
            life.begin = stage_of[storage->first], life.end = stage_of[storage->last];
        if (!storage_size(storage, local ? plan->block : plan->options.capacity, &life.size))
            return false;
        lives[n++] = life;
    }
    if (!place(lives, n, placed, ret))
        return false;
    for (int i = 0; i < n; i++)
        plan->storages[lives[i].storage].offset = lives[i].offset;
    return true;
}

/* The most scratch that any instruction wants. */
static bool find_scratch(struct bp_plan *plan)
{
    size_t most = 0, size;
    for (int i = 0; i < plan->ninstrs; i++) {
        const struct bp_instr *instr = &plan->instrs[i];
        const struct bp_node *node = &plan->graph->nodes[instr->node];
        const struct bp_op *op = bp_op_table[node->kind];
        if (instr->kind == BP_INSTR_LOSS) { /* a second loss of a node computes its signal aside, then adds it */
            if (instr->add == 0)
                continue;
            if (!bp_size_mul((size_t)bp_shape_elements(&node->shape), (size_t)plan->block, &size))
                return false;
        } else {
            enum bp_phase phase = instr->kind == BP_INSTR_FORWARD    ? BP_PHASE_FORWARD
                                  : instr->kind == BP_INSTR_BACKWARD ? BP_PHASE_BACKWARD
                                                                     : BP_PHASE_PARAMETERS;
            size = op->scratch != NULL ? op->scratch(plan->graph, node, phase, plan->block) : 0;
        }
        most = size > most ? size : most;
    }
    return rounded(most, &plan->scratch);
}

static bp_status plan_memory(struct bp_plan *plan)
{
    bp_status status = BP_NOMEM;
    int *stage_of = bp_alloc((size_t)plan->ninstrs * sizeof *stage_of);
    struct life *lives = bp_alloc((size_t)plan->nstorages * sizeof *lives);
    if (stage_of == NULL || lives == NULL)
        goto out;
    for (int s = 0; s < plan->nstages; s++)
        for (int i = plan->stages[s].first; i < plan->stages[s].end; i++)
            stage_of[i] = s;
    for (int s = 0; s < plan->nstorages; s++) {
        struct bp_storage *storage = &plan->storages[s];
        int stage = storage->first < 0 ? -1 : stage_of[storage->first];
        storage->local = !storage->pinned && stage >= 0 && plan->stages[stage].kind == BP_STAGE_ROWS &&
                         storage->fixed == 0 && stage == stage_of[storage->last];
    }
    status = place_storages(plan, stage_of, lives, true, &plan->local) &&
                     place_storages(plan, stage_of, lives, false, &plan->arena) && find_scratch(plan)
                 ? BP_OK
                 : BP_LIMIT;
out:
    bp_free(stage_of);
    bp_free(lives);
    return status;
}

/* --- making ------------------------------------------------------------------------------------------------------ */

static bp_status check(const struct bp_graph *graph, const struct bp_exec_options *options, struct bp_error *err)
{
    if (options->capacity < 1)
        return bp_fail(err, BP_INVALID, "a batch has at least 1 row, got %d", options->capacity);
    if (options->threads < 1 || options->threads > BP_TEAM_MAX)
        return bp_fail(err, BP_INVALID, "threads must be between 1 and %d, got %d", BP_TEAM_MAX, options->threads);
    if (options->input_gradient && !options->training)
        return bp_fail(err, BP_INVALID, "the gradient of the input needs a backward pass");
    if (graph->nheads == 0)
        return bp_fail(err, BP_INVALID, "the network has no output with a loss");
    return BP_OK;
}

/* The next array of a block: count elements of `size` bytes, aligned to a cache line. */
static void *carve(char *block, size_t *used, size_t count, size_t size)
{
    void *array = block ? block + *used : NULL;
    *used += bp_size_align(count * size); /* counts are bounded by BP_NODES_MAX */
    return array;
}

/* Lays the plan's arrays out in a block and returns its size; on the first call, to learn the size, the plan is a
 * dummy and the block NULL. */
static size_t lay_out(struct bp_plan *plan, char *block, const struct bp_graph *graph)
{
    size_t nodes = (size_t)graph->nnodes, instrs = 3 * nodes + (size_t)graph->nheads, used = 0;
    carve(block, &used, 1, sizeof *plan);
    plan->instrs = carve(block, &used, instrs, sizeof *plan->instrs);
    plan->stages = carve(block, &used, instrs, sizeof *plan->stages);
    plan->storages = carve(block, &used, STORAGES_PER_NODE * nodes, sizeof *plan->storages);
    plan->value = carve(block, &used, nodes, sizeof *plan->value);
    plan->gradient = carve(block, &used, nodes, sizeof *plan->gradient);
    plan->workspace = carve(block, &used, nodes, sizeof *plan->workspace);
    plan->needs = carve(block, &used, nodes, sizeof *plan->needs);
    plan->work = carve(block, &used, STORAGES_PER_NODE * nodes, sizeof *plan->work);
    return used;
}

bp_status bp_plan_new(const struct bp_graph *graph, const struct bp_exec_options *options, struct bp_plan **ret,
                      struct bp_error *err)
{
    bp_status status = check(graph, options, err);
    if (status != BP_OK)
        return status;
    size_t bytes = lay_out(&(struct bp_plan){0}, NULL, graph);
    struct bp_plan *plan = bp_alloc(bytes);
    if (plan == NULL)
        return bp_fail(err, BP_NOMEM, "out of memory while planning the execution");
    lay_out(plan, (char *)plan, graph);
    plan->graph = graph;
    plan->options = *options;
    plan->bytes = bytes;
    plan->block = block_rows(graph, options);

    bp_plan_differentiate(plan);
    find_lives(plan);
    share_in_place(plan);
    find_epilogues(plan);
    find_lives(plan);
    status = find_stages(plan) ? plan_memory(plan) : BP_LIMIT;
    if (status != BP_OK) {
        bp_plan_free(plan);
        return status == BP_NOMEM
                   ? bp_fail(err, status, "out of memory while planning the execution")
                   : bp_fail(err, status, "a batch of %d rows is too large for this network", options->capacity);
    }
    *ret = plan;
    return BP_OK;
}

void bp_plan_free(struct bp_plan *plan)
{
    bp_free(plan); /* its arrays are in the same block */
}
