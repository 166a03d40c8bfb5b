/* transform_sequence.c: rows that belong together: windows of consecutive rows, groups, and time.
 *
 * A sequence is the rows of one group (`window.by`, and `split_by` where there is one) in their order (`order_by`, else
 * the order of the table). The dataset's own test rows are sequences of their own, and rows that are left out for a
 * missing value are in none. A window is `steps` rows of a sequence that follow one another, the next one beginning
 * `stride` rows later; it is named by its last row, whose target it has. So a window is a row to everyone but the
 * gather of its inputs, and never has rows of two groups.
 *
 * For the split each row gets a group, or a place in time (see train/split.h):
 *   split_by               its group; with order_by and without windows the time at which its group begins
 *   order_by               its time
 *   window with `by`       its group
 *   window without `by`    its number in the table: the parts are blocks of the table, one after the other
 */
#include "data/transform_planning.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct bp_sequences {
    uint64_t n;      /* rows in sequences */
    uint32_t *order; /* their numbers, sequence after sequence */
    uint8_t *begins; /* by place in order: a sequence begins here */
};

/* --- ranks of a column -------------------------------------------------------------------------------------------- */

struct ranked {
    double value;
    uint32_t row;
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->value != y->value)
        return x->value < y->value ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

/* The rank of each row's value among the different ones, from 0; missing ones are the last. */
static bp_status rank_column(const struct bp_table *table, const char *name, uint32_t *ret, struct bp_error *err)
{
    int index = bp_table_find(table, name);
    if (index < 0 || table->columns[index].kind == BP_COLUMN_TEXT || table->columns[index].count > 1)
        return bp_fail_at(err, BP_MISMATCH, name, "the dataset has no column '%s' of numbers or categories", name);
    struct ranked *rows = malloc((size_t)table->nrows * sizeof *rows + 1);
    if (!rows)
        return bp_fail(err, BP_NOMEM, "no memory to order the rows by '%s'", name);
    for (uint64_t r = 0; r < table->nrows; r++) {
        double v = bp_column_load(&table->columns[index], table->rows + r * table->stride, 0);
        rows[r] = (struct ranked){isnan(v) ? INFINITY : v, (uint32_t)r};
    }
    qsort(rows, table->nrows, sizeof *rows, compare_ranked);
    uint32_t rank = 0;
    for (uint64_t i = 0; i < table->nrows; i++) {
        rank += i > 0 && rows[i].value != rows[i - 1].value;
        ret[rows[i].row] = rank;
    }
    free(rows);
    return BP_OK;
}

/* --- sequences ---------------------------------------------------------------------------------------------------- */

/* A row's place among all: test split, groups, time, number. */
struct place {
    uint64_t group, time;
};

static int compare_places(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    return x->time < y->time ? -1 : x->time > y->time;
}

static void sequences_done(struct bp_sequences *s)
{
    free(s->order);
    free(s->begins);
    *s = (struct bp_sequences){0};
}

/* Adds the ranks of a column to each place: to its time, or, shifted, to its group. */
static bp_status add_ranks(const struct bp_table *table, const char *name, bool time, int shift, uint32_t *ranks,
                           struct place *places, struct bp_error *err)
{
    bp_status status = rank_column(table, name, ranks, err);
    for (uint64_t r = 0; r < table->nrows && status == BP_OK; r++) {
        if (time)
            places[r].time |= (uint64_t)ranks[r] << 32;
        else
            places[r].group |= (uint64_t)ranks[r] << shift;
    }
    return status;
}

static bp_status make_sequences(const struct bp_transform *t, const struct bp_table *table, struct bp_sequences *ret,
                                struct bp_error *err)
{
    const struct bp_transform_sequence *q = &t->sequence;
    uint64_t n = table->nrows;
    struct bp_sequences s = {.order = malloc((size_t)n * sizeof *s.order + 1), .begins = malloc((size_t)n + 1)};
    struct place *places = malloc((size_t)n * sizeof *places + 1);
    uint32_t *ranks = malloc((size_t)n * sizeof *ranks + 1);
    uint8_t *dropped = calloc((size_t)n + 1, 1);
    bp_status status = s.order && s.begins && places && ranks && dropped
                           ? bp_transform_dropped(t, table, dropped, err)
                           : bp_fail(err, BP_NOMEM, "no memory for sequences of %llu rows", (unsigned long long)n);
    if (status != BP_OK)
        goto out;
    for (uint64_t r = 0; r < n; r++) /* tables have less than 2^31 rows, so ranks have 31 bits */
        places[r] = (struct place){(uint64_t)(r >= table->test_first) << 62, r};
    if (q->by)
        status = add_ranks(table, q->by, false, 31, ranks, places, err);
    if (status == BP_OK && q->split_by && bp_table_find(table, q->split_by) >= 0)
        status = add_ranks(table, q->split_by, false, 0, ranks, places, err);
    if (status == BP_OK && q->order_by)
        status = add_ranks(table, q->order_by, true, 0, ranks, places, err);
    if (status != BP_OK)
        goto out;
    if (q->by || q->split_by || q->order_by)
        qsort(places, n, sizeof *places, compare_places);
    uint64_t group = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t row = (uint32_t)places[i].time;
        if (dropped[row])
            continue;
        s.begins[s.n] = s.n == 0 || places[i].group != group;
        s.order[s.n++] = row;
        group = places[i].group;
    }
out:
    free(places);
    free(ranks);
    free(dropped);
    if (status != BP_OK)
        sequences_done(&s);
    else
        *ret = s;
    return status;
}

/* The end of the sequence that begins at place i. */
static uint64_t sequence_end(const struct bp_sequences *s, uint64_t i)
{
    for (i++; i < s->n && !s->begins[i];)
        i++;
    return i;
}

/* Calls for each window with the places of its first and its last row. */
static void each_window(const struct bp_transform *t, const struct bp_sequences *s,
                        void (*see)(void *ctx, const struct bp_sequences *s, uint64_t first, uint64_t last),
                        void *ctx)
{
    uint64_t steps = (uint64_t)t->sequence.steps, stride = (uint64_t)t->sequence.stride, end;
    for (uint64_t i = 0; i < s->n; i = end) {
        end = sequence_end(s, i);
        for (uint64_t first = i; end - first >= steps; first += stride) {
            see(ctx, s, first, first + steps - 1);
            if (end - first <= stride)
                break;
        }
    }
}

/* --- for the source and the fit ----------------------------------------------------------------------------------- */

bp_status bp_transform_link(const struct bp_transform *t, const struct bp_table *table, struct bp_source *source,
                            struct bp_error *err)
{
    struct bp_sequences s;
    source->steps = t->sequence.steps;
    if (source->steps == 0)
        return BP_OK;
    bp_status status = make_sequences(t, table, &s, err);
    if (status != BP_OK)
        return status;
    uint32_t *previous = malloc((size_t)table->nrows * sizeof *previous + 1);
    for (uint64_t r = 0; r < table->nrows && previous; r++)
        previous[r] = (uint32_t)r; /* rows in no sequence lead nowhere else */
    for (uint64_t i = 1; i < s.n && previous; i++)
        if (!s.begins[i])
            previous[s.order[i]] = s.order[i - 1];
    source->previous = previous;
    sequences_done(&s);
    return previous ? BP_OK : bp_fail(err, BP_NOMEM, "no memory for windows of rows");
}

static void end_here(void *ctx, const struct bp_sequences *s, uint64_t first, uint64_t last)
{
    uint8_t *ends = ctx;
    (void)first;
    ends[s->order[last]] = 1;
}

bp_status bp_transform_exclude_inner(const struct bp_transform *t, const struct bp_table *table, uint8_t *exclude,
                                     struct bp_error *err)
{
    struct bp_sequences s;
    uint8_t *ends = calloc((size_t)table->nrows + 1, 1);
    bp_status status = ends ? make_sequences(t, table, &s, err) : bp_fail(err, BP_NOMEM, "no memory for windows");
    if (status == BP_OK) {
        each_window(t, &s, end_here, ends);
        for (uint64_t r = 0; r < table->nrows; r++)
            exclude[r] |= !ends[r];
        sequences_done(&s);
    }
    free(ends);
    return status;
}

bp_status bp_transform_cover(const struct bp_transform *t, const struct bp_table *table, const struct bp_split *split,
                             struct bp_split *ret, struct bp_error *err)
{
    struct bp_source source = {0};
    uint8_t *seen = calloc((size_t)table->nrows + 1, 1);
    uint32_t *rows = malloc((size_t)table->nrows * sizeof *rows + 1);
    bp_status status = seen && rows ? bp_transform_link(t, table, &source, err)
                                    : bp_fail(err, BP_NOMEM, "no memory for the rows of the windows");
    *ret = (struct bp_split){0};
    for (uint64_t i = 0; i < split->count[BP_TRAIN] && status == BP_OK; i++) {
        uint32_t row = split->rows[BP_TRAIN][i];
        for (int k = 0; k < t->sequence.steps; k++, row = source.previous[row])
            seen[row] = 1;
    }
    for (uint64_t r = 0; r < table->nrows && status == BP_OK; r++)
        if (seen[r])
            rows[ret->count[BP_TRAIN]++] = (uint32_t)r;
    free(seen);
    free((void *)source.previous);
    if (status == BP_OK)
        ret->rows[BP_TRAIN] = rows;
    else
        free(rows);
    return status;
}

/* --- for the split ------------------------------------------------------------------------------------------------ */

void bp_division_done(struct bp_division *division)
{
    free(division->group);
    free(division->first);
    free(division->last);
    *division = (struct bp_division){0};
}

struct extents {
    const uint32_t *time;
    uint32_t *first;
};

static void reach_back(void *ctx, const struct bp_sequences *s, uint64_t first, uint64_t last)
{
    struct extents *e = ctx;
    e->first[s->order[last]] = e->time[s->order[first]];
}

/* By time: the ranks of a column, or the numbers of the rows; a window has the ranks of all of its rows. */
static bp_status divide_in_time(const struct bp_transform *t, const struct bp_table *table, struct bp_division *d,
                                struct bp_error *err)
{
    struct bp_sequences s;
    bp_status status = BP_OK;
    for (uint64_t r = 0; r < table->nrows; r++)
        d->last[r] = (uint32_t)r;
    if (t->sequence.order_by)
        status = rank_column(table, t->sequence.order_by, d->last, err);
    if (status != BP_OK)
        return status;
    memcpy(d->first, d->last, (size_t)table->nrows * sizeof *d->first);
    if (t->sequence.steps == 0)
        return BP_OK;
    status = make_sequences(t, table, &s, err);
    if (status != BP_OK)
        return status;
    each_window(t, &s, reach_back, &(struct extents){d->last, d->first});
    sequences_done(&s);
    return BP_OK;
}

/* By the time at which its group begins, which is the same for all rows of a group. */
static bp_status divide_groups_in_time(const struct bp_transform *t, const struct bp_table *table,
                                       struct bp_division *d, struct bp_error *err)
{
    uint64_t n = table->nrows;
    bp_status status = rank_column(table, t->sequence.order_by, d->last, err);
    for (uint64_t r = 0; r < n; r++)
        d->first[r] = UINT32_MAX;
    for (uint64_t r = 0; r < n && status == BP_OK; r++)
        if (d->last[r] < d->first[d->group[r]])
            d->first[d->group[r]] = d->last[r];
    for (uint64_t r = 0; r < n && status == BP_OK; r++)
        d->last[r] = d->first[d->group[r]];
    if (status == BP_OK)
        memcpy(d->first, d->last, (size_t)n * sizeof *d->first);
    return status;
}

bool bp_transform_divides(const struct bp_transform *t)
{
    return t->sequence.steps > 0 || t->sequence.split_by || t->sequence.order_by;
}

bp_status bp_transform_divide(const struct bp_transform *t, const struct bp_table *table, struct bp_division *ret,
                              struct bp_error *err)
{
    const struct bp_transform_sequence *q = &t->sequence;
    const char *by = q->split_by ? q->split_by : q->steps > 0 && !q->order_by ? q->by : NULL;
    size_t bytes = (size_t)table->nrows * sizeof(uint32_t) + 1;
    struct bp_division d = {0};
    bp_status status = BP_OK;
    if (!bp_transform_divides(t)) {
        *ret = d;
        return BP_OK;
    }
    d.group = by ? malloc(bytes) : NULL;
    bool time = !by || (q->order_by && q->steps == 0);
    d.first = time ? malloc(bytes) : NULL;
    d.last = time ? malloc(bytes) : NULL;
    if ((by && !d.group) || (time && (!d.first || !d.last)))
        status = bp_fail(err, BP_NOMEM, "no memory to divide %llu rows", (unsigned long long)table->nrows);
    if (status == BP_OK && by)
        status = rank_column(table, by, d.group, err);
    if (status == BP_OK && time)
        status = by ? divide_groups_in_time(t, table, &d, err) : divide_in_time(t, table, &d, err);
    if (status == BP_OK && by && time) { /* the groups are in their ranks now */
        free(d.group);
        d.group = NULL;
    }
    if (status != BP_OK)
        bp_division_done(&d);
    else
        *ret = d;
    return status;
}

/* --- planning ----------------------------------------------------------------------------------------------------- */

/* A column that groups or orders the rows: a copy of its name in *ret. It is no feature unless it was named as one: the
 * number of a group says nothing about a new group, and a time lies beyond those that were learned. */
static bp_status take_column(struct bp_planning *p, const char *pointer, const json_t *value, bool orders, char **ret,
                             struct bp_error *err)
{
    const char *name = json_string_value(value), *nearest;
    if (!name)
        return BP_OK;
    int index = bp_table_find(p->table, name);
    const struct bp_table_column *c = index >= 0 ? &p->table->columns[index] : NULL;
    nearest = c ? NULL : bp_nearest(name, p->names, (size_t)p->table->ncolumns);
    if (!c)
        bp_problems_add(p->problems, pointer, "unknown_column", nearest, bp_planning_names(p),
                        nearest ? "the dataset has no column '%s'; did you mean '%s'?"
                                : "the dataset has no column '%s'",
                        name, nearest);
    else if (c->kind == BP_COLUMN_TEXT)
        bp_problems_add(p->problems, pointer, "text_column", NULL, NULL,
                        "column '%s' is text with too many different values to be kept: number its %s", name,
                        orders ? "times, as seconds for instance" : "groups");
    else if (c->count > 1)
        bp_problems_add(p->problems, pointer, "unsupported", NULL, NULL, "column '%s' is an array of numbers", name);
    else if (orders && c->missing > 0)
        bp_problems_add(p->problems, pointer, "missing_values", NULL, NULL,
                        "'%s' has %lld missing values: every row needs its place in time", name,
                        (long long)c->missing);
    else if (!(*ret = strdup(name)))
        return bp_fail(err, BP_NOMEM, "no memory for a column");
    if (*ret && p->chosen[index] == BP_CHOSEN_BY_PATTERN) {
        p->chosen[index] = BP_CHOSEN_NOT;
        bp_transform_warn(p->t, "left_out", pointer,
                          "column '%s' %s the rows and is no feature; name it in \"features\" to learn from it too",
                          name, orders ? "orders" : "groups");
    }
    return BP_OK;
}

bp_status bp_planning_sequence(struct bp_planning *p, struct bp_error *err)
{
    const json_t *window = json_object_get(p->dataset, "window");
    struct bp_transform_sequence *q = &p->t->sequence;
    q->steps = (int)json_integer_value(json_object_get(window, "rows"));
    q->stride = json_object_get(window, "stride") ? (int)json_integer_value(json_object_get(window, "stride")) : 1;
    if (json_is_object(window) && (q->steps < 1 || q->steps > BP_WINDOW_MAX || q->stride < 1))
        bp_problems_add(p->problems, "/dataset/window", "out_of_range", NULL, NULL,
                        "a window has 1 to %d rows, and a stride of at least 1", BP_WINDOW_MAX);
    bp_status status = take_column(p, "/dataset/window/by", json_object_get(window, "by"), false, &q->by, err);
    if (status == BP_OK)
        status =
            take_column(p, "/dataset/split_by", json_object_get(p->dataset, "split_by"), false, &q->split_by, err);
    if (status == BP_OK)
        status =
            take_column(p, "/dataset/order_by", json_object_get(p->dataset, "order_by"), true, &q->order_by, err);
    return status;
}

struct count {
    uint64_t windows;
};

static void count_window(void *ctx, const struct bp_sequences *s, uint64_t first, uint64_t last)
{
    (void)s, (void)first, (void)last;
    ((struct count *)ctx)->windows++;
}

bp_status bp_planning_windows(struct bp_planning *p, struct bp_error *err)
{
    const struct bp_transform_sequence *q = &p->t->sequence;
    struct bp_sequences s;
    uint64_t sequences = 0, shorter = 0, rows = 0, longest = 0, end;
    struct count count = {0};
    if (q->steps == 0)
        return BP_OK;
    bp_status status = make_sequences(p->t, p->table, &s, err);
    if (status != BP_OK)
        return status;
    each_window(p->t, &s, count_window, &count);
    for (uint64_t i = 0; i < s.n; i = end) {
        end = sequence_end(&s, i);
        sequences++;
        longest = end - i > longest ? end - i : longest;
        if (end - i < (uint64_t)q->steps) {
            shorter++;
            rows += end - i;
        }
    }
    sequences_done(&s);
    if (count.windows == 0)
        bp_problems_add(p->problems, "/dataset/window/rows", "no_windows", NULL, NULL,
                        "no window is left: the longest sequence has %llu rows, and a window takes %d",
                        (unsigned long long)longest, q->steps);
    else if (shorter > 0)
        bp_transform_warn(p->t, "short_groups", "/dataset/window",
                          "%llu of %llu sequences have fewer rows than the window of %d and are left out, with %llu "
                          "rows in all",
                          (unsigned long long)shorter, (unsigned long long)sequences, q->steps,
                          (unsigned long long)rows);
    return BP_OK;
}
