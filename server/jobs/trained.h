/* trained.h: what a job has learned so far: its row, one of its checkpoints, and the network that the two are about.
 *
 * Which weights: `best` are the parameters of the best epoch by the job's monitor. Every checkpoint carries them,
 * either as a section of their own or because its own parameters are the best; so `best` is taken from the newest
 * checkpoint. `latest` are the newest checkpoint's own parameters, and an id ("ckpt_…") those of that checkpoint.
 * Where nothing is asked for it is best, or latest for a job that switched restore_best off: the weights that the job
 * itself ends with.
 *
 * The checkpoint is pinned as long as the struct lives, so that retention cannot take it away from a reader.
 *
 * Threads: blocking (short reads of the store); a struct belongs to one thread at a time.
 */
#ifndef BP_JOBS_TRAINED_H
#define BP_JOBS_TRAINED_H

#include "jobs/spec.h"
#include "store/store.h"
#include "train/checkpoint.h"

/* Which weights of which job, as a client named them. */
struct bp_choice {
    struct bp_job_row row;
    struct bp_checkpoint_row checkpoint; /* pinned */
    json_t *spec;                        /* resolved */
    bool best;                           /* its best parameters; false: its own */
    struct bp_store *store;              /* to unpin */
};

/* which: "best", "latest", an id, or NULL. BP_NOT_FOUND: where is "job" (no such job) or "checkpoint" (this job has no
 * such checkpoint). BP_CONFLICT: where is "no_checkpoint": there is none yet; ret->row is then valid all the same, and
 * ended with bp_choice_done as on success. BP_INVALID: `which` is none of these. */
bp_status bp_choice_make(struct bp_store *store, const char *job, const char *which, struct bp_choice *ret,
                         struct bp_error *err);
void bp_choice_done(struct bp_choice *choice);

/* The network of a job: the plan of its spec and its fitted transform. */
struct bp_network {
    struct bp_plan plan;
    struct bp_transform *transform;
};

/* BP_INTERNAL where the stored spec or transform no longer makes a network. */
bp_status bp_network_make(const struct bp_choice *choice, struct bp_network *ret, struct bp_error *err);
void bp_network_done(struct bp_network *network);

/* BP_MISMATCH unless a checkpoint with this header is of this network. */
bp_status bp_network_check(const struct bp_network *network, const struct bp_checkpoint_header *header,
                           struct bp_error *err);

#endif
