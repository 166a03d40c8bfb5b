/* sets.h: the distinct values of a column while it is read, each with its count: numbers, and texts.
 *
 * A set holds at most BP_DISTINCT_MAX members, and all sets of an import share one budget, because a file chooses its
 * number of columns. A set that would outgrow either is full: it is emptied and takes nothing more.
 *
 * Threads: a set belongs to its owner.
 */
#ifndef BP_DATA_SETS_H
#define BP_DATA_SETS_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Members of all sets of an import: bounds both its memory and the description (about 10 MB of JSON). */
#define BP_MEMBERS_MAX 500000
/* A longer text is no level of a category but prose. */
#define BP_LEVEL_MAX 255
#define BP_SMALL 256

struct bp_number_set {
    bool full;
    int n, nslots;
    double *values;  /* by slot; sorted by bp_number_set_sort */
    int64_t *counts; /* by slot; 0: the slot is free */
    uint8_t *small;  /* by value, for 0 to 255: 0, or 1 and the occurrences not yet in counts; or NULL */
};

struct bp_level {
    char *text; /* terminated */
    uint32_t size, hash;
    int64_t count;
    int32_t order; /* of appearance, from 0 */
};

struct bp_level_set {
    bool full;
    int n, capacity, nslots;
    int last;                /* order of the level added last */
    struct bp_level *levels; /* in order of appearance; sorted by bp_level_set_sort */
    int32_t *slots;          /* index of a level plus 1; 0: free */
};

/* Counts a small integer in its byte: false where it is not known to be a member, and where the byte is full, which
 * adding it empties. Of a thousand columns the bytes fit in the cache, which wider counts would not. */
static inline bool bp_small_again(uint8_t small[BP_SMALL], unsigned i)
{
    bool again = small[i] > 0 && small[i] < UINT8_MAX;
    small[i] = (uint8_t)(small[i] + again);
    return again;
}

/* Counts v where it is a small integer that is known to be a member: images and codes are full of them, and their table
 * is a fraction of the set. Any number may be asked about; false: it is to be added. */
static inline bool bp_number_set_again(struct bp_number_set *set, double v)
{
    if (!set->small || !(v >= 0 && v < BP_SMALL))
        return false;
    int i = (int)v;
    return (double)i == v && bp_small_again(set->small, (unsigned)i);
}

/* Adds one occurrence. *budget goes down by one for a new member. BP_NOMEM. */
bp_status bp_number_set_add(struct bp_number_set *set, double value, int64_t *budget, struct bp_error *err);
bp_status bp_level_set_add(struct bp_level_set *set, const char *text, size_t size, int64_t *budget,
                           struct bp_error *err);

/* Puts the members into ascending order at [0, n); the number set can take nothing after that. */
void bp_number_set_sort(struct bp_number_set *set);
/* By bytes; the index of a level is its code from then on, and bp_level_set_find works. */
void bp_level_set_sort(struct bp_level_set *set);
int bp_level_set_find(const struct bp_level_set *set, const char *text, size_t size); /* -1: not there */

void bp_number_set_done(struct bp_number_set *set);
void bp_level_set_done(struct bp_level_set *set);

#endif
