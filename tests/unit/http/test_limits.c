/* Limits that take many clients, much time or a full disk to reach. */
#include "http/internal.h"

#include "client.h"

#include <signal.h>
#include <sys/resource.h>

static void count_uploads(struct bp_request *r, struct bp_reply *reply, void *app)
{
    (void)app;
    bp_reply_text(reply, 200, "%d uploads\n", bp_request_uploads(r));
}

static const struct bp_route routes[] = {
    {"GET", "/quick", count_uploads, BP_RUN_INLINE, BP_BODY_NONE, 0, "", ""},
    {"POST", "/quick", count_uploads, BP_RUN_INLINE, BP_BODY_BUFFER, 0, "", ""},
    {"PUT", "/file", count_uploads, BP_RUN_DATA, BP_BODY_FILE, 0, "", ""},
    {"POST", "/form", count_uploads, BP_RUN_DATA, BP_BODY_FORM, 0, "", ""},
    {NULL, NULL, NULL, BP_RUN_INLINE, BP_BODY_NONE, 0, NULL, NULL},
};

static int setup(void **state)
{
    (void)state;
    start_server(routes, NULL, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    stop_server();
    return 0;
}

static struct sockaddr_in v4(const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    assert_int_equal(inet_pton(AF_INET, text, &address.sin_addr), 1);
    return address;
}

/* One address has its share of the connections; loopback has all of them. */
static void test_per_address(void **state)
{
    (void)state;
    struct conns conns = {0};
    struct conn *held[2 * HTTP_PER_ADDRESS];
    struct sockaddr_in one = v4("192.0.2.1"), other = v4("192.0.2.2"), loop = v4("127.8.8.8");
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6}, six = {.sin6_family = AF_INET6};
    inet_pton(AF_INET6, "::ffff:192.0.2.1", &mapped.sin6_addr);
    inet_pton(AF_INET6, "2001:db8::1", &six.sin6_addr);
    assert_int_equal(bp_conns_start(&conns, NULL), BP_OK);
    for (int i = 0; i < HTTP_PER_ADDRESS; i++) {
        assert_true(bp_conns_admit(&conns, (struct sockaddr *)&one, sizeof one));
        held[2 * i] = bp_conns_add(&conns, -1, (struct sockaddr *)&one);
        held[2 * i + 1] = bp_conns_add(&conns, -1, (struct sockaddr *)&loop);
    }
    assert_false(bp_conns_admit(&conns, (struct sockaddr *)&one, sizeof one));
    assert_false(bp_conns_admit(&conns, (struct sockaddr *)&mapped, sizeof mapped));
    assert_true(bp_conns_admit(&conns, (struct sockaddr *)&six, sizeof six));
    assert_true(bp_conns_admit(&conns, (struct sockaddr *)&other, sizeof other));
    assert_true(bp_conns_admit(&conns, (struct sockaddr *)&loop, sizeof loop));
    bp_conns_remove(&conns, held[0]);
    assert_true(bp_conns_admit(&conns, (struct sockaddr *)&one, sizeof one));
    for (int i = 1; i < 2 * HTTP_PER_ADDRESS; i++)
        bp_conns_remove(&conns, held[i]);
    bp_conns_stop(&conns);
}

static void test_waiter_slots(void **state)
{
    (void)state;
    for (int i = 0; i < HTTP_WAITERS; i++)
        assert_true(bp_waits_reserve(&g_http->waits));
    assert_false(bp_waits_reserve(&g_http->waits));
    for (int i = 0; i < HTTP_WAITERS; i++)
        bp_waits_release(&g_http->waits);
}

/* A disk that is full in the middle: 507, and the space is given back. */
static void test_full_disk(void **state)
{
    (void)state;
    struct rlimit old, small;
    size_t size = 1 << 20;
    char *bytes = calloc(1, size);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 300000;
    setrlimit(RLIMIT_FSIZE, &small);
    expect_status(ask_body("PUT", "/file", "", bytes, size), 507, "disk_full");
    setrlimit(RLIMIT_FSIZE, &old);
    expect_status(ask_body("PUT", "/file", "", bytes, size), 200, "1 uploads");
    free(bytes);
    expect_no_files(2);
}

static void test_broken_disk(void **state)
{
    (void)state;
    rmdir(g_tmp);
    expect_status(ask_body("PUT", "/file", "", "abc", 3), 503, "disk_failed");
    mkdir(g_tmp, 0700);
    expect_status(ask_body("PUT", "/file", "", "abc", 3), 200, NULL);
}

/* A header and a body that trickle, and a connection that says nothing: all are cut, a healthy client is not. */
static void test_slow_clients(void **state)
{
    (void)state;
    static const char head[] = "GET /quick HTTP/1.1\r\nX: ";
    static const char body[] = "POST /quick HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n";
    static const char upload[] = "PUT /file HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n";
    int fds[4] = {dial(), dial(), dial(), dial()};
    double ended[4] = {0}, start = now();
    send_all(fds[0], head, strlen(head));
    send_all(fds[1], body, strlen(body));
    send_all(fds[2], upload, strlen(upload));
    for (int left = 4; left > 0 && now() - start < 30;) {
        pause_ms(200);
        expect_status(ask("GET", "/quick", ""), 200, NULL);
        for (int i = 0; i < 4; i++) {
            struct pollfd p = {.fd = fds[i], .events = POLLIN};
            char c;
            if (ended[i] > 0)
                continue;
            bool sent = i == 3 || send_all(fds[i], "a", 1);
            if (!sent || (poll(&p, 1, 0) > 0 && recv(fds[i], &c, 1, 0) <= 0)) {
                ended[i] = now() - start;
                left--;
            }
        }
    }
    for (int i = 0; i < 4; i++) {
        close(fds[i]);
        assert_true(ended[i] > 9 && ended[i] < 18);
    }
    expect_no_files(2);
}

static void test_many_clients(void **state)
{
    (void)state;
    static const char request[] = "GET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n";
    int fds[300];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 300; i++)
            fds[i] = dial();
        for (int i = 0; i < 300; i++)
            send_all(fds[i], request, strlen(request));
        for (int i = 0; i < 300; i++) {
            expect_status(receive(fds[i], false, false), 200, NULL);
            close(fds[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_per_address), cmocka_unit_test(test_waiter_slots), cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_broken_disk), cmocka_unit_test(test_many_clients), cmocka_unit_test(test_slow_clients),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
