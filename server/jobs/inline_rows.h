/* inline_rows.h: rows that come with a request instead of a dataset: a few numbers typed by hand.
 *
 *   "inputs":  one entry a row: its numbers, nested by shape      [[0.05, 0.10]], [[[[0, 1], [1, 0]]]]
 *   "targets": one entry a row: numbers, or the number of a class [[0.01, 0.99]], [2]
 *
 * They are looked at as a dataset of two columns, so that a spec on them is resolved, checked and planned as any other:
 * nothing is scaled, nothing is split off. The numbers themselves stay doubles.
 *
 * Threads: a struct belongs to its owner; read-only once parsed.
 */
#ifndef BP_JOBS_INLINE_ROWS_H
#define BP_JOBS_INLINE_ROWS_H

#include "data/table.h"
#include "graph/graph.h"
#include "problems.h"

#define BP_INLINE_ROWS_MAX 4096         /* more is a dataset */
#define BP_INLINE_NUMBERS_MAX 1000000   /* of all inputs, and of all targets */
#define BP_INLINE_DATASET "inline-rows" /* what the dataset is called in the resolved spec */

struct bp_inline_rows {
    int n;                 /* rows */
    struct bp_shape shape; /* of one input */
    int outputs;           /* numbers of one target */
    bool classes;          /* targets are plain whole numbers, which may be classes */
    int nclasses;          /* at least: the largest of them, and 1 */
    double *input;         /* (n, elements of shape) */
    double *target;        /* (n, outputs) */
};

/* Faults have the pointers /inputs… and /targets…. BP_INVALID with problems, BP_NOMEM. End with bp_inline_rows_done. */
bp_status bp_inline_rows_parse(const json_t *inputs, const json_t *targets, struct bp_problems *problems,
                               struct bp_inline_rows *ret, struct bp_error *err);

/* One row of zeros of this shape ([28, 28]), for what looks at shapes alone: outputs numbers, or (classes) one of
 * `outputs` classes. */
bp_status bp_inline_rows_blank(const json_t *shape, int outputs, bool classes, struct bp_problems *problems,
                               struct bp_inline_rows *ret, struct bp_error *err);
void bp_inline_rows_done(struct bp_inline_rows *rows);

/* The dataset object of a spec on these rows: new reference or NULL. */
json_t *bp_inline_rows_dataset(const struct bp_inline_rows *rows);

/* The rows as a table, with at least `classes` classes where targets may be classes. Close with bp_table_close. */
bp_status bp_inline_rows_table(const struct bp_inline_rows *rows, int classes, struct bp_table **ret,
                               struct bp_error *err);

#endif
