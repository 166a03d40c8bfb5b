/* optimizer.h: from gradients to the next parameters.
 *
 * The update rules of PyTorch, over flat ranges of the model's state block:
 *   sgd, adam, adamw: see struct bp_kernels (kernels.h) for the exact expressions.
 * Everything that depends on the step number (bias corrections) is computed in double from the step number alone,
 * so an optimizer has no state besides its slots.
 *
 * Threads: called by the leader of a team; the work is shared out to the team in chunks of a fixed size.
 */
#ifndef BP_TRAIN_OPTIMIZER_H
#define BP_TRAIN_OPTIMIZER_H

#include "graph/model.h"

enum bp_optimizer_kind { BP_SGD, BP_ADAM, BP_ADAMW, BP_OPTIMIZER_COUNT };

struct bp_optimizer {
    enum bp_optimizer_kind kind;
    double lr;
    double momentum, dampening; /* sgd */
    bool nesterov;              /* sgd */
    double beta1, beta2, eps;   /* adam, adamw */
    double weight_decay;        /* sgd, adam: added to the gradient; adamw: decoupled */
};

const char *bp_optimizer_name(enum bp_optimizer_kind kind);

/* How many slots of the model the optimizer uses (0 to BP_SLOTS_MAX). */
int bp_optimizer_slots(const struct bp_optimizer *optimizer);

/* Adds the gradients of the layers' l1 and l2 penalties (l2: 2 l2 p, l1: l1 sign(p), as Keras) to the gradients and
 * returns the sum of squares of the gradients over trainable tensors, in double, in a fixed order: non-finite when
 * any gradient is. */
double bp_optimizer_prepare(struct bp_model *model, struct bp_team *team);

/* One update with rate lr; step counts from 1; gradients are multiplied by grad_scale first. Frozen tensors are
 * left alone. The caller calls bp_model_pack afterwards. */
void bp_optimizer_step(const struct bp_optimizer *optimizer, struct bp_model *model, struct bp_team *team, double lr,
                       double grad_scale, uint64_t step);

/* The sum of the layers' penalties: sum of l1 |p| + l2 p^2. */
double bp_optimizer_penalty(const struct bp_model *model);

#endif
