/* conv_product.c: the product of weights and patches, by one of two ways that give the same bits.
 *
 * A product has two operands: one is packed into panels, whose columns are the lanes; elements of the other one are
 * read one by one, wherever they lie. Packing patches costs k a position, and the last panel of an image is seldom full;
 * packing the weights costs nothing (once a block of rows), but then the lanes are filters, and the result has to be
 * turned. So it depends on the shape which is the better way.
 *
 * Threads: pure functions.
 */
#include "ops/conv_internal.h"

#define CHUNK 128           /* positions that are turned at a time: what they take stays in the cache */
#define TILE_ELEMENTS 16384 /* of the packed patches of a tile, which stay there while W passes over them */

/* Half cycles for a panel of positions, or of as many filters: a step of the product takes one for each filter or
 * position, packing a tap some 3, or 32 where positions are apart, and turning a result 8. */
bool bp_conv_is_gathered(int filters, int k, int positions, size_t across)
{
    double gathered = (double)positions * ((double)k * (double)bp_conv_whole_panels((size_t)filters) + 8.0 * filters);
    return gathered <=
           (double)bp_conv_whole_panels((size_t)positions) * (double)k * ((across == 1 ? 3.0 : 32.0) + filters);
}

/* Positions of a tile whose patches have k elements: an even number of panels where there are several. */
static int tile_positions(int k, int positions)
{
    int panels = TILE_ELEMENTS / BP_PANEL / k / 2 * 2, all = (positions + BP_PANEL - 1) / BP_PANEL;
    panels = panels < 2 ? 2 : panels;
    return BP_PANEL * (panels < all ? panels : all);
}

/* Positions of a chunk: as even as possible, in whole panels. */
static int chunk_positions(int positions)
{
    int chunks = (positions + CHUNK - 1) / CHUNK;
    return (int)bp_conv_whole_panels((size_t)((positions + chunks - 1) / chunks));
}

size_t bp_conv_product_scratch(int filters, int k, int positions, size_t across)
{
    if (!bp_conv_is_gathered(filters, k, positions, across))
        return bp_panels_size(k, tile_positions(k, positions));
    return (size_t)chunk_positions(positions) * bp_conv_whole_panels((size_t)filters) + (size_t)positions + (size_t)k;
}

void bp_conv_positions(const struct bp_patches *p, int j, int n, int32_t *ret)
{
    for (int y = j / p->width, x = j % p->width, i = 0; i < n; y++, x = 0)
        for (; x < p->width && i < n; x++)
            ret[i++] = (int32_t)((size_t)y * p->down + (size_t)x * p->across);
}

void bp_conv_taps(const struct bp_patches *p, int q, int n, int32_t *ret)
{
    int taps = p->taps_down * p->taps_across;
    for (int i = 0; i < n; i++) {
        int t = (q + i) % taps;
        ret[i] = (int32_t)((ptrdiff_t)((size_t)((q + i) / taps) * p->plane) + t / p->taps_across * p->step_down +
                           t % p->taps_across * p->step_across);
    }
}

void bp_conv_product_begin(struct bp_conv_product *p, bp_real *scratch)
{
    p->tile = scratch;
    if (!bp_conv_is_gathered(p->filters, p->k, p->positions, p->patches.across))
        return;
    p->row = (int32_t *)(scratch + (size_t)chunk_positions(p->positions) * bp_conv_whole_panels((size_t)p->filters));
    p->col = (int32_t *)((bp_real *)p->row + p->positions);
    bp_conv_positions(&p->patches, 0, p->positions, p->row);
    bp_conv_taps(&p->patches, 0, p->k, p->col);
}

static void run_gathered(const struct bp_conv_product *p, const bp_real *bias, bp_real *y, bool accumulate)
{
    int chunk = chunk_positions(p->positions);
    size_t row = bp_conv_whole_panels((size_t)p->filters);
    for (int j = 0; j < p->positions; j += chunk) {
        int m = p->positions - j < chunk ? p->positions - j : chunk;
        p->kernels->patch_gemm(&(struct bp_patch_gemm){.m = m,
                                                       .n = p->filters,
                                                       .k = p->k,
                                                       .a = p->patches.planes,
                                                       .row = p->row + j,
                                                       .col = p->col,
                                                       .b = p->weights,
                                                       .c = p->tile,
                                                       .c_row = row});
        p->kernels->turn(m, p->filters, p->tile, row, bias, y + j, (size_t)p->positions, accumulate);
    }
}

void bp_conv_product_run(const struct bp_conv_product *p, const bp_real *bias, bp_real *y, bool accumulate)
{
    int tile = tile_positions(p->k, p->positions);
    if (bp_conv_is_gathered(p->filters, p->k, p->positions, p->patches.across)) {
        run_gathered(p, bias, y, accumulate);
        return;
    }
    for (int j = 0; j < p->positions; j += tile) {
        int n = p->positions - j < tile ? p->positions - j : tile;
        p->kernels->patches(&p->patches, 0, p->k, j, n, p->tile);
        p->kernels->gemm(&(struct bp_gemm){.m = p->filters,
                                           .n = n,
                                           .k = p->k,
                                           .a = p->weights,
                                           .a_row = (size_t)p->k,
                                           .a_col = 1,
                                           .b = p->tile,
                                           .c = y + j,
                                           .c_row = (size_t)p->positions,
                                           .row_bias = bias,
                                           .accumulate = accumulate});
    }
}
