/* dispatch.c: the life of a request, as libmicrohttpd's callbacks see it.
 *
 *   AT_HEADERS  first callback: a row of checks; the first that refuses has made the reply, which is sent at once
 *   AT_BODY     a call for each piece, then one without data: the body is complete
 *   AT_HANDLER  the handler runs: here, or on a pool while the connection is suspended; perhaps again after a wait
 *   AT_REPLY    the reply is queued
 *
 * A reply is never queued while a piece of a body is being handed over: libmicrohttpd refuses that. What is wrong
 * with a body is remembered, a bounded rest of it is read and dropped, and then it is answered.
 *
 * Threads: callbacks come on libmicrohttpd's threads. While a connection is suspended its request belongs to a pool
 * or to the table of waiters, and libmicrohttpd does not touch it; resuming hands it back. A suspended request is
 * therefore never freed under a handler.
 */
#include "http/internal.h"

#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* 26 characters: 48 bits of time, so that ids sort, and 82 bits that nobody can guess. */
static void make_id(char ret[32])
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";
    static _Thread_local unsigned char drawn[16 * 16]; /* of the kernel's random bytes, for some ids ahead */
    static _Thread_local size_t left;
    struct timespec now;
    if (left == 0) {
        if (getrandom(drawn, sizeof drawn, 0) != (ssize_t)sizeof drawn)
            for (size_t i = 0; i < sizeof drawn; i++)
                drawn[i] = (unsigned char)rand(); /* an id for log lines need not be a secret */
        left = sizeof drawn;
    }
    left -= 16;
    const unsigned char *random = drawn + left;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    memcpy(ret, "req_", 4);
    for (int i = 0; i < 10; i++)
        ret[4 + i] = digits[(ms >> (45 - 5 * i)) & 31];
    for (int i = 0; i < 16; i++)
        ret[14 + i] = digits[random[i] & 31];
    ret[30] = '\0';
}

void *bp_dispatch_target(void *cls, const char *target, struct MHD_Connection *connection)
{
    struct bp_request *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->http = cls;
    r->connection = connection;
    r->began = bp_clock();
    make_id(r->id);
    size_t size = strlen(target);
    r->target_too_long = size > HTTP_TARGET_MAX;
    r->target = r->target_too_long ? NULL : strdup(target);
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    r->conn = info ? info->socket_context : NULL;
    return r;
}

static bool check_open(struct bp_request *r)
{
    if (atomic_load(&r->http->open) && !atomic_load(&r->http->stopping))
        return true;
    bp_problem(&r->reply, 503, "not_ready", "the server is being started or stopped; try again in a moment");
    bp_reply_header(&r->reply, MHD_HTTP_HEADER_RETRY_AFTER, "1");
    r->reply.close = true;
    return false;
}

static bool check_draining(struct bp_request *r)
{
    bool safe = !strcmp(r->method, "GET") || !strcmp(r->method, "HEAD");
    if (safe || !atomic_load(&r->http->draining))
        return true;
    bp_problem(&r->reply, 503, "shutting_down", "the server is being stopped; try again in a moment");
    bp_reply_header(&r->reply, MHD_HTTP_HEADER_RETRY_AFTER, "5");
    return false;
}

static bool (*const header_checks[])(struct bp_request *r) = {bp_guard_framing,
                                                              bp_guard_method,
                                                              bp_target_parse,
                                                              bp_guard_origin,
                                                              bp_guard_token,
                                                              check_open,
                                                              bp_route_find,
                                                              bp_route_check_query,
                                                              check_draining,
                                                              bp_body_begin,
                                                              NULL};

static enum MHD_Result send_now(struct bp_request *r)
{
    r->phase = AT_END;
    if (r->conn)
        bp_conns_phase(&r->http->conns, r->conn, CONN_BUSY);
    if (atomic_load(&r->http->draining))
        r->reply.close = true;
    return bp_send(r);
}

static enum MHD_Result at_headers(struct bp_request *r)
{
    atomic_fetch_add(&r->http->in_flight, 1);
    r->counted = true;
    for (int i = 0; header_checks[i]; i++) {
        if (header_checks[i](r))
            continue;
        bp_reply_finish(&r->reply, r);
        if (r->body.declared == 0 && !r->reply.close) {
            /* Answered in the next call: libmicrohttpd closes a connection that it has to answer in the first. */
            r->phase = AT_REPLY;
            return MHD_YES;
        }
        r->reply.close = true; /* bytes of a body that nobody reads would be taken for the next request */
        return send_now(r);
    }
    r->phase = AT_BODY;
    if (r->conn)
        bp_conns_phase(&r->http->conns, r->conn, r->body.declared ? CONN_BODY : CONN_BUSY);
    return MHD_YES;
}

static void call_handler(struct bp_request *r)
{
    bp_reply_clear(&r->reply);
    r->seen = bp_waits_sequence(&r->http->waits);
    r->route->handler(r, &r->reply, r->http->app);
    if (r->slot && (!r->reply.waits || r->reply.status)) { /* it waited, and then thought better of it */
        bp_waits_release(&r->http->waits);
        r->slot = false;
        r->reply.waits = false;
    }
    if (!r->reply.waits)
        bp_reply_finish(&r->reply, r);
}

static void reply_stopped(struct bp_request *r)
{
    bp_reply_clear(&r->reply);
    bp_problem(&r->reply, 503, "shutting_down", "the server is being stopped; try again in a moment");
    bp_reply_header(&r->reply, MHD_HTTP_HEADER_RETRY_AFTER, "5");
    bp_reply_finish(&r->reply, r);
}

static enum MHD_Result run_inline(struct bp_request *r)
{
    struct bp_http *http = r->http;
    /* First counted, then asked: bp_http_close first says no, then waits for the count. */
    atomic_fetch_add(&http->running, 1);
    if (atomic_load(&http->stopping))
        reply_stopped(r);
    else
        call_handler(r);
    atomic_fetch_sub(&http->running, 1);
    if (!r->reply.waits)
        return send_now(r);
    struct MHD_Connection *connection = r->connection;
    r->phase = AT_HANDLER;
    MHD_suspend_connection(connection);
    /* Once it is in the table it may be resumed, and even be freed, before this returns. */
    if (!bp_waits_add(&http->waits, r))
        MHD_resume_connection(connection);
    return MHD_YES;
}

static void resume_with_reply(struct bp_request *r)
{
    r->phase = AT_REPLY;
    MHD_resume_connection(r->connection);
}

static void reply_overloaded(struct bp_request *r)
{
    bp_reply_clear(&r->reply);
    bp_problem(&r->reply, 503, "overloaded", "too many requests are waiting for a thread; try again in a moment");
    bp_reply_header(&r->reply, MHD_HTTP_HEADER_RETRY_AFTER, "1");
    bp_reply_finish(&r->reply, r);
}

/* On a thread of a pool. */
void bp_dispatch_pooled(struct bp_request *r)
{
    if (atomic_load(&r->http->stopping)) {
        reply_stopped(r);
    } else {
        do {
            call_handler(r);
            if (r->reply.waits && bp_waits_add(&r->http->waits, r))
                return;
        } while (r->reply.waits);
    }
    resume_with_reply(r);
}

static struct pool *pool_of(struct bp_request *r)
{
    return r->route->run == BP_RUN_DATA ? &r->http->data : &r->http->pool;
}

static enum MHD_Result run_handler(struct bp_request *r)
{
    if (r->conn)
        bp_conns_phase(&r->http->conns, r->conn, CONN_BUSY);
    if (r->route->run == BP_RUN_INLINE)
        return run_inline(r);
    struct pool *pool = pool_of(r);
    if (!bp_pool_reserve(pool)) {
        reply_overloaded(r);
        return send_now(r);
    }
    r->phase = AT_HANDLER;
    MHD_suspend_connection(r->connection);
    bp_pool_submit(pool, r);
    return MHD_YES;
}

void bp_dispatch_again(struct bp_request *r)
{
    if (r->route->run == BP_RUN_INLINE) {
        MHD_resume_connection(r->connection); /* its callback runs the handler */
        return;
    }
    struct pool *pool = pool_of(r);
    if (bp_pool_reserve(pool)) {
        bp_pool_submit(pool, r);
        return;
    }
    reply_overloaded(r);
    resume_with_reply(r);
}

static enum MHD_Result at_body(struct bp_request *r, const char *upload, size_t *upload_size)
{
    if (*upload_size > 0) {
        bool go_on = bp_body_take(r, upload, *upload_size);
        *upload_size = 0;
        if (r->conn)
            bp_conns_bytes(&r->http->conns, r->conn, r->body.received);
        return go_on ? MHD_YES : MHD_NO;
    }
    if (!bp_body_end(r) || !check_draining(r)) {
        bp_reply_finish(&r->reply, r);
        return send_now(r);
    }
    return run_handler(r);
}

enum MHD_Result bp_dispatch(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                            const char *version, const char *upload, size_t *upload_size, void **con_cls)
{
    struct bp_request *r = *con_cls;
    (void)cls, (void)connection, (void)url, (void)version;
    if (!r)
        return MHD_NO; /* no memory, not even for saying so */
    switch (r->phase) {
    case AT_HEADERS:
        r->method = method;
        return at_headers(r);
    case AT_BODY:
        return at_body(r, upload, upload_size);
    case AT_HANDLER:
        return run_inline(r);
    case AT_REPLY:
        return send_now(r);
    case AT_END:
        break;
    }
    return MHD_NO;
}

static void log_request(const struct bp_request *r, enum MHD_RequestTerminationCode code)
{
    char status[16], ms[32];
    bool ours = r->status == 500 || r->status == 507; /* the others are the client's, or said elsewhere */
    enum bp_log_level level = ours ? BP_LOG_WARN : BP_LOG_DEBUG;
    if (!bp_log_wanted(level))
        return;
    snprintf(status, sizeof status, "%d", r->status);
    snprintf(ms, sizeof ms, "%.1f", 1e3 * (bp_clock() - r->began));
    bp_log(level, "request", "id", r->id, "method", r->method ? r->method : "", "path", r->path ? r->path : "",
           "status", status, "ms", ms, "end", code == MHD_REQUEST_TERMINATED_COMPLETED_OK ? "ok" : "cut", NULL);
}

void bp_dispatch_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                           enum MHD_RequestTerminationCode code)
{
    struct bp_request *r = *con_cls;
    (void)cls, (void)connection;
    if (!r)
        return;
    *con_cls = NULL;
    if (r->counted) {
        log_request(r, code);
        atomic_fetch_sub(&r->http->in_flight, 1);
    }
    if (r->conn)
        bp_conns_phase(&r->http->conns, r->conn, CONN_HEADERS);
    bp_reply_clear(&r->reply);
    bp_body_done(r);
    free(r->path);
    free(r->target);
    free(r);
}
