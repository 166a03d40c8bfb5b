/* test_writer.c: order, undoing of single pieces, group commit, borrowing, lingering, the log, a full database, closing. */
#include "store_test.h"

#define THREADS 32
#define EACH 40

static bp_status add_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    char sql[80];
    snprintf(sql, sizeof sql, "INSERT INTO log (value) VALUES (%d)", *(int *)arg);
    return bp_db_exec(db, sql, "test", err);
}

static bp_status add_and_fail_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    bp_status status = add_fn(db, arg, err);
    return status == BP_OK ? bp_fail(err, BP_INVALID, "on purpose") : status;
}

static int setup_log(void **state)
{
    setup(state);
    struct fixture *f = *state;
    assert_ok(f,
              bp_store_write(f->store, sql_fn, (void *)"CREATE TABLE log (id INTEGER PRIMARY KEY, value)", &f->err));
    return 0;
}

/* --- posts and order -------------------------------------------------------------------------------------------- */
static int done_count, done_failed; /* the store's thread writes, we read after a close */

static void count_done(void *arg, bp_status status, const struct bp_error *err)
{
    (void)arg;
    assert_true((status == BP_OK) == (err == NULL));
    done_count++;
    done_failed += status != BP_OK;
}

static void pieces_run_in_order(void **state)
{
    struct fixture *f = *state;
    int values[301];
    done_count = done_failed = 0;
    for (int i = 0; i <= 300; i++) {
        values[i] = i;
        if (i % 10 == 0)
            assert_ok(f, bp_store_write(f->store, add_fn, &values[i], &f->err));
        else if (i % 10 == 5)
            assert_ok(f, bp_store_post(f->store, add_and_fail_fn, &values[i], count_done));
        else
            assert_ok(f, bp_store_post(f->store, add_fn, &values[i], count_done));
    }
    /* the last write has taken every post before it along */
    assert_int_equal(number(f, "SELECT count(*) FROM log"), 301 - 30);
    assert_int_equal(number(f, "SELECT count(*) FROM log a JOIN log b ON b.id = a.id + 1 WHERE b.value <= a.value"),
                     0);
    close_store(f);
    assert_int_equal(done_count, 270);
    assert_int_equal(done_failed, 30);
}

static void a_failing_piece_undoes_itself_alone(void **state)
{
    struct fixture *f = *state;
    int one = 1, two = 2;
    assert_ok(f, bp_store_post(f->store, add_fn, &one, NULL));
    assert_int_equal(bp_store_write(f->store, add_and_fail_fn, &two, &f->err), BP_INVALID);
    assert_string_equal(f->err.message, "on purpose");
    assert_int_equal(number(f, "SELECT group_concat(value) = '1' FROM log"), 1);
    assert_false(bp_store_failed(f->store));
}

static void posts_wait_for_company_but_not_long(void **state)
{
    struct fixture *f = *state;
    int one = 1;
    uint64_t before = bp_store_commits(f->store);
    double start = bp_clock();
    for (int i = 0; i < 100; i++)
        assert_ok(f, bp_store_post(f->store, add_fn, &one, NULL));
    while (number(f, "SELECT count(*) FROM log") < 100)
        usleep(5000);
    double took = bp_clock() - start;
    assert_true(took >= 0.2 && took < 2);
    assert_int_equal(bp_store_commits(f->store) - before, 1);
    /* a full house does not wait */
    start = bp_clock();
    for (int i = 0; i < BP_LINGER_PIECES; i++)
        assert_ok(f, bp_store_post(f->store, add_fn, &one, NULL));
    while (number(f, "SELECT count(*) FROM log") < 100 + BP_LINGER_PIECES)
        usleep(2000);
    assert_true(bp_clock() - start < 0.24);
}

static void closing_finishes_the_queue(void **state)
{
    struct fixture *f = *state;
    int one = 1;
    done_count = done_failed = 0;
    for (int i = 0; i < 50; i++)
        assert_ok(f, bp_store_post(f->store, add_fn, &one, count_done));
    reopen(f);
    assert_int_equal(done_count, 50);
    assert_int_equal(number(f, "SELECT count(*) FROM log"), 50);
}

/* --- group commit ----------------------------------------------------------------------------------------------- */
static void *write_many(void *arg)
{
    struct fixture *f = arg;
    for (int i = 0; i < EACH; i++) {
        struct bp_error err;
        assert_int_equal(bp_store_write(f->store, add_fn, &i, &err), BP_OK);
    }
    return NULL;
}

static void many_writers_share_a_commit(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[THREADS];
    uint64_t before = bp_store_commits(f->store);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, f), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    uint64_t commits = bp_store_commits(f->store) - before;
    print_message("%d writes of %d threads: %d commits\n", THREADS * EACH, THREADS, (int)commits);
    assert_int_equal(number(f, "SELECT count(*) FROM log"), THREADS * EACH);
    assert_true(commits <= THREADS * EACH / 4);
}

/* --- borrowing -------------------------------------------------------------------------------------------------- */
static bp_status self_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    int one = 1;
    *(pthread_t *)arg = pthread_self();
    return add_fn(db, &one, err);
}

static void who_comes_alone_writes_himself(void **state)
{
    struct fixture *f = *state;
    pthread_t self = 0;
    int two = 2;
    while (!pthread_equal(self,
                          pthread_self())) { /* until the store's thread has seen to all that it found at its start */
        assert_ok(f, bp_store_write_here(f->store, self_fn, &self, &f->err));
        usleep(1000);
    }
    int64_t rows = number(f, "SELECT count(*) FROM log");
    assert_int_equal(bp_store_write_here(f->store, add_and_fail_fn, &two, &f->err), BP_INVALID);
    assert_string_equal(f->err.message, "on purpose");
    assert_int_equal(number(f, "SELECT count(*) FROM log"), rows);
    /* what was posted before goes first */
    done_count = done_failed = 0;
    assert_ok(f, bp_store_post(f->store, add_fn, &two, count_done));
    assert_ok(f, bp_store_write_here(f->store, self_fn, &self, &f->err));
    assert_false(pthread_equal(self, pthread_self()));
    assert_int_equal(number(f, "SELECT count(*) FROM log"), rows + 2);
}

/* All ways of writing at once. */
static void *write_variously(void *arg)
{
    struct fixture *f = arg;
    static int one = 1;
    for (int i = 0; i < EACH; i++) {
        struct bp_error err;
        assert_int_equal(i % 3 == 2 ? bp_store_write(f->store, add_fn, &i, &err)
                                    : bp_store_write_here(f->store, add_fn, &i, &err),
                         BP_OK);
        if (i % 5 == 0)
            assert_int_equal(bp_store_post(f->store, add_fn, &one, count_done), BP_OK);
        if (i % 7 == 0)
            bp_store_want_sweep(f->store);
    }
    return NULL;
}

static void borrowers_and_the_thread_take_turns(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[THREADS];
    done_count = done_failed = 0;
    for (int n = 1; n <= THREADS; n *= 2) { /* alone, in pairs, in crowds */
        for (int i = 0; i < n; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, write_variously, f), 0);
        for (int i = 0; i < n; i++)
            pthread_join(threads[i], NULL);
    }
    reopen(f);
    int rounds = 2 * THREADS - 1, posts = EACH / 5;
    assert_int_equal(done_count, rounds * posts);
    assert_int_equal(done_failed, 0);
    assert_int_equal(number(f, "SELECT count(*) FROM log"), rounds * (EACH + posts));
}

/* --- the log ---------------------------------------------------------------------------------------------------- */
static bp_status pages_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    (void)arg;
    return bp_db_exec(db, "REPLACE INTO log VALUES (1, zeroblob(400000))", "test", err);
}

static void the_log_has_its_length_and_starts_over(void **state)
{
    struct fixture *f = *state;
    struct bp_store_figures figures;
    const int64_t whole = 32 + BP_WAL_PAGES * (24 + (int64_t)BP_PAGE_SIZE);
    do { /* the store's thread may still be at it */
        usleep(1000);
        bp_store_figures(f->store, &figures);
    } while (figures.log_bytes < whole);
    assert_int_equal(figures.log_bytes, whole);
    for (int i = 0; i < 5 * BP_WAL_PAGES / 50; i++) { /* about five logs */
        assert_ok(f, bp_store_write_here(f->store, pages_fn, NULL, &f->err));
        usleep(500);
    }
    bp_store_figures(f->store, &figures);
    assert_true(figures.log_bytes < 2 * whole); /* copied by the thread, although all was written by others */
}

/* Readers see whole transactions only, while others write. */
static bp_status pair_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    bp_status status = add_fn(db, arg, err);
    return status == BP_OK ? add_fn(db, arg, err) : status;
}

struct reading {
    struct fixture *f;
    bool stop;
    int reads;
};

static bp_status parity_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    int64_t n = 1, again = 1;
    bp_status status = bp_db_int(db, "SELECT count(*) FROM log", &n, err);
    if (status == BP_OK)
        status = bp_db_int(db, "SELECT count(*) FROM log", &again, err);
    *(bool *)arg = n % 2 == 0 && n == again;
    return status;
}

static void *read_many(void *arg)
{
    struct reading *r = arg;
    while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
        bool even;
        struct bp_error err;
        assert_int_equal(bp_store_read(r->f->store, parity_fn, &even, &err), BP_OK);
        assert_true(even);
        __atomic_add_fetch(&r->reads, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void readers_see_whole_transactions(void **state)
{
    struct fixture *f = *state;
    struct reading r = {.f = f};
    pthread_t threads[6]; /* more than connections */
    int one = 1;
    for (int i = 0; i < 6; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_many, &r), 0);
    for (int i = 0; i < 300; i++)
        assert_ok(f, bp_store_write(f->store, pair_fn, &one, &f->err));
    __atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    assert_true(r.reads > 0);
}

/* --- a full database -------------------------------------------------------------------------------------------- */
static bp_status big_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    (void)arg;
    return bp_db_exec(db, "INSERT INTO log (value) VALUES (zeroblob(300000))", "test", err);
}

static void a_full_database_recovers(void **state)
{
    struct fixture *f = *state;
    int one = 1;
    close_store(f);
    assert_ok(f, open_store(f, 2 << 20));
    bp_status status;
    int stored = 0;
    while ((status = bp_store_write(f->store, big_fn, NULL, &f->err)) == BP_OK)
        stored++;
    assert_int_equal(status, BP_FULL);
    assert_true(stored >= 3);
    assert_false(bp_store_failed(f->store));
    assert_int_equal(number(f, "SELECT count(*) FROM log"), stored);
    /* a post before it in the same transaction shares its fate, and is told so */
    done_count = done_failed = 0;
    assert_ok(f, bp_store_post(f->store, add_fn, &one, count_done));
    assert_int_equal(bp_store_write(f->store, big_fn, NULL, &f->err), BP_FULL);
    assert_int_equal(number(f, "SELECT count(*) FROM log"), stored);
    /* room again */
    assert_ok(f, bp_store_write(f->store, sql_fn, (void *)"DELETE FROM log", &f->err));
    assert_int_equal(done_failed, 1);
    assert_ok(f, bp_store_write(f->store, big_fn, NULL, &f->err));
    assert_ok(f, bp_store_check(f->store, &f->err));
    close_store(f);
    assert_ok(f, open_store(f, 0));
    assert_ok(f, bp_store_write(f->store, big_fn, NULL, &f->err));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup_log, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(pieces_run_in_order),
        TEST(a_failing_piece_undoes_itself_alone),
        TEST(posts_wait_for_company_but_not_long),
        TEST(closing_finishes_the_queue),
        TEST(many_writers_share_a_commit),
        TEST(who_comes_alone_writes_himself),
        TEST(borrowers_and_the_thread_take_turns),
        TEST(the_log_has_its_length_and_starts_over),
        TEST(readers_see_whole_transactions),
        TEST(a_full_database_recovers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
