/* team.c: one parallel region for a run, and a cheap barrier inside it.
 *
 * Each worker has a seat: a cache line of its own with the number of the last stage handed to it. The leader writes
 * the stage into the team, then the stage number into the seat of each worker that takes part; so workers that do
 * not take part are not even touched, and sleep on. The workers count `pending` down; the leader waits for 0.
 *
 * Who waits spins briefly and then sleeps on a futex. A sleeper announces itself first (the worker in its seat, the
 * leader by a bit in `pending`), so that nobody makes a system call when all are awake.
 *
 * Memory order: publishing a seat is a release and seeing it an acquire, counting down is a release and seeing 0 an
 * acquire. That makes the tasks' writes visible to the leader, and all before it to the next stage. The last access
 * of a worker to the team is its final count-down, so the leader may free the team after it has seen 0.
 *
 * It refuses nothing: the only allocation failure makes the run serial.
 */
#include "base/team.h"

#include "base/memory.h"

#include <linux/futex.h>
#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Turns of a spin before sleeping: some 80 to 200 microseconds. Where a thread is late, another program's short piece of
 * work has mostly taken its processor, such as the answer to a request, which takes about 50; who sleeps through that has
 * an idle processor to wake after it, which costs as much again. With more threads than processors, whoever spins keeps
 * another from working, so it gives way nearly at once. */
enum { SPIN_TURNS = 6000, SPIN_TURNS_CROWDED = 30 };

#define LEADER_ASLEEP 0x80000000u /* in `pending`; the bits below count workers */

struct seat {
    _Alignas(BP_CACHE_LINE) atomic_uint stage; /* number of the last stage for this worker; its futex */
    atomic_uint asleep;                        /* 1 from before the worker's futex wait until after it */
};

struct bp_team {
    int capacity, active, spin_turns;
    unsigned stage; /* number of the last stage; leader only */

    /* the stage in progress; written by the leader before it publishes, task NULL: leave the region */
    bp_team_task *task;
    void *arg;
    int ntasks, nthreads;

    _Alignas(BP_CACHE_LINE) atomic_uint pending; /* workers still at work; the leader's futex */
    struct seat seats[];                         /* by thread; the leader's is unused */
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex_wait(atomic_uint *word, unsigned seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

/* Touches the address only, never the memory: it may come after the word was freed. */
static void futex_wake(atomic_uint *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static int processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

/* Worker: returns the next stage after `last`. */
static unsigned seat_wait(struct seat *seat, unsigned last, int turns)
{
    unsigned stage;
    for (int i = 0; i < turns; i++) {
        stage = atomic_load_explicit(&seat->stage, memory_order_acquire);
        if (stage != last)
            return stage;
        relax();
    }
    /* Sequentially consistent on both sides: either this load sees the new stage, or the leader sees us asleep. */
    atomic_store(&seat->asleep, 1);
    while ((stage = atomic_load(&seat->stage)) == last)
        futex_wait(&seat->stage, last);
    atomic_store_explicit(&seat->asleep, 0, memory_order_relaxed);
    return stage;
}

/* Leader: hands the stage that is written in the team to workers 1 .. nthreads-1. */
static void publish(struct bp_team *team, int nthreads)
{
    team->nthreads = nthreads;
    team->stage++;
    atomic_store_explicit(&team->pending, (unsigned)nthreads - 1, memory_order_relaxed);
    for (int i = 1; i < nthreads; i++) {
        struct seat *seat = &team->seats[i];
        atomic_store(&seat->stage, team->stage);
        if (atomic_load(&seat->asleep))
            futex_wake(&seat->stage);
    }
}

/* Leader: waits until the workers of the stage are done. */
static void gather(struct bp_team *team)
{
    unsigned pending = 0;
    for (int i = 0; i < team->spin_turns; i++) {
        pending = atomic_load_explicit(&team->pending, memory_order_acquire);
        if (pending == 0)
            return;
        relax();
    }
    while ((pending = atomic_load_explicit(&team->pending, memory_order_acquire)) & ~LEADER_ASLEEP) {
        if (!(pending & LEADER_ASLEEP) &&
            !atomic_compare_exchange_strong(&team->pending, &pending, pending | LEADER_ASLEEP))
            continue;
        futex_wait(&team->pending, pending | LEADER_ASLEEP);
    }
}

/* Worker: the last access to the team in this stage. */
static void arrive(struct bp_team *team)
{
    atomic_uint *pending = &team->pending;
    if (atomic_fetch_sub_explicit(pending, 1, memory_order_acq_rel) == (LEADER_ASLEEP | 1))
        futex_wake(pending);
}

static void run_slice(const struct bp_team *team, int thread)
{
    int end = bp_team_slice(team->ntasks, team->nthreads, thread + 1, 0);
    for (int t = bp_team_slice(team->ntasks, team->nthreads, thread, 0); t < end; t++)
        team->task(team->arg, t, thread);
}

static void work(struct bp_team *team, int thread, int spin_turns)
{
    unsigned stage = 0;
    for (;;) {
        stage = seat_wait(&team->seats[thread], stage, spin_turns);
        bp_team_task *task = team->task;
        if (task)
            run_slice(team, thread);
        arrive(team);
        if (!task)
            return;
    }
}

static void lead(struct bp_team *team, int capacity, bp_team_leader *leader, void *arg)
{
    team->capacity = team->active = capacity;
    leader(team, arg);
    team->task = NULL;
    publish(team, capacity);
    gather(team);
}

void bp_team_run(int capacity, bp_team_leader *leader, void *arg)
{
    if (capacity > BP_TEAM_MAX)
        capacity = BP_TEAM_MAX;
    struct bp_team *team = NULL;
    if (capacity > 1)
        team = bp_alloc(sizeof *team + (size_t)capacity * sizeof(struct seat));
    if (!team) {
        leader(NULL, arg);
        return;
    }
    int spin_turns = capacity > processors() ? SPIN_TURNS_CROWDED : SPIN_TURNS;
    team->spin_turns = spin_turns;
    /* Stage 0 is already in the seats; storing it again releases the fields above to whoever acquires it. */
    for (int i = 0; i < capacity; i++)
        atomic_store_explicit(&team->seats[i].stage, 0, memory_order_release);
    omp_set_dynamic(0);
#pragma omp parallel num_threads(capacity) default(none) firstprivate(team, leader, arg, spin_turns)
    {
        int thread = omp_get_thread_num();
        if (thread == 0)
            lead(team, omp_get_num_threads(), leader, arg); /* OMP_THREAD_LIMIT may have given fewer */
        else
            work(team, thread, spin_turns);
    }
    bp_free(team);
}

void bp_team_for(struct bp_team *team, int ntasks, bp_team_task *task, void *arg)
{
    int nthreads = team ? team->active : 1;
    if (nthreads > ntasks)
        nthreads = ntasks;
    if (nthreads <= 1) {
        for (int t = 0; t < ntasks; t++)
            task(arg, t, 0);
        return;
    }
    team->task = task;
    team->arg = arg;
    team->ntasks = ntasks;
    publish(team, nthreads);
    run_slice(team, 0);
    gather(team);
}

void bp_team_set_active(struct bp_team *team, int threads)
{
    if (!team)
        return;
    team->active = threads < 1 ? 1 : threads > team->capacity ? team->capacity : threads;
}

int bp_team_active(const struct bp_team *team)
{
    return team ? team->active : 1;
}

int bp_team_capacity(const struct bp_team *team)
{
    return team ? team->capacity : 1;
}
