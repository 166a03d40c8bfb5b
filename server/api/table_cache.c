/* table_cache.c: see table_cache.h: a few places, taken in turns. */
#include "api/table_cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PLACES 4              /* datasets that jobs are submitted on at a time */
#define TEXT_MAX (256u << 10) /* of a description that is kept: parsed it takes about ten times as much memory */

struct bp_table_cache {
    pthread_mutex_t lock;
    struct bp_table *tables[PLACES];
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
        bp_table_close(cache->tables[i]);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

/* With the lock held. */
static struct bp_table **place_of(struct bp_table_cache *cache, const char *hash)
{
    for (int i = 0; i < PLACES; i++)
        if (cache->tables[i] && !strcmp(cache->tables[i]->hash, hash))
            return &cache->tables[i];
    return NULL;
}

struct bp_table *bp_table_cache_find(struct bp_table_cache *cache, const char *hash, unsigned *ret_drops)
{
    if (!cache)
        return NULL;
    pthread_mutex_lock(&cache->lock);
    struct bp_table **place = place_of(cache, hash), *table = place ? bp_table_share(*place) : NULL;
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
        struct bp_table **place = &cache->tables[cache->next++ % PLACES];
        old = *place;
        *place = bp_table_share(table);
    }
    pthread_mutex_unlock(&cache->lock);
    bp_table_close(old);
}

void bp_table_cache_drop(struct bp_table_cache *cache, const char *hash)
{
    struct bp_table *old = NULL;
    if (!cache)
        return;
    pthread_mutex_lock(&cache->lock);
    cache->drops++;
    struct bp_table **place = place_of(cache, hash);
    if (place) {
        old = *place;
        *place = NULL;
    }
    pthread_mutex_unlock(&cache->lock);
    bp_table_close(old);
}
