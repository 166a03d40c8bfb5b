/* norm.inc.h: the arithmetic of normalization, written once on v16; included by each kernels_*.c.
 *
 * Over the batch (struct bp_channels): the block is either columns, a channel each, or the plane of one channel. Sums
 * over columns are one chain a column, rows ascending; sums over a plane run in 16 lanes (position p of each row in
 * lane p mod 16, rows ascending) and end in the fixed tree. Over the row (struct bp_row_norm): 16 lanes and the tree.
 * A variance is the mean square about the mean in a second pass: the numbers are in the cache, and one pass would
 * cancel.
 */

enum { NORM_GROUP = 4 }; /* vectors of columns whose chains overlap */

/* A coefficient for elements j .. j + count of a row. */
V16_INLINE v16 of_channel(const bp_real *p, int j, int count, const bool plane)
{
    return plane ? v16_set(p[0]) : v16_load_n(p + j, count);
}

V16_INLINE void put_sum(bp_real *out, v16 sum, int count, bool accumulate)
{
    v16_store_n(out, accumulate ? v16_add(v16_load_n(out, count), sum) : sum, count);
}

V16_INLINE void put_total(bp_real *out, v16 sum, bool accumulate)
{
    bp_real total = v16_sum(sum);
    *out = accumulate ? *out + total : total;
}

/* --- over the batch ----------------------------------------------------------------------------------------------- */

/* sum + x, or sum + (x - mean)^2 */
V16_INLINE v16 moment_term(v16 sum, v16 x, v16 mean, const bool second)
{
    v16 d = v16_sub(x, mean);
    return second ? v16_fma(d, d, sum) : v16_add(sum, x);
}

V16_INLINE void column_moment(const struct bp_channels *b, const bp_real *x, const bp_real *mean, bp_real *out,
                              bool accumulate, const bool second)
{
    int j = 0;
    for (; j + NORM_GROUP * LANES <= b->n; j += NORM_GROUP * LANES) {
        v16 sum[NORM_GROUP], m[NORM_GROUP];
        for (int q = 0; q < NORM_GROUP; q++) {
            sum[q] = v16_zero();
            m[q] = second ? v16_load(mean + j + q * LANES) : v16_zero();
        }
        for (size_t r = 0; r < b->rows; r++)
            BP_UNROLL
        for (int q = 0; q < NORM_GROUP; q++)
            sum[q] = moment_term(sum[q], v16_load(x + r * b->row + j + q * LANES), m[q], second);
        for (int q = 0; q < NORM_GROUP; q++)
            put_sum(out + j + q * LANES, sum[q], LANES, accumulate);
    }
    for (; j < b->n; j += LANES) {
        int count = v16_count((size_t)j, (size_t)b->n);
        v16 sum = v16_zero(), m = second ? v16_load_n(mean + j, count) : v16_zero();
        for (size_t r = 0; r < b->rows; r++)
            sum = moment_term(sum, v16_load_n(x + r * b->row + j, count), m, second);
        put_sum(out + j, sum, count, accumulate);
    }
}

V16_INLINE void plane_moment(const struct bp_channels *b, const bp_real *x, const bp_real *mean, bp_real *out,
                             bool accumulate, const bool second)
{
    v16 sum = v16_zero(), m = second ? v16_set(*mean) : v16_zero();
    for (size_t r = 0; r < b->rows; r++, x += b->row) {
        int j = 0;
        for (; j + LANES <= b->n; j += LANES)
            sum = moment_term(sum, v16_load(x + j), m, second);
        if (j < b->n)
            sum = v16_select(v16_first(b->n - j), moment_term(sum, v16_load_some(x + j, b->n - j), m, second), sum);
    }
    put_total(out, sum, accumulate);
}

static void kernel_channel_moment(const struct bp_channels *b, const bp_real *x, const bp_real *mean, bp_real *out,
                                  bool accumulate)
{
    if (b->plane && mean)
        plane_moment(b, x, mean, out, accumulate, true);
    else if (b->plane)
        plane_moment(b, x, NULL, out, accumulate, false);
    else if (mean)
        column_moment(b, x, mean, out, accumulate, true);
    else
        column_moment(b, x, NULL, out, accumulate, false);
}

V16_INLINE void channel_apply(const struct bp_channels *b, const bp_real *x, const bp_real *mean,
                              const bp_real *scale, const bp_real *shift, bp_real *y, const bool plane)
{
    for (size_t r = 0; r < b->rows; r++, x += b->row, y += b->row)
        for (int j = 0; j < b->n; j += LANES) {
            int count = v16_count((size_t)j, (size_t)b->n);
            v16 d = v16_sub(v16_load_n(x + j, count), of_channel(mean, j, count, plane));
            v16 s = of_channel(scale, j, count, plane);
            v16_store_n(y + j, shift ? v16_fma(d, s, of_channel(shift, j, count, plane)) : v16_mul(d, s), count);
        }
}

static void kernel_channel_apply(const struct bp_channels *b, const bp_real *x, const bp_real *mean,
                                 const bp_real *scale, const bp_real *shift, bp_real *y)
{
    if (b->plane)
        channel_apply(b, x, mean, scale, shift, y, true);
    else
        channel_apply(b, x, mean, scale, shift, y, false);
}

static void kernel_channel_products(const struct bp_channels *b, const bp_real *x, const bp_real *dy,
                                    const bp_real *mean, bp_real *sum, bp_real *product, bool accumulate)
{
    if (b->plane) {
        v16 s = v16_zero(), p = v16_zero(), m = v16_set(*mean);
        for (size_t r = 0; r < b->rows; r++, x += b->row, dy += b->row)
            for (int j = 0; j < b->n; j += LANES) {
                int count = v16_count((size_t)j, (size_t)b->n);
                v16 d = v16_load_n(dy + j, count);
                s = v16_add(s, d);
                p = v16_fma(d, v16_sub(v16_load_n(x + j, count), m), p); /* past the end d is 0 */
            }
        put_total(sum, s, accumulate);
        put_total(product, p, accumulate);
        return;
    }
    for (int j = 0; j < b->n; j += LANES) {
        int count = v16_count((size_t)j, (size_t)b->n);
        v16 s = v16_zero(), p = v16_zero(), m = v16_load_n(mean + j, count);
        for (size_t r = 0; r < b->rows; r++) {
            v16 d = v16_load_n(dy + r * b->row + j, count);
            s = v16_add(s, d);
            p = v16_fma(d, v16_sub(v16_load_n(x + r * b->row + j, count), m), p);
        }
        put_sum(sum + j, s, count, accumulate);
        put_sum(product + j, p, count, accumulate);
    }
}

V16_INLINE void channel_gradient(const struct bp_channels *b, const struct bp_channel_slope *c, const bp_real *x,
                                 const bp_real *dy, bp_real *dx, bool accumulate, const bool plane)
{
    for (size_t r = 0; r < b->rows; r++, dy += b->row, dx += b->row)
        for (int j = 0; j < b->n; j += LANES) {
            int count = v16_count((size_t)j, (size_t)b->n);
            v16 v = v16_load_n(dy + j, count), scale = of_channel(c->scale, j, count, plane);
            if (x) {
                v16 d = v16_sub(v16_load_n(x + r * b->row + j, count), of_channel(c->mean, j, count, plane));
                v = v16_add(v, of_channel(c->offset, j, count, plane));
                v = v16_fma(d, of_channel(c->slope, j, count, plane), v);
            }
            v = v16_mul(v, scale);
            if (accumulate)
                v = v16_add(v16_load_n(dx + j, count), v);
            v16_store_n(dx + j, v, count);
        }
}

static void kernel_channel_gradient(const struct bp_channels *b, const struct bp_channel_slope *c, const bp_real *x,
                                    const bp_real *dy, bp_real *dx, bool accumulate)
{
    if (b->plane)
        channel_gradient(b, c, x, dy, dx, accumulate, true);
    else
        channel_gradient(b, c, x, dy, dx, accumulate, false);
}

/* --- over the row ------------------------------------------------------------------------------------------------- */

/* sum of x, or of (x - mean)^2, over n elements */
V16_INLINE bp_real row_moment(size_t n, const bp_real *x, bp_real mean, const bool second)
{
    v16 sum = v16_zero(), m = v16_set(mean);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        sum = moment_term(sum, v16_load(x + i), m, second);
    if (i < n) {
        int left = (int)(n - i);
        sum = v16_select(v16_first(left), moment_term(sum, v16_load_some(x + i, left), m, second), sum);
    }
    return v16_sum(sum);
}

/* A row is `runs` runs of `length` elements that share a factor each; or, without spatial extent, one run whose
 * elements have a factor each. */
struct row_runs {
    int runs, length;
    bool each;
};

V16_INLINE struct row_runs runs_of(const struct bp_row_norm *c)
{
    bool each = c->spatial == 1;
    return (struct row_runs){each ? 1 : c->channels, each ? c->channels : c->spatial, each};
}

V16_INLINE v16 factor(const bp_real *p, const struct row_runs *runs, int run, int j, int count, v16 none)
{
    return !p ? none : runs->each ? v16_load_n(p + j, count) : v16_set(p[run]);
}

static void kernel_row_norm(const struct bp_row_norm *c)
{
    struct row_runs runs = runs_of(c);
    size_t n = (size_t)c->channels * (size_t)c->spatial;
    const bp_real *x = c->x;
    bp_real *y = c->y;
    for (size_t r = 0; r < c->rows; r++) {
        size_t first = r % (size_t)c->groups * (size_t)c->channels;
        const bp_real *gamma = c->gamma ? c->gamma + first : NULL, *beta = c->beta ? c->beta + first : NULL;
        bp_real mean = row_moment(n, x, 0, false) / (bp_real)n;
        v16 variance = v16_set(row_moment(n, x, mean, true) / (bp_real)n);
        v16 inverse = v16_div(v16_set(1), v16_sqrt(v16_add(variance, v16_set(c->eps)))), m = v16_set(mean);
        c->moments[2 * r] = mean;
        c->moments[2 * r + 1] = v16_lane0(inverse);
        for (int run = 0; run < runs.runs; run++, x += runs.length, y += runs.length)
            for (int j = 0; j < runs.length; j += LANES) {
                int count = v16_count((size_t)j, (size_t)runs.length);
                v16 v = v16_mul(v16_sub(v16_load_n(x + j, count), m), inverse);
                v = v16_fma(v, factor(gamma, &runs, run, j, count, v16_set(1)),
                            factor(beta, &runs, run, j, count, v16_zero()));
                v16_store_n(y + j, v, count);
            }
    }
}

/* With g = dy gamma and h = (x - mean) / deviation: dx = (g - mean(g) - h mean(g h)) / deviation */
static void kernel_row_norm_gradient(const struct bp_row_norm *c)
{
    struct row_runs runs = runs_of(c);
    size_t n = (size_t)c->channels * (size_t)c->spatial;
    for (size_t r = 0; r < c->rows; r++) {
        const bp_real *x = c->x + r * n, *dy = c->dy + r * n;
        size_t first = r % (size_t)c->groups * (size_t)c->channels;
        const bp_real *gamma = c->gamma ? c->gamma + first : NULL;
        v16 m = v16_set(c->moments[2 * r]), inverse = v16_set(c->moments[2 * r + 1]), one = v16_set(1);
        v16 sum = v16_zero(), product = v16_zero();
        for (int run = 0; run < runs.runs; run++, x += runs.length, dy += runs.length)
            for (int j = 0; j < runs.length; j += LANES) {
                int count = v16_count((size_t)j, (size_t)runs.length);
                v16 g = v16_mul(v16_load_n(dy + j, count), factor(gamma, &runs, run, j, count, one));
                sum = v16_add(sum, g);
                product = v16_fma(g, v16_mul(v16_sub(v16_load_n(x + j, count), m), inverse), product);
            }
        v16 mean_g = v16_set(v16_sum(sum) / (bp_real)n), mean_gh = v16_set(v16_sum(product) / (bp_real)n);
        bp_real *dx = c->dx + r * n;
        x = c->x + r * n;
        dy = c->dy + r * n;
        for (int run = 0; run < runs.runs; run++, x += runs.length, dy += runs.length, dx += runs.length)
            for (int j = 0; j < runs.length; j += LANES) {
                int count = v16_count((size_t)j, (size_t)runs.length);
                v16 g = v16_mul(v16_load_n(dy + j, count), factor(gamma, &runs, run, j, count, one));
                v16 h = v16_mul(v16_sub(v16_load_n(x + j, count), m), inverse);
                v16 v = v16_mul(inverse, v16_fma(v16_neg(h), mean_gh, v16_sub(g, mean_g)));
                if (c->accumulate)
                    v = v16_add(v16_load_n(dx + j, count), v);
                v16_store_n(dx + j, v, count);
            }
    }
}

static void kernel_row_norm_products(const struct bp_channels *b, const bp_real *x, const bp_real *dy,
                                     const bp_real *moments, size_t moments_row, bp_real *sum, bp_real *product,
                                     bool accumulate)
{
    if (b->plane) {
        v16 s = v16_zero(), p = v16_zero();
        for (size_t r = 0; r < b->rows; r++, x += b->row, dy += b->row, moments += moments_row) {
            v16 m = v16_set(moments[0]), inverse = v16_set(moments[1]);
            for (int j = 0; j < b->n; j += LANES) {
                int count = v16_count((size_t)j, (size_t)b->n);
                v16 d = v16_load_n(dy + j, count);
                s = v16_add(s, d);
                p = v16_fma(d, v16_mul(v16_sub(v16_load_n(x + j, count), m), inverse), p); /* d is 0 past the end */
            }
        }
        put_total(sum, s, accumulate);
        put_total(product, p, accumulate);
        return;
    }
    for (int j = 0; j < b->n; j += LANES) {
        int count = v16_count((size_t)j, (size_t)b->n);
        v16 s = v16_zero(), p = v16_zero();
        for (size_t r = 0; r < b->rows; r++) {
            const bp_real *of = moments + r * moments_row;
            v16 d = v16_load_n(dy + r * b->row + j, count);
            v16 h = v16_mul(v16_sub(v16_load_n(x + r * b->row + j, count), v16_set(of[0])), v16_set(of[1]));
            s = v16_add(s, d);
            p = v16_fma(d, h, p);
        }
        put_sum(sum + j, s, count, accumulate);
        put_sum(product + j, p, count, accumulate);
    }
}

/* --- products ------------------------------------------------------------------------------------------------------ */

static void kernel_multiply(size_t n, const bp_real *a, const bp_real *b, bp_real *y, bool accumulate)
{
    for (size_t i = 0; i < n; i += LANES) {
        int count = v16_count(i, n);
        v16 v = v16_mul(v16_load_n(a + i, count), v16_load_n(b + i, count));
        v16_store_n(y + i, accumulate ? v16_add(v16_load_n(y + i, count), v) : v, count);
    }
}
