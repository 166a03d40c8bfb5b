/* init_from.h: first weights from a checkpoint of another job.
 *
 * At submission it is settled which layers are taken: those whose tensors all have the same names and shapes in both
 * networks; the others are initialized as ever. With the job its transaction stores a reference to the checkpoint's
 * bytes and the list of what goes where (bp_db_start_add), so that the job starts the same whatever becomes of the
 * other one. The worker copies them before the first step.
 *
 * Threads: blocking; a struct belongs to one thread at a time.
 */
#ifndef BP_JOBS_INIT_FROM_H
#define BP_JOBS_INIT_FROM_H

#include "jobs/trained.h"

struct bp_start_plan {
    struct bp_choice choice; /* its checkpoint stays pinned until the plan is done */
    bool any;                /* the spec has an init_from */
    char *copies;            /* for bp_db_start_add */
};

/* What a resolved spec's init_from means for its graph. Faults of it (no such job or checkpoint, nothing that fits) are
 * problems: BP_INVALID. Which are taken, and why others are not, is appended to warnings. */
bp_status bp_start_plan_make(struct bp_store *store, const json_t *resolved, const struct bp_graph *graph,
                             json_t *warnings, struct bp_problems *problems, struct bp_start_plan *ret,
                             struct bp_error *err);
void bp_start_plan_done(struct bp_start_plan *plan);

/* Copies the first weights of a job into its new trainer; nothing for a job without an init_from. */
bp_status bp_start_apply(struct bp_store *store, const char *job, struct bp_trainer *trainer, struct bp_error *err);

#endif
