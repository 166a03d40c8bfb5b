/* server.c: the HTTP server: start, drain, stop.
 *
 * libmicrohttpd runs two threads with an epoll set each; handlers that block run on pools of ours while their
 * connections are suspended. Stopping goes in an order that leaves no suspended connection behind, which
 * libmicrohttpd forbids: no new connection, no new long poll, what is in flight ends (5 s), then the pools, then the
 * threads.
 *
 * Threads: start and stop from one thread; drain and notify from any.
 */
#include "http/internal.h"

#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EVENT_THREADS 2

static void on_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct bp_http *http = cls;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (*socket_context)
            bp_conns_remove(&http->conns, *socket_context);
        *socket_context = NULL;
        return;
    }
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (!info)
        return;
    int fd = info->connect_fd;
    info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (info && info->client_addr)
        *socket_context = bp_conns_add(&http->conns, fd, info->client_addr);
}

static enum MHD_Result on_accept(void *cls, const struct sockaddr *address, socklen_t size)
{
    struct bp_http *http = cls;
    return bp_conns_admit(&http->conns, address, size) ? MHD_YES : MHD_NO;
}

static void on_log(void *cls, const char *format, va_list args)
{
    char text[256];
    (void)cls;
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\r\n")] = '\0';
    bp_log(BP_LOG_DEBUG, "libmicrohttpd", "text", text, NULL);
}

/* The path was read from the raw target; here nothing is to be decoded a second time. */
static size_t keep_escapes(void *cls, struct MHD_Connection *connection, char *text)
{
    (void)cls, (void)connection;
    return strlen(text);
}

static bool read_hex(const char *hex, unsigned char ret[SHA256_DIGEST_SIZE])
{
    if (strlen(hex) != 2 * SHA256_DIGEST_SIZE || strspn(hex, "0123456789abcdefABCDEF") != strlen(hex))
        return false;
    for (int i = 0; i < SHA256_DIGEST_SIZE; i++) {
        char byte[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        ret[i] = (unsigned char)strtoul(byte, NULL, 16);
    }
    return true;
}

static void free_http(struct bp_http *http)
{
    bp_waits_stop(&http->waits);
    bp_pool_stop(&http->pool);
    bp_pool_stop(&http->data);
    if (http->daemon)
        MHD_stop_daemon(http->daemon);
    /* Until here a callback may have asked them, and was told no. */
    bp_waits_done(&http->waits);
    bp_pool_done(&http->pool);
    bp_pool_done(&http->data);
    bp_conns_stop(&http->conns);
    if (http->listen_fd >= 0)
        close(http->listen_fd);
    for (char **host = http->hosts; host && *host; host++)
        free(*host);
    free(http->hosts);
    free(http->tmp_dir);
    free(http);
}

static bp_status copy_options(struct bp_http *http, const struct bp_http_options *options, struct bp_error *err)
{
    size_t n = 0;
    while (options->hosts && options->hosts[n])
        n++;
    http->hosts = calloc(n + 1, sizeof *http->hosts);
    http->tmp_dir = strdup(options->tmp_dir);
    bool ok = http->hosts && http->tmp_dir;
    for (size_t i = 0; ok && i < n; i++)
        ok = (http->hosts[i] = strdup(options->hosts[i])) != NULL;
    if (!ok)
        return bp_fail(err, BP_NOMEM, "out of memory");
    snprintf(http->host, sizeof http->host, "%s", options->host);
    http->has_token = options->token_sha256 != NULL;
    if (http->has_token && !read_hex(options->token_sha256, http->token))
        return bp_fail(err, BP_INVALID, "the token's SHA-256 must be 64 hex digits");
    http->max_upload = options->max_upload;
    http->routes = options->routes;
    http->app = options->app;
    return BP_OK;
}

static bp_status start_daemon(struct bp_http *http, struct bp_error *err)
{
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC | MHD_USE_ERROR_LOG, 0, on_accept,
        http, bp_dispatch, http, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET,
        (MHD_socket)http->listen_fd, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)EVENT_THREADS,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)HTTP_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)HTTP_IDLE_SECONDS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)32768,
        MHD_OPTION_CONNECTION_MEMORY_INCREMENT, (size_t)4096, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_URI_LOG_CALLBACK, bp_dispatch_target, http,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
        MHD_OPTION_NOTIFY_COMPLETED, bp_dispatch_completed, http, MHD_OPTION_END);
    return http->daemon ? BP_OK : bp_fail(err, BP_IO, "the HTTP server could not be started");
}

bp_status bp_http_start(const struct bp_http_options *options, struct bp_http **ret, struct bp_error *err)
{
    struct bp_http *http = calloc(1, sizeof *http);
    if (!http)
        return bp_fail(err, BP_NOMEM, "out of memory");
    http->listen_fd = -1;
    bp_status status = copy_options(http, options, err);
    if (!status)
        status = bp_listen(options->host, options->port, &http->listen_fd, &http->port, err);
    if (!status)
        status = bp_pool_init(&http->pool, "bp-http", HTTP_POOL_THREADS, HTTP_POOL_QUEUE, 1 << 20, bp_dispatch_pooled,
                              err);
    if (!status)
        status = bp_pool_init(&http->data, "bp-data", HTTP_DATA_THREADS, HTTP_DATA_QUEUE, 4 << 20, bp_dispatch_pooled,
                              err);
    if (!status)
        status = bp_waits_start(&http->waits, err);
    if (!status)
        status = bp_conns_start(&http->conns, err);
    if (!status)
        status = start_daemon(http, err);
    if (status) {
        free_http(http);
        return status;
    }
    atomic_store(&http->open, !options->gated);
    *ret = http;
    return BP_OK;
}

void bp_http_open(struct bp_http *http)
{
    atomic_store(&http->open, true);
}

int bp_http_port(const struct bp_http *http)
{
    return http->port;
}

void bp_http_notify(struct bp_http *http, const char *topic, int64_t version)
{
    bp_waits_notify(&http->waits, topic, version);
}

void bp_http_drain(struct bp_http *http)
{
    atomic_store(&http->draining, true);
    bp_waits_drain(&http->waits);
}

void bp_http_close(struct bp_http *http)
{
    if (atomic_load(&http->stopping))
        return;
    /* New connections are taken to the end, and told 503 once `stopping`: MHD_quiesce_daemon() takes the socket out of
     * the event threads' epoll sets while they may do the same, and libmicrohttpd aborts when the second one fails. */
    bp_http_drain(http);
    struct timespec pause = {.tv_nsec = 2 * 1000 * 1000};
    double until = bp_clock() + HTTP_STOP_SECONDS;
    while (atomic_load(&http->in_flight) > 0 && bp_clock() < until)
        nanosleep(&pause, NULL);
    atomic_store(&http->stopping, true);
    bp_pool_stop(&http->pool);
    bp_pool_stop(&http->data);
    while (atomic_load(&http->running) > 0)
        nanosleep(&pause, NULL);
}

void bp_http_stop(struct bp_http *http)
{
    bp_http_close(http);
    free_http(http);
}
