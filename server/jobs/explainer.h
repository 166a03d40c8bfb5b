/* explainer.h: a trained network made ready to be asked "why": backpropagation of the loss of single rows, in
 * prediction mode, down to the input.
 *
 * Dropout passes everything on and batch normalization uses its running statistics, as in a prediction: so what is
 * differentiated is exactly the function that predicts. Nothing of the stored network changes.
 *
 * Threads: belongs to one caller at a time.
 */
#ifndef BP_JOBS_EXPLAINER_H
#define BP_JOBS_EXPLAINER_H

#include "jobs/predictor.h"

struct bp_explainer {
    struct bp_network network; /* its own: with frozen normalization */
    struct bp_model *model;
    struct bp_exec *exec; /* one row, keeps everything */
    int batch;
    struct bp_exec *nudge; /* `batch` rows, forward only */
};

/* The network of a choice with the weights that the predictor has loaded. BP_NOMEM, BP_LIMIT, BP_INTERNAL. */
bp_status bp_explainer_make(const struct bp_choice *choice, const struct bp_predictor *predictor,
                            struct bp_explainer *ret, struct bp_error *err);
void bp_explainer_done(struct bp_explainer *explainer);

#endif
