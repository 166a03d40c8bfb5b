/* test_checkpoints.c: whole or not at all, found again, verified; retention, pins, and what an interruption leaves. */
#include "store_test.h"

struct get_ckpt {
    const char *job, *which;
    struct bp_checkpoint_row row;
};

static bp_status get_ckpt_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct get_ckpt *g = arg;
    return bp_db_checkpoint_get(db, g->job, g->which, &g->row, err);
}

static uint8_t *pattern(size_t size, unsigned seed)
{
    uint8_t *bytes = malloc(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)((i * 2654435761u + seed * 40503u) >> 13);
    return bytes;
}

static bp_status write_ckpt(struct fixture *f, struct bp_checkpoint_row *row, unsigned seed, bp_store_fn *also,
                            void *arg)
{
    uint8_t *bytes = pattern((size_t)row->bytes, seed);
    bp_status status = bp_store_checkpoint(f->store, row, bytes, also, arg, &f->err);
    free(bytes);
    return status;
}

static struct bp_checkpoint_row ckpt_row(const struct bp_job_row *job, int64_t bytes, int64_t step, bool best)
{
    struct bp_checkpoint_row row = {.bytes = bytes,
                                    .step = step,
                                    .epoch = step / 10,
                                    .best = best,
                                    .numerics = 1,
                                    .metrics = (char *)"{\"loss\":1}"};
    strcpy(row.job, job->id);
    return row;
}

static void assert_loads(struct fixture *f, const char *id, size_t size, unsigned seed)
{
    uint8_t *got, *expected = pattern(size, seed);
    size_t got_size;
    assert_ok(f, bp_store_checkpoint_load(f->store, id, &got, &got_size, &f->err));
    assert_int_equal(got_size, size);
    assert_memory_equal(got, expected, size);
    free(got);
    free(expected);
}

static void any_size_comes_back(void **state)
{
    struct fixture *f = *state;
    static const int64_t sizes[] = {
        1, BP_CHUNK_BYTES - 1, BP_CHUNK_BYTES, BP_CHUNK_BYTES + 1, 16 * BP_CHUNK_BYTES, 33 * BP_CHUNK_BYTES + 77};
    struct bp_job_row job = new_job(BP_JOB_RUNNING);
    insert_job(f, &job);
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct bp_checkpoint_row row = ckpt_row(&job, sizes[i], i, false);
        uint64_t before = bp_store_commits(f->store);
        assert_ok(f, write_ckpt(f, &row, i, NULL, NULL));
        assert_int_equal(bp_store_commits(f->store) - before, (sizes[i] + (16 << 20) - 1) / (16 << 20));
        assert_int_equal(row.seq, i + 1);
        assert_loads(f, row.id, (size_t)sizes[i], i);
        struct get_ckpt g = {.job = job.id};
        assert_ok(f, bp_store_read(f->store, get_ckpt_fn, &g, &f->err));
        assert_string_equal(g.row.id, row.id);
        assert_string_equal(g.row.job, job.id);
        assert_string_equal(g.row.sha256, row.sha256);
        assert_string_equal(g.row.metrics, "{\"loss\":1}");
        assert_true(g.row.bytes == sizes[i] && g.row.step == i && g.row.numerics == 1 && g.row.created_at > 0);
        bp_checkpoint_row_done(&g.row);
    }
}

struct range {
    const char *id;
    int64_t offset;
    size_t size;
    uint8_t *bytes;
};

static bp_status range_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct range *r = arg;
    return bp_db_checkpoint_bytes(db, r->id, r->offset, r->size, r->bytes, err);
}

static void ranges_are_read_across_chunks(void **state)
{
    struct fixture *f = *state;
    size_t size = 3 * BP_CHUNK_BYTES + 100;
    struct bp_job_row job = new_job(BP_JOB_RUNNING);
    insert_job(f, &job);
    struct bp_checkpoint_row row = ckpt_row(&job, (int64_t)size, 1, true);
    assert_ok(f, write_ckpt(f, &row, 3, NULL, NULL));
    uint8_t *expected = pattern(size, 3), *got = malloc(size);
    struct range r = {row.id, BP_CHUNK_BYTES - 5, BP_CHUNK_BYTES + 10, got};
    assert_ok(f, bp_store_read(f->store, range_fn, &r, &f->err));
    assert_memory_equal(got, expected + r.offset, r.size);
    r = (struct range){row.id, (int64_t)size - 1, 1, got};
    assert_ok(f, bp_store_read(f->store, range_fn, &r, &f->err));
    r = (struct range){row.id, (int64_t)size - 1, 2, got};
    assert_int_not_equal(bp_store_read(f->store, range_fn, &r, &f->err), BP_OK);
    r = (struct range){row.id, -1, 1, got};
    assert_int_equal(bp_store_read(f->store, range_fn, &r, &f->err), BP_INVALID);
    r = (struct range){"ckpt_unknown", 0, 1, got};
    assert_int_equal(bp_store_read(f->store, range_fn, &r, &f->err), BP_NOT_FOUND);
    free(expected);
    free(got);
}

static void a_flipped_bit_is_found(void **state)
{
    struct fixture *f = *state;
    struct bp_job_row job = new_job(BP_JOB_RUNNING);
    insert_job(f, &job);
    struct bp_checkpoint_row row = ckpt_row(&job, 2 * BP_CHUNK_BYTES, 1, false);
    uint8_t *bytes;
    size_t size;
    assert_ok(f, write_ckpt(f, &row, 1, NULL, NULL));
    assert_ok(f, bp_store_write(f->store, sql_fn,
                                (void *)"UPDATE chunk SET bytes = CAST(substr(bytes, 1, 1048575) || x'00' AS BLOB)"
                                        " WHERE n = 1",
                                &f->err));
    assert_int_equal(bp_store_checkpoint_load(f->store, row.id, &bytes, &size, &f->err), BP_CORRUPT);
    /* a chunk that fits its own hash, but not the whole */
    assert_ok(f, write_ckpt(f, &row, 2, NULL, NULL));
    assert_ok(f, bp_store_write(f->store, sql_fn,
                                (void *)"UPDATE chunk SET (sha256, bytes) = (SELECT sha256, bytes FROM chunk o"
                                        " WHERE o.blob = 2 AND o.n = 0) WHERE blob = 2 AND n = 1",
                                &f->err));
    assert_int_equal(bp_store_checkpoint_load(f->store, row.id, &bytes, &size, &f->err), BP_CORRUPT);
}

static bp_status seqs_visit(void *arg, const struct bp_checkpoint_row *row)
{
    char *text = arg;
    sprintf(text + strlen(text), "%d%s ", (int)row->step, row->best ? "*" : "");
    return BP_OK;
}

struct steps_args {
    const char *job;
    char text[100];
};

static bp_status steps_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct steps_args *a = arg;
    a->text[0] = 0;
    return bp_db_checkpoint_list(db, a->job, seqs_visit, a->text, err);
}

static void assert_steps(struct fixture *f, const struct bp_job_row *job, const char *expected)
{
    struct steps_args a = {.job = job->id};
    assert_ok(f, bp_store_read(f->store, steps_fn, &a, &f->err));
    assert_string_equal(a.text, expected);
}

static void retention_keeps_the_last_two_the_best_and_the_pinned(void **state)
{
    struct fixture *f = *state;
    struct bp_job_row job = new_job(BP_JOB_RUNNING), other = new_job(BP_JOB_RUNNING);
    insert_job(f, &job);
    insert_job(f, &other);
    char first[BP_ID_SIZE];
    for (int i = 1; i <= 7; i++) {
        struct bp_checkpoint_row row = ckpt_row(&job, 1000, i, i == 2 || i == 3);
        assert_ok(f, write_ckpt(f, &row, 1, NULL, NULL));
        if (i == 1) {
            strcpy(first, row.id);
            bp_store_checkpoint_pin(f->store, first);
            bp_store_checkpoint_pin(f->store, first);
        }
        if (i == 5)
            bp_store_checkpoint_unpin(f->store, first);
        static const char *const expected[] = {"1 ", "2* 1 ", "3* 2* 1 ", "4 3* 1 ", "5 4 3* 1 ", "6 5 3* 1 "};
        if (i <= 6)
            assert_steps(f, &job, expected[i - 1]);
        if (i == 6)
            bp_store_checkpoint_unpin(f->store, first);
    }
    assert_steps(f, &job, "7 6 3* ");
    assert_steps(f, &other, "");
    struct get_ckpt g = {.job = job.id, .which = "best"};
    assert_ok(f, bp_store_read(f->store, get_ckpt_fn, &g, &f->err));
    assert_int_equal(g.row.step, 3);
    char id[BP_ID_SIZE];
    strcpy(id, g.row.id);
    bp_checkpoint_row_done(&g.row);
    g = (struct get_ckpt){.job = other.id, .which = "best"};
    assert_int_equal(bp_store_read(f->store, get_ckpt_fn, &g, &f->err), BP_NOT_FOUND);
    g.which = id; /* of another job */
    assert_int_equal(bp_store_read(f->store, get_ckpt_fn, &g, &f->err), BP_NOT_FOUND);
    g.job = NULL;
    assert_ok(f, bp_store_read(f->store, get_ckpt_fn, &g, &f->err));
    bp_checkpoint_row_done(&g.row);
    wait_for_zero(f, "SELECT count(*) - 3 FROM blob");
    assert_int_equal(number(f, "SELECT count(*) FROM chunk"), 3);
}

static bp_status also_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    bp_status status = bp_db_event_add(db, arg, "checkpoint", "{}", NULL, err);
    return status;
}

static bp_status also_fail_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    also_fn(db, arg, err);
    return bp_fail(err, BP_CONFLICT, "on purpose");
}

static void what_belongs_to_it_is_committed_with_it(void **state)
{
    struct fixture *f = *state;
    struct bp_job_row job = new_job(BP_JOB_RUNNING);
    insert_job(f, &job);
    struct bp_checkpoint_row row = ckpt_row(&job, 20 << 20, 1, false);
    assert_ok(f, write_ckpt(f, &row, 1, also_fn, job.id));
    assert_int_equal(number(f, "SELECT count(*) FROM event"), 1);
    struct bp_checkpoint_row bad = ckpt_row(&job, 40 << 20, 2, false);
    assert_int_equal(write_ckpt(f, &bad, 2, also_fail_fn, job.id), BP_CONFLICT);
    assert_int_equal(number(f, "SELECT count(*) FROM event"), 1);
    assert_steps(f, &job, "1 ");
    wait_for_zero(f, "SELECT count(*) - 1 FROM blob"); /* the chunks of the bad one are swept away */
    assert_int_equal(number(f, "SELECT count(*) FROM chunk"), 20);
    assert_loads(f, row.id, 20 << 20, 1);
    strcpy(row.job, "job_unknown");
    assert_int_equal(write_ckpt(f, &row, 1, NULL, NULL), BP_NOT_FOUND);
}

static void orphans_of_a_crash_are_swept_at_the_start(void **state)
{
    struct fixture *f = *state;
    assert_ok(f, bp_store_write(f->store, sql_fn,
                                (void *)"INSERT INTO blob (id) VALUES (77);"
                                        "INSERT INTO chunk (blob, n, sha256, bytes) VALUES"
                                        " (77, 0, zeroblob(32), zeroblob(1000))",
                                &f->err));
    reopen(f);
    wait_for_zero(f, "SELECT count(*) FROM blob");
    assert_int_equal(number(f, "SELECT count(*) FROM chunk"), 0);
}

struct other_writer {
    struct fixture *f;
    struct bp_job_row *job;
    bool stop;
    double worst;
};

static void *write_events(void *arg)
{
    struct other_writer *o = arg;
    while (!__atomic_load_n(&o->stop, __ATOMIC_RELAXED)) {
        struct bp_error err;
        double start = bp_clock();
        assert_int_equal(bp_store_write(o->f->store, also_fn, o->job->id, &err), BP_OK);
        double took = bp_clock() - start;
        o->worst = took > o->worst ? took : o->worst;
    }
    return NULL;
}

static void others_write_while_a_large_one_is_stored(void **state)
{
    struct fixture *f = *state;
    struct bp_job_row job = new_job(BP_JOB_RUNNING);
    insert_job(f, &job);
    struct other_writer o = {.f = f, .job = &job};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, write_events, &o), 0);
    for (int i = 0; i < 4; i++) {
        struct bp_checkpoint_row row = ckpt_row(&job, 100 << 20, i, false);
        assert_ok(f, write_ckpt(f, &row, 1, NULL, NULL));
    }
    __atomic_store_n(&o.stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    print_message("longest wait of another writer: %.0f ms; %d writes\n", 1e3 * o.worst,
                  (int)number(f, "SELECT count(*) FROM event"));
}

static void a_full_database_keeps_the_old_ones(void **state)
{
    struct fixture *f = *state;
    close_store(f);
    assert_ok(f, open_store(f, 40 << 20));
    struct bp_job_row job = new_job(BP_JOB_RUNNING);
    insert_job(f, &job);
    struct bp_checkpoint_row row = ckpt_row(&job, 17 << 20, 1, false), big = ckpt_row(&job, 60 << 20, 2, false);
    assert_ok(f, write_ckpt(f, &row, 1, NULL, NULL));
    assert_int_equal(write_ckpt(f, &big, 1, NULL, NULL), BP_FULL);
    assert_loads(f, row.id, 17 << 20, 1);
    wait_for_zero(f, "SELECT count(*) - 1 FROM blob");
    struct bp_checkpoint_row again = ckpt_row(&job, 18 << 20, 3, false); /* there is room again */
    assert_ok(f, write_ckpt(f, &again, 5, NULL, NULL));
    assert_loads(f, again.id, 18 << 20, 5);
    assert_false(bp_store_failed(f->store));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(any_size_comes_back),
        TEST(ranges_are_read_across_chunks),
        TEST(a_flipped_bit_is_found),
        TEST(retention_keeps_the_last_two_the_best_and_the_pinned),
        TEST(what_belongs_to_it_is_committed_with_it),
        TEST(orphans_of_a_crash_are_swept_at_the_start),
        TEST(others_write_while_a_large_one_is_stored),
        TEST(a_full_database_keeps_the_old_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
