/* kernels.h: the arithmetic of training, in one table of functions for each instruction set.
 *
 * Four tables hold the same functions: generic (portable C); AVX2 + FMA and AVX-512 on x86-64; and NEON on aarch64.
 * All give the same bits, on any CPU, by these rules, which every kernel keeps:
 *   - an element of a matrix product is one chain of fma over ascending k that starts at +0; lanes are columns;
 *   - elementwise functions are polynomials on explicit fma, the same expression in every lane; no libm;
 *   - a sum along a row, or over a flat range, uses 16 virtual lanes (element i goes to lane i mod 16, each lane
 *     ascending) and then the fixed tree 8-4-2-1;
 *   - a sum over rows is a chain in ascending row order;
 *   - no flush to zero, no reassociation, no contraction (-ffp-contract=off).
 * The double build (BP_DOUBLE) has the generic table only, and takes exp and the like from libm.
 *
 * Numbers: every function takes any finite or non-finite input and never traps; NaN stays NaN.
 * Threads: kernels are pure functions of their arguments; bp_kernels_select is called once, at start.
 */
#ifndef BP_KERNELS_KERNELS_H
#define BP_KERNELS_KERNELS_H

#include "base/real.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BP_PANEL 16 /* columns of a packed panel, lanes of a row sum */

enum bp_activation {
    BP_LINEAR,
    BP_RELU,
    BP_LEAKY_RELU,
    BP_ELU,
    BP_SELU,
    BP_GELU,
    BP_SILU,
    BP_MISH,
    BP_SIGMOID,
    BP_TANH,
    BP_SOFTPLUS,
    BP_SOFTSIGN,
    BP_HARD_SIGMOID,
    BP_RELU6,
    BP_SOFTMAX,
    BP_LOG_SOFTMAX,
    BP_ACTIVATION_COUNT
};

/* The term of a loss that is a mean over the outputs; see bp_kernels.loss_terms. */
enum bp_loss_term { BP_TERM_BCE, BP_TERM_MAE, BP_TERM_HUBER, BP_TERM_HINGE, BP_TERM_POISSON, BP_TERM_QUANTILE };

/* Matrices of the shape of C, rows `row` apart, that somebody is about to change: a product fetches them into the cache
 * while it goes on. */
#define BP_AHEAD_MAX 4
struct bp_ahead {
    int count;
    const bp_real *at[BP_AHEAD_MAX];
    size_t row;
};

/* What a product does to an element before the last store, while it is in a register or in the first-level cache: the
 * activation that follows its layer, or, of error signals, the slope of the one whose value its layer read. With e the
 * element that would be stored in C, and x and y at the same row, column and stride as C:
 *   gradient false   y takes f(e); C takes e, unless y is C
 *   gradient true    C takes e f'(x, y), as activation_gradient has it; x and y may be NULL where that does not read them
 * BP_LINEAR, as in a struct of zeros, is nothing; softmax and log_softmax are not for elements. */
struct bp_epilogue {
    enum bp_activation kind;
    bool gradient;
    bp_real alpha;
    const bp_real *x;
    bp_real *y;
};

/* C = A B (+ bias), or C = C + A B.
 *   A (m, k): element (i, p) at a[i * a_row + p * a_col]; one of the two strides is 1
 *   B (k, n): packed by pack(): panel j/16 starts at b + (j/16) * k * 16 and holds row p as 16 columns; or, where b_row is
 *             not 0, row-major with n a multiple of 16, element (p, j) at b[p * b_row + j]
 *   C (m, n): row-major, element (i, j) at c[i * c_row + j]
 * Each element is ((+0 fma chain over p) + bias[j]), or + row_bias[i], or c + (chain) where accumulate is set (no bias
 * then); at most one of the three; then comes the epilogue. */
struct bp_gemm {
    int m, n, k;
    const bp_real *a;
    size_t a_row, a_col;
    const bp_real *b;
    size_t b_row;
    bp_real *c;
    size_t c_row;
    const bp_real *bias;     /* n values, or NULL */
    const bp_real *row_bias; /* m values, or NULL */
    bool accumulate;
    struct bp_epilogue epilogue;
    const struct bp_ahead *ahead; /* or NULL */
};

/* Windows onto zero-padded planes (channels of an image), as a matrix: row q is a tap of the window (channel, down,
 * across), column j a position of it (j / width down, j % width across). Element (q, j) is at
 *   planes + channel * plane + tap down * step_down + tap across * step_across + j / width * down + j % width * across
 * Steps may be negative: planes points at tap 0 of position 0. Up to BP_PANEL - 1 elements behind the last one are
 * read too, and have no effect. */
struct bp_patches {
    const bp_real *planes;
    size_t plane;
    int taps_down, taps_across;
    ptrdiff_t step_down, step_across;
    int width;
    size_t down, across;
};

/* C = A B, or C = C + A B, where A (m, k) are patches as they lie in an image: element (i, p) at a[row[i] + col[p]]. B (k, n) is
 * packed as that of bp_gemm; C (m, n) at c[i * c_row + j], all columns of the last panel being written. Elements are
 * the same chains as bp_gemm's. What lies at `soon`, wanted next, is fetched into the cache meanwhile. */
struct bp_soon {
    const bp_real *at;
    size_t n; /* 0 for none */
};

struct bp_patch_gemm {
    int m, n, k;
    const bp_real *a;
    const int32_t *row, *col;
    const bp_real *b;
    bp_real *c;
    size_t c_row;
    bool accumulate;
    struct bp_soon soon[2];
};

/* A pooling window over planes of ih x iw, giving oh x ow: tap (ky, kx) of position (oy, ox) is at
 * (oy * sh - top + ky, ox * sw - left + kx), which may be outside. Each window has a tap inside. */
struct bp_window {
    int ih, iw, oh, ow, kh, kw, sh, sw, top, left;
};

/* What an optimizer kernel needs for one step; computed in double by train/optimizer from the step number. */
struct bp_update {
    bp_real lr;         /* rate of this step */
    bp_real grad_scale; /* gradients are multiplied by this first (clipping); 1 for none */
    bp_real decay;      /* L2 decay added to the gradient (coupled), or 0 */
    bp_real shrink;     /* parameters are multiplied by this first (decoupled decay: 1 - lr * decay), or 1 */
    bp_real momentum, dampening;
    bool nesterov, first; /* first: the momentum buffer takes the gradient itself, as PyTorch does */
    bp_real beta1, beta2, eps;
    bp_real step_size;  /* adam: lr / (1 - beta1^t) */
    bp_real root_scale; /* adam: 1 / sqrt(1 - beta2^t) */
    bp_real fresh_size; /* nadam: factor of the gradient itself */
    bp_real initial;    /* adagrad: what the sums start from */
    bool centered;      /* rmsprop: divides by the deviation instead of the root mean square */
};

/* One update of n parameters p with gradients g and the optimizer's slots (as many as train/optimizer says), all
 * starting at 0. With g = grad_scale g + decay p unless said otherwise, m and v as adam's:
 *   amsgrad   adam with max(v so far) for v                    slots m, v, max
 *   nadam     p += -(fresh_size g + step_size m) / (sqrt(v) root_scale + eps)
 *   adamax    u = max(beta2 u, |g| + eps); p -= step_size m / u
 *   rmsprop   v with beta2; s = g / (sqrt(v) + eps); centered: of v - mean(g)^2; momentum: b = momentum b + s; p -= lr b
 *             slots v, b where momentum is not 0, mean(g) where centered
 *   adagrad   s = (first ? initial : s) + g^2; p -= lr g / (sqrt(s) + eps)
 *   adadelta  v with beta2; d = sqrt(a + eps) / sqrt(v + eps) g; a = beta2 a + (1 - beta2) d^2; p -= lr d
 *   lion      p = shrink p - lr sign(beta1 m + (1 - beta1) g); m = beta2 m + (1 - beta2) g      (g without decay)
 *   lamb      p -= lr (step_size m / (sqrt(v) root_scale + eps) + decay p), the moments being those that lamb_moments
 *             has made of g without decay; g is not looked at
 */
typedef void bp_update_kernel(size_t n, const struct bp_update *u, bp_real *p, bp_real *g, bp_real *const slot[]);

/* A block as normalization over the batch sees it: `rows` rows of n elements, row r from r * row on. The elements of a
 * row are n channels (columns), coefficients being arrays of n; or, where plane is set, all of one channel, and a
 * coefficient is one number. */
struct bp_channels {
    size_t rows;
    int n;
    size_t row;
    bool plane;
};

/* The backward pass of a normalization over the batch: dx = scale (dy + slope (x - mean) + offset). */
struct bp_channel_slope {
    const bp_real *mean, *scale, *slope, *offset;
};

/* Normalization of each of `rows` rows of channels * spatial contiguous elements by its own mean and deviation. Row r
 * has the factors and offsets of group r % groups; a channel's spatial elements share them. */
struct bp_row_norm {
    size_t rows;
    int groups, channels, spatial;
    bp_real eps;
    const bp_real *x;
    const bp_real *gamma, *beta; /* (groups, channels), or NULL for 1 and 0 */
    bp_real *moments;            /* (rows, 2): mean and 1 / sqrt(variance + eps); forward writes, backward reads */
    bp_real *y;                  /* forward */
    const bp_real *dy;           /* backward */
    bp_real *dx;
    bool accumulate; /* dx += */
};

/* One step of a recurrent cell for some rows; see cells.inc.h for the formulas. A slot holds what a row keeps of a step,
 * in parts of `units` elements: lstm i, f, g, o, c, h; gru r, z, n, q, h, where h is the state before the step. The
 * forward step finds W x + b in the gates and leaves their values; the backward step finds these and leaves the error
 * signals of the gates' sums (gru: of q's in q). */
struct bp_cell {
    int rows, units;
    size_t row;            /* elements from one row's slot to the next one's; also of before and next */
    bp_real *slot;         /* of row 0 */
    const bp_real *before; /* the slot of the step before (lstm: its c), NULL for zeros */
    bp_real *hidden;   /* (rows, gates * units): forward W h + b; gru's backward step: the error signals of these */
    bp_real *next;     /* forward: takes the new state, or NULL */
    bp_real *y;        /* forward: (rows, units), y_row apart: takes the new state too, or NULL */
    const bp_real *dy; /* backward: error signal of y, or NULL */
    size_t y_row;
    bp_real *dh, *dc; /* backward: (rows, units): error signals of the new state and (lstm) cell from later steps; dc
                       * becomes the one of the cell before; gru: dh becomes what z passes on to the state before */
};

/* Rows picked from a table: row r of y, for r < rows, is made from the n numbers at x + index[r] * x_row, each being
 * ((v - shift) * scale) in double, rounded once; NaN takes the place of v by fill. */
struct bp_gather {
    int rows, n;
    const bp_real *x;
    const uint32_t *index;
    size_t x_row;
    double fill, shift, scale;
    bp_real *y;
    size_t y_row;
};

struct bp_kernels {
    const char *name; /* "generic", "avx2", "avx512" or "neon" */
    int tile_rows;    /* rows of A that a product keeps in registers: the fewer, the more often it loads B and A */

    /* Packs B (k, n), element (p, j) at src[p * row + j * col], into ceil(n/16) panels of k * 16; the columns past
     * n of the last panel are zero. One of the strides is 1. dst has bp_panels_size(k, n) elements. */
    void (*pack)(bp_real *dst, const bp_real *src, int k, int n, size_t row, size_t col);
    /* The same past the caches, where the CPU can: for panels that nobody reads before they would be evicted anyway. dst
     * is aligned to a cache line. pack_end, by the same thread, comes before anyone reads them. */
    void (*pack_past)(bp_real *dst, const bp_real *src, int k, int n, size_t row, size_t col);
    void (*pack_end)(void);
    void (*gemm)(const struct bp_gemm *g);

    /* y = f(x), n elements. alpha: slope of leaky_relu, alpha of elu; unused else. Not softmax, log_softmax. */
    void (*activation)(enum bp_activation kind, bp_real alpha, size_t n, const bp_real *x, bp_real *y);
    /* dx = dy f'(x), or dx += where accumulate. Uses y where f' is a function of it, x else. dx may be dy. */
    void (*activation_gradient)(enum bp_activation kind, bp_real alpha, size_t n, const bp_real *x, const bp_real *y,
                                const bp_real *dy, bp_real *dx, bool accumulate);
    /* The same for relu, whose forward pass leaves what the backward pass needs in bits: bit i mod 16 of closed[i / 16]
     * is set where the slope at element i is 0. */
    void (*relu)(size_t n, const bp_real *x, bp_real *y, uint16_t *closed);
    void (*relu_gradient)(size_t n, const uint16_t *closed, const bp_real *dy, bp_real *dx, bool accumulate);
    /* softmax, or log_softmax, along each row of (rows, n); y may be x. */
    void (*softmax)(bool logarithm, int rows, int n, const bp_real *x, bp_real *y);
    void (*softmax_gradient)(bool logarithm, int rows, int n, const bp_real *y, const bp_real *dy, bp_real *dx,
                             bool accumulate);

    /* Losses of (rows, n) predictions. loss[r] is the row's loss before weighting. Where dx is not NULL it takes
     * scale * weight[r] * dloss/dx (weight NULL: 1). Predictions of the first two are logits.
     *   cross_entropy: -log softmax(x)[label]             label (rows), each in [0, n)
     *   bce: mean over n of softplus(x) - x t             target (rows, n) in [0, 1]
     *   mse: mean over n of (x - t)^2 */
    void (*cross_entropy)(int rows, int n, const bp_real *x, const int32_t *label, const float *weight, bp_real scale,
                          bp_real *loss, bp_real *dx);
    void (*bce)(int rows, int n, const bp_real *x, const bp_real *target, const float *weight, bp_real scale,
                bp_real *loss, bp_real *dx);
    void (*mse)(int rows, int n, const bp_real *x, const bp_real *target, const float *weight, bp_real scale,
                bp_real *loss, bp_real *dx);

    /* More losses of the same form. loss_terms: mean over n of a term, with a parameter a:
     *   bce       as bce, the target drawn to 1/2: t (1 - a) + a/2      mae      |x - t|
     *   huber     (x - t)^2 / 2 up to |x - t| = a, a (|x - t| - a/2) beyond
     *   hinge     max(0, 1 - (2 t - 1) x), t 0 or 1                     poisson  e^x - t x
     *   quantile  max(a (t - x), (a - 1) (t - x))
     * cross_entropy_smooth: -(1 - a) log p[label] - a mean(log p) with p = softmax(x) and the smoothing a
     * multi_margin: sum over j != label of max(0, 1 - x[label] + x[j]), over n
     * kl_div: sum over n of t (log t - log softmax(x)); terms of t = 0 are 0 */
    void (*loss_terms)(enum bp_loss_term term, int rows, int n, const bp_real *x, const bp_real *target,
                       const float *weight, bp_real parameter, bp_real scale, bp_real *loss, bp_real *dx);
    void (*cross_entropy_smooth)(int rows, int n, const bp_real *x, const int32_t *label, const float *weight,
                                 bp_real smoothing, bp_real scale, bp_real *loss, bp_real *dx);
    void (*multi_margin)(int rows, int n, const bp_real *x, const int32_t *label, const float *weight, bp_real scale,
                         bp_real *loss, bp_real *dx);
    void (*kl_div)(int rows, int n, const bp_real *x, const bp_real *target, const float *weight, bp_real scale,
                   bp_real *loss, bp_real *dx);

    /* out[j] = sum over rows of x[r * row + j], or out[j] += that sum where accumulate. */
    void (*column_sum)(int rows, int n, const bp_real *x, size_t row, bp_real *out, bool accumulate);
    void (*add)(size_t n, const bp_real *x, bp_real *y); /* y += x */
    /* y = a b, element by element, or y += a b; y may be a or b. */
    void (*multiply)(size_t n, const bp_real *a, const bp_real *b, bp_real *y, bool accumulate);
    void (*scale)(size_t n, bp_real factor, bp_real *x); /* x *= factor */
    void (*lstm)(const struct bp_cell *cell);
    void (*lstm_gradient)(const struct bp_cell *cell);
    void (*gru)(const struct bp_cell *cell);
    void (*gru_gradient)(const struct bp_cell *cell);
    double (*sum_squares)(size_t n, const bp_real *x); /* in double; non-finite when any x is */
    /* y = x / (1 - rate) where element `first + i` of (seed, stream, step) is kept, else 0; y may be x. With x = dy
     * it is its own backward pass. The element's word is bp_random(seed, stream, step, e / 4)[e % 4]; it is
     * dropped when bp_random_unit(word) < rate. accumulate: y += instead. */
    void (*dropout)(size_t n, const bp_real *x, bp_real *y, uint64_t seed, uint32_t stream, uint64_t step,
                    uint64_t first, float rate, bool accumulate);
    /* bp_random_shuffle. */
    void (*shuffle)(uint64_t seed, uint32_t stream, uint64_t step, uint32_t *order, uint64_t n);

    /* Normalization over the batch. A result is one number a channel; accumulate: added to what is there.
     *   moment: sum of x (mean NULL), or of (x - mean)^2        apply: y = (x - mean) scale + shift; shift NULL: + 0
     *   products: sum of dy, and of dy (x - mean)               gradient: see struct bp_channel_slope; x NULL: scale dy
     */
    void (*channel_moment)(const struct bp_channels *b, const bp_real *x, const bp_real *mean, bp_real *out,
                           bool accumulate);
    void (*channel_apply)(const struct bp_channels *b, const bp_real *x, const bp_real *mean, const bp_real *scale,
                          const bp_real *shift, bp_real *y);
    void (*channel_products)(const struct bp_channels *b, const bp_real *x, const bp_real *dy, const bp_real *mean,
                             bp_real *sum, bp_real *product, bool accumulate);
    void (*channel_gradient)(const struct bp_channels *b, const struct bp_channel_slope *c, const bp_real *x,
                             const bp_real *dy, bp_real *dx, bool accumulate);
    /* Normalization along the row, its backward pass, and for the channels of a block the sums over its rows of dy
     * and of dy (x - mean) / deviation, row r having its two moments at r * moments_row. */
    void (*row_norm)(const struct bp_row_norm *c);
    void (*row_norm_gradient)(const struct bp_row_norm *c);
    void (*row_norm_products)(const struct bp_channels *b, const bp_real *x, const bp_real *dy,
                              const bp_real *moments, size_t moments_row, bp_real *sum, bp_real *product,
                              bool accumulate);

    /* Rows q0 .. q0 + nq, columns j0 .. j0 + nj of the matrix of patches, packed as B (k = nq, n = nj). The columns past
     * the end of the last panel hold anything. */
    void (*patches)(const struct bp_patches *p, int q0, int nq, int j0, int nj, bp_real *dst);
    void (*patch_gemm)(const struct bp_patch_gemm *g);
    /* The transpose: y[j * y_row + i] = c[i * c_row + j] (+ bias[j]), or y += that, for i < m and j < n; whole panels of
     * c are read. */
    void (*turn)(int m, int n, const bp_real *c, size_t c_row, const bp_real *bias, bp_real *y, size_t y_row,
                 bool accumulate);
    void (*gather)(const struct bp_gather *g);
    void (*copy_rows)(int rows, int n, const bp_real *src, size_t src_row, bp_real *dst, size_t dst_row);
    /* One filter w on one plane: y[j] = the chain over the taps (+ *bias), or y[j] + the chain. */
    void (*depthwise)(const struct bp_patches *p, int positions, const bp_real *w, const bp_real *bias, bp_real *y,
                      bool accumulate);
    /* `across` 1: dw[tap] = sum over positions of dy[j] * patch[tap][j], in the lanes of each row of positions, or += that. */
    void (*depthwise_gradient)(const struct bp_patches *p, int positions, const bp_real *dy, bp_real *dw,
                               bool accumulate);
    /* out[r] = sum of the n elements at x + r * row, or += that. */
    void (*row_sum)(int rows, int n, const bp_real *x, size_t row, bp_real *out, bool accumulate);

    /* Pools of `planes` planes. max_pool: index takes the tap (ky * kw + kx) that won: the first of equals, and NaN
     * before all. avg_pool divides by kh * kw: what is outside counts as 0. The gradients write dx, or add to it. */
    void (*max_pool)(const struct bp_window *w, int planes, const bp_real *x, bp_real *y, bp_real *index);
    void (*max_pool_gradient)(const struct bp_window *w, int planes, const bp_real *index, const bp_real *dy,
                              bp_real *dx, bool accumulate);
    void (*avg_pool)(const struct bp_window *w, int planes, const bp_real *x, bp_real *y);
    void (*avg_pool_gradient)(const struct bp_window *w, int planes, const bp_real *dy, bp_real *dx, bool accumulate);

    /* One update of n parameters p with gradients g and the optimizer's slots.
     *   sgd (PyTorch): g = grad_scale g + decay p; v = first ? g : momentum v + (1 - dampening) g;
     *        p -= lr (nesterov ? g + momentum v : v); v may be NULL when momentum is 0
     *   adam: g = grad_scale g + decay p; p *= shrink; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
     *        p -= step_size m / (sqrt(v) root_scale + eps)
     * Values of m and v below the smallest normal number become 0 by an explicit compare. */
    void (*sgd)(size_t n, const struct bp_update *u, bp_real *p, const bp_real *g, bp_real *v);
    void (*adam)(size_t n, const struct bp_update *u, bp_real *p, const bp_real *g, bp_real *m, bp_real *v);
    /* The first half of lamb: the moments; returns the sum of squares of the direction in the brackets, in double. */
    double (*lamb_moments)(size_t n, const struct bp_update *u, const bp_real *p, const bp_real *g,
                           bp_real *const slot[]);
    bp_update_kernel *amsgrad, *nadam, *adamax, *rmsprop, *adagrad, *adadelta, *lion, *lamb;
    /* x = factor x, drawn to -limit .. limit; NaN stays. */
    void (*clip)(size_t n, bp_real factor, bp_real limit, bp_real *x);
};

/* Elements of the packed form of B (k, n). */
static inline size_t bp_panels_size(int k, int n)
{
    return (size_t)((n + BP_PANEL - 1) / BP_PANEL) * BP_PANEL * (size_t)k;
}

/* The table in use: the best that this CPU has, unless bp_kernels_select chose another. Never NULL. */
const struct bp_kernels *bp_kernels_current(void);

#ifndef BP_DOUBLE
/* Chooses "generic", "avx2", "avx512" or "neon" for the process; NULL or "" chooses the best. BP_INVALID for another
 * word, BP_UNSUPPORTED when the CPU lacks it. Called before any thread uses a kernel. */
bp_status bp_kernels_select(const char *name, struct bp_error *err);
#endif

#endif
