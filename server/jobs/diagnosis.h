/* diagnosis.h: what is wrong with a training run, in words, with the evidence and the cure.
 *
 * A pure function of what was recorded: the losses by epoch, the sampled figures of the layers, the spec, how the job
 * ended, and how many rows each class has. Each rule looks for one ill and has its thresholds, with where they come
 * from, beside it (diagnosis_rules.c). Where no rule finds anything the reply says so, and what was looked at.
 *
 * Threads: pure.
 */
#ifndef BP_JOBS_DIAGNOSIS_H
#define BP_JOBS_DIAGNOSIS_H

#include "jobs/layer_history.h"

#include <jansson.h>

/* A series by epoch. */
struct bp_curve {
    size_t n, capacity;
    double *value;
};

struct bp_diagnosis_facts {
    const json_t *spec;     /* resolved */
    bool diverged;          /* the job failed because of a number that is not finite */
    const char *where;      /* the op or tensor that was to blame for it, or for the last rollback, or NULL */
    int rollbacks;          /* how often such a number sent it back to the start of an epoch */
    double rollback_factor; /* what these have made of the rate */
    bool final;             /* the job has run to its end */
    struct bp_curve loss, val_loss, r2, val_r2;
    const struct bp_layer_history *layers;
    const json_t *class_labels, *class_counts; /* arrays of the target's classes, or NULL */
    const json_t *target; /* description of the target where it is one column of numbers, or NULL */
};

/* {"healthy": bool or null, "findings": [{code, severity, title, detail, layers, evidence, advice, learn}],
 * "looked_at": [{code, title, found}]}; new reference or NULL. */
json_t *bp_diagnosis_make(const struct bp_diagnosis_facts *facts);

#endif
