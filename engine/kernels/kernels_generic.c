/* kernels_generic.c: the kernels in portable C, and the double build's only ones.
 *
 * In float it is the reference that the others must match bit for bit, on any CPU: fmaf is exact everywhere,
 * though slow where it is no instruction. It is not meant to be fast.
 *
 * Threads: pure functions.
 */
#include "kernels/tables.h"
#include "kernels/vmath.h"

#define TILE_ROWS 2
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

const struct bp_kernels bp_kernels_generic = BP_KERNEL_TABLE("generic");

#ifdef BP_DOUBLE
const struct bp_kernels *bp_kernels_current(void)
{
    return &bp_kernels_generic;
}
#endif
