/* batch.c: the gather of a batch.
 *
 * Labels and weights are gathered at once: a label decides whether the batch is run at all, and the loss of a row is
 * scaled by the weights of all of them. The rest, which is much more, is left to the threads of the pass, each loading
 * the rows that it goes on with. Who loads what changes nothing.
 */
#include "train/batch.h"

/* A part of the pass: rows row0 .. row0 + n of the batch. */
static void load(void *arg, int row0, int n)
{
    const struct bp_batch *b = arg;
    const uint32_t *rows = b->rows + row0;
    int next = b->nnext - row0 < n ? b->nnext - row0 : n;

    bp_source_ask(b->source, next > 0 ? b->next + row0 : NULL, next);
    bp_source_gather(b->source, rows, n, bp_exec_input(b->exec) + (size_t)row0 * (size_t)b->source->inputs);
    for (int h = 0; h < b->graph->nheads; h++) {
        const struct bp_head *head = &b->graph->heads[h];
        float *value = bp_exec_targets(b->exec, h)->value;

        if (value != NULL) {
            bp_source_gather_values(b->source, h, rows, n, value + (size_t)row0 * (size_t)head->outputs);
        }
    }
}

static bp_status check_labels(const struct bp_batch *b, int head, int n, struct bp_error *err)
{
    const int32_t *label = bp_exec_targets(b->exec, head)->label;
    int classes = b->graph->heads[head].outputs;

    for (int r = 0; r < n; r++) {
        if (label[r] < 0 || label[r] >= classes) {
            return bp_fail(err, BP_INVALID, "row %u of the table has no class among the %d that are known",
                           b->rows[r], classes);
        }
    }
    return BP_OK;
}

bp_status bp_batch_load(struct bp_batch *batch, struct bp_exec *exec, const struct bp_graph *graph,
                        const struct bp_source *source, const uint32_t *rows, int n, struct bp_error *err)
{
    *batch = (struct bp_batch){.exec = exec, .graph = graph, .source = source, .rows = rows};
    for (int h = 0; h < graph->nheads; h++) {
        const struct bp_targets *targets = bp_exec_targets(exec, h);
        bp_status status = BP_OK;

        bp_exec_target_scale(exec, h, source->targets[h].is_class ? 1.0 : source->targets[h].scale);
        bp_source_gather_weights(source, h, rows, n, targets->weight);
        if (targets->label != NULL) {
            bp_source_gather_labels(source, h, rows, n, targets->label);
            status = check_labels(batch, h, n, err);
        }
        if (status != BP_OK) {
            return status;
        }
    }
    bp_exec_feed(exec, load, batch);
    return BP_OK;
}

void bp_batch_expect(struct bp_batch *batch, const uint32_t *rows, int n)
{
    batch->next = rows;
    batch->nnext = n;
}
