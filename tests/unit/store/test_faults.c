/* test_faults.c: writes and syncs that fail, at every point of an operation, once and for ever. Whatever happens: what
 * was acknowledged is there after reopening, and the file is sound. A failed sync latches the store. */
#include "store_test.h"

#include "fault_vfs.h"

static int setup_faulty(void **state)
{
    struct fixture *f = malloc(sizeof *f);
    struct bp_store_options options = {.dir = f->dir, .readers = 2};
    make_dir(f);
    fault_register();
    fault_arm(FAULT_WRITE, 0, 0, false);
    assert_ok(f, bp_store_open_vfs(&options, "fault", &f->store, &f->err));
    *state = f;
    return 0;
}

static void a_failed_sync_latches(void **state)
{
    struct fixture *f = *state;
    struct bp_job_row kept = new_job(BP_JOB_QUEUED), lost = kept, later = kept;
    bp_store_new_id("job", lost.id);
    bp_store_new_id("job", later.id);
    insert_job(f, &kept);
    fault_arm(FAULT_SYNC, SQLITE_IOERR_FSYNC, 0, false);
    assert_int_equal(bp_store_write(f->store, insert_fn, &lost, &f->err), BP_IO);
    assert_int_equal(fault_failures(), 1);
    assert_true(bp_store_failed(f->store));
    /* nothing more is written, although the next sync would succeed */
    assert_int_equal(bp_store_write(f->store, insert_fn, &later, &f->err), BP_IO);
    assert_int_equal(fault_failures(), 1);
    assert_non_null(strstr(f->err.message, "no more writes"));
    /* reads go on, and see what was acknowledged */
    struct get_args a = {.id = kept.id};
    assert_ok(f, bp_store_read(f->store, get_fn, &a, &f->err));
    bp_job_row_done(&a.row);
    assert_int_equal(number(f, "SELECT count(*) FROM job"), 1);
    reopen(f);
    assert_false(bp_store_failed(f->store));
    assert_ok(f, bp_store_read(f->store, get_fn, &a, &f->err));
    bp_job_row_done(&a.row);
    assert_ok(f, bp_store_write(f->store, insert_fn, &later, &f->err));
    assert_ok(f, bp_store_check(f->store, &f->err));
}

static void a_full_disk_does_not_latch(void **state)
{
    struct fixture *f = *state;
    struct bp_job_row row = new_job(BP_JOB_QUEUED);
    char ballast[100];
    snprintf(ballast, sizeof ballast, "%s/ballast", f->dir);
    assert_int_equal(access(ballast, F_OK), 0);
    fault_arm(FAULT_WRITE, SQLITE_FULL, 0, true);
    for (int i = 0; i < 3; i++)
        assert_int_equal(bp_store_write(f->store, insert_fn, &row, &f->err), BP_FULL);
    assert_false(bp_store_failed(f->store));
    assert_int_not_equal(access(ballast, F_OK), 0); /* given up, for the next small write */
    fault_arm(FAULT_WRITE, 0, 0, false);
    assert_ok(f, bp_store_write(f->store, insert_fn, &row, &f->err));
    assert_int_not_equal(access(ballast, F_OK), 0);
    struct bp_checkpoint_row ckpt = {.bytes = 1}; /* a large one finds room, and takes the ballast back first */
    strcpy(ckpt.job, row.id);
    assert_ok(f, bp_store_checkpoint(f->store, &ckpt, (const uint8_t *)"x", NULL, NULL, &f->err));
    assert_int_equal(access(ballast, F_OK), 0);
    reopen(f);
    assert_int_equal(number(f, "SELECT count(*) FROM job"), 1);
}

/* The queue as the writer sees it, who counts it once and then remembers. */
static bp_status queued_fn(struct bp_db *db, void *arg, struct bp_error *err)
{
    int64_t ahead;
    return bp_db_job_queue(db, 0, arg, &ahead, err);
}

/* Whatever point of an insertion the disk is full at: the writer does not count a job that is not there. */
static void a_full_disk_lengthens_no_queue(void **state)
{
    struct fixture *f = *state;
    int64_t queued, kept = 0;
    long failures = 1;
    int refused = 0;
    for (long n = 0; failures; n++) {
        struct bp_job_row row = new_job(BP_JOB_QUEUED);
        bp_store_new_id("job", row.id);
        assert_ok(f, bp_store_write(f->store, queued_fn, &queued, &f->err));
        assert_int_equal(queued, kept);
        fault_arm(FAULT_WRITE, SQLITE_FULL, n, false);
        bp_status status = bp_store_write(f->store, insert_fn, &row, &f->err);
        failures = fault_failures();
        fault_arm(FAULT_WRITE, 0, 0, false);
        assert_true(status == BP_OK || status == BP_FULL);
        kept += status == BP_OK;
        refused += status == BP_FULL;
        assert_ok(f, bp_store_write(f->store, queued_fn, &queued, &f->err));
        assert_int_equal(queued, kept);
        assert_int_equal(number(f, "SELECT count(*) FROM job"), kept);
    }
    assert_true(refused > 0 && kept > 0);
}

/* Fails the nth call for n = 0, 1, 2 … until a run of operations needs fewer. */
static void sweep_faults(void **state, enum fault_call call, int code, bool sticky)
{
    (void)state;
    int points = 0;
    for (long n = 0;; n++) {
        struct fixture f;
        struct bp_store_options options = {.dir = f.dir, .readers = 1};
        struct bp_job_row rows[4];
        bool acked[4];
        make_dir(&f);
        fault_arm(call, 0, 0, false);
        assert_ok(&f, bp_store_open_vfs(&options, "fault", &f.store, &f.err));
        fault_arm(call, code, n, sticky);
        for (int i = 0; i < 4; i++) {
            rows[i] = new_job(BP_JOB_RUNNING);
            acked[i] = bp_store_write(f.store, insert_fn, &rows[i], &f.err) == BP_OK;
        }
        struct bp_checkpoint_row ckpt = {.bytes = 17 << 20};
        strcpy(ckpt.job, rows[0].id);
        uint8_t *bytes = calloc(1, (size_t)ckpt.bytes), *loaded;
        bool stored = bp_store_checkpoint(f.store, &ckpt, bytes, NULL, NULL, &f.err) == BP_OK;
        long failures = fault_failures();
        close_store(&f);
        fault_arm(call, 0, 0, false);
        assert_ok(&f, open_store(&f, 0));
        for (int i = 0; i < 4; i++) {
            struct get_args a = {.id = rows[i].id};
            bp_status status = bp_store_read(f.store, get_fn, &a, &f.err);
            if (acked[i])
                assert_int_equal(status, BP_OK);
            if (status == BP_OK)
                bp_job_row_done(&a.row);
        }
        size_t size;
        if (stored) {
            assert_ok(&f, bp_store_checkpoint_load(f.store, ckpt.id, &loaded, &size, &f.err));
            assert_memory_equal(loaded, bytes, size);
            free(loaded);
        }
        free(bytes);
        assert_ok(&f, bp_store_check(f.store, &f.err));
        close_store(&f);
        remove_dir(&f);
        points++;
        if (!failures)
            break;
        if (call == FAULT_WRITE && n > 8) /* thousands of pages of one checkpoint: sample them */
            n += 1500;
    }
    print_message("%s of code %d failed at %d points, %s\n", call == FAULT_SYNC ? "sync" : "write", code, points - 1,
                  sticky ? "and ever after" : "once");
}

static void syncs_fail_everywhere(void **state)
{
    sweep_faults(state, FAULT_SYNC, SQLITE_IOERR_FSYNC, false);
    sweep_faults(state, FAULT_SYNC, SQLITE_IOERR_FSYNC, true);
}

static void writes_fail_everywhere(void **state)
{
    sweep_faults(state, FAULT_WRITE, SQLITE_IOERR_WRITE, false);
    sweep_faults(state, FAULT_WRITE, SQLITE_IOERR_WRITE, true);
    sweep_faults(state, FAULT_WRITE, SQLITE_FULL, false);
    sweep_faults(state, FAULT_WRITE, SQLITE_FULL, true);
}

int main(void)
{
    fault_register();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_failed_sync_latches, setup_faulty, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_does_not_latch, setup_faulty, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_lengthens_no_queue, setup_faulty, teardown),
        cmocka_unit_test(syncs_fail_everywhere),
        cmocka_unit_test(writes_fail_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
