/* pool.c: threads for handlers that block, started when there is work for them, with a queue that has an end.
 *
 * A place in the queue is reserved before a connection is suspended: a full queue is then a plain 503, and handing
 * over cannot fail. A reservation also makes sure that there is at least one thread to serve it.
 *
 * Threads: all functions from any thread; init and stop from the thread that starts and stops the server.
 */
#include "http/internal.h"

#include <string.h>

static struct bp_request *take(struct pool *pool)
{
    while (!pool->head && !pool->stopping) {
        pool->idle++;
        pthread_cond_wait(&pool->wake, &pool->lock);
        pool->idle--;
    }
    struct bp_request *r = pool->head;
    if (r) {
        pool->head = r->next;
        if (!pool->head)
            pool->tail = NULL;
        pool->queued--;
        r->next = NULL;
    }
    return r;
}

static void *serve(void *arg)
{
    struct pool *pool = arg;
    pthread_setname_np(pthread_self(), pool->name);
    pthread_mutex_lock(&pool->lock);
    for (struct bp_request *r = take(pool); r; r = take(pool)) {
        pthread_mutex_unlock(&pool->lock);
        pool->run(r);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

bp_status bp_pool_init(struct pool *pool, const char *name, int threads, int queue, size_t stack,
                       void (*run)(struct bp_request *r), struct bp_error *err)
{
    if (pthread_mutex_init(&pool->lock, NULL) || pthread_cond_init(&pool->wake, NULL))
        return bp_fail(err, BP_NOMEM, "cannot make a lock");
    pool->name = name;
    pool->max_threads = threads;
    pool->max_queued = queue;
    pool->stack = stack;
    pool->run = run;
    pool->ready = true;
    return BP_OK;
}

/* With the lock held. A thread that cannot be had is no failure as long as there is another. */
static void start_thread(struct pool *pool)
{
    pthread_attr_t attr;
    if (pthread_attr_init(&attr))
        return;
    pthread_attr_setstacksize(&attr, pool->stack);
    if (!pthread_create(&pool->ids[pool->threads], &attr, serve, pool))
        pool->threads++;
    pthread_attr_destroy(&attr);
}

bool bp_pool_reserve(struct pool *pool)
{
    bool ok = false;
    pthread_mutex_lock(&pool->lock);
    if (!pool->stopping && pool->queued + pool->reserved < pool->max_queued) {
        if (pool->queued + pool->reserved >= pool->idle && pool->threads < pool->max_threads)
            start_thread(pool);
        ok = pool->threads > 0;
        pool->reserved += ok;
    }
    pthread_mutex_unlock(&pool->lock);
    return ok;
}

void bp_pool_submit(struct pool *pool, struct bp_request *r)
{
    pthread_mutex_lock(&pool->lock);
    r->next = NULL;
    if (pool->tail)
        pool->tail->next = r;
    else
        pool->head = r;
    pool->tail = r;
    pool->reserved--;
    pool->queued++;
    pthread_mutex_unlock(&pool->lock);
    pthread_cond_signal(&pool->wake); /* with the lock it would wake up only to wait for that */
}

void bp_pool_stop(struct pool *pool)
{
    if (!pool->ready || pool->stopping)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->threads; i++)
        pthread_join(pool->ids[i], NULL);
}

void bp_pool_done(struct pool *pool)
{
    if (!pool->ready)
        return;
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    pool->ready = false;
}
