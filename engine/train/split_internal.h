/* split_internal.h: what split.c and split_whole.c share. Private to train/. */
#ifndef BP_TRAIN_SPLIT_INTERNAL_H
#define BP_TRAIN_SPLIT_INTERNAL_H

#include "train/split.h"

/* The seed of a split: the table's hash is mixed in, so that two tables of one size are not split alike. */
uint64_t bp_split_seed(const struct bp_split_config *config);

/* Divides the rows before test_first by group or in time. *ret (nrows, of bp_alloc) has the part of each, 3 for none
 * and for all later rows. BP_NOMEM, BP_INVALID (a group or rank out of range). */
bp_status bp_split_whole(const struct bp_split_config *config, uint8_t **ret, struct bp_error *err);

#endif
