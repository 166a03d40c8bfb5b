/* flat.inc.h: sums, scaling, dropout and the optimizers' updates over flat ranges, written once on v16; included by
 * each kernels_*.c. Ends with the table of the includer's kernels.
 */
#include "base/random.h"

#include <float.h>

#ifdef BP_DOUBLE
#define SMALLEST_NORMAL DBL_MIN
#else
#define SMALLEST_NORMAL FLT_MIN
#endif

/* One chain a column, rows ascending; four vectors of columns at a time, so that the chains overlap. */
static void kernel_column_sum(int rows, int n, const bp_real *x, size_t row, bp_real *out, bool accumulate)
{
    enum { GROUP = 4 };
    int j = 0;
    for (; j + GROUP * LANES <= n; j += GROUP * LANES) {
        v16 sum[GROUP] = {v16_zero(), v16_zero(), v16_zero(), v16_zero()};
        for (int r = 0; r < rows; r++)
            BP_UNROLL
        for (int q = 0; q < GROUP; q++)
            sum[q] = v16_add(sum[q], v16_load(x + (size_t)r * row + j + q * LANES));
        for (int q = 0; q < GROUP; q++) {
            bp_real *to = out + j + q * LANES;
            v16_store(to, accumulate ? v16_add(v16_load(to), sum[q]) : sum[q]);
        }
    }
    for (; j < n; j += LANES) {
        int count = v16_count((size_t)j, (size_t)n);
        v16 sum = v16_zero();
        for (int r = 0; r < rows; r++)
            sum = v16_add(sum, v16_load_n(x + (size_t)r * row + j, count));
        v16_store_n(out + j, accumulate ? v16_add(v16_load_n(out + j, count), sum) : sum, count);
    }
}

static void kernel_add(size_t n, const bp_real *x, bp_real *y)
{
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16_store_n(y + i, v16_add(v16_load_n(y + i, count), v16_load_n(x + i, count)), count);
    }
}

static void kernel_scale(size_t n, bp_real factor, bp_real *x)
{
    v16 f = v16_set(factor);
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16_store_n(x + i, v16_mul(v16_load_n(x + i, count), f), count);
    }
}

static double kernel_sum_squares(size_t n, const bp_real *x)
{
    v16d sum = v16d_zero();
    for (size_t i = 0; i < n; i += LANES)
        sum = v16d_add_squares(sum, v16_load_n(x + i, v16_count(i, n)));
    return v16d_sum(sum);
}

/* --- dropout ------------------------------------------------------------------------------------------------------ */

static void kernel_dropout(size_t n, const bp_real *x, bp_real *y, uint64_t seed, uint32_t stream, uint64_t step,
                           uint64_t first, float rate, bool accumulate)
{
    enum { BATCH = 4 * LANES }; /* elements of one call of random_lanes */
    /* unit(word) < rate is the same as (word >> 8) < ceil(rate 2^24): the product is exact */
    uint32_t threshold = (uint32_t)ceilf(rate * 0x1p24f);
    v16 keep = v16_set(1 - (bp_real)rate), half = v16_set((bp_real)0.5);
    uint32_t words[4][BP_RANDOM_LANES];
    bp_real kept[BATCH + LANES] = {0}; /* 1 or 0; loads may run past the batch */
    for (size_t i = 0; i < n;) {
        bp_random_lanes(seed, stream, step, (first + i) / 4, words);
        for (int l = 0; l < LANES; l++)
            for (int w = 0; w < 4; w++)
                kept[4 * l + w] = words[w][l] >> 8 < threshold ? 0 : 1;
        size_t skip = (first + i) % 4, batch = BATCH - skip < n - i ? BATCH - skip : n - i;
        for (size_t e = 0; e < batch; e += LANES) {
            int count = v16_count(e, batch);
            v16m on = v16_less(half, v16_load(kept + skip + e));
            v16 v = v16_select(on, v16_div(v16_load_n(x + i + e, count), keep), v16_zero());
            if (accumulate)
                v = v16_add(v16_load_n(y + i + e, count), v);
            v16_store_n(y + i + e, v, count);
        }
        i += batch;
    }
}

static void kernel_shuffle(uint64_t seed, uint32_t stream, uint64_t step, uint32_t *order, uint64_t n)
{
    bp_random_shuffle_inline(seed, stream, step, order, n);
}

/* --- updates ------------------------------------------------------------------------------------------------------ */

/* Zero for a denormal; NaN stays. Averages of vanishing gradients decay into the denormals and would stay there for
 * thousands of steps, each many times slower. */
V16_INLINE v16 flush(v16 x)
{
    return v16_select(v16_less(v16_abs(x), v16_set(SMALLEST_NORMAL)), v16_zero(), x);
}

static void kernel_sgd(size_t n, const struct bp_update *u, bp_real *p, const bp_real *g, bp_real *v)
{
    v16 lr = v16_set(-u->lr), grad_scale = v16_set(u->grad_scale), decay = v16_set(u->decay);
    v16 momentum = v16_set(u->momentum), fresh = v16_set(1 - u->dampening), shrink = v16_set(u->shrink);
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16 pi = v16_load_n(p + i, count);
        v16 gi = v16_fma(decay, pi, v16_mul(grad_scale, v16_load_n(g + i, count)));
        pi = v16_mul(pi, shrink);
        if (v) {
            v16 vi = u->first ? gi : v16_fma(momentum, v16_load_n(v + i, count), v16_mul(fresh, gi));
            vi = flush(vi);
            v16_store_n(v + i, vi, count);
            gi = u->nesterov ? v16_fma(momentum, vi, gi) : vi;
        }
        v16_store_n(p + i, v16_fma(lr, gi, pi), count);
    }
}

static void kernel_adam(size_t n, const struct bp_update *u, bp_real *p, const bp_real *g, bp_real *m, bp_real *v)
{
    v16 grad_scale = v16_set(u->grad_scale), decay = v16_set(u->decay), shrink = v16_set(u->shrink);
    v16 beta1 = v16_set(u->beta1), beta2 = v16_set(u->beta2), eps = v16_set(u->eps);
    v16 fresh1 = v16_set(1 - u->beta1), fresh2 = v16_set(1 - u->beta2);
    v16 step = v16_set(-u->step_size), root_scale = v16_set(u->root_scale);
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16 pi = v16_load_n(p + i, count);
        v16 gi = v16_fma(decay, pi, v16_mul(grad_scale, v16_load_n(g + i, count)));
        v16 mi = flush(v16_fma(beta1, v16_load_n(m + i, count), v16_mul(fresh1, gi)));
        v16 vi = flush(v16_fma(beta2, v16_load_n(v + i, count), v16_mul(v16_mul(fresh2, gi), gi)));
        v16 root = v16_fma(v16_sqrt(vi), root_scale, eps);
        v16_store_n(m + i, mi, count);
        v16_store_n(v + i, vi, count);
        v16_store_n(p + i, v16_fma(step, v16_div(mi, root), v16_mul(pi, shrink)), count);
    }
}

#include "kernels/updates.inc.h"

/* --- the table ---------------------------------------------------------------------------------------------------- */
#define BP_KERNEL_TABLE(title)                                                                                       \
    {                                                                                                                \
        .amsgrad = kernel_amsgrad, .nadam = kernel_nadam, .adamax = kernel_adamax, .rmsprop = kernel_rmsprop,        \
        .adagrad = kernel_adagrad, .adadelta = kernel_adadelta, .lion = kernel_lion, .lamb = kernel_lamb,            \
        .lamb_moments = kernel_lamb_moments, .clip = kernel_clip, .lstm = kernel_lstm,                               \
        .lstm_gradient = kernel_lstm_gradient, .gru = kernel_gru, .gru_gradient = kernel_gru_gradient,               \
        .multiply = kernel_multiply, .channel_moment = kernel_channel_moment, .channel_apply = kernel_channel_apply, \
        .channel_products = kernel_channel_products, .channel_gradient = kernel_channel_gradient,                    \
        .row_norm = kernel_row_norm, .row_norm_gradient = kernel_row_norm_gradient,                                  \
        .row_norm_products = kernel_row_norm_products, .name = title, .tile_rows = TILE_ROWS,                        \
        .loss_terms = kernel_loss_terms, .cross_entropy_smooth = kernel_cross_entropy_smooth,                        \
        .multi_margin = kernel_multi_margin, .kl_div = kernel_kl_div, .pack = kernel_pack,                           \
        .pack_past = kernel_pack_past, .pack_end = kernel_pack_end, .gemm = kernel_gemm, .relu = kernel_relu,        \
        .relu_gradient = kernel_relu_gradient, .activation = kernel_activation,                                      \
        .activation_gradient = kernel_activation_gradient, .softmax = kernel_softmax,                                \
        .softmax_gradient = kernel_softmax_gradient, .cross_entropy = kernel_cross_entropy, .bce = kernel_bce,       \
        .gather = kernel_gather, .mse = kernel_mse, .column_sum = kernel_column_sum, .add = kernel_add,              \
        .scale = kernel_scale, .sum_squares = kernel_sum_squares, .patches = kernel_patches,                         \
        .patch_gemm = kernel_patch_gemm, .turn = kernel_turn, .copy_rows = kernel_copy_rows,                         \
        .depthwise = kernel_depthwise, .depthwise_gradient = kernel_depthwise_gradient, .row_sum = kernel_row_sum,   \
        .max_pool = kernel_max_pool, .max_pool_gradient = kernel_max_pool_gradient, .avg_pool = kernel_avg_pool,     \
        .avg_pool_gradient = kernel_avg_pool_gradient, .dropout = kernel_dropout, .shuffle = kernel_shuffle,         \
        .sgd = kernel_sgd, .adam = kernel_adam,                                                                      \
    }
