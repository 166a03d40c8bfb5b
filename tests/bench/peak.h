/* peak.h: what the FMA units of this machine give, to measure everything else against. */
#ifndef BP_BENCH_PEAK_H
#define BP_BENCH_PEAK_H

/* float32 GFLOP/s (2 per multiply-add and lane) of `threads` threads that do nothing but independent FMAs in the widest
 * registers that the CPU has, over about `seconds`. 0 on machines without a kernel for it. */
double bp_peak_gflops(int threads, double seconds);

#endif
