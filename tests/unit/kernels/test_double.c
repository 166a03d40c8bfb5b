/* test_double.c: the double build of the generic kernels: slopes are the derivatives of the values.
 *
 * The source is compiled into this test with BP_DOUBLE, as the library bp_graph_f64 does, and each backward kernel
 * is held against central differences of its forward kernel: the same measure that the gradient check uses.
 */
#define BP_DOUBLE
#include "kernels/kernels_generic.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum { N = 21 };
static const double h = 1e-5;
static double x[N], dy[N], y[N], dx[N];

static double number(uint64_t seed, uint64_t i)
{
    uint32_t w[4];
    bp_random(seed, 0, 0, i, w);
    return bp_random_unit_d(w[0], w[1]) * 8 - 4;
}

static void fill_numbers(void)
{
    for (uint64_t i = 0; i < N; i++) {
        x[i] = number(1, i);
        dy[i] = number(2, i);
    }
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-8 * (1 + fabs(want))))
        fail_msg("got %.12g, want %.12g", got, want);
}

static void test_activations(void **state)
{
    (void)state;
    const struct bp_kernels *k = bp_kernels_current();
    fill_numbers();
    for (int kind = BP_LINEAR; kind < BP_SOFTMAX; kind++) {
        k->activation((enum bp_activation)kind, 0.3, N, x, y);
        k->activation_gradient((enum bp_activation)kind, 0.3, N, x, y, dy, dx, false);
        for (int i = 0; i < N; i++) {
            double at[2] = {x[i] - h, x[i] + h}, f[2];
            k->activation((enum bp_activation)kind, 0.3, 2, at, f);
            near(dx[i], dy[i] * (f[1] - f[0]) / (2 * h));
        }
    }
}

static double weighted_softmax(bool logarithm)
{
    double out[N], sum = 0;
    bp_kernels_current()->softmax(logarithm, 1, N, x, out);
    for (int i = 0; i < N; i++)
        sum += out[i] * dy[i];
    return sum;
}

static void test_softmax(void **state)
{
    (void)state;
    const struct bp_kernels *k = bp_kernels_current();
    fill_numbers();
    for (int logarithm = 0; logarithm < 2; logarithm++) {
        k->softmax(logarithm, 1, N, x, y);
        k->softmax_gradient(logarithm, 1, N, y, dy, dx, false);
        for (int i = 0; i < N; i++) {
            double kept = x[i];
            x[i] = kept + h;
            double above = weighted_softmax(logarithm);
            x[i] = kept - h;
            double below = weighted_softmax(logarithm);
            x[i] = kept;
            near(dx[i], (above - below) / (2 * h));
        }
    }
}

static double loss_of(int which, double *slope)
{
    static const int32_t label = 5;
    static const float weight = 1.5f;
    static const double target[N] = {0, 1, 0.5, 1, 0, 0.25};
    double loss;
    const struct bp_kernels *k = bp_kernels_current();
    if (which == 0)
        k->cross_entropy(1, N, x, &label, &weight, 0.5, &loss, slope);
    else if (which == 1)
        k->bce(1, N, x, target, &weight, 0.5, &loss, slope);
    else
        k->mse(1, N, x, target, &weight, 0.5, &loss, slope);
    return loss;
}

static void test_losses(void **state)
{
    (void)state;
    fill_numbers();
    for (int which = 0; which < 3; which++) {
        loss_of(which, dx);
        for (int i = 0; i < N; i++) {
            double kept = x[i];
            x[i] = kept + h;
            double above = loss_of(which, NULL);
            x[i] = kept - h;
            double below = loss_of(which, NULL);
            x[i] = kept;
            near(dx[i], 0.5 * 1.5 * (above - below) / (2 * h));
        }
    }
}

static void test_product(void **state)
{
    (void)state;
    const struct bp_kernels *k = bp_kernels_current();
    enum { SIZE = 1024 };
    static double a[SIZE], b[SIZE], packed[SIZE], c[SIZE];
    for (uint64_t i = 0; i < SIZE; i++) {
        a[i] = number(3, i);
        b[i] = number(4, i);
    }
    for (int m = 1; m < 8; m++) {
        int n = 3 * m, depth = 17;
        k->pack(packed, b, depth, n, 1, (size_t)depth);
        k->gemm(&(struct bp_gemm){.m = m,
                                  .n = n,
                                  .k = depth,
                                  .a = a,
                                  .a_row = (size_t)depth,
                                  .a_col = 1,
                                  .b = packed,
                                  .c = c,
                                  .c_row = (size_t)n});
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++) {
                double sum = 0;
                for (int p = 0; p < depth; p++)
                    sum += a[i * depth + p] * b[p + j * depth];
                near(c[i * n + j], sum);
            }
    }
}

static void test_name(void **state)
{
    (void)state;
    assert_string_equal(bp_kernels_current()->name, "generic");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_activations), cmocka_unit_test(test_softmax), cmocka_unit_test(test_losses),
        cmocka_unit_test(test_product),     cmocka_unit_test(test_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
