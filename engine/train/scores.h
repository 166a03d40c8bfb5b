/* scores.h: metrics of a classification that need more than a few sums: by class, by rank.
 *
 *   top_k             share of rows with fewer than k outputs before the label's (the first of equals is before)
 *   precision_macro   mean over the classes of hits / predicted
 *   recall_macro      mean over the classes of hits / actual
 *   f1_macro          mean over the classes of 2 hits / (predicted + actual)
 *   auc               area under the ROC curve: the share of pairs of a positive and a negative row in the right
 *                     order, an equal pair counting half; several classes: each against the rest, then the mean
 *
 * A class is in the means when it is among the actual or the predicted ones; a quotient by 0 is 0. The two sides of a
 * single bce or hinge output are two classes; several bce outputs are so many labels, of which only "yes" counts.
 * Rows are not weighted.
 *
 * Counts are doubles that hold integers, so that an open epoch can be kept in a checkpoint. auc needs all scores of a
 * set of rows at once (8 bytes each, BP_AUC_SCORES_MAX of them): it is kept for validation rows only.
 *
 * Threads: scores belong to one thread.
 */
#ifndef BP_TRAIN_SCORES_H
#define BP_TRAIN_SCORES_H

#include "train/metric.h"

#define BP_AUC_SCORES_MAX (1 << 22) /* rows times columns: 32 MB */
#define BP_TOP_K_MAX 1000

struct bp_scores {
    enum bp_loss loss;
    int outputs, k;
    int classes;     /* whose hits are counted; 0: none */
    size_t ncounts;  /* 1 + 3 classes, or 0 */
    double *counts;  /* [0] hits of top_k, then hits, predicted, actual of each class */
    double rows;     /* of counts[0] */
    int columns;     /* of scores for auc; 0: none */
    uint64_t ranked; /* rows in them */
    uint64_t capacity;
    struct bp_ranked {
        float score;
        uint32_t positive;
    } * ranks; /* (columns, capacity) */
};

/* How many scores auc keeps of one row of a head; 0 where auc does not apply. */
int bp_scores_columns(const struct bp_head *head);

/* Scores for those of the metrics (a bit set of enum bp_metric) that apply to a head. rows: how many there may be at
 * most for auc, 0 for none. BP_NOMEM, BP_LIMIT (more than BP_AUC_SCORES_MAX scores). */
bp_status bp_scores_new(const struct bp_head *head, unsigned metrics, int k, uint64_t rows, struct bp_scores **ret,
                        struct bp_error *err);
void bp_scores_free(struct bp_scores *scores);
void bp_scores_reset(struct bp_scores *scores);

/* Bytes that bp_scores_new takes, with the most that auc may need where it is among the metrics. */
size_t bp_scores_estimate(const struct bp_head *head, unsigned metrics, bool ranked);

/* Counts (doubles) that the scores of all heads of a graph have. */
size_t bp_scores_counts(const struct bp_graph *graph, unsigned metrics);

/* Takes in the first `rows` rows of the last pass of exec. */
void bp_scores_add(struct bp_scores *scores, struct bp_exec *exec, int head_index, int rows);

/* NaN where it is not kept or not defined. Sorts the scores kept for auc. */
double bp_scores_value(struct bp_scores *scores, enum bp_metric metric);

/* Whether a metric is one of these, and not an accumulator's. */
static inline bool bp_metric_is_score(enum bp_metric metric)
{
    return metric >= BP_METRIC_TOP_K && metric <= BP_METRIC_AUC;
}

#endif
