/* test_math.c: the error of the float functions of vmath.h, in units of the last place, against libm's doubles.
 *
 * The portable form is measured; test_bits shows that the others have the same bits.
 */
#include "kernels/vmath.h"

#include "support.h"

typedef v16 vector_function(v16 x);
typedef double exact_function(double x);

struct worst {
    double error;
    float at;
};

/* Every `step`th float of [low, high] by its bits, both of one sign. */
static void sweep(vector_function *f, exact_function *exact, float low, float high, uint32_t step,
                  struct worst *worst)
{
    uint32_t first, last;
    memcpy(&first, &low, sizeof first);
    memcpy(&last, &high, sizeof last);
    if (first > last) {
        uint32_t kept = first;
        first = last;
        last = kept;
    }
    for (uint64_t bits = first; bits <= last; bits += (uint64_t)step * LANES) {
        float in[LANES], got[LANES];
        for (int l = 0; l < LANES; l++) {
            uint64_t b = bits + (uint64_t)l * step;
            uint32_t word = b < last ? (uint32_t)b : last;
            memcpy(in + l, &word, sizeof word);
        }
        v16_store(got, f(v16_load(in)));
        for (int l = 0; l < LANES; l++) {
            double error = ulps(got[l], exact(in[l]));
            if (error > worst->error)
                *worst = (struct worst){error, in[l]};
        }
    }
}

static double softplus(double x)
{
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static double normal_below(double x)
{
    return 0.5 * erfc(-x / sqrt(2));
}

static double normal_density(double x)
{
    return exp(-x * x / 2) / sqrt(2 * acos(-1));
}

static v16 exp_(v16 x)
{
    return v16_exp(x);
}

static v16 expm1_(v16 x)
{
    return v16_expm1(x);
}

static v16 log_(v16 x)
{
    return v16_log(x);
}

static v16 log1p_(v16 x)
{
    return v16_log1p_unit(x);
}

static v16 tanh_(v16 x)
{
    return v16_tanh(x);
}

static v16 sigmoid_(v16 x)
{
    return v16_sigmoid(x);
}

static v16 softplus_(v16 x)
{
    return v16_softplus(x);
}

static v16 normal_below_(v16 x)
{
    return v16_normal_below(x);
}

static v16 normal_density_(v16 x)
{
    return v16_normal_density(x);
}

static const struct {
    const char *name;
    vector_function *f;
    exact_function *exact;
    float low, high; /* both signs are swept from the smallest denormal where low is negative */
    double limit;
} functions[] = {
    {"exp", exp_, exp, -110, 90, 1.5},
    {"expm1", expm1_, expm1, -90, 88, 2},
    {"log", log_, log, 0, 0x1.fffffep127f, 1.5},
    {"log1p", log1p_, log1p, 0, 1, 1.5},
    {"tanh", tanh_, tanh, -100, 100, 2.5},
    {"sigmoid", sigmoid_, sigmoid, -110, 110, 2.5},
    {"softplus", softplus_, softplus, -110, 0x1p127f, 2.5},
    {"normal_below", normal_below_, normal_below, -14.8f, 100, 5},
    {"normal_density", normal_density_, normal_density, -14.8f, 14.8f, 4},
};

static void test_errors(void **state)
{
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        struct worst worst = {0, 0};
        const uint32_t step = 1009; /* odd and prime: all low bits get their turn */
        sweep(functions[i].f, functions[i].exact, 0, functions[i].high, step, &worst);
        if (functions[i].low < 0)
            sweep(functions[i].f, functions[i].exact, -0.0f, functions[i].low, step, &worst);
        print_message("%s: at most %.2f ULP, at %a\n", functions[i].name, worst.error, (double)worst.at);
        if (!(worst.error <= functions[i].limit))
            wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* Every float of the stretch where the fits and the reductions meet. */
static void test_errors_near_one(void **state)
{
    (void)state;
    struct worst worst = {0, 0};
    sweep(log_, log, 0.999f, 1.001f, 1, &worst);
    sweep(log_, log, 0.70f, 0.72f, 7, &worst);
    sweep(exp_, exp, 0.34f, 0.35f, 7, &worst);
    sweep(log1p_, log1p, 0.41f, 0.42f, 1, &worst);
    assert_true(worst.error <= 1.5);
}

static float one(vector_function *f, float x)
{
    return v16_lane0(f(v16_set(x)));
}

static void test_special_values(void **state)
{
    (void)state;
    const float inf = INFINITY, nan = NAN;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        assert_true(isnan(one(functions[i].f, nan)));
    assert_true(one(exp_, 0) == 1 && one(exp_, -0.0f) == 1);
    assert_true(one(exp_, inf) == inf && one(exp_, -inf) == 0);
    assert_true(one(exp_, 89) == inf && one(exp_, -104) == 0 && one(exp_, -103) > 0);
    assert_true(one(expm1_, -inf) == -1 && one(expm1_, 0) == 0);
    assert_true(one(log_, 0) == -inf && one(log_, -0.0f) == -inf && one(log_, inf) == inf && one(log_, 1) == 0);
    assert_true(isnan(one(log_, -1)) && isnan(one(log_, -inf)));
    assert_true(one(tanh_, inf) == 1 && one(tanh_, -inf) == -1);
    assert_true(one(tanh_, 0) == 0 && signbit(one(tanh_, -0.0f)));
    assert_true(one(tanh_, 0x1p-149f) == 0x1p-149f);
    assert_true(one(sigmoid_, inf) == 1 && one(sigmoid_, -inf) == 0 && one(sigmoid_, 0) == 0.5f);
    assert_true(one(softplus_, inf) == inf && one(softplus_, -inf) == 0);
    assert_true(one(normal_below_, inf) == 1 && one(normal_below_, -inf) == 0 && one(normal_below_, 0) == 0.5f);
}

/* A row sum is the fixed tree, and a maximum takes the second of two where one is NaN. */
static void test_lanes(void **state)
{
    (void)state;
    float x[LANES], nan[LANES];
    for (int i = 0; i < LANES; i++) {
        x[i] = awkward(5, (size_t)i, false);
        nan[i] = NAN;
    }
    float h[8], q[4];
    for (int i = 0; i < 8; i++)
        h[i] = x[i] + x[i + 8];
    for (int i = 0; i < 4; i++)
        q[i] = h[i] + h[i + 4];
    float want = (q[0] + q[2]) + (q[1] + q[3]), got = v16_sum(v16_load(x));
    assert_memory_equal(&got, &want, sizeof want);
    assert_true(v16_lane0(v16_max(v16_load(nan), v16_load(x))) == x[0]);
    assert_true(isnan(v16_lane0(v16_max(v16_load(x), v16_load(nan)))));
    assert_true(isnan(v16_lane0(v16_min(v16_load(x), v16_load(nan)))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_errors_near_one),
        cmocka_unit_test(test_special_values),
        cmocka_unit_test(test_lanes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
