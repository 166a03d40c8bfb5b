/* tables.h: the tables of kernels, for kernels.c and the tests; all else asks bp_kernels_current(). */
#ifndef BP_KERNELS_TABLES_H
#define BP_KERNELS_TABLES_H

#include "kernels/kernels.h"

extern const struct bp_kernels bp_kernels_generic;
#ifndef BP_DOUBLE
#if defined(__x86_64__)
extern const struct bp_kernels bp_kernels_avx2;   /* needs avx2 and fma */
extern const struct bp_kernels bp_kernels_avx512; /* needs avx512 f, bw, dq and vl */
#elif defined(__aarch64__)
extern const struct bp_kernels bp_kernels_neon;
#endif
#endif

#endif
