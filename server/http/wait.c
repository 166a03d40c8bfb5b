/* wait.c: long polls: requests that are put aside until something happens to their topic, or their time is up.
 *
 * No notification is lost. A handler reads a state and then asks to be woken when it changes; between the two it may
 * have changed. So each notification takes a number, the last one of a topic is remembered on a mark, and a request
 * that comes to the table with an older number than its mark's is not put aside but handled again at once. Marks are
 * shared by topics of the same hash; when another topic's name stands on it nobody can tell, and the request is
 * handled again for nothing, which is harmless.
 *
 * One thread sleeps until the next deadline and wakes what is due; it does not run when nobody waits.
 *
 * Threads: all functions from any thread, under one lock. A request in the table is suspended and belongs to the
 * table; who takes it out hands it to bp_dispatch_again, without the lock.
 */
#include "http/internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t hash_topic(const char *topic)
{
    uint32_t hash = 2166136261u; /* FNV-1a: topics are ids of ours, nobody can choose them to collide */
    for (; *topic; topic++)
        hash = (hash ^ (unsigned char)*topic) * 16777619u;
    return hash ^ (hash >> 15);
}

static struct bp_request **bucket_of(struct waits *waits, const char *topic)
{
    return &waits->buckets[hash_topic(topic) & (WAIT_BUCKETS - 1)];
}

static void take_out(struct waits *waits, struct bp_request *r)
{
    if (r->wait_prev)
        r->wait_prev->wait_next = r->wait_next;
    else
        *bucket_of(waits, r->topic) = r->wait_next;
    if (r->wait_next)
        r->wait_next->wait_prev = r->wait_prev;
    r->wait_prev = r->wait_next = NULL;
}

static void release(struct waits *waits, struct bp_request *r)
{
    if (r->slot)
        waits->slots--;
    r->slot = false;
}

/* Moves a request from the table to a list of woken ones, with the lock held. */
static void wake(struct waits *waits, struct bp_request *r, int waited, struct bp_request **list)
{
    take_out(waits, r);
    release(waits, r);
    r->waited = waited;
    r->next = *list;
    *list = r;
}

static void run_woken(struct bp_request *list)
{
    while (list) {
        struct bp_request *r = list;
        list = r->next;
        r->next = NULL;
        bp_dispatch_again(r);
    }
}

uint64_t bp_waits_sequence(struct waits *waits)
{
    pthread_mutex_lock(&waits->lock);
    uint64_t sequence = waits->sequence;
    pthread_mutex_unlock(&waits->lock);
    return sequence;
}

bool bp_waits_reserve(struct waits *waits)
{
    pthread_mutex_lock(&waits->lock);
    bool ok = waits->slots < HTTP_WAITERS;
    waits->slots += ok;
    pthread_mutex_unlock(&waits->lock);
    return ok;
}

void bp_waits_release(struct waits *waits)
{
    pthread_mutex_lock(&waits->lock);
    waits->slots--;
    pthread_mutex_unlock(&waits->lock);
}

/* Whether a notification came while the handler ran; with the lock held. */
static bool has_happened(const struct waits *waits, const struct bp_request *r)
{
    const struct wait_mark *mark = &waits->marks[hash_topic(r->topic) & (WAIT_MARKS - 1)];
    return mark->sequence > r->seen && (strcmp(mark->topic, r->topic) || mark->version > r->since);
}

bool bp_waits_add(struct waits *waits, struct bp_request *r)
{
    bool added = false;
    pthread_mutex_lock(&waits->lock);
    if (waits->draining || bp_clock() >= r->deadline) {
        r->waited = 2;
    } else if (has_happened(waits, r)) {
        r->waited = 1;
    } else {
        struct bp_request **bucket = bucket_of(waits, r->topic);
        r->wait_prev = NULL;
        r->wait_next = *bucket;
        if (r->wait_next)
            r->wait_next->wait_prev = r;
        *bucket = r;
        if (r->deadline < waits->next_deadline)
            pthread_cond_signal(&waits->wake);
        added = true;
    }
    if (!added)
        release(waits, r);
    pthread_mutex_unlock(&waits->lock);
    return added;
}

void bp_waits_notify(struct waits *waits, const char *topic, int64_t version)
{
    struct bp_request *woken = NULL;
    pthread_mutex_lock(&waits->lock);
    struct wait_mark *mark = &waits->marks[hash_topic(topic) & (WAIT_MARKS - 1)];
    if (strcmp(mark->topic, topic)) {
        strncpy(mark->topic, topic, sizeof mark->topic - 1);
        mark->version = version;
    } else if (version > mark->version) {
        mark->version = version;
    }
    mark->sequence = ++waits->sequence;
    for (struct bp_request *r = *bucket_of(waits, topic), *next; r; r = next) {
        next = r->wait_next;
        if (!strcmp(r->topic, topic) && version > r->since)
            wake(waits, r, 1, &woken);
    }
    pthread_mutex_unlock(&waits->lock);
    run_woken(woken);
}

/* Takes out what is due by `now` and finds the next deadline; with the lock held. */
static struct bp_request *take_due(struct waits *waits, double now)
{
    struct bp_request *due = NULL;
    waits->next_deadline = INFINITY;
    for (int i = 0; i < WAIT_BUCKETS && waits->slots > 0; i++)
        for (struct bp_request *r = waits->buckets[i], *next; r; r = next) {
            next = r->wait_next;
            if (r->deadline <= now)
                wake(waits, r, 2, &due);
            else if (r->deadline < waits->next_deadline)
                waits->next_deadline = r->deadline;
        }
    return due;
}

static void *watch(void *arg)
{
    struct waits *waits = arg;
    pthread_mutex_lock(&waits->lock);
    while (!waits->stopping) {
        struct bp_request *due = take_due(waits, bp_clock());
        if (due) {
            pthread_mutex_unlock(&waits->lock);
            run_woken(due);
            pthread_mutex_lock(&waits->lock);
        } else if (isinf(waits->next_deadline)) {
            pthread_cond_wait(&waits->wake, &waits->lock);
        } else {
            struct timespec until = {.tv_sec = (time_t)waits->next_deadline};
            until.tv_nsec = (long)(1e9 * (waits->next_deadline - (double)until.tv_sec));
            pthread_cond_timedwait(&waits->wake, &waits->lock, &until);
        }
    }
    pthread_mutex_unlock(&waits->lock);
    return NULL;
}

bp_status bp_waits_start(struct waits *waits, struct bp_error *err)
{
    pthread_condattr_t attr;
    waits->marks = calloc(WAIT_MARKS, sizeof *waits->marks);
    if (!waits->marks)
        return bp_fail(err, BP_NOMEM, "out of memory");
    waits->next_deadline = INFINITY;
    pthread_mutex_init(&waits->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&waits->wake, &attr);
    pthread_condattr_destroy(&attr);
    int failed = pthread_create(&waits->thread, NULL, watch, waits);
    if (failed)
        return bp_fail(err, BP_NOMEM, "cannot start a thread: %s", strerror(failed));
    waits->started = true;
    return BP_OK;
}

void bp_waits_drain(struct waits *waits)
{
    struct bp_request *woken = NULL;
    pthread_mutex_lock(&waits->lock);
    waits->draining = true;
    for (int i = 0; i < WAIT_BUCKETS; i++)
        while (waits->buckets[i])
            wake(waits, waits->buckets[i], 2, &woken);
    pthread_mutex_unlock(&waits->lock);
    run_woken(woken);
}

void bp_waits_stop(struct waits *waits)
{
    if (!waits->started)
        return;
    pthread_mutex_lock(&waits->lock);
    waits->stopping = true;
    pthread_cond_signal(&waits->wake);
    pthread_mutex_unlock(&waits->lock);
    pthread_join(waits->thread, NULL);
}

void bp_waits_done(struct waits *waits)
{
    if (waits->started) {
        pthread_cond_destroy(&waits->wake);
        pthread_mutex_destroy(&waits->lock);
    }
    free(waits->marks);
    waits->marks = NULL;
    waits->started = false;
}
