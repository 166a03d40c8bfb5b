/* transform_internal.h: a transform from inside. Private to the transform_*.c files. */
#ifndef BP_DATA_TRANSFORM_INTERNAL_H
#define BP_DATA_TRANSFORM_INTERNAL_H

#include "data/transform.h"

enum bp_scaling { BP_SCALE_STANDARD, BP_SCALE_MINMAX, BP_SCALE_UNIT, BP_SCALE_NONE };
enum bp_missing {
    BP_MISSING_LEVEL, /* a category: missing is a level of its own */
    BP_MISSING_MEAN,
    BP_MISSING_MEDIAN,
    BP_MISSING_CONSTANT,
    BP_MISSING_DROP,
    BP_MISSING_ERROR
};
extern const char *const bp_scaling_words[4]; /* by enum */
extern const char *const bp_missing_words[6];

/* The levels of a category, or the classes of a target. */
struct bp_levels {
    json_t *labels; /* array of strings, or of numbers; owned */
    int n;
    bool numbers;
    const char **texts; /* borrowed from labels; NULL for numbers */
    double *values;     /* numbers, ascending; else NULL */
};

/* A column that feeds the network. */
struct bp_transform_feature {
    char *name;
    bool category;   /* one-hot, or a code; else a number, or an array of them */
    bool coded;      /* one input: the number of the level, or a whole number as it is, for an embedding */
    int64_t codes;   /* of a coded one, when planned: they are below this */
    int count, rank; /* adjacent values and their shape */
    int64_t dim[4];
    struct bp_levels levels;
    enum bp_scaling scaling;
    enum bp_missing missing;
    int missing_level;         /* of a category: the output of a missing value, -1: none is set */
    double fill, shift, scale; /* of a number; `constant` is in fill from the start */
    int output, outputs;       /* place among the inputs of the network */
    size_t offset;             /* in a row from outside: doubles for numbers, i32 codes for levels of text */
};

struct bp_transform_head {
    struct bp_transform_target target; /* name and labels are owned */
    struct bp_levels levels;           /* of a class; labels is shared with target.labels */
    char **columns;                    /* of a head over several; owned, shared with target.columns */
    bool sides;                        /* a number that is a yes or no: classes 0 and 1 for the weights */
    bool unscaled;                     /* never standardized */
    bool balanced;                     /* the weights follow from the training rows */
    int nclass_weights;                /* 0: all 1 */
    double *class_weights;
};

/* Rows that belong together: see transform_sequence.c. Names are owned; NULL: not given. */
struct bp_transform_sequence {
    int steps, stride; /* rows of a window, and from one to the next; steps 0: no windows */
    char *by, *split_by, *order_by;
};

struct bp_transform {
    int nfeatures;
    struct bp_transform_feature *features; /* in the order of the table */
    int nheads;
    struct bp_transform_head *heads;
    int inputs;
    struct bp_shape shape;
    bool fitted;
    json_t *index;    /* object: name of a feature -> its index */
    json_t *others;   /* object: names of the dataset that are no features (target included) -> true */
    json_t *warnings; /* array */
    size_t stride;    /* of a row from outside */
    char *weight;     /* column of the rows' weights, or NULL */
    struct bp_transform_sequence sequence;
};

/* The source of a table whose samples are rows, whatever the windows. */
bp_status bp_transform_bind(const struct bp_transform *transform, const struct bp_table *table, struct bp_source *ret,
                            struct bp_error *err);
/* Makes the samples of a source windows, where there are any. */
bp_status bp_transform_link(const struct bp_transform *t, const struct bp_table *table, struct bp_source *source,
                            struct bp_error *err);
/* Marks the rows that are left out for a missing value of a feature. ret: one byte a row, 0 or 1 already. */
bp_status bp_transform_dropped(const struct bp_transform *t, const struct bp_table *table, uint8_t *ret,
                               struct bp_error *err);
/* Excludes the rows at which no window ends; only where there are windows. */
bp_status bp_transform_exclude_inner(const struct bp_transform *t, const struct bp_table *table, uint8_t *exclude,
                                     struct bp_error *err);
/* All rows of the training windows, as the training rows of a split to be freed with free(ret->rows[BP_TRAIN]). */
bp_status bp_transform_cover(const struct bp_transform *t, const struct bp_table *table, const struct bp_split *split,
                             struct bp_split *ret, struct bp_error *err);

/* Fits balanced class weights to the training rows. BP_NOMEM, BP_MISMATCH. */
bp_status bp_transform_balance(struct bp_transform *t, const struct bp_table *table, const struct bp_split *split,
                               struct bp_error *err);

/* Places outputs and offsets from the features' counts and levels, and sets `inputs` and `index`. BP_LIMIT, BP_NOMEM,
 * BP_CORRUPT (two features of one name). */
bp_status bp_transform_place(struct bp_transform *t, struct bp_error *err);

/* labels is taken, also on failure. BP_NOMEM, BP_CORRUPT (not all strings, or not all ascending numbers). */
bp_status bp_levels_init(struct bp_levels *levels, json_t *labels_steal, struct bp_error *err);
void bp_levels_done(struct bp_levels *levels);
int bp_levels_find_text(const struct bp_levels *levels, const char *text); /* -1: not there */
int bp_levels_find_number(const struct bp_levels *levels, double value);

/* The column of a table behind a feature or target: BP_MISMATCH when there is none of that kind and size. */
bp_status bp_transform_column(const struct bp_table *table, const char *name, const struct bp_levels *levels,
                              int count, const struct bp_table_column **ret, struct bp_error *err);

int bp_transform_find(const struct bp_transform *t, const char *name); /* index of a feature, or -1 */

void bp_transform_warn(struct bp_transform *t, const char *code, const char *pointer, const char *format, ...)
    BP_PRINTF(4, 5);

/* n as JSON: an integer where it is one. */
json_t *bp_label_number(double v);

/* --- rows from outside: transform_rows.c, transform_rows_csv.c --- */

/* One field: dst is the row. Faults go to problems with the pointer of the field. */
struct bp_encoder {
    const struct bp_transform *t;
    struct bp_problems *problems;
};
void bp_encode_missing(struct bp_encoder *e, const struct bp_transform_feature *f, uint8_t *row, const char *pointer);
void bp_encode_number(struct bp_encoder *e, const struct bp_transform_feature *f, uint8_t *row, int i, double v,
                      const char *pointer);
/* text is terminated and has no spaces around it. */
void bp_encode_text(struct bp_encoder *e, const struct bp_transform_feature *f, uint8_t *row, const char *text,
                    const char *pointer);

/* A name that is neither a feature nor another column of the dataset. */
void bp_encode_unknown(struct bp_encoder *e, const char *name, const char *pointer);
/* Whether any more faults would be kept: a call with thousands of bad rows need not look at them all. */
bool bp_encode_enough(const struct bp_encoder *e);
/* Whether n rows make whole windows; else a fault. */
bool bp_encode_windows(struct bp_encoder *e, size_t n, const char *pointer);
/* Zeroed room for n rows. BP_LIMIT, BP_NOMEM. */
bp_status bp_encode_room(const struct bp_transform *t, size_t n, uint8_t **ret, struct bp_error *err);
/* What a call comes to: BP_OK, BP_INVALID when there are faults, BP_NOMEM. */
bp_status bp_encode_result(const struct bp_encoder *e, struct bp_error *err);

#endif
