/* client.h: a server with test routes, and a client that sends raw bytes. Included by the tests of this folder. */
#ifndef BP_TEST_CLIENT_H
#define BP_TEST_CLIENT_H

#include "http/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct bp_http *g_http;
static char g_tmp[64];

static inline double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline void pause_ms(int ms)
{
    struct timespec t = {ms / 1000, (ms % 1000) * 1000000L};
    nanosleep(&t, NULL);
}

static inline void make_tmp(void)
{
    strcpy(g_tmp, "/tmp/bp-http-XXXXXX");
    assert_non_null(mkdtemp(g_tmp));
}

/* Files in the temporary directory. */
static inline int tmp_files(void)
{
    int n = 0;
    DIR *d = opendir(g_tmp);
    for (struct dirent *e = readdir(d); e; e = readdir(d))
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* A request's files go when it has ended, which the client may see a moment earlier. */
static inline void expect_no_files(int seconds)
{
    for (int i = 0; i < 100 * seconds && tmp_files() > 0; i++)
        pause_ms(10);
    assert_int_equal(tmp_files(), 0);
}

static inline void start_server(const struct bp_route *routes, void *app, const char *token_sha256)
{
    struct bp_error err = {0};
    static const char *const hosts[] = {"train.example", NULL};
    make_tmp();
    struct bp_http_options options = {.host = "127.0.0.1",
                                      .token_sha256 = token_sha256,
                                      .hosts = hosts,
                                      .tmp_dir = g_tmp,
                                      .max_upload = 8 << 20,
                                      .routes = routes,
                                      .app = app};
    bp_status status = bp_http_start(&options, &g_http, &err);
    if (status)
        fail_msg("%s", err.message);
}

static inline void stop_server(void)
{
    bp_http_stop(g_http);
    g_http = NULL;
    assert_int_equal(tmp_files(), 0);
    rmdir(g_tmp);
}

static inline int dial(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)bp_http_port(g_http))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static inline bool send_all(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        bytes += n;
        size -= (size_t)n;
    }
    return true;
}

struct answer {
    int status;
    bool closed; /* the server closed the connection */
    char *text;  /* everything that came, terminated */
    size_t size;
    const char *body;
    size_t body_size;
};

/* Reads one answer: up to its Content-Length, or, `all`, until the server closes or is silent for a second. */
static inline struct answer receive(int fd, bool all, bool head)
{
    struct answer a = {.text = calloc(1, 1)};
    for (;;) {
        char buffer[65536];
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, all ? 1000 : 20000) <= 0)
            break;
        ssize_t n = recv(fd, buffer, sizeof buffer, 0);
        if (n <= 0) {
            a.closed = true;
            break;
        }
        a.text = realloc(a.text, a.size + (size_t)n + 1);
        memcpy(a.text + a.size, buffer, (size_t)n);
        a.size += (size_t)n;
        a.text[a.size] = '\0';
        const char *end = strstr(a.text, "\r\n\r\n");
        const char *length = strstr(a.text, "Content-Length: ");
        bool empty = head || strstr(a.text, "HTTP/1.1 304") == a.text || strstr(a.text, "HTTP/1.1 204") == a.text;
        if (!all && end && strncmp(a.text, "HTTP/1.1 100", 12)) {
            size_t want = length && length < end && !empty ? (size_t)atoll(length + 16) : 0;
            if (a.size >= (size_t)(end + 4 - a.text) + want)
                break;
        }
    }
    if (a.size > 12)
        a.status = atoi(a.text + 9);
    const char *end = strstr(a.text, "\r\n\r\n");
    a.body = end ? end + 4 : a.text + a.size;
    a.body_size = a.size - (size_t)(a.body - a.text);
    return a;
}

static inline struct answer exchange(const char *request, size_t size, bool all)
{
    int fd = dial();
    send_all(fd, request, size);
    struct answer a = receive(fd, all, !strncmp(request, "HEAD", 4));
    close(fd);
    return a;
}

/* One request without a body; headers end with "\r\n" each. */
static inline struct answer ask(const char *method, const char *target, const char *headers)
{
    char request[16384];
    int n = snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n", method, target, headers);
    return exchange(request, (size_t)n, false);
}

/* One request with a body of known length. */
static inline struct answer ask_body(const char *method, const char *target, const char *headers, const char *body,
                                     size_t size)
{
    char head[4096];
    int n = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %zu\r\n%s\r\n", method,
                     target, size, headers);
    int fd = dial();
    send_all(fd, head, (size_t)n);
    send_all(fd, body, size);
    struct answer a = receive(fd, false, false);
    close(fd);
    return a;
}

static inline bool has(const struct answer *a, const char *text)
{
    return strstr(a->text, text) != NULL;
}

static inline int count_text(const struct answer *a, const char *text)
{
    int n = 0;
    for (const char *p = strstr(a->text, text); p; p = strstr(p + 1, text))
        n++;
    return n;
}

static inline void expect_status(struct answer a, int status, const char *text)
{
    if (a.status != status || (text && !has(&a, text)))
        fail_msg("expected %d with %s, got: %.600s", status, text ? text : "anything", a.text);
    assert_non_null(strstr(a.text, "X-Request-Id: req_"));
    free(a.text);
}

#endif
