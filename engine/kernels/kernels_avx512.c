/* kernels_avx512.c: the kernels for AVX-512; compiled with -mavx512{f,bw,dq,vl}, called after a check of the CPU.
 *
 * Threads: pure functions.
 */
#if defined(__x86_64__)
#define BP_V16_AVX512

#include "kernels/tables.h"
#include "kernels/vmath.h"

/* 12 x 32: 24 accumulators, 2 registers of B and 1 of A, of 32 */
#define TILE_ROWS 12
#define TILE_PANELS 2

#include "kernels/elements.inc.h"
#include "kernels/gemm.inc.h"

#include "kernels/conv.inc.h"
#include "kernels/pool.inc.h"

#include "kernels/cells.inc.h"
#include "kernels/rows.inc.h"

#include "kernels/losses.inc.h"

#include "kernels/norm.inc.h"

#include "kernels/flat.inc.h"

const struct bp_kernels bp_kernels_avx512 = BP_KERNEL_TABLE("avx512");
#else
typedef int bp_kernels_avx512_is_empty; /* ISO C wants a declaration */
#endif
