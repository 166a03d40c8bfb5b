/* batch.c: the gather of a batch, shared out to the team where it is worth a barrier.
 *
 * A task fills the inputs and targets of its own rows and nothing else, so who does which changes nothing.
 */
#include "train/batch.h"

#define SERIAL_ELEMENTS 16384 /* inputs of a batch below which one thread is as quick as a team */
#define TASK_ELEMENTS 8192    /* inputs of a task, roughly */

struct load {
    struct bp_exec *exec;
    const struct bp_graph *graph;
    const struct bp_source *source;
    const uint32_t *rows;
    int n, block; /* rows in all, and of a task */
};

static void load_block(void *arg, int task, int thread)
{
    const struct load *w = arg;
    int first = task * w->block;
    int n = w->n - first < w->block ? w->n - first : w->block;
    const uint32_t *rows = w->rows + first;

    (void)thread;
    bp_source_gather(w->source, rows, n, bp_exec_input(w->exec) + (size_t)first * (size_t)w->source->inputs);
    for (int h = 0; h < w->graph->nheads; h++) {
        const struct bp_head *head = &w->graph->heads[h];
        const struct bp_targets *targets = bp_exec_targets(w->exec, h);

        bp_source_gather_weights(w->source, h, rows, n, targets->weight + first);
        if (bp_loss_takes_labels(head->loss)) {
            bp_source_gather_labels(w->source, h, rows, n, targets->label + first);
        } else {
            bp_source_gather_values(w->source, h, rows, n, targets->value + (size_t)first * (size_t)head->outputs);
        }
    }
}

static bp_status check_labels(const struct load *w, struct bp_error *err)
{
    for (int h = 0; h < w->graph->nheads; h++) {
        const int32_t *label = bp_exec_targets(w->exec, h)->label;

        if (!bp_loss_takes_labels(w->graph->heads[h].loss)) {
            continue;
        }
        for (int r = 0; r < w->n; r++) {
            if (label[r] < 0 || label[r] >= w->graph->heads[h].outputs) {
                return bp_fail(err, BP_INVALID, "row %u of the table has no class among the %d that are known",
                               w->rows[r], w->graph->heads[h].outputs);
            }
        }
    }
    return BP_OK;
}

bp_status bp_batch_load(struct bp_exec *exec, struct bp_team *team, const struct bp_graph *graph,
                        const struct bp_source *source, const uint32_t *rows, int n, struct bp_error *err)
{
    struct load w = {exec, graph, source, rows, n, n};

    if ((int64_t)n * source->inputs >= SERIAL_ELEMENTS && bp_team_active(team) > 1) {
        w.block = source->inputs < TASK_ELEMENTS ? TASK_ELEMENTS / source->inputs : 1;
    }
    for (int h = 0; h < graph->nheads; h++) {
        bp_exec_target_scale(exec, h, source->targets[h].is_class ? 1.0 : source->targets[h].scale);
    }
    bp_team_for(team, (n + w.block - 1) / w.block, load_block, &w);
    return check_labels(&w, err);
}
