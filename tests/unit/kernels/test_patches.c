/* test_patches.c: products with patches of images, of every table against the plain definition, bit for bit. */
#include "support.h"

static float planes[1 << 15], b[1 << 15], packed[1 << 15], panels[1 << 16], c[1 << 15], y[1 << 15], want[1 << 15];
static int32_t row[512], col[512];

static const struct shape {
    int channels, taps_down, taps_across, step_down, step_across, height, width, down, across, filters;
} shapes[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1},     {3, 3, 3, 16, 1, 14, 14, 16, 1, 5}, {2, 3, 3, 30, 1, 4, 28, 30, 1, 32},
    {4, 1, 1, 1, 1, 7, 7, 7, 1, 16},    {2, 3, 5, 40, 2, 6, 9, 80, 2, 17},  {1, 2, 2, 90, 3, 3, 11, 90, 4, 40},
    {1, 1, 9, 1, 1, 1, 250, 1, 1, 33},  {5, 3, 2, -8, -1, 5, 3, 8, 1, 63},  {2, 2, 3, -20, -1, 2, 17, 20, 1, 47},
    {3, 3, 3, 40, 1, 13, 37, 40, 1, 8}, {6, 2, 2, 9, 1, 8, 2, 18, 1, 31},
};

static struct bp_patches patches_of(const struct shape *s)
{
    return (struct bp_patches){.planes = planes + 128, /* steps may go back */
                               .plane = 1500,
                               .taps_down = s->taps_down,
                               .taps_across = s->taps_across,
                               .step_down = s->step_down,
                               .step_across = s->step_across,
                               .width = s->width,
                               .down = (size_t)s->down,
                               .across = (size_t)s->across};
}

static int32_t tap_at(const struct shape *s, int q)
{
    int taps = s->taps_down * s->taps_across, t = q % taps;
    return q / taps * 1500 + t / s->taps_across * s->step_down + t % s->taps_across * s->step_across;
}

static int32_t position_at(const struct shape *s, int j)
{
    return j / s->width * s->down + j % s->width * s->across;
}

/* C (positions, filters), or its transpose where the taps are the rows, from a C that was something before. */
static void check_gathered(const struct bp_kernels *table, const struct shape *s, bool taps_are_rows, bool accumulate)
{
    int k = s->channels * s->taps_down * s->taps_across, m = s->height * s->width, n = s->filters;
    for (int q = 0; q < k; q++)
        (taps_are_rows ? row : col)[q] = tap_at(s, q);
    for (int j = 0; j < m; j++)
        (taps_are_rows ? col : row)[j] = position_at(s, j);
    if (taps_are_rows) {
        int swap = k;
        k = m, m = swap;
    }
    size_t c_row = bp_panels_size(1, n) + 16;
    for (size_t i = 0; i < (size_t)m * c_row; i++)
        c[i] = want[i] = plain(3, i);
    table->pack(packed, b, k, n, (size_t)n, 1);
    table->patch_gemm(&(struct bp_patch_gemm){.m = m,
                                              .n = n,
                                              .k = k,
                                              .a = planes + 128,
                                              .row = row,
                                              .col = col,
                                              .b = packed,
                                              .c = c,
                                              .c_row = c_row,
                                              .accumulate = accumulate});
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            float sum = 0, *to = want + (size_t)i * c_row + j;
            for (int p = 0; p < k; p++)
                sum = fmaf(planes[128 + row[i] + col[p]], b[p * n + j], sum);
            *to = accumulate ? *to + sum : sum;
            if (!same_bits(to, c + (size_t)i * c_row + j, 1))
                fail_msg("%s: shape %zu, row %d, column %d", table->name, (size_t)(s - shapes), i, j);
        }
}

static void products_of_gathered_patches(void **state)
{
    (void)state;
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    for (size_t i = 0; i < sizeof planes / sizeof *planes; i++) {
        planes[i] = awkward(1, i, true);
        b[i] = awkward(2, i, true);
    }
    for (int t = 0; t < ntables; t++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (unsigned mode = 0; mode < 4; mode++)
                check_gathered(tables[t], &shapes[i], mode & 1, mode & 2);
}

static void packed_patches(void **state)
{
    (void)state;
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    for (size_t i = 0; i < sizeof planes / sizeof *planes; i++)
        planes[i] = plain(1, i);
    for (int t = 0; t < ntables; t++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            const struct shape *s = &shapes[i];
            struct bp_patches patches = patches_of(s);
            int k = s->channels * s->taps_down * s->taps_across, n = s->height * s->width, q0 = k / 3, j0 = n / 4;
            tables[t]->patches(&patches, q0, k - q0, j0, n - j0, panels);
            for (int q = q0; q < k; q++)
                for (int j = j0; j < n; j++) {
                    const float *at = panels + (size_t)(j - j0) / 16 * (size_t)(k - q0) * 16;
                    if (at[(q - q0) * 16 + (j - j0) % 16] != patches.planes[tap_at(s, q) + position_at(s, j)])
                        fail_msg("%s: shape %zu, tap %d, position %d", tables[t]->name, i, q, j);
                }
        }
}

static void check_turn(const struct bp_kernels *table, int m, int n, bool biased, bool accumulate)
{
    size_t c_row = bp_panels_size(1, n), y_row = (size_t)m + 3;
    for (size_t i = 0; i < (size_t)n * y_row + 16; i++)
        y[i] = want[i] = plain(4, i);
    for (int j = 0; j < n; j++)
        for (int i = 0; i < m; i++) {
            float value = c[(size_t)i * c_row + (size_t)j] + (biased ? b[j] : 0), *to = want + (size_t)j * y_row + i;
            *to = accumulate ? *to + value : value;
        }
    table->turn(m, n, c, c_row, biased ? b : NULL, y, y_row, accumulate);
    if (!same_bits(y, want, (size_t)n * y_row + 16)) /* nothing between and behind the rows is touched */
        fail_msg("%s: %d x %d%s%s", table->name, m, n, biased ? ", bias" : "", accumulate ? ", accumulate" : "");
}

static void turned_results(void **state)
{
    (void)state;
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        c[i] = plain(1, i), b[i] = plain(2, i);
    for (int t = 0; t < ntables; t++)
        for (int i = 1; i <= 50; i++) {
            check_turn(tables[t], i, 1 + i * 7 % 67, i & 1, false);
            check_turn(tables[t], 1 + i * 11 % 67, i, false, i & 2);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_gathered_patches),
        cmocka_unit_test(packed_patches),
        cmocka_unit_test(turned_results),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
