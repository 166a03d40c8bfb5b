/* split.c: dividing rows into training, validation and test.
 *
 * The rows to divide are grouped by class (one group without classes), each group in ascending order is shuffled with
 * numbers of its own, and its first rows go to test, the next to validation, the rest to training. How many of each
 * group: the floor of its share, and then one more for the groups with the largest remainders until the part has
 * the size that the whole set's share asks for. A group never gives away its last row.
 */
#include "train/split_internal.h"

#include "base/memory.h"
#include "base/random.h"
#include "train/hash.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct group {
    uint64_t first, count; /* its range of the grouped rows */
    uint64_t give[3];      /* rows for validation and test ([BP_TRAIN] is unused) */
};

struct work {
    const struct bp_split_config *config;
    uint64_t limit;   /* rows from 0 to here are divided by chance */
    uint64_t chosen;  /* of them not excluded */
    uint64_t ngroups; /* without classes one; else group g holds class g - 1, as -1 is "none" */
    struct group *groups;
    uint32_t *rows; /* by group */
    uint8_t *part;  /* of each row: enum, or 3 for none */
};

/* A remainder and whose it is: larger remainders first, then the lower group. */
struct remainder {
    double rest;
    uint64_t group;
};

static int compare_remainders(const void *a, const void *b)
{
    const struct remainder *x = a, *y = b;

    if (x->rest != y->rest) {
        return x->rest > y->rest ? -1 : 1;
    }
    return x->group < y->group ? -1 : x->group > y->group;
}

static bool is_excluded(const struct bp_split_config *c, uint64_t row)
{
    return c->exclude != NULL && c->exclude[row] != 0;
}

static uint64_t group_of(const struct bp_split_config *c, uint64_t row)
{
    return c->classes == NULL ? 0 : (uint64_t)((int64_t)c->classes[row] + 1);
}

static bp_status check(const struct bp_split_config *c, struct bp_error *err)
{
    if (!(c->validation >= 0.0 && c->test >= 0.0 && c->validation + c->test < 1.0)) {
        return bp_fail(err, BP_INVALID, "the validation and test fractions must be 0 or more and below 1 together");
    }
    if (c->nrows > UINT32_MAX) {
        return bp_fail(err, BP_LIMIT, "a split holds at most %u rows", UINT32_MAX);
    }
    if (c->test_first > c->nrows || (c->test_first < c->nrows && c->test != 0.0)) {
        return bp_fail(err, BP_INVALID, "a dataset with its own test rows cannot have a test fraction as well");
    }
    if ((c->classes != NULL) + (c->group != NULL) + (c->first != NULL) > 1 || !c->first != !c->last) {
        return bp_fail(err, BP_INVALID, "rows are divided by class, by group or in time, not by two of these");
    }
    for (uint64_t i = 0; c->classes != NULL && i < c->test_first; i++) {
        if (!is_excluded(c, i) && (c->classes[i] < -1 || (uint64_t)((int64_t)c->classes[i] + 1) > c->nrows)) {
            return bp_fail(err, BP_INVALID, "row %llu has class %d, which is no class", (unsigned long long)i,
                           c->classes[i]);
        }
    }
    return BP_OK;
}

/* Counting sort of the rows to divide by their group: stable, so each group's rows ascend. */
static bp_status group_rows(struct work *w, struct bp_error *err)
{
    const struct bp_split_config *c = w->config;
    uint64_t next = 0;

    w->ngroups = 1;
    for (uint64_t i = 0; i < w->limit; i++) {
        if (!is_excluded(c, i)) {
            w->chosen++;
            w->ngroups = group_of(c, i) + 1 > w->ngroups ? group_of(c, i) + 1 : w->ngroups;
        }
    }
    w->groups = bp_alloc(w->ngroups * sizeof *w->groups);
    w->rows = bp_alloc(w->chosen * sizeof *w->rows);
    w->part = bp_alloc(c->nrows);
    if (w->groups == NULL || w->rows == NULL || w->part == NULL) {
        return bp_fail(err, BP_NOMEM, "no memory to split %llu rows", (unsigned long long)c->nrows);
    }
    for (uint64_t i = 0; i < w->limit; i++) {
        if (!is_excluded(c, i)) {
            w->groups[group_of(c, i)].count++;
        }
    }
    for (uint64_t g = 0; g < w->ngroups; g++) {
        w->groups[g].first = next;
        next += w->groups[g].count;
        w->groups[g].count = 0;
    }
    for (uint64_t i = 0; i < w->limit; i++) {
        if (!is_excluded(c, i)) {
            struct group *group = &w->groups[group_of(c, i)];
            w->rows[group->first + group->count++] = (uint32_t)i;
        }
    }
    return BP_OK;
}

/* Decides how many rows of each group go to a part. */
static void share_out(struct work *w, int part, double fraction, struct remainder *order)
{
    uint64_t wanted = (uint64_t)((double)w->chosen * fraction + 0.5), given = 0;

    for (uint64_t g = 0; g < w->ngroups; g++) {
        struct group *group = &w->groups[g];
        double quota = (double)group->count * fraction;
        uint64_t whole = (uint64_t)quota, left = group->count - group->give[BP_TEST];

        order[g] = (struct remainder){quota - (double)whole, g};
        group->give[part] = whole < left || whole == 0 ? whole : left - 1;
        given += group->give[part];
    }
    qsort(order, w->ngroups, sizeof *order, compare_remainders);
    for (uint64_t i = 0; i < w->ngroups && given < wanted; i++) {
        struct group *group = &w->groups[order[i].group];

        if (order[i].rest > 0.0 && group->give[BP_VALIDATION] + group->give[BP_TEST] + 1 < group->count) {
            group->give[part]++;
            given++;
        }
    }
}

uint64_t bp_split_seed(const struct bp_split_config *c)
{
    return bp_hash_word(bp_hash_word(BP_HASH_START, c->seed), c->salt);
}

static void assign(struct work *w)
{
    uint64_t seed = bp_split_seed(w->config);

    memset(w->part, 3, w->config->nrows);
    for (uint64_t g = 0; g < w->ngroups; g++) {
        const struct group *group = &w->groups[g];
        uint64_t test = group->give[BP_TEST], validation = group->give[BP_VALIDATION];

        bp_random_shuffle(seed, bp_stream(BP_STREAM_SPLIT, 0), g, w->rows + group->first, group->count);
        for (uint64_t i = 0; i < group->count; i++) {
            w->part[w->rows[group->first + i]] = i < test                ? BP_TEST
                                                 : i < test + validation ? BP_VALIDATION
                                                                         : BP_TRAIN;
        }
    }
}

/* The rows of the dataset's own test split. */
static void assign_own_test(struct work *w)
{
    for (uint64_t i = w->limit; i < w->config->nrows; i++) {
        w->part[i] = is_excluded(w->config, i) ? 3 : BP_TEST;
    }
}

/* Lists the rows of each part, ascending. */
static bp_status collect(const struct work *w, struct bp_split *ret, struct bp_error *err)
{
    uint64_t count[4] = {0}, next[4] = {0};
    uint32_t *rows;

    for (uint64_t i = 0; i < w->config->nrows; i++) {
        count[w->part[i]]++;
    }
    if (count[BP_TRAIN] == 0) {
        return bp_fail(err, BP_INVALID, "no training row is left of %llu rows", (unsigned long long)w->config->nrows);
    }
    rows = bp_alloc((count[0] + count[1] + count[2]) * sizeof *rows);
    if (rows == NULL) {
        return bp_fail(err, BP_NOMEM, "no memory to split %llu rows", (unsigned long long)w->config->nrows);
    }
    next[BP_VALIDATION] = count[BP_TRAIN];
    next[BP_TEST] = count[BP_TRAIN] + count[BP_VALIDATION];
    for (int p = 0; p < 3; p++) {
        ret->rows[p] = rows + next[p];
        ret->count[p] = count[p];
    }
    for (uint64_t i = 0; i < w->config->nrows; i++) {
        if (w->part[i] < 3) {
            rows[next[w->part[i]]++] = (uint32_t)i;
        }
    }
    return BP_OK;
}

bp_status bp_split_make(const struct bp_split_config *config, struct bp_split *ret, struct bp_error *err)
{
    struct work w = {.config = config, .limit = config->test_first};
    struct remainder *order = NULL;
    bp_status status = check(config, err);

    if (status != BP_OK) {
        return status;
    }
    if (config->group != NULL || config->first != NULL) {
        status = bp_split_whole(config, &w.part, err);
        if (status == BP_OK) {
            assign_own_test(&w);
            status = collect(&w, ret, err);
        }
        goto out;
    }
    status = group_rows(&w, err);
    if (status != BP_OK) {
        goto out;
    }
    order = bp_alloc(w.ngroups * sizeof *order);
    if (order == NULL) {
        status = bp_fail(err, BP_NOMEM, "no memory to split %llu rows", (unsigned long long)config->nrows);
        goto out;
    }
    share_out(&w, BP_TEST, config->test, order);
    share_out(&w, BP_VALIDATION, config->validation, order);
    assign(&w);
    assign_own_test(&w);
    status = collect(&w, ret, err);
out:
    bp_free(order);
    bp_free(w.groups);
    bp_free(w.rows);
    bp_free(w.part);
    return status;
}

void bp_split_done(struct bp_split *split)
{
    bp_free(split->rows[BP_TRAIN]);
    memset(split, 0, sizeof *split);
}

uint64_t bp_split_fingerprint(const struct bp_split *split)
{
    uint64_t hash = BP_HASH_START;

    for (int p = 0; p < 3; p++) {
        hash = bp_hash_word(hash, split->count[p]);
        for (uint64_t i = 0; i < split->count[p]; i++) {
            hash = bp_hash_word(hash, split->rows[p][i]);
        }
    }
    return hash;
}
