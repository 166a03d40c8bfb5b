/* recovery.h: what is done at start about jobs that a crash, a kill or a stop left in the middle. */
#ifndef BP_JOBS_RECOVERY_H
#define BP_JOBS_RECOVERY_H

#include "app.h"

/* running becomes queued with restarts + 1 (or failed, crash_loop, after too many crashes without progress), pausing
 * becomes paused, cancelling becomes cancelled; each with an event, in one transaction. Before any worker takes a job.
 * crashed: the last run ended without a word. */
bp_status bp_recover(struct bp_app *app, bool crashed, struct bp_error *err);

/* Whether the mark of jobs at work is there. */
bool bp_recovery_marked(const struct bp_app *app);

/* A file says that jobs are at work, and that a start that finds it comes after a crash. It goes when the daemon ends in
 * order, and while a job waits for room: a full disk can keep a row from being written, never a file from being removed,
 * and no job is to blame for it. Any thread. */
void bp_recovery_mark(const struct bp_app *app, bool at_work);

#endif
