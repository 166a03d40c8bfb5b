/* memory.h: the engine's only way to memory, and size arithmetic that cannot overflow.
 *
 * Blocks are aligned to a cache line (64 bytes) and zeroed. Every call is counted, so that a test can assert that
 * a training step allocates nothing, and any call can be made to fail, so that a test can walk through every
 * failure of an operation.
 *
 * Threads: all functions may be called from any thread.
 */
#ifndef BP_BASE_MEMORY_H
#define BP_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BP_CACHE_LINE 64

/* Returns `bytes` zeroed bytes aligned to BP_CACHE_LINE, or NULL. 0 bytes give a valid block. Free with bp_free. */
void *bp_alloc(size_t bytes);

/* Frees a block of bp_alloc; NULL is fine. */
void bp_free(void *block);

/* Products and sums of sizes: false, with *ret untouched, when the result does not fit. */
bool bp_size_mul(size_t a, size_t b, size_t *ret);
bool bp_size_add(size_t a, size_t b, size_t *ret);

/* bytes rounded up to a multiple of BP_CACHE_LINE; bytes must be at most SIZE_MAX - 63. */
size_t bp_size_align(size_t bytes);

/* For tests: how many bp_alloc calls there were in this process so far. */
uint64_t bp_alloc_count(void);

/* For tests: let `n` more calls of bp_alloc succeed and every later one fail; a negative n switches this off. */
void bp_alloc_fail_after(int64_t n);

#endif
