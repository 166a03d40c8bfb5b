/* conv_internal.h: what the sources of the convolution share: its geometry, and the product of weights and patches.
 *
 * Threads: pure functions; a product belongs to one call.
 */
#ifndef BP_OPS_CONV_INTERNAL_H
#define BP_OPS_CONV_INTERNAL_H

#include "ops/op.h"

/* One convolution in numbers, along both axes. ph x pw is the image with its border. */
struct bp_conv_geometry {
    int groups, in, out; /* channels and filters of a group */
    int ih, iw, oh, ow, kh, kw, sh, sw, dh, dw, top, left;
    int ph, pw;
    int taps, positions; /* kh kw, oh ow */
};

struct bp_conv_geometry bp_conv_geometry(const struct bp_graph *graph, const struct bp_node *node);

static inline size_t bp_larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Parts of scratch begin at whole panels, so that no load of a panel crosses a cache line. */
static inline size_t bp_conv_whole_panels(size_t n)
{
    return (n + BP_PANEL - 1) / BP_PANEL * BP_PANEL;
}

/* Elements of padded planes, with what a load at the last position takes too much. */
static inline size_t bp_conv_plane_elements(size_t channels, int height, int width)
{
    return bp_conv_whole_panels(channels * (size_t)height * (size_t)width + BP_PANEL);
}

/* Copies n images of h x w to row `top`, column `left` of the planes, whose border is zero already. */
void bp_conv_fill_planes(const struct bp_kernels *kernels, bp_real *planes, size_t plane, int row, int top, int left,
                         const bp_real *image, int n, int h, int w);

/* y (filters, positions) = W (filters, k) times patches (k, positions): row q of the patches is tap q of all channels,
 * one after another. Whichever of the two is packed, an element of y is one chain of fma over ascending q.
 *   gathered  W is packed, once a call, and the patches are read where they lie in the planes: y comes out turned
 *   else      the patches are packed, tile by tile: what few filters, or few taps, want
 */
struct bp_conv_product {
    const struct bp_kernels *kernels;
    struct bp_patches patches;
    int filters, k, positions;
    const bp_real *weights; /* gathered: the panels of W transposed (k, filters); else W itself, row-major */
    /* in scratch */
    bp_real *tile;      /* gathered: a chunk of y turned; else a tile of packed patches */
    int32_t *row, *col; /* gathered: where positions and taps are in the planes */
};

bool bp_conv_is_gathered(int filters, int k, int positions, size_t across);

/* Elements of scratch that a product takes; and lays them out, the first six members being set. */
size_t bp_conv_product_scratch(int filters, int k, int positions, size_t across);
void bp_conv_product_begin(struct bp_conv_product *product, bp_real *scratch);

/* The product of what is in the planes now: y (+ bias of each filter), or y += it. */
void bp_conv_product_run(const struct bp_conv_product *product, const bp_real *bias, bp_real *y, bool accumulate);

/* Where n positions from j on, and n taps from q on, are in planes, in elements. */
void bp_conv_positions(const struct bp_patches *patches, int j, int n, int32_t *ret);
void bp_conv_taps(const struct bp_patches *patches, int q, int n, int32_t *ret);

void bp_conv_backward(const struct bp_call *call);
size_t bp_conv_backward_scratch(const struct bp_conv_geometry *g);

#endif
