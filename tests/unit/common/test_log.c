/* Log lines: logfmt for people, JSON for machines; nothing that a client sent can break a line. */
#include "log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <string.h>
#include <unistd.h>

static char g_line[8192];

/* Runs bp_log with stderr going into g_line. */
#define CAPTURE(...)                                                                                                 \
    do {                                                                                                             \
        int pipe_fds[2], saved = dup(STDERR_FILENO);                                                                 \
        assert_int_equal(pipe(pipe_fds), 0);                                                                         \
        dup2(pipe_fds[1], STDERR_FILENO);                                                                            \
        close(pipe_fds[1]);                                                                                          \
        bp_log(__VA_ARGS__, NULL);                                                                                   \
        dup2(saved, STDERR_FILENO);                                                                                  \
        close(saved);                                                                                                \
        ssize_t n = read(pipe_fds[0], g_line, sizeof g_line - 1);                                                    \
        g_line[n > 0 ? n : 0] = '\0';                                                                                \
        close(pipe_fds[0]);                                                                                          \
    } while (0)

static void test_text(void **state)
{
    (void)state;
    bp_log_setup(false, BP_LOG_INFO);
    CAPTURE(BP_LOG_INFO, "job started", "job", "job_1", "name", "a b", "empty", "", "evil", "x\ny\x1b[0m\"");
    assert_string_equal(g_line + 24, " info job started job=job_1 name=\"a b\" empty=\"\" "
                                     "evil=\"x\\u000ay\\u001b[0m\\\"\"\n");
    assert_int_equal(g_line[23], 'Z');
    CAPTURE(BP_LOG_DEBUG, "not shown");
    assert_string_equal(g_line, "");
    CAPTURE(BP_LOG_ERROR, "--threads must be a number, got \"x\"");
    assert_non_null(strstr(g_line, "error --threads must be a number, got \"x\"\n"));
}

static void test_json(void **state)
{
    (void)state;
    bp_log_setup(true, BP_LOG_DEBUG);
    char longer[4000];
    memset(longer, '\x01', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    static const char *const values[] = {"plain", "\xff\xfe\xc3", "q\"\\\n\t", "\xe2\x82\xac \xf0\x9f\x98\x80", ""};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        CAPTURE(BP_LOG_DEBUG, values[i], "key", values[i], "long", longer, "last", "1");
        json_error_t error;
        json_t *json = json_loads(g_line, 0, &error);
        if (!json)
            fail_msg("%s: %s", error.text, g_line);
        assert_string_equal(json_string_value(json_object_get(json, "level")), "debug");
        assert_non_null(json_object_get(json, "key"));
        assert_string_equal(json_string_value(json_object_get(json, "last")), "1");
        assert_int_equal(g_line[strlen(g_line) - 1], '\n');
        json_decref(json);
    }
    memset(longer, 'x', sizeof longer - 1);
    CAPTURE(BP_LOG_INFO, longer, "a", longer, "b", longer, "c", longer, "d", longer);
    json_t *json = json_loads(g_line, 0, NULL);
    assert_non_null(json);
    json_decref(json);
    bp_log_setup(false, BP_LOG_INFO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_text), cmocka_unit_test(test_json)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
