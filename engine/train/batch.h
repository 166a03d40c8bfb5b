/* batch.h: filling an execution's input and targets with rows of a source.
 *
 * Private to train/.
 *
 * Threads: called by the leader of a team; blocks of rows are shared out to it.
 */
#ifndef BP_TRAIN_BATCH_H
#define BP_TRAIN_BATCH_H

#include "graph/exec.h"
#include "train/source.h"

/* Gathers rows[0..n) and their targets into exec. BP_INVALID when a row has no class where its head needs one (the
 * message names the row): the batch must not be run then. */
bp_status bp_batch_load(struct bp_exec *exec, struct bp_team *team, const struct bp_graph *graph,
                        const struct bp_source *source, const uint32_t *rows, int n, struct bp_error *err);

#endif
