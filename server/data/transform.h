/* transform.h: what happens to a table's columns before they reach the network, and how to do it again.
 *
 * Planned from a table and the `dataset` object of a resolved spec: which columns, in which order, number or one-hot,
 * which target. The plan fixes the number of inputs and outputs. Fitting it on the training rows finds means,
 * deviations and fills; vocabularies and classes come from the whole dataset, sorted. It is kept as one versioned
 * JSON (doubles with 17 digits) with the job and in every export, and is applied in the gather of a batch, to stored
 * rows and to rows from outside alike.
 *
 * Threads: a fitted transform is read-only and may be shared.
 */
#ifndef BP_DATA_TRANSFORM_H
#define BP_DATA_TRANSFORM_H

#include "data/table.h"
#include "graph/graph.h"
#include "problems.h"
#include "train/source.h"
#include "train/split.h"

#define BP_TRANSFORM_VERSION 1

/* Rows from outside in one call, and what they may take: a prediction is answered in one reply. */
#define BP_TRANSFORM_ROWS_MAX 10000
#define BP_TRANSFORM_BYTES_MAX (512u << 20)
#define BP_WINDOW_MAX 65536 /* rows of a window: recurrent layers are unrolled over them */

struct bp_transform;

/* A target of the network, seen from outside. */
struct bp_transform_target {
    const char *name; /* column */
    bool is_class;
    int outputs;    /* classes, or adjacent values */
    json_t *labels; /* classes as the dataset writes them: strings, or numbers (borrowed array) */
    bool labels_are_numbers;
    double shift, scale;        /* t = (v - shift) * scale */
    bool inputs;                /* the network's own input, encoded and scaled: an autoencoder */
    int ncolumns;               /* of a target of several columns, one output each; else 0 */
    const char *const *columns; /* their names */
};

/* What a head is to learn. */
struct bp_transform_want {
    const char *const *columns; /* names: one, or several that are the outputs of one head */
    int ncolumns;
    bool regression; /* numbers; false: the one column is a class */
    bool sides;      /* of a regression: the number is a yes or no, with the classes 0 and 1 for class_weights */
    bool inputs;     /* the network's own input; columns are not looked at */
    bool unscaled;   /* never standardized, whatever the fit is told */
};

/* dataset: the resolved object (target, features, ignore, columns, scale, task, input_shape …). task: the resolved
 * "classification" or "regression", which decides what a numeric target is. Faults go to problems with pointers
 * below /dataset; BP_INVALID then. The table is borrowed during the call only. */
bp_status bp_transform_plan(const struct bp_table *table, const json_t *dataset, const char *task,
                            struct bp_problems *problems, struct bp_transform **ret, struct bp_error *err);
/* The same for any heads; the target and the task of `dataset` are not looked at. */
bp_status bp_transform_plan_heads(const struct bp_table *table, const json_t *dataset,
                                  const struct bp_transform_want *heads, int nheads, struct bp_problems *problems,
                                  struct bp_transform **ret, struct bp_error *err);
void bp_transform_free(struct bp_transform *transform);

/* Value i of a table's column in a row, NaN where it is missing. */
double bp_column_load(const struct bp_table_column *column, const uint8_t *row, int i);

/* What the plan and the fit decided by themselves and people should know: array of {"code", "pointer", "detail"}; new
 * reference, or NULL (no memory). Text columns left out and missing values to be filled are known after the plan,
 * constant columns after the fit. Not part of the JSON of a transform. */
json_t *bp_transform_warnings(const struct bp_transform *transform);

/* How rows that belong together are to be divided: members for a bp_split_config, NULL where they say nothing. */
struct bp_division {
    uint32_t *group, *first, *last;
};
void bp_division_done(struct bp_division *division);

/* Whether window, split_by or order_by have a say in the split. */
bool bp_transform_divides(const struct bp_transform *transform);
bp_status bp_transform_divide(const struct bp_transform *transform, const struct bp_table *table,
                              struct bp_division *ret, struct bp_error *err);

/* Rows of a window, 0 where a sample is a row. A window is named by its last row, whose target it has: to the split, to
 * exclusions and to evaluations it is that row, and rows at which no window ends are excluded. */
int bp_transform_steps(const struct bp_transform *transform);

/* Class of each row (BP_INVALID for a regression), and which rows cannot be used (no target, `drop`): for the split. */
bp_status bp_transform_classes(const struct bp_transform *transform, const struct bp_table *table, int32_t *ret,
                               struct bp_error *err);
bp_status bp_transform_exclude(const struct bp_transform *transform, const struct bp_table *table, uint8_t *ret,
                               uint64_t *ret_count, struct bp_error *err);

/* Finds the figures from the training rows, in one pass in ascending row order, in double. standardize_target: a
 * regression target is standardized (mse). */
bp_status bp_transform_fit(struct bp_transform *transform, const struct bp_table *table, const struct bp_split *split,
                           bool standardize_target, struct bp_error *err);

json_t *bp_transform_json(const struct bp_transform *transform); /* new reference or NULL */
bp_status bp_transform_parse(const json_t *json, struct bp_transform **ret, struct bp_error *err);

int bp_transform_inputs(const struct bp_transform *transform); /* elements of the network's input */
struct bp_shape bp_transform_shape(
    const struct bp_transform *transform); /* (n), or the shape of an image (1, 28, 28) */
/* For an embedding, after planning: whether all columns are codes; *ret: how many codes there are, 1 more than the
 * largest; *ret_column: the column with the most, or the first one that is no code (borrowed). */
bool bp_transform_codes(const struct bp_transform *transform, int64_t *ret, const char **ret_column);
int bp_transform_targets(const struct bp_transform *transform);
const struct bp_transform_target *bp_transform_target(const struct bp_transform *transform, int i);
/* A row of inputs back as a row of the dataset: {column: number, level or array}, the likeliest level of a category; a
 * window as an array of its rows. New reference, or NULL. */
json_t *bp_transform_decode(const struct bp_transform *transform, const float *inputs);
/* Names of the inputs after one-hot ("age", "color=red"; of a window "age@0" for its first row): new reference to an array, or NULL. */
json_t *bp_transform_input_names(const struct bp_transform *transform);

/* The columns that feed the network, in the order of a source's features: name, and labels of a one-hot one (borrowed;
 * NULL for numbers). */
int bp_transform_features(const struct bp_transform *transform);
const char *bp_transform_feature_name(const struct bp_transform *transform, int i);
const json_t *bp_transform_feature_labels(const struct bp_transform *transform, int i);

/* Sources: over a table's rows, and over rows made by bp_transform_rows. The table may be another one than it was
 * planned for: columns are found by name, and its levels may be some of ours; BP_MISMATCH where it does not fit. Free with bp_transform_source_done. Both
 * borrow the transform (and the table, or the rows). The second has no targets. */
bp_status bp_transform_source(const struct bp_transform *transform, const struct bp_table *table,
                              struct bp_source *ret, struct bp_error *err);
void bp_transform_source_done(struct bp_source *source);

/* Rows from outside: a JSON array of objects by column name, or of arrays in the order of the feature columns (the
 * shape of an image may be nested or flat), or CSV text with a header. Missing columns and unseen categories are
 * faults that name them (pointer /rows/3/color); of windows either an array of windows, each an array of as many rows
 * as a window has (pointer /rows/3/17/color), or rows one after the other, as many as make whole windows; further columns are ignored when they are known to the dataset (a
 * target or ignored column), else faults. *ret is malloc'd, *ret_n rows (or windows), used with bp_transform_rows_source. */
bp_status bp_transform_rows(const struct bp_transform *transform, const json_t *rows, struct bp_problems *problems,
                            uint8_t **ret, int *ret_n, struct bp_error *err);
bp_status bp_transform_rows_csv(const struct bp_transform *transform, const char *text, size_t size,
                                struct bp_problems *problems, uint8_t **ret, int *ret_n, struct bp_error *err);
bp_status bp_transform_rows_source(const struct bp_transform *transform, const uint8_t *rows, int n,
                                   struct bp_source *ret, struct bp_error *err);

#endif
