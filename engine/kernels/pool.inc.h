/* pool.inc.h: pooling windows over planes, plain loops that the compiler makes vectors of; included by each
 * kernels_*.c.
 *
 * A window's taps are the outer loops and the positions of a row the inner one, so that the inner loop has neither
 * bounds nor branches; each tap has the range of positions where it is inside the plane. The order of all sums is the
 * order of these loops: positions by row, then taps by row.
 */

/* Whether no tap is ever left or right of the plane: then all ranges are whole, and need no divisions. */
static bool all_inside(const struct bp_window *w)
{
    return w->left == 0 && (w->ow - 1) * w->sw + w->kw <= w->iw;
}

/* Positions lo <= i < hi for which tap k of a row is inside the plane: 0 <= i * sw - left + k < iw. */
static void tap_range(const struct bp_window *w, bool inside, int k, int *ret_lo, int *ret_hi)
{
    int stride = w->sw, before = w->left, n = w->iw, positions = w->ow;
    *ret_lo = 0;
    *ret_hi = positions;
    if (inside)
        return;
    int lo = before > k ? (before - k + stride - 1) / stride : 0;
    int hi = n + before - k > 0 ? (n + before - k - 1) / stride + 1 : 0;
    *ret_hi = hi < positions ? hi : positions;
    *ret_lo = lo < *ret_hi ? lo : *ret_hi;
}

/* The first tap that is inside for position i. */
static int first_inside(int i, int stride, int before)
{
    int start = i * stride - before;
    return start < 0 ? -start : 0;
}

/* What a tap does with the positions of a row: values `step` apart, results adjacent. The usual steps are constants
 * for the compiler. */
#define BY_STEP(step, call)                                                                                          \
    do {                                                                                                             \
        if ((step) == 1)                                                                                             \
            call(1);                                                                                                 \
        else if ((step) == 2)                                                                                        \
            call(2);                                                                                                 \
        else                                                                                                         \
            call(step);                                                                                              \
    } while (0)

V16_INLINE void larger_of(int n, const bp_real *restrict v, const int step, bp_real tap, bp_real *restrict y,
                          bp_real *restrict index)
{
    for (int i = 0; i < n; i++) {
        bp_real x = v[(ptrdiff_t)i * step], best = y[i];
        bool larger = (x > best) | ((x != x) & (best == best));
        y[i] = larger ? x : best;
        index[i] = larger ? tap : index[i];
    }
}

/* NaN wins, and the first of several NaN or equal values. */
static void take_larger(int n, const bp_real *v, int step, bp_real tap, bp_real *y, bp_real *index)
{
#define CALL(s) larger_of(n, v, s, tap, y, index)
    BY_STEP(step, CALL);
#undef CALL
}

V16_INLINE void sum_of(int n, const bp_real *restrict v, const int step, bp_real *restrict y)
{
    for (int i = 0; i < n; i++)
        y[i] += v[(ptrdiff_t)i * step];
}

static void take_sum(int n, const bp_real *v, int step, bp_real *y)
{
#define CALL(s) sum_of(n, v, s, y)
    BY_STEP(step, CALL);
#undef CALL
}

V16_INLINE void chosen_of(int n, const bp_real *restrict dy, const bp_real *restrict index, bp_real tap,
                          const int step, bp_real *restrict dx)
{
    for (int i = 0; i < n; i++)
        dx[(ptrdiff_t)i * step] += index[i] == tap ? dy[i] : 0;
}

static void give_chosen(int n, const bp_real *dy, const bp_real *index, bp_real tap, int step, bp_real *dx)
{
#define CALL(s) chosen_of(n, dy, index, tap, s, dx)
    BY_STEP(step, CALL);
#undef CALL
}

/* Two taps side by side of windows two apart: adjacent stores. */
static void give_chosen_pair(int n, const bp_real *restrict dy, const bp_real *restrict index, bp_real tap,
                             bp_real *restrict dx)
{
    for (int i = 0; i < n; i++) {
        bp_real left = index[i] == tap ? dy[i] : 0, right = index[i] == tap + 1 ? dy[i] : 0;
        dx[2 * i] += left;
        dx[2 * i + 1] += right;
    }
}

V16_INLINE void share_of(int n, const bp_real *restrict dy, bp_real count, const int step, bp_real *restrict dx)
{
    for (int i = 0; i < n; i++)
        dx[(ptrdiff_t)i * step] += dy[i] / count;
}

static void give_share(int n, const bp_real *dy, bp_real count, int step, bp_real *dx)
{
#define CALL(s) share_of(n, dy, count, s, dx)
    BY_STEP(step, CALL);
#undef CALL
}

static void kernel_max_pool(const struct bp_window *w, int planes, const bp_real *x, bp_real *y, bp_real *index)
{
    bool inside = all_inside(w);
    int lo, hi;
    for (int p = 0; p < planes; p++, x += (size_t)w->ih * (size_t)w->iw)
        for (int oy = 0; oy < w->oh; oy++, y += w->ow, index += w->ow) {
            int top = first_inside(oy, w->sh, w->top);
            for (int ox = 0; ox < w->ow; ox++) {
                y[ox] = -(bp_real)INFINITY;
                index[ox] = (bp_real)(top * w->kw + first_inside(ox, w->sw, w->left));
            }
            for (int ky = top; ky < w->kh && oy * w->sh - w->top + ky < w->ih; ky++)
                for (int kx = 0; kx < w->kw; kx++) {
                    tap_range(w, inside, kx, &lo, &hi);
                    const bp_real *from =
                        x + (ptrdiff_t)(oy * w->sh - w->top + ky) * w->iw + lo * w->sw - w->left + kx;
                    take_larger(hi - lo, from, w->sw, (bp_real)(ky * w->kw + kx), y + lo, index + lo);
                }
        }
}

static void clear_planes(const struct bp_window *w, int planes, bp_real *dx)
{
    memset(dx, 0, (size_t)planes * (size_t)w->ih * (size_t)w->iw * sizeof *dx);
}

static void kernel_max_pool_gradient(const struct bp_window *w, int planes, const bp_real *index, const bp_real *dy,
                                     bp_real *dx, bool accumulate)
{
    bool inside = all_inside(w);
    int lo, hi, lo2, hi2;
    if (!accumulate)
        clear_planes(w, planes, dx);
    for (int p = 0; p < planes; p++, dx += (size_t)w->ih * (size_t)w->iw)
        for (int oy = 0; oy < w->oh; oy++, dy += w->ow, index += w->ow)
            for (int ky = first_inside(oy, w->sh, w->top); ky < w->kh && oy * w->sh - w->top + ky < w->ih; ky++)
                for (int kx = 0; kx < w->kw; kx++) {
                    tap_range(w, inside, kx, &lo, &hi);
                    tap_range(w, inside, kx + 1, &lo2, &hi2);
                    bp_real *to = dx + (ptrdiff_t)(oy * w->sh - w->top + ky) * w->iw + lo * w->sw - w->left + kx;
                    bp_real tap = (bp_real)(ky * w->kw + kx);
                    bool pair = w->sw == 2 && kx + 1 < w->kw && lo == lo2 && hi == hi2;
                    if (pair)
                        give_chosen_pair(hi - lo, dy + lo, index + lo, tap, to);
                    else
                        give_chosen(hi - lo, dy + lo, index + lo, tap, w->sw, to);
                    kx += pair;
                }
}

static void kernel_avg_pool(const struct bp_window *w, int planes, const bp_real *x, bp_real *y)
{
    bp_real count = (bp_real)(w->kh * w->kw);
    bool inside = all_inside(w);
    int lo, hi;
    for (int p = 0; p < planes; p++, x += (size_t)w->ih * (size_t)w->iw)
        for (int oy = 0; oy < w->oh; oy++, y += w->ow) {
            for (int ox = 0; ox < w->ow; ox++)
                y[ox] = 0;
            for (int ky = first_inside(oy, w->sh, w->top); ky < w->kh && oy * w->sh - w->top + ky < w->ih; ky++)
                for (int kx = 0; kx < w->kw; kx++) {
                    tap_range(w, inside, kx, &lo, &hi);
                    const bp_real *from =
                        x + (ptrdiff_t)(oy * w->sh - w->top + ky) * w->iw + lo * w->sw - w->left + kx;
                    take_sum(hi - lo, from, w->sw, y + lo);
                }
            for (int ox = 0; ox < w->ow; ox++)
                y[ox] /= count;
        }
}

static void kernel_avg_pool_gradient(const struct bp_window *w, int planes, const bp_real *dy, bp_real *dx,
                                     bool accumulate)
{
    bp_real count = (bp_real)(w->kh * w->kw);
    bool inside = all_inside(w);
    int lo, hi;
    if (!accumulate)
        clear_planes(w, planes, dx);
    for (int p = 0; p < planes; p++, dx += (size_t)w->ih * (size_t)w->iw)
        for (int oy = 0; oy < w->oh; oy++, dy += w->ow)
            for (int ky = first_inside(oy, w->sh, w->top); ky < w->kh && oy * w->sh - w->top + ky < w->ih; ky++)
                for (int kx = 0; kx < w->kw; kx++) {
                    tap_range(w, inside, kx, &lo, &hi);
                    bp_real *to = dx + (ptrdiff_t)(oy * w->sh - w->top + ky) * w->iw + lo * w->sw - w->left + kx;
                    give_share(hi - lo, dy + lo, count, w->sw, to);
                }
}
