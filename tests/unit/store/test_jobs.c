/* test_jobs.c: rows go in and come out whole; illegal changes of status cannot be stored; listings; deletion. */
#include "store_test.h"

#include <math.h>

static void a_job_comes_back_whole(void **state)
{
    struct fixture *f = *state;
    struct bp_job_row row = new_job(BP_JOB_QUEUED);
    row.name = (char *)"näme";
    row.tags = (char *)"{\"owner\":\"lea\",\"n\":3}";
    row.seed = 9007199254740991;
    row.priority = -5;
    row.threads = 2;
    row.numerics = 1;
    row.has_best = true;
    row.best_value = 0.1;
    row.best_name = (char *)"val_loss";
    row.has_split = true;
    row.split_fingerprint = INT64_MIN;
    strcpy(row.dataset, "iris");
    insert_job(f, &row);
    assert_int_equal(row.seq, 1);
    assert_int_equal(row.version, 1);
    reopen(f);

    struct get_args a = {.id = row.id};
    assert_ok(f, bp_store_read(f->store, get_fn, &a, &f->err));
    assert_string_equal(a.row.id, row.id);
    assert_string_equal(a.row.name, "näme");
    assert_string_equal(a.row.owner, "");
    assert_string_equal(a.row.dataset, "iris");
    assert_string_equal(a.row.tags, row.tags);
    assert_string_equal(a.row.best_name, "val_loss");
    assert_null(a.row.error);
    assert_int_equal(a.row.seed, row.seed);
    assert_int_equal(a.row.priority, -5);
    assert_int_equal(a.row.numerics, 1);
    assert_true(a.row.has_best && a.row.best_value == 0.1);
    assert_true(a.row.has_split && a.row.split_fingerprint == INT64_MIN);
    assert_int_equal(a.row.status, BP_JOB_QUEUED);
    bp_job_row_done(&a.row);

    a.id = "job_unknown";
    assert_int_equal(bp_store_read(f->store, get_fn, &a, &f->err), BP_NOT_FOUND);
}

static void an_update_checks_the_version(void **state)
{
    struct fixture *f = *state;
    struct bp_job_row row = new_job(BP_JOB_QUEUED);
    insert_job(f, &row);
    struct bp_job_row other = row;
    row.status = BP_JOB_RUNNING;
    row.progress = (char *)"{\"step\":5}";
    row.has_best = true;
    row.best_value = NAN;
    assert_ok(f, bp_store_write(f->store, update_fn, &row, &f->err));
    assert_int_equal(row.version, 2);
    other.status = BP_JOB_CANCELLED;
    assert_int_equal(bp_store_write(f->store, update_fn, &other, &f->err), BP_CONFLICT);
    assert_int_equal(other.version, 1);
    struct get_args a = {.id = row.id};
    assert_ok(f, bp_store_read(f->store, get_fn, &a, &f->err));
    assert_int_equal(a.row.status, BP_JOB_RUNNING);
    assert_int_equal(a.row.version, 2);
    assert_string_equal(a.row.progress, row.progress);
    assert_true(a.row.has_best && isnan(a.row.best_value));
    bp_job_row_done(&a.row);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_job_comes_back_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(an_update_checks_the_version, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
