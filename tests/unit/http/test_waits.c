/* Handlers that block, long polls, and how the server stops. */
#include "client.h"

static atomic_long g_version;
static atomic_int g_inside, g_calls;

/* Replies with the version once it is above `since`, or after the wait. */
static void poll_version(struct bp_request *r, struct bp_reply *reply, void *app)
{
    int64_t since, ms;
    (void)app;
    atomic_fetch_add(&g_calls, 1);
    if (!bp_request_query_int(r, reply, "since", 0, 0, INT64_MAX, &since) ||
        !bp_request_query_int(r, reply, "ms", 0, 0, 60000, &ms))
        return;
    long version = atomic_load(&g_version);
    if (version > since || bp_request_waited(r) == 2) {
        bp_reply_json(reply, 200,
                      json_pack("{s:I, s:i, s:s}", "version", (json_int_t)version, "waited", bp_request_waited(r),
                                "kept", bp_request_kept(r)));
        return;
    }
    bp_request_keep(r, "a note");
    if (!bp_reply_wait(r, reply, bp_request_arg(r, 0), since, 1e-3 * (double)ms))
        bp_problem(reply, 503, "overloaded", "too many waiters");
}

static void block(struct bp_request *r, struct bp_reply *reply, void *app)
{
    int64_t ms;
    (void)app;
    if (!bp_request_query_int(r, reply, "ms", 0, 0, 60000, &ms))
        return;
    atomic_fetch_add(&g_inside, 1);
    for (int64_t i = 0; i < ms && !bp_request_cancelled(r); i += 5)
        pause_ms(5);
    atomic_fetch_sub(&g_inside, 1);
    bp_reply_text(reply, 200, "done\n");
}

static void quick(struct bp_request *r, struct bp_reply *reply, void *app)
{
    (void)r, (void)app;
    bp_reply_text(reply, 200, "quick\n");
}

static const struct bp_route routes[] = {
    {"GET", "/inline/{}", poll_version, BP_RUN_INLINE, BP_BODY_NONE, 0, "since ms", ""},
    {"GET", "/pool/{}", poll_version, BP_RUN_POOL, BP_BODY_NONE, 0, "since ms", ""},
    {"GET", "/data/{}", poll_version, BP_RUN_DATA, BP_BODY_NONE, 0, "since ms", ""},
    {"GET", "/block", block, BP_RUN_POOL, BP_BODY_NONE, 0, "ms", ""},
    {"GET", "/blockdata", block, BP_RUN_DATA, BP_BODY_NONE, 0, "ms", ""},
    {"GET", "/quick", quick, BP_RUN_INLINE, BP_BODY_NONE, 0, "", ""},
    {"POST", "/quick", quick, BP_RUN_INLINE, BP_BODY_OPTIONAL, 0, "", ""},
    {NULL, NULL, NULL, BP_RUN_INLINE, BP_BODY_NONE, 0, NULL, NULL},
};

static int setup(void **state)
{
    (void)state;
    atomic_store(&g_version, 0);
    atomic_store(&g_calls, 0);
    start_server(routes, NULL, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (g_http)
        stop_server();
    return 0;
}

static int send_get(const char *target)
{
    char request[256];
    int fd = dial();
    int n = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", target);
    send_all(fd, request, (size_t)n);
    return fd;
}

static void expect_get(int fd, int status, const char *text)
{
    struct answer a = receive(fd, false, false);
    close(fd);
    expect_status(a, status, text);
}

static void test_timeout(void **state)
{
    (void)state;
    static const char *const targets[] = {"/inline/a?ms=100", "/pool/a?ms=100"};
    for (int i = 0; i < 2; i++) {
        double start = now();
        expect_get(send_get(targets[i]), 200, "\"waited\":2,\"kept\":\"a note\"");
        assert_true(now() - start >= 0.099 && now() - start < 2);
    }
    expect_get(send_get("/inline/a?ms=0"), 200, "\"waited\":2");
    expect_get(send_get("/data/a?ms=100"), 503, "overloaded");
}

static void test_notify(void **state)
{
    (void)state;
    static const char *const targets[] = {"/inline/a?ms=20000", "/pool/a?ms=20000"};
    for (int i = 0; i < 2; i++) {
        atomic_store(&g_version, 0);
        atomic_store(&g_calls, 0);
        int first = send_get(targets[i]), second = send_get(targets[i]);
        int other = send_get("/inline/b?ms=1500&since=99");
        while (atomic_load(&g_calls) < 3) /* all have looked, however slow the machine */
            pause_ms(1);
        pause_ms(50);
        bp_http_notify(g_http, "a", 0); /* not above since: nobody wakes */
        int calls = atomic_load(&g_calls);
        pause_ms(50);
        assert_int_equal(atomic_load(&g_calls), calls);
        atomic_store(&g_version, 7);
        bp_http_notify(g_http, "a", 7);
        expect_get(first, 200, "\"version\":7,\"waited\":1");
        expect_get(second, 200, "\"version\":7");
        expect_get(other, 200, "\"waited\":2");
    }
}

static atomic_bool g_storm_over;

static void *storm(void *arg)
{
    (void)arg;
    while (!atomic_load(&g_storm_over)) {
        long version = atomic_fetch_add(&g_version, 1) + 1;
        bp_http_notify(g_http, "a", version);
        if (version % 50 == 0)
            pause_ms(1);
    }
    return NULL;
}

/* Notifications come between a handler's look and its wait: none of the polls may sleep through one. */
static void test_no_lost_wakeup(void **state)
{
    (void)state;
    pthread_t thread;
    atomic_store(&g_storm_over, false);
    pthread_create(&thread, NULL, storm, NULL);
    double start = now();
    for (int i = 0; i < 200; i++) {
        char target[96];
        snprintf(target, sizeof target, "/%s/a?ms=20000&since=%ld", i % 2 ? "pool" : "inline",
                 atomic_load(&g_version) + (i % 3));
        expect_get(send_get(target), 200, "version");
    }
    assert_true(now() - start < 15);
    atomic_store(&g_storm_over, true);
    pthread_join(thread, NULL);
}

/* Slow handlers do not keep quick ones waiting; a full queue says so. */
static void test_pool(void **state)
{
    (void)state;
    int slow[34], data[80];
    for (int i = 0; i < 34; i++)
        slow[i] = send_get("/block?ms=400");
    for (int i = 0; i < 80; i++)
        data[i] = send_get("/blockdata?ms=10");
    double start = now();
    expect_get(send_get("/quick"), 200, "quick");
    assert_true(now() - start < 0.3);
    int refused = 0;
    for (int i = 0; i < 80; i++) {
        struct answer a = receive(data[i], false, false);
        close(data[i]);
        assert_true(a.status == 200 || (a.status == 503 && has(&a, "Retry-After: ") && has(&a, "overloaded")));
        refused += a.status == 503;
        free(a.text);
    }
    assert_true(refused <= 16);
    for (int i = 0; i < 34; i++)
        expect_get(slow[i], 200, "done");
}

static void test_drain(void **state)
{
    (void)state;
    int waiting = send_get("/pool/a?ms=20000");
    pause_ms(50);
    bp_http_drain(g_http);
    expect_get(waiting, 200, "\"waited\":2");
    expect_status(ask_body("POST", "/quick", "", "x", 1), 503, "Retry-After: ");
    expect_status(ask("GET", "/quick", ""), 200, "Connection: close");
    expect_get(send_get("/inline/a?ms=20000"), 200, "\"waited\":2");
}

static void *stop(void *arg)
{
    (void)arg;
    bp_http_close(g_http);
    return NULL;
}

/* Closing answers what is in flight, whatever it is doing. */
static void test_close(void **state)
{
    (void)state;
    int fds[40];
    pthread_t thread;
    for (int i = 0; i < 40; i++)
        fds[i] = send_get(i % 4 == 0   ? "/inline/a?ms=30000"
                          : i % 4 == 1 ? "/pool/a?ms=30000"
                          : i % 4 == 2 ? "/block?ms=200"
                                       : "/blockdata?ms=50");
    pause_ms(100);
    pthread_create(&thread, NULL, stop, NULL);
    for (int i = 0; i < 40; i++)
        expect_get(fds[i], 200, NULL);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&g_inside), 0);
    bp_http_notify(g_http, "a", 1); /* still allowed */
}

/* What takes longer than the stop waits for is told, and ends; the server does not. */
static void test_stop_is_bounded(void **state)
{
    (void)state;
    int fd = send_get("/blockdata?ms=60000");
    int idle = dial();
    pause_ms(100);
    double start = now();
    stop_server();
    assert_true(now() - start < 7);
    assert_int_equal(atomic_load(&g_inside), 0);
    close(fd);
    close(idle);
}

static void test_gate(void **state)
{
    (void)state;
    struct bp_http *http;
    struct bp_http_options options = {
        .host = "127.0.0.1", .tmp_dir = g_tmp, .max_upload = 1, .routes = routes, .gated = true};
    assert_int_equal(bp_http_start(&options, &http, NULL), BP_OK);
    struct bp_http *other = g_http;
    g_http = http;
    expect_status(ask("GET", "/quick", ""), 503, "not_ready");
    bp_http_open(http);
    expect_status(ask("GET", "/quick", ""), 200, NULL);
    options.port = bp_http_port(http);
    struct bp_error err;
    struct bp_http *third;
    assert_int_equal(bp_http_start(&options, &third, &err), BP_CONFLICT);
    assert_non_null(strstr(err.message, "in use"));
    bp_http_stop(http);
    g_http = other;
    options.host = "no such host";
    assert_int_equal(bp_http_start(&options, &third, &err), BP_INVALID);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(test_timeout), EACH(test_notify), EACH(test_no_lost_wakeup), EACH(test_pool),
        EACH(test_drain),   EACH(test_close),  EACH(test_gate),           EACH(test_stop_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
