/* tuner.c: trials of numbers of threads; see tuner.h. */
#include "train/tuner.h"

#define SOON 256           /* steps before a trial at first, and until one was lost in either direction */
#define LATER 16384        /* then: trials cost a fraction of a per cent, however slow they are */
#define TIMED 64           /* steps that are timed before a trial, and at most in it: their means are compared */
#define TIMED_LEAST 4      /* steps that are timed in a trial, however long they take */
#define TRIAL_SECONDS 4e-3 /* of more of them: a run of some seconds feels each trial that is lost */
#define SHORT_SECONDS 2e-3 /* a step that takes longer is worth all threads, and too long for trials */
#define GAIN 0.97          /* a number of threads that is not better by this much is not worth a change */

void bp_tuner_begin(struct bp_tuner *tuner, int most)
{
    *tuner = (struct bp_tuner){.most = most, .best = most, .left = SOON, .timed = TIMED};
}

int bp_tuner_threads(const struct bp_tuner *tuner)
{
    return tuner->trial > 0 ? tuner->trial : tuner->best;
}

bool bp_tuner_listens(const struct bp_tuner *tuner)
{
    return tuner->most > 1 && tuner->left <= tuner->timed;
}

/* Half or twice the threads in turns, where there are as many. */
static int candidate(struct bp_tuner *tuner)
{
    bool up = tuner->best == 1 || (tuner->up && tuner->best < tuner->most);

    tuner->up = !up;
    if (!up) {
        return tuner->best / 2;
    }
    return 2 * tuner->best < tuner->most ? 2 * tuner->best : tuner->most;
}

/* Before the steps that are timed come half as many: threads wake up, the data moves to their caches. */
static void begin_trial(struct bp_tuner *tuner)
{
    double timed = TIMED * TRIAL_SECONDS / tuner->seconds[0];

    tuner->trial = candidate(tuner);
    tuner->timed = timed >= TIMED ? TIMED : timed > TIMED_LEAST ? (int)timed : TIMED_LEAST;
    tuner->left = tuner->timed / 2 + tuner->timed;
}

static void end_trial(struct bp_tuner *tuner)
{
    tuner->lost++;
    if (tuner->seconds[1] / tuner->timed < GAIN * tuner->seconds[0] / TIMED) {
        tuner->best = tuner->trial;
        tuner->lost = 0;
    }
    tuner->trial = 0;
    tuner->timed = TIMED;
    tuner->left = tuner->lost < 2 ? SOON : LATER;
    tuner->seconds[0] = tuner->seconds[1] = 0.0;
}

void bp_tuner_took(struct bp_tuner *tuner, double seconds)
{
    if (tuner->most == 1) {
        return;
    }
    if (bp_tuner_listens(tuner)) {
        tuner->seconds[tuner->trial > 0] += seconds;
    }
    if (--tuner->left > 0) {
        return;
    }
    if (tuner->trial > 0) {
        end_trial(tuner);
    } else if (tuner->seconds[0] < TIMED * SHORT_SECONDS) {
        begin_trial(tuner);
    } else {
        tuner->left = LATER;
        tuner->seconds[0] = 0.0;
    }
}
