/* machine.h: what this machine, or the container we run in, lets us have.
 *
 * Threads: any; every call looks again.
 */
#ifndef BP_SERVER_MACHINE_H
#define BP_SERVER_MACHINE_H

#include <stdint.h>

/* Threads that can run at a time: CPUs of the affinity mask, at most the CPU quota of the cgroup (version 1 or 2) and
 * of those above it, rounded down. At least 1. */
int bp_machine_threads(void);

/* Bytes of memory: physical, at most the limit of the cgroup and of those above it. */
int64_t bp_machine_memory(void);

#endif
