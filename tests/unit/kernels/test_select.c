/* test_select.c: the choice of a table. */
#include "support.h"

static void test_select(void **state)
{
    (void)state;
    struct bp_error err;
    assert_non_null(bp_kernels_current());
    const struct bp_kernels *best = bp_kernels_current();
    assert_int_equal(bp_kernels_select("generic", &err), BP_OK);
    assert_ptr_equal(bp_kernels_current(), &bp_kernels_generic);
    assert_int_equal(bp_kernels_select("sse9", &err), BP_INVALID);
    assert_non_null(strstr(err.message, "sse9"));
    assert_ptr_equal(bp_kernels_current(), &bp_kernels_generic); /* unchanged by the failure */
    assert_int_equal(bp_kernels_select(NULL, &err), BP_OK);
    assert_ptr_equal(bp_kernels_current(), best);

    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    assert_ptr_equal(best, tables[ntables - 1]);
    const char *const names[] = {"generic", "avx2", "avx512"};
    for (int i = 0; i < 3; i++) {
        bp_status status = bp_kernels_select(names[i], &err);
        assert_int_equal(status, i < ntables ? BP_OK : BP_UNSUPPORTED);
        if (status == BP_OK)
            assert_string_equal(bp_kernels_current()->name, names[i]);
    }
    assert_int_equal(bp_kernels_select("", &err), BP_OK);
    assert_ptr_equal(bp_kernels_current(), best);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_select)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
