/* conv.h: what windows that slide along an axis have in common: convolutions and pools.
 *
 * Threads: pure functions.
 */
#ifndef BP_OPS_CONV_H
#define BP_OPS_CONV_H

#include "graph/exec.h"
#include "ops/op.h"

/* A window along one axis. same: as many positions as strides fit, ceil(in / stride), the zeros that are missing for
 * it in front and behind, one more behind where they are odd (as PyTorch with stride 1, and TensorFlow); else
 * `padding` zeros on both sides. All of at most 2^31. */
struct bp_span {
    int64_t in, kernel, stride, dilation, padding;
    bool same;
};

int64_t bp_span_before(const struct bp_span *span); /* zeros in front */
int64_t bp_span_out(const struct bp_span *span);    /* positions; 0 when the window is larger than the axis */

#endif
