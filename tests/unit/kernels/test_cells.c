/* test_cells.c: the lstm and gru cells: all tables give the same bits, these are the formulas, and what goes round a
 * slot stays as it was. */
#include "support.h"

enum { ROWS = 3, UNITS = 67, PARTS = 6, ROW = PARTS * UNITS + 5, GATES = 4 };

/* A cell of `units` over buffers filled from a seed. */
struct fixture {
    float slot[ROWS * ROW], before[ROWS * ROW], next[ROWS * ROW], hidden[ROWS * GATES * UNITS];
    float y[ROWS * (UNITS + 3)], dy[ROWS * (UNITS + 3)], dh[ROWS * UNITS], dc[ROWS * UNITS];
    struct bp_cell cell;
};

typedef float number(uint32_t seed, size_t i);

static float small(uint32_t seed, size_t i)
{
    return plain(seed, i) / 2;
}

static float wild(uint32_t seed, size_t i)
{
    return awkward(seed, i, true);
}

static void fill(float *p, size_t n, number *make, uint32_t seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = make(seed, i);
}

#define FILL(member, seed) fill(f->member, sizeof f->member / sizeof *f->member, make, seed)
static void set_up(struct fixture *f, int units, number *make)
{
    FILL(slot, 1);
    FILL(before, 2);
    FILL(next, 3);
    FILL(hidden, 4);
    FILL(y, 5);
    FILL(dy, 6);
    FILL(dh, 7);
    FILL(dc, 8);
    f->cell = (struct bp_cell){.rows = ROWS,
                               .units = units,
                               .row = ROW,
                               .slot = f->slot,
                               .before = f->before,
                               .hidden = f->hidden,
                               .next = f->next,
                               .y = f->y,
                               .dy = f->dy,
                               .y_row = (size_t)units + 3,
                               .dh = f->dh,
                               .dc = f->dc};
}

/* Forward and backward of a cell one after the other; form: bit 0 the first step, bit 1 without next, y and dy. */
static void run(const struct bp_kernels *k, bool lstm, int form, struct fixture *f)
{
    if (form & 1)
        f->cell.before = NULL;
    if (form & 2) {
        f->cell.next = NULL;
        f->cell.dy = NULL;
    }
    (lstm ? k->lstm : k->gru)(&f->cell);
    (lstm ? k->lstm_gradient : k->gru_gradient)(&f->cell);
}

static uint64_t hash_fixture(const struct fixture *f)
{
    return hash_floats(HASH_START, f->slot, offsetof(struct fixture, cell) / sizeof(float));
}

static void the_same_bits(void **state)
{
    static const int sizes[] = {1, 2, 15, 16, 17, 31, 33, 48, 67};
    const struct bp_kernels *tables[3];
    int n = tables_here(tables);
    struct fixture *f = malloc(sizeof *f);
    (void)state;
    for (int lstm = 0; lstm < 2; lstm++)
        for (int form = 0; form < 4; form++)
            for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
                for (int odd = 0; odd < 2; odd++) {
                    uint64_t first = 0;
                    for (int t = 0; t < n; t++) {
                        set_up(f, sizes[s], odd ? wild : small);
                        run(tables[t], lstm, form, f);
                        uint64_t hash = hash_fixture(f);
                        assert_true(t == 0 || hash == first);
                        first = hash;
                    }
                }
    free(f);
}

static double squash(double x)
{
    return 1 / (1 + exp(-x));
}

static void near(float got, double want)
{
    if (!(fabs(got - want) <= 2e-6 * fmax(1, fabs(want))))
        fail_msg("%.9g is not %.9g", (double)got, want);
}

static void lstm_is_what_it_says(void **state)
{
    struct fixture *f = malloc(sizeof *f), *g = malloc(sizeof *g);
    enum { N = UNITS };
    (void)state;
    set_up(f, N, small);
    set_up(g, N, small);
    run(bp_kernels_current(), true, 0, g);
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < N; j++) {
            const float *s = f->slot + r * ROW, *h = f->hidden + r * 4 * N, *after = g->slot + r * ROW;
            double a[4], past = f->before[r * ROW + 4 * N + j];
            for (int q = 0; q < 4; q++)
                a[q] = (double)s[q * N + j] + (double)h[q * N + j];
            double i = squash(a[0]), fo = squash(a[1]), c = tanh(a[2]), o = squash(a[3]);
            double cell = fo * past + i * c, t = tanh(cell);
            near(g->next[r * ROW + j], o * t);
            near(g->y[r * (N + 3) + j], o * t);
            near(after[4 * N + j], cell);
            assert_true(after[5 * N + j] == s[5 * N + j]);
            double d = (double)f->dh[r * N + j] + (double)f->dy[r * (N + 3) + j];
            double dc = (double)f->dc[r * N + j] + d * o * (1 - t * t);
            near(after[j], dc * c * i * (1 - i));
            near(after[N + j], dc * past * fo * (1 - fo));
            near(after[2 * N + j], dc * i * (1 - c * c));
            near(after[3 * N + j], d * t * o * (1 - o));
            near(g->dc[r * N + j], dc * fo);
        }
    free(f);
    free(g);
}

static void gru_is_what_it_says(void **state)
{
    struct fixture *f = malloc(sizeof *f), *g = malloc(sizeof *g);
    enum { N = UNITS };
    (void)state;
    set_up(f, N, small);
    set_up(g, N, small);
    run(bp_kernels_current(), false, 0, g);
    for (int row = 0; row < ROWS; row++)
        for (int j = 0; j < N; j++) {
            const float *s = f->slot + row * ROW, *hidden = f->hidden + row * 3 * N, *after = g->slot + row * ROW;
            double r = squash((double)s[j] + (double)hidden[j]);
            double z = squash((double)s[N + j] + (double)hidden[N + j]);
            double q = hidden[2 * N + j], h = s[4 * N + j], n = tanh((double)s[2 * N + j] + r * q);
            near(g->next[row * ROW + j], (1 - z) * n + z * h);
            near(g->y[row * (N + 3) + j], (1 - z) * n + z * h);
            assert_true(after[4 * N + j] == s[4 * N + j]);
            double d = (double)f->dh[row * N + j] + (double)f->dy[row * (N + 3) + j];
            double dn = d * (1 - z) * (1 - n * n), dr = dn * q * r * (1 - r), dz = d * (h - n) * z * (1 - z);
            near(after[j], dr);
            near(after[N + j], dz);
            near(after[2 * N + j], dn);
            near(after[3 * N + j], dn * r);
            near(g->hidden[row * 3 * N + j], dr);
            near(g->hidden[row * 3 * N + N + j], dz);
            near(g->hidden[row * 3 * N + 2 * N + j], dn * r);
            near(g->dh[row * N + j], d * z);
        }
    free(f);
    free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_bits),
        cmocka_unit_test(lstm_is_what_it_says),
        cmocka_unit_test(gru_is_what_it_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
