/* bench_http.c: both ends of an HTTP benchmark.
 *
 *   backpropd-bench-http serve BYTES
 *       A bare libmicrohttpd server with the daemon's threads and flags, which answers everything with BYTES bytes. It
 *       prints its port and runs until its standard input ends: what the library alone can do.
 *   backpropd-bench-http load PORT CLIENTS REQUESTS RATE METHOD PATH [BODY]
 *       CLIENTS connections send REQUESTS requests each, one after the other, together RATE a second (0: as fast as they
 *       are answered). Prints one JSON object: how many a second, and the percentiles of the time to the whole answer.
 */
#include <arpa/inet.h>
#include <math.h>
#include <microhttpd.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS_MAX 256
#define REPLY_MAX (1 << 20)

static void check(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "%s failed\n", what);
        exit(1);
    }
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --- the bare server ------------------------------------------------------------------------------------------------ */
struct page {
    char *bytes;
    size_t size;
};

/* A response of its own for each request, as a service has it. */
static enum MHD_Result answer(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
                              const char *version, const char *upload, size_t *upload_size, void **con_cls)
{
    static int seen;
    const struct page *page = cls;
    (void)url, (void)method, (void)version, (void)upload, (void)upload_size;
    if (!*con_cls) {
        *con_cls = &seen;
        return MHD_YES;
    }
    struct MHD_Response *response = MHD_create_response_from_buffer(page->size, page->bytes, MHD_RESPMEM_MUST_COPY);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
    enum MHD_Result result = MHD_queue_response(connection, 200, response);
    MHD_destroy_response(response);
    return result;
}

static int serve(size_t size)
{
    struct page page = {malloc(size + 1), size};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    check(page.bytes, "memory");
    memset(page.bytes, 'x', size);
    struct MHD_Daemon *daemon =
        MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, answer, &page, MHD_OPTION_SOCK_ADDR, &address,
                         MHD_OPTION_THREAD_POOL_SIZE, 2u, MHD_OPTION_CONNECTION_LIMIT, 2048u, MHD_OPTION_END);
    check(daemon, "starting the server");
    printf("%d\n", (int)MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
    fflush(stdout);
    while (getchar() != EOF)
        continue;
    MHD_stop_daemon(daemon);
    free(page.bytes);
    return 0;
}

/* --- the load ------------------------------------------------------------------------------------------------------- */
struct load {
    int port, clients, requests;
    double rate;
    char *text; /* of a request */
    double start;
};

struct client {
    pthread_t thread;
    const struct load *load;
    int index;
    double *took; /* seconds of each request */
    int refused;  /* answers of 400 and above */
};

static int dial(int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    check(fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof address), "connecting");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

/* Reads one answer, whose length is in its headers; its status. */
static int read_answer(int fd, char *buffer)
{
    size_t used = 0, whole = 0;
    while (whole == 0 || used < whole) {
        ssize_t n = read(fd, buffer + used, REPLY_MAX - used);
        check(n > 0, "reading an answer");
        used += (size_t)n;
        buffer[used] = 0;
        char *end = whole ? NULL : strstr(buffer, "\r\n\r\n");
        if (!end)
            continue;
        const char *length = strcasestr(buffer, "\r\nContent-Length:");
        check(length && length < end, "an answer's Content-Length");
        whole = (size_t)(end + 4 - buffer) + strtoul(length + 17, NULL, 10);
        check(whole <= REPLY_MAX, "an answer below 1 MiB");
    }
    return atoi(buffer + 9);
}

static void sleep_until(double when)
{
    struct timespec t = {.tv_sec = (time_t)when};
    t.tv_nsec = (long)((when - (double)t.tv_sec) * 1e9);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* With a rate the time of a request counts from when it was due, so that a stall is not left out. */
static void *run_client(void *arg)
{
    struct client *c = arg;
    const struct load *l = c->load;
    size_t size = strlen(l->text);
    char *buffer = malloc(REPLY_MAX + 1);
    int fd = dial(l->port);
    check(buffer, "memory");
    for (int i = 0; i < l->requests; i++) {
        double due = seconds();
        if (l->rate > 0) {
            due = l->start + (i * (double)l->clients + c->index) / l->rate;
            sleep_until(due);
        }
        check(write(fd, l->text, size) == (ssize_t)size, "sending a request");
        c->refused += read_answer(fd, buffer) >= 400;
        c->took[i] = seconds() - due;
    }
    close(fd);
    free(buffer);
    return NULL;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int load(struct load *l, const char *method, const char *path, const char *body)
{
    static struct client clients[CLIENTS_MAX];
    size_t n = (size_t)l->clients * (size_t)l->requests;
    double *took = calloc(n, sizeof *took);
    check(took && l->clients >= 1 && l->clients <= CLIENTS_MAX && l->requests >= 1, "the load");
    check(asprintf(&l->text,
                   "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                   "Content-Length: %zu\r\n\r\n%s",
                   method, path, l->port, strlen(body), body) > 0,
          "memory");
    l->start = seconds();
    for (int i = 0; i < l->clients; i++) {
        clients[i] = (struct client){.load = l, .index = i, .took = took + (size_t)i * (size_t)l->requests};
        check(!pthread_create(&clients[i].thread, NULL, run_client, &clients[i]), "a thread");
    }
    int refused = 0;
    for (int i = 0; i < l->clients; i++) {
        pthread_join(clients[i].thread, NULL);
        refused += clients[i].refused;
    }
    double all = seconds() - l->start;
    qsort(took, n, sizeof *took, ascending);
    printf("{\"requests\":%zu,\"refused\":%d,\"per_second\":%.1f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f}\n",
           n, refused, (double)n / all, 1e3 * took[n / 2], 1e3 * took[(size_t)ceil(0.99 * (double)n) - 1],
           1e3 * took[n - 1]);
    free(took);
    free(l->text);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "serve"))
        return serve(strtoul(argv[2], NULL, 10));
    if ((argc == 8 || argc == 9) && !strcmp(argv[1], "load")) {
        struct load l = {
            .port = atoi(argv[2]), .clients = atoi(argv[3]), .requests = atoi(argv[4]), .rate = atof(argv[5])};
        return load(&l, argv[6], argv[7], argc == 9 ? argv[8] : "");
    }
    fprintf(stderr, "usage: %s serve BYTES | load PORT CLIENTS REQUESTS RATE METHOD PATH [BODY]\n", argv[0]);
    return 64;
}
