/* metric.h: how good predictions are, in the units of the target.
 *
 * Accumulated batch after batch in double, row after row in ascending order: the result does not depend on batch
 * sizes or threads.
 *   accuracy   share of rows whose largest logit (the first of equals) is the label; bce, hinge: of outputs on the
 *              right side of 0
 *   mse, rmse, mae, r2 = 1 - SS_res / SS_tot, over all outputs together where a head has several; r2 of a constant
 *              target is NaN; poisson: of the rate e^x
 *   the others are in scores.h
 *
 * Threads: an accumulator belongs to one thread.
 */
#ifndef BP_TRAIN_METRIC_H
#define BP_TRAIN_METRIC_H

#include "graph/exec.h"
#include "train/source.h"

enum bp_metric {
    BP_METRIC_LOSS,
    BP_METRIC_ACCURACY,
    BP_METRIC_MSE,
    BP_METRIC_RMSE,
    BP_METRIC_MAE,
    BP_METRIC_R2,
    BP_METRIC_TOP_K, /* from here to AUC: scores.h */
    BP_METRIC_PRECISION_MACRO,
    BP_METRIC_RECALL_MACRO,
    BP_METRIC_F1_MACRO,
    BP_METRIC_AUC,
    BP_METRIC_COUNT
};

const char *bp_metric_name(enum bp_metric metric); /* "loss", "accuracy", ... */
bool bp_metric_maximized(enum bp_metric metric);   /* larger is better: accuracy, r2 */
/* Whether the metric can be computed for a head with this loss. */
bool bp_metric_applies(enum bp_metric metric, enum bp_loss loss);

/* Plain old data: it is copied into checkpoints as it is (all fields are doubles on purpose). */
struct bp_accumulator {
    double rows;              /* rows seen */
    double weight;            /* their weights */
    double loss;              /* sum of weight * loss, in the target's units */
    double correct;           /* accuracy: right rows, or right outputs */
    double outputs;           /* outputs seen (bce and values) */
    double squared, absolute; /* sums of errors in the target's units */
    double mean, deviation;   /* Welford's running mean and sum of squared deviations of the targets */
};

void bp_accumulator_reset(struct bp_accumulator *a);

/* Takes in the first `rows` rows of the last pass of exec for `head`: the loss, and what the wanted metrics need (a bit
 * set of enum bp_metric; the same for all rows). unit is the factor from a standardized target to the target's own unit
 * (1 / target->scale; 1 for classes). */
void bp_accumulator_add(struct bp_accumulator *a, struct bp_exec *exec, const struct bp_head *head, int head_index,
                        int rows, double unit, unsigned wanted);

/* The factor from a loss of standardized targets to the loss in the target's own units (unit as above). */
double bp_loss_unit(enum bp_loss loss, double unit);

double bp_accumulator_value(const struct bp_accumulator *a, enum bp_metric metric); /* NaN for no rows */

#endif
