/* kernels.h: the arithmetic of training, in one table of functions for each instruction set.
 *
 * Three tables hold the same functions: generic (portable C), AVX2 + FMA, and AVX-512. All three give the same
 * bits, by these rules, which every kernel keeps:
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

/* C = A B (+ bias), or C = C + A B.
 *   A (m, k): element (i, p) at a[i * a_row + p * a_col]; one of the two strides is 1
 *   B (k, n): packed by pack(): panel j/16 starts at b + (j/16) * k * 16 and holds row p as 16 columns
 *   C (m, n): row-major, element (i, j) at c[i * c_row + j]
 * Each element is ((+0 fma chain over p) + bias[j]), or c + (chain) where accumulate is set (bias NULL then). */
struct bp_gemm {
    int m, n, k;
    const bp_real *a;
    size_t a_row, a_col;
    const bp_real *b;
    bp_real *c;
    size_t c_row;
    const bp_real *bias; /* n values, or NULL */
    bool accumulate;
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
};

struct bp_kernels {
    const char *name; /* "generic", "avx2" or "avx512" */

    /* Packs B (k, n), element (p, j) at src[p * row + j * col], into ceil(n/16) panels of k * 16; the columns past
     * n of the last panel are zero. One of the strides is 1. dst has bp_panels_size(k, n) elements. */
    void (*pack)(bp_real *dst, const bp_real *src, int k, int n, size_t row, size_t col);
    void (*gemm)(const struct bp_gemm *g);

    /* y = f(x), n elements. alpha: slope of leaky_relu, alpha of elu; unused else. Not softmax, log_softmax. */
    void (*activation)(enum bp_activation kind, bp_real alpha, size_t n, const bp_real *x, bp_real *y);
    /* dx = dy f'(x), or dx += where accumulate. Uses y where f' is a function of it, x else. dx may be dy. */
    void (*activation_gradient)(enum bp_activation kind, bp_real alpha, size_t n, const bp_real *x, const bp_real *y,
                                const bp_real *dy, bp_real *dx, bool accumulate);
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
    void (*bce)(int rows, int n, const bp_real *x, const float *target, const float *weight, bp_real scale,
                bp_real *loss, bp_real *dx);
    void (*mse)(int rows, int n, const bp_real *x, const float *target, const float *weight, bp_real scale,
                bp_real *loss, bp_real *dx);

    /* out[j] = sum over rows of x[r * row + j], or out[j] += that sum where accumulate. */
    void (*column_sum)(int rows, int n, const bp_real *x, size_t row, bp_real *out, bool accumulate);
    void (*add)(size_t n, const bp_real *x, bp_real *y); /* y += x */
    void (*scale)(size_t n, bp_real factor, bp_real *x); /* x *= factor */
    double (*sum_squares)(size_t n, const bp_real *x);   /* in double; non-finite when any x is */
    /* y = x / (1 - rate) where element `first + i` of (seed, stream, step) is kept, else 0; y may be x. With x = dy
     * it is its own backward pass. The element's word is bp_random(seed, stream, step, e / 4)[e % 4]; it is
     * dropped when bp_random_unit(word) < rate. accumulate: y += instead. */
    void (*dropout)(size_t n, const bp_real *x, bp_real *y, uint64_t seed, uint32_t stream, uint64_t step,
                    uint64_t first, float rate, bool accumulate);

    /* One update of n parameters p with gradients g and the optimizer's slots.
     *   sgd (PyTorch): g = grad_scale g + decay p; v = first ? g : momentum v + (1 - dampening) g;
     *        p -= lr (nesterov ? g + momentum v : v); v may be NULL when momentum is 0
     *   adam: g = grad_scale g + decay p; p *= shrink; m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
     *        p -= step_size m / (sqrt(v) root_scale + eps)
     * Values of m and v below the smallest normal number become 0 by an explicit compare. */
    void (*sgd)(size_t n, const struct bp_update *u, bp_real *p, const bp_real *g, bp_real *v);
    void (*adam)(size_t n, const struct bp_update *u, bp_real *p, const bp_real *g, bp_real *m, bp_real *v);
};

/* Elements of the packed form of B (k, n). */
static inline size_t bp_panels_size(int k, int n)
{
    return (size_t)((n + BP_PANEL - 1) / BP_PANEL) * BP_PANEL * (size_t)k;
}

/* The table in use: the best that this CPU has, unless bp_kernels_select chose another. Never NULL. */
const struct bp_kernels *bp_kernels_current(void);

#ifndef BP_DOUBLE
/* Chooses "generic", "avx2" or "avx512" for the process; NULL or "" chooses the best. BP_INVALID for another word,
 * BP_UNSUPPORTED when the CPU lacks it. Called before any thread uses a kernel. */
bp_status bp_kernels_select(const char *name, struct bp_error *err);
#endif

#endif
