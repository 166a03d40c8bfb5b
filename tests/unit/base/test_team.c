/* test_team.c: every task of every stage runs once, on the right thread, and its writes are seen. */
#include "base/team.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Fewer stages under the thread sanitizer, which slows everything down. */
#if defined(__SANITIZE_THREAD__)
enum { STAGES = 4000 };
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
enum { STAGES = 4000 };
#else
enum { STAGES = 40000 };
#endif
#else
enum { STAGES = 40000 };
#endif
enum { TASKS = 24 };

/* No atomics on purpose: only the team orders these accesses. */
struct job {
    int threads, stages, vary;
    int active, ntasks, wrong;
    uint64_t left[TASKS], right[TASKS]; /* each stage reads one side and writes the other */
};

static uint64_t mix(uint64_t a, uint64_t b)
{
    return (a ^ (b >> 3)) * 0x9e3779b97f4a7c15u + b;
}

/* Whether the thread was to run the task: each has a slice of them. */
static int is_mine(const struct job *job, int task, int thread)
{
    return task >= bp_team_slice(job->ntasks, job->active, thread, 0) &&
           task < bp_team_slice(job->ntasks, job->active, thread + 1, 0);
}

static void to_right(void *arg, int task, int thread)
{
    struct job *job = arg;
    job->right[task] = mix(job->left[task], job->left[(task + 7) % TASKS]);
    if (!is_mine(job, task, thread))
        job->wrong = 1;
}

static void to_left(void *arg, int task, int thread)
{
    struct job *job = arg;
    job->left[task] = mix(job->right[task], job->right[(task + 5) % TASKS]);
    if (!is_mine(job, task, thread))
        job->wrong = 1;
}

static void lead(struct bp_team *team, void *arg)
{
    struct job *job = arg;
    if (bp_team_capacity(team) != job->threads || bp_team_active(team) != job->threads)
        job->wrong = 1;
    for (int s = 0; s < job->stages; s++) {
        if (job->vary)
            bp_team_set_active(team, (s * 7 + s / 13) % (job->threads + 2)); /* 0 and capacity + 1 are clamped */
        job->active = bp_team_active(team);
        int ntasks = job->vary && s % 3 == 0 ? 1 + s % TASKS : TASKS;
        if (ntasks < job->active)
            job->active = ntasks;
        job->ntasks = ntasks;
        bp_team_for(team, ntasks, s % 2 ? to_left : to_right, job);
    }
}

static void serial(struct job *job)
{
    struct job copy = *job;
    copy.threads = 1;
    memset(job, 0, sizeof *job);
    for (int i = 0; i < TASKS; i++)
        copy.left[i] = (uint64_t)i;
    lead(NULL, &copy);
    *job = copy;
}

static struct job run(int threads, int stages, int vary)
{
    struct job job = {.threads = threads, .stages = stages, .vary = vary};
    for (int i = 0; i < TASKS; i++)
        job.left[i] = (uint64_t)i;
    bp_team_run(threads, lead, &job);
    return job;
}

static void test_all_sizes_give_the_same(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 8; threads++) {
        int stages = threads <= 2 ? STAGES : STAGES / 50; /* more threads than processors switch at each stage */
        struct job want = {.stages = stages};
        serial(&want);
        struct job got = run(threads, stages, 0);
        assert_int_equal(got.wrong, 0);
        assert_memory_equal(got.left, want.left, sizeof want.left);
        assert_memory_equal(got.right, want.right, sizeof want.right);
    }
}

/* The slices of a stage are even, in order and whole, and turns move what is left over from part to part. */
static void test_slices_are_even(void **state)
{
    (void)state;
    for (int ntasks = 0; ntasks < 40; ntasks++)
        for (int parts = 1; parts < 10; parts++)
            for (int turn = 0; turn < 12; turn++) {
                assert_int_equal(bp_team_slice(ntasks, parts, 0, turn), 0);
                assert_int_equal(bp_team_slice(ntasks, parts, parts, turn), ntasks);
                for (int p = 0; p < parts; p++) {
                    int n = bp_team_slice(ntasks, parts, p + 1, turn) - bp_team_slice(ntasks, parts, p, turn);
                    assert_in_range(n, ntasks / parts, (ntasks + parts - 1) / parts);
                }
            }
    assert_int_equal(bp_team_slice(1, 2, 1, 0), 0); /* one task: the last part has it */
    assert_int_equal(bp_team_slice(1, 2, 1, 1), 1);
}

static void test_active_may_change_at_any_stage(void **state)
{
    (void)state;
    struct job want = {.stages = STAGES / 50, .vary = 1};
    serial(&want);
    for (int threads = 2; threads <= 6; threads += 2) {
        struct job got = run(threads, STAGES / 50, 1);
        assert_int_equal(got.wrong, 0);
        assert_memory_equal(got.left, want.left, sizeof want.left);
        assert_memory_equal(got.right, want.right, sizeof want.right);
    }
}

static void count_task(void *arg, int task, int thread)
{
    (void)task, (void)thread;
    ++*(int *)arg;
}

static void test_no_team_is_serial(void **state)
{
    (void)state;
    int count = 0;
    bp_team_for(NULL, 5, count_task, &count);
    assert_int_equal(count, 5);
    bp_team_for(NULL, 0, count_task, &count);
    assert_int_equal(count, 5);
    bp_team_set_active(NULL, 3);
    assert_int_equal(bp_team_active(NULL), 1);
    assert_int_equal(bp_team_capacity(NULL), 1);
}

static void *own_job(void *arg)
{
    struct job *job = arg;
    for (int i = 0; i < 5; i++)
        *job = run(2, STAGES / 50, i % 2);
    return NULL;
}

static void test_several_jobs_at_once(void **state)
{
    (void)state;
    enum { JOBS = 3 };
    pthread_t thread[JOBS];
    struct job job[JOBS], want = {.stages = STAGES / 50};
    for (int i = 0; i < JOBS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, own_job, &job[i]), 0);
    for (int i = 0; i < JOBS; i++)
        pthread_join(thread[i], NULL);
    serial(&want);
    for (int i = 0; i < JOBS; i++) {
        assert_int_equal(job[i].wrong, 0);
        assert_memory_equal(job[i].left, want.left, sizeof want.left);
    }
}

static void sleepy_task(void *arg, int task, int thread)
{
    (void)thread;
    usleep(task % 2 ? 300 : 10);
    atomic_fetch_add((atomic_int *)arg, 1);
}

static void sleepy_lead(struct bp_team *team, void *arg)
{
    for (int s = 0; s < 200; s++) {
        if (s % 2)
            usleep(200); /* longer than anyone spins: the workers sleep */
        bp_team_for(team, 4, sleepy_task, arg);
    }
}

static void test_sleepers_wake(void **state)
{
    (void)state;
    atomic_int count = 0;
    bp_team_run(3, sleepy_lead, &count);
    assert_int_equal(count, 800);
}

static void empty_lead(struct bp_team *team, void *arg)
{
    (void)team;
    ++*(int *)arg;
}

static void test_empty_regions(void **state)
{
    (void)state;
    int count = 0;
    for (int i = 0; i < 200; i++)
        bp_team_run(4, empty_lead, &count);
    assert_int_equal(count, 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_sizes_give_the_same),
        cmocka_unit_test(test_slices_are_even),
        cmocka_unit_test(test_active_may_change_at_any_stage),
        cmocka_unit_test(test_no_team_is_serial),
        cmocka_unit_test(test_several_jobs_at_once),
        cmocka_unit_test(test_sleepers_wake),
        cmocka_unit_test(test_empty_regions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
