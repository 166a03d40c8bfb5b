/* explanation.h: one row being explained: what explain.c computes and explanation.c shows. */
#ifndef BP_API_EXPLANATION_H
#define BP_API_EXPLANATION_H

#include "app.h"
#include "jobs/explainer.h"

struct bp_explanation {
    struct bp_app *app;
    struct bp_predictor *predictor;
    struct bp_explainer explainer;
    const json_t *row, *target;
    uint8_t *bytes; /* the row as a table would hold it */
    struct bp_source source;
    bool has_source;
    const struct bp_graph *graph;
    float *outputs; /* of the prediction */
    float *x;       /* the row as the network sees it: inputs numbers */
    bool assumed;   /* the target is the predicted class */
    double unit;    /* factor from the loss of the pass to the one that is reported */
    double loss;    /* of the pass */
};

/* Error signals of the layers, from the loss to the input. New references or NULL, as the others. */
json_t *bp_explanation_layers(const struct bp_explanation *e);
/* Gradients of the columns, the most influential first. */
json_t *bp_explanation_columns(const struct bp_explanation *e);
/* The nudge test: predicted and actual change of the loss for a small change of each number column. */
json_t *bp_explanation_nudges(const struct bp_explanation *e);

#endif
