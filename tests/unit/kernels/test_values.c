/* test_values.c: each kernel against its definition in double.
 *
 * Every table is run; test_bits shows that they agree, here it is that they are right.
 */
#include "support.h"

static double logistic(double x)
{
    return 1 / (1 + exp(-x));
}

static double log1pexp(double x)
{
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

static const double selu_scale = 1.0507009873554805, selu_alpha = 1.6732632423543772;

static double value(enum bp_activation kind, double a, double x)
{
    switch (kind) {
    case BP_LINEAR:
        return x;
    case BP_RELU:
        return x > 0 ? x : 0;
    case BP_LEAKY_RELU:
        return x > 0 ? x : a * x;
    case BP_ELU:
        return x > 0 ? x : a * expm1(x);
    case BP_SELU:
        return selu_scale * (x > 0 ? x : selu_alpha * expm1(x));
    case BP_GELU:
        return 0.5 * x * erfc(-x / sqrt(2));
    case BP_SILU:
        return x * logistic(x);
    case BP_MISH:
        return x * tanh(log1pexp(x));
    case BP_SIGMOID:
        return logistic(x);
    case BP_TANH:
        return tanh(x);
    case BP_SOFTPLUS:
        return log1pexp(x);
    case BP_SOFTSIGN:
        return x / (1 + fabs(x));
    case BP_HARD_SIGMOID:
        return fmin(fmax(x + 3, 0), 6) / 6;
    case BP_RELU6:
        return fmin(fmax(x, 0), 6);
    default:
        return NAN;
    }
}

static bool at_kink(enum bp_activation kind, double x)
{
    double d = 1e-3;
    switch (kind) {
    case BP_RELU:
    case BP_LEAKY_RELU:
    case BP_ELU:
    case BP_SELU:
        return fabs(x) < d;
    case BP_RELU6:
        return fabs(x) < d || fabs(x - 6) < d;
    case BP_HARD_SIGMOID:
        return fabs(x - 3) < d || fabs(x + 3) < d;
    default:
        return false;
    }
}

enum { N = 1203 };
static float x[N], y[N], dy[N], dx[N], t[N], scratch[N];

static void test_activations(void **state)
{
    (void)state;
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    for (int i = 0; i < N; i++) {
        x[i] = (float)(i - N / 2) * 0.021f;
        dy[i] = plain(1, (size_t)i);
    }
    for (int k = 0; k < ntables; k++)
        for (int kind = BP_LINEAR; kind < BP_SOFTMAX; kind++) {
            double a = 0.3;
            tables[k]->activation((enum bp_activation)kind, 0.3f, N, x, y);
            tables[k]->activation_gradient((enum bp_activation)kind, 0.3f, N, x, y, dy, dx, false);
            memcpy(scratch, t, sizeof t);
            for (int i = 0; i < N; i++)
                scratch[i] = dy[i]; /* in place */
            tables[k]->activation_gradient((enum bp_activation)kind, 0.3f, N, x, y, scratch, scratch, false);
            assert_memory_equal(scratch, dx, sizeof dx);
            for (int i = 0; i < N; i++) {
                double want = value((enum bp_activation)kind, a, x[i]);
                if (!(fabs(y[i] - want) <= 1e-6 * fabs(want) + 1e-37))
                    fail_msg("%s: activation %d of %g is %.9g, not %.9g", tables[k]->name, kind, (double)x[i],
                             (double)y[i], want);
                if (at_kink((enum bp_activation)kind, x[i]))
                    continue;
                double h = 1e-6, slope = (value((enum bp_activation)kind, a, x[i] + h) -
                                          value((enum bp_activation)kind, a, x[i] - h)) /
                                         (2 * h);
                if (!(fabs(dx[i] - dy[i] * slope) <= 5e-6))
                    fail_msg("%s: slope of activation %d at %g is %.9g, not %.9g", tables[k]->name, kind,
                             (double)x[i], (double)(dx[i] / dy[i]), slope);
            }
        }
}

static void test_slopes_at_the_kinks(void **state)
{
    (void)state;
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    static const struct {
        enum bp_activation kind;
        float x, slope;
    } kinks[] = {{BP_RELU, 0, 0},         {BP_RELU, -0.0f, 0},      {BP_LEAKY_RELU, 0, 0.3f},
                 {BP_ELU, 0, 0.3f},       {BP_RELU6, 0, 0},         {BP_RELU6, 6, 0},
                 {BP_HARD_SIGMOID, 3, 0}, {BP_HARD_SIGMOID, -3, 0}, {BP_SOFTSIGN, 0, 1}};
    for (int k = 0; k < ntables; k++)
        for (size_t i = 0; i < sizeof kinks / sizeof *kinks; i++) {
            float at = kinks[i].x, v, d = 1, got;
            tables[k]->activation(kinks[i].kind, 0.3f, 1, &at, &v);
            tables[k]->activation_gradient(kinks[i].kind, 0.3f, 1, &at, &v, &d, &got, false);
            assert_true(got == kinks[i].slope);
        }
}

static void test_nan_stays(void **state)
{
    (void)state;
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    float nan = NAN, v, d = 1, got;
    for (int k = 0; k < ntables; k++)
        for (int kind = BP_LINEAR; kind < BP_SOFTMAX; kind++) {
            tables[k]->activation((enum bp_activation)kind, 0.3f, 1, &nan, &v);
            assert_true(isnan(v));
            tables[k]->activation_gradient((enum bp_activation)kind, 0.3f, 1, &nan, &v, &nan, &got, false);
            assert_true(isnan(got));
            (void)d;
        }
}

/* relu with bits gives what relu gives without, every awkward number included, and so does its gradient. */
static void test_relu_with_bits(void **state)
{
    (void)state;
    const struct bp_kernels *tables[3];
    float in[101], signal[101], out[2][101], sent[2][101];
    uint16_t closed[7];
    for (int number = 0, n = tables_here(tables); number < 2 * n; number++) {
        const struct bp_kernels *k = tables[number / 2];
        bool add = number % 2;
        for (size_t i = 0; i < 101; i++) {
            in[i] = awkward(21, i, true);
            signal[i] = awkward(22, i, true);
            sent[0][i] = sent[1][i] = plain(23, i);
        }
        k->activation(BP_RELU, 0, 101, in, out[0]);
        k->activation_gradient(BP_RELU, 0, 101, NULL, out[0], signal, sent[0], add);
        k->relu(101, in, out[1], closed);
        k->relu_gradient(101, closed, signal, sent[1], add);
        assert_true(same_bits(out[0], out[1], 101));
        assert_true(same_bits(sent[0], sent[1], 101));
    }
}

static void test_softmax(void **state)
{
    (void)state;
    enum { ROWS = 3, WIDTH = 37 };
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    for (int i = 0; i < ROWS * WIDTH; i++) {
        x[i] = plain(3, (size_t)i) * (i < WIDTH ? 30.0f : 1.0f) + (i >= 2 * WIDTH ? 1000.0f : 0);
        dy[i] = plain(4, (size_t)i);
    }
    for (int k = 0; k < ntables; k++)
        for (int logarithm = 0; logarithm < 2; logarithm++) {
            tables[k]->softmax(logarithm, ROWS, WIDTH, x, y);
            tables[k]->softmax_gradient(logarithm, ROWS, WIDTH, y, dy, dx, false);
            memcpy(scratch, x, sizeof scratch);
            tables[k]->softmax(logarithm, ROWS, WIDTH, scratch, scratch);
            assert_memory_equal(scratch, y, sizeof(float) * ROWS * WIDTH); /* in place */
            for (int r = 0; r < ROWS; r++) {
                const float *xr = x + r * WIDTH, *d = dy + r * WIDTH;
                double max = -1e300, sum = 0, dot = 0;
                for (int i = 0; i < WIDTH; i++)
                    max = fmax(max, xr[i]);
                for (int i = 0; i < WIDTH; i++)
                    sum += exp(xr[i] - max);
                for (int i = 0; i < WIDTH; i++)
                    dot += d[i] * (logarithm ? 1 : exp(xr[i] - max) / sum);
                for (int i = 0; i < WIDTH; i++) {
                    double p = exp(xr[i] - max) / sum, want = logarithm ? xr[i] - max - log(sum) : p;
                    double slope = logarithm ? d[i] - p * dot : p * (d[i] - dot);
                    assert_true(fabs(y[r * WIDTH + i] - want) <= 3e-5 * fabs(want) + 1e-37); /* of x - max */
                    assert_true(fabs(dx[r * WIDTH + i] - slope) <= 1e-5);
                }
            }
        }
}

static void test_cross_entropy(void **state)
{
    (void)state;
    enum { ROWS = 4, WIDTH = 21 };
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    const int32_t label[ROWS] = {0, 20, 7, 3};
    const float weight[ROWS] = {1, 0, 2.5f, 0.5f};
    float loss[ROWS];
    for (int i = 0; i < ROWS * WIDTH; i++)
        x[i] = plain(6, (size_t)i) * (i < WIDTH ? 1e4f : 1.0f);
    for (int k = 0; k < ntables; k++) {
        tables[k]->cross_entropy(ROWS, WIDTH, x, label, weight, 0.25f, loss, dx);
        for (int r = 0; r < ROWS; r++) {
            const float *xr = x + r * WIDTH;
            double max = -1e300, sum = 0;
            for (int i = 0; i < WIDTH; i++)
                max = fmax(max, xr[i]);
            for (int i = 0; i < WIDTH; i++)
                sum += exp(xr[i] - max);
            double want = log(sum) + max - xr[label[r]];
            assert_true(fabs(loss[r] - want) <= 1e-6 * (1 + want));
            for (int i = 0; i < WIDTH; i++) {
                double slope = 0.25 * weight[r] * (exp(xr[i] - max) / sum - (i == label[r]));
                assert_true(fabs(dx[r * WIDTH + i] - slope) <= 1e-6);
            }
        }
        x[WIDTH + 5] = NAN;
        tables[k]->cross_entropy(ROWS, WIDTH, x, label, NULL, 1, loss, NULL);
        assert_true(isnan(loss[1]) && isfinite(loss[0]) && isfinite(loss[2]));
        x[WIDTH + 5] = 1;
    }
}

static void test_bce_and_mse(void **state)
{
    (void)state;
    enum { ROWS = 3, WIDTH = 19 };
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    const float weight[ROWS] = {1, 3, 0.5f};
    float loss[ROWS];
    for (int i = 0; i < ROWS * WIDTH; i++) {
        x[i] = plain(7, (size_t)i) * (i < WIDTH ? 100.0f : 1.0f);
        t[i] = i % 3 == 0 ? 0.0f : i % 3 == 1 ? 1.0f : 0.3f;
    }
    for (int k = 0; k < ntables; k++)
        for (int squared = 0; squared < 2; squared++) {
            if (squared)
                tables[k]->mse(ROWS, WIDTH, x, t, weight, 0.5f, loss, dx);
            else
                tables[k]->bce(ROWS, WIDTH, x, t, weight, 0.5f, loss, dx);
            for (int r = 0; r < ROWS; r++) {
                double sum = 0;
                for (int i = r * WIDTH; i < (r + 1) * WIDTH; i++) {
                    double e = (double)x[i] - t[i];
                    double slope = squared ? 2 * e : logistic(x[i]) - t[i];
                    sum += squared ? e * e : log1pexp(x[i]) - (double)x[i] * t[i];
                    slope *= 0.5 * weight[r] / WIDTH;
                    assert_true(fabs(dx[i] - slope) <= 1e-6 * (1 + fabs(slope)));
                }
                assert_true(fabs(loss[r] - sum / WIDTH) <= 2e-6 * (1 + sum / WIDTH));
            }
        }
}

static void test_dropout_follows_the_words(void **state)
{
    (void)state;
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    const float rates[] = {0, 0.1f, 0.5f, 0.999f};
    const uint64_t seed = 99, step = ((uint64_t)1 << 40) + 3;
    uint32_t stream = bp_stream(BP_STREAM_DROPOUT, 17);
    for (int i = 0; i < N; i++)
        x[i] = plain(8, (size_t)i);
    for (int k = 0; k < ntables; k++)
        for (size_t q = 0; q < sizeof rates / sizeof *rates; q++)
            for (uint64_t first = 0; first < 6; first++) {
                uint64_t at = first + ((uint64_t)5 << 34) - 40; /* the index passes a multiple of 2^32 */
                int dropped = 0;
                tables[k]->dropout(N, x, y, seed, stream, step, at, rates[q], false);
                for (uint64_t i = 0; i < N; i++) {
                    uint32_t w[4];
                    bp_random(seed, stream, step, (at + i) / 4, w);
                    bool drop = bp_random_unit(w[(at + i) % 4]) < rates[q];
                    float want = drop ? 0 : x[i] / (1 - rates[q]);
                    dropped += drop;
                    assert_true(y[i] == want);
                }
                assert_true(fabs(dropped / (double)N - rates[q]) < 0.06);
            }
}

static void test_sums(void **state)
{
    (void)state;
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    for (int i = 0; i < N; i++)
        x[i] = plain(9, (size_t)i);
    for (int k = 0; k < ntables; k++) {
        long double want = 0;
        for (int i = 0; i < N; i++)
            want += (long double)x[i] * x[i];
        assert_true(fabsl(tables[k]->sum_squares(N, x) / want - 1) < 1e-15L);
        assert_true(tables[k]->sum_squares(0, x) == 0);
        tables[k]->column_sum(10, 100, x, 120, y, false);
        for (int j = 0; j < 100; j++) {
            float sum = 0;
            for (int r = 0; r < 10; r++)
                sum += x[r * 120 + j];
            assert_true(y[j] == sum);
        }
        x[77] = INFINITY;
        assert_false(isfinite(tables[k]->sum_squares(N, x)));
        x[77] = NAN;
        assert_false(isfinite(tables[k]->sum_squares(N, x)));
        x[77] = 1e30f; /* its square is no float */
        assert_true(isfinite(tables[k]->sum_squares(N, x)));
        x[77] = plain(9, 77);
    }
}

static void test_updates(void **state)
{
    (void)state;
    enum { COUNT = 53, STEPS = 20 };
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    for (int k = 0; k < ntables; k++)
        for (int rule = 0; rule < 4; rule++) { /* sgd, momentum, nesterov, adam */
            static double p[COUNT], m[COUNT], v[COUNT];
            static float fp[COUNT], fm[COUNT], fv[COUNT], g[COUNT];
            for (int i = 0; i < COUNT; i++) {
                p[i] = fp[i] = plain(10, (size_t)i);
                m[i] = v[i] = fm[i] = fv[i] = 0;
            }
            for (int step = 1; step <= STEPS; step++) {
                double b1 = 0.9f, b2 = 0.999f, lr = 0.01f, decay = rule == 2 ? 0 : 0.01f, shrink = 0.9995f;
                struct bp_update u = {.lr = 0.01f,
                                      .grad_scale = 0.5f,
                                      .decay = (float)decay,
                                      .shrink = (float)shrink,
                                      .momentum = 0.9f,
                                      .nesterov = rule == 2,
                                      .first = step == 1,
                                      .beta1 = 0.9f,
                                      .beta2 = 0.999f,
                                      .eps = 1e-8f,
                                      .step_size = (float)(lr / (1 - pow(b1, step))),
                                      .root_scale = (float)(1 / sqrt(1 - pow(b2, step)))};
                for (int i = 0; i < COUNT; i++) {
                    g[i] = plain(11, (size_t)(i + step * COUNT));
                    double d = 0.5 * g[i] + decay * p[i];
                    p[i] *= (float)shrink;
                    if (rule == 3) {
                        m[i] = b1 * m[i] + (1 - b1) * d;
                        v[i] = b2 * v[i] + (1 - b2) * d * d;
                        p[i] -= lr / (1 - pow(b1, step)) * m[i] / (sqrt(v[i] / (1 - pow(b2, step))) + 1e-8);
                        continue;
                    }
                    m[i] = step == 1 || rule == 0 ? d : b1 * m[i] + d;
                    p[i] -= lr * (rule == 2 ? d + b1 * m[i] : m[i]);
                }
                if (rule == 3)
                    tables[k]->adam(COUNT, &u, fp, g, fm, fv);
                else
                    tables[k]->sgd(COUNT, &u, fp, g, rule == 0 ? NULL : fm);
            }
            for (int i = 0; i < COUNT; i++)
                assert_true(fabs(fp[i] - p[i]) < 1e-5);
        }
}

static void test_denormal_moments_become_zero(void **state)
{
    (void)state;
    const struct bp_kernels *tables[3];
    int ntables = tables_here(tables);
    struct bp_update u = {.lr = 1,
                          .grad_scale = 1,
                          .shrink = 1,
                          .momentum = 0.5f,
                          .beta1 = 0.5f,
                          .beta2 = 0.5f,
                          .eps = 1e-8f,
                          .step_size = 1,
                          .root_scale = 1};
    for (int k = 0; k < ntables; k++) {
        float p[3] = {1, 1, 1}, g[3] = {0, 0, 0}, m[3] = {0x1p-126f, -0x1p-126f, 0x1p-125f}, v[3] = {0x1p-126f, 0, 1};
        tables[k]->adam(3, &u, p, g, m, v);
        assert_true(m[0] == 0 && m[1] == 0 && m[2] == 0x1p-126f && v[0] == 0 && v[2] == 0.5f);
        float b[2] = {0x1p-126f, NAN};
        tables[k]->sgd(2, &u, p, g, b);
        assert_true(b[0] == 0 && isnan(b[1]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_slopes_at_the_kinks),
        cmocka_unit_test(test_nan_stays),
        cmocka_unit_test(test_relu_with_bits),
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_cross_entropy),
        cmocka_unit_test(test_bce_and_mse),
        cmocka_unit_test(test_dropout_follows_the_words),
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_updates),
        cmocka_unit_test(test_denormal_moments_become_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
