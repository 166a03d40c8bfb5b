/* test_metrics.c: metric points with every kind of number, trimming, events; reading stays quick among many rows. */
#include "store_test.h"

#include <math.h>

struct add_args {
    const char *job;
    const struct bp_metric_point *points;
    size_t n;
};

static bp_status add_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct add_args *a = arg;
    return bp_db_metric_add(db, a->job, a->points, a->n, err);
}

struct read_args {
    const char *job;
    const char *const *names;
    size_t nnames;
    int64_t from_step;
    struct bp_metric_point got[100];
    size_t n;
};

static bp_status keep(void *arg, const struct bp_metric_point *point)
{
    struct read_args *a = arg;
    if (a->n < 100)
        a->got[a->n] = *point;
    a->n++;
    return BP_OK;
}

static bp_status read_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct read_args *a = arg;
    return bp_db_metric_list(db, a->job, a->names, a->nnames, a->from_step, keep, a, err);
}

static void every_number_comes_back_bit_for_bit(void **state)
{
    struct fixture *f = *state;
    struct bp_job_row row = new_job(BP_JOB_QUEUED);
    insert_job(f, &row);
    const struct bp_metric_point points[] = {
        {"val_loss", 1, 10, 0.1},
        {"loss", 1, 10, NAN},
        {"loss", 0, 5, INFINITY},
        {"loss", 2, 20, -INFINITY},
        {"loss", 3, 30, -0.0},
        {"loss", 4, 40, 5e-324},
        {"loss", 5, 50, 1.7976931348623157e308},
        {"loss", 6, 60, 3.0},
        {"loss", 1, 10, NAN},
    };
    struct add_args a = {row.id, points, sizeof points / sizeof points[0]};
    assert_ok(f, bp_store_write(f->store, add_fn, &a, &f->err));
    reopen(f);
    struct read_args r = {.job = row.id};
    assert_ok(f, bp_store_read(f->store, read_fn, &r, &f->err));
    static const double expected[] = {INFINITY, NAN, -INFINITY, -0.0, 5e-324, 1.7976931348623157e308, 3.0, 0.1};
    assert_int_equal(r.n, 8);
    for (int i = 0; i < 8; i++) {
        assert_string_equal(r.got[i].name, i < 7 ? "loss" : "val_loss");
        assert_true(isnan(expected[i]) ? isnan(r.got[i].value) : r.got[i].value == expected[i]);
    }
    assert_true(r.got[0].step == 5 && r.got[1].step == 10 && r.got[1].epoch == 1);

    static const char *const names[] = {"val_loss", "unknown"};
    r = (struct read_args){.job = row.id, .names = names, .nnames = 2};
    assert_ok(f, bp_store_read(f->store, read_fn, &r, &f->err));
    assert_int_equal(r.n, 1);
    r = (struct read_args){.job = row.id, .from_step = 40};
    assert_ok(f, bp_store_read(f->store, read_fn, &r, &f->err));
    assert_int_equal(r.n, 3);
    r.job = "job_unknown";
    assert_int_equal(bp_store_read(f->store, read_fn, &r, &f->err), BP_NOT_FOUND);
}

struct trim_args {
    const char *job;
    int64_t step;
};

static bp_status trim_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct trim_args *a = arg;
    return bp_db_metric_trim(db, a->job, a->step, err);
}

static void a_point_is_replaced_and_trimmed(void **state)
{
    struct fixture *f = *state;
    struct bp_job_row row = new_job(BP_JOB_QUEUED);
    insert_job(f, &row);
    struct bp_metric_point points[40];
    for (int i = 0; i < 40; i++) { /* 20 names: more than are remembered */
        points[i] = (struct bp_metric_point){.step = i / 20, .value = i};
        snprintf(points[i].name, sizeof points[i].name, "m%02d", i % 20);
    }
    struct add_args a = {row.id, points, 40};
    assert_ok(f, bp_store_write(f->store, add_fn, &a, &f->err));
    points[0].value = 99;
    assert_ok(f, bp_store_write(f->store, add_fn, &a, &f->err));
    struct read_args r = {.job = row.id};
    assert_ok(f, bp_store_read(f->store, read_fn, &r, &f->err));
    assert_int_equal(r.n, 40);
    assert_true(r.got[0].value == 99 && r.got[1].value == 20 && r.got[2].value == 1);
    struct trim_args t = {row.id, 0};
    assert_ok(f, bp_store_write(f->store, trim_fn, &t, &f->err));
    r = (struct read_args){.job = row.id};
    assert_ok(f, bp_store_read(f->store, read_fn, &r, &f->err));
    assert_int_equal(r.n, 20);
}

static bp_status million_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    return bp_db_exec(db, arg, "test", err);
}

/* 50 jobs of 20,000 points; one of them is read. */
static void reading_stays_quick_among_many(void **state)
{
    struct fixture *f = *state;
    struct bp_job_row row = {.version = 0};
    for (int i = 0; i < 50; i++) {
        row = new_job(BP_JOB_SUCCEEDED);
        insert_job(f, &row);
    }
    assert_ok(
        f, bp_store_write(f->store, million_fn,
                          (void *)"INSERT INTO series (id, job, name) SELECT seq, seq, 'loss' FROM job;"
                                  "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 19999)"
                                  " INSERT INTO point SELECT seq, i, i, i * 0.5 FROM job, n",
                          &f->err));
    struct read_args r = {.job = row.id};
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    assert_ok(f, bp_store_read(f->store, read_fn, &r, &f->err));
    clock_gettime(CLOCK_MONOTONIC, &b);
    assert_int_equal(r.n, 20000);
    print_message("20,000 of 1,000,000 points: %.2f ms\n",
                  (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6);
}

/* --- events ----------------------------------------------------------------------------------------------------- */
struct event_args {
    const char *job;
    int64_t after;
    int limit;
    int64_t last;
    char types[100];
};

static bp_status event_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct event_args *a = arg;
    bp_status status = bp_db_event_add(db, a->job, "started", "{\"a\":1}", NULL, err);
    return status == BP_OK ? bp_db_event_add(db, a->job, "epoch", NULL, &a->last, err) : status;
}

static bp_status event_visit(void *arg, const struct bp_event_row *row)
{
    struct event_args *a = arg;
    snprintf(a->types + strlen(a->types), 40, "%d:%s%s ", (int)row->seq, row->type, row->data);
    return row->at > 0 ? BP_OK : BP_INTERNAL;
}

static bp_status events_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct event_args *a = arg;
    return bp_db_event_list(db, a->job, a->after, a->limit, event_visit, a, err);
}

static void events_are_numbered_within_a_job(void **state)
{
    struct fixture *f = *state;
    struct bp_job_row one = new_job(BP_JOB_QUEUED), two = new_job(BP_JOB_QUEUED);
    insert_job(f, &one);
    insert_job(f, &two);
    struct event_args a = {.job = one.id, .limit = 10}, b = {.job = two.id, .limit = 1, .after = 1};
    assert_ok(f, bp_store_write(f->store, event_fn, &a, &f->err));
    assert_ok(f, bp_store_write(f->store, event_fn, &b, &f->err));
    assert_ok(f, bp_store_write(f->store, event_fn, &b, &f->err));
    assert_int_equal(a.last, 3);
    assert_int_equal(b.last, 5);
    assert_ok(f, bp_store_read(f->store, events_fn, &a, &f->err));
    assert_string_equal(a.types, "1:queued{} 2:started{\"a\":1} 3:epoch{} ");
    assert_ok(f, bp_store_read(f->store, events_fn, &b, &f->err));
    assert_string_equal(b.types, "2:started{\"a\":1} ");
    a.job = "job_unknown";
    assert_int_equal(bp_store_write(f->store, event_fn, &a, &f->err), BP_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_number_comes_back_bit_for_bit, setup, teardown),
        cmocka_unit_test_setup_teardown(a_point_is_replaced_and_trimmed, setup, teardown),
        cmocka_unit_test_setup_teardown(reading_stays_quick_among_many, setup, teardown),
        cmocka_unit_test_setup_teardown(events_are_numbered_within_a_job, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
