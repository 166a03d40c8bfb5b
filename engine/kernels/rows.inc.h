/* rows.inc.h: the gather of a batch, softmax and the losses, one row after the other, written once on v16; included by
 * each kernels_*.c.
 *
 * A sum along a row runs in 16 virtual lanes (element i in lane i mod 16, ascending) and ends in the fixed tree
 * 8-4-2-1; lanes past the end of the row add +0, which changes nothing in a sum that starts at +0.
 */

static void kernel_gather(const struct bp_gather *g)
{
    const int n = g->n; /* in copies that no store can change */
    const double shift = g->shift, scale = g->scale;
    v16 missing = v16_set((bp_real)((g->fill - shift) * scale));
    bp_real *y = g->y;
    for (int r = 0; r < g->rows; r++, y += g->y_row) {
        const bp_real *x = g->x + (size_t)g->index[r] * g->x_row;
        for (int i = 0; i < n; i += LANES) {
            int count = v16_count((size_t)i, (size_t)n);
            v16 v = v16_load_n(x + i, count);
            v16_store_n(y + i, v16_select(v16_at_most(v, v), v16_standardize(v, shift, scale), missing), count);
        }
    }
}

/* The largest element; NaN does not count. */
V16_INLINE bp_real row_max(int n, const bp_real *x)
{
    v16 max = v16_set(-(bp_real)INFINITY);
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        max = v16_max(v16_load(x + i), max);
    if (i < n)
        max = v16_select(v16_first(n - i), v16_max(v16_load_some(x + i, n - i), max), max);
    return v16_max_lane(max);
}

/* sum of e^(x - max); the terms go to *y where it is not NULL (y may be x). */
V16_INLINE bp_real row_exp_sum(int n, const bp_real *x, bp_real max, bp_real *y)
{
    v16 sum = v16_zero(), m = v16_set(max);
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        v16 e = v16_exp(v16_sub(v16_load(x + i), m));
        sum = v16_add(sum, e);
        if (y)
            v16_store(y + i, e);
    }
    if (i < n) {
        v16 e = v16_exp(v16_sub(v16_load_some(x + i, n - i), m));
        sum = v16_add(sum, v16_select(v16_first(n - i), e, v16_zero()));
        if (y)
            v16_store_some(y + i, e, n - i);
    }
    return v16_sum(sum);
}

static void kernel_softmax(bool logarithm, int rows, int n, const bp_real *x, bp_real *y)
{
    for (int r = 0; r < rows; r++, x += n, y += n) {
        bp_real max = row_max(n, x);
        bp_real sum = row_exp_sum(n, x, max, logarithm ? NULL : y);
        v16 m = v16_set(max), log_sum = v16_log(v16_set(sum)), inverse = v16_div(v16_set(1), v16_set(sum));
        for (int i = 0; i < n; i += LANES) {
            int count = v16_count((size_t)i, (size_t)n);
            v16 v = logarithm ? v16_sub(v16_sub(v16_load_n(x + i, count), m), log_sum)
                              : v16_mul(v16_load_n(y + i, count), inverse);
            v16_store_n(y + i, v, count);
        }
    }
}

/* softmax:     dx = y (dy - <y, dy>)
 * log_softmax: dx = dy - e^y <1, dy> */
static void kernel_softmax_gradient(bool logarithm, int rows, int n, const bp_real *y, const bp_real *dy, bp_real *dx,
                                    bool accumulate)
{
    for (int r = 0; r < rows; r++, y += n, dy += n, dx += n) {
        v16 sum = v16_zero();
        for (int i = 0; i < n; i += LANES) {
            int count = v16_count((size_t)i, (size_t)n);
            v16 d = v16_load_n(dy + i, count);
            sum = v16_add(sum, logarithm ? d : v16_mul(v16_load_n(y + i, count), d));
        }
        v16 total = v16_set(v16_sum(sum));
        for (int i = 0; i < n; i += LANES) {
            int count = v16_count((size_t)i, (size_t)n);
            v16 p = v16_load_n(y + i, count), d = v16_load_n(dy + i, count);
            d = logarithm ? v16_sub(d, v16_mul(v16_exp(p), total)) : v16_mul(p, v16_sub(d, total));
            if (accumulate)
                d = v16_add(v16_load_n(dx + i, count), d);
            v16_store_n(dx + i, d, count);
        }
    }
}

/* Rows of at most LANES elements, `rows` (at most LANES) of them, turned so that column j is a vector. */
V16_INLINE void load_columns(int rows, int n, const bp_real *x, v16 column[LANES])
{
    BP_UNROLL
    for (int r = 0; r < LANES; r++)
        column[r] = r < rows ? v16_load_n(x + (size_t)r * (size_t)n, n) : v16_zero();
    v16_transpose(column);
}

V16_INLINE void store_columns(int rows, int n, v16 column[LANES], bp_real *x)
{
    v16_transpose(column);
    BP_UNROLL
    for (int r = 0; r < LANES; r++)
        if (r < rows)
            v16_store_n(x + (size_t)r * (size_t)n, column[r], n);
}

/* In each lane what v16_sum gives for its row. */
V16_INLINE v16 sum_columns(const v16 column[LANES])
{
    v16 sum[LANES / 2];
    BP_UNROLL
    for (int i = 0; i < LANES / 2; i++)
        sum[i] = v16_add(column[i], column[i + LANES / 2]);
    BP_UNROLL
    for (int i = 0; i < LANES / 4; i++)
        sum[i] = v16_add(sum[i], sum[i + LANES / 4]);
    return v16_add(v16_add(sum[0], sum[2]), v16_add(sum[1], sum[3]));
}

/* cross_entropy of at most LANES rows of at most LANES classes, a lane for each row: of three classes the lanes of a row
 * would be idle but for three. Every number comes about as in the other. Inlined where `rows` is a constant, which saves
 * a third. */
V16_INLINE void cross_entropy_columns(int rows, int n, const bp_real *x, const int32_t *label, const float *weight,
                                      bp_real scale, bp_real *loss, bp_real *dx)
{
    bp_real labels[LANES] = {0}, factors[LANES] = {0};
    v16 column[LANES], max = v16_set(-(bp_real)INFINITY), chosen = v16_zero();
    for (int r = 0; r < rows; r++) {
        labels[r] = (bp_real)label[r];
        factors[r] = weight ? scale * (bp_real)weight[r] : scale;
    }
    v16 at = v16_load(labels), factor = v16_load(factors), one = v16_set(1);
    load_columns(rows, n, x, column);
    for (int j = 0; j < n; j++) {
        max = v16_max(column[j], max);
        chosen = v16_select(v16_at_most(v16_abs(v16_sub(at, v16_set((bp_real)j))), v16_zero()), column[j], chosen);
    }
    for (int j = 0; j < n; j++)
        column[j] = v16_exp(v16_sub(column[j], max));
    v16 sum = sum_columns(column), inverse = v16_div(one, sum);
    v16_store_n(loss, v16_sub(v16_log(sum), v16_sub(chosen, max)), rows);
    if (!dx)
        return;
    for (int j = 0; j < n; j++) {
        v16m here = v16_at_most(v16_abs(v16_sub(at, v16_set((bp_real)j))), v16_zero());
        v16 p = v16_mul(column[j], inverse);
        column[j] = v16_mul(v16_select(here, v16_sub(p, one), p), factor);
    }
    store_columns(rows, n, column, dx);
}

static void cross_entropy_rows(int rows, int n, const bp_real *x, const int32_t *label, const float *weight,
                               bp_real scale, bp_real *loss, bp_real *dx)
{
    for (int r = 0; r < rows; r++, x += n) {
        bp_real max = row_max(n, x), chosen = x[label[r]];
        bp_real sum = row_exp_sum(n, x, max, dx);
        loss[r] = v16_lane0(v16_log(v16_set(sum))) - (chosen - max);
        if (!dx)
            continue;
        bp_real factor = weight ? scale * (bp_real)weight[r] : scale, inverse = 1 / sum;
        bp_real at_label = (dx[label[r]] * inverse - 1) * factor;
        for (int i = 0; i < n; i += LANES) {
            int count = v16_count((size_t)i, (size_t)n);
            v16 p = v16_mul(v16_load_n(dx + i, count), v16_set(inverse));
            v16_store_n(dx + i, v16_mul(p, v16_set(factor)), count);
        }
        dx[label[r]] = at_label;
        dx += n;
    }
}

/* loss = log sum e^(x - max) - (x[label] - max), never below 0 but for a last rounding
 * dx = scale weight (softmax - onehot) */
static void kernel_cross_entropy(int rows, int n, const bp_real *x, const int32_t *label, const float *weight,
                                 bp_real scale, bp_real *loss, bp_real *dx)
{
    if (n > LANES) {
        cross_entropy_rows(rows, n, x, label, weight, scale, loss, dx);
        return;
    }
    for (; rows >= LANES; rows -= LANES) {
        cross_entropy_columns(LANES, n, x, label, weight, scale, loss, dx);
        x += LANES * n;
        label += LANES;
        weight = weight ? weight + LANES : NULL;
        loss += LANES;
        dx = dx ? dx + LANES * n : NULL;
    }
    if (rows > 0)
        cross_entropy_columns(rows, n, x, label, weight, scale, loss, dx);
}

/* loss = mean of log(1 + e^x) - x t; dx = scale weight (sigmoid(x) - t) / n */
static void kernel_bce(int rows, int n, const bp_real *x, const bp_real *target, const float *weight, bp_real scale,
                       bp_real *loss, bp_real *dx)
{
    for (int r = 0; r < rows; r++, x += n, target += n) {
        v16 sum = v16_zero(), factor = v16_set((weight ? scale * (bp_real)weight[r] : scale) / (bp_real)n);
        for (int i = 0; i < n; i += LANES) {
            int count = v16_count((size_t)i, (size_t)n);
            v16 xi = v16_load_n(x + i, count), t = v16_load_n(target + i, count);
            v16 hinge = v16_sub(v16_max(v16_zero(), xi), v16_mul(xi, t)); /* 0 for a sure and right answer */
            v16 term = v16_add(hinge, v16_log1p_unit(v16_exp(v16_neg(v16_abs(xi)))));
            sum = v16_add(sum, v16_select(v16_first(count), term, v16_zero()));
            if (dx)
                v16_store_n(dx + i, v16_mul(factor, v16_sub(v16_sigmoid(xi), t)), count);
        }
        loss[r] = v16_sum(sum) / (bp_real)n;
        if (dx)
            dx += n;
    }
}

/* loss = mean of (x - t)^2; dx = scale weight 2 (x - t) / n */
static void kernel_mse(int rows, int n, const bp_real *x, const bp_real *target, const float *weight, bp_real scale,
                       bp_real *loss, bp_real *dx)
{
    for (int r = 0; r < rows; r++, x += n, target += n) {
        v16 sum = v16_zero(), factor = v16_set(2 * (weight ? scale * (bp_real)weight[r] : scale) / (bp_real)n);
        for (int i = 0; i < n; i += LANES) {
            int count = v16_count((size_t)i, (size_t)n);
            v16 d = v16_sub(v16_load_n(x + i, count), v16_load_n(target + i, count));
            sum = v16_fma(d, d, sum);
            if (dx)
                v16_store_n(dx + i, v16_mul(factor, d), count);
        }
        loss[r] = v16_sum(sum) / (bp_real)n;
        if (dx)
            dx += n;
    }
}
