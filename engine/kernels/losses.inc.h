/* losses.inc.h: the further losses, one row after the other, written once on v16; included by each kernels_*.c.
 *
 * Losses that are a mean over the outputs of one term each are a pair, the term and its slope by x; a macro makes the
 * loops. The slope at a kink is 0 where the sign changes there (mae, quantile), and that of the flat side for hinge.
 */

/* --- losses of terms: mean over n of term(x, t) -------------------------------------------------------------------- */
/* a: the loss's own parameter (see bp_kernels.loss_terms). */
#define TERM(name) V16_INLINE v16 name##_term(v16 x, v16 t, v16 a, v16 *ret_slope)

/* -1, 0 or 1 times a factor of each side; 0 for NaN, whose loss is NaN. */
V16_INLINE v16 by_sign(v16 d, v16 above, v16 below)
{
    v16 zero = v16_zero();
    return v16_select(v16_less(zero, d), above, v16_select(v16_less(d, zero), below, zero));
}

TERM(bce) /* with the target drawn to 1/2: t (1 - a) + a / 2 */
{
    v16 half = v16_mul(a, v16_set((bp_real)0.5)), smooth = v16_fma(t, v16_sub(v16_set(1), a), half);
    v16 hinge = v16_sub(v16_max(v16_zero(), x), v16_mul(x, smooth));
    *ret_slope = v16_sub(v16_sigmoid(x), smooth);
    return v16_add(hinge, v16_log1p_unit(v16_exp(v16_neg(v16_abs(x)))));
}

TERM(mae)
{
    v16 d = v16_sub(x, t);
    (void)a;
    *ret_slope = by_sign(d, v16_set(1), v16_set(-1));
    return v16_abs(d);
}

TERM(huber)
{
    v16 d = v16_sub(x, t), size = v16_abs(d), half = v16_set((bp_real)0.5);
    v16m near = v16_at_most(size, a);
    *ret_slope = v16_select(near, d, by_sign(d, a, v16_neg(a)));
    return v16_select(near, v16_mul(half, v16_mul(d, d)), v16_mul(a, v16_sub(size, v16_mul(half, a))));
}

TERM(hinge) /* the side s = 2 t - 1 is -1 or 1 */
{
    v16 side = v16_fma(v16_set(2), t, v16_set(-1));
    v16 margin = v16_fma(v16_neg(side), x, v16_set(1));
    (void)a;
    *ret_slope = v16_select(v16_less(v16_zero(), margin), v16_neg(side), v16_zero());
    return v16_max(v16_zero(), margin);
}

TERM(poisson)
{
    v16 rate = v16_exp(x);
    (void)a;
    *ret_slope = v16_sub(rate, t);
    return v16_fma(v16_neg(x), t, rate);
}

TERM(quantile) /* too low costs a, too high 1 - a */
{
    v16 e = v16_sub(t, x), rest = v16_sub(v16_set(1), a);
    *ret_slope = by_sign(e, v16_neg(a), rest);
    return v16_max(v16_mul(v16_neg(rest), e), v16_mul(a, e));
}

#define TERM_LOOP(name)                                                                                              \
    static void name##_terms(int rows, int n, const bp_real *x, const bp_real *target, const float *weight,          \
                             bp_real parameter, bp_real scale, bp_real *loss, bp_real *dx)                           \
    {                                                                                                                \
        v16 a = v16_set(parameter);                                                                                  \
        for (int r = 0; r < rows; r++, x += n, target += n) {                                                        \
            v16 sum = v16_zero(), slope;                                                                             \
            v16 factor = v16_set((weight ? scale * (bp_real)weight[r] : scale) / (bp_real)n);                        \
            for (int i = 0; i < n; i += LANES) {                                                                     \
                int count = v16_count((size_t)i, (size_t)n);                                                         \
                v16 term = name##_term(v16_load_n(x + i, count), v16_load_n(target + i, count), a, &slope);          \
                sum = v16_add(sum, v16_select(v16_first(count), term, v16_zero()));                                  \
                if (dx)                                                                                              \
                    v16_store_n(dx + i, v16_mul(factor, slope), count);                                              \
            }                                                                                                        \
            loss[r] = v16_sum(sum) / (bp_real)n;                                                                     \
            if (dx)                                                                                                  \
                dx += n;                                                                                             \
        }                                                                                                            \
    }

TERM_LOOP(bce)
TERM_LOOP(mae)
TERM_LOOP(huber)
TERM_LOOP(hinge)
TERM_LOOP(poisson)
TERM_LOOP(quantile)

static void kernel_loss_terms(enum bp_loss_term term, int rows, int n, const bp_real *x, const bp_real *target,
                              const float *weight, bp_real parameter, bp_real scale, bp_real *loss, bp_real *dx)
{
    static void (*const terms[])(int, int, const bp_real *, const bp_real *, const float *, bp_real, bp_real,
                                 bp_real *, bp_real *) = {
        [BP_TERM_BCE] = bce_terms,     [BP_TERM_MAE] = mae_terms,         [BP_TERM_HUBER] = huber_terms,
        [BP_TERM_HINGE] = hinge_terms, [BP_TERM_POISSON] = poisson_terms, [BP_TERM_QUANTILE] = quantile_terms,
    };
    terms[term](rows, n, x, target, weight, parameter, scale, loss, dx);
}

/* --- losses of a whole row ----------------------------------------------------------------------------------------- */

/* With z = x - max and l the logarithm of sum e^z:
 * loss = l - (1 - s) z[label] - s mean(z); dx = scale weight (softmax - (1 - s) onehot - s / n) */
static void kernel_cross_entropy_smooth(int rows, int n, const bp_real *x, const int32_t *label, const float *weight,
                                        bp_real smoothing, bp_real scale, bp_real *loss, bp_real *dx)
{
    bp_real share = smoothing / (bp_real)n, sure = 1 - smoothing;
    for (int r = 0; r < rows; r++, x += n) {
        bp_real max = row_max(n, x), chosen = x[label[r]] - max;
        bp_real sum = row_exp_sum(n, x, max, dx);
        v16 total = v16_zero(), m = v16_set(max);
        for (int i = 0; i < n; i += LANES) {
            int count = v16_count((size_t)i, (size_t)n);
            v16 z = v16_sub(v16_load_n(x + i, count), m);
            total = v16_add(total, v16_select(v16_first(count), z, v16_zero()));
        }
        loss[r] = (v16_lane0(v16_log(v16_set(sum))) - sure * chosen) - share * v16_sum(total);
        if (!dx)
            continue;
        bp_real factor = weight ? scale * (bp_real)weight[r] : scale, inverse = 1 / sum;
        bp_real at_label = ((dx[label[r]] * inverse - share) - sure) * factor;
        for (int i = 0; i < n; i += LANES) {
            int count = v16_count((size_t)i, (size_t)n);
            v16 p = v16_mul(v16_load_n(dx + i, count), v16_set(inverse));
            v16_store_n(dx + i, v16_mul(v16_sub(p, v16_set(share)), v16_set(factor)), count);
        }
        dx[label[r]] = at_label;
        dx += n;
    }
}

/* loss = sum over j other than the label of max(0, 1 - x[label] + x[j]), over n; dx = scale weight / n for each j in
 * the sum that is above 0, and at the label minus as many */
static void kernel_multi_margin(int rows, int n, const bp_real *x, const int32_t *label, const float *weight,
                                bp_real scale, bp_real *loss, bp_real *dx)
{
    static const bp_real lanes[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    v16 zero = v16_zero(), one = v16_set(1), ramp = v16_load(lanes);
    for (int r = 0; r < rows; r++, x += n) {
        v16 sum = zero, broken = zero, chosen = v16_set(x[label[r]]), at = v16_set((bp_real)label[r]);
        bp_real step = (weight ? scale * (bp_real)weight[r] : scale) / (bp_real)n;
        for (int i = 0; i < n; i += LANES) {
            int count = v16_count((size_t)i, (size_t)n);
            v16 index = v16_add(ramp, v16_set((bp_real)i)); /* below 2^24: exact */
            v16 margin = v16_add(one, v16_sub(v16_load_n(x + i, count), chosen));
            v16m other = v16_less(zero, v16_abs(v16_sub(index, at)));
            margin = v16_select(v16_first(count), v16_select(other, margin, zero), zero);
            v16 active = v16_select(v16_less(zero, margin), one, zero);
            sum = v16_add(sum, v16_max(zero, margin));
            broken = v16_add(broken, active);
            if (dx)
                v16_store_n(dx + i, v16_mul(v16_set(step), active), count);
        }
        loss[r] = v16_sum(sum) / (bp_real)n;
        if (dx) {
            dx[label[r]] = -step * v16_sum(broken);
            dx += n;
        }
    }
}

/* With z = x - max and l the logarithm of sum e^z: loss = sum of t (log t - z + l), where a t of 0 adds nothing;
 * dx = scale weight (softmax sum(t) - t) */
static void kernel_kl_div(int rows, int n, const bp_real *x, const bp_real *target, const float *weight,
                          bp_real scale, bp_real *loss, bp_real *dx)
{
    for (int r = 0; r < rows; r++, x += n, target += n) {
        bp_real max = row_max(n, x), sum = row_exp_sum(n, x, max, dx);
        v16 log_sum = v16_log(v16_set(sum)), m = v16_set(max), total = v16_zero(), mass = v16_zero();
        for (int i = 0; i < n; i += LANES) {
            int count = v16_count((size_t)i, (size_t)n);
            v16 t = v16_load_n(target + i, count);
            v16 log_p = v16_sub(v16_sub(v16_load_n(x + i, count), m), log_sum);
            v16 term = v16_mul(t, v16_sub(v16_log(t), log_p));
            v16m counts = v16_less(v16_zero(), t);
            total = v16_add(total, v16_select(v16_first(count), v16_select(counts, term, v16_zero()), v16_zero()));
            mass = v16_add(mass, v16_select(v16_first(count), t, v16_zero()));
        }
        loss[r] = v16_sum(total);
        if (!dx)
            continue;
        v16 factor = v16_set(weight ? scale * (bp_real)weight[r] : scale), share = v16_set(v16_sum(mass) / sum);
        for (int i = 0; i < n; i += LANES) {
            int count = v16_count((size_t)i, (size_t)n);
            v16 d = v16_sub(v16_mul(v16_load_n(dx + i, count), share), v16_load_n(target + i, count));
            v16_store_n(dx + i, v16_mul(factor, d), count);
        }
        dx += n;
    }
}
