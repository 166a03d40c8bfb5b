/* gradcheck.h: proof of the gradients: backpropagation against numerical differentiation.
 *
 * Runs the double build of the ops. For each parameter tensor (all elements up to a limit, else a random choice) the
 * analytic gradient g is compared with the central difference n = (L(p + h) - L(p - h)) / 2h, h chosen by the size
 * of p. Relative error |g - n| / max(|g|, |n|, floor). Elements whose difference changes with h (a kink between the
 * two points: relu at 0) are stepped around: counted, not compared.
 *
 * Threads: runs on the calling thread.
 */
#ifndef BP_TRAIN_GRADCHECK_H
#define BP_TRAIN_GRADCHECK_H

#include "graph/graph.h"

struct bp_gradcheck_tensor {
    char name[BP_NAME_MAX + 32]; /* "input" for the gradient by the input */
    int64_t checked, kinks;      /* elements compared, and stepped around */
    double worst;                /* largest relative error */
    double analytic, numeric;    /* of that element */
    int64_t element;
};

struct bp_gradcheck_options {
    uint64_t seed;                /* of parameters, inputs, targets, dropout and the choice of elements */
    int rows;                     /* rows of the random batch */
    int64_t max_elements;         /* per tensor; 0 for all */
    bool (*cancelled)(void *ctx); /* asked at each element; true ends it with BP_STOPPED; NULL: never */
    void *ctx;
};

/* Fills ret (capacity tensors: the graph's parameter tensors, then the input); *ret_count of them. Inputs and targets
 * are random. seconds_backward and seconds_numeric say what one pass with backward (the best of five) and the whole
 * numeric side cost. */
bp_status bp_gradcheck(const struct bp_graph *graph, const struct bp_gradcheck_options *options,
                       struct bp_gradcheck_tensor *ret, int capacity, int *ret_count, double *ret_seconds_backward,
                       double *ret_seconds_numeric, struct bp_error *err);

#endif
