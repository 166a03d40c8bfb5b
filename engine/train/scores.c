/* scores.c: counts by class and ranks; see scores.h.
 *
 * It refuses to guess: what was not kept, or has no class to be about, is NaN.
 */
#include "train/scores.h"

#include "base/memory.h"
#include "base/scalar.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BIT(metric) (1u << (metric))
#define BY_CLASS (BIT(BP_METRIC_PRECISION_MACRO) | BIT(BP_METRIC_RECALL_MACRO) | BIT(BP_METRIC_F1_MACRO))

static bool is_sided(enum bp_loss loss) /* outputs that say yes above 0 */
{
    return loss == BP_LOSS_BCE || loss == BP_LOSS_HINGE;
}

int bp_scores_columns(const struct bp_head *head)
{
    if (bp_loss_takes_labels(head->loss)) {
        return head->outputs == 2 ? 1 : head->outputs;
    }
    return is_sided(head->loss) ? head->outputs : 0;
}

/* Those of the metrics that this head has. */
static unsigned of_head(const struct bp_head *head, unsigned metrics)
{
    unsigned bits = 0;

    for (int m = BP_METRIC_TOP_K; m <= BP_METRIC_AUC; m++) {
        bits |= bp_metric_applies(m, head->loss) ? metrics & BIT(m) : 0;
    }
    return bits;
}

static size_t count_of(const struct bp_head *head, unsigned metrics)
{
    int classes = is_sided(head->loss) && head->outputs == 1 ? 2 : head->outputs;

    return metrics & BY_CLASS ? 1 + 3 * (size_t)classes : metrics & BIT(BP_METRIC_TOP_K) ? 1 : 0;
}

size_t bp_scores_counts(const struct bp_graph *graph, unsigned metrics)
{
    size_t sum = 0;

    for (int h = 0; h < graph->nheads; h++) {
        sum += count_of(&graph->heads[h], of_head(&graph->heads[h], metrics));
    }
    return sum;
}

bp_status bp_scores_new(const struct bp_head *head, unsigned metrics, int k, uint64_t rows, struct bp_scores **ret,
                        struct bp_error *err)
{
    struct bp_scores *s = bp_alloc(sizeof *s);

    metrics = of_head(head, metrics);
    if (s == NULL) {
        goto nomem;
    }
    *s = (struct bp_scores){.loss = head->loss, .outputs = head->outputs, .k = k, .capacity = rows};
    s->ncounts = count_of(head, metrics);
    s->classes = (int)(s->ncounts / 3);
    s->columns = rows > 0 && (metrics & BIT(BP_METRIC_AUC)) ? bp_scores_columns(head) : 0;
    if (s->columns > 0 && rows > (uint64_t)BP_AUC_SCORES_MAX / (uint64_t)s->columns) {
        bp_scores_free(s);
        return bp_fail(err, BP_LIMIT, "auc over %llu rows and %d outputs is more than %d scores",
                       (unsigned long long)rows, head->outputs, BP_AUC_SCORES_MAX);
    }
    if (s->ncounts > 0 && (s->counts = bp_alloc(s->ncounts * sizeof *s->counts)) == NULL) {
        goto nomem;
    }
    if (s->columns > 0 && (s->ranks = bp_alloc((size_t)s->columns * rows * sizeof *s->ranks)) == NULL) {
        goto nomem;
    }
    bp_scores_reset(s);
    *ret = s;
    return BP_OK;
nomem:
    bp_scores_free(s);
    return bp_fail(err, BP_NOMEM, "no memory for metrics by class");
}

void bp_scores_free(struct bp_scores *s)
{
    if (s == NULL) {
        return;
    }
    bp_free(s->counts);
    bp_free(s->ranks);
    bp_free(s);
}

void bp_scores_reset(struct bp_scores *s)
{
    if (s->ncounts > 0) {
        memset(s->counts, 0, s->ncounts * sizeof *s->counts);
    }
    s->rows = 0.0;
    s->ranked = 0;
}

size_t bp_scores_estimate(const struct bp_head *head, unsigned metrics, bool ranked)
{
    size_t bytes = sizeof(struct bp_scores);

    metrics = of_head(head, metrics);
    bytes += count_of(head, metrics) * sizeof(double);
    if (ranked && (metrics & BIT(BP_METRIC_AUC)) && bp_scores_columns(head) > 0) {
        bytes += BP_AUC_SCORES_MAX * sizeof(struct bp_ranked);
    }
    return bytes;
}

/* How many outputs are before the label's: larger, or equal and earlier. NaN is before everything. */
static int rank_of(const float *x, int n, int32_t label)
{
    int before = 0;

    for (int j = 0; j < n; j++) {
        before += j < label ? !(x[j] < x[label]) : j > label ? !(x[j] <= x[label]) : x[j] != x[j];
    }
    return before;
}

static int largest(const float *x, int n)
{
    int best = 0;

    for (int j = 1; j < n; j++) {
        best = x[j] > x[best] ? j : best;
    }
    return best;
}

static void count(struct bp_scores *s, int actual, int predicted)
{
    double *hits = s->counts + 1, *predictions = hits + s->classes, *actuals = predictions + s->classes;

    hits[actual] += actual == predicted;
    predictions[predicted] += 1.0;
    actuals[actual] += 1.0;
}

static void count_label(struct bp_scores *s, const float *x, int32_t label)
{
    s->counts[0] += rank_of(x, s->outputs, label) < s->k;
    if (s->classes > 0) {
        count(s, label, largest(x, s->outputs));
    }
}

static void count_sides(struct bp_scores *s, const float *x, const float *target)
{
    double *hits = s->counts + 1, *predictions = hits + s->classes, *actuals = predictions + s->classes;

    if (s->outputs == 1) {
        count(s, target[0] > 0.5f, x[0] > 0.0f);
        return;
    }
    for (int j = 0; j < s->classes; j++) {
        bool actual = target[j] > 0.5f, predicted = x[j] > 0.0f;
        hits[j] += actual && predicted;
        predictions[j] += predicted;
        actuals[j] += actual;
    }
}

static void keep(struct bp_scores *s, int column, float score, bool positive)
{
    s->ranks[(size_t)column * s->capacity + s->ranked] = (struct bp_ranked){score, positive};
}

/* Scores of several classes are compared between rows, so these are probabilities. */
static void keep_label(struct bp_scores *s, const float *x, int32_t label)
{
    double sum = 0.0;
    float max = x[largest(x, s->outputs)];

    if (s->outputs == 2) {
        keep(s, 0, x[1] - x[0], label == 1);
        return;
    }
    for (int j = 0; s->loss == BP_LOSS_CROSS_ENTROPY && j < s->outputs; j++) {
        sum += bp_exp((double)(x[j] - max));
    }
    for (int j = 0; j < s->outputs; j++) {
        keep(s, j, s->loss == BP_LOSS_CROSS_ENTROPY ? (float)(bp_exp((double)(x[j] - max)) / sum) : x[j], label == j);
    }
}

void bp_scores_add(struct bp_scores *s, struct bp_exec *exec, int head_index, int rows)
{
    const struct bp_targets *targets = bp_exec_targets(exec, head_index);
    const float *x = bp_exec_output(exec, head_index), *value = targets->value;
    bool labels = bp_loss_takes_labels(s->loss), any = s->ncounts > 0 || s->columns > 0;

    for (int r = 0; any && r < rows; r++, x += s->outputs) {
        if (s->ncounts > 0 && labels) {
            count_label(s, x, targets->label[r]);
        } else if (s->classes > 0) {
            count_sides(s, x, value + (size_t)r * (size_t)s->outputs);
        }
        if (s->columns == 0 || s->ranked >= s->capacity) {
            continue;
        }
        for (int j = 0; !labels && j < s->columns; j++) {
            keep(s, j, x[j], value[(size_t)r * (size_t)s->outputs + (size_t)j] > 0.5f);
        }
        if (labels) {
            keep_label(s, x, targets->label[r]);
        }
        s->ranked++;
    }
    s->rows += rows;
}

/* --- values --------------------------------------------------------------------------------------------------------- */

static double macro(const struct bp_scores *s, enum bp_metric metric)
{
    const double *hits = s->counts + 1, *predictions = hits + s->classes, *actuals = predictions + s->classes;
    double sum = 0.0;
    int present = 0;

    for (int j = 0; j < s->classes; j++) {
        double below = metric == BP_METRIC_PRECISION_MACRO ? predictions[j]
                       : metric == BP_METRIC_RECALL_MACRO  ? actuals[j]
                                                           : (predictions[j] + actuals[j]) / 2.0;
        present += is_sided(s->loss) && s->outputs > 1 ? 1 : predictions[j] + actuals[j] > 0.0;
        sum += below > 0.0 ? hits[j] / below : 0.0;
    }
    return present > 0 ? sum / present : NAN;
}

static int by_score(const void *a, const void *b)
{
    float x = ((const struct bp_ranked *)a)->score, y = ((const struct bp_ranked *)b)->score;

    return (x > y) - (x < y);
}

/* The area of one column; NaN where all rows are on one side. */
static double area(struct bp_ranked *ranks, uint64_t n)
{
    double positives = 0.0, negatives = 0.0, pairs = 0.0;

    qsort(ranks, n, sizeof *ranks, by_score);
    for (uint64_t i = 0; i < n;) {
        double yes = 0.0, no = 0.0;
        float score = ranks[i].score;

        do {
            yes += ranks[i].positive;
            no += !ranks[i].positive;
        } while (++i < n && ranks[i].score == score);
        pairs += yes * (negatives + no / 2.0);
        positives += yes;
        negatives += no;
    }
    return positives > 0.0 && negatives > 0.0 ? pairs / (positives * negatives) : NAN;
}

static double auc(struct bp_scores *s)
{
    double sum = 0.0;
    int defined = 0;

    for (int c = 0; c < s->columns; c++) {
        double a = area(s->ranks + (size_t)c * s->capacity, s->ranked);
        if (!isnan(a)) {
            sum += a;
            defined++;
        }
    }
    return defined > 0 ? sum / defined : NAN;
}

double bp_scores_value(struct bp_scores *s, enum bp_metric metric)
{
    if (metric == BP_METRIC_AUC) {
        return auc(s);
    }
    if (s->rows == 0.0 || s->ncounts == 0) {
        return NAN;
    }
    if (metric == BP_METRIC_TOP_K) {
        return s->counts[0] / s->rows;
    }
    return s->classes > 0 && bp_metric_is_score(metric) ? macro(s, metric) : NAN;
}
