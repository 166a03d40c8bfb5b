/* spec_internal.h: what the sources of the job spec share while one is resolved.
 *
 * The steps, each in a file of its own:
 *   spec_short.c   short forms become the long form; where each part came from is noted in `origins`
 *   spec_check.c   every member against the field table; defaults are filled in; gives the document
 *   spec_value.c   the same for single values
 *   spec_infer.c   what was left out and follows from the dataset: scaling, split
 *   spec_target.c  targets, tasks, losses
 *   spec_heads.c   the heads of a settled spec
 *   spec_metrics.c metrics and the monitor
 *   spec_layers.c  the list of layers made whole: output layer, names, folded softmax, symmetry
 *   spec_wiring.c  which layer reads which
 *   spec_fit.c     what needs the numbers: shapes, split, batch size, memory
 *   spec_advice.c  warnings about what is allowed and is rarely meant
 *
 * Faults are added with the pointer of the long form; spec_fault translates it into what the user wrote.
 */
#ifndef BP_JOBS_SPEC_INTERNAL_H
#define BP_JOBS_SPEC_INTERNAL_H

#include "jobs/fields.h"
#include "jobs/spec.h"

#define BP_TARGETS_MAX 256 /* columns; a head of bce or kl_div may have many */

struct spec_work {
    const struct bp_spec_context *context;
    struct bp_problems *problems;
    json_t *warnings;
    json_t *origins;   /* {pointer in the long form: pointer in what the user wrote} */
    size_t faults;     /* reported so far, also those beyond what is kept */
    bool nomem;        /* an allocation failed: the result is worthless */
    char pointer[512]; /* of the value being checked */

    json_t *doc; /* the document: checked, then completed step by step */
    struct bp_table *table;
    const struct bp_table_column *target; /* the first target; NULL while unknown, and for an autoencoder */
    int ntargets;
    const struct bp_table_column *targets[BP_TARGETS_MAX]; /* in the order of the heads */
    bool target_faults, autoencoder, task_settled;
    struct bp_transform *transform; /* NULL while the dataset part has faults */
    struct bp_plan plan;            /* of the settled document (spec_fit.c) */
    bool monitor_inferred;          /* the monitor was not given */
    struct bp_error error;          /* a failure that is not the user's; code BP_OK: none */
};

/* --- spec.c ---------------------------------------------------------------------------------------------------------
 * pointer NULL means w->pointer. allowed_steal and suggestion as in bp_problems_add. */
void spec_fault(struct spec_work *w, const char *pointer, const char *code, const char *suggestion,
                json_t *allowed_steal, const char *format, ...) BP_PRINTF(6, 7);
void spec_warn(struct spec_work *w, const char *pointer, const char *code, const char *format, ...) BP_PRINTF(4, 5);
/* Takes over faults whose pointers are of the long form; empties `from`. */
void spec_merge(struct spec_work *w, struct bp_problems *from);
/* The user's pointer for one of the long form. */
void spec_origin(const struct spec_work *w, const char *pointer, char *ret, size_t size);
void spec_set_origin(struct spec_work *w, const char *pointer, const char *user);
/* Sets a member (stealing value, which may be NULL after a failed allocation). */
void spec_set(struct spec_work *w, json_t *object, const char *key, json_t *value_steal);

/* Enters and leaves a member or an element: appends to w->pointer and gives the mark to go back to. */
size_t spec_enter(struct spec_work *w, const char *token);
size_t spec_enter_index(struct spec_work *w, size_t index);
static inline void spec_leave(struct spec_work *w, size_t mark)
{
    w->pointer[mark] = 0;
}

/* --- the steps ----------------------------------------------------------------------------------------------------- */
json_t *spec_expand(struct spec_work *w, const json_t *input); /* a new object in the long form, or NULL */
/* The i-th member that may stand at the top, and the object it belongs to; NULL past the end. */
const char *spec_short_form(size_t i, const char **ret_object);
const struct bp_field *spec_moved_field(const char *object, const char *name);
json_t *spec_check(struct spec_work *w, const json_t *expanded);
/* Single values (spec_value.c): the value, or NULL with the fault reported. */
json_t *spec_check_number(struct spec_work *w, const struct bp_field *f, const json_t *v);
json_t *spec_check_extent(struct spec_work *w, const struct bp_field *f, const json_t *v);
json_t *spec_check_string(struct spec_work *w, const struct bp_field *f, const json_t *v);
json_t *spec_check_choice(struct spec_work *w, const struct bp_field *f, const json_t *v);
const struct bp_kind *spec_check_kind(struct spec_work *w, const struct bp_family *family, const char *word);
json_t *spec_wrong_type(struct spec_work *w, const json_t *v, const char *wanted); /* NULL */
/* Words that somebody may have meant, each with the name that it stands for: for "did you mean". */
struct spec_words {
    size_t n, used;
    const char *word[256], *name[256];
    char text[4096]; /* aliases, one by one */
};
void spec_words_add(struct spec_words *words, const char *name, const char *aliases);
const char *spec_words_nearest(const struct spec_words *words, const char *written); /* or NULL */
json_t *spec_kinds(const struct bp_family *family);                                  /* names that can be used */
json_t *spec_check_layer(struct spec_work *w, const json_t *layer); /* one more layer, with its defaults */
void spec_infer_dataset(struct spec_work *w);                       /* opens the table, makes the transform's plan */
void spec_infer_task(struct spec_work *w);
void spec_find_targets(struct spec_work *w);
bool spec_settle_task(struct spec_work *w); /* false when losses and targets do not go together */
bool spec_is_target(const struct spec_work *w, const struct bp_table_column *column);
/* window, split_by, order_by: whether they decide about the split (spec_sequence.c). */
bool spec_settle_sequence(struct spec_work *w);
void spec_infer_monitors(struct spec_work *w);
void spec_check_optimizer(struct spec_work *w);
void spec_complete_layers(struct spec_work *w);
/* The layer that layer i reads (the first, where it names several); -1: the data. */
int spec_input_of(const json_t *layers, size_t i);
void spec_check_inputs(struct spec_work *w); /* what the layers' "inputs" name; all layers have names */
void spec_check_symmetry(struct spec_work *w);
void spec_fit(struct spec_work *w);
/* Warnings about what is allowed and is rarely meant (spec_advice.c). */
void spec_advise(struct spec_work *w, const struct bp_plan *plan, const struct bp_split *split);

/* The name of a typed value, a string or an object's tag; never NULL ("" where there is none). */
const char *spec_kind(const json_t *value, const char *tag);
json_t *spec_layers(const json_t *doc); /* borrowed; NULL where there are none */
/* The function that a layer ends with: an activation layer's own, a dense layer's; "linear" for others. */
const char *spec_activation(const json_t *layer);
/* The metric of this name; BP_METRIC_COUNT when the engine has none. */
enum bp_metric spec_metric(const char *name);
enum bp_loss spec_loss(const char *name);

/* --- heads (spec_heads.c, plan_heads.c) ------------------------------------------------------------------------------ */
struct spec_head {
    struct bp_transform_want want;
    const char **columns; /* owned; the names are of the spec */
    enum bp_loss loss;    /* HINGE as yet for any number of classes */
    double weight, parameter;
    char label[24]; /* in the names of its metrics */
};
struct spec_heads {
    int n;
    bool several; /* each has an output layer of its own */
    struct spec_head *head;
    struct bp_transform_want *wants; /* those of the heads */
};
/* The heads of a document whose targets and losses are settled. table may be NULL: no head is then an autoencoder's. */
bp_status spec_heads_read(const json_t *doc, const struct bp_table *table, struct spec_heads *ret,
                          struct bp_error *err);
void spec_heads_done(struct spec_heads *heads);
bool spec_loss_is_of_classes(enum bp_loss loss);
bool spec_loss_is_scaled(enum bp_loss loss); /* its target is standardized while training */
/* Outputs that a head needs, and the engine's loss: hinge has one output for two classes, else one each. */
int spec_head_outputs(enum bp_loss loss, const struct bp_transform_target *target);
enum bp_loss spec_head_loss(enum bp_loss loss, const struct bp_transform_target *target);
/* "val_accuracy" or, of a head, "val_accuracy_species"; false when there is no such metric. */
bool spec_monitor_read(const json_t *doc, const char *name, struct bp_monitor *ret);
/* Optimizer, schedule, gradients, budgets and divergence of a configuration (plan_training.c). */
bp_status spec_read_training(const json_t *resolved, struct bp_train_config *ret, struct bp_error *err);
/* Ends a graph whose last layer is node `last` with the heads of a resolved spec. */
bp_status spec_add_heads(struct bp_graph *graph, const json_t *resolved, const struct bp_transform *transform,
                         int last, struct bp_error *err);
bp_status spec_plan_transform(const json_t *resolved, const struct bp_table *table, struct bp_problems *problems,
                              struct bp_transform **ret, struct bp_error *err);
/* Metrics and monitor of a resolved spec. */
bp_status spec_read_metrics(const json_t *resolved, struct bp_train_config *config, struct bp_error *err);

/* --- literal weights (spec_literals.c) ------------------------------------------------------------------------------- */
void spec_check_literals(struct spec_work *w);
/* Those of a dense layer with so many inputs into config; malloc'd, to be freed when the node was added, whatever the
 * status. BP_INVALID (another width), BP_NOMEM. */
bp_status spec_read_literals(const json_t *layer, int64_t inputs, struct bp_dense_config *config, float **ret_weights,
                             float **ret_biases, struct bp_error *err);

#endif
