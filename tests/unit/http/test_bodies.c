/* Bodies: in memory, in files, in forms; limits and what is left behind; JSON. */
#include "client.h"

#include <nettle/sha2.h>

static void count_body(struct bp_request *r, struct bp_reply *reply, void *app)
{
    size_t size;
    const char *body = bp_request_body(r, &size);
    (void)app;
    assert_int_equal(body[size], '\0');
    bp_reply_json(reply, 200, json_pack("{s:I, s:i}", "size", (json_int_t)size, "uploads", bp_request_uploads(r)));
}

static void hash(const void *bytes, size_t size, char ret[65])
{
    struct sha256_ctx ctx;
    uint8_t digest[32];
    sha256_init(&ctx);
    sha256_update(&ctx, size, bytes);
    sha256_digest(&ctx, sizeof digest, digest);
    for (int i = 0; i < 32; i++)
        sprintf(ret + 2 * i, "%02x", digest[i]);
}

/* The hash of what is in a part's file, "" for a part in memory. */
static void hash_file(const struct bp_upload *u, char ret[65])
{
    ret[0] = 0;
    FILE *f = u->path ? fopen(u->path, "rb") : NULL;
    if (!f)
        return;
    char *bytes = malloc((size_t)u->bytes + 1);
    assert_int_equal(fread(bytes, 1, (size_t)u->bytes + 1, f), u->bytes);
    fclose(f);
    hash(bytes, (size_t)u->bytes, ret);
    free(bytes);
}

static void show_uploads(struct bp_request *r, struct bp_reply *reply, void *app)
{
    json_t *list = json_array();
    (void)app;
    for (int i = 0; i < bp_request_uploads(r); i++) {
        const struct bp_upload *u = bp_request_upload(r, i);
        struct stat info = {0};
        if (u->path)
            assert_true(!stat(u->path, &info) && info.st_size == u->bytes && (info.st_mode & 0777) == 0600);
        char sha256[65], *text = bp_upload_text(u);
        hash_file(u, sha256);
        json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:I, s:s, s:s*}", "field", u->field, "filename",
                                              u->filename, "file", u->path != NULL, "bytes", (json_int_t)u->bytes,
                                              "sha256", sha256, "text", u->bytes < 100 ? text : NULL));
        free(text);
    }
    size_t size;
    bp_request_body(r, &size);
    bp_reply_json(reply, 200, json_pack("{s:o, s:I}", "uploads", list, "size", (json_int_t)size));
}

static void steal(struct bp_request *r, struct bp_reply *reply, void *app)
{
    (void)app;
    char *path = bp_request_upload_steal(r, bp_request_upload(r, 0));
    assert_non_null(path);
    assert_null(bp_request_upload_steal(r, bp_request_upload(r, 0)));
    char kept[128];
    snprintf(kept, sizeof kept, "%s/../bp-http-kept", g_tmp);
    bp_reply_text(reply, 200, "%d", rename(path, kept));
    unlink(kept);
    free(path);
}

static void parse_object(struct bp_request *r, struct bp_reply *reply, void *app)
{
    (void)app;
    json_t *json = bp_request_json(r, reply, BP_JSON_OBJECT);
    if (json)
        bp_reply_json(reply, 200, json);
}

static void parse_any(struct bp_request *r, struct bp_reply *reply, void *app)
{
    (void)app;
    json_t *json = bp_request_json(r, reply, BP_JSON_ANY);
    if (json)
        bp_reply_json(reply, 200, json);
}

static const struct bp_route routes[] = {
    {"POST", "/buffer", count_body, BP_RUN_POOL, BP_BODY_BUFFER, 0, "", ""},
    {"POST", "/large", count_body, BP_RUN_INLINE, BP_BODY_BUFFER, 4 << 20, "", ""},
    {"POST", "/none", count_body, BP_RUN_INLINE, BP_BODY_NONE, 0, "", ""},
    {"POST", "/optional", count_body, BP_RUN_INLINE, BP_BODY_OPTIONAL, 0, "", ""},
    {"PUT", "/file", show_uploads, BP_RUN_DATA, BP_BODY_FILE, 0, "", ""},
    {"PUT", "/steal", steal, BP_RUN_DATA, BP_BODY_FILE, 0, "", ""},
    {"POST", "/form", show_uploads, BP_RUN_POOL, BP_BODY_FORM, INT64_MAX, "", ""},
    {"POST", "/object", parse_object, BP_RUN_INLINE, BP_BODY_BUFFER, 4 << 20, "", ""},
    {"POST", "/any", parse_any, BP_RUN_INLINE, BP_BODY_BUFFER, 4 << 20, "", ""},
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

/* Sends a body in chunks of `piece` bytes. */
static struct answer ask_chunked(const char *method, const char *target, const char *body, size_t size, size_t piece)
{
    char text[512];
    int fd = dial();
    int n = snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
                     method, target);
    bool ok = send_all(fd, text, (size_t)n);
    for (size_t at = 0; ok && at < size; at += piece) {
        size_t part = size - at < piece ? size - at : piece;
        n = snprintf(text, sizeof text, "%zx\r\n", part);
        ok = send_all(fd, text, (size_t)n) && send_all(fd, body + at, part) && send_all(fd, "\r\n", 2);
    }
    if (ok)
        send_all(fd, "0\r\n\r\n", 5);
    struct answer a = receive(fd, false, false);
    close(fd);
    return a;
}

static char *make_bytes(size_t size)
{
    char *bytes = malloc(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(i * 31 + i / 251);
    return bytes;
}

static void test_buffer(void **state)
{
    (void)state;
    size_t mib = 1 << 20;
    char *bytes = make_bytes(mib + 1);
    expect_status(ask("POST", "/buffer", ""), 200, "\"size\":0");
    expect_status(ask_body("POST", "/buffer", "", "abc", 3), 200, "\"size\":3");
    expect_status(ask_body("POST", "/buffer", "Content-Type: application/x-www-form-urlencoded\r\n", "a=b", 3), 200,
                  "\"size\":3,\"uploads\":0");
    expect_status(ask_body("POST", "/buffer", "", bytes, mib), 200, "\"size\":1048576");
    expect_status(ask_chunked("POST", "/buffer", bytes, mib, 7777), 200, "\"size\":1048576");
    expect_status(ask_body("POST", "/buffer", "", bytes, mib + 1), 413, "\"limit\":1048576");
    expect_status(ask_chunked("POST", "/buffer", bytes, mib + 1, 65536), 413, "\"limit\":1048576");
    expect_status(ask_body("POST", "/large", "", bytes, mib + 1), 200, "\"size\":1048577");
    expect_status(ask_body("POST", "/none", "", "x", 1), 400, "body_unexpected");
    expect_status(ask_body("POST", "/none", "", "", 0), 200, "\"size\":0");
    expect_status(ask_body("POST", "/optional", "", "x", 1), 200, "\"size\":1");
    expect_status(ask("POST", "/optional", ""), 200, "\"size\":0");
    free(bytes);
}

/* With Expect the client holds its body back: a refusal must come without it. */
static void test_expect(void **state)
{
    (void)state;
    static const char large[] = "POST /buffer HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                                "Content-Length: 1048577\r\n\r\n";
    static const char small[] = "POST /buffer HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
                                "Content-Length: 3\r\n\r\n";
    expect_status(exchange(large, strlen(large), false), 413, NULL);
    int fd = dial();
    char go[64];
    send_all(fd, small, strlen(small));
    ssize_t n = recv(fd, go, sizeof go - 1, 0);
    go[n > 0 ? n : 0] = '\0';
    assert_non_null(strstr(go, "100 Continue"));
    send_all(fd, "abc", 3);
    expect_status(receive(fd, false, false), 200, "\"size\":3");
    close(fd);
}

static void test_file(void **state)
{
    (void)state;
    char sha256[65], expected[80];
    size_t size = 3000000;
    char *bytes = make_bytes(9 << 20);
    hash(bytes, size, sha256);
    snprintf(expected, sizeof expected, "\"sha256\":\"%s\"", sha256);
    expect_status(ask_body("PUT", "/file", "", bytes, size), 200, expected);
    expect_status(ask_chunked("PUT", "/file", bytes, size, 100000), 200, expected);
    expect_status(ask_body("PUT", "/file", "", "", 0), 200, "\"bytes\":0");
    expect_status(ask_body("PUT", "/file", "", bytes, (8 << 20) + 1), 413, "\"limit\":8388608");
    expect_status(ask_chunked("PUT", "/file", bytes, (8 << 20) + 1000, 100000), 413, "\"limit\":8388608");
    expect_status(ask_body("PUT", "/steal", "", "abc", 3), 200, "\r\n\r\n0");
    free(bytes);
    expect_no_files(2);
}

/* Far over the limit there is no answer but the end of the connection. */
static void test_overrun(void **state)
{
    (void)state;
    size_t size = 12 << 20;
    char *bytes = make_bytes(size);
    struct answer a = ask_chunked("POST", "/buffer", bytes, size, 1 << 16);
    assert_true(a.closed && a.status == 0);
    free(a.text);
    free(bytes);
}

static void test_aborted(void **state)
{
    (void)state;
    for (int i = 0; i < 30; i++) {
        int fd = dial();
        static const char head[] = "PUT /file HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc";
        send_all(fd, head, strlen(head));
        if (i % 2)
            pause_ms(2);
        close(fd);
    }
    /* libmicrohttpd may see an end that comes right behind data only when the connection has been idle for 15 s. */
    expect_no_files(20);
}

#define FORM_TYPE "Content-Type: multipart/form-data; boundary=XX\r\n"
#define PART(headers, data) "--XX\r\nContent-Disposition: form-data; " headers "\r\n\r\n" data "\r\n"

static void test_form(void **state)
{
    (void)state;
    static const char form[] = PART("name=\"name\"", "mnist") PART("name=\"empty\"", "")
        PART("name=\"inputs\"; filename=\"../../etc/x\"\r\nContent-Type: application/octet-stream", "0123456789")
            PART("name=\"none\"; filename=\"none.csv\"", "") "--XX--\r\n";
    struct answer a = ask_body("POST", "/form", FORM_TYPE, form, strlen(form));
    if (a.status != 200 || !has(&a, "\"field\":\"name\",\"filename\":\"\",\"file\":false,\"bytes\":5") ||
        !has(&a, "\"field\":\"inputs\",\"filename\":\"../../etc/x\",\"file\":true,\"bytes\":10") ||
        !has(&a, "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882") ||
        !has(&a, "\"text\":\"0123456789\""))
        fail_msg("%s", a.text);
    free(a.text);
    /* byte by byte */
    a = ask_chunked("POST", "/form", form, strlen(form), 1);
    assert_int_equal(a.status, 200); /* without its type it is a body like any other */
    assert_true(has(&a, "\"uploads\":[]"));
    free(a.text);
    static const struct {
        const char *form, *code;
        int status;
    } bad[] = {
        {PART("name=\"a\"", "1") PART("name=\"a\"", "2") "--XX--\r\n", "bad_form", 400},
        {PART("filename=\"a\"", "1") "--XX--\r\n", NULL, 400},
        {PART("name=\"a\"", "1"), "bad_form", 400},
        {"no form at all", "bad_form", 400},
        {"--XX--\r\n", "bad_form", 400},
        {"", "bad_form", 400},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_status(ask_body("POST", "/form", FORM_TYPE, bad[i].form, strlen(bad[i].form)), bad[i].status,
                      bad[i].code);
    expect_status(ask_body("POST", "/form", "Content-Type: multipart/form-data\r\n", "x", 1), 400, "bad_form");
    expect_status(ask_body("POST", "/form", "", "{}", 2), 200, "\"size\":2");
    expect_no_files(2);
}

static void test_form_limits(void **state)
{
    (void)state;
    size_t room = 3 << 20, n = 0;
    char *form = malloc(room);
    for (int i = 0; i < 17; i++)
        n += (size_t)sprintf(form + n, "--XX\r\nContent-Disposition: form-data; name=\"f%d\"\r\n\r\nx\r\n", i);
    n += (size_t)sprintf(form + n, "--XX--\r\n");
    expect_status(ask_body("POST", "/form", FORM_TYPE, form, n), 400, "16 fields");

    n = (size_t)sprintf(form, "--XX\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n");
    memset(form + n, 'x', (1 << 20) + 1);
    n += (1 << 20) + 1;
    n += (size_t)sprintf(form + n, "\r\n--XX--\r\n");
    expect_status(ask_body("POST", "/form", FORM_TYPE, form, n), 413, "as a file");

    n = (size_t)sprintf(form, "--XX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"big\"\r\n\r\n");
    memset(form + n, 'x', 2 << 20);
    n += 2 << 20;
    n += (size_t)sprintf(form + n, "\r\n--XX--\r\n");
    expect_status(ask_body("POST", "/form", FORM_TYPE, form, n), 200, "\"bytes\":2097152");
    free(form);
    expect_no_files(2);
}

static void test_json(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int status;
        const char *expect;
    } cases[] = {
        {"{\"a\": [1, 2.5, \"\\u00e9\", null, true]}", 200, "{\"a\":[1,2.5,\"\xc3\xa9\",null,true]}\n"},
        {"", 400, "invalid_json"},
        {" \n\t", 400, "is empty"},
        {"{", 400, "ends too early"},
        {"{\"a\": [1,]}", 400, "a comma is too many"},
        {"{\"a\": 1,}", 400, "invalid_json"},
        {"{\n  \"a\": NaN}", 400, "line 2"},
        {"{\"a\": Infinity}", 400, "no Infinity"},
        {"{\"a\": 01}", 400, "invalid_json"},
        {"{\"a\": +1}", 400, "no plus sign"},
        {"{\"a\": .5}", 400, "0.1"},
        {"{'a': 1}", 400, "double quotes"},
        {"{\"a\": 1} // x", 400, "invalid_json"},
        {"{\"a\": 1}x", 400, "invalid_json"},
        {"{\"a\": 1e400}", 400, "invalid_json"},
        {"{\"a\": 9223372036854775808}", 400, "invalid_json"},
        {"{\"lr\": 1, \"lr\": 2}", 400, "duplicate_key"},
        {"\xef\xbb\xbf{}", 400, "byte order mark"},
        {"{\"a\": \"\xff\"}", 400, "line 1, column 8"},
        {"{\"a\": \"\\ud800\"}", 400, "\"line\":1"},
        {"{\"a\": \"\\u0000\"}", 400, "\"line\":1"},
        {"[]", 422, "must be a JSON object"},
        {"\"x\"", 422, "invalid_type"},
        {"123", 422, "invalid_type"},
        {"null", 422, "invalid_type"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_status(ask_body("POST", "/object", "", cases[i].text, strlen(cases[i].text)), cases[i].status,
                      cases[i].expect);
    expect_status(ask_body("POST", "/object", "", "{}\0", 3), 400, "invalid_json");
    expect_status(ask_body("POST", "/any", "", "[[1]]", 5), 200, "[[1]]");
    expect_status(ask_body("POST", "/any", "", "1", 1), 422, "or an array");
}

static void test_json_limits(void **state)
{
    (void)state;
    size_t room = 3 << 20;
    char *text = malloc(room);
    memset(text, '[', 32);
    memset(text + 32, ']', 32);
    expect_status(ask_body("POST", "/any", "", text, 64), 200, NULL);
    memset(text, '[', 33);
    memset(text + 33, ']', 33);
    expect_status(ask_body("POST", "/any", "", text, 66), 400, "too_deep");
    memset(text, '[', 1000000);
    expect_status(ask_body("POST", "/any", "", text, 1000000), 400, "too_deep");
    size_t n = (size_t)sprintf(text, "{\"s\": \"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[\"}");
    expect_status(ask_body("POST", "/any", "", text, n), 200, NULL);
    n = 1;
    text[0] = '{';
    for (int i = 0; i < 10001; i++)
        n += (size_t)sprintf(text + n, "%s\"k%d\":1", i ? "," : "", i);
    text[n++] = '}';
    expect_status(ask_body("POST", "/any", "", text, n), 400, "too_many_members");
    n = 1;
    text[0] = '[';
    for (int i = 0; i < 500000; i++)
        n += (size_t)sprintf(text + n, "%s1", i ? "," : "");
    text[n++] = ']';
    struct answer a = ask_body("POST", "/any", "", text, n);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body_size, n + 1);
    free(a.text);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buffer),  cmocka_unit_test(test_expect),      cmocka_unit_test(test_file),
        cmocka_unit_test(test_overrun), cmocka_unit_test(test_form),        cmocka_unit_test(test_form_limits),
        cmocka_unit_test(test_json),    cmocka_unit_test(test_json_limits), cmocka_unit_test(test_aborted),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
