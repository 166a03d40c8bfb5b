/* job_cache.c: see job_cache.h: a small table by id; a newcomer takes the place of whom its hash falls on. */
#include "api/job_cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PLACES 64           /* jobs that are polled at a time; a power of 2 */
#define TEXT_MAX (64 << 10) /* bytes of a text that is kept: all of them together are 4 MiB at most */

struct place {
    char id[BP_ID_SIZE], tag[BP_JOB_TAG];
    uint64_t generation;
    int64_t until; /* monotonic ms; INT64_MAX: as long as nothing is committed */
    char *text;
    size_t size;
};

struct bp_job_cache {
    pthread_mutex_t lock;
    struct place places[PLACES];
};

bp_status bp_job_cache_new(struct bp_job_cache **ret, struct bp_error *err)
{
    struct bp_job_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return bp_fail(err, BP_NOMEM, "out of memory");
    pthread_mutex_init(&cache->lock, NULL);
    *ret = cache;
    return BP_OK;
}

void bp_job_cache_free(struct bp_job_cache *cache)
{
    if (!cache)
        return;
    for (int i = 0; i < PLACES; i++)
        free(cache->places[i].text);
    pthread_mutex_destroy(&cache->lock);
    free(cache);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static struct place *place_of(struct bp_job_cache *cache, const char *id)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (; *id; id++)
        hash = (hash ^ (unsigned char)*id) * 16777619u;
    return &cache->places[(hash ^ (hash >> 15)) & (PLACES - 1)];
}

void bp_job_cache_say(struct bp_request *request, struct bp_reply *reply, const char *tag, char *text_steal,
                      size_t size)
{
    if (bp_reply_not_modified(request, reply, tag)) {
        free(text_steal);
        return;
    }
    bp_reply_header(reply, "ETag", "%s", tag);
    bp_reply_header(reply, "Cache-Control", "no-cache");
    bp_reply_bytes(reply, 200, "application/json", text_steal, size);
}

bool bp_job_cache_reply(struct bp_job_cache *cache, uint64_t generation, const char *id, struct bp_request *request,
                        struct bp_reply *reply)
{
    char *text = NULL, tag[BP_JOB_TAG];
    size_t size = 0;
    if (!cache)
        return false;
    struct place *p = place_of(cache, id);
    pthread_mutex_lock(&cache->lock);
    if (p->text && p->generation == generation && !strcmp(p->id, id) &&
        (p->until == INT64_MAX || now_ms() < p->until) && (text = malloc(p->size + 1))) {
        size = p->size;
        memcpy(text, p->text, size + 1);
        memcpy(tag, p->tag, sizeof tag);
    }
    pthread_mutex_unlock(&cache->lock);
    if (text)
        bp_job_cache_say(request, reply, tag, text, size);
    return text != NULL;
}

void bp_job_cache_keep(struct bp_job_cache *cache, uint64_t generation, const char *id, const char *tag,
                       const char *text, size_t size, bool passing)
{
    char *copy = cache && size <= TEXT_MAX && strlen(id) < BP_ID_SIZE ? malloc(size + 1) : NULL;
    if (!copy)
        return;
    memcpy(copy, text, size);
    copy[size] = '\0';
    struct place fresh = {.generation = generation, .text = copy, .size = size};
    fresh.until = passing ? now_ms() + BP_JOB_CACHE_MS : INT64_MAX;
    strcpy(fresh.id, id);
    strncpy(fresh.tag, tag, sizeof fresh.tag - 1);
    struct place *p = place_of(cache, id);
    pthread_mutex_lock(&cache->lock);
    char *old = p->text;
    *p = fresh;
    pthread_mutex_unlock(&cache->lock);
    free(old);
}
