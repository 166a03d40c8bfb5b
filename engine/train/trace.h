/* trace.h: one training step laid open: every number that backpropagation computes on the way.
 *
 * Runs the double build of the ops, step by step as the trainer does: forward, loss, the error signals backward, the
 * parameter gradients, the update; and then the forward pass once more, to see what the update was good for. Nothing
 * is thrown away, so a person can follow the four steps with a pencil.
 *
 * What it is not: a trainer. It knows no batches, no schedules, no checkpoints, and its numbers are doubles: a job's
 * floats agree with them to rounding.
 *
 * Threads: runs on the calling thread. Its interface is in plain doubles: callers are not compiled with BP_DOUBLE.
 */
#ifndef BP_TRAIN_TRACE_H
#define BP_TRAIN_TRACE_H

#include "graph/graph.h"
#include "train/optimizer.h"
#include "train/schedule.h"

struct bp_trace_options {
    struct bp_optimizer optimizer;
    struct bp_schedule
        schedule;           /* each step is an epoch of its own; plateau, which looks at results, is BP_INVALID */
    int64_t epochs;         /* of the schedule: so many, or as many as there are steps */
    double clip_grad_norm;  /* global norm; 0 for none */
    double clip_grad_value; /* each element, after that; 0 for none */
    uint64_t seed;          /* of dropout */
    int rows;               /* at least 1: all of them are one batch */
    int64_t steps;          /* at least 1: the last one is laid open, those before it are only done */
    bool freeze_biases;     /* gradients of biases are computed, but not applied: so do some textbooks */
    bool (*cancelled)(void *ctx); /* asked now and then; true ends it with BP_STOPPED; NULL: never */
    void *ctx;
};

/* Targets of a head: labels (rows) where its loss takes classes, else values (rows, outputs). */
struct bp_trace_target {
    const int32_t *label;
    const double *value;
    const float *weight; /* of each row; NULL: all 1 */
    double scale;        /* that the values were multiplied by (bp_exec_target_scale); 1 for none */
};

/* What the step computed. All arrays are owned by the trace; rows come one after the other. */
struct bp_trace {
    int nnodes, nheads;
    double loss, loss_after;           /* mean over the rows, summed over the heads; of the data alone */
    double penalty, penalty_after;     /* of l1 and l2: what is minimised is the sum of both */
    double gradient_norm;              /* of all gradients together */
    double gradient_scale;             /* what clipping by the norm multiplied them by; 1 for none */
    double rate;                       /* of the step, by the schedule */
    double **value;                    /* per node: (rows, elements), as the forward pass left it */
    double **delta;                    /* per node: the error signal dL/dvalue; NULL where nothing below wants it */
    double **row_loss;                 /* per head: (rows) */
    double **output_after;             /* per head: (rows, outputs) after the update */
    double *before, *gradient, *after; /* the parameters, dL/dparameter with penalties, and the updated parameters */
    void *block;
};

/* params is graph->nparams numbers to begin with, stats graph->nstats, input (rows, elements of the input), target one
 * a head. BP_NONFINITE: a loss or a gradient is no number; where is "loss" or "gradient". BP_INVALID, BP_LIMIT,
 * BP_NOMEM, BP_STOPPED. */
bp_status bp_trace_new(const struct bp_graph *graph, const struct bp_trace_options *options, const double *params,
                       const double *stats, const double *input, const struct bp_trace_target *target,
                       struct bp_trace **ret, struct bp_error *err);
void bp_trace_free(struct bp_trace *trace); /* NULL is fine */

#endif
