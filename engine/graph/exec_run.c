/* exec_run.c: one pass: stages of instructions over blocks of rows and grids of tasks.
 *
 * Between stages there is a barrier (bp_team_for returns when all tasks are done); within one there is none. A task
 * of a row-local stage takes its block of rows through all instructions of the stage; in a grid stage each thread has
 * a slice of the tasks of every instruction; in a stage by columns each thread takes its columns through all of it.
 * Which thread runs a task changes nothing but the address of its scratch.
 *
 * Where a network is small beside its batch, the rows and the gradients are one stage by chunks of BP_ROW_CHUNK rows: each
 * chunk's sums go to memory of their own, and are added up after it.
 *
 * A pass of less than BP_TEAM_FLOPS operations runs on the calling thread: a barrier costs as much as it would save.
 *
 * Threads: see exec.h. Nothing is allocated here.
 */
#include "base/ticks.h"
#include "graph/exec_internal.h"

#include <assert.h>
#include <string.h>

#define CHUNKS_UNEVEN 4 /* a thread from which it matters little that another may have one more */

#define ALONE_ELEMENTS 16384 /* of sums below which adding them up is not worth a barrier */

/* One pass; the argument of the team's tasks. */
struct pass {
    struct bp_exec *exec;
    const struct bp_kernels *kernels;
    const struct bp_stage *stage; /* the one going on */
    int end;                      /* of its instructions, in this pass */
    int rows;
    int parts; /* threads that take part */
    bool training, backward;
    bool loads;                          /* the stage going on begins with the load of the rows */
    const struct bp_exec_update *update; /* where gradients go; NULL: to the model */
    uint64_t seed, step;
};

/* --- one instruction --------------------------------------------------------------------------------------------- */

/* Where row row0 of a storage is for this thread; NULL for storage -1. */
static bp_real *at(const struct pass *pass, int storage, int row0, bp_real *scratch)
{
    if (storage < 0)
        return NULL;
    const struct bp_storage *s = &pass->exec->plan->storages[storage];
    return s->local ? scratch + s->offset : pass->exec->arena + s->offset + s->row * (size_t)row0;
}

static void run_loss(const struct pass *pass, const struct bp_instr *instr, int row0, int rows, bp_real *scratch)
{
    struct bp_exec *exec = pass->exec;
    const struct bp_plan *plan = exec->plan;
    const struct bp_head *head = &plan->graph->heads[instr->head];
    const struct bp_targets *targets = &exec->targets[instr->head];
    size_t n = (size_t)head->outputs, first = (size_t)row0;
    bp_real *dx = pass->backward && instr->want ? at(pass, plan->gradient[instr->node], row0, scratch) : NULL;
    bool add = dx != NULL && instr->add;
    struct bp_loss_call call = {
        .kernels = pass->kernels,
        .rows = rows,
        .n = head->outputs,
        .x = at(pass, plan->value[instr->node], row0, scratch),
        .label = targets->label != NULL ? targets->label + first : NULL,
        .value = targets->value != NULL ? targets->value + first * n : NULL,
        .weight = targets->weight + first,
        .scale = exec->scale[instr->head],
        .parameter = exec->parameter[instr->head],
        .loss = exec->losses[instr->head] + first,
        .dx = add ? scratch + plan->local : dx,
    };
    bp_loss_table[head->loss].run(&call);
    if (add)
        pass->kernels->add((size_t)rows * n, call.dx, dx);
}

/* What one call does: some rows, and of these a task of a grid or some columns. */
struct part {
    int row0, rows, task, column, columns;
    bool first;     /* of the thread's tasks of this grid */
    bp_real *grads; /* where gradients go; NULL: to the model's */
};

static struct bp_epilogue epilogue_of(const struct pass *pass, const struct bp_instr *instr, int row0,
                                      bp_real *scratch)
{
    struct bp_epilogue e = {0};
    if (instr->epilogue < 0)
        return e;
    const struct bp_plan *plan = pass->exec->plan;
    const struct bp_node *node = &plan->graph->nodes[instr->epilogue];
    bp_op_table[node->kind]->epilogue(node, &e);
    e.gradient = instr->kind == BP_INSTR_BACKWARD;
    e.x = at(pass, plan->value[node->input[0]], row0, scratch);
    e.y = at(pass, plan->value[instr->epilogue], row0, scratch);
    return e;
}

static uint64_t *update_ticks(const struct pass *pass, const struct bp_instr *instr, int thread)
{
    size_t node = (size_t)thread * (size_t)pass->exec->plan->graph->nnodes + (size_t)instr->node;
    return pass->exec->ticks + node * BP_PARTS + BP_PART_UPDATE;
}

/* Where a call finds what it reads and writes, from row row0 on. */
static void bind(const struct pass *pass, const struct bp_instr *instr, int row0, bp_real *scratch,
                 struct bp_call *call)
{
    const struct bp_plan *plan = pass->exec->plan;
    const struct bp_node *node = call->node;
    call->y = at(pass, plan->value[instr->node], row0, scratch);
    call->dy = at(pass, plan->gradient[instr->node], row0, scratch);
    call->workspace = at(pass, plan->workspace[instr->node], row0, scratch);
    call->scratch = scratch + plan->local;
    for (int k = 0; k < node->ninputs; k++) {
        call->x[k] = at(pass, plan->value[node->input[k]], row0, scratch);
        call->dx[k] = instr->want & 1u << k ? at(pass, plan->gradient[node->input[k]], row0, scratch) : NULL;
    }
    call->epilogue = epilogue_of(pass, instr, row0, scratch);
}

static void run_instr(const struct pass *pass, const struct bp_instr *instr, const struct part *part, int thread)
{
    struct bp_exec *exec = pass->exec;
    const struct bp_node *node = &exec->plan->graph->nodes[instr->node];
    const struct bp_op *op = bp_op_table[node->kind];
    bp_real *scratch = exec->scratch + (size_t)thread * exec->scratch_thread;

    if (instr->kind == BP_INSTR_LOSS) {
        run_loss(pass, instr, part->row0, part->rows, scratch);
        return;
    }
    struct bp_call call; /* its arrays are longer than most nodes need: all else is set */
    call.graph = exec->plan->graph;
    call.node = node;
    call.kernels = pass->kernels;
    call.params = exec->model->params;
    call.stats = exec->model->stats;
    call.grads = part->grads != NULL ? part->grads : exec->model->grads;
    call.model = exec->model;
    call.update = pass->update;
    call.update_ticks = exec->ticks != NULL ? update_ticks(pass, instr, thread) : NULL;
    call.forward_panels = exec->forward_panels;
    call.backward_panels = exec->backward_panels;
    call.index = instr->node;
    call.row0 = part->row0;
    call.rows = part->rows;
    call.task = part->task;
    call.column = part->column;
    call.columns = part->columns;
    call.first = part->first;
    call.training = pass->training;
    call.seed = pass->seed;
    call.step = pass->step;
    call.add = instr->add;
    bind(pass, instr, part->row0, scratch, &call);
    if (instr->kind == BP_INSTR_FORWARD)
        op->forward(&call);
    else if (instr->kind == BP_INSTR_BACKWARD)
        op->backward(&call);
    else
        op->parameters(&call);
}

/* The same with its time taken, where somebody asked for that. */
static void run_timed(const struct pass *pass, const struct bp_instr *instr, const struct part *part, int thread)
{
    uint64_t *ticks = pass->exec->ticks;
    if (ticks == NULL) {
        run_instr(pass, instr, part, thread);
        return;
    }
    size_t node = (size_t)thread * (size_t)pass->exec->plan->graph->nnodes + (size_t)instr->node;
    const uint64_t *update = update_ticks(pass, instr, thread);
    uint64_t begin = bp_ticks(), before = *update;
    run_instr(pass, instr, part, thread);
    ticks[node * BP_PARTS + (size_t)instr->kind] += bp_ticks() - begin - (*update - before);
}

/* --- stages ------------------------------------------------------------------------------------------------------ */

static int blocks_of(const struct pass *pass)
{
    return (pass->rows - 1) / pass->exec->plan->block + 1;
}

/* A block of rows. */
static struct part block_of(const struct pass *pass, int task)
{
    int block = pass->exec->plan->block, row0 = task * block, left = pass->rows - row0;
    return (struct part){.row0 = row0, .rows = left < block ? left : block};
}

/* The profile has the time of it as the input's. */
static void load_task(void *arg, int task, int thread)
{
    const struct pass *pass = arg;
    struct bp_exec *exec = pass->exec;
    struct part part = block_of(pass, task);
    uint64_t begin = exec->ticks != NULL ? bp_ticks() : 0;
    exec->load(exec->load_arg, part.row0, part.rows);
    if (exec->ticks != NULL)
        exec->ticks[(size_t)thread * (size_t)exec->plan->graph->nnodes * BP_PARTS] += bp_ticks() - begin;
}

static void rows_task(void *arg, int task, int thread)
{
    const struct pass *pass = arg;
    const struct bp_plan *plan = pass->exec->plan;
    struct part part = block_of(pass, task);
    if (pass->loads)
        load_task(arg, task, thread);
    for (int i = pass->stage->first; i < pass->end; i++)
        run_timed(pass, &plan->instrs[i], &part, thread);
}

/* A thread's part of a stage of grids: a slice of each, so that it has the same place in the matrix of a layer as in
 * the update (graph/model.h). */
static void grid_part(void *arg, int number, int thread)
{
    const struct pass *pass = arg;
    struct part part = {.rows = pass->rows};
    for (int i = pass->stage->first; i < pass->end; i++) {
        const struct bp_instr *instr = &pass->exec->plan->instrs[i];
        int begin = bp_team_slice(instr->tasks, pass->parts, number, instr->first_task);
        int end = bp_team_slice(instr->tasks, pass->parts, number + 1, instr->first_task);
        for (part.task = begin; part.task < end; part.task++) {
            part.first = part.task == begin;
            run_timed(pass, instr, &part, thread);
        }
    }
}

/* A thread's columns: all instructions of the stage. */
static void columns_part(void *arg, int number, int thread)
{
    const struct pass *pass = arg;
    int all = pass->stage->columns, units = (all - 1) / BP_COLUMN_UNIT + 1;
    int first = bp_team_slice(units, pass->parts, number, 0) * BP_COLUMN_UNIT;
    int end = bp_team_slice(units, pass->parts, number + 1, 0) * BP_COLUMN_UNIT;
    struct part part = {.rows = pass->rows, .column = first, .columns = (end < all ? end : all) - first};
    for (int i = pass->stage->first; part.columns > 0 && i < pass->end; i++)
        run_timed(pass, &pass->exec->plan->instrs[i], &part, thread);
}

/* --- stages by chunks ------------------------------------------------------------------------------------------- */

static int chunks_of(int rows)
{
    return (rows - 1) / BP_ROW_CHUNK + 1;
}

/* Whether both stages are one, by chunks of rows (exec.c): no thread may have much more of them than another. */
static bool goes_by_chunks(const struct pass *pass, int end)
{
    int chunks = chunks_of(pass->rows);
    return end == pass->exec->plan->ninstrs && pass->exec->update.admit == NULL && pass->exec->nsums > 0 &&
           pass->parts > 1 && (chunks % pass->parts == 0 || chunks >= CHUNKS_UNEVEN * pass->parts);
}

/* A thread's chunks: the blocks of one, then its sums. The first chunk's are made where the gradients go. */
static void chunks_part(void *arg, int number, int thread)
{
    const struct pass *pass = arg;
    const struct bp_plan *plan = pass->exec->plan;
    int chunks = chunks_of(pass->rows), end = bp_team_slice(chunks, pass->parts, number + 1, 0);
    for (int c = bp_team_slice(chunks, pass->parts, number, 0); c < end; c++) {
        int row0 = c * BP_ROW_CHUNK, left = pass->rows - row0;
        struct part part = {.row0 = row0, .rows = left < BP_ROW_CHUNK ? left : BP_ROW_CHUNK};
        if (c > 0)
            part.grads = pass->exec->sums + (size_t)(c - 1) * plan->graph->nparams;
        for (int block = row0 / plan->block; block * plan->block < row0 + part.rows; block++)
            rows_task(arg, block, thread);
        for (int i = plan->stages[1].first; i < plan->stages[1].end; i++)
            for (part.task = 0; part.task < plan->instrs[i].tasks; part.task++) {
                part.first = part.task == 0;
                run_timed(pass, &plan->instrs[i], &part, thread);
            }
    }
}

/* Adds the sums of the chunks up, in ascending order: a thread those that it will update, or the leader all. */
static void add_part(void *arg, int number, int thread)
{
    const struct pass *pass = arg;
    const struct bp_model *model = pass->exec->model;
    (void)thread;
    for (int g = 0; g < model->ngroups; g++) {
        struct bp_share_group mine = bp_model_part(model, g, pass->parts, number);
        if (mine.first == mine.end)
            continue;
        size_t first = model->shares[mine.first].first, n = model->shares[mine.end - 1].end - first;
        for (int c = 1; c < chunks_of(pass->rows); c++)
            pass->kernels->add(n, pass->exec->sums + (size_t)(c - 1) * model->nparams + first, model->grads + first);
    }
}

static void run_chunks(struct pass *pass, struct bp_team *team)
{
    pass->stage = &pass->exec->plan->stages[0];
    pass->end = pass->stage->end;
    bp_team_for(team, pass->parts, chunks_part, pass);
    if ((size_t)(chunks_of(pass->rows) - 1) * pass->exec->model->nparams < ALONE_ELEMENTS)
        pass->parts = 1;
    bp_team_for(team, pass->parts, add_part, pass);
}

static double mean_loss(const struct bp_exec *exec, int head, int rows)
{
    double sum = 0, weights = exec->weights[head];
    for (int r = 0; r < rows; r++)
        sum += (double)exec->targets[head].weight[r] * (double)exec->losses[head][r];
    return weights > 0 ? sum / weights : 0;
}

/* The total loss, and that of each head. */
static double total_loss(struct bp_exec *exec, int rows)
{
    double total = 0;
    for (int h = 0; h < exec->plan->graph->nheads; h++) {
        exec->mean_loss[h] = mean_loss(exec, h, rows);
        total += exec->plan->graph->heads[h].weight * exec->mean_loss[h];
    }
    return total;
}

/* One stage, of which the instructions before number `end`. */
static void run_stage(struct pass *pass, struct bp_team *team, const struct bp_stage *stage, int end)
{
    struct bp_exec *exec = pass->exec;
    pass->stage = stage;
    pass->end = stage->end < end ? stage->end : end;
    if (exec->update.admit != NULL && exec->plan->instrs[stage->first].kind == BP_INSTR_PARAMETERS &&
        bp_exec_is_admitted(exec, team, pass->rows, total_loss(exec, pass->rows)))
        pass->update = &exec->update;
    if (stage->kind == BP_STAGE_ROWS)
        bp_team_for(team, blocks_of(pass), rows_task, pass);
    else
        bp_team_for(team, pass->parts, stage->kind == BP_STAGE_GRID ? grid_part : columns_part, pass);
    pass->loads = false;
}

/* Runs the instructions before number `end`. */
static void run_stages(struct pass *pass, struct bp_team *team, int end)
{
    const struct bp_plan *plan = pass->exec->plan;
    pass->parts = bp_team_active(team);
    pass->loads = pass->exec->load != NULL && plan->stages[0].kind == BP_STAGE_ROWS;
    if (pass->exec->load != NULL && !pass->loads)
        bp_team_for(team, blocks_of(pass), load_task, pass);
    if (goes_by_chunks(pass, end)) {
        run_chunks(pass, team);
        return;
    }
    for (int s = 0; s < plan->nstages && plan->stages[s].first < end; s++)
        run_stage(pass, team, &plan->stages[s], end);
}

/* What was said of one pass holds for no other. */
static void end_pass(struct bp_exec *exec)
{
    exec->load = NULL;
    exec->update.admit = NULL;
}

static struct bp_team *team_for_work(struct bp_team *team, int64_t flops_row, int rows)
{
    return flops_row < BP_TEAM_FLOPS / rows ? NULL : team;
}

/* --- passes ------------------------------------------------------------------------------------------------------ */

void bp_exec_forward(struct bp_exec *exec, struct bp_team *team, int rows)
{
    struct pass pass = {.exec = exec, .kernels = bp_kernels_current(), .rows = rows};
    assert(rows <= exec->plan->options.capacity && bp_team_active(team) <= exec->plan->options.threads);
    if (rows > 0)
        run_stages(&pass, team_for_work(team, exec->flops_forward, rows), exec->plan->nforward);
    end_pass(exec);
}

/* The sum of the rows' weights, in double, ascending. */
static double sum_weights(const struct bp_exec *exec, int head, int rows)
{
    double sum = 0;
    for (int r = 0; r < rows; r++)
        sum += (double)exec->targets[head].weight[r];
    return sum;
}

static void clear_dead(struct bp_exec *exec)
{
    for (int i = 0; i < exec->ndead; i++) {
        const struct bp_tensor *tensor = &exec->model->graph->tensors[exec->dead[i]];
        memset(exec->model->grads + tensor->offset, 0, tensor->count * sizeof *exec->model->grads);
    }
}

static void pack_own(struct bp_exec *exec, const struct bp_kernels *kernels)
{
    for (int i = 0; i < exec->nown; i++) {
        const struct bp_packed *p = &exec->own[i];
        kernels->pack(exec->own_panels + p->offset,
                      exec->model->params + exec->model->graph->tensors[p->tensor].offset, p->k, p->n, p->row,
                      p->col);
    }
}

double bp_exec_pass(struct bp_exec *exec, struct bp_team *team, int rows, bool backward, uint64_t seed, uint64_t step)
{
    const struct bp_plan *plan = exec->plan;
    const struct bp_graph *graph = plan->graph;
    bool gradients = backward && plan->options.training;
    struct pass pass = {.exec = exec,
                        .kernels = bp_kernels_current(),
                        .rows = rows,
                        .training = backward,
                        .backward = gradients,
                        .seed = seed,
                        .step = step};

    assert(rows <= plan->options.capacity && bp_team_active(team) <= plan->options.threads);
    if (rows < 1) {
        end_pass(exec);
        return 0;
    }
    for (int h = 0; h < graph->nheads; h++) {
        double weights = exec->weights[h] = sum_weights(exec, h, rows);
        exec->scale[h] = weights > 0 ? (bp_real)(graph->heads[h].weight / weights) : 0;
    }
    if (gradients) {
        clear_dead(exec);
        pack_own(exec, pass.kernels);
    }
    team = team_for_work(team, gradients ? exec->flops_training : exec->flops_forward, rows);
    run_stages(&pass, team, gradients ? plan->ninstrs : plan->nforward + graph->nheads);
    end_pass(exec);
    return total_loss(exec, rows);
}
