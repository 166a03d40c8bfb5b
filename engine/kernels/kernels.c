/* kernels.c: which table of kernels this process uses.
 *
 * The best one that the CPU has, found at the first question and kept in an atomic pointer; bp_kernels_select puts
 * another there. All give the same bits, so the choice is one of speed.
 *
 * Threads: bp_kernels_current from any; bp_kernels_select before the others start.
 */
#include "kernels/kernels.h"

#include "kernels/tables.h"

#include <stdatomic.h>
#include <string.h>

static bool always(void)
{
    return true;
}

#if defined(__x86_64__)
static bool has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

/* Best first. A name without a table is known, but not in this build. */
static const struct {
    const char *name;
    const struct bp_kernels *table;
    bool (*present)(void);
} choices[] = {
#if defined(__x86_64__)
    {"avx512", &bp_kernels_avx512, has_avx512},
    {"avx2", &bp_kernels_avx2, has_avx2},
#else
    {"avx512", NULL, always},
    {"avx2", NULL, always},
#endif
#if defined(__aarch64__)
    {"neon", &bp_kernels_neon, always},
#else
    {"neon", NULL, always},
#endif
    {"generic", &bp_kernels_generic, always},
};
enum { CHOICES = sizeof choices / sizeof *choices };

static _Atomic(const struct bp_kernels *) current;

static const struct bp_kernels *best(void)
{
    for (int i = 0; i < CHOICES; i++)
        if (choices[i].table && choices[i].present())
            return choices[i].table;
    return &bp_kernels_generic;
}

const struct bp_kernels *bp_kernels_current(void)
{
    const struct bp_kernels *table = atomic_load_explicit(&current, memory_order_acquire);
    if (!table) {
        table = best(); /* two threads at once find the same */
        atomic_store_explicit(&current, table, memory_order_release);
    }
    return table;
}

bp_status bp_kernels_select(const char *name, struct bp_error *err)
{
    if (!name || !*name) {
        atomic_store(&current, best());
        return BP_OK;
    }
    for (int i = 0; i < CHOICES; i++) {
        if (strcmp(name, choices[i].name) != 0)
            continue;
        if (!choices[i].table)
            return bp_fail(err, BP_UNSUPPORTED, "this build has no %s kernels; the best it has here is %s", name,
                           best()->name);
        if (!choices[i].present())
            return bp_fail(err, BP_UNSUPPORTED, "this CPU has no %s; the best it has is %s", name, best()->name);
        atomic_store(&current, choices[i].table);
        return BP_OK;
    }
    return bp_fail(err, BP_INVALID, "there are no kernels named '%s'; use avx512, avx2, neon or generic", name);
}
