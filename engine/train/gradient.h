/* gradient.h: what happens to the gradients between the backward pass and the update.
 *
 * Elementwise work over the flat range of the gradients, so the bits do not depend on how it is shared out.
 *
 * Threads: called by the leader of a team; the work is shared out to the team.
 */
#ifndef BP_TRAIN_GRADIENT_H
#define BP_TRAIN_GRADIENT_H

#include "graph/model.h"

/* Adds up the gradients of micro-batches, in their order: after the pass of each, with its share of the step's rows.
 * sum has nparams elements; after the last one the model's gradients are the sum of share * gradients, the mean over
 * all rows. Processes that each work on some micro-batches of a step would meet here: what they exchange is sum. */
void bp_gradient_accumulate(struct bp_model *model, struct bp_team *team, float *sum, double share, bool first,
                            bool last);

/* Multiplies the gradients by factor and draws each to -limit .. limit. */
void bp_gradient_clip(struct bp_model *model, struct bp_team *team, double factor, double limit);

#endif
