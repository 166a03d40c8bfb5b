/* pool.inc.h: pooling windows over planes, written once on v16; included by each kernels_*.c.
 *
 * Lanes are positions of a row of the result. Sixteen of them keep their best or their sum in registers while all
 * taps of the window pass; values two apart are loaded as two vectors of which every other lane is taken. A tap that is
 * outside the plane for some of the positions is left out of those lanes. The order of all sums: positions by row,
 * then taps by row.
 */

/* The positions of a row from `first` on, and of these the lanes lo <= l < hi for which tap k of a row is inside. */
static void inside_lanes(const struct bp_window *w, int first, int lanes, int k, int *ret_lo, int *ret_hi)
{
    int start = first * w->sw - w->left + k, room = w->iw - start;
    int lo = start < 0 ? (-start + w->sw - 1) / w->sw : 0, hi = room > 0 ? (room - 1) / w->sw + 1 : 0;
    *ret_hi = hi < lanes ? hi : lanes;
    *ret_lo = lo < *ret_hi ? lo : *ret_hi;
}

/* Whether no tap is ever left or right of the plane: the usual case, and no divisions. */
static bool all_inside(const struct bp_window *w)
{
    return w->left == 0 && (w->ow - 1) * w->sw + w->kw <= w->iw;
}

/* Adds to n values `step` apart. */
V16_INLINE void add_step(bp_real *p, const int step, v16 v, int n)
{
    bp_real lane[LANES];
    if (step == 1) {
        v16_store_n(p, v16_add(v16_load_n(p, n), v), n);
        return;
    }
    v16_store(lane, v);
    for (int l = 0; l < n; l++)
        p[(ptrdiff_t)l * step] += lane[l];
}

/* 2 n values: sets them to a0 b0 a1 b1 …, or adds these. */
V16_INLINE void give_pairs(bp_real *p, v16 a, v16 b, int n, bool add)
{
    int low = n > LANES / 2 ? LANES : 2 * n, high = 2 * n - low;
    v16 x = v16_zip_low(a, b), y = v16_zip_high(a, b);
    v16_store_n(p, add ? v16_add(v16_load_n(p, low), x) : x, low);
    if (high > 0)
        v16_store_n(p + LANES, add ? v16_add(v16_load_n(p + LANES, high), y) : y, high);
}

/* The first tap that is inside for position i. */
static int first_inside(int i, int stride, int before)
{
    int start = i * stride - before;
    return start < 0 ? -start : 0;
}

/* Of the windows of n positions from (oy, ox) on: the rows that are inside, first <= ky < end, and where tap 0 is. */
struct window_rows {
    int first, end;
    ptrdiff_t start;
    int left, right; /* taps of a row that are inside for one of the n positions at least */
};

static struct window_rows rows_at(const struct bp_window *w, int oy, int ox, int n)
{
    int top = oy * w->sh - w->top, room = w->ih - top;
    int left = w->left - (ox + n - 1) * w->sw, right = w->iw + w->left - ox * w->sw;
    return (struct window_rows){.first = first_inside(oy, w->sh, w->top),
                                .end = room < w->kh ? room : w->kh,
                                .start = (ptrdiff_t)top * w->iw + (ptrdiff_t)ox * w->sw - w->left,
                                .left = left > 0 ? left : 0,
                                .right = right < w->kw ? right : w->kw};
}

/* A tap's values of n positions; `other` in lanes where the tap is outside. */
V16_INLINE v16 tap_values(const struct bp_window *w, bool inside, const bp_real *from, const int step, int ox, int n,
                          int kx, v16 other)
{
    int lo, hi;
    if (inside)
        return load_step(from + kx, step, n);
    inside_lanes(w, ox, n, kx, &lo, &hi);
    if (lo == hi)
        return other;
    bp_real lane[LANES];
    v16_store(lane, other);
    for (int l = lo; l < hi; l++)
        lane[l] = from[kx + (ptrdiff_t)l * step];
    return v16_load(lane);
}

/* --- max ---------------------------------------------------------------------------------------------------------- */

/* NaN wins, and the first of several NaN or equal values. */
V16_INLINE void take_larger(v16 x, v16 tap, v16 *best, v16 *index)
{
    v16m keep = v16_at_most(x, *best), number = v16_at_most(*best, *best);
    v16 taken = v16_select(keep, *best, x), at = v16_select(keep, *index, tap);
    *best = v16_select(number, taken, *best);
    *index = v16_select(number, at, *index);
}

/* The first tap of each of 16 positions that is inside: the one that stays where all values are -inf. */
V16_INLINE v16 first_taps(const struct bp_window *w, bool inside, int ky, int ox)
{
    bp_real lane[LANES];
    if (inside)
        return v16_set((bp_real)(ky * w->kw));
    for (int l = 0; l < LANES; l++)
        lane[l] = (bp_real)(ky * w->kw + first_inside(ox + l, w->sw, w->left));
    return v16_load(lane);
}

V16_INLINE void max_row(const struct bp_window *w, bool inside, const int step, int oy, const bp_real *x, bp_real *y,
                        bp_real *index)
{
    const v16 lowest = v16_set(-(bp_real)INFINITY);
    for (int ox = 0; ox < w->ow; ox += LANES) {
        int n = v16_count((size_t)ox, (size_t)w->ow);
        struct window_rows rows = rows_at(w, oy, ox, n);
        v16 best = lowest, at = first_taps(w, inside, rows.first, ox);
        for (int ky = rows.first; ky < rows.end; ky++) {
            const bp_real *from = x + rows.start + (ptrdiff_t)ky * w->iw;
            int tap = ky * w->kw, kx = rows.left;
            for (; step == 2 && inside && kx + 1 < w->kw; kx += 2) { /* two taps of each position side by side */
                int low = n > LANES / 2 ? LANES : 2 * n;
                v16 a = v16_load_n(from + kx, low);
                v16 b = low < 2 * n ? v16_load_n(from + kx + LANES, 2 * n - low) : v16_zero();
                take_larger(v16_even(a, b), v16_set((bp_real)(tap + kx)), &best, &at);
                take_larger(v16_odd(a, b), v16_set((bp_real)(tap + kx + 1)), &best, &at);
            }
            for (; kx < rows.right; kx++)
                take_larger(tap_values(w, inside, from, step, ox, n, kx, lowest), v16_set((bp_real)(tap + kx)), &best,
                            &at);
        }
        v16_store_n(y + ox, best, n);
        v16_store_n(index + ox, at, n);
    }
}

/* Windows of two by two side by side: nearly all that there are, and without loops over taps three times as fast. */
static bool are_quads(const struct bp_window *w)
{
    return w->kh == 2 && w->kw == 2 && w->sh == 2 && w->sw == 2 && w->top == 0 && w->left == 0 &&
           2 * w->oh <= w->ih && 2 * w->ow <= w->iw;
}

/* How far ahead lines are fetched, in elements of the image and of the result: some rows of the usual images. */
#define SOON 256
#define SOON_POOLED (SOON / 4)

/* The left and the right values of n pairs. */
V16_INLINE void take_pairs(const bp_real *p, int n, v16 *left, v16 *right)
{
    v16 a = v16_load_n(p, n > LANES / 2 ? LANES : 2 * n);
    v16 b = n > LANES / 2 ? v16_load_n(p + LANES, 2 * n - LANES) : v16_zero();
    *left = v16_even(a, b);
    *right = v16_odd(a, b);
}

V16_INLINE void max_quads(const bp_real *x, int row, int n, bp_real *y, bp_real *index)
{
    v16 best, other, right, at = v16_zero(), other_at = v16_set(2);
    v16_store_soon(y, SOON_POOLED);
    v16_store_soon(index, SOON_POOLED);
    take_pairs(x, n, &best, &right);
    take_larger(right, v16_set(1), &best, &at);
    take_pairs(x + row, n, &other, &right);
    take_larger(right, v16_set(3), &other, &other_at);
    take_larger(other, other_at, &best, &at);
    v16_store_n(y, best, n);
    v16_store_n(index, at, n);
}

static void max_pool_quads(const struct bp_window *w, int planes, const bp_real *x, bp_real *y, bp_real *index)
{
    for (int p = 0; p < planes; p++, x += (size_t)w->ih * (size_t)w->iw)
        for (int oy = 0; oy < w->oh; oy++, y += w->ow, index += w->ow) {
            const bp_real *from = x + 2 * (size_t)oy * (size_t)w->iw;
            int ox = 0, rest = w->ow % LANES;
            for (; ox + LANES <= w->ow; ox += LANES)
                max_quads(from + 2 * ox, w->iw, LANES, y + ox, index + ox);
            if (rest > 0)
                max_quads(from + 2 * ox, w->iw, rest, y + ox, index + ox);
        }
}

static void kernel_max_pool(const struct bp_window *w, int planes, const bp_real *x, bp_real *y, bp_real *index)
{
    bool inside = all_inside(w);
    if (are_quads(w)) {
        max_pool_quads(w, planes, x, y, index);
        return;
    }
    for (int p = 0; p < planes; p++, x += (size_t)w->ih * (size_t)w->iw)
        for (int oy = 0; oy < w->oh; oy++, y += w->ow, index += w->ow)
            if (w->sw == 1)
                max_row(w, inside, 1, oy, x, y, index);
            else if (w->sw == 2)
                max_row(w, inside, 2, oy, x, y, index);
            else
                max_row(w, inside, w->sw, oy, x, y, index);
}

/* dy in the lanes whose index is the tap. */
V16_INLINE v16 chosen(v16 dy, v16 index, int tap)
{
    const bp_real half = (bp_real)0.5;
    v16 zero = v16_zero(), low = v16_set((bp_real)tap - half), high = v16_set((bp_real)tap + half);
    return v16_select(v16_less(low, index), v16_select(v16_less(index, high), dy, zero), zero);
}

/* Adds v to a tap of n positions, those for which it is inside. */
V16_INLINE void give_tap(const struct bp_window *w, bool inside, bp_real *to, const int step, int ox, int n, int kx,
                         v16 v)
{
    int lo, hi;
    bp_real lane[LANES];
    if (inside) {
        add_step(to + kx, step, v, n);
        return;
    }
    inside_lanes(w, ox, n, kx, &lo, &hi);
    v16_store(lane, v);
    for (int l = lo; l < hi; l++)
        to[kx + (ptrdiff_t)l * step] += lane[l];
}

V16_INLINE void max_row_gradient(const struct bp_window *w, bool inside, const int step, int oy, const bp_real *index,
                                 const bp_real *dy, bp_real *dx)
{
    for (int ox = 0; ox < w->ow; ox += LANES) {
        int n = v16_count((size_t)ox, (size_t)w->ow);
        struct window_rows rows = rows_at(w, oy, ox, n);
        v16 d = v16_load_n(dy + ox, n), at = v16_load_n(index + ox, n);
        for (int ky = rows.first; ky < rows.end; ky++) {
            bp_real *to = dx + rows.start + (ptrdiff_t)ky * w->iw;
            int tap = ky * w->kw, kx = rows.left;
            for (; step == 2 && inside && kx + 1 < w->kw && (ox + n - 1) * 2 + kx + 1 < w->iw; kx += 2)
                give_pairs(to + kx, chosen(d, at, tap + kx), chosen(d, at, tap + kx + 1), n, true);
            for (; kx < rows.right; kx++)
                give_tap(w, inside, to, step, ox, n, kx, chosen(d, at, tap + kx));
        }
    }
}

static void clear_planes(const struct bp_window *w, int planes, bp_real *dx)
{
    memset(dx, 0, (size_t)planes * (size_t)w->ih * (size_t)w->iw * sizeof *dx);
}

V16_INLINE void spread_quads(const bp_real *index, const bp_real *dy, int n, bp_real *dx, int row, bool add)
{
    v16 zero = v16_zero(), d = v16_load_n(dy, n), at = v16_load_n(index, n);
    v16_load_soon(index, SOON_POOLED);
    v16_load_soon(dy, SOON_POOLED);
    v16_store_soon(dx, SOON);
    v16_store_soon(dx, SOON + LANES);
    v16m left = v16_less(at, v16_set((bp_real)0.5)), top = v16_less(at, v16_set((bp_real)1.5));
    v16m third = v16_less(at, v16_set((bp_real)2.5));
    v16 upper = v16_select(top, d, zero), lower = v16_select(top, zero, d);
    give_pairs(dx, v16_select(left, upper, zero), v16_select(left, zero, upper), n, add);
    give_pairs(dx + row, v16_select(third, lower, zero), v16_select(third, zero, lower), n, add);
}

static void max_pool_gradient_quads(const struct bp_window *w, int planes, const bp_real *index, const bp_real *dy,
                                    bp_real *dx, bool add)
{
    for (int p = 0; p < planes; p++, dx += (size_t)w->ih * (size_t)w->iw)
        for (int oy = 0; oy < w->oh; oy++, dy += w->ow, index += w->ow) {
            bp_real *to = dx + 2 * (size_t)oy * (size_t)w->iw;
            int ox = 0, rest = w->ow % LANES;
            for (; ox + LANES <= w->ow; ox += LANES)
                spread_quads(index + ox, dy + ox, LANES, to + 2 * ox, w->iw, add);
            if (rest > 0)
                spread_quads(index + ox, dy + ox, rest, to + 2 * ox, w->iw, add);
        }
}

static void kernel_max_pool_gradient(const struct bp_window *w, int planes, const bp_real *index, const bp_real *dy,
                                     bp_real *dx, bool accumulate)
{
    bool inside = all_inside(w), quads = are_quads(w);
    if (!accumulate &&
        !(quads && 2 * w->oh == w->ih && 2 * w->ow == w->iw)) /* else every element is written anyway */
        clear_planes(w, planes, dx);
    if (quads) {
        max_pool_gradient_quads(w, planes, index, dy, dx, accumulate);
        return;
    }
    for (int p = 0; p < planes; p++, dx += (size_t)w->ih * (size_t)w->iw)
        for (int oy = 0; oy < w->oh; oy++, dy += w->ow, index += w->ow)
            if (w->sw == 1)
                max_row_gradient(w, inside, 1, oy, index, dy, dx);
            else if (w->sw == 2)
                max_row_gradient(w, inside, 2, oy, index, dy, dx);
            else
                max_row_gradient(w, inside, w->sw, oy, index, dy, dx);
}

/* --- average ------------------------------------------------------------------------------------------------------ */

V16_INLINE void avg_row(const struct bp_window *w, bool inside, const int step, int oy, const bp_real *x, bp_real *y)
{
    v16 count = v16_set((bp_real)(w->kh * w->kw)), zero = v16_zero();
    for (int ox = 0; ox < w->ow; ox += LANES) {
        int n = v16_count((size_t)ox, (size_t)w->ow);
        struct window_rows rows = rows_at(w, oy, ox, n);
        v16 sum = zero;
        for (int ky = rows.first; ky < rows.end; ky++)
            for (int kx = rows.left; kx < rows.right; kx++)
                sum = v16_add(sum,
                              tap_values(w, inside, x + rows.start + (ptrdiff_t)ky * w->iw, step, ox, n, kx, zero));
        v16_store_n(y + ox, v16_div(sum, count), n);
    }
}

static void kernel_avg_pool(const struct bp_window *w, int planes, const bp_real *x, bp_real *y)
{
    bool inside = all_inside(w);
    for (int p = 0; p < planes; p++, x += (size_t)w->ih * (size_t)w->iw)
        for (int oy = 0; oy < w->oh; oy++, y += w->ow)
            if (w->sw == 1)
                avg_row(w, inside, 1, oy, x, y);
            else if (w->sw == 2)
                avg_row(w, inside, 2, oy, x, y);
            else
                avg_row(w, inside, w->sw, oy, x, y);
}

static void kernel_avg_pool_gradient(const struct bp_window *w, int planes, const bp_real *dy, bp_real *dx,
                                     bool accumulate)
{
    bool inside = all_inside(w);
    v16 count = v16_set((bp_real)(w->kh * w->kw));
    if (!accumulate)
        clear_planes(w, planes, dx);
    for (int p = 0; p < planes; p++, dx += (size_t)w->ih * (size_t)w->iw)
        for (int oy = 0; oy < w->oh; oy++, dy += w->ow)
            for (int ox = 0; ox < w->ow; ox += LANES) {
                int n = v16_count((size_t)ox, (size_t)w->ow);
                struct window_rows rows = rows_at(w, oy, ox, n);
                v16 share = v16_div(v16_load_n(dy + ox, n), count);
                for (int ky = rows.first; ky < rows.end; ky++)
                    for (int kx = rows.left; kx < rows.right; kx++)
                        give_tap(w, inside, dx + rows.start + (ptrdiff_t)ky * w->iw, w->sw, ox, n, kx, share);
            }
}
