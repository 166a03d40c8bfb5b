/* table_cache.c: see table_cache.h: a few places, taken in turns. */
#include "api/table_cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PLACES 4              /* datasets that jobs are submitted on at a time */
#define TEXT_MAX (256u << 10) /* of a description that is kept: parsed it takes about ten times as much memory */

struct place {
    struct bp_table *table;    /* or NULL */
    struct bp_dataset_row row; /* of the dataset whose name led to it, without the description; no name: none */
    uint64_t generation;       /* for which that holds */
};

struct bp_table_cache {
    pthread_mutex_t lock;
    struct place places[PLACES];
    unsigned next;  /* the place that is given away next */
    unsigned drops; /* so far: a table that was opened before one may be of a file that is gone */
};

bp_status bp_table_cache_new(struct bp_table_cache **ret, struct bp_error *err)
{
    struct bp_table_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return bp_fail(err, BP_NOMEM, "out of memory");
    pthread_mutex_init(&cache->lock, NULL);
    *ret = cache;
    return BP_OK;
}

void bp_table_cache_free(struct bp_table_cache *cache)
{
    if (!cache)
        return;
    for (int i = 0; i < PLACES; i++)
        bp_table_close(cache->places[i].table);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

/* With the lock held. */
static struct place *place_of(struct bp_table_cache *cache, const char *hash)
{
    for (int i = 0; i < PLACES; i++)
        if (cache->places[i].table && !strcmp(cache->places[i].table->hash, hash))
            return &cache->places[i];
    return NULL;
}

struct bp_table *bp_table_cache_find(struct bp_table_cache *cache, const char *hash, unsigned *ret_drops)
{
    if (!cache)
        return NULL;
    pthread_mutex_lock(&cache->lock);
    struct place *place = place_of(cache, hash);
    struct bp_table *table = place ? bp_table_share(place->table) : NULL;
    *ret_drops = cache->drops;
    pthread_mutex_unlock(&cache->lock);
    return table;
}

void bp_table_cache_keep(struct bp_table_cache *cache, unsigned drops, struct bp_table *table, size_t size)
{
    if (!cache || size > TEXT_MAX)
        return;
    struct bp_table *old = NULL;
    pthread_mutex_lock(&cache->lock);
    if (drops == cache->drops && !place_of(cache, table->hash)) {
        struct place *place = &cache->places[cache->next++ % PLACES];
        old = place->table;
        *place = (struct place){.table = bp_table_share(table)};
    }
    pthread_mutex_unlock(&cache->lock);
    bp_table_close(old);
}

struct bp_table *bp_table_cache_named(struct bp_table_cache *cache, const char *name, uint64_t generation,
                                      struct bp_dataset_row *ret)
{
    struct bp_table *table = NULL;
    if (!cache)
        return NULL;
    pthread_mutex_lock(&cache->lock);
    for (int i = 0; i < PLACES && !table; i++) {
        const struct place *place = &cache->places[i];
        if (!place->table || place->generation != generation || strcmp(place->row.name, name))
            continue;
        table = bp_table_share(place->table);
        *ret = place->row;
    }
    pthread_mutex_unlock(&cache->lock);
    return table;
}

void bp_table_cache_name(struct bp_table_cache *cache, const struct bp_dataset_row *row, uint64_t generation)
{
    if (!cache)
        return;
    pthread_mutex_lock(&cache->lock);
    struct place *place = place_of(cache, row->table);
    if (place) {
        place->row = *row;
        place->row.description = NULL;
        place->generation = generation;
    }
    pthread_mutex_unlock(&cache->lock);
}

void bp_table_cache_drop(struct bp_table_cache *cache, const char *hash)
{
    struct bp_table *old = NULL;
    if (!cache)
        return;
    pthread_mutex_lock(&cache->lock);
    cache->drops++;
    struct place *place = place_of(cache, hash);
    if (place) {
        old = place->table;
        place->table = NULL;
    }
    pthread_mutex_unlock(&cache->lock);
    bp_table_close(old);
}
