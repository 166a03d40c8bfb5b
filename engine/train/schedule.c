/* schedule.c: the formulas of the schedules; see schedule.h.
 *
 * It refuses to know the loop: positions come in, rates go out.
 */
#include "train/schedule.h"

#include "base/scalar.h"

#define CYCLE_START 25.0        /* one_cycle: the highest rate is so many times the first (PyTorch's div_factor) */
#define CYCLE_END 1e4           /* and the first so many times the last (final_div_factor) */
#define PLATEAU_LEAST_DROP 1e-8 /* a smaller one is not made (PyTorch's eps) */

static const char *const names[BP_SCHEDULE_COUNT] = {[BP_SCHEDULE_CONSTANT] = "constant",
                                                     [BP_SCHEDULE_STEP] = "step",
                                                     [BP_SCHEDULE_MULTISTEP] = "multistep",
                                                     [BP_SCHEDULE_EXPONENTIAL] = "exponential",
                                                     [BP_SCHEDULE_POLYNOMIAL] = "polynomial",
                                                     [BP_SCHEDULE_COSINE] = "cosine",
                                                     [BP_SCHEDULE_COSINE_RESTARTS] = "cosine_restarts",
                                                     [BP_SCHEDULE_ONE_CYCLE] = "one_cycle",
                                                     [BP_SCHEDULE_PLATEAU] = "plateau"};

const char *bp_schedule_name(enum bp_schedule_kind kind)
{
    return names[kind];
}

bool bp_schedule_varies(const struct bp_schedule *s)
{
    return s->kind != BP_SCHEDULE_CONSTANT || s->warmup_epochs > 0.0;
}

/* From `from` at part 0 to `to` at part 1 in half a cosine. */
static double half_cosine(double from, double to, double part)
{
    return to + (from - to) * (1.0 + bp_cospi(part)) / 2.0;
}

static double rate_constant(const struct bp_schedule *s, double lr, const struct bp_schedule_at *at)
{
    (void)s;
    (void)at;
    return lr;
}

static double rate_step(const struct bp_schedule *s, double lr, const struct bp_schedule_at *at)
{
    return lr * bp_powi(s->gamma, (uint64_t)(at->epoch / s->step_size));
}

static double rate_multistep(const struct bp_schedule *s, double lr, const struct bp_schedule_at *at)
{
    uint64_t passed = 0;

    for (int i = 0; i < s->nmilestones; i++) {
        passed += s->milestone[i] <= at->epoch;
    }
    return lr * bp_powi(s->gamma, passed);
}

static double rate_exponential(const struct bp_schedule *s, double lr, const struct bp_schedule_at *at)
{
    return lr * bp_powi(s->gamma, (uint64_t)at->epoch);
}

static double rate_polynomial(const struct bp_schedule *s, double lr, const struct bp_schedule_at *at)
{
    double left = 1.0 - (double)at->epoch / (double)at->epochs;

    return s->eta_min + (lr - s->eta_min) * (left > 0.0 ? bp_pow(left, s->power) : 0.0);
}

static double rate_cosine(const struct bp_schedule *s, double lr, const struct bp_schedule_at *at)
{
    return half_cosine(lr, s->eta_min, (double)at->epoch / (double)at->epochs);
}

static double rate_cosine_restarts(const struct bp_schedule *s, double lr, const struct bp_schedule_at *at)
{
    int64_t period = s->period, within = at->epoch;

    if (s->growth == 1) {
        within %= period;
    }
    while (within >= period) { /* a period that no longer fits would not end within any number of epochs */
        within -= period;
        if (__builtin_mul_overflow(period, s->growth, &period)) {
            period = INT64_MAX;
        }
    }
    return half_cosine(lr, s->eta_min, (double)within / (double)period);
}

static double rate_one_cycle(const struct bp_schedule *s, double lr, const struct bp_schedule_at *at)
{
    double top = s->max_lr > 0.0 ? s->max_lr : lr, first = top / CYCLE_START, last = first / CYCLE_END;
    double steps = (double)at->epochs * (double)at->steps_per_epoch, step = (double)at->step;
    double turn = s->pct_start * steps - 1.0, end = steps - 1.0;

    if (step <= turn || end <= turn) {
        return half_cosine(first, top, turn > 0.0 ? step / turn : 1.0);
    }
    return half_cosine(top, last, step < end ? (step - turn) / (end - turn) : 1.0);
}

static double rate_plateau(const struct bp_schedule *s, double lr, const struct bp_schedule_at *at)
{
    (void)s;
    (void)lr;
    return at->plateau_lr;
}

typedef double rate_fn(const struct bp_schedule *s, double lr, const struct bp_schedule_at *at);
static rate_fn *const rates[BP_SCHEDULE_COUNT] = {[BP_SCHEDULE_CONSTANT] = rate_constant,
                                                  [BP_SCHEDULE_STEP] = rate_step,
                                                  [BP_SCHEDULE_MULTISTEP] = rate_multistep,
                                                  [BP_SCHEDULE_EXPONENTIAL] = rate_exponential,
                                                  [BP_SCHEDULE_POLYNOMIAL] = rate_polynomial,
                                                  [BP_SCHEDULE_COSINE] = rate_cosine,
                                                  [BP_SCHEDULE_COSINE_RESTARTS] = rate_cosine_restarts,
                                                  [BP_SCHEDULE_ONE_CYCLE] = rate_one_cycle,
                                                  [BP_SCHEDULE_PLATEAU] = rate_plateau};

double bp_schedule_rate(const struct bp_schedule *s, double lr, const struct bp_schedule_at *at)
{
    double rate = rates[s->kind](s, lr, at), warm = s->warmup_epochs * (double)at->steps_per_epoch;

    return (double)at->step + 1.0 < warm ? rate * (((double)at->step + 1.0) / warm) : rate;
}

void bp_plateau_epoch(const struct bp_schedule *s, struct bp_plateau *p, double value, bool maximized)
{
    double margin = maximized ? 1.0 + s->threshold : 1.0 - s->threshold, bound = p->best * margin;
    bool better = !p->any ? value == value : maximized ? value > bound : value < bound; /* false for NaN */

    p->bad = better ? 0 : p->bad + 1;
    if (better) {
        p->any = true;
        p->best = value;
    }
    if (p->cooling > 0) {
        p->cooling--;
        p->bad = 0;
    }
    if (p->bad > s->patience) {
        double lower = p->lr * s->gamma > s->eta_min ? p->lr * s->gamma : s->eta_min;

        p->lr = p->lr - lower > PLATEAU_LEAST_DROP ? lower : p->lr;
        p->cooling = s->cooldown;
        p->bad = 0;
    }
}
