/* model.h: the numbers of a network: parameters, gradients, optimizer slots, running statistics.
 *
 * They are one block, [params | grads | slot 0 | slot 1 | ... | statistics], each range in the order of the graph's
 * tensors and aligned to a cache line, so that the optimizer, clipping and checkpoints are loops over flat ranges.
 * Beside it the model keeps packed copies of the weights for the matrix kernels; bp_model_pack renews them after
 * the parameters changed. Packed copies are derived and never stored.
 *
 * Threads: one writer at a time; executions only read it during a pass, but for the running statistics (exec.h).
 */
#ifndef BP_GRAPH_MODEL_H
#define BP_GRAPH_MODEL_H

#include "base/real.h"
#include "base/team.h"
#include "graph/graph.h"

#define BP_SLOTS_MAX 3

/* A weight in the packed form of one product. */
struct bp_packed {
    int tensor;
    bool backward;
    int k, n; /* the matrix (k, n), element (p, j) at tensor[p * row + j * col] */
    size_t row, col;
    size_t offset; /* elements from the start of the packed range */
    int panels;    /* panels of BP_PANEL columns that one task packs */
    int first_task;
};

struct bp_model {
    const struct bp_graph *graph; /* borrowed; outlives the model */
    size_t nparams, nstats;       /* elements */
    int nslots;
    bp_real *params;              /* nparams */
    bp_real *grads;               /* nparams; NULL in a model without gradients */
    bp_real *slots[BP_SLOTS_MAX]; /* nparams each */
    bp_real *stats;               /* nstats */
    bp_real *packed;              /* packed weights, laid out by the model */
    size_t *packed_forward;       /* per tensor: offset in packed of the panels of the forward product */
    size_t *packed_backward;      /* per tensor: the same for the backward product, SIZE_MAX where never needed */
    int npacked, npack_tasks;
    struct bp_packed *packed_list; /* what bp_model_pack does */
    void *block;                   /* the one allocation behind all of it, this struct included */
};

/* All zero. nslots 0 and training false for a model that only predicts (no grads, no backward panels). */
bp_status bp_model_new(const struct bp_graph *graph, bool training, int nslots, struct bp_model **ret,
                       struct bp_error *err);
void bp_model_free(struct bp_model *model);

/* Renews the packed weights from params. Call after every change of params and before the next pass. */
void bp_model_pack(struct bp_model *model, struct bp_team *team);

/* Bytes that bp_model_new would take; BP_LIMIT on overflow. */
bp_status bp_model_estimate(const struct bp_graph *graph, bool training, int nslots, size_t *ret);

#endif
