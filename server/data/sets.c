/* sets.c: two small hash tables with open addressing, at most half full. */
#include "data/sets.h"

#include "data/table.h"

#include <stdlib.h>
#include <string.h>

static uint32_t hash_double(double v)
{
    uint64_t u;
    memcpy(&u, &v, sizeof u);
    u ^= u >> 32; /* small integers differ in their upper bits only */
    u *= UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(u >> 32);
}

static uint32_t hash_text(const char *p, size_t n)
{
    uint64_t h = n;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        h = (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    for (; n; n--)
        h = (h ^ (unsigned char)*p++) * UINT64_C(0x100000001b3);
    return (uint32_t)(h ^ (h >> 32));
}

static int number_slot(const struct bp_number_set *set, double v)
{
    uint32_t mask = (uint32_t)set->nslots - 1, i = hash_double(v) & mask;
    while (set->counts[i] && set->values[i] != v)
        i = (i + 1) & mask;
    return (int)i;
}

static bp_status number_grow(struct bp_number_set *set, struct bp_error *err)
{
    struct bp_number_set grown = {.n = set->n, .nslots = set->nslots ? set->nslots * 2 : 16};
    grown.values = malloc((size_t)grown.nslots * sizeof *grown.values);
    grown.counts = calloc((size_t)grown.nslots, sizeof *grown.counts);
    if (!grown.values || !grown.counts) {
        bp_number_set_done(&grown);
        return bp_fail(err, BP_NOMEM, "no memory for the values of a column");
    }
    for (int i = 0; i < set->nslots; i++)
        if (set->counts[i]) {
            int slot = number_slot(&grown, set->values[i]);
            grown.values[slot] = set->values[i];
            grown.counts[slot] = set->counts[i];
        }
    grown.small = set->small;
    set->small = NULL;
    if (!grown.small) /* without memory it is slower, that is all */
        grown.small = calloc(BP_SMALL, sizeof *grown.small);
    bp_number_set_done(set);
    *set = grown;
    return BP_OK;
}

/* Takes what was counted aside into the set. */
static void number_flush(struct bp_number_set *set)
{
    for (int i = 0; set->small && i < BP_SMALL; i++) {
        if (set->small[i] > 1)
            set->counts[number_slot(set, i)] += set->small[i] - 1;
        set->small[i] = 0;
    }
}

bp_status bp_number_set_add(struct bp_number_set *set, double value, int64_t *budget, struct bp_error *err)
{
    if (set->full)
        return BP_OK;
    value += 0.0; /* -0 and 0 are one value */
    if (2 * (set->n + 1) > set->nslots) {
        bp_status status = number_grow(set, err);
        if (status != BP_OK)
            return status;
    }
    int slot = number_slot(set, value);
    if (set->small && value >= 0 && value < BP_SMALL && value == (int)value) {
        uint8_t *aside = &set->small[(int)value];
        set->counts[slot] += *aside ? *aside - 1 : 0;
        *aside = 1; /* the next one is counted there */
    }
    if (set->counts[slot]++)
        return BP_OK;
    if (set->n == BP_DISTINCT_MAX || *budget == 0) {
        *budget += set->n;
        bp_number_set_done(set);
        set->full = true;
        return BP_OK;
    }
    set->values[slot] = value;
    set->n++;
    --*budget;
    return BP_OK;
}

struct pair {
    double value;
    int64_t count;
};

static int compare_pairs(const void *a, const void *b)
{
    double x = ((const struct pair *)a)->value, y = ((const struct pair *)b)->value;
    return (x > y) - (x < y);
}

void bp_number_set_sort(struct bp_number_set *set)
{
    struct pair pairs[BP_DISTINCT_MAX];
    int n = 0;
    number_flush(set);
    for (int i = 0; i < set->nslots; i++)
        if (set->counts[i])
            pairs[n++] = (struct pair){set->values[i], set->counts[i]};
    qsort(pairs, (size_t)n, sizeof *pairs, compare_pairs);
    for (int i = 0; i < n; i++) {
        set->values[i] = pairs[i].value;
        set->counts[i] = pairs[i].count;
    }
    for (int i = n; i < set->nslots; i++)
        set->counts[i] = 0; /* sorting again gives the same */
}

void bp_number_set_done(struct bp_number_set *set)
{
    free(set->values);
    free(set->counts);
    free(set->small);
    memset(set, 0, sizeof *set);
}

/* --- texts ---------------------------------------------------------------------------------------------------------- */

static int level_slot(const struct bp_level_set *set, const char *text, size_t size, uint32_t hash)
{
    uint32_t mask = (uint32_t)set->nslots - 1, i = hash & mask;
    for (; set->slots[i]; i = (i + 1) & mask) {
        const struct bp_level *level = &set->levels[set->slots[i] - 1];
        if (level->hash == hash && level->size == size && memcmp(level->text, text, size) == 0)
            break;
    }
    return (int)i;
}

static void level_place(struct bp_level_set *set)
{
    memset(set->slots, 0, (size_t)set->nslots * sizeof *set->slots);
    for (int i = 0; i < set->n; i++)
        set->slots[level_slot(set, set->levels[i].text, set->levels[i].size, set->levels[i].hash)] = i + 1;
}

static bp_status level_grow(struct bp_level_set *set, struct bp_error *err)
{
    int capacity = set->capacity ? set->capacity * 2 : 8;
    struct bp_level *levels = realloc(set->levels, (size_t)capacity * sizeof *levels);
    if (levels)
        set->levels = levels;
    int32_t *slots = realloc(set->slots, 2 * (size_t)capacity * sizeof *slots);
    if (slots)
        set->slots = slots;
    if (!levels || !slots)
        return bp_fail(err, BP_NOMEM, "no memory for the levels of a column");
    set->capacity = capacity;
    set->nslots = 2 * capacity;
    level_place(set);
    return BP_OK;
}

bp_status bp_level_set_add(struct bp_level_set *set, const char *text, size_t size, int64_t *budget,
                           struct bp_error *err)
{
    if (set->full)
        return BP_OK;
    if (set->n == set->capacity) {
        bp_status status = level_grow(set, err);
        if (status != BP_OK)
            return status;
    }
    uint32_t hash = hash_text(text, size);
    int slot = level_slot(set, text, size, hash);
    if (set->slots[slot]) {
        set->last = set->slots[slot] - 1;
        set->levels[set->last].count++;
        return BP_OK;
    }
    if (set->n == BP_DISTINCT_MAX || *budget == 0 || size > BP_LEVEL_MAX) {
        *budget += set->n;
        bp_level_set_done(set);
        set->full = true;
        return BP_OK;
    }
    char *copy = malloc(size + 1);
    if (!copy)
        return bp_fail(err, BP_NOMEM, "no memory for the levels of a column");
    memcpy(copy, text, size);
    copy[size] = 0;
    set->last = set->n;
    set->levels[set->n] =
        (struct bp_level){.text = copy, .size = (uint32_t)size, .hash = hash, .count = 1, .order = set->n};
    set->slots[slot] = ++set->n;
    --*budget;
    return BP_OK;
}

static int compare_levels(const void *a, const void *b)
{
    return strcmp(((const struct bp_level *)a)->text, ((const struct bp_level *)b)->text);
}

void bp_level_set_sort(struct bp_level_set *set)
{
    if (set->n == 0)
        return;
    qsort(set->levels, (size_t)set->n, sizeof *set->levels, compare_levels);
    level_place(set);
}

int bp_level_set_find(const struct bp_level_set *set, const char *text, size_t size)
{
    return set->nslots ? set->slots[level_slot(set, text, size, hash_text(text, size))] - 1 : -1;
}

void bp_level_set_done(struct bp_level_set *set)
{
    for (int i = 0; i < set->n; i++)
        free(set->levels[i].text);
    free(set->levels);
    free(set->slots);
    memset(set, 0, sizeof *set);
}
