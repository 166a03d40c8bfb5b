/* source.h: where batches come from: rows of a stored table, and how a row becomes numbers.
 *
 * A source borrows the rows of a table (row-major, fixed stride, typed raw columns, usually a mapped file) and a
 * description of the features and targets. Gathering a batch does the scaling, the one-hot encoding and the
 * filling of missing values; the table itself is never changed. Predictions of rows from outside use the same
 * gather on rows of the same layout, so that training and use cannot differ.
 *
 * Missing values: NaN in f32 and f64 columns, code -1 in i32 columns; u8 columns have none.
 *
 * Threads: gathering is read-only; any number of threads may share a source.
 */
#ifndef BP_TRAIN_SOURCE_H
#define BP_TRAIN_SOURCE_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum bp_column_type { BP_U8, BP_I32, BP_F32, BP_F64 };
size_t bp_column_size(enum bp_column_type type); /* bytes of one value */

enum bp_encoding {
    BP_ENCODE_NUMBER,  /* one output: ((missing ? fill : v) - shift) * scale, in double, rounded to float once */
    BP_ENCODE_ONE_HOT, /* `levels` outputs, one of them 1 */
    BP_ENCODE_CODE     /* one output: the number of the level, as an embedding reads it; -1 for no level */
};

/* One feature, or a block of `count` adjacent values of one type and encoding (the pixels of an image). */
struct bp_feature {
    enum bp_column_type type;
    size_t offset; /* bytes from the start of a row */
    int count;     /* adjacent values; 1 with ONE_HOT and CODE */
    enum bp_encoding encoding;
    double fill, shift, scale;
    int levels;           /* outputs of ONE_HOT; of CODE the same */
    const double *values; /* ONE_HOT of a numeric column: the `levels` values, ascending (borrowed); a level that
                           * stands for missing values alone has INFINITY, as the last; NULL: v is the level */
    int missing_level;    /* ONE_HOT: the level of a missing value, -1: all zero */
    int output;           /* index of its first output among the inputs of the network */
};

/* One of several columns that are the outputs of one head. */
struct bp_target_part {
    enum bp_column_type type;
    size_t offset;
};

/* The target of one head. */
struct bp_target {
    bool is_class;
    enum bp_column_type type;
    size_t offset;
    int count;            /* adjacent values: outputs of a value target; 1 for a class */
    int classes;          /* of a class target */
    const double *values; /* class of a numeric column: the classes' values, ascending (borrowed); NULL: v is the
                           * class */
    double shift, scale;  /* value target: t = (v - shift) * scale; 0 and 1 for none */
    bool inputs;          /* the target is the network's own input (an autoencoder): nothing above is used */
    int nparts;           /* the values come from so many columns instead of `count` adjacent ones; 0: they do not */
    const struct bp_target_part *parts; /* borrowed */
    const double *class_weights;        /* weight of a row by its class (a value target of one output has the classes
                                         * 0 and 1: below 1/2, and from there on); NULL: all 1 (borrowed) */
};

struct bp_source {
    const uint8_t *rows; /* borrowed */
    size_t stride;       /* bytes */
    uint64_t nrows;
    int nfeatures;
    struct bp_feature *features;
    int inputs;   /* the network's input elements: the sum of the features' outputs, for each row of a window */
    int ntargets; /* one a head, in the order of the heads */
    struct bp_target *targets;
    bool weighted; /* rows have a column of weights, finite and at least 0 */
    enum bp_column_type weight_type;
    size_t weight_offset;
    /* Windows: a sample is a sequence of rows, named by its last one, whose target and weight are the sample's. */
    int steps;                /* rows of a window; 0: a sample is a row */
    const uint32_t *previous; /* of each row the one before it in its sequence; NULL: the one above (borrowed) */
    bool apart;               /* rows from outside: sample i is the rows from i * steps on */
};

/* Gathers rows[0..n) (indices into the source) into x, (n, inputs); a window's rows in their order. */
void bp_source_gather(const struct bp_source *source, const uint32_t *rows, int n, float *x);

/* Asks the memory for rows that will be gathered soon; returns at once. A table that is in the cache anyway is left alone,
 * and so are windows, whose rows lie beside each other. */
void bp_source_ask(const struct bp_source *source, const uint32_t *rows, int n);

/* Gathers the target of one head: labels (n) for a class target, values (n, count) for the other kind. A class
 * that is missing or unknown gives label -1: such rows must not be in a split. The values of a class target are its
 * class as a number, (n, 1), NaN for -1: what a bce head with one output learns. */
void bp_source_gather_labels(const struct bp_source *source, int head, const uint32_t *rows, int n, int32_t *label);
void bp_source_gather_values(const struct bp_source *source, int head, const uint32_t *rows, int n, float *value);

/* The weight of each row for one head: that of its column times that of its class; 1 where there is neither. */
void bp_source_gather_weights(const struct bp_source *source, int head, const uint32_t *rows, int n, float *weight);

#endif
