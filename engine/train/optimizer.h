/* optimizer.h: from gradients to the next parameters.
 *
 * The update rules of PyTorch, over flat ranges of the model's state block; lamb and lion, which PyTorch does not
 * have, are those of You et al. (2019) and Chen et al. (2023). The exact expressions are in kernels.h: struct bp_kernels
 * for sgd and adam, bp_update_kernel for the others. lamb takes its rate times |p| / |u| for each tensor p and its
 * direction u, where neither norm is 0.
 *
 * Everything that depends on the step number (bias corrections) is computed in double from the step number alone,
 * so an optimizer has no state besides its slots.
 *
 * Threads: called by the leader of a team; the work is shared out to the team in chunks of a fixed size.
 */
#ifndef BP_TRAIN_OPTIMIZER_H
#define BP_TRAIN_OPTIMIZER_H

#include "graph/model.h"
#include "kernels/kernels.h"

#include <stdbool.h>

enum bp_optimizer_kind {
    BP_SGD,
    BP_ADAM,
    BP_ADAMW,
    BP_RMSPROP,
    BP_ADAGRAD,
    BP_ADADELTA,
    BP_NADAM,
    BP_ADAMAX,
    BP_LAMB,
    BP_LION,
    BP_OPTIMIZER_COUNT
};

struct bp_optimizer {
    enum bp_optimizer_kind kind;
    double lr;
    double momentum, dampening; /* sgd; rmsprop: momentum */
    bool nesterov;              /* sgd */
    double beta1, beta2, eps;   /* the adams, lamb, lion (no eps); the others: eps */
    double weight_decay;        /* added to the gradient; adamw, lion: decoupled; lamb: part of the direction */
    bool amsgrad;               /* adam, adamw */
    double alpha;               /* rmsprop, adadelta (its rho): decay of the mean square */
    bool centered;              /* rmsprop */
    double initial_accumulator; /* adagrad */
    double momentum_decay;      /* nadam */
};

const char *bp_optimizer_name(enum bp_optimizer_kind kind);

/* How many slots of the model the optimizer uses (0 to BP_SLOTS_MAX). */
int bp_optimizer_slots(const struct bp_optimizer *optimizer);

/* Adds the gradients of the layers' l1 and l2 penalties (l2: 2 l2 p, l1: l1 sign(p), as Keras) to the gradients and
 * returns the sum of squares of the gradients over trainable tensors, in double, in a fixed order: non-finite when
 * any gradient is. */
double bp_optimizer_prepare(struct bp_model *model, struct bp_team *team);

/* One update with rate lr; step counts from 1; gradients are multiplied by grad_scale first. Frozen tensors are
 * left alone. Renews the packed weights as well. */
void bp_optimizer_step(const struct bp_optimizer *optimizer, struct bp_model *model, struct bp_team *team, double lr,
                       double grad_scale, uint64_t step);

/* The same update of a step, piece by piece, as a pass makes the gradients: begin, then take for each piece, by any
 * thread (a bp_exec_update.take; arg is the struct). Only where by_pieces: lamb needs the norms of whole tensors first.
 * Penalties and clipping need all gradients first as well: they are not in it. */
struct bp_optimizer_update {
    const struct bp_optimizer *optimizer; /* borrowed, as the model */
    struct bp_model *model;
    struct bp_update rule[2]; /* of tensors without and with weight decay */
};

bool bp_optimizer_by_pieces(const struct bp_optimizer *optimizer);
void bp_optimizer_begin(const struct bp_optimizer *optimizer, struct bp_model *model, double lr, double grad_scale,
                        uint64_t step, struct bp_optimizer_update *ret);
void bp_optimizer_take(void *arg, const struct bp_piece *piece, bp_real *gradient, size_t gradient_row);

/* The sum of the layers' penalties: sum of l1 |p| + l2 p^2. */
double bp_optimizer_penalty(const struct bp_model *model);

#endif
