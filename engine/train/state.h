/* state.h: what a trainer is made of.
 *
 * Private to train/: trainer.c makes it, run.c drives it, evaluate.c judges it, checkpoint.c stores it.
 */
#ifndef BP_TRAIN_STATE_H
#define BP_TRAIN_STATE_H

#include "train/checkpoint.h"
#include "train/scores.h"
#include "train/trainer.h"

/* Everything that changes while training, apart from the model's numbers, the best copy and the accumulators: what a
 * checkpoint's header holds. */
struct bp_position {
    int64_t epoch;      /* finished epochs */
    int64_t step;       /* finished steps */
    int64_t epoch_step; /* finished steps of the open epoch; below steps_per_epoch */
    int64_t samples;
    double seconds; /* of training, up to the last step */
    struct bp_best best;
    int64_t bad_epochs;
    enum bp_stop_reason stop_reason;
    int64_t rollbacks;  /* so far */
    double rate_factor; /* of the rate of every step: what the rollbacks came to */
    double last_loss;   /* at the end of the last epoch, of the monitor's rows; NaN before it */
    struct bp_plateau plateau;
};

/* The rows of the last pass, and its counter of random numbers. */
struct bp_last_pass {
    const uint32_t *rows;
    int n;
    uint64_t counter;
};

struct bp_trainer {
    struct bp_train_config config; /* a copy; the monitor is on training rows where there are no others */
    const struct bp_graph *graph;  /* borrowed, as the next two */
    const struct bp_source *source;
    const struct bp_split *split;
    uint64_t graph_fingerprint, split_fingerprint;
    struct bp_model *model;
    struct bp_exec *exec;       /* trains */
    struct bp_exec *evaluation; /* forward only; NULL without validation rows */
    int capacity, evaluation_capacity;
    int64_t steps_per_epoch;
    uint32_t *order;                        /* the training rows in the order of epoch order_epoch */
    int64_t order_epoch;                    /* -1: none yet */
    float *best;                            /* nparams + nstats of the best epoch; in the same block: */
    float *stats_before;                    /* nstats: those before the step going on */
    struct bp_accumulator *epoch_accs;      /* of the open epoch, one a head */
    struct bp_accumulator *validation_accs; /* scratch of an evaluation, one a head */
    struct bp_scores **epoch_scores;        /* as the accumulators: one a head */
    struct bp_scores **validation_scores;   /* NULL without validation rows */
    float *sum;   /* nparams: gradients of the micro-batches so far; NULL where a step is one batch */
    float *start; /* the state at the start of the open epoch; NULL without rollbacks */
    struct bp_position at;
    struct bp_last_pass last;
    double rate;                      /* of the last step */
    double batch_loss;                /* of the last step */
    double clip;                      /* factor of the gradients in the last update; 1: they were not clipped */
    struct bp_layer_sampler *sampler; /* NULL without layer_stats */
    struct bp_profile *profile;       /* borrowed; NULL unless somebody wants one */
    bool fuses;   /* steps may update within their pass: nothing has to be known of all gradients first */
    bool watched; /* somebody looks at the gradients of the step going on */
    bool updated; /* the last pass has updated */
    struct bp_optimizer_update update; /* of that pass */
    bool put;                          /* parameters came from elsewhere: to be packed before the first step */
};

/* Whether the best parameters are others than the present ones. */
static inline bool bp_trainer_best_is_apart(const struct bp_trainer *t)
{
    return t->at.best.any && t->at.best.step != t->at.step;
}

/* Batches of a step, at most. */
static inline int bp_trainer_micro_batches(const struct bp_train_config *config)
{
    return config->accumulate > 1 ? config->accumulate : 1;
}

/* The metrics that somebody looks at, as a bit set. */
static inline unsigned bp_trainer_metrics(const struct bp_train_config *config)
{
    return config->metrics | 1u << config->monitor.metric | (config->has_target ? 1u << config->target.metric : 0u);
}

/* Whether the rate is a series of its own. */
static inline bool bp_trainer_rate_varies(const struct bp_trainer *t)
{
    return bp_schedule_varies(&t->config.schedule) || t->config.rollbacks > 0;
}

/* Rate of the next step. */
double bp_trainer_rate(const struct bp_trainer *t);

/* One step, or a failure that has changed nothing but gradients (and, with several batches a step, the metrics of the
 * open epoch). BP_NONFINITE names the first op that made a number that is not finite. */
bp_status bp_trainer_step(struct bp_trainer *t, struct bp_team *team, struct bp_error *err);

/* Runs a failed pass once more to see where the first number that is not finite came from: true with *err filled. */
bool bp_trainer_blame(struct bp_trainer *t, const uint32_t *rows, int n, uint64_t counter, struct bp_error *err);

/* Elements of the state at the start of an epoch: parameters, slots, statistics. Fits: the model has as many. */
size_t bp_trainer_start_elements(const struct bp_graph *graph, int nslots);

/* Keeps the state when an epoch begins. */
void bp_trainer_keep_start(struct bp_trainer *t);

/* Back to the start of the epoch; false when that is not configured, or was done often enough. */
bool bp_trainer_roll_back(struct bp_trainer *t, struct bp_team *team);

/* Bytes of a checkpoint of a graph with so many optimizer slots and counts of scores, at most; start: with the state at
 * the start of the epoch. BP_LIMIT on overflow. */
bp_status bp_checkpoint_estimate(const struct bp_graph *graph, int nslots, size_t ncounts, bool start, size_t *ret);

/* Factor from a head's training loss to the target's own units. */
double bp_head_unit(const struct bp_source *source, int head);

/* Loss over all heads: sum of head weight times head loss. */
double bp_total_loss(const struct bp_graph *graph, const struct bp_accumulator *accs);

/* Closes the open epoch: metrics, validation, best parameters, early stopping, and the epoch hook. */
bp_status bp_trainer_end_epoch(struct bp_trainer *t, const struct bp_train_hooks *hooks, struct bp_team *team,
                               struct bp_error *err);

#endif
