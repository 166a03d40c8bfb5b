/* spec.h: the job spec: from what a user wrote to what is run.
 *
 * Two steps. bp_spec_resolve takes the JSON of a submission: expands short forms and aliases, checks every field
 * against one declarative table (fields.c: name, type, range, default, aliases, help), infers what was left out from
 * the dataset, and gives the resolved spec, with every default filled in; resolving a resolved spec changes nothing.
 * All faults are reported at once, with JSON pointers into what the user wrote. bp_plan_build turns a resolved spec
 * into the engine's configuration.
 *
 * The same table gives the capabilities reply and the JSON Schema.
 *
 * Threads: pure functions of their arguments; tables are constant.
 */
#ifndef BP_JOBS_SPEC_H
#define BP_JOBS_SPEC_H

#include "data/table.h"
#include "data/transform.h"
#include "problems.h"
#include "train/trainer.h"

struct bp_spec_context {
    /* Opens a dataset by name (its current version). BP_NOT_FOUND. It is closed with the spec. */
    bp_status (*open_dataset)(void *ctx, const char *name, struct bp_table **ret, struct bp_error *err);
    /* Names of all datasets, for "did you mean": array of strings, new reference. */
    json_t *(*dataset_names)(void *ctx);
    void *ctx;
    int thread_budget;    /* --threads: what a job may ask for at most */
    int64_t memory_limit; /* bytes a job may take (--memory), 0 for none */
};

/* What a resolved spec amounts to for the engine. */
struct bp_plan {
    struct bp_graph *graph;
    struct bp_train_config config;  /* threads: as the spec has it, 1 where it leaves it to the server: to be set */
    struct bp_transform *transform; /* planned, not fitted; NULL when a stored one was given */
    struct bp_split_config split;   /* fractions and seed; salt, classes and rows are filled in by bp_plan_split */
    bool stratify;
    bool standardize_target;
    int64_t parameters;
};

struct bp_spec {
    json_t *resolved;      /* the resolved spec; NULL when there are problems */
    json_t *warnings;      /* array of {"code", "pointer", "detail"} */
    char table[65];        /* hash of the dataset's table */
    struct bp_table *data; /* the table that it was resolved on */
    struct bp_plan plan;   /* built on the way, to look at: for training it is built anew from `resolved` */
    struct bp_problems problems;
};

/* BP_OK; BP_INVALID with problems; BP_NOMEM, BP_INTERNAL, or the failure of open_dataset. `input` is borrowed. *ret is
 * to be ended with bp_spec_done whatever the status. */
bp_status bp_spec_resolve(const json_t *input, const struct bp_spec_context *context, struct bp_spec *ret,
                          struct bp_error *err);
void bp_spec_done(struct bp_spec *spec);

/* Builds the plan of a resolved spec on a table. With `stored` (a fitted transform) the table may be NULL: enough for
 * predictions. Faults of shape are problems with the pointer of the layer. */
bp_status bp_plan_build(const json_t *resolved, const struct bp_table *table, const struct bp_transform *stored,
                        struct bp_problems *problems, struct bp_plan *ret, struct bp_error *err);
void bp_plan_done(struct bp_plan *plan);

/* The split that the plan's spec asks for, with classes and exclusions taken from the table. */
bp_status bp_plan_split(const struct bp_plan *plan, const struct bp_transform *transform,
                        const struct bp_table *table, struct bp_split *ret, struct bp_error *err);

/* {"parameters":…, "layers":[{"name","type","output_shape","parameters"}…]} of a plan; new reference or NULL. */
json_t *bp_plan_model_json(const struct bp_plan *plan);
/* Bytes that a job takes at most: training, and at its end the pass over the test rows besides. BP_LIMIT on overflow. */
bp_status bp_plan_bytes(const struct bp_plan *plan, const struct bp_split *split, size_t *ret);
/* {"bytes":…, "flops_per_sample":…, "steps":…, …}: estimates for dry_run. Memory and time are for config.threads. */
json_t *bp_plan_estimate_json(const struct bp_plan *plan, const struct bp_split *split);

/* GET /v1/capabilities and /v1/job.schema.json, from the field table. New references or NULL. */
json_t *bp_spec_capabilities(void);
json_t *bp_spec_schema(void);

#endif
