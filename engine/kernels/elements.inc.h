/* elements.inc.h: activations, written once on v16; included by each kernels_*.c.
 *
 * Each activation is a pair of one-line functions, the value f(x) and the slope times the error signal, dy f'(x);
 * a macro makes the loops, a table the dispatch. Which of x and y a slope reads is part of the contract with the
 * ops, which keep only what is needed: y for relu, sigmoid, tanh; x and y for elu, selu; x for all others.
 * At the kinks the slope is PyTorch's: 0 at 0 for relu, 0 at both ends for relu6 and hard_sigmoid.
 */

#define SELU_SCALE ((bp_real)1.0507009873554804934193349852946)
#define SELU_ALPHA ((bp_real)1.6732632423543772848170429916717)

/* --- values ------------------------------------------------------------------------------------------------------- */
#define VALUE(name) V16_INLINE v16 name##_value(v16 x, v16 alpha)

VALUE(linear)
{
    (void)alpha;
    return x;
}

VALUE(relu)
{
    (void)alpha;
    return v16_max(v16_zero(), x);
}

VALUE(leaky_relu)
{
    return v16_select(v16_less(v16_zero(), x), x, v16_mul(alpha, x));
}

VALUE(elu)
{
    return v16_select(v16_less(v16_zero(), x), x, v16_mul(alpha, v16_expm1(v16_min(v16_zero(), x))));
}

VALUE(selu)
{
    (void)alpha;
    return v16_mul(v16_set(SELU_SCALE), elu_value(x, v16_set(SELU_ALPHA)));
}

VALUE(gelu)
{
    (void)alpha;
    return v16_mul(x, v16_normal_below(x));
}

VALUE(silu)
{
    (void)alpha;
    return v16_mul(x, v16_sigmoid(x));
}

/* tanh(log(1 + e^x)) = w / (w + 2) with w = e^x (e^x + 2); from x = 20 on it is 1, also in double's 1e-17 */
V16_INLINE v16 mish_factor(v16 x, v16 *ret_e, v16 *ret_w2)
{
    v16 e = v16_exp(v16_min(v16_set(20), x));
    v16 w = v16_mul(e, v16_add(e, v16_set(2)));
    *ret_e = e;
    *ret_w2 = v16_add(w, v16_set(2));
    return v16_div(w, *ret_w2);
}

VALUE(mish)
{
    v16 e, w2;
    (void)alpha;
    return v16_mul(x, mish_factor(x, &e, &w2));
}

VALUE(sigmoid)
{
    (void)alpha;
    return v16_sigmoid(x);
}

VALUE(tanh)
{
    (void)alpha;
    return v16_tanh(x);
}

VALUE(softplus)
{
    (void)alpha;
    return v16_softplus(x);
}

VALUE(softsign)
{
    (void)alpha;
    return v16_div(x, v16_add(v16_set(1), v16_abs(x)));
}

VALUE(relu6)
{
    (void)alpha;
    return v16_max(v16_zero(), v16_min(v16_set(6), x));
}

VALUE(hard_sigmoid)
{
    return v16_div(relu6_value(v16_add(x, v16_set(3)), alpha), v16_set(6));
}

/* --- slopes: dy f'(x) --------------------------------------------------------------------------------------------- */
#define SLOPE(name) V16_INLINE v16 name##_slope(v16 x, v16 y, v16 dy, v16 alpha)

SLOPE(linear)
{
    (void)x, (void)y, (void)alpha;
    return dy;
}

SLOPE(relu)
{
    (void)x, (void)alpha;
    return v16_select(v16_at_most(y, v16_zero()), v16_zero(), dy);
}

SLOPE(leaky_relu)
{
    (void)y;
    return v16_select(v16_less(v16_zero(), x), dy, v16_mul(alpha, dy));
}

SLOPE(elu) /* f = alpha (e^x - 1), so f' = f + alpha */
{
    return v16_select(v16_less(v16_zero(), x), dy, v16_mul(dy, v16_add(y, alpha)));
}

SLOPE(selu)
{
    (void)alpha;
    v16 scale = v16_set(SELU_SCALE), below = v16_add(y, v16_set(SELU_SCALE * SELU_ALPHA));
    return v16_mul(dy, v16_select(v16_less(v16_zero(), x), scale, below));
}

SLOPE(gelu) /* Phi(x) + x phi(x) */
{
    (void)y, (void)alpha;
    return v16_mul(dy, v16_fma(x, v16_normal_density(x), v16_normal_below(x)));
}

SLOPE(silu) /* s (1 + x (1 - s)) */
{
    (void)y, (void)alpha;
    v16 s = v16_sigmoid(x), one = v16_set(1);
    return v16_mul(dy, v16_mul(s, v16_fma(x, v16_sub(one, s), one)));
}

SLOPE(mish) /* t + x 4 e (1 + e) / (w + 2)^2, see mish_factor */
{
    (void)y, (void)alpha;
    v16 e, w2, t = mish_factor(x, &e, &w2);
    v16 q = v16_div(v16_mul(v16_mul(v16_set(4), e), v16_add(v16_set(1), e)), v16_mul(w2, w2));
    return v16_mul(dy, v16_fma(x, q, t));
}

SLOPE(sigmoid)
{
    (void)x, (void)alpha;
    return v16_mul(dy, v16_mul(y, v16_sub(v16_set(1), y)));
}

SLOPE(tanh)
{
    (void)x, (void)alpha;
    return v16_mul(dy, v16_fma(v16_neg(y), y, v16_set(1)));
}

SLOPE(softplus)
{
    (void)y, (void)alpha;
    return v16_mul(dy, v16_sigmoid(x));
}

SLOPE(softsign)
{
    (void)y, (void)alpha;
    v16 d = v16_add(v16_set(1), v16_abs(x));
    return v16_div(dy, v16_mul(d, d));
}

/* dy strictly inside (low, high), 0 at and outside the ends */
V16_INLINE v16 inside(v16 x, bp_real low, bp_real high, v16 dy)
{
    v16 upper = v16_select(v16_at_most(v16_set(high), x), v16_zero(), dy);
    return v16_select(v16_at_most(x, v16_set(low)), v16_zero(), upper);
}

SLOPE(hard_sigmoid)
{
    (void)y, (void)alpha;
    return inside(x, -3, 3, v16_div(dy, v16_set(6)));
}

SLOPE(relu6)
{
    (void)y, (void)alpha;
    return inside(x, 0, 6, dy);
}

/* --- the loops ---------------------------------------------------------------------------------------------------- */
/* x and y may be NULL where the slope does not read them. */
#define LOOPS(name, uses_x, uses_y)                                                                                  \
    static void name##_values(size_t n, bp_real alpha, const bp_real *x, bp_real *y)                                 \
    {                                                                                                                \
        v16 a = v16_set(alpha);                                                                                      \
        for (size_t i = 0; i < n; i += LANES) {                                                                      \
            int count = v16_count(i, n);                                                                             \
            v16_store_n(y + i, name##_value(v16_load_n(x + i, count), a), count);                                    \
        }                                                                                                            \
    }                                                                                                                \
    static void name##_slopes(size_t n, bp_real alpha, const bp_real *x, const bp_real *y, const bp_real *dy,        \
                              bp_real *dx, bool accumulate)                                                          \
    {                                                                                                                \
        v16 a = v16_set(alpha);                                                                                      \
        for (size_t i = 0; i < n; i += LANES) {                                                                      \
            int count = v16_count(i, n);                                                                             \
            v16 d = v16_load_n(dy + i, count);                                                                       \
            v16 xi = (uses_x) ? v16_load_n(x + i, count) : v16_zero();                                               \
            v16 yi = (uses_y) ? v16_load_n(y + i, count) : v16_zero();                                               \
            d = name##_slope(xi, yi, d, a);                                                                          \
            if (accumulate)                                                                                          \
                d = v16_add(v16_load_n(dx + i, count), d);                                                           \
            v16_store_n(dx + i, d, count);                                                                           \
        }                                                                                                            \
    }

LOOPS(linear, 0, 0)
LOOPS(relu, 0, 1)
LOOPS(leaky_relu, 1, 0)
LOOPS(elu, 1, 1)
LOOPS(selu, 1, 1)
LOOPS(gelu, 1, 0)
LOOPS(silu, 1, 0)
LOOPS(mish, 1, 0)
LOOPS(sigmoid, 0, 1)
LOOPS(tanh, 0, 1)
LOOPS(softplus, 1, 0)
LOOPS(softsign, 1, 0)
LOOPS(hard_sigmoid, 1, 0)
LOOPS(relu6, 1, 0)

static const struct {
    void (*values)(size_t n, bp_real alpha, const bp_real *x, bp_real *y);
    void (*slopes)(size_t n, bp_real alpha, const bp_real *x, const bp_real *y, const bp_real *dy, bp_real *dx,
                   bool accumulate);
} loops[] = {
    [BP_LINEAR] = {linear_values, linear_slopes},
    [BP_RELU] = {relu_values, relu_slopes},
    [BP_LEAKY_RELU] = {leaky_relu_values, leaky_relu_slopes},
    [BP_ELU] = {elu_values, elu_slopes},
    [BP_SELU] = {selu_values, selu_slopes},
    [BP_GELU] = {gelu_values, gelu_slopes},
    [BP_SILU] = {silu_values, silu_slopes},
    [BP_MISH] = {mish_values, mish_slopes},
    [BP_SIGMOID] = {sigmoid_values, sigmoid_slopes},
    [BP_TANH] = {tanh_values, tanh_slopes},
    [BP_SOFTPLUS] = {softplus_values, softplus_slopes},
    [BP_SOFTSIGN] = {softsign_values, softsign_slopes},
    [BP_HARD_SIGMOID] = {hard_sigmoid_values, hard_sigmoid_slopes},
    [BP_RELU6] = {relu6_values, relu6_slopes},
};

static void kernel_activation(enum bp_activation kind, bp_real alpha, size_t n, const bp_real *x, bp_real *y)
{
    loops[kind].values(n, alpha, x, y);
}

static void kernel_activation_gradient(enum bp_activation kind, bp_real alpha, size_t n, const bp_real *x,
                                       const bp_real *y, const bp_real *dy, bp_real *dx, bool accumulate)
{
    loops[kind].slopes(n, alpha, x, y, dy, dx, accumulate);
}

/* --- relu that keeps bits ----------------------------------------------------------------------------------------- */

static void kernel_relu(size_t n, const bp_real *x, bp_real *y, uint16_t *closed)
{
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16 v = relu_value(v16_load_n(x + i, count), v16_zero());
        v16_store_n(y + i, v, count);
        *closed++ = v16_mask_bits(v16_at_most(v, v16_zero()));
    }
}

static void kernel_relu_gradient(size_t n, const uint16_t *closed, const bp_real *dy, bp_real *dx, bool accumulate)
{
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16 d = v16_select(v16_mask_of(*closed++), v16_zero(), v16_load_n(dy + i, count));
        if (accumulate)
            d = v16_add(v16_load_n(dx + i, count), d);
        v16_store_n(dx + i, d, count);
    }
}
