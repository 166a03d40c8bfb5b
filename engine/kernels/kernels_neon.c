/* kernels_neon.c: the kernels for NEON, which every aarch64 CPU has.
 *
 * Threads: pure functions.
 */
#if defined(__aarch64__)
#define BP_V16_NEON

#include "kernels/tables.h"
#include "kernels/vmath.h"

/* 6 x 16: 24 accumulators, 4 registers of B and 1 of A, of 32 */
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

const struct bp_kernels bp_kernels_neon = BP_KERNEL_TABLE("neon");
#else
typedef int bp_kernels_neon_is_empty; /* ISO C wants a declaration */
#endif
