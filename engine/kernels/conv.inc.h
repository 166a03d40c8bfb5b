/* conv.inc.h: patches of images as packed panels for the matrix product, written once on v16; included by each
 * kernels_*.c.
 *
 * The positions of a panel that lie in one row of an image are a run: their values are adjacent. A row of a panel is
 * put together from its runs, each loaded up to the last lane: what a load takes too much the next one replaces.
 * Only moves: no arithmetic.
 */

/* The positions of a panel that lie in one row. */
struct run {
    int lane;        /* the first */
    ptrdiff_t start; /* where it is in a plane */
};

static int find_runs(const struct bp_patches *p, int j, int lanes, struct run *runs)
{
    int n = 0, row = j / p->width, column = j % p->width;
    for (int lane = 0; lane < lanes; row++, column = 0) {
        runs[n++] = (struct run){lane, (ptrdiff_t)((size_t)row * p->down + (size_t)column * p->across)};
        lane += p->width - column;
    }
    return n;
}

/* A tap of the window: where it is and its number in the channel. */
struct tap {
    const bp_real *at;
    int x, y;
};

static struct tap first_tap(const struct bp_patches *p, int q)
{
    int taps = p->taps_down * p->taps_across, y = q % taps / p->taps_across, x = q % p->taps_across;
    return (struct tap){.at = p->planes + (size_t)(q / taps) * p->plane + (ptrdiff_t)y * p->step_down +
                              (ptrdiff_t)x * p->step_across,
                        .x = x,
                        .y = y};
}

V16_INLINE void next_tap(const struct bp_patches *p, struct tap *tap)
{
    tap->at += p->step_across;
    if (++tap->x < p->taps_across)
        return;
    tap->x = 0;
    tap->at += p->step_down - (ptrdiff_t)p->taps_across * p->step_across;
    if (++tap->y < p->taps_down)
        return;
    tap->y = 0;
    tap->at += (ptrdiff_t)p->plane - (ptrdiff_t)p->taps_down * p->step_down;
}

/* Rows q0 .. q0 + nq of the panel that begins at position j. */
static void pack_patches(const struct bp_patches *p, int q0, int nq, int j, int lanes, bp_real *dst)
{
    struct run runs[LANES];
    struct tap tap = first_tap(p, q0);
    int n = find_runs(p, j, lanes, runs);
    if (p->across == 1 && n == 1) {
        for (int q = 0; q < nq; q++, dst += LANES, next_tap(p, &tap))
            v16_store(dst, v16_load(tap.at + runs[0].start));
    } else if (p->across == 1 && n == 2) {
        ptrdiff_t second = runs[1].start - runs[1].lane;
        for (int q = 0; q < nq; q++, dst += LANES, next_tap(p, &tap))
            v16_store(dst, v16_load_from(v16_load(tap.at + runs[0].start), tap.at + second, runs[1].lane));
    } else if (p->across == 1) {
        for (int q = 0; q < nq; q++, dst += LANES, next_tap(p, &tap)) {
            v16 v = v16_load(tap.at + runs[0].start);
            for (int r = 1; r < n; r++)
                v = v16_load_from(v, tap.at + runs[r].start - runs[r].lane, runs[r].lane);
            v16_store(dst, v);
        }
    } else {
        ptrdiff_t start[LANES];
        for (int r = 0; r < n; r++)
            for (int l = runs[r].lane; l < (r + 1 < n ? runs[r + 1].lane : LANES); l++)
                start[l] = l < lanes ? runs[r].start + (ptrdiff_t)((size_t)(l - runs[r].lane) * p->across) : 0;
        for (int q = 0; q < nq; q++, dst += LANES, next_tap(p, &tap))
            for (int l = 0; l < LANES; l++)
                dst[l] = tap.at[start[l]];
    }
}

static void kernel_patches(const struct bp_patches *p, int q0, int nq, int j0, int nj, bp_real *dst)
{
    for (int j = 0; j < nj; j += LANES, dst += (size_t)nq * LANES)
        pack_patches(p, q0, nq, j0 + j, v16_count((size_t)j, (size_t)nj), dst);
}

static void kernel_patches_transposed(const struct bp_patches *p, int q0, int nq, int j0, int nj, bp_real *dst)
{
    bp_real rows[BP_PATCH_ROWS * LANES];
    for (int j = 0; j < nj; j += LANES) {
        int lanes = v16_count((size_t)j, (size_t)nj);
        pack_patches(p, q0, nq, j0 + j, lanes, rows);
        for (int q = 0; q < nq; q += LANES) {
            bp_real *to = dst + (size_t)q * (size_t)nj + (size_t)j * LANES;
            v16 block[LANES];
            BP_UNROLL
            for (int r = 0; r < LANES; r++)
                block[r] = q + r < nq ? v16_load(rows + (q + r) * LANES) : v16_zero();
            v16_transpose(block);
            BP_UNROLL
            for (int r = 0; r < LANES; r++)
                if (r < lanes)
                    v16_store(to + r * LANES, block[r]);
        }
    }
}

static void kernel_copy_rows(int rows, int n, const bp_real *src, size_t src_row, bp_real *dst, size_t dst_row)
{
    for (int r = 0; r < rows; r++, src += src_row, dst += dst_row)
        for (int i = 0; i < n; i += LANES) {
            int count = v16_count((size_t)i, (size_t)n);
            v16_store_n(dst + i, v16_load_n(src + i, count), count);
        }
}

/* --- depthwise: one filter a channel ------------------------------------------------------------------------------ */

/* The same chain as a matrix product of one row: fma over ascending taps from +0. */
static void kernel_depthwise(const struct bp_patches *p, int positions, const bp_real *w, const bp_real *bias,
                             bp_real *y, bool accumulate)
{
    int taps = p->taps_down * p->taps_across;
    for (int j = 0; j < positions; j += p->width) {
        for (int i = 0; i < p->width; i += LANES) {
            int count = v16_count((size_t)i, (size_t)p->width);
            struct tap tap = first_tap(p, 0);
            ptrdiff_t start = (ptrdiff_t)((size_t)(j / p->width) * p->down) + i;
            v16 sum = v16_zero();
            for (int t = 0; t < taps; t++, next_tap(p, &tap))
                sum = v16_fma(v16_set(w[t]), v16_load(tap.at + start), sum);
            if (accumulate)
                sum = v16_add(v16_load_n(y + j + i, count), sum);
            else if (bias)
                sum = v16_add(sum, v16_set(*bias));
            v16_store_n(y + j + i, sum, count);
        }
    }
}

/* dw[t] is a sum along the positions: lane i mod 16 of each row, rows ascending, then the tree. */
static void kernel_depthwise_gradient(const struct bp_patches *p, int positions, const bp_real *dy, bp_real *dw,
                                      bool accumulate)
{
    int taps = p->taps_down * p->taps_across;
    struct tap tap = first_tap(p, 0);
    for (int t = 0; t < taps; t++, next_tap(p, &tap)) {
        v16 sum = v16_zero();
        for (int j = 0; j < positions; j += p->width) {
            const bp_real *x = tap.at + (size_t)(j / p->width) * p->down;
            for (int i = 0; i < p->width; i += LANES) {
                int count = v16_count((size_t)i, (size_t)p->width);
                v16 v = count == LANES ? v16_load(x + i) : v16_load_some(x + i, count);
                sum = v16_fma(v16_load_n(dy + j + i, count), v, sum);
            }
        }
        bp_real total = v16_sum(sum);
        dw[t] = accumulate ? dw[t] + total : total;
    }
}

static void kernel_row_sum(int rows, int n, const bp_real *x, size_t row, bp_real *out, bool accumulate)
{
    for (int r = 0; r < rows; r++, x += row) {
        v16 sum = v16_zero();
        int i = 0;
        for (; i + LANES <= n; i += LANES)
            sum = v16_add(sum, v16_load(x + i));
        if (i < n)
            sum = v16_add(sum, v16_load_some(x + i, n - i));
        bp_real total = v16_sum(sum);
        out[r] = accumulate ? out[r] + total : total;
    }
}
