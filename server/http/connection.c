/* connection.c: who is connected, how many from where, and for how long they may keep us waiting.
 *
 * libmicrohttpd knows inactivity only: one byte every few seconds keeps a connection open for ever. The reaper looks
 * at all connections once a second and shuts down those that are over a deadline: headers within 10 s, a body at
 * 1 KiB/s or more after its first 10 s and within an hour. A shut down socket wakes libmicrohttpd, which then frees
 * everything in its usual way.
 *
 * Refuses: judging a connection whose handler runs or whose reply is being sent; there the idle timeout holds.
 *
 * Threads: all functions from any thread, under one lock. A descriptor is valid as long as its entry is in the list:
 * libmicrohttpd tells us before it closes.
 */
#include "http/internal.h"

#include "log.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

/* The address as 16 bytes; true for loopback, and for what is no internet address at all. */
static bool read_address(const struct sockaddr *address, unsigned char ret[16])
{
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    static const unsigned char one[16] = {[15] = 1};
    memset(ret, 0, 16);
    if (address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof v4);
        memcpy(ret, mapped, 12);
        memcpy(ret + 12, &v4.sin_addr, 4);
    } else if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, address, sizeof v6);
        memcpy(ret, &v6.sin6_addr, 16);
    } else {
        return true;
    }
    return !memcmp(ret, one, 16) || (!memcmp(ret, mapped, 12) && ret[12] == 127);
}

bool bp_conns_admit(struct conns *conns, const struct sockaddr *address, socklen_t size)
{
    unsigned char wanted[16];
    (void)size;
    if (read_address(address, wanted))
        return true;
    int count = 0;
    pthread_mutex_lock(&conns->lock);
    for (const struct conn *c = conns->head; c; c = c->next)
        count += !memcmp(c->address, wanted, 16);
    pthread_mutex_unlock(&conns->lock);
    return count < HTTP_PER_ADDRESS;
}

struct conn *bp_conns_add(struct conns *conns, int fd, const struct sockaddr *address)
{
    struct conn *conn = calloc(1, sizeof *conn);
    if (!conn)
        return NULL;
    conn->fd = fd;
    conn->phase = CONN_HEADERS;
    conn->since = bp_clock();
    conn->loopback = read_address(address, conn->address);
    pthread_mutex_lock(&conns->lock);
    conn->next = conns->head;
    if (conn->next)
        conn->next->prev = conn;
    conns->head = conn;
    pthread_mutex_unlock(&conns->lock);
    return conn;
}

void bp_conns_remove(struct conns *conns, struct conn *conn)
{
    pthread_mutex_lock(&conns->lock);
    if (conn->prev)
        conn->prev->next = conn->next;
    else
        conns->head = conn->next;
    if (conn->next)
        conn->next->prev = conn->prev;
    pthread_mutex_unlock(&conns->lock);
    free(conn);
}

void bp_conns_phase(struct conns *conns, struct conn *conn, enum conn_phase phase)
{
    pthread_mutex_lock(&conns->lock);
    /* Only the first request of a connection must begin at once. */
    conn->extra = phase == CONN_HEADERS ? HTTP_IDLE_SECONDS : 0;
    conn->phase = phase;
    conn->since = bp_clock();
    conn->bytes = 0;
    pthread_mutex_unlock(&conns->lock);
}

void bp_conns_bytes(struct conns *conns, struct conn *conn, int64_t bytes)
{
    pthread_mutex_lock(&conns->lock);
    conn->bytes = bytes;
    pthread_mutex_unlock(&conns->lock);
}

static bool is_overdue(const struct conn *c, double now)
{
    double age = now - c->since;
    switch (c->phase) {
    case CONN_HEADERS:
        return age > HTTP_HEADER_SECONDS + c->extra;
    case CONN_BODY:
        return age > HTTP_BODY_SECONDS ||
               (age > HTTP_BODY_GRACE && (double)c->bytes < (age - HTTP_BODY_GRACE) * HTTP_BODY_FLOOR);
    case CONN_BUSY:
        break;
    }
    return false;
}

static void *reap(void *arg)
{
    struct conns *conns = arg;
    pthread_mutex_lock(&conns->lock);
    while (!conns->stopping) {
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += 1;
        pthread_cond_timedwait(&conns->wake, &conns->lock, &until);
        double now = bp_clock();
        for (struct conn *c = conns->head; c; c = c->next) {
            if (c->cut || !is_overdue(c, now))
                continue;
            c->cut = true;
            shutdown(c->fd, SHUT_RDWR);
            bp_log(BP_LOG_DEBUG, "connection cut", "reason", c->phase == CONN_BODY ? "slow body" : "slow header",
                   NULL);
        }
    }
    pthread_mutex_unlock(&conns->lock);
    return NULL;
}

bp_status bp_conns_start(struct conns *conns, struct bp_error *err)
{
    pthread_condattr_t attr;
    pthread_mutex_init(&conns->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&conns->wake, &attr);
    pthread_condattr_destroy(&attr);
    int failed = pthread_create(&conns->reaper, NULL, reap, conns);
    if (failed)
        return bp_fail(err, BP_NOMEM, "cannot start a thread: %s", strerror(failed));
    conns->started = true;
    return BP_OK;
}

void bp_conns_stop(struct conns *conns)
{
    if (!conns->started)
        return;
    pthread_mutex_lock(&conns->lock);
    conns->stopping = true;
    pthread_cond_signal(&conns->wake);
    pthread_mutex_unlock(&conns->lock);
    pthread_join(conns->reaper, NULL);
    pthread_cond_destroy(&conns->wake);
    pthread_mutex_destroy(&conns->lock);
    conns->started = false;
}
