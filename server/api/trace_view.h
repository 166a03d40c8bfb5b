/* trace_view.h: a trace as people and programs read it: what trace.c and trace_text.c share.
 *
 * A layer of the spec may be two nodes of the graph, a weighted sum z and its activation a; here they are one again.
 *
 * Threads: pure functions.
 */
#ifndef BP_API_TRACE_VIEW_H
#define BP_API_TRACE_VIEW_H

#include "api/common.h"
#include "api/worked.h"

struct bp_trace_layer {
    const struct bp_node *node; /* with the name, the type and the parameters */
    int z;                      /* node of the weighted sum; -1: the layer has no parameters */
    int a;                      /* node of the activation; -1: linear */
    int last;                   /* node of the layer's value */
};

/* The layer that begins at node `at` (from 1). */
struct bp_trace_layer bp_trace_layer_at(const struct bp_graph *graph, int at);

/* What an output means: the probabilities of cross_entropy (softmax) and bce (sigmoid), else the values themselves.
 * n numbers from x to y. */
void bp_trace_prediction(enum bp_loss loss, const double *x, int n, double *y);

/* The trace as a worksheet. */
void bp_trace_text(struct bp_text *text, const struct bp_worked *worked, const struct bp_trace *trace,
                   const struct bp_trace_options *options);

#endif
