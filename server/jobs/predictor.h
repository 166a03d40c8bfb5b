/* predictor.h: trained networks, ready to predict.
 *
 * A predictor is the network of a job with the weights of one checkpoint, loaded and packed. The last few are kept
 * (BP_PREDICTORS_MAX, least recently used goes first), so that a second prediction costs no more than the arithmetic.
 * A job that still trains is no exception: it is predicted with its newest checkpoint, and a newer one makes a new
 * predictor.
 *
 * Nothing is predicted that is not a finite number: such a pass fails with BP_NONFINITE.
 *
 * Threads: all functions may be called from any thread. A predictor is shared by those that hold it; each takes a
 * bench (an execution with its buffers) of its own for a while.
 */
#ifndef BP_JOBS_PREDICTOR_H
#define BP_JOBS_PREDICTOR_H

#include "graph/exec.h"
#include "jobs/trained.h"

#define BP_PREDICTORS_MAX 4 /* loaded at a time, beside those in use */
#define BP_PREDICT_BATCH                                                                                             \
    256 /* rows of one pass at most; fewer of a network that would need too much memory for them */
#define BP_PREDICT_BENCHES 4 /* idle executions that a predictor keeps */

struct bp_predictors;

struct bp_predictor {
    char job[BP_ID_SIZE], checkpoint[BP_ID_SIZE];
    bool best;
    int64_t epoch, step; /* of the parameters: of the best epoch where these are the best */
    struct bp_network network;
    struct bp_model *model;
    int batch; /* rows of one pass */
    /* owned by predictor.c, under the mutex of struct bp_predictors */
    struct bp_predictor *next; /* most recently used first */
    int holders;               /* requests, and the cache itself */
    int nbenches;
    struct bp_exec *benches[BP_PREDICT_BENCHES];
};

bp_status bp_predictors_new(struct bp_store *store, struct bp_predictors **ret, struct bp_error *err);
void bp_predictors_free(struct bp_predictors *predictors); /* when no predictor is held any more; NULL is fine */

/* The predictor of what bp_choice_make chose. BP_CORRUPT, BP_MISMATCH, BP_NOMEM, BP_INTERNAL. Give it back. */
bp_status bp_predictors_get(struct bp_predictors *predictors, const struct bp_choice *choice,
                            struct bp_predictor **ret, struct bp_error *err);
void bp_predictors_put(struct bp_predictors *predictors, struct bp_predictor *predictor);

/* Rows of one pass over a network without training: BP_PREDICT_BATCH, or as many as an execution of some size holds, but
 * at least 2. */
int bp_predict_batch(const struct bp_graph *graph);

/* An execution of predictor->batch rows, for one caller at a time. */
bp_status bp_predictor_bench(struct bp_predictors *predictors, struct bp_predictor *predictor, struct bp_exec **ret,
                             struct bp_error *err);
void bp_predictor_bench_put(struct bp_predictors *predictors, struct bp_predictor *predictor, struct bp_exec *exec);

/* Predicts the first n rows of a source. outputs (owned by the caller) has room for n rows of the outputs of all
 * heads, head after head within a row: probabilities of the classes (cross_entropy, kl_div) or of each output (bce),
 * margins (hinge), rates (poisson), or values in the target's own unit; of an autoencoder the reconstruction as the
 * network has it, and then its mean squared error. BP_NONFINITE: where is the pointer of the row. */
bp_status bp_predictor_run(struct bp_predictors *predictors, struct bp_predictor *predictor,
                           const struct bp_source *source, int n, float *outputs, struct bp_error *err);

/* Outputs of all heads: the width of a row of bp_predictor_run. */
int bp_predictor_width(const struct bp_predictor *predictor);
int bp_predictor_head_width(const struct bp_predictor *predictor, int head); /* its part of them */

#endif
