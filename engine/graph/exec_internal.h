/* exec_internal.h: what exec.c makes and exec_run.c runs. Inside the graph floor only.
 *
 * Threads: see exec.h.
 */
#ifndef BP_GRAPH_EXEC_INTERNAL_H
#define BP_GRAPH_EXEC_INTERNAL_H

#include "graph/plan.h"

struct bp_exec {
    struct bp_plan *plan;   /* owned */
    struct bp_model *model; /* borrowed */
    bp_real *arena;         /* plan->arena elements; in the block of this struct, as all below */
    bp_real *scratch;       /* threads times scratch_thread elements: local storages, then the ops' scratch */
    size_t scratch_thread;
    struct bp_targets *targets; /* per head */
    bp_real **losses;           /* per head: (capacity), loss of each row */
    bp_real *scale;             /* per head: of the pass going on, weight / sum of the rows' weights */
    bp_exec_load *load;         /* of the rows of the next pass; NULL where they are there */
    void *load_arg;
    double *weights;    /* per head: the sum of the rows' weights in the last pass */
    double *mean_loss;  /* per head: see bp_exec_mean_loss */
    bp_real *parameter; /* per head: of its loss, in the unit of the targets (bp_exec_target_scale) */
    const bp_real **forward_panels, **backward_panels; /* per tensor, NULL where there are none */
    int nown;                                          /* backward panels that the model does not keep */
    struct bp_packed *own;                             /* which: offsets into own_panels */
    bp_real *own_panels;
    int ndead;
    int *dead; /* trainable tensors that no loss depends on: a pass sets their gradients to zero */
    int64_t flops_forward, flops_training; /* of a row */
    struct bp_exec_update update;          /* of the next pass; admit is NULL where it makes none */
    bool bounded;                          /* every parameter gradient has a bound */
    int nsums;                             /* chunks of rows after the first whose sums have room of their own */
    bp_real *sums;                         /* of each of these, the gradients of all parameters */
    double *squares;                       /* per thread and instruction of parameters: of x and of dy */
    uint64_t *ticks;                       /* of a profile: see bp_exec_profile; borrowed, usually NULL */
};

/* exec_update.c: whether the pass going on updates: asks the hook with the loss and the bound of the gradients. */
bool bp_exec_is_admitted(struct bp_exec *exec, struct bp_team *team, int rows, double loss);

#endif
