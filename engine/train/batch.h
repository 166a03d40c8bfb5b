/* batch.h: filling an execution's input and targets with rows of a source.
 *
 * Private to train/.
 *
 * Threads: called by the leader of a team; the rows are loaded by the threads of the pass.
 */
#ifndef BP_TRAIN_BATCH_H
#define BP_TRAIN_BATCH_H

#include "graph/exec.h"
#include "train/source.h"

/* What a pass needs to load its rows. */
struct bp_batch {
    struct bp_exec *exec;
    const struct bp_graph *graph;
    const struct bp_source *source;
    const uint32_t *rows, *next; /* next: see bp_batch_expect */
    int nnext;
};

/* Gathers labels and weights of rows[0..n) into exec, and has its next pass, a bp_exec_pass of these n rows, gather the
 * rest: batch, filled here, and rows must live until then. BP_INVALID when a row has no class where its head needs one
 * (the message names the row): the batch must not be run then. */
bp_status bp_batch_load(struct bp_batch *batch, struct bp_exec *exec, const struct bp_graph *graph,
                        const struct bp_source *source, const uint32_t *rows, int n, struct bp_error *err);

/* Says which rows the batch after this one begins with: who loads a row of this one in the pass asks the memory for the
 * same row of that one, which then has a whole step to come into its cache. */
void bp_batch_expect(struct bp_batch *batch, const uint32_t *rows, int n);

#endif
