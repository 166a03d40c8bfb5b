/* schedule.h: the learning rate of a step.
 *
 * The schedules of PyTorch: all but one_cycle change the rate between epochs, e being the finished ones and E how many
 * there will be:
 *   constant         lr
 *   step             lr gamma^floor(e / step_size)
 *   multistep        lr gamma^(milestones at or below e)
 *   exponential      lr gamma^e
 *   polynomial       eta_min + (lr - eta_min) (1 - e/E)^power
 *   cosine           eta_min + (lr - eta_min) (1 + cos(pi e/E)) / 2
 *   cosine_restarts  the same over `period` epochs, again and again, each time `growth` times as long
 *   one_cycle        by step: from max_lr / 25 in half a cosine up to max_lr in a share pct_start of all steps, then
 *                    down to max_lr / 250000; the momentum stays
 *   plateau          gamma times what it was when the monitor has not improved for more than `patience` epochs
 * Warm-up is a factor on any of them: (step + 1) / (warmup_epochs * steps of an epoch) until that is 1.
 *
 * A rate is a function of the configuration and the position alone, made with base/scalar, so that it has the same
 * bits everywhere. plateau is the exception in that the past matters: struct bp_plateau is its state.
 *
 * Threads: pure functions.
 */
#ifndef BP_TRAIN_SCHEDULE_H
#define BP_TRAIN_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

enum bp_schedule_kind {
    BP_SCHEDULE_CONSTANT,
    BP_SCHEDULE_STEP,
    BP_SCHEDULE_MULTISTEP,
    BP_SCHEDULE_EXPONENTIAL,
    BP_SCHEDULE_POLYNOMIAL,
    BP_SCHEDULE_COSINE,
    BP_SCHEDULE_COSINE_RESTARTS,
    BP_SCHEDULE_ONE_CYCLE,
    BP_SCHEDULE_PLATEAU,
    BP_SCHEDULE_COUNT
};

#define BP_MILESTONES_MAX 64 /* more drops than this are an exponential */

struct bp_schedule {
    enum bp_schedule_kind kind;
    double warmup_epochs; /* 0 for none */
    double gamma;         /* step, multistep, exponential, plateau */
    int64_t step_size;    /* step: epochs, at least 1 */
    int nmilestones;      /* multistep */
    int64_t milestone[BP_MILESTONES_MAX];
    double power;             /* polynomial */
    double eta_min;           /* polynomial, the cosines; plateau: no drop goes below it */
    int64_t period, growth;   /* cosine_restarts: epochs, and a factor; at least 1 */
    double max_lr, pct_start; /* one_cycle; max_lr 0: the optimizer's rate */
    int64_t patience, cooldown;
    double threshold; /* plateau: an improvement is one by more than this share of the best */
};

/* What plateau remembers. */
struct bp_plateau {
    bool any;    /* best is one */
    double best; /* of the monitor */
    int64_t bad; /* epochs without improvement since it, or since the last drop */
    int64_t cooling;
    double lr;
};

struct bp_schedule_at {
    int64_t epoch, epochs; /* finished, and how many there will be */
    int64_t step;          /* finished in all */
    int64_t steps_per_epoch;
    double plateau_lr; /* the rate in plateau's state */
};

const char *bp_schedule_name(enum bp_schedule_kind kind);

/* Whether the rate can change at all. */
bool bp_schedule_varies(const struct bp_schedule *schedule);

/* The rate of the next step; lr is the optimizer's. */
double bp_schedule_rate(const struct bp_schedule *schedule, double lr, const struct bp_schedule_at *at);

/* Takes note of the monitor's value at the end of an epoch. */
void bp_plateau_epoch(const struct bp_schedule *schedule, struct bp_plateau *plateau, double value, bool maximized);

#endif
