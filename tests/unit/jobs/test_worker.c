/* test_worker.c: jobs whose worker finds no room on the disk, or no memory, at any moment from its claim to its end. None
 * of that is the job's fault: it waits, goes on by itself, and nothing that was collected of it is missing. */
#include "spec_fixture.h"
#include "store/fault_vfs.h"

#include "app.h"
#include "base/memory.h"
#include "config.h"
#include "jobs/jobs.h"
#include "jobs/recovery.h"
#include "json_text.h"

#include <unistd.h>

/* store/store_internal.h, whose names are not for other floors */
bp_status bp_store_open_vfs(const struct bp_store_options *options, const char *vfs, struct bp_store **ret,
                            struct bp_error *err);

#define PATIENCE 600 /* seconds for what must come, however slow the machine is */

static struct bp_config config = {.threads = 1, .workers = 1, .memory = 1 << 28};
static struct bp_app app = {.config = &config};
static const struct bp_route no_routes[] = {{0}};

#define LEAVE_CHECKPOINTS "'checkpoint': {'every_epochs': 1000000, 'every_seconds': 86400}"
#define LONG "{'dataset': 'iris', 'target': 'species', 'layers': [4], 'epochs': 100000000, 'training': {"

static void must(bp_status status, const struct bp_error *err)
{
    if (status)
        fail_msg("%s: %s", bp_status_name(status), err->message);
}

static void start(void)
{
    struct bp_error err = {0};
    must(bp_jobs_start(&app, &err), &err);
}

static int up(void **state)
{
    struct bp_error err = {0};
    assert_int_equal(fixture_up(state), 0);
    fault_register();
    fault_arm(FAULT_WRITE, 0, 0, false);
    snprintf(config.data_dir, sizeof config.data_dir, "%s", fixture_dir);
    struct bp_store_options store = {.dir = fixture_dir, .readers = 2};
    must(bp_store_open_vfs(&store, "fault", &app.store, &err), &err);
    struct bp_http_options http = {.host = "127.0.0.1", .tmp_dir = fixture_dir, .routes = no_routes, .app = &app};
    must(bp_http_start(&http, &app.http, &err), &err);
    start();
    return 0;
}

static int down(void **state)
{
    fault_arm(FAULT_WRITE, 0, 0, false);
    bp_jobs_stop(&app);
    bp_http_stop(app.http);
    bp_store_close(app.store);
    return fixture_down(state);
}

/* --- jobs ------------------------------------------------------------------------------------------------------------ */
struct submission {
    struct bp_dataset_row dataset;
    struct bp_job_row row;
};

static bp_status insert(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct submission *s = arg;
    bool existed, same;
    bp_status status = bp_db_dataset_put(db, &s->dataset, &existed, &same, err);
    return status ? status : bp_db_job_insert(db, &s->row, err);
}

/* A queued job that no worker has been told of. */
static void submit(const char *text, char ret[BP_ID_SIZE])
{
    struct bp_spec spec;
    struct bp_error err = {0};
    struct submission s = {.row = {.status = BP_JOB_QUEUED, .request = strdup("{}"), .tags = strdup("{}")}};
    fixture_good(text, &spec);
    snprintf(s.dataset.name, sizeof s.dataset.name, "iris");
    memcpy(s.dataset.table, spec.table, sizeof s.dataset.table);
    memcpy(s.dataset.sha256, spec.table, sizeof s.dataset.sha256);
    s.dataset.description = fixture_sets[0].description;
    memcpy(s.row.table, spec.table, sizeof s.row.table);
    memcpy(s.row.sha256, spec.table, sizeof s.row.sha256);
    bp_store_new_id("job", s.row.id);
    s.row.created_at = bp_store_now();
    s.row.spec = bp_json_text(spec.resolved);
    must(bp_store_write(app.store, insert, &s, &err), &err);
    memcpy(ret, s.row.id, BP_ID_SIZE);
    bp_job_row_done(&s.row);
    bp_spec_done(&spec);
}

static enum bp_job_status status_of(const char *id)
{
    struct bp_job_row row = {0};
    struct bp_error err = {0};
    must(bp_job_read(app.store, id, &row, &err), &err);
    enum bp_job_status status = row.status;
    if (status == BP_JOB_FAILED)
        print_message("failed: %s\n", row.error);
    bp_job_row_done(&row);
    return status;
}

static void wait_for(const char *id, enum bp_job_status wanted)
{
    enum bp_job_status status = status_of(id);
    for (int i = 0; i < 100 * PATIENCE && status != wanted && !bp_job_status_final(status); i++) {
        usleep(10000);
        status = status_of(id);
    }
    assert_string_equal(bp_job_status_name(status), bp_job_status_name(wanted));
}

static void tell(const char *id, enum bp_verb verb)
{
    struct bp_job_row row = {0};
    struct bp_error err = {0};
    enum bp_job_status status;
    const char *allowed;
    must(bp_jobs_verb(&app, id, verb, &row, &status, &allowed, &err), &err);
    bp_job_row_done(&row);
}

struct series {
    const char *job;
    int64_t n, last; /* points of "loss", and the epoch of the last */
};

static bp_status count_point(void *arg, const struct bp_metric_point *point)
{
    struct series *s = arg;
    s->n++;
    s->last = point->epoch;
    return BP_OK;
}

static bp_status read_losses(struct bp_db *db, void *arg, struct bp_error *err)
{
    struct series *s = arg;
    const char *names[] = {"loss"};
    return bp_db_metric_list(db, s->job, names, 1, 0, count_point, s, err);
}

static struct series losses(const char *id)
{
    struct series s = {.job = id};
    struct bp_error err = {0};
    must(bp_store_read(app.store, read_losses, &s, &err), &err);
    return s;
}

/* --- tests ----------------------------------------------------------------------------------------------------------- */

/* A job during which the nth write fails, and all that follow, for a while. False: there are not so many. */
static bool survive(int code, long n)
{
    char id[BP_ID_SIZE];
    submit("{'dataset': 'iris', 'target': 'species', 'layers': [4], 'epochs': 30, 'test_split': 0.1}", id);
    fault_arm(FAULT_WRITE, code, n, true);
    bp_jobs_wake(app.jobs);
    enum bp_job_status status = BP_JOB_QUEUED;
    for (int i = 0; i < 200 * PATIENCE && !fault_failures() && !bp_job_status_final(status); i++) {
        usleep(5000);
        status = status_of(id);
    }
    usleep(30000); /* time to do something wrong */
    bool failed = fault_failures() > 0;
    fault_arm(FAULT_WRITE, 0, 0, false);
    wait_for(id, BP_JOB_SUCCEEDED); /* without anybody telling the worker */
    assert_int_equal(losses(id).n, 30);
    return failed;
}

static void test_a_full_disk_at_any_moment(void **state)
{
    (void)state;
    int n = 0;
    while (survive(SQLITE_FULL, 16 * n))
        n++;
    assert_true(n > 4);
}

static void test_no_memory_at_any_moment(void **state)
{
    (void)state;
    int n = 0;
    while (survive(SQLITE_NOMEM, 40 * n))
        n++;
    assert_true(n > 1);
}

static void test_no_memory_for_a_worker(void **state)
{
    char id[BP_ID_SIZE];
    (void)state;
    bp_jobs_stop(&app);
    submit("{'dataset': 'iris', 'target': 'species', 'layers': [4], 'epochs': 3}",
           id); /* the worker will have no memory from its first moment on */
    bp_alloc_fail_after(0);
    start();
    usleep(200000);
    enum bp_job_status status = status_of(id);
    bp_alloc_fail_after(-1);
    assert_string_equal(bp_job_status_name(status), "queued");
    wait_for(id, BP_JOB_SUCCEEDED);
}

static struct bp_snapshot now_of(const char *id)
{
    struct bp_snapshot now;
    assert_true(bp_jobs_snapshot(app.jobs, id, &now));
    return now;
}

/* On a full disk training goes on for a while, and then stands still: what it collects is bounded. */
static void test_a_full_disk_holds_the_training_up(void **state)
{
    char id[BP_ID_SIZE];
    (void)state;
    submit(LONG LEAVE_CHECKPOINTS "}}", id);
    bp_jobs_wake(app.jobs);
    wait_for(id, BP_JOB_RUNNING);
    fault_arm(FAULT_WRITE, SQLITE_FULL, 0, true);
    struct bp_snapshot before, now = {0};
    int i = 0;
    do {
        before = now;
        sleep(1);
        now = now_of(id);
    } while (i++ < PATIENCE && (!now.stalled || now.progress.step != before.progress.step));
    assert_non_null(now.stalled);
    assert_string_equal(now.stalled, "disk_full");
    fault_arm(FAULT_WRITE, 0, 0, false);
    for (i = 0; i < 100 * PATIENCE && now_of(id).progress.step == now.progress.step; i++)
        usleep(10000);
    tell(id, BP_VERB_CANCEL);
    wait_for(id, BP_JOB_CANCELLED);
    struct series s = losses(id);
    assert_true(s.n > 0);
    assert_int_equal(s.n, s.last);
}

static void test_told_while_it_waits_to_begin(void **state)
{
    char id[BP_ID_SIZE];
    (void)state;
    submit(LONG LEAVE_CHECKPOINTS "}}", id);
    bp_jobs_wake(app.jobs);
    wait_for(id, BP_JOB_RUNNING);
    tell(id, BP_VERB_PAUSE);
    wait_for(id, BP_JOB_PAUSED);
    /* stopped, put back into the queue, and cancelled there: no request is left */
    tell(id, BP_VERB_STOP);
    tell(id, BP_VERB_CANCEL);
    wait_for(id, BP_JOB_CANCELLED);
    struct bp_job_row row = {0};
    struct bp_error err = {0};
    must(bp_job_read(app.store, id, &row, &err), &err);
    assert_int_equal(row.stopping, 0);
    assert_true(row.finished_at > 0);
    bp_job_row_done(&row);
}

/* Stops the workers while nothing can be stored: the job's row stays as it is, running. */
static void stop_without_room(const char *id)
{
    wait_for(id, BP_JOB_RUNNING);
    fault_arm(FAULT_WRITE, SQLITE_FULL, 0, true);
    bp_jobs_stop(&app);
    fault_arm(FAULT_WRITE, 0, 0, false);
    assert_int_equal(status_of(id), BP_JOB_RUNNING);
}

static void test_a_full_disk_is_no_crash(void **state)
{
    char id[BP_ID_SIZE];
    (void)state;
    submit(LONG LEAVE_CHECKPOINTS "}}", id);
    bp_jobs_wake(app.jobs);
    for (int i = 0; i < BP_CRASHES_MAX + 2; i++) {
        stop_without_room(id);
        start();
    }
    for (int i = 0; i < BP_CRASHES_MAX; i++) {
        stop_without_room(id);
        bp_recovery_mark(&app, true); /* as if it had crashed */
        start();
    }
    assert_int_equal(status_of(id), BP_JOB_FAILED);
}

static void test_a_start_without_room(void **state)
{
    char left[BP_ID_SIZE], queued[BP_ID_SIZE];
    struct bp_snapshot now;
    (void)state;
    submit(LONG LEAVE_CHECKPOINTS "}}", left);
    bp_jobs_wake(app.jobs);
    stop_without_room(left);
    submit(LONG LEAVE_CHECKPOINTS "}}", queued);
    fault_arm(FAULT_WRITE, SQLITE_FULL, 0, true);
    start();
    bp_jobs_wake(app.jobs);
    usleep(200000);
    assert_int_equal(status_of(left), BP_JOB_RUNNING); /* as it was left */
    assert_false(bp_jobs_snapshot(app.jobs, left, &now));
    assert_int_equal(status_of(queued), BP_JOB_QUEUED);
    fault_arm(FAULT_WRITE, 0, 0, false);
    for (int i = 0; i < 100 * PATIENCE && !bp_jobs_snapshot(app.jobs, left, &now); i++)
        usleep(10000);
    tell(left, BP_VERB_CANCEL);
    wait_for(left, BP_JOB_CANCELLED);
    wait_for(queued, BP_JOB_RUNNING);
    tell(queued, BP_VERB_CANCEL);
    wait_for(queued, BP_JOB_CANCELLED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_full_disk_at_any_moment, up, down),
        cmocka_unit_test_setup_teardown(test_no_memory_at_any_moment, up, down),
        cmocka_unit_test_setup_teardown(test_no_memory_for_a_worker, up, down),
        cmocka_unit_test_setup_teardown(test_a_full_disk_holds_the_training_up, up, down),
        cmocka_unit_test_setup_teardown(test_told_while_it_waits_to_begin, up, down),
        cmocka_unit_test_setup_teardown(test_a_full_disk_is_no_crash, up, down),
        cmocka_unit_test_setup_teardown(test_a_start_without_room, up, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
