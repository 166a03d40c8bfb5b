/* Requests with random damage: whatever comes, the server answers or hangs up, and goes on serving others. The damage
 * is a function of a fixed seed, so a failure can be repeated. */
#include "client.h"

#define ROUNDS 1000

static void swallow(struct bp_request *r, struct bp_reply *reply, void *app)
{
    size_t size, body;
    const char *key, *value;
    enum bp_render render;
    (void)app;
    bp_request_body(r, &body);
    size = body;
    for (int i = 0; bp_request_query_at(r, i, &key, &value); i++)
        size += strlen(key) + strlen(value);
    for (int i = 0; i < bp_request_uploads(r); i++) {
        char *text = bp_upload_text(bp_request_upload(r, i));
        size += text ? strlen(text) : 0;
        free(text);
    }
    if (!bp_request_render(r, reply, 1u << BP_RENDER_JSON | 1u << BP_RENDER_CSV, &render))
        return;
    json_t *json = body ? bp_request_json(r, reply, BP_JSON_ANY) : NULL;
    if (json)
        bp_reply_json(reply, 200, json);
    else if (!bp_reply_is_set(reply))
        bp_reply_text(reply, 200, "%zu\n", size);
}

static int64_t read_zeros(void *ctx, int64_t offset, char *buffer, size_t max)
{
    (void)ctx, (void)offset;
    memset(buffer, '0', max);
    return (int64_t)max;
}

static void stream(struct bp_request *r, struct bp_reply *reply, void *app)
{
    (void)r, (void)app;
    bp_reply_stream(reply, "text/plain", 1000, "\"x\"", read_zeros, NULL, NULL);
}

static const struct bp_route routes[] = {
    {"GET", "/quick", swallow, BP_RUN_INLINE, BP_BODY_NONE, 0, "a render tag.", ""},
    {"POST", "/json/{}", swallow, BP_RUN_POOL, BP_BODY_BUFFER, 0, "a", ""},
    {"POST", "/form", swallow, BP_RUN_DATA, BP_BODY_FORM, 0, "", ""},
    {"PUT", "/file", swallow, BP_RUN_DATA, BP_BODY_FILE, 0, "", ""},
    {"GET", "/stream", stream, BP_RUN_INLINE, BP_BODY_NONE, 0, "", ""},
    {NULL, NULL, NULL, BP_RUN_INLINE, BP_BODY_NONE, 0, NULL, NULL},
};

static const char *const seeds[] = {
    "GET /quick?a=%C3%A9+b&render=json&tag.x=1 HTTP/1.1\r\nHost: localhost\r\nAccept: text/csv;q=0.5, */*\r\n\r\n",
    "POST /json/%41bc?a=1 HTTP/1.1\r\nHost: localhost:80\r\nContent-Length: 34\r\n\r\n"
    "{\"a\": [1, 2.5e3, \"\\u00e9\", null]}\n",
    "POST /json/x HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: "
    "chunked\r\n\r\n5\r\n{\"a\":\r\n3;x=y\r\n[1]\r\n1\r\n}\r\n0\r\n"
    "Trailer: 1\r\n\r\n",
    "POST /form HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=XX\r\nContent-Length: "
    "173\r\n\r\n"
    "--XX\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nmnist\r\n"
    "--XX\r\nContent-Disposition: form-data; name=\"data\"; filename=\"a.csv\"\r\nContent-Type: "
    "text/csv\r\n\r\na,b\n1,2\n\r\n"
    "--XX--\r\n",
    "PUT /file HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n0123456789",
    "GET /stream HTTP/1.1\r\nHost: localhost\r\nRange: bytes=10-20\r\nIf-Range: \"x\"\r\nIf-None-Match: \"y\", "
    "W/\"z\"\r\n\r\n",
};

static uint64_t g_random = 20260301;

static uint32_t draw(uint32_t n)
{
    g_random = g_random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(g_random >> 33) % n;
}

/* Up to six of: another byte, a byte less, a byte twice, a stretch from elsewhere, an end that comes early. */
static size_t damage(char *text, size_t size, size_t room)
{
    static const char special[] = "\r\n\t \0%:;,\"/\\?&={}[]-0\x7f\xff\xc3";
    for (uint32_t n = 1 + draw(6); n > 0 && size > 2; n--) {
        size_t at = draw((uint32_t)size);
        switch (draw(6)) {
        case 0:
            text[at] = special[draw(sizeof special - 1)];
            break;
        case 1:
            text[at] = (char)draw(256);
            break;
        case 2:
            memmove(text + at, text + at + 1, --size - at);
            break;
        case 3:
            if (size + 1 < room) {
                memmove(text + at + 1, text + at, size - at);
                size++;
            }
            break;
        case 4: {
            size_t from = draw((uint32_t)size), part = draw(40);
            if (from + part < size && at + part < size)
                memmove(text + at, text + from, part);
            break;
        }
        default:
            size = draw(8) ? size : at + 1;
        }
    }
    return size;
}

/* Sends, says that nothing more comes, and reads whatever is answered. */
static void poke(const char *text, size_t size)
{
    char buffer[4096];
    int fd = dial();
    struct timeval patience = {.tv_usec = 30000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    send_all(fd, text, size);
    shutdown(fd, SHUT_WR);
    while (recv(fd, buffer, sizeof buffer, 0) > 0)
        continue;
    close(fd);
}

static void test_mutations(void **state)
{
    (void)state;
    char text[2048];
    start_server(routes, NULL, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        const char *seed = seeds[draw(sizeof seeds / sizeof *seeds)];
        size_t size = strlen(seed);
        memcpy(text, seed, size);
        if (i >= (int)(sizeof seeds / sizeof *seeds))
            size = damage(text, size, sizeof text);
        poke(text, size);
        if (i % 500 == 0)
            expect_status(ask("GET", "/quick", ""), 200, NULL);
    }
    expect_status(ask("GET", "/quick", ""), 200, NULL);
    stop_server();
}

static void test_seeds(void **state)
{
    (void)state;
    start_server(routes, NULL, NULL);
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++) {
        int fd = dial();
        send_all(fd, seeds[i], strlen(seeds[i]));
        struct answer a = receive(fd, false, false);
        close(fd);
        if (a.status == 100) {
            free(a.text);
            continue;
        }
        expect_status(a, i == 5 ? 206 : 200, NULL);
    }
    stop_server();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_seeds), cmocka_unit_test(test_mutations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
