/* tuner.h: how many of its threads a step is worth.
 *
 * Where steps take some microseconds, a second thread may double their rate or halve it: that depends on how far apart
 * the cores are, and on who else is using them, neither of which can be known beforehand. So the run tries it: from
 * time to time some steps are taken with half as many threads, or with twice as many, and the faster number stays. No
 * bits depend on it.
 *
 * Private to train/.
 *
 * Threads: called by the leader of a team.
 */
#ifndef BP_TRAIN_TUNER_H
#define BP_TRAIN_TUNER_H

#include <stdbool.h>

struct bp_tuner {
    int most;          /* threads that may be used */
    int best;          /* the number in use between trials */
    int trial;         /* the number on trial; 0 between trials */
    bool up;           /* whether the next trial is of more threads */
    int lost;          /* trials in a row that changed nothing */
    int left;          /* steps until the trial, or the time between two, is over */
    int timed;         /* steps that are timed at its end */
    double seconds[2]; /* that they took: between trials, on trial */
};

/* Begins with all of `most` threads (at least 1). */
void bp_tuner_begin(struct bp_tuner *tuner, int most);

/* The threads to take the next step with. */
int bp_tuner_threads(const struct bp_tuner *tuner);

/* Whether the next step's time is wanted; else 0 will do. */
bool bp_tuner_listens(const struct bp_tuner *tuner);

/* Tells what the step took. */
void bp_tuner_took(struct bp_tuner *tuner, double seconds);

#endif
