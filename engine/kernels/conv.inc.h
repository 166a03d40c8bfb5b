/* conv.inc.h: products with patches of images, written once on v16; included by each kernels_*.c after gemm.inc.h.
 *
 * Patches are packed into panels for the matrix product, or they are read where they lie.
 *
 * Packing. The positions of a panel that lie in one row of an image are a run: their values are adjacent. A row of a panel is
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

static void kernel_copy_rows(int rows, int n, const bp_real *src, size_t src_row, bp_real *dst, size_t dst_row)
{
    for (int r = 0; r < rows; r++, src += src_row, dst += dst_row)
        for (int i = 0; i < n; i += LANES) {
            int count = v16_count((size_t)i, (size_t)n);
            v16_store_n(dst + i, v16_load_n(src + i, count), count);
        }
}

/* --- depthwise: one filter a channel ------------------------------------------------------------------------------ */

/* n values `step` apart. */
V16_INLINE v16 load_step(const bp_real *p, const int step, int n)
{
    bp_real lane[LANES] = {0};
    if (step == 1)
        return v16_load_n(p, n);
    if (step == 2) { /* 2 n - 1 elements */
        v16 a = v16_load_n(p, n > LANES / 2 ? LANES : 2 * n - 1);
        return v16_even(a, n > LANES / 2 ? v16_load_some(p + LANES, 2 * n - 1 - LANES) : v16_zero());
    }
    for (int l = 0; l < n; l++)
        lane[l] = p[(ptrdiff_t)l * step];
    return v16_load(lane);
}

/* The same chain as a matrix product of one row: fma over ascending taps from +0. */
V16_INLINE void depthwise_rows(const struct bp_patches *p, const int step, int positions, const bp_real *w,
                               const bp_real *bias, bp_real *y, bool accumulate)
{
    int taps = p->taps_down * p->taps_across;
    for (int j = 0; j < positions; j += p->width) {
        for (int i = 0; i < p->width; i += LANES) {
            int count = v16_count((size_t)i, (size_t)p->width);
            struct tap tap = first_tap(p, 0);
            ptrdiff_t start = (ptrdiff_t)((size_t)(j / p->width) * p->down) + (ptrdiff_t)i * step;
            v16 sum = v16_zero();
            for (int t = 0; t < taps; t++, next_tap(p, &tap)) {
                v16 x = step == 1 ? v16_load(tap.at + start) : load_step(tap.at + start, step, count);
                sum = v16_fma(v16_set(w[t]), x, sum);
            }
            if (accumulate)
                sum = v16_add(v16_load_n(y + j + i, count), sum);
            else if (bias)
                sum = v16_add(sum, v16_set(*bias));
            v16_store_n(y + j + i, sum, count);
        }
    }
}

static void kernel_depthwise(const struct bp_patches *p, int positions, const bp_real *w, const bp_real *bias,
                             bp_real *y, bool accumulate)
{
    if (p->across == 1)
        depthwise_rows(p, 1, positions, w, bias, y, accumulate);
    else if (p->across == 2)
        depthwise_rows(p, 2, positions, w, bias, y, accumulate);
    else
        depthwise_rows(p, (int)p->across, positions, w, bias, y, accumulate);
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

/* --- products whose A are patches --------------------------------------------------------------------------------- */

/* Steps of a tile between fetches of what is wanted soon: the core has buffers for a few dozen lines on their way. */
#define FETCH_STEPS 8

/* What is still to be fetched, `lines` at a time, before each `steps` steps of a tile. */
struct soon {
    struct bp_soon now, next;
    int lines, steps;
};

static struct soon soon_of(const struct bp_patch_gemm *g)
{
    size_t lines = (g->soon[0].n + g->soon[1].n) / BP_PANEL;
    size_t tiles = (size_t)((g->m + TILE_ROWS - 1) / TILE_ROWS) * (size_t)((g->n - 1) / (BP_PANEL * TILE_PANELS) + 1);
    size_t times = tiles * (size_t)((g->k - 1) / FETCH_STEPS + 1);
    return (struct soon){g->soon[0], g->soon[1], (int)((lines + times - 1) / times), lines > 0 ? FETCH_STEPS : g->k};
}

V16_INLINE void fetch_soon(struct soon *s)
{
    for (int i = 0; i < s->lines; i++) {
        if (s->now.n < BP_PANEL) {
            s->now = s->next;
            s->next.n = 0;
        }
        if (s->now.n < BP_PANEL)
            return;
        __builtin_prefetch(s->now.at, 0, 2); /* into the second-level cache */
        s->now.at += BP_PANEL;
        s->now.n -= BP_PANEL;
    }
}

/* As tile() of gemm.inc.h; each row of A has a pointer of its own, and one table says how far all of them move. */
V16_INLINE void patch_tile(const int rows, const int panels, const struct bp_patch_gemm *g, struct soon *soon, int i,
                           int j)
{
    const int32_t *col = g->col, *last = col + g->k;
    const size_t panel = (size_t)g->k * BP_PANEL;
    const bp_real *a[TILE_ROWS], *b = g->b + (size_t)j * (size_t)g->k;
    v16 sum[TILE_ROWS][TILE_PANELS];
    BP_UNROLL
    for (int r = 0; r < rows; r++) {
        a[r] = g->a + g->row[i + r];
        BP_UNROLL
        for (int q = 0; q < panels; q++)
            sum[r][q] = v16_zero();
    }

    while (col < last) {
        const int32_t *end = last - col < soon->steps ? last : col + soon->steps;
        fetch_soon(soon);
        for (; col < end; col++, b += BP_PANEL) {
            const ptrdiff_t at = *col;
            v16 row[TILE_PANELS];
            BP_UNROLL
            for (int q = 0; q < panels; q++)
                row[q] = v16_load(b + (size_t)q * panel);
            BP_UNROLL
            for (int r = 0; r < rows; r++) {
                v16 x = v16_set(a[r][at]);
                BP_UNROLL
                for (int q = 0; q < panels; q++)
                    sum[r][q] = v16_fma(x, row[q], sum[r][q]);
            }
        }
    }

    bp_real *c = g->c + (size_t)i * g->c_row + j;
    BP_UNROLL
    for (int r = 0; r < rows; r++, c += g->c_row)
        BP_UNROLL
    for (int q = 0; q < panels; q++) {
        bp_real *to = c + q * BP_PANEL;
        v16_store(to, g->accumulate ? v16_add(v16_load(to), sum[r][q]) : sum[r][q]);
    }
}

#define PATCH_CASE(rows)                                                                                             \
    case rows:                                                                                                       \
        patch_tile(rows, panels, g, soon, i, j);                                                                     \
        break;

V16_INLINE void patch_stripe(const int panels, const struct bp_patch_gemm *g, struct soon *soon, int j)
{
    int blocks = (g->m + TILE_ROWS - 1) / TILE_ROWS;
    for (int block = 0, i = 0; block < blocks; block++) {
        int rows = g->m / blocks + (block < g->m % blocks);
        switch (rows) {
            PATCH_CASE(1)
            PATCH_CASE(2)
#if TILE_ROWS >= 6
            PATCH_CASE(3)
            PATCH_CASE(4)
            PATCH_CASE(5)
            PATCH_CASE(6)
#endif
#if TILE_ROWS >= 12
            PATCH_CASE(7)
            PATCH_CASE(8)
            PATCH_CASE(9)
            PATCH_CASE(10)
            PATCH_CASE(11)
            PATCH_CASE(12)
#endif
        }
        i += rows;
    }
}

static void kernel_patch_gemm(const struct bp_patch_gemm *g)
{
    struct soon soon = soon_of(g);
    int j = 0;
#if TILE_PANELS == 2
    for (; g->n - j > BP_PANEL; j += 2 * BP_PANEL)
        patch_stripe(2, g, &soon, j);
#endif
    for (; j < g->n; j += BP_PANEL)
        patch_stripe(1, g, &soon, j);
}

static void kernel_turn(int m, int n, const bp_real *c, size_t c_row, const bp_real *bias, bp_real *y, size_t y_row,
                        bool accumulate)
{
    for (int j = 0; j < n; j += LANES) {
        int columns = v16_count((size_t)j, (size_t)n);
        v16 shift = bias ? v16_load_n(bias + j, columns) : v16_zero();
        for (int i = 0; i < m; i += LANES) {
            const bp_real *from = c + (size_t)i * c_row + j;
            bp_real *to = y + (size_t)j * y_row + i;
            int rows = v16_count((size_t)i, (size_t)m);
            v16 block[LANES];
            BP_UNROLL
            for (int r = 0; r < LANES; r++) {
                block[r] = r < rows ? v16_load(from + (size_t)r * c_row) : v16_zero();
                if (bias)
                    block[r] = v16_add(block[r], shift);
            }
            v16_transpose(block);
            BP_UNROLL
            for (int r = 0; r < LANES; r++, to += y_row)
                if (r < columns)
                    v16_store_n(to, accumulate ? v16_add(v16_load_n(to, rows), block[r]) : block[r], rows);
        }
    }
}
