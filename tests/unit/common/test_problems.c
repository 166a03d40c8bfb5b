/* The list of faults, "did you mean", JSON pointers. */
#include "problems.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

static void test_entries(void **state)
{
    (void)state;
    struct bp_problems p;
    bp_problems_init(&p);
    assert_false(bp_problems_any(&p));
    bp_problems_add(&p, "/model/layers/2/units", "out_of_range", NULL, NULL, "must be at least 1, got %d", 0);
    bp_problems_add(&p, "/optimizer", "unknown", "adam", json_pack("[ss]", "sgd", "adam"), "no optimizer \xff\"x");
    assert_true(bp_problems_any(&p));
    json_t *first = json_array_get(p.errors, 0), *second = json_array_get(p.errors, 1);
    assert_string_equal(json_string_value(json_object_get(first, "pointer")), "/model/layers/2/units");
    assert_string_equal(json_string_value(json_object_get(first, "code")), "out_of_range");
    assert_string_equal(json_string_value(json_object_get(first, "detail")), "must be at least 1, got 0");
    assert_null(json_object_get(first, "suggestion"));
    assert_null(json_object_get(first, "allowed"));
    assert_string_equal(json_string_value(json_object_get(second, "suggestion")), "adam");
    assert_int_equal(json_array_size(json_object_get(second, "allowed")), 2);
    assert_string_equal(json_string_value(json_object_get(second, "detail")), "no optimizer ?\"x");
    bp_problems_done(&p);
}

static void test_limit(void **state)
{
    (void)state;
    struct bp_problems p;
    bp_problems_init(&p);
    for (int i = 0; i < BP_PROBLEMS_MAX + 50; i++)
        bp_problems_add(&p, "", "x", NULL, json_array(), "%d", i);
    assert_int_equal(json_array_size(p.errors), BP_PROBLEMS_MAX);
    bp_problems_done(&p);
}

/* A detail that is cut must not end in half a character, or the entry would be lost. */
static void test_long_detail(void **state)
{
    (void)state;
    for (int shift = 0; shift < 4; shift++) {
        char text[1200] = "abc";
        size_t n = (size_t)shift;
        while (n + 3 < sizeof text) {
            memcpy(text + n, "\xe2\x82\xac", 3);
            n += 3;
        }
        text[n] = '\0';
        struct bp_problems p;
        bp_problems_init(&p);
        bp_problems_add(&p, "", "x", NULL, NULL, "%s", text);
        const char *detail = json_string_value(json_object_get(json_array_get(p.errors, 0), "detail"));
        assert_non_null(detail);
        assert_true(strlen(detail) > 500);
        assert_null(strchr(detail, '?'));
        bp_problems_done(&p);
    }
}

static void test_nearest(void **state)
{
    (void)state;
    static const char *const names[] = {"learning_rate", "momentum", "relu", "sigmoid", "tanh", "leaky_relu"};
    static const size_t n = sizeof names / sizeof *names;
    assert_string_equal(bp_nearest("learning_rte", names, n), "learning_rate");
    assert_string_equal(bp_nearest("LearningRate", names, n), "learning_rate");
    assert_string_equal(bp_nearest("leaky-relu", names, n), "leaky_relu");
    assert_string_equal(bp_nearest("ReLU", names, n), "relu");
    assert_string_equal(bp_nearest("tnah", names, n), "tanh");
    assert_null(bp_nearest("batch_size", names, n));
    assert_null(bp_nearest("", names, n));
    char longer[300];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_null(bp_nearest(longer, names, n));
}

static void test_pointer(void **state)
{
    (void)state;
    char pointer[32] = "";
    bp_pointer_append(pointer, sizeof pointer, "a/b");
    bp_pointer_append(pointer, sizeof pointer, "m~n");
    assert_string_equal(pointer, "/a~1b/m~0n");
    bp_pointer_append(pointer, sizeof pointer, "0123456789012345678901234567890");
    assert_int_equal(strlen(pointer), sizeof pointer - 1);
    char tight[4] = "";
    bp_pointer_append(tight, sizeof tight, "a~");
    assert_string_equal(tight, "/a");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries), cmocka_unit_test(test_limit),   cmocka_unit_test(test_long_detail),
        cmocka_unit_test(test_nearest), cmocka_unit_test(test_pointer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
