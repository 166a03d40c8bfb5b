/* model.h: the numbers of a network: parameters, gradients, optimizer slots, running statistics.
 *
 * They are one block, [params | grads | slot 0 | slot 1 | ... | statistics], each range in the order of the graph's
 * tensors and aligned to a cache line, so that the optimizer, clipping and checkpoints are loops over flat ranges.
 * Beside it the model keeps packed copies of the weights for the matrix kernels; bp_model_pack renews them after
 * the parameters changed. Packed copies are derived and never stored.
 *
 * Threads: one writer at a time; executions only read it during a pass, but for the gradients, the running statistics,
 * and what a pass updates (exec.h).
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
};

/* A share of the parameters: what a thread updates, and then packs while it is in the cache. A share is a part of one
 * tensor (of a matrix whole rows, BP_PANEL at a time, so that no two shares meet in a panel) or some whole tensors. */
struct bp_share {
    size_t first, end; /* elements of the flat range */
    int packed;        /* the first of the packed copies that may have something of it */
};

/* Neighbouring shares of one large tensor, or a share of small ones. Each group is divided evenly between the threads,
 * and so is the gradient of a layer: the rows of a matrix stay with the thread whose cache has them, from the gradient
 * through the update to the packed copies. */
struct bp_share_group {
    int first, end;
};

/* A piece of a tensor: a rectangle of a matrix (of whatever has rows), or a run of a vector, which is one row. A matrix
 * is cut at multiples of BP_PANEL both ways, so that no two pieces meet in a row of a panel. */
struct bp_piece {
    int tensor;
    int row, rows, column, columns;
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
    int npacked, nshares, ngroups;
    struct bp_packed *packed_list;
    struct bp_share *shares; /* of the whole flat range, ascending */
    struct bp_share_group *groups;
    bool past;   /* the packed copies are too many for a cache to have them when they are read: written past it */
    void *block; /* the one allocation behind all of it, this struct included */
};

/* All zero. nslots 0 and training false for a model that only predicts (no grads, no backward panels). */
bp_status bp_model_new(const struct bp_graph *graph, bool training, int nslots, struct bp_model **ret,
                       struct bp_error *err);
void bp_model_free(struct bp_model *model);

/* Renews the packed weights from params. Call after every change of params and before the next pass. */
void bp_model_pack(struct bp_model *model, struct bp_team *team);

/* The same for one share, on the calling thread. */
void bp_model_pack_share(struct bp_model *model, const struct bp_share *share);

/* The same for a piece; others see it after an end by the same thread. */
void bp_model_pack_piece(struct bp_model *model, const struct bp_piece *piece);
void bp_model_pack_end(const struct bp_model *model);

/* The shares of a group that belong to the part'th of `parts` threads. */
struct bp_share_group bp_model_part(const struct bp_model *model, int group, int parts, int part);

/* How many threads of a team the whole range of parameters is worth. */
int bp_model_parts(const struct bp_model *model, const struct bp_team *team);

/* Bytes that bp_model_new would take; BP_LIMIT on overflow. */
bp_status bp_model_estimate(const struct bp_graph *graph, bool training, int nslots, size_t *ret);

#endif
