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

/* Every member that can change, changed at once and read back; the others stay. */
static void an_update_writes_every_member(void **state)
{
    struct fixture *f = *state;
    struct bp_job_row row = new_job(BP_JOB_RUNNING);
    row.seed = 7;
    insert_job(f, &row);
    struct bp_job_row changed = row;
    char **texts[] = {&changed.name,      &changed.stop_reason, &changed.model,    &changed.warnings,
                      &changed.error,     &changed.transform,   &changed.progress, &changed.last_metrics,
                      &changed.best_name, &changed.test_metrics};
    int64_t *numbers[] = {&changed.started_at, &changed.finished_at,      &changed.threads,  &changed.priority,
                          &changed.restarts,   &changed.stalls,           &changed.numerics, &changed.best_epoch,
                          &changed.best_step,  &changed.split_fingerprint};
    char words[10][8];
    for (int i = 0; i < 10; i++) {
        snprintf(words[i], sizeof words[i], "text %d", i);
        *texts[i] = words[i];
        *numbers[i] = 100 + i;
    }
    changed.tags = (char *)"{\"a\":\"b\"}";
    changed.status = BP_JOB_SUCCEEDED;
    changed.stopping = 1;
    changed.has_best = changed.has_split = true;
    changed.best_value = -2.5;
    strcpy(changed.parent, "job_parent");
    changed.spec = changed.request = (char *)"never written";
    changed.seed = 8;
    assert_ok(f, bp_store_write(f->store, update_fn, &changed, &f->err));

    struct get_args a = {.id = row.id};
    assert_ok(f, bp_store_read(f->store, get_fn, &a, &f->err));
    const struct bp_job_row *got = &a.row;
    const char *const got_texts[] = {got->name,      got->stop_reason, got->model,    got->warnings,
                                     got->error,     got->transform,   got->progress, got->last_metrics,
                                     got->best_name, got->test_metrics};
    const int64_t got_numbers[] = {got->started_at, got->finished_at,      got->threads,  got->priority,
                                   got->restarts,   got->stalls,           got->numerics, got->best_epoch,
                                   got->best_step,  got->split_fingerprint};
    for (int i = 0; i < 10; i++) {
        assert_string_equal(got_texts[i], words[i]);
        assert_int_equal(got_numbers[i], 100 + i);
    }
    assert_string_equal(got->tags, changed.tags);
    assert_string_equal(got->parent, "job_parent");
    assert_string_equal(got->spec, "{}");
    assert_string_equal(got->request, "{}");
    assert_true(got->status == BP_JOB_SUCCEEDED && got->stopping == 1 && got->seed == 7 && got->version == 2);
    assert_true(got->has_best && got->best_value == -2.5 && got->has_split && got->created_at == row.created_at);
    bp_job_row_done(&a.row);
}

/* --- status ----------------------------------------------------------------------------------------------------- */
/* Rows: from; columns: to; in the order of enum bp_job_status. */
static const char *const legal[BP_JOB_STATUS_COUNT] = {
    /*              Qu Ru Pi Pd Ci Su Fa Cd */
    /* queued */ "++.+..++",
    /* running */ "++++++++",
    /* pausing */ "++++++++",
    /* paused */ "++.+.+++",
    /* cancelling */ "....++++",
    /* succeeded */ ".....+..",
    /* failed */ "......+.",
    /* cancelled */ ".......+",
};

static void only_legal_changes_of_status_are_stored(void **state)
{
    struct fixture *f = *state;
    for (int from = 0; from < BP_JOB_STATUS_COUNT; from++)
        for (int to = 0; to < BP_JOB_STATUS_COUNT; to++) {
            struct bp_job_row row = new_job((enum bp_job_status)from);
            insert_job(f, &row);
            row.status = (enum bp_job_status)to;
            bp_status status = bp_store_write(f->store, update_fn, &row, &f->err);
            if (status != (legal[from][to] == '+' ? BP_OK : BP_CONFLICT))
                fail_msg("%s to %s: %s", bp_job_status_name((enum bp_job_status)from),
                         bp_job_status_name((enum bp_job_status)to), bp_status_name(status));
        }
    assert_int_equal(
        bp_store_write(f->store, sql_fn, (void *)"UPDATE job SET status = 'queued' WHERE seq = 64", &f->err),
        BP_CONFLICT);
    assert_int_equal(
        bp_store_write(f->store, sql_fn, (void *)"UPDATE job SET status = 'lost' WHERE seq = 1", &f->err),
        BP_CONFLICT);
}

static void status_names_round_trip(void **state)
{
    (void)state;
    enum bp_job_status parsed;
    for (int i = 0; i < BP_JOB_STATUS_COUNT; i++) {
        assert_true(bp_job_status_parse(bp_job_status_name((enum bp_job_status)i), &parsed));
        assert_int_equal(parsed, i);
        assert_int_equal(bp_job_status_final((enum bp_job_status)i), i >= BP_JOB_SUCCEEDED);
    }
    assert_false(bp_job_status_parse("done", &parsed));
}

/* --- listings --------------------------------------------------------------------------------------------------- */
struct listing {
    struct bp_job_filter filter;
    char seqs[200]; /* "3 2 1 " */
    int count;
    bool wordless;
};

static bp_status collect(void *arg, const struct bp_job_row *row)
{
    struct listing *l = arg;
    l->count++;
    if (!l->wordless)
        snprintf(l->seqs + strlen(l->seqs), sizeof l->seqs - strlen(l->seqs), "%lld ", (long long)row->seq);
    return BP_OK;
}

static bp_status list_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct listing *l = arg;
    return bp_db_job_list(db, &l->filter, collect, l, err);
}

static void assert_listing(struct fixture *f, struct bp_job_filter filter, const char *expected)
{
    struct listing l = {.filter = filter};
    assert_ok(f, bp_store_read(f->store, list_fn, &l, &f->err));
    assert_string_equal(l.seqs, expected);
}

static void listings_filter_and_page(void **state)
{
    struct fixture *f = *state;
    char ids[7][BP_ID_SIZE];
    for (int i = 1; i <= 6; i++) {
        struct bp_job_row row = new_job(i % 2 ? BP_JOB_QUEUED : BP_JOB_SUCCEEDED);
        row.name = (char *)(i % 3 ? "a" : "b");
        row.tags = (char *)(i == 5 ? "{\"owner\":\"lea\",\"nested\":{\"x\":1}}" : i == 4 ? "{\"owner\":7}" : NULL);
        insert_job(f, &row);
        strcpy(ids[i], row.id);
    }
    int queued = 1 << BP_JOB_QUEUED, both = queued | 1 << BP_JOB_SUCCEEDED;
    assert_listing(f, (struct bp_job_filter){.limit = 100}, "6 5 4 3 2 1 ");
    assert_listing(f, (struct bp_job_filter){.limit = 2}, "6 5 ");
    assert_listing(f, (struct bp_job_filter){.limit = 2, .after = ids[5]}, "4 3 ");
    assert_listing(f, (struct bp_job_filter){.limit = 9, .ascending = true, .after = ids[4]}, "5 6 ");
    assert_listing(f, (struct bp_job_filter){.limit = 9, .statuses = queued}, "5 3 1 ");
    assert_listing(f, (struct bp_job_filter){.limit = 9, .statuses = both}, "6 5 4 3 2 1 ");
    assert_listing(f, (struct bp_job_filter){.limit = 9, .statuses = 1 << BP_JOB_RUNNING}, "");
    assert_listing(f, (struct bp_job_filter){.limit = 9, .name = "b", .statuses = queued}, "3 ");
    assert_listing(f, (struct bp_job_filter){.limit = 9, .tag_key = "owner", .tag_value = "lea"}, "5 ");
    assert_listing(f, (struct bp_job_filter){.limit = 9, .tag_key = "owner", .tag_value = "7"}, "4 ");
    assert_listing(f, (struct bp_job_filter){.limit = 9, .tag_key = "nested", .tag_value = "1"}, "");
    struct listing l = {.filter = {.limit = 9, .after = "job_unknown"}};
    assert_int_equal(bp_store_read(f->store, list_fn, &l, &f->err), BP_INVALID);

    /* tags follow an update */
    struct get_args a = {.id = ids[5]};
    assert_ok(f, bp_store_read(f->store, get_fn, &a, &f->err));
    free(a.row.tags);
    a.row.tags = strdup("{\"owner\":\"max\"}");
    assert_ok(f, bp_store_write(f->store, update_fn, &a.row, &f->err));
    bp_job_row_done(&a.row);
    assert_listing(f, (struct bp_job_filter){.limit = 9, .tag_key = "owner", .tag_value = "lea"}, "");
    assert_listing(f, (struct bp_job_filter){.limit = 9, .tag_key = "owner", .tag_value = "max"}, "5 ");
    assert_int_equal(number(f, "SELECT count(*) FROM job_tag"), 2);
}

struct queue {
    int64_t priority, queued, ahead;
};

static bp_status queue_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct queue *q = arg;
    return bp_db_job_queue(db, q->priority, &q->queued, &q->ahead, err);
}

/* A new job comes behind those of its own priority and of higher ones; jobs that are not queued do not count. */
static void the_queue_is_counted(void **state)
{
    struct fixture *f = *state;
    static const int64_t priorities[] = {0, 5, 0, -3};
    static const struct queue expected[] = {{9, 4, 0}, {5, 4, 1}, {1, 4, 1}, {0, 4, 3}, {-3, 4, 4}};
    struct queue empty = {.priority = 0};
    assert_ok(f, bp_store_read(f->store, queue_fn, &empty, &f->err));
    assert_true(empty.queued == 0 && empty.ahead == 0);
    for (size_t i = 0; i < sizeof priorities / sizeof *priorities; i++) {
        struct bp_job_row row = new_job(BP_JOB_QUEUED);
        row.priority = priorities[i];
        insert_job(f, &row);
    }
    struct bp_job_row running = new_job(BP_JOB_RUNNING);
    insert_job(f, &running);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        struct queue q = {.priority = expected[i].priority};
        assert_ok(f, bp_store_read(f->store, queue_fn, &q, &f->err));
        assert_int_equal(q.queued, expected[i].queued);
        assert_int_equal(q.ahead, expected[i].ahead);
    }
}

static void assert_queue(struct fixture *f, int64_t queued)
{
    struct queue q = {.priority = 0};
    assert_ok(f, bp_store_write(f->store, queue_fn, &q, &f->err));
    assert_int_equal(q.queued, queued);
    assert_int_equal(q.ahead, queued);
}

static bp_status insert_and_fail_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    bp_status status = bp_db_job_insert(db, arg, err);
    return status == BP_OK ? bp_fail(err, BP_INVALID, "on purpose") : status;
}

/* What the writer remembers of the queue follows whatever happens to it. */
static void the_writer_knows_the_queue(void **state)
{
    struct fixture *f = *state;
    struct bp_job_row rows[] = {new_job(BP_JOB_QUEUED), new_job(BP_JOB_QUEUED), new_job(BP_JOB_SUCCEEDED)};
    assert_queue(f, 0);
    for (int i = 0; i < 3; i++)
        insert_job(f, &rows[i]);
    assert_queue(f, 2);
    struct bp_job_row refused = new_job(BP_JOB_QUEUED);
    assert_int_equal(bp_store_write(f->store, insert_and_fail_fn, &refused, &f->err), BP_INVALID);
    assert_queue(f, 2);
    rows[0].status = BP_JOB_RUNNING;
    assert_ok(f, bp_store_write(f->store, update_fn, &rows[0], &f->err));
    assert_queue(f, 1);
    rows[0].status = BP_JOB_QUEUED;
    assert_ok(f, bp_store_write(f->store, update_fn, &rows[0], &f->err));
    assert_queue(f, 2);
    reopen(f);
    assert_queue(f, 2);
}

static bp_status many_jobs_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    bp_status status = BP_OK;
    for (int i = 0; status == BP_OK && i < 10000; i++) {
        struct bp_job_row row = new_job(BP_JOB_SUCCEEDED);
        row.spec = row.request = arg;
        row.name = (char *)"n";
        status = bp_db_job_insert(db, &row, err);
    }
    return status;
}

static void listings_of_many_jobs_are_quick(void **state)
{
    struct fixture *f = *state;
    char spec[3001];
    memset(spec, 'x', 3000);
    spec[3000] = 0;
    assert_ok(f, bp_store_write(f->store, many_jobs_fn, spec, &f->err));
    struct listing l[] = {
        {.filter = {.limit = 100}, .wordless = true},
        {.filter = {.limit = 100, .statuses = 1 << BP_JOB_RUNNING}, .wordless = true},
        {.filter = {.limit = 100, .name = "other"}, .wordless = true},
        {.filter = {.limit = 100, .tag_key = "k", .tag_value = "v"}, .wordless = true},
    };
    for (size_t i = 0; i < sizeof l / sizeof l[0]; i++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        assert_ok(f, bp_store_read(f->store, list_fn, &l[i], &f->err));
        clock_gettime(CLOCK_MONOTONIC, &b);
        print_message("listing %d of 10,000 jobs: %.2f ms\n", (int)i,
                      (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6);
        assert_int_equal(l[i].count, i == 0 ? 100 : 0);
    }
}

/* --- deletion --------------------------------------------------------------------------------------------------- */
static bp_status events_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    bp_status status = BP_OK;
    for (int i = 0; status == BP_OK && i < 6000; i++) {
        struct bp_metric_point points[] = {{"loss", i / 10, i, 0.5}, {"batch_loss", i / 10, i, 0.5}};
        status = bp_db_event_add(db, arg, "epoch", "{}", NULL, err);
        if (status == BP_OK)
            status = bp_db_metric_add(db, arg, points, 2, err);
    }
    if (status == BP_OK)
        status = bp_db_key_put(db, arg, "hash", arg, err);
    return status;
}

static bp_status count_active_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    int64_t *counts = arg;
    bp_status status = bp_db_job_count(db, 0, &counts[0], err);
    return status == BP_OK ? bp_db_job_count(db, 1 << BP_JOB_QUEUED | 1 << BP_JOB_RUNNING, &counts[1], err) : status;
}

static void a_deleted_job_vanishes_at_once_and_its_rows_later(void **state)
{
    struct fixture *f = *state;
    struct bp_job_row row = new_job(BP_JOB_QUEUED), kept = new_job(BP_JOB_QUEUED);
    int64_t counts[2];
    insert_job(f, &row);
    insert_job(f, &kept);
    assert_ok(f, bp_store_write(f->store, events_fn, row.id, &f->err));
    assert_ok(f, bp_store_write(f->store, events_fn, kept.id, &f->err));
    assert_int_equal(bp_store_write(f->store, delete_fn, row.id, &f->err), BP_CONFLICT);
    row.status = BP_JOB_CANCELLED;
    assert_ok(f, bp_store_write(f->store, update_fn, &row, &f->err));
    struct bp_checkpoint_row ckpt = {.bytes = 40 << 20};
    strcpy(ckpt.job, row.id);
    uint8_t *bytes = calloc(1, (size_t)ckpt.bytes);
    assert_ok(f, bp_store_checkpoint(f->store, &ckpt, bytes, NULL, NULL, &f->err));
    free(bytes);
    int64_t pages = number(f, "PRAGMA page_count");

    assert_ok(f, bp_store_write(f->store, delete_fn, row.id, &f->err));
    struct get_args a = {.id = row.id};
    assert_int_equal(bp_store_read(f->store, get_fn, &a, &f->err), BP_NOT_FOUND);
    assert_int_equal(bp_store_write(f->store, delete_fn, row.id, &f->err), BP_NOT_FOUND);
    assert_listing(f, (struct bp_job_filter){.limit = 9}, "2 ");
    assert_ok(f, bp_store_read(f->store, count_active_fn, counts, &f->err));
    assert_true(counts[0] == 1 && counts[1] == 1);
    wait_for_zero(f, "SELECT count(*) FROM job WHERE deleted = 1");
    wait_for_zero(f, "SELECT count(*) FROM blob");
    assert_int_equal(number(f, "SELECT count(*) FROM event"), 6000);
    assert_int_equal(number(f, "SELECT count(*) FROM point"), 12000);
    assert_int_equal(number(f, "SELECT count(*) FROM series"), 2);
    assert_int_equal(number(f, "SELECT count(*) FROM idempotency_key"), 1);
    assert_int_equal(number(f, "SELECT count(*) FROM chunk"), 0);
    /* and the space goes back to the file system */
    wait_for_zero(f, "PRAGMA freelist_count");
    assert_true(number(f, "PRAGMA page_count") < pages / 4);
    char path[200];
    struct stat st;
    snprintf(path, sizeof path, "%s/backpropd.db", f->dir);
    for (int i = 0; i < 200 && stat(path, &st) == 0 && st.st_size > (8 << 20); i++)
        usleep(20000);
    assert_true(st.st_size < (8 << 20));
    assert_ok(f, bp_store_check(f->store, &f->err));
}

/* --- keys ------------------------------------------------------------------------------------------------------- */
struct submission {
    struct bp_job_row row;
    const char *key;
};

static bp_status submit_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct submission *s = arg;
    bp_status status = bp_db_job_insert(db, &s->row, err);
    return status == BP_OK ? bp_db_key_put(db, s->key, SHA_1, s->row.id, err) : status;
}

struct key_args {
    const char *key;
    char sha256[BP_SHA256_HEX], job[BP_ID_SIZE];
};

static bp_status key_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct key_args *a = arg;
    return bp_db_key_get(db, a->key, a->sha256, a->job, err);
}

static void a_used_key_undoes_the_job(void **state)
{
    struct fixture *f = *state;
    struct submission first = {.row = new_job(BP_JOB_QUEUED), .key = "k"}, second = first;
    bp_store_new_id("job", second.row.id);
    assert_ok(f, bp_store_write(f->store, submit_fn, &first, &f->err));
    assert_int_equal(bp_store_write(f->store, submit_fn, &second, &f->err), BP_CONFLICT);
    assert_int_equal(number(f, "SELECT count(*) FROM job"), 1);
    struct key_args a = {.key = "k"};
    assert_ok(f, bp_store_read(f->store, key_fn, &a, &f->err));
    assert_string_equal(a.sha256, SHA_1);
    assert_string_equal(a.job, first.row.id);
    a.key = "other";
    assert_int_equal(bp_store_read(f->store, key_fn, &a, &f->err), BP_NOT_FOUND);
}

/* --- ids -------------------------------------------------------------------------------------------------------- */
static void *make_ids(void *arg)
{
    char(*ids)[BP_ID_SIZE] = arg;
    for (int i = 0; i < 5000; i++)
        bp_store_new_id("ckpt", ids[i]);
    return NULL;
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void ids_ascend_and_differ(void **state)
{
    (void)state;
    static char ids[4 * 5000][BP_ID_SIZE];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, make_ids, ids[i * 5000]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 4; i++)
        for (int k = 1; k < 5000; k++)
            assert_true(strcmp(ids[i * 5000 + k - 1], ids[i * 5000 + k]) < 0);
    qsort(ids, 4 * 5000, BP_ID_SIZE, compare_ids);
    for (int i = 1; i < 4 * 5000; i++)
        assert_string_not_equal(ids[i - 1], ids[i]);
    assert_int_equal(strlen(ids[0]), 31);
    assert_int_equal(strspn(ids[0] + 5, "0123456789abcdefghjkmnpqrstvwxyz"), 26);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_job_comes_back_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(an_update_checks_the_version, setup, teardown),
        cmocka_unit_test_setup_teardown(an_update_writes_every_member, setup, teardown),
        cmocka_unit_test_setup_teardown(only_legal_changes_of_status_are_stored, setup, teardown),
        cmocka_unit_test(status_names_round_trip),
        cmocka_unit_test_setup_teardown(listings_filter_and_page, setup, teardown),
        cmocka_unit_test_setup_teardown(the_queue_is_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(the_writer_knows_the_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(listings_of_many_jobs_are_quick, setup, teardown),
        cmocka_unit_test_setup_teardown(a_deleted_job_vanishes_at_once_and_its_rows_later, setup, teardown),
        cmocka_unit_test_setup_teardown(a_used_key_undoes_the_job, setup, teardown),
        cmocka_unit_test(ids_ascend_and_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
