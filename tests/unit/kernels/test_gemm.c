/* test_gemm.c: packing and products of every table against the plain definition, bit for bit. */
#include "support.h"

static _Alignas(64) float packed[1 << 17];
static float a[1 << 17], b[1 << 17], c[1 << 16], want[1 << 16], bias[1024];

static void fill_numbers(bool rough)
{
    for (size_t i = 0; i < sizeof a / sizeof *a; i++) {
        a[i] = rough ? awkward(1, i, true) : plain(1, i);
        b[i] = rough ? awkward(2, i, true) : plain(2, i);
    }
    for (size_t i = 0; i < sizeof bias / sizeof *bias; i++)
        bias[i] = plain(3, i);
}

/* The contract of struct bp_gemm, literally; B is given unpacked. */
static void reference(const struct bp_gemm *g, const float *from, size_t row, size_t col, float *out)
{
    for (int i = 0; i < g->m; i++)
        for (int j = 0; j < g->n; j++) {
            float sum = 0;
            for (int p = 0; p < g->k; p++)
                sum = fmaf(g->a[(size_t)i * g->a_row + (size_t)p * g->a_col], from[(size_t)p * row + (size_t)j * col],
                           sum);
            float *to = out + (size_t)i * g->c_row + j;
            *to = g->accumulate ? *to + sum : g->bias ? sum + g->bias[j] : g->row_bias ? sum + g->row_bias[i] : sum;
        }
}

/* mode, bits: A transposed, B transposed, accumulate, bias, wider rows of C, a bias of the row */
static void check(const struct bp_kernels *table, int m, int n, int k, unsigned mode)
{
    bool a_turned = mode & 1, b_turned = mode & 2, accumulate = mode & 4, biased = (mode & 8) && !accumulate;
    size_t row = b_turned ? 1 : (size_t)n, col = b_turned ? (size_t)k : 1;
    struct bp_ahead ahead = {.count = 2, .at = {c, want}, .row = (size_t)n}; /* changes nothing */
    struct bp_gemm g = {.m = m,
                        .n = n,
                        .k = k,
                        .a = a,
                        .a_row = a_turned ? 1 : (size_t)k,
                        .a_col = a_turned ? (size_t)m : 1,
                        .b = packed,
                        .c = c,
                        .c_row = (size_t)n + (mode & 16 ? 3 : 0),
                        .bias = biased ? bias : NULL,
                        .row_bias = (mode & 44) == 32 ? bias : NULL,
                        .accumulate = accumulate,
                        .ahead = m % 2 ? &ahead : NULL};
    size_t size = (size_t)m * g.c_row + 32;
    for (size_t i = 0; i < size; i++)
        c[i] = want[i] = plain(9, i);
    memset(packed, 0xff, sizeof(float) * (bp_panels_size(k, n) + 16));
    table->pack(packed, b, k, n, row, col);
    table->gemm(&g);
    reference(&g, b, row, col, want);
    if (!same_bits(c, want, size)) /* what lies between and behind the rows is untouched */
        fail_msg("%s: m %d n %d k %d mode %u", table->name, m, n, k, mode);
    if (b_turned || n % BP_PANEL != 0)
        return;
    for (size_t i = 0; i < size; i++)
        c[i] = plain(9, i);
    g.b = b; /* as it lies there */
    g.b_row = (size_t)n;
    table->gemm(&g);
    if (!same_bits(c, want, size))
        fail_msg("%s: m %d n %d k %d mode %u, B not packed", table->name, m, n, k, mode);
}

static void each_size(bool rough)
{
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    fill_numbers(rough);
    for (int t = 0; t < ntables; t++) {
        for (int i = 1; i <= 67; i++) { /* each size once in each place, in all modes in turn */
            check(tables[t], i, 1 + (i * 7) % 67, 1 + (i * 5) % 61, (unsigned)i % 64);
            check(tables[t], 1 + (i * 11) % 67, i, 1 + (i * 3) % 61, (unsigned)(i * 5) % 64);
            check(tables[t], 1 + (i * 13) % 67, 1 + (i * 17) % 67, i, (unsigned)(i * 11) % 64);
        }
        for (unsigned mode = 0; mode < 64; mode++) {
            check(tables[t], 13, 33, 17, mode);
            check(tables[t], 12, 32, 64, mode);
            check(tables[t], 17, 48, 29, mode);
            check(tables[t], 5, 16, 33, mode);
            check(tables[t], 1, 1, 1, mode);
        }
        check(tables[t], 37, 53, 785, 8);
        check(tables[t], 53, 37, 785, 7);
    }
}

static void test_products_of_plain_numbers(void **state)
{
    (void)state;
    each_size(false);
}

static void test_products_of_awkward_numbers(void **state)
{
    (void)state;
    each_size(true);
}

static void test_packing(void **state)
{
    (void)state;
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    fill_numbers(false);
    for (int t = 0; t < ntables; t++)
        for (int k = 1; k < 40; k += 3)
            for (int n = 1; n < 70; n += 5)
                for (int way = 0; way < 4; way++) {
                    bool turned = way & 1, past = way & 2;
                    size_t row = turned ? 1 : (size_t)n + 2, col = turned ? (size_t)k + 1 : 1;
                    size_t size = bp_panels_size(k, n);
                    packed[size] = 77;
                    memset(packed, 0xff, sizeof(float) * size);
                    (past ? tables[t]->pack_past : tables[t]->pack)(packed, b, k, n, row, col);
                    tables[t]->pack_end();
                    for (size_t i = 0; i < size; i++) {
                        size_t j = i / ((size_t)k * 16) * 16 + i % 16, p = i / 16 % (size_t)k;
                        float w = j < (size_t)n ? b[p * row + j * col] : 0;
                        assert_memory_equal(packed + i, &w, sizeof w);
                    }
                    assert_true(packed[size] == 77);
                }
}

static void test_no_depth_gives_the_bias(void **state)
{
    (void)state;
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    fill_numbers(false);
    for (int t = 0; t < ntables; t++) {
        struct bp_gemm g = {
            .m = 5, .n = 20, .k = 0, .a = a, .a_row = 1, .a_col = 1, .b = packed, .c = c, .c_row = 20};
        g.bias = bias;
        tables[t]->gemm(&g);
        for (int i = 0; i < 100; i++)
            assert_true(c[i] == bias[i % 20]);
    }
}

/* Whether an epilogue gives what the activation gives after the product. mode, bits: the gradient, y aside (forward), wider
 * rows of C, a bias, a bias of the row, accumulate. */
static void check_epilogue(const struct bp_kernels *table, enum bp_activation kind, int m, int n, int k,
                           unsigned mode)
{
    static float x[1 << 13], y[1 << 13], y_want[1 << 13];
    struct bp_epilogue e = {.kind = kind, .alpha = 0.3f, .gradient = mode & 1, .x = x};
    struct bp_gemm g = {.m = m,
                        .n = n,
                        .k = k,
                        .a = a,
                        .a_row = (size_t)k,
                        .a_col = 1,
                        .b = packed,
                        .c = want,
                        .c_row = (size_t)n + (mode & 4 ? 3 : 0),
                        .bias = mode & 8 ? bias : NULL,
                        .row_bias = (mode & 24) == 16 ? bias : NULL,
                        .accumulate = (mode & 56) == 32};
    size_t size = (size_t)m * g.c_row + 32;
    for (size_t i = 0; i < size; i++) {
        c[i] = want[i] = plain(9, i);
        x[i] = awkward(10, i, true);
        y[i] = y_want[i] = awkward(11, i, true);
    }
    e.y = !e.gradient && !(mode & 2) ? c : y;
    table->pack(packed, b, k, n, (size_t)n, 1);
    table->gemm(&g);
    for (size_t at = 0, r = 0; r < (size_t)m; r++, at += g.c_row) {
        if (e.gradient)
            table->activation_gradient(kind, e.alpha, (size_t)n, x + at, y + at, want + at, want + at, false);
        else
            table->activation(kind, e.alpha, (size_t)n, want + at, e.y == c ? want + at : y_want + at);
    }
    g.c = c;
    g.epilogue = e;
    table->gemm(&g);
    if (!same_bits(c, want, size) || !same_bits(y, y_want, size))
        fail_msg("%s: activation %d, m %d n %d k %d mode %u", table->name, (int)kind, m, n, k, mode);
}

static void test_epilogues(void **state)
{
    (void)state;
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    fill_numbers(true);
    for (int t = 0; t < ntables; t++)
        for (enum bp_activation kind = BP_RELU; kind < BP_SOFTMAX; kind++)
            for (unsigned mode = 0; mode < 64; mode++) {
                check_epilogue(tables[t], kind, 13, 33, 7, mode);
                check_epilogue(tables[t], kind, 1 + (int)mode, 16, 4, mode);
                check_epilogue(tables[t], kind, 11, 1 + (int)mode, 3, mode);
                check_epilogue(tables[t], kind, 25, 64, 1, mode);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_of_plain_numbers),
        cmocka_unit_test(test_products_of_awkward_numbers),
        cmocka_unit_test(test_packing),
        cmocka_unit_test(test_no_depth_gives_the_bias),
        cmocka_unit_test(test_epilogues),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
