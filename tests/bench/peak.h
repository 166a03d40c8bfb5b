/* peak.h: what this machine can do at most, to measure everything else against: the roofs of the roofline.
 *
 * Threads: each function opens OpenMP threads of its own and returns when they are done.
 */
#ifndef BP_BENCH_PEAK_H
#define BP_BENCH_PEAK_H

#include <stddef.h>

/* float32 GFLOP/s (2 for a multiply-add and lane) of `threads` threads that do nothing but independent FMAs in
 * registers, the best of about `seconds`. simd names the registers, as bp_kernels.name does: avx512, avx2, neon, and
 * generic for one lane at a time; NULL for the widest that this CPU has. 0 where there is nothing of that name. */
double bp_peak_gflops(const char *simd, int threads, double seconds);

/* GB/s that `threads` threads read and write (both counted) when they sweep over `bytes` of memory again and again,
 * each over its share: from cache or from memory, as the size has it. The best of about `seconds`; 0 without memory. */
double bp_peak_bandwidth(size_t bytes, int threads, double seconds);

#endif
