/* trainer.h: training, from the first parameters to the best ones.
 *
 *   for each epoch, for each batch of shuffled rows:
 *     gather the rows -> forward, loss, backward (exec) -> check that all is finite -> clip -> update -> pack
 *     (a large model, where nothing has to be known of all gradients: -> proof that they are finite -> each piece of a
 *     gradient is followed by its update and packing, in the cache: graph/exec.h; the same bits)
 *   at the end of an epoch: evaluate on the validation rows, keep the best parameters, stop early or go on
 *
 * The state after step n is a function of (configuration, graph, rows, seed, n) alone: not of the number of
 * threads, the instruction set, or the pauses, kills and resumes in between.
 *
 * The trainer knows no clock beyond the pacing of checkpoints and the measuring of speed, no files and no network:
 * it speaks to its host through struct bp_train_hooks.
 *
 * Threads: bp_trainer_run is called by the thread that owns the job and opens the team; hooks are called on that
 * thread, between steps. All other functions only while no run is going on, or from within a hook.
 */
#ifndef BP_TRAIN_TRAINER_H
#define BP_TRAIN_TRAINER_H

#include "train/layer_stats.h"
#include "train/metric.h"
#include "train/optimizer.h"
#include "train/schedule.h"
#include "train/source.h"
#include "train/split.h"

/* Raised whenever a change alters the bits that training produces. Stored with jobs and checkpoints. */
#define BP_NUMERICS_VERSION 1

struct bp_monitor {
    enum bp_metric metric;
    bool validation; /* on the validation rows; false: on the training rows */
    int head;        /* whose metric, from 1; 0: the total loss, or the metric of the first head that has it */
};

struct bp_train_config {
    uint64_t seed;
    int64_t epochs; /* at least 1 */
    int batch_size; /* at least 1; the last batch of an epoch may be shorter */
    bool shuffle;
    int accumulate; /* a step is the mean gradient of up to so many batches of batch_size rows; 0 is as 1 */
    struct bp_optimizer optimizer;
    struct bp_schedule schedule;
    double clip_grad_norm;  /* global norm; 0 for none */
    double clip_grad_value; /* each element of the gradient, after clip_grad_norm; 0 for none */
    double max_seconds;     /* of training, over all restarts: the run ends at the step that passes it; 0 for none */
    double tolerance;       /* the run ends when the loss changes by less from one epoch to the next; 0 for none */
    bool has_target;        /* the run ends when the target's metric reaches target_value */
    struct bp_monitor target;
    double target_value;
    int64_t rollbacks; /* a step that fails is answered by going back to the start of its epoch, so often at most */
    double rollback_factor; /* each multiplies the rate of all later steps by this */
    bool early_stopping;
    struct bp_monitor monitor; /* chooses the best parameters, with or without early stopping */
    int64_t patience;          /* epochs without improvement on the best by more than min_delta; 0 is as 1 */
    double min_delta;
    bool restore_best;         /* the final weights are the best ones (the state goes on with its own) */
    int64_t log_every_steps;   /* batch_loss is reported every so many steps */
    int64_t checkpoint_epochs; /* checkpoint at the end of every so many epochs, 0 for never */
    double checkpoint_seconds; /* and when so many seconds have passed; 0 for never */
    int threads;               /* capacity of the team, 1 to BP_TEAM_MAX */
    unsigned metrics;          /* bit set of enum bp_metric, loss always */
    int top_k;                 /* of BP_METRIC_TOP_K; 0 is 5 */
    bool layer_stats; /* sample the layers while training (layer_stats.h); changes no number of the training */
};

enum bp_stop_reason {
    BP_STOP_NONE,
    BP_STOP_MAX_EPOCHS,
    BP_STOP_EARLY,
    BP_STOP_USER,
    BP_STOP_TIME,
    BP_STOP_TARGET,
    BP_STOP_CONVERGED,
    BP_STOP_COUNT
};

struct bp_progress {
    int64_t epoch, epochs; /* finished epochs, and how many there will be */
    int64_t step, steps;   /* finished steps, and how many there will be */
    int64_t samples;       /* rows trained on so far, over all epochs and restarts */
    double seconds;        /* time spent training, over all restarts */
    double batch_loss;     /* of the last step of this run, in the targets' own units; 0 before it */
};

struct bp_best {
    bool any;
    int64_t epoch, step; /* the state after this many epochs and steps */
    double value;        /* of the monitor: the total loss, or the metric of the first head that has it */
};

/* What the host wants, asked between any two steps. */
enum bp_command { BP_GO_ON, BP_PAUSE, BP_FINISH /* stop now as succeeded */, BP_CANCEL, BP_CHECKPOINT_NOW };

struct bp_trainer;

/* Hooks may be NULL. */
struct bp_train_hooks {
    void *ctx;
    /* Between any two steps; may lower or raise *threads (from 1 to the capacity). Must be quick: an atomic read. */
    enum bp_command (*command)(void *ctx, int *threads);
    /* After each step; must be quick. */
    void (*progress)(void *ctx, const struct bp_progress *progress);
    /* A value of a series: "batch_loss" (by step), "loss", "val_accuracy" ... (at the end of an epoch), for the epoch
     * of that number, from 1. Losses are those of the data alone, without penalties, in the targets' own units. With
     * several heads "loss" is the total (sum of head weight * head loss), and each head has "loss_x", "accuracy_x"
     * and so on, x being its label, or its number from 0. auc is computed on validation rows only. "lr", where the
     * rate can change, is that of the epoch's last step. */
    void (*metric)(void *ctx, const char *name, int64_t epoch, int64_t step, double value);
    /* What goes on in the layers at a step, where config.layer_stats is on: some steps, and one that failed. */
    void (*layers)(void *ctx, const struct bp_layer_sample *sample);
    /* End of an epoch, after its metrics. */
    void (*epoch)(void *ctx, const struct bp_progress *progress, const struct bp_best *best);
    /* A step has failed for the reason given; the run went back to the start of its epoch, `step` steps in all, and goes
     * on with its rates multiplied by `factor` from now on. */
    void (*rollback)(void *ctx, int64_t epoch, int64_t step, double factor, const struct bp_error *why);
    /* Time to store a checkpoint: the host calls bp_checkpoint_encode. must is false where it may be skipped (the
     * last one is still being written). An error ends the run with that status. */
    bp_status (*checkpoint)(void *ctx, struct bp_trainer *trainer, bool must, struct bp_error *err);
};

enum bp_outcome { BP_RUN_FINISHED, BP_RUN_PAUSED, BP_RUN_CANCELLED, BP_RUN_FAILED };

/* Makes a trainer with parameters initialized from the seed, at step 0. Borrows everything but config, which is
 * copied; split must have at least one training row. BP_NOMEM, BP_INVALID, BP_LIMIT. */
bp_status bp_trainer_new(const struct bp_train_config *config, const struct bp_graph *graph,
                         const struct bp_source *source, const struct bp_split *split, struct bp_trainer **ret,
                         struct bp_error *err);
void bp_trainer_free(struct bp_trainer *trainer);

/* Overwrites n first parameters (or running statistics) from element `at` on: for weights that come from elsewhere.
 * Before the first run only. BP_INVALID when there are fewer. */
bp_status bp_trainer_put(struct bp_trainer *trainer, bool statistics, size_t at, const float *values, size_t n,
                         struct bp_error *err);

/* Bytes that training takes, with validation rows: model, executions, best copy, a staged checkpoint, batches. Table
 * pages are not counted. BP_LIMIT on overflow, BP_INVALID for a configuration that cannot train. */
bp_status bp_trainer_estimate(const struct bp_train_config *config, const struct bp_graph *graph, uint64_t train_rows,
                              size_t *ret);

/* Where the time of steps goes. Each part is the time on the calling thread from the end of the part before, so that
 * they add up to the steps. */
enum bp_step_part {
    BP_STEP_GATHER, /* the batch from the table, and once an epoch the order of the rows */
    BP_STEP_PASS, /* forward, losses, backward; the proof and the update too where they are within the pass (BP_PART_UPDATE) */
    BP_STEP_METRICS,
    BP_STEP_CHECK,  /* that the gradients are finite; their norm */
    BP_STEP_UPDATE, /* and renewing the packed weights */
    BP_STEP_PARTS
};

struct bp_profile {
    uint64_t ticks[BP_STEP_PARTS]; /* base/ticks.h; added up */
    uint64_t mark;                 /* where the part going on began */
    uint64_t *nodes;               /* as of bp_exec_profile, with config.threads threads; borrowed */
};

/* Profiles the steps to come; NULL ends it. Borrowed. */
void bp_trainer_profile(struct bp_trainer *trainer, struct bp_profile *profile);

/* Trains until it ends or the host says otherwise. A checkpoint has been offered (must) before it returns FINISHED,
 * PAUSED or CANCELLED. FAILED fills err; BP_NONFINITE names the step and where: the state is then the one before
 * the failing step. */
enum bp_outcome bp_trainer_run(struct bp_trainer *trainer, const struct bp_train_hooks *hooks, struct bp_error *err);

enum bp_stop_reason bp_trainer_stop_reason(const struct bp_trainer *trainer);
void bp_trainer_progress(const struct bp_trainer *trainer, struct bp_progress *ret);
void bp_trainer_best(const struct bp_trainer *trainer, struct bp_best *ret);

/* The parameters that a finished job hands out: the best ones where restore_best and any, else the latest.
 * Borrowed; graph->nparams floats. */
const float *bp_trainer_final_params(const struct bp_trainer *trainer);

/* The running statistics that belong to them; borrowed; graph->nstats floats. */
const float *bp_trainer_final_stats(const struct bp_trainer *trainer);

/* Evaluates parameters on some rows of a source, batch by batch, in prediction mode: accs takes one accumulator for
 * each head. visit (may be NULL) sees each batch after its pass; false ends the evaluation. Then, and when a row has no
 * class where a head needs one, the accumulators come back empty (all metrics NaN). */
typedef bool bp_evaluate_visit(void *ctx, struct bp_exec *exec, const uint32_t *rows, int n);
void bp_evaluate(struct bp_exec *exec, int capacity, struct bp_team *team, const struct bp_graph *graph,
                 const struct bp_source *source, const uint32_t *rows, uint64_t nrows, struct bp_accumulator *accs,
                 bp_evaluate_visit *visit, void *ctx);

#endif
