/* saver.c: one buffer, one thread, three states: the buffer is free, being filled, or being written. */
#include "jobs/saver.h"

#include "base/memory.h"
#include "jobs/jobs_internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum state { IDLE, FILLING, WRITING, ENDING };

struct bp_saver {
    struct bp_store *store;
    bp_saver_note *note;
    void *ctx;
    uint8_t *buffer;
    size_t size; /* bytes to write */
    struct bp_checkpoint_row row;
    bp_store_fn *also;
    void *also_arg;
    void (*free_arg)(void *);
    pthread_t thread;
    pthread_mutex_t mutex; /* guards state, abandoned, status and err */
    pthread_cond_t changed;
    enum state state;
    bool abandoned;
    bp_status status; /* of the last checkpoint */
    struct bp_error err;
};

/* Sleeps for a second, or until abandoned. True when it is worth another try. */
static bool wait_for_room(struct bp_saver *s)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec++;
    pthread_mutex_lock(&s->mutex);
    while (!s->abandoned && !pthread_cond_timedwait(&s->changed, &s->mutex, &until))
        continue;
    bool again = !s->abandoned;
    pthread_mutex_unlock(&s->mutex);
    return again;
}

static void write_one(struct bp_saver *s)
{
    struct bp_error err;
    bp_status status;
    do {
        memset(&err, 0, sizeof err);
        status = bp_store_checkpoint(s->store, &s->row, s->buffer, s->also, s->also_arg, &err);
        s->note(s->ctx, status, &s->row, &err);
    } while (bp_may_pass(status) && wait_for_room(s));
    bp_checkpoint_row_done(&s->row);
    memset(&s->row, 0, sizeof s->row);
    if (s->free_arg)
        s->free_arg(s->also_arg);
    s->also_arg = NULL;
    s->err = err;
    s->status = status;
}

static void *saver_main(void *arg)
{
    struct bp_saver *s = arg;
    pthread_mutex_lock(&s->mutex);
    for (;;) {
        while (s->state != WRITING && s->state != ENDING)
            pthread_cond_wait(&s->changed, &s->mutex);
        if (s->state == ENDING)
            break;
        pthread_mutex_unlock(&s->mutex);
        write_one(s);
        pthread_mutex_lock(&s->mutex);
        s->state = IDLE;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

bp_status bp_saver_new(struct bp_store *store, size_t capacity, bp_saver_note *note, void *ctx, struct bp_saver **ret,
                       struct bp_error *err)
{
    struct bp_saver *s = calloc(1, sizeof *s);
    uint8_t *buffer = s ? bp_alloc(capacity) : NULL;
    if (!buffer) {
        free(s);
        return bp_fail(err, BP_NOMEM, "no memory for a checkpoint of %zu bytes", capacity);
    }
    s->store = store;
    s->note = note;
    s->ctx = ctx;
    s->buffer = buffer;
    pthread_mutex_init(&s->mutex, NULL);
    pthread_condattr_t steady;
    pthread_condattr_init(&steady);
    pthread_condattr_setclock(&steady, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &steady);
    pthread_condattr_destroy(&steady);
    if (pthread_create(&s->thread, NULL, saver_main, s)) {
        pthread_cond_destroy(&s->changed);
        pthread_mutex_destroy(&s->mutex);
        bp_free(s->buffer);
        free(s);
        return bp_fail(err, BP_NOMEM, "cannot create the thread that stores checkpoints");
    }
    *ret = s;
    return BP_OK;
}

/* With the mutex held: waits until the buffer is free. */
static void wait_idle(struct bp_saver *s)
{
    while (s->state == WRITING)
        pthread_cond_wait(&s->changed, &s->mutex);
}

void bp_saver_free(struct bp_saver *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->mutex);
    wait_idle(s);
    s->state = ENDING;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->mutex);
    bp_free(s->buffer);
    free(s);
}

uint8_t *bp_saver_begin(struct bp_saver *s, bool wait)
{
    uint8_t *buffer = NULL;
    pthread_mutex_lock(&s->mutex);
    if (wait)
        wait_idle(s);
    if (s->state != WRITING) {
        s->state = FILLING;
        buffer = s->buffer;
    }
    pthread_mutex_unlock(&s->mutex);
    return buffer;
}

void bp_saver_commit(struct bp_saver *s, size_t size, const struct bp_checkpoint_row *row_steal, bp_store_fn *also,
                     void *also_arg_steal, void (*free_arg)(void *))
{
    pthread_mutex_lock(&s->mutex);
    s->size = size;
    s->row = *row_steal;
    s->row.bytes = (int64_t)size;
    s->also = also;
    s->also_arg = also_arg_steal;
    s->free_arg = free_arg;
    s->state = WRITING;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}

bp_status bp_saver_wait(struct bp_saver *s, struct bp_error *err)
{
    pthread_mutex_lock(&s->mutex);
    wait_idle(s);
    bp_status status = s->status;
    if (status && err)
        *err = s->err;
    pthread_mutex_unlock(&s->mutex);
    return status;
}

void bp_saver_abandon(struct bp_saver *s)
{
    pthread_mutex_lock(&s->mutex);
    s->abandoned = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->mutex);
}
