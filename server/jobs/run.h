/* run.h: one run of a job by a worker: prepare.c makes what it needs, hooks.c acts between two steps, testing.c after the
 * last, and worker.c is around all of it. */
#ifndef BP_JOBS_RUN_H
#define BP_JOBS_RUN_H

#include "base/clock.h"
#include "jobs/jobs_internal.h"
#include "jobs/saver.h"
#include "jobs/spec.h"
#include "json_text.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

/* Points and events on their way to the store. */
struct bp_batch {
    struct bp_batch *next;
    struct bp_job_run *run;
    size_t npoints, capacity;
    struct bp_metric_point *points;
    size_t nevents, events_capacity;
    char **events;          /* data of events, all of a type */
    const char *event_type; /* NULL is "epoch" */
    size_t nlayers;         /* figures of layers: all samples one after the other */
    struct bp_layer_row *layers;
};

/* What is written to the job's row together with a checkpoint. Texts may be NULL: the row keeps its own. */
struct bp_durable {
    char *progress, *metrics;
    struct bp_best best;
    int64_t epoch, step;
};

struct bp_job_run {
    struct bp_jobs *jobs;
    struct bp_app *app;
    struct bp_live *live;
    const char *id;

    json_t *resolved;
    struct bp_table *table;
    struct bp_plan plan;
    struct bp_transform *transform; /* fitted */
    struct bp_split split;
    struct bp_source source;
    struct bp_trainer *trainer;
    struct bp_saver *saver;
    char monitor[128]; /* name of the series that chooses the best weights */
    int keep;          /* checkpoints that stay, besides the best */

    _Atomic int64_t version;          /* of the job's row after the last stored checkpoint */
    struct bp_durable durable;        /* of the checkpoint that the saver has */
    struct bp_batch *batch;           /* being filled; leader thread only */
    atomic_int posted;                /* batches in the store's queue */
    pthread_mutex_t mutex;            /* guards rejected */
    struct bp_batch *rejected, *last; /* could not be stored (disk full), oldest first: tried again every second */
    atomic_int nrejected;
    double flushed_at, event_at; /* steady seconds of the last flush, the last epoch event */
    double retried_at;           /* ... when what was rejected was tried again */
    double rate_at;              /* steady seconds and samples where the present rate began */
    int64_t rate_samples;
};

/* Makes everything that the run needs, and puts the trainer where the job was. */
bp_status bp_run_prepare(struct bp_job_run *run, const struct bp_job_row *row, struct bp_error *err);

/* The job's snapshot says that it waits, for a failure that may pass; or that it does not. Whether it waited before. Any
 * thread. */
bool bp_run_stalled(struct bp_job_run *run, bp_status status);

/* Whether a write that ended with `status` is to be made again: after a rest, where the failure may pass and neither the
 * daemon stops nor the job is told one of `told`, a bit set of enum bp_command. */
bool bp_run_again(struct bp_job_run *run, bp_status status, unsigned told);
#define BP_TOLD_TO_LEAVE (1u << BP_PAUSE | 1u << BP_CANCEL)
#define BP_TOLD_ANYTHING (BP_TOLD_TO_LEAVE | 1u << BP_FINISH | 1u << BP_CHECKPOINT_NOW)

/* The hooks of a run, for bp_trainer_run. */
struct bp_train_hooks bp_run_hooks(struct bp_job_run *run);

/* Sends what is collected to the store. all: also waits until the store has taken or rejected everything; else waits
 * only while there is too much of it, so that it never outgrows its bounds: a full disk holds the training up. */
void bp_run_flush(struct bp_job_run *run, bool all);

/* Frees what is collected and could not be stored; nothing may be on its way (bp_run_flush all). */
void bp_run_drop(struct bp_job_run *run);

/* Adds a point of a series: "loss" and the like also become the job's last metrics. */
void bp_run_point(struct bp_job_run *run, const char *name, int64_t epoch, int64_t step, double value);

/* Judges the weights that the job hands out on its test rows (testing.c). *ret_json: the results as a JSON object,
 * malloc'd; NULL where there are no such rows. */
bp_status bp_run_test(struct bp_job_run *run, char **ret_json, struct bp_error *err);

/* JSON text of the live entry's last metrics, of progress: malloc'd, or NULL. */
char *bp_run_metrics_json(struct bp_job_run *run);
char *bp_run_progress_json(const struct bp_progress *progress);

#endif
