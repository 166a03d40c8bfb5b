/* gemm.inc.h: packing and the matrix product, written once on v16; included by each kernels_*.c.
 *
 * The includer defines the register tile: TILE_ROWS rows of A by TILE_PANELS (1 or 2) panels of B. A tile keeps all
 * of its C in registers over the whole of k, so that each element is one unbroken chain of fma; per step of k it
 * loads a row of each panel and broadcasts TILE_ROWS elements of A. Row blocks of m are made as even as possible
 * (64 rows are 11 + 11 + 11 + 11 + 10 + 10, not five times 12 and a 4), because a low tile cannot keep the units
 * busy; how the rows are cut does not touch the bits.
 *
 * The panels of a tile stay in the cache while all row blocks pass over them.
 */
#ifdef BP_V16_GENERIC
#define BP_UNROLL /* arrays of arrays stay loops: unrolled they cost the compiler minutes under sanitizers */
#elif defined(__clang__)
#define BP_UNROLL _Pragma("clang loop unroll(full)")
#else
#define BP_UNROLL _Pragma("GCC unroll 16")
#endif

/* Where `past` is set panels are written past the caches. */
V16_INLINE void put(const bool past, bp_real *to, v16 row)
{
    if (past)
        v16_stream(to, row);
    else
        v16_store(to, row);
}

/* The panel of a B whose columns are contiguous, column j at from + j * col: in blocks of 16 x 16. */
V16_INLINE void pack_transposed(const bool past, bp_real *dst, const bp_real *from, int k, int columns, size_t col)
{
    for (int p = 0; p < k; p += BP_PANEL) {
        int rows = v16_count((size_t)p, (size_t)k);
        v16 block[BP_PANEL];
        BP_UNROLL
        for (int j = 0; j < BP_PANEL; j++)
            block[j] = j < columns ? v16_load_n(from + (size_t)j * col + p, rows) : v16_zero();
        v16_transpose(block);
        BP_UNROLL
        for (int r = 0; r < BP_PANEL; r++)
            if (r < rows)
                put(past, dst + ((size_t)p + (size_t)r) * BP_PANEL, block[r]);
    }
}

V16_INLINE void pack(const bool past, bp_real *dst, const bp_real *src, int k, int n, size_t row, size_t col)
{
    for (int j = 0; j < n; j += BP_PANEL) {
        int columns = v16_count((size_t)j, (size_t)n);
        const bp_real *from = src + (size_t)j * col;
        if (col == 1) {
            for (int p = 0; p < k; p++)
                put(past, dst + (size_t)p * BP_PANEL, v16_load_n(from + (size_t)p * row, columns));
        } else {
            pack_transposed(past, dst, from, k, columns, col);
        }
        dst += (size_t)k * BP_PANEL;
    }
}

static void kernel_pack(bp_real *dst, const bp_real *src, int k, int n, size_t row, size_t col)
{
    pack(false, dst, src, k, n, row, col);
}

static void kernel_pack_past(bp_real *dst, const bp_real *src, int k, int n, size_t row, size_t col)
{
    pack(true, dst, src, k, n, row, col);
}

static void kernel_pack_end(void)
{
    v16_stream_end();
}

/* Row i of what is wanted soon, above one group of panels. */
V16_INLINE void fetch(const struct bp_ahead *ahead, int i, int j, const int panels)
{
    for (int m = 0; m < ahead->count; m++) {
        const bp_real *at = ahead->at[m] + (size_t)i * ahead->row + j;
        BP_UNROLL
        for (int q = 0; q < panels; q++)
            __builtin_prefetch(at + q * BP_PANEL, 1);
    }
}

/* The epilogue that is worth a place in each tile: the others take longer than a store and a load. */
V16_INLINE bool is_relu(const struct bp_gemm *g)
{
    return g->epilogue.kind == BP_RELU && (g->epilogue.gradient || g->epilogue.y == g->c);
}

/* The others, on a tile that has just been stored. */
static __attribute__((noinline)) void end_tile(const struct bp_gemm *g, int i, int rows, int j, int columns)
{
    const struct bp_epilogue *e = &g->epilogue;
    size_t at = (size_t)i * g->c_row + (size_t)j, n = (size_t)columns;
    if (n == g->c_row) { /* whole rows: one run */
        n *= (size_t)rows;
        rows = 1;
    }
    for (int r = 0; r < rows; r++, at += g->c_row) {
        bp_real *c = g->c + at;
        if (e->gradient)
            kernel_activation_gradient(e->kind, e->alpha, n, e->x ? e->x + at : NULL, e->y ? e->y + at : NULL, c, c,
                                       false);
        else
            kernel_activation(e->kind, e->alpha, n, c, e->y + at);
    }
}

/* Does it to row r of panel q of a tile, where an element is at `at` in C and its like. */
#define EACH(statement)                                                                                              \
    do {                                                                                                             \
        BP_UNROLL                                                                                                    \
        for (int q = 0; q < panels; q++) {                                                                           \
            const int n = q == panels - 1 ? columns : BP_PANEL;                                                      \
            (void)n; /* not all ask */                                                                               \
            size_t at = first + (size_t)q * BP_PANEL;                                                                \
            BP_UNROLL                                                                                                \
            for (int r = 0; r < rows; r++, at += g->c_row)                                                           \
                statement;                                                                                           \
        }                                                                                                            \
    } while (0)

/* The last steps of a tile: each is a pass over the registers of its own, so that nothing is asked once an element. */
V16_INLINE void finish(const int rows, const int panels, const struct bp_gemm *g, int i, int j, int columns,
                       v16 sum[][TILE_PANELS])
{
    const struct bp_epilogue *e = &g->epilogue;
    const size_t first = (size_t)i * g->c_row + (size_t)j;
    if (g->accumulate)
        EACH(sum[r][q] = v16_add(v16_load_n(g->c + at, n), sum[r][q]));
    else if (g->bias)
        EACH(sum[r][q] = v16_add(sum[r][q], v16_load_n(g->bias + j + q * BP_PANEL, n)));
    else if (g->row_bias)
        EACH(sum[r][q] = v16_add(sum[r][q], v16_set(g->row_bias[i + r])));
    if (is_relu(g) && e->gradient)
        EACH(sum[r][q] = relu_slope(v16_zero(), v16_load_n(e->y + at, n), sum[r][q], v16_zero()));
    else if (is_relu(g))
        EACH(sum[r][q] = relu_value(sum[r][q], v16_zero()));
    EACH(v16_store_n(g->c + at, sum[r][q], n));
    if (e->kind != BP_LINEAR && !is_relu(g))
        end_tile(g, i, rows, j, columns + (panels - 1) * BP_PANEL);
}

/* C for `rows` rows and `panels` panels, of which the last has `columns` columns in use. `rows`, `panels` and `packed`
 * (whether B is) are constants wherever this is called. */
V16_INLINE void tile(const int rows, const int panels, const bool packed, const struct bp_gemm *g, int i, int j,
                     int columns)
{
    const size_t k = (size_t)g->k, step = g->a_col, stride = g->a_row;
    /* Fetching is spread over k, a row at a time: the core has buffers for a few dozen lines on their way. */
    const size_t part = g->ahead ? (k + rows - 1) / rows : k;
    const size_t b_row = packed ? BP_PANEL : g->b_row, b_panel = packed ? k * BP_PANEL : BP_PANEL;
    /* One pointer for three rows: the others are within reach of an address with a scaled index. */
    const bp_real *a[(TILE_ROWS + 2) / 3];
    const bp_real *b = g->b + (size_t)(j / BP_PANEL) * b_panel;
    v16 sum[TILE_ROWS][TILE_PANELS];
    BP_UNROLL
    for (int r = 0; r < rows; r += 3)
        a[r / 3] = g->a + (size_t)(i + r) * stride;
    BP_UNROLL
    for (int r = 0; r < rows; r++)
        BP_UNROLL
    for (int q = 0; q < panels; q++)
        sum[r][q] = v16_zero();

    for (size_t p = 0, end = part; p < k; end = k - p < part ? k : p + part) {
        if (g->ahead)
            fetch(g->ahead, i + (int)(p / part), j, panels);
        for (; p < end; p++) {
            v16 row[TILE_PANELS];
            BP_UNROLL
            for (int q = 0; q < panels; q++)
                row[q] = v16_load(b + (size_t)q * b_panel);
            BP_UNROLL
            for (int r = 0; r < rows; r++) {
                v16 x = v16_set(a[r / 3][(size_t)(r % 3) * stride]);
                BP_UNROLL
                for (int q = 0; q < panels; q++)
                    sum[r][q] = v16_fma(x, row[q], sum[r][q]);
            }
            b += b_row;
            BP_UNROLL
            for (int r = 0; r < rows; r += 3)
                a[r / 3] += step;
        }
    }

    finish(rows, panels, g, i, j, columns, sum);
}

#define TILE_CASE(rows)                                                                                              \
    case rows:                                                                                                       \
        tile(rows, panels, packed, g, i, j, columns);                                                                \
        break;

/* All row blocks over one group of panels. */
V16_INLINE void stripe(const int panels, const bool packed, const struct bp_gemm *g, int j, int columns)
{
    int blocks = (g->m + TILE_ROWS - 1) / TILE_ROWS;
    for (int block = 0, i = 0; block < blocks; block++) {
        int rows = g->m / blocks + (block < g->m % blocks);
        switch (rows) {
            TILE_CASE(1)
            TILE_CASE(2)
#if TILE_ROWS >= 6
            TILE_CASE(3)
            TILE_CASE(4)
            TILE_CASE(5)
            TILE_CASE(6)
#endif
#if TILE_ROWS >= 12
            TILE_CASE(7)
            TILE_CASE(8)
            TILE_CASE(9)
            TILE_CASE(10)
            TILE_CASE(11)
            TILE_CASE(12)
#endif
        }
        i += rows;
    }
}

V16_INLINE void stripes(const bool packed, const struct bp_gemm *g)
{
    int j = 0;
#if TILE_PANELS == 2
    for (; g->n - j > BP_PANEL; j += 2 * BP_PANEL) {
        int left = g->n - j - BP_PANEL;
        stripe(2, packed, g, j, left < BP_PANEL ? left : BP_PANEL);
    }
#endif
    for (; j < g->n; j += BP_PANEL)
        stripe(1, packed, g, j, v16_count((size_t)j, (size_t)g->n));
}

static void kernel_gemm(const struct bp_gemm *g)
{
    if (g->b_row == 0)
        stripes(true, g);
    else
        stripes(false, g);
}
