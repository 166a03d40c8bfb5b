/* test_base.c: errors, memory and checked sizes. */
#include "base/memory.h"
#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_fail_fills_the_error(void **state)
{
    (void)state;
    struct bp_error err;
    memset(&err, 'x', sizeof err);
    assert_int_equal(bp_fail(&err, BP_INVALID, "rate must be below 1, got %g", 2.5), BP_INVALID);
    assert_int_equal(err.code, BP_INVALID);
    assert_string_equal(err.where, "");
    assert_string_equal(err.message, "rate must be below 1, got 2.5");
    assert_int_equal(bp_fail_at(&err, BP_LIMIT, "/layers/3", "%d units are too many", 7), BP_LIMIT);
    assert_string_equal(err.where, "/layers/3");
    assert_string_equal(err.message, "7 units are too many");
    assert_int_equal(bp_fail(NULL, BP_NOMEM, "nobody listens"), BP_NOMEM);
    assert_int_equal(bp_fail_at(NULL, BP_NOMEM, "here", "nobody listens"), BP_NOMEM);
}

static void test_fail_may_wrap_its_own_message(void **state)
{
    (void)state;
    struct bp_error err;
    bp_fail_at(&err, BP_IO, "/a", "disk gone");
    bp_fail_at(&err, BP_IO, err.where, "while saving: %s", err.message);
    assert_string_equal(err.where, "/a");
    assert_string_equal(err.message, "while saving: disk gone");
}

static void test_long_texts_are_cut(void **state)
{
    (void)state;
    struct bp_error err;
    char text[2000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    bp_fail_at(&err, BP_INVALID, text, "%s", text);
    assert_int_equal(strlen(err.where), sizeof err.where - 1);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
}

static void test_each_status_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int a = BP_OK; a <= BP_INTERNAL; a++) {
        assert_non_null(bp_status_name((bp_status)a));
        for (int b = BP_OK; b < a; b++)
            assert_string_not_equal(bp_status_name((bp_status)a), bp_status_name((bp_status)b));
    }
    assert_string_equal(bp_status_name((bp_status)999), "unknown");
}

static void test_blocks_are_aligned_and_zero(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 63, 64, 65, 4096, 1000003};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t before = bp_alloc_count();
        unsigned char *block = bp_alloc(sizes[i]);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % BP_CACHE_LINE, 0);
        for (size_t j = 0; j < sizes[i]; j++)
            assert_int_equal(block[j], 0);
        memset(block, 0xff, sizes[i]);
        bp_free(block);
        assert_int_equal(bp_alloc_count(), before + 1);
    }
    bp_free(NULL);
    assert_null(bp_alloc(SIZE_MAX));
    assert_null(bp_alloc(SIZE_MAX - 100));
}

static void test_allocations_fail_on_request(void **state)
{
    (void)state;
    bp_alloc_fail_after(2);
    void *a = bp_alloc(8), *b = bp_alloc(8);
    assert_non_null(a);
    assert_non_null(b);
    assert_null(bp_alloc(8));
    assert_null(bp_alloc(8));
    bp_alloc_fail_after(-5);
    void *c = bp_alloc(8);
    assert_non_null(c);
    bp_free(a);
    bp_free(b);
    bp_free(c);
}

static void test_sizes_do_not_overflow(void **state)
{
    (void)state;
    size_t ret = 7;
    assert_true(bp_size_mul(1u << 20, 1u << 20, &ret));
    assert_int_equal(ret, (size_t)1 << 40);
    assert_false(bp_size_mul((size_t)1 << 40, (size_t)1 << 40, &ret));
    assert_int_equal(ret, (size_t)1 << 40);
    assert_true(bp_size_mul(SIZE_MAX, 0, &ret));
    assert_int_equal(ret, 0);
    assert_true(bp_size_add(SIZE_MAX - 1, 1, &ret));
    assert_int_equal(ret, SIZE_MAX);
    assert_false(bp_size_add(SIZE_MAX, 1, &ret));
    assert_int_equal(ret, SIZE_MAX);
    assert_int_equal(bp_size_align(0), 0);
    assert_int_equal(bp_size_align(1), 64);
    assert_int_equal(bp_size_align(64), 64);
    assert_int_equal(bp_size_align(65), 128);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fail_fills_the_error),        cmocka_unit_test(test_fail_may_wrap_its_own_message),
        cmocka_unit_test(test_long_texts_are_cut),          cmocka_unit_test(test_each_status_has_a_name_of_its_own),
        cmocka_unit_test(test_blocks_are_aligned_and_zero), cmocka_unit_test(test_allocations_fail_on_request),
        cmocka_unit_test(test_sizes_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
