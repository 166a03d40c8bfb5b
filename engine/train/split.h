/* split.h: which rows are for training, for validation and for test.
 *
 * A pure function of its arguments: the same seed, salt, classes and fractions give the same rows anywhere. With
 * classes, each class is divided by the fractions by itself (largest remainders make the totals right; a class of
 * one row stays in training). Each part is returned in ascending row order.
 *
 * Rows that belong together are never divided by chance. With groups, whole groups are drawn, until a part has about
 * the rows that its fraction asks for; a part that would get none takes the smallest group, as long as one is left
 * for training. In time, the last ranks are for test and those before them for validation, cut where the parts come
 * closest to their fractions; equal ranks stay together, and what reaches over a cut (a window of rows) is in no part.
 *
 * Threads: pure function.
 */
#ifndef BP_TRAIN_SPLIT_H
#define BP_TRAIN_SPLIT_H

#include "base/status.h"

#include <stdint.h>

struct bp_split {
    uint32_t *rows[3]; /* training, validation, test: row indices, ascending; owned, one block */
    uint64_t count[3];
};

enum { BP_TRAIN, BP_VALIDATION, BP_TEST };

struct bp_split_config {
    uint64_t seed;
    uint64_t salt;           /* the first 8 bytes of the table's hash: mixed into the seed, so that two tables of one
                              * size are divided differently */
    double validation, test; /* fractions of the rows, each in [0, 1), sum below 1 */
    const int32_t *classes;  /* class of each row, -1 to nrows - 1, for a stratified split, or NULL */
    const uint8_t *exclude;  /* 1 for rows that are in no part (no target), or NULL */
    const uint32_t *group;   /* group of each row, below nrows; without classes; or NULL */
    const uint32_t *first, *last; /* in time: the lowest and the highest rank, below nrows, of what row i is made of:
                                   * the same for a row by itself; without classes and groups; both or NULL */
    uint64_t nrows;               /* rows to divide, 0 .. nrows-1 */
    uint64_t test_first;          /* rows from here to nrows are the dataset's own test split (nrows: none); then
                                * `test` must be 0 */
};

/* BP_INVALID when no training row is left. */
bp_status bp_split_make(const struct bp_split_config *config, struct bp_split *ret, struct bp_error *err);
void bp_split_done(struct bp_split *split);

/* 64 bits that depend on every index of every part: stored with a job and compared at resume. */
uint64_t bp_split_fingerprint(const struct bp_split *split);

#endif
