/* recovery.h: what is done at start about jobs that a crash, a kill or a stop left in the middle. */
#ifndef BP_JOBS_RECOVERY_H
#define BP_JOBS_RECOVERY_H

#include "app.h"

/* running becomes queued with restarts + 1 (or failed, crash_loop, after too many restarts without progress), pausing
 * becomes paused, cancelling becomes cancelled; each with an event, in one transaction. Before any worker runs. */
bp_status bp_recover(struct bp_app *app, struct bp_error *err);

#endif
