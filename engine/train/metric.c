/* metric.c: metrics and their accumulators.
 *
 * One accumulator holds what every metric needs, so that taking in a batch is one walk over its rows. Errors are
 * taken in float, as the network made them, and summed in double. With several outputs, mse, mae and r2 pool all
 * outputs of all rows: one mean and one deviation over them. Errors are not weighted by the rows; the loss is.
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

static void add_sides(struct bp_accumulator *a, const float *x, const float *target, int rows, int n)
{
    size_t count = (size_t)rows * (size_t)n;

    for (size_t i = 0; i < count; i++) {
        a->correct += x[i] == x[i] && (x[i] > 0.0f) == (target[i] > 0.5f);
    }
    a->outputs += (double)count;
}

/* Welford's recurrence keeps the sum of squared deviations exact where a sum of squares would cancel. It is a chain from
 * value to value: in a copy that nobody else can see, it stays in registers. */
static void add_values(struct bp_accumulator *to, const float *x, const float *target, int rows, int n, double unit,
                       bool logarithm)
{
    struct bp_accumulator a = *to;
    size_t count = (size_t)rows * (size_t)n;

    for (size_t i = 0; i < count; i++) {
        double t = (double)target[i] * unit;
        double y = logarithm ? bp_exp((double)x[i]) : (double)x[i];
        double e = (y - (double)target[i]) * unit;
        double d = t - a.mean;

        a.squared += e * e;
        a.absolute += fabs(e);
        a.outputs += 1.0;
        a.mean += d / a.outputs;
        a.deviation += d * (t - a.mean);
    }
    *to = a;
}

void bp_accumulator_add(struct bp_accumulator *a, struct bp_exec *exec, const struct bp_head *head, int head_index,
                        int rows, double unit)
{
    const struct bp_targets *targets = bp_exec_targets(exec, head_index);
    const float *loss = bp_exec_row_losses(exec, head_index);
    const float *x = bp_exec_output(exec, head_index);
    double loss_unit = bp_loss_unit(head->loss, unit);

    for (int r = 0; r < rows; r++) {
        a->weight += (double)targets->weight[r];
        a->loss += (double)targets->weight[r] * (double)loss[r] * loss_unit;
    }
    a->rows += rows;
    switch (head->loss) {
    case BP_LOSS_CROSS_ENTROPY:
    case BP_LOSS_MULTI_MARGIN:
        add_classes(a, x, targets->label, rows, head->outputs);
        break;
    case BP_LOSS_BCE:
    case BP_LOSS_HINGE:
        add_sides(a, x, targets->value, rows, head->outputs);
        break;
    case BP_LOSS_MSE:
    case BP_LOSS_MAE:
    case BP_LOSS_HUBER:
    case BP_LOSS_POISSON:
    case BP_LOSS_QUANTILE:
        add_values(a, x, targets->value, rows, head->outputs, unit, head->loss == BP_LOSS_POISSON);
        break;
    case BP_LOSS_KL_DIV:
    case BP_LOSS_COUNT:
        break;
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
