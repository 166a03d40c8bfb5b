/* machine.c: CPUs and memory, as the affinity mask and the control groups bound them.
 *
 * A file that is not there, or says "max", is no bound. A cgroup is bounded by all above it, so the whole path is
 * walked up to the root.
 *
 * Threads: no state.
 */
#include "machine.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_MAX_BYTES 1024

/* Where a controller's files are. Version 2 has one tree for all of them, version 1 one for each. */
struct tree {
    const char *controller; /* in /proc/self/cgroup; "" is version 2 */
    const char *root;
};

typedef double read_bound(const char *folder); /* 0: none */

/* One number of a file; false for "max" and for what cannot be read. */
static bool read_number(const char *folder, const char *file, double *ret, double *ret_second)
{
    char path[PATH_MAX_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    double second = 0;
    int n = fscanf(f, "%lf %lf", ret, &second);
    fclose(f);
    if (ret_second && n == 2)
        *ret_second = second;
    return n >= 1;
}

static double cpu_bound_v2(const char *folder)
{
    double quota, period = 100000;
    return read_number(folder, "cpu.max", &quota, &period) && period > 0 ? quota / period : 0;
}

static double cpu_bound_v1(const char *folder)
{
    double quota, period;
    if (!read_number(folder, "cpu.cfs_quota_us", &quota, NULL) || quota <= 0)
        return 0;
    return read_number(folder, "cpu.cfs_period_us", &period, NULL) && period > 0 ? quota / period : 0;
}

static double memory_bound_v2(const char *folder)
{
    double bytes;
    return read_number(folder, "memory.max", &bytes, NULL) ? bytes : 0;
}

static double memory_bound_v1(const char *folder)
{
    double bytes;
    return read_number(folder, "memory.limit_in_bytes", &bytes, NULL) ? bytes : 0;
}

/* Whether a comma-separated list has the word. */
static bool lists(const char *list, const char *word)
{
    size_t size = strlen(word);
    if (size == 0)
        return *list == '\0';
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == size && !memcmp(p, word, size))
            return true;
    return false;
}

/* The path of our group in a tree; "" where there is none. */
static void own_group(const struct tree *tree, char *ret, size_t size)
{
    char line[PATH_MAX_BYTES];
    *ret = '\0';
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = '\0';
        if (lists(controllers + 1, tree->controller))
            snprintf(ret, size, "%s", path);
    }
    if (f)
        fclose(f);
}

/* The least bound from our group up to the root of the tree. */
static double least(double bound, const struct tree *tree, read_bound *read)
{
    char group[PATH_MAX_BYTES], folder[2 * PATH_MAX_BYTES];
    own_group(tree, group, sizeof group);
    for (;;) {
        snprintf(folder, sizeof folder, "%s%s", tree->root, group);
        double here = read(folder);
        if (here > 0 && here < bound)
            bound = here;
        char *slash = strrchr(group, '/');
        if (!slash)
            return bound;
        *slash = '\0';
    }
}

int bp_machine_threads(void)
{
    static const struct tree v2 = {"", "/sys/fs/cgroup"}, v1 = {"cpu", "/sys/fs/cgroup/cpu"};
    double bound = 1;
    cpu_set_t *set = CPU_ALLOC(4096); /* more CPUs than any machine of today */
    if (set) {
        size_t size = CPU_ALLOC_SIZE(4096);
        CPU_ZERO_S(size, set);
        if (!sched_getaffinity(0, size, set))
            bound = CPU_COUNT_S(size, set);
        CPU_FREE(set);
    }
    bound = least(bound, &v2, cpu_bound_v2);
    bound = least(bound, &v1, cpu_bound_v1);
    return bound < 1 ? 1 : (int)bound;
}

int64_t bp_machine_memory(void)
{
    static const struct tree v2 = {"", "/sys/fs/cgroup"}, v1 = {"memory", "/sys/fs/cgroup/memory"};
    double bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    bytes = least(bytes, &v2, memory_bound_v2);
    bytes = least(bytes, &v1, memory_bound_v1);
    return (int64_t)bytes;
}
