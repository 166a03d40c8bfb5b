/* split_whole.c: dividing rows that belong together: by group, and in time; see split.h.
 *
 * Both count rows in a table with an entry for each group or rank, so they are linear in the rows.
 */
#include "train/split_internal.h"

#include "base/memory.h"
#include "base/random.h"

#include <stdbool.h>
#include <string.h>

enum { NONE = 3 };

struct whole {
    const struct bp_split_config *config;
    uint8_t *part;   /* of each row */
    uint64_t chosen; /* rows to divide */
    uint64_t n;      /* groups, or ranks */
    uint64_t *count; /* rows of each group, or of each first rank */
};

static bool is_chosen(const struct bp_split_config *c, uint64_t row)
{
    return c->exclude == NULL || c->exclude[row] == 0;
}

static uint64_t wanted_rows(const struct whole *w, double fraction)
{
    return (uint64_t)((double)w->chosen * fraction + 0.5);
}

/* --- by group ---------------------------------------------------------------------------------------------------- */

struct groups {
    uint32_t *order;  /* groups that have rows, in the order in which they are drawn */
    uint64_t n, left; /* and how many are not given away */
    uint8_t *part;    /* of each group */
};

static void give(const struct whole *w, struct groups *g, uint64_t at, int part, uint64_t *given)
{
    g->part[g->order[at]] = (uint8_t)part;
    g->left--;
    *given += w->count[g->order[at]];
}

/* Draws groups for a part: each one that brings it closer to the rows wanted. */
static void draw(const struct whole *w, struct groups *g, int part, uint64_t wanted)
{
    uint64_t given = 0, smallest = g->n;

    for (uint64_t i = 0; i < g->n && g->left > 1; i++) {
        uint64_t size = w->count[g->order[i]];

        if (g->part[g->order[i]] == BP_TRAIN && 2 * given + size <= 2 * wanted) {
            give(w, g, i, part, &given);
        }
    }
    if (given > 0 || wanted == 0 || g->left < 2) {
        return;
    }
    for (uint64_t i = 0; i < g->n; i++) {
        if (g->part[g->order[i]] == BP_TRAIN &&
            (smallest == g->n || w->count[g->order[i]] < w->count[g->order[smallest]])) {
            smallest = i;
        }
    }
    give(w, g, smallest, part, &given);
}

static bp_status by_group(struct whole *w, struct bp_error *err)
{
    const struct bp_split_config *c = w->config;
    struct groups g = {.order = bp_alloc(w->n * sizeof *g.order), .part = bp_alloc(w->n)};
    bp_status status = BP_OK;

    if (g.order == NULL || g.part == NULL) {
        status = bp_fail(err, BP_NOMEM, "no memory to split %llu groups", (unsigned long long)w->n);
        goto out;
    }
    for (uint64_t i = 0; i < c->test_first; i++) {
        w->count[c->group[i]] += is_chosen(c, i);
    }
    for (uint64_t i = 0; i < w->n; i++) {
        if (w->count[i] > 0) {
            g.order[g.n++] = (uint32_t)i;
        }
    }
    g.left = g.n;
    bp_random_shuffle(bp_split_seed(c), bp_stream(BP_STREAM_SPLIT, 1), 0, g.order, g.n);
    draw(w, &g, BP_TEST, wanted_rows(w, c->test));
    draw(w, &g, BP_VALIDATION, wanted_rows(w, c->validation));
    for (uint64_t i = 0; i < c->test_first; i++) {
        w->part[i] = is_chosen(c, i) ? g.part[c->group[i]] : NONE;
    }
out:
    bp_free(g.order);
    bp_free(g.part);
    return status;
}

/* --- in time ----------------------------------------------------------------------------------------------------- */

/* The rank from which on, below `end`, there are about `wanted` rows, as near as can be; some row ends before it. */
static uint64_t cut(struct whole *w, uint64_t end, uint64_t wanted)
{
    const struct bp_split_config *c = w->config;
    uint64_t lowest = end, best = end, best_off = wanted, rows = 0;

    memset(w->count, 0, w->n * sizeof *w->count);
    for (uint64_t i = 0; i < c->test_first; i++) {
        if (is_chosen(c, i) && c->last[i] < end) {
            w->count[c->first[i]]++;
            lowest = c->last[i] < lowest ? c->last[i] : lowest;
        }
    }
    for (uint64_t rank = end; rank-- > 0 && rank > lowest && wanted > 0;) {
        uint64_t off;

        rows += w->count[rank];
        off = rows < wanted ? wanted - rows : rows - wanted;
        if (w->count[rank] > 0 && off < best_off) {
            best = rank;
            best_off = off;
        }
    }
    return best;
}

static void in_time(struct whole *w)
{
    const struct bp_split_config *c = w->config;
    uint64_t test = cut(w, w->n, wanted_rows(w, c->test));
    uint64_t validation = cut(w, test, wanted_rows(w, c->validation));

    for (uint64_t i = 0; i < c->test_first; i++) {
        uint64_t first = c->first[i], last = c->last[i];

        w->part[i] = !is_chosen(c, i)                     ? NONE
                     : last < validation                  ? BP_TRAIN
                     : first >= validation && last < test ? BP_VALIDATION
                     : first >= test                      ? BP_TEST
                                                          : NONE;
    }
}

bp_status bp_split_whole(const struct bp_split_config *config, uint8_t **ret, struct bp_error *err)
{
    struct whole w = {.config = config};
    bp_status status = BP_OK;

    for (uint64_t i = 0; i < config->test_first; i++) {
        uint64_t high = config->group != NULL ? config->group[i] : config->last[i];

        if (!is_chosen(config, i)) {
            continue;
        }
        if (high >= config->nrows || (config->group == NULL && config->first[i] > high)) {
            return bp_fail(err, BP_INVALID, "row %llu has no place among %llu groups or ranks", (unsigned long long)i,
                           (unsigned long long)config->nrows);
        }
        w.chosen++;
        w.n = high + 1 > w.n ? high + 1 : w.n;
    }
    w.count = bp_alloc(w.n * sizeof *w.count);
    w.part = bp_alloc(config->nrows);
    if (w.count == NULL || w.part == NULL) {
        status = bp_fail(err, BP_NOMEM, "no memory to split %llu rows", (unsigned long long)config->nrows);
        goto out;
    }
    memset(w.part, NONE, config->nrows);
    if (config->group != NULL) {
        status = by_group(&w, err);
    } else {
        in_time(&w);
    }
out:
    bp_free(w.count);
    if (status != BP_OK) {
        bp_free(w.part);
        return status;
    }
    *ret = w.part;
    return BP_OK;
}
