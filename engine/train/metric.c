/* metric.c: metrics and their accumulators.
 *
 * One accumulator holds what every metric needs; what nobody asks for is not taken in, for it can cost as much as a
 * layer. Errors are taken in float, as the network made them, and summed in double. With several outputs, mse, mae and
 * r2 pool all outputs of all rows: one mean and one deviation over them. Errors are not weighted by the rows; the loss
 * is. Sums are taken in copies that nobody else can see, so that they stay in registers.
 *
 * It refuses to judge: a metric that is undefined (no rows, a constant target) is NaN.
 */
#include "train/metric.h"

#include "base/scalar.h"

#include <math.h>
#include <string.h>

#define LOSSES(loss) (1u << (loss))
#define OF_LABELS (LOSSES(BP_LOSS_CROSS_ENTROPY) | LOSSES(BP_LOSS_MULTI_MARGIN))
#define OF_CLASSES (OF_LABELS | LOSSES(BP_LOSS_BCE) | LOSSES(BP_LOSS_HINGE))
#define OF_VALUES                                                                                                    \
    (LOSSES(BP_LOSS_MSE) | LOSSES(BP_LOSS_MAE) | LOSSES(BP_LOSS_HUBER) | LOSSES(BP_LOSS_POISSON) |                   \
     LOSSES(BP_LOSS_QUANTILE))
#define ERRORS (1u << BP_METRIC_MSE | 1u << BP_METRIC_RMSE | 1u << BP_METRIC_MAE | 1u << BP_METRIC_R2)

static const struct {
    const char *name;
    bool maximized;
    unsigned losses; /* heads it applies to */
} metrics[BP_METRIC_COUNT] = {
    [BP_METRIC_LOSS] = {"loss", false, ~0u},
    [BP_METRIC_ACCURACY] = {"accuracy", true, OF_CLASSES},
    [BP_METRIC_MSE] = {"mse", false, OF_VALUES},
    [BP_METRIC_RMSE] = {"rmse", false, OF_VALUES},
    [BP_METRIC_MAE] = {"mae", false, OF_VALUES},
    [BP_METRIC_R2] = {"r2", true, OF_VALUES},
    [BP_METRIC_TOP_K] = {"top_k", true, OF_LABELS},
    [BP_METRIC_PRECISION_MACRO] = {"precision_macro", true, OF_CLASSES},
    [BP_METRIC_RECALL_MACRO] = {"recall_macro", true, OF_CLASSES},
    [BP_METRIC_F1_MACRO] = {"f1_macro", true, OF_CLASSES},
    [BP_METRIC_AUC] = {"auc", true, OF_CLASSES},
};

const char *bp_metric_name(enum bp_metric metric)
{
    return metrics[metric].name;
}

bool bp_metric_maximized(enum bp_metric metric)
{
    return metrics[metric].maximized;
}

bool bp_metric_applies(enum bp_metric metric, enum bp_loss loss)
{
    return (metrics[metric].losses & LOSSES(loss)) != 0;
}

void bp_accumulator_reset(struct bp_accumulator *a)
{
    memset(a, 0, sizeof *a);
}

double bp_loss_unit(enum bp_loss loss, double unit)
{
    switch (loss) {
    case BP_LOSS_MSE:
    case BP_LOSS_HUBER:
        return unit * unit;
    case BP_LOSS_MAE:
    case BP_LOSS_QUANTILE:
        return unit;
    default:
        return 1.0;
    }
}

/* Whether the label's logit is the largest, and the first of equals. A NaN is never right. Without a branch on the label:
 * nothing could predict it. */
static bool is_right(const float *x, int n, int32_t label)
{
    float best = x[label];
    int beaten = best != best;

    for (int j = 0; j < n; j++) {
        beaten |= (!(x[j] < best) & (j < label)) | (!(x[j] <= best) & (j > label));
    }
    return beaten == 0;
}

static void add_classes(struct bp_accumulator *a, const float *x, const int32_t *label, int rows, int n)
{
    int correct = 0;

    for (int r = 0; r < rows; r++) {
        correct += is_right(x + (size_t)r * (size_t)n, n, label[r]);
    }
    a->correct += correct;
}

static void add_sides(struct bp_accumulator *a, const float *x, const float *target, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        a->correct += x[i] == x[i] && (x[i] > 0.0f) == (target[i] > 0.5f);
    }
    a->outputs += (double)count;
}

static void add_errors(struct bp_accumulator *a, const float *x, const float *target, size_t count, double unit,
                       bool logarithm)
{
    double squared = a->squared, absolute = a->absolute;

    for (size_t i = 0; i < count; i++) {
        double y = logarithm ? bp_exp((double)x[i]) : (double)x[i];
        double e = (y - (double)target[i]) * unit;

        squared += e * e;
        absolute += fabs(e);
    }
    a->squared = squared;
    a->absolute = absolute;
}

/* Welford's recurrence keeps the sum of squared deviations exact where a sum of squares would cancel. */
static void add_deviations(struct bp_accumulator *a, const float *target, size_t count, double unit)
{
    double seen = a->outputs, mean = a->mean, deviation = a->deviation;

    for (size_t i = 0; i < count; i++) {
        double t = (double)target[i] * unit, d = t - mean;

        seen += 1.0;
        mean += d / seen;
        deviation += d * (t - mean);
    }
    a->mean = mean;
    a->deviation = deviation;
}

static void add_loss(struct bp_accumulator *a, const float *weight, const float *loss, int rows, double loss_unit)
{
    double weights = a->weight, sum = a->loss;

    for (int r = 0; r < rows; r++) {
        weights += (double)weight[r];
        sum += (double)weight[r] * (double)loss[r] * loss_unit;
    }
    a->rows += rows;
    a->weight = weights;
    a->loss = sum;
}

void bp_accumulator_add(struct bp_accumulator *a, struct bp_exec *exec, const struct bp_head *head, int head_index,
                        int rows, double unit, unsigned wanted)
{
    const struct bp_targets *targets = bp_exec_targets(exec, head_index);
    const float *x = bp_exec_output(exec, head_index);
    size_t count = (size_t)rows * (size_t)head->outputs;

    add_loss(a, targets->weight, bp_exec_row_losses(exec, head_index), rows, bp_loss_unit(head->loss, unit));
    wanted &= LOSSES(head->loss) & OF_VALUES ? ERRORS : 1u << BP_METRIC_ACCURACY;
    if (wanted == 0) {
        return;
    }
    if (LOSSES(head->loss) & OF_LABELS) {
        add_classes(a, x, targets->label, rows, head->outputs);
    } else if (LOSSES(head->loss) & OF_CLASSES) {
        add_sides(a, x, targets->value, count);
    } else if (LOSSES(head->loss) & OF_VALUES) {
        add_errors(a, x, targets->value, count, unit, head->loss == BP_LOSS_POISSON);
        if (wanted & 1u << BP_METRIC_R2) {
            add_deviations(a, targets->value, count, unit);
        }
        a->outputs += (double)count;
    }
}

double bp_accumulator_value(const struct bp_accumulator *a, enum bp_metric metric)
{
    if (a->rows == 0.0) {
        return NAN;
    }
    switch (metric) {
    case BP_METRIC_LOSS:
        return a->loss / a->weight;
    case BP_METRIC_ACCURACY:
        return a->correct / (a->outputs > 0.0 ? a->outputs : a->rows);
    case BP_METRIC_MSE:
        return a->squared / a->outputs;
    case BP_METRIC_RMSE:
        return sqrt(a->squared / a->outputs);
    case BP_METRIC_MAE:
        return a->absolute / a->outputs;
    case BP_METRIC_R2:
        return a->deviation > 0.0 ? 1.0 - a->squared / a->deviation : NAN;
    default: /* of scores.h */
        return NAN;
    }
}
