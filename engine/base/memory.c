/* memory.c: aligned, zeroed, counted blocks and checked size arithmetic.
 *
 * The counters are atomics, so any thread may allocate. The fail-after counter is for tests only; while it is off
 * (the normal state) it costs one relaxed load.
 */
#include "base/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_uint_fast64_t alloc_count;
static atomic_int_fast64_t allocs_left = -1; /* negative: no limit */

/* Takes one of the allocations that may still succeed; false when there is none left. */
static bool take_allowance(void)
{
    int_fast64_t left = atomic_load_explicit(&allocs_left, memory_order_relaxed);
    do {
        if (left < 0)
            return true;
        if (left == 0)
            return false;
    } while (!atomic_compare_exchange_weak(&allocs_left, &left, left - 1));
    return true;
}

void *bp_alloc(size_t bytes)
{
    atomic_fetch_add_explicit(&alloc_count, 1, memory_order_relaxed);
    if (bytes > PTRDIFF_MAX - BP_CACHE_LINE || !take_allowance())
        return NULL;
    size_t size = bp_size_align(bytes > 0 ? bytes : 1);
    void *block = aligned_alloc(BP_CACHE_LINE, size);
    if (block)
        memset(block, 0, size);
    return block;
}

void bp_free(void *block)
{
    free(block);
}

bool bp_size_mul(size_t a, size_t b, size_t *ret)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *ret = product;
    return true;
}

bool bp_size_add(size_t a, size_t b, size_t *ret)
{
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *ret = sum;
    return true;
}

size_t bp_size_align(size_t bytes)
{
    return (bytes + (BP_CACHE_LINE - 1)) & ~(size_t)(BP_CACHE_LINE - 1);
}

uint64_t bp_alloc_count(void)
{
    return atomic_load_explicit(&alloc_count, memory_order_relaxed);
}

void bp_alloc_fail_after(int64_t n)
{
    atomic_store(&allocs_left, n < 0 ? -1 : n);
}
