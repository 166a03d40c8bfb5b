/* kernels_avx2.c: the kernels for AVX2 with FMA; compiled with -mavx2 -mfma, called after a check of the CPU.
 *
 * Threads: pure functions.
 */
#if defined(__x86_64__)
#define BP_V16_AVX2

#include "kernels/tables.h"
#include "kernels/vmath.h"

/* 6 x 16: 12 accumulators, 2 registers of B and 1 of A, of 16 */
#define TILE_ROWS 6
#define TILE_PANELS 1

#include "kernels/elements.inc.h"
#include "kernels/gemm.inc.h"

#include "kernels/conv.inc.h"
#include "kernels/pool.inc.h"

#include "kernels/cells.inc.h"
#include "kernels/rows.inc.h"

#include "kernels/losses.inc.h"

#include "kernels/norm.inc.h"

#include "kernels/flat.inc.h"

const struct bp_kernels bp_kernels_avx2 = BP_KERNEL_TABLE("avx2");
#else
typedef int bp_kernels_avx2_is_empty; /* ISO C wants a declaration */
#endif
